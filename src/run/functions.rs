//! `diptych functions [NAME]`
use datafusion::logical_expr::{Documentation, ScalarUDF};
use serde::Serialize;

use super::output;
use crate::{
    error::{Error, Result, Stage},
    pair::two_views_function,
    schema::alike,
    select::functions::{clip_score, function::Group, over},
};

/// One function as `--json` lists it.
#[derive(Debug, Serialize)]
struct Listed<'a> {
    name: &'a str,
    group: &'a str,
    syntax: &'a str,
    description: &'a str,
    arguments: Vec<Argument<'a>>,
    example: &'a str,
}

#[derive(Debug, Serialize)]
struct Argument<'a> {
    name: &'a str,
    description: &'a str,
}

/// Lists all functions of ours, or prints the documentation of one.
///
/// # Errors
/// There is none of that name.
pub fn run(name: Option<&str>, json: bool) -> Result<()> {
    let functions = over([]);
    let (two_views, clip_score) = (two_views_function::documentation(), clip_score::documentation());
    let mut documented: Vec<(&str, &Documentation)> = functions.iter().filter_map(documentation).collect();
    documented.push((clip_score::NAME, &clip_score));
    documented.push(("two_views", &two_views));
    if let Some(name) = name {
        if !documented.iter().any(|(known, _)| *known == name) {
            return Err(unknown(name, documented.iter().map(|(known, _)| *known)));
        }
        documented.retain(|(known, _)| *known == name);
    }
    let listed: Vec<Listed<'_>> = documented.iter().map(|(name, documentation)| listed(name, documentation)).collect();
    match name {
        _ if json => output::json(&serde_json::json!({ "functions": listed })),
        Some(_) => listed.iter().try_for_each(|listed| output::line(&page(listed))),
        None => output::line(&list(&listed)),
    }
}

fn documentation(function: &ScalarUDF) -> Option<(&str, &Documentation)> {
    Some((function.name(), function.documentation()?))
}

fn listed<'a>(name: &'a str, documentation: &'a Documentation) -> Listed<'a> {
    let arguments = documentation.arguments.iter().flatten();
    Listed {
        name,
        group: documentation.doc_section.label,
        syntax: &documentation.syntax_example,
        description: &documentation.description,
        arguments: arguments.map(|(name, description)| Argument { name, description }).collect(),
        example: documentation.sql_example.as_deref().unwrap_or_default(),
    }
}

fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Error {
    let remedy = match alike(name, known) {
        Some(meant) => format!("did you mean {meant}?"),
        None => "`diptych functions` lists those there are; DataFusion's own are in its documentation".to_owned(),
    };
    Error::at(Stage::CommandLine, "functions", format!("no function {name:?}; {remedy}"))
}

/// Group by group, a line each.
fn list(functions: &[Listed<'_>]) -> String {
    let width = functions.iter().map(|function| function.syntax.len()).max().unwrap_or(0);
    let mut text = String::new();
    for group in Group::ALL {
        let of_group: Vec<&Listed<'_>> = functions.iter().filter(|listed| listed.group == group.name()).collect();
        if of_group.is_empty() {
            continue;
        }
        text.push_str(if text.is_empty() { "" } else { "\n" });
        text.push_str(group.name());
        text.push('\n');
        for listed in of_group {
            text.push_str(&format!("  {:width$}  {}\n", listed.syntax, first_sentence(listed.description)));
        }
    }
    text.push_str(
        "\n`diptych functions NAME` prints one with an example; DataFusion's own functions are there as well.",
    );
    text
}

/// Up to the first full stop, colon or semicolon that ends a clause.
fn first_sentence(description: &str) -> &str {
    let ends = [". ", ": ", "; "].iter().filter_map(|end| description.find(end));
    description[..ends.min().unwrap_or(description.len())].trim_end_matches('.')
}

fn page(function: &Listed<'_>) -> String {
    let mut text = format!("{}\n\n{}\n", function.syntax, function.description);
    for argument in &function.arguments {
        text.push_str(&format!("\n  {}: {}", argument.name, argument.description));
    }
    let example = function.example.trim_start_matches("```sql\n").trim_end_matches("\n```");
    text.push_str(&format!("\n\n{example}"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_a_line_per_function_below_its_group() {
        let functions = over([]);
        let listed: Vec<_> = functions.iter().filter_map(documentation).map(|(n, d)| listed(n, d)).collect();
        let text = list(&listed);
        let line = text.lines().find(|line| line.contains("image_phash(image)")).unwrap();
        assert!(line.ends_with("is resized, recompressed or made brighter"), "{line}");
        assert!(text.starts_with("image\n  image_width(image)"), "{text}");
        for function in &functions {
            assert_eq!(text.matches(&format!("\n  {}(", function.name())).count(), 1, "{}", function.name());
        }
    }

    #[test]
    fn a_mistyped_name_comes_with_a_suggestion() {
        let error = unknown("image_widht", ["image_height", "image_width"].into_iter()).to_string();
        assert!(error.contains("did you mean image_width?"), "{error}");
        assert!(run(Some("two_view"), false).unwrap_err().to_string().contains("did you mean two_views?"));
    }
}
