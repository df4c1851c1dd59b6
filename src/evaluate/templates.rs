//! Prompt templates and the words of labels, as files hold them.
use crate::error::{Error, Result, Stage};

/// Where a template takes the words of a label.
const SLOT: &str = "{}";
/// What is used where no file is named.
pub const DEFAULT_TEMPLATE: &str = "a photo of a {}.";
/// Lines that begin so are remarks.
const REMARK: char = '#';

/// Templates of a file, one per line; empty lines and lines that begin with `#` are left out.
///
/// # Errors
/// A line without `{}` or with more than one; no line at all. All at once.
pub fn templates(place: &str, text: &str) -> Result<Vec<String>> {
    let (mut found, mut wrong) = (Vec::new(), Vec::new());
    for (number, line) in lines(text) {
        match line.matches(SLOT).count() {
            1 => found.push(line.to_owned()),
            count => wrong.push(format!("line {number}: {line:?} has {{}} {count} times; it must stand there once")),
        }
    }
    if found.is_empty() && wrong.is_empty() {
        wrong.push(format!("holds no template; write one per line, such as {DEFAULT_TEMPLATE:?}"));
    }
    match wrong.is_empty() {
        true => Ok(found),
        false => Err(Error::at(Stage::Pipeline, place, wrong.join("\n  "))),
    }
}

/// A label as the data has it and as a prompt says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelName {
    /// In the column.
    pub label: String,
    /// In the prompt.
    pub words: String,
}

impl LabelName {
    /// Said as it is written, with spaces for underscores: `hot_dog` is a hot dog.
    pub fn of(label: &str) -> Self {
        Self { label: label.to_owned(), words: label.replace('_', " ").trim().to_owned() }
    }
}

/// Labels of a file, one per line: the label, or the label, a tab and its words. Empty lines and remarks are left out.
///
/// # Errors
/// A label stands twice or has no words; there are fewer than two. All at once.
pub fn label_names(place: &str, text: &str) -> Result<Vec<LabelName>> {
    let (mut found, mut wrong): (Vec<LabelName>, Vec<String>) = (Vec::new(), Vec::new());
    for (number, line) in lines(text) {
        let name = match line.split_once('\t') {
            Some((label, words)) => LabelName { label: label.trim().to_owned(), words: words.trim().to_owned() },
            None => LabelName::of(line),
        };
        if name.words.is_empty() {
            wrong.push(format!("line {number}: {:?} has no words; write them behind a tab", name.label));
        } else if found.iter().any(|known| known.label == name.label) {
            wrong.push(format!(
                "line {number}: {:?} stands there twice; the prompts of a label are ensembled",
                name.label
            ));
        } else {
            found.push(name);
        }
    }
    if wrong.is_empty() && found.len() < 2 {
        wrong.push(format!("{} labels; there must be two to choose between", found.len()));
    }
    match wrong.is_empty() {
        true => Ok(found),
        false => Err(Error::at(Stage::Pipeline, place, wrong.join("\n  "))),
    }
}

/// The prompts of a label.
pub fn prompts(templates: &[String], words: &str) -> Vec<String> {
    templates.iter().map(|template| template.replacen(SLOT, words, 1)).collect()
}

/// Lines that say something, with their numbers from 1.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    // Editors of some systems begin a file with a mark of its encoding.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    (1..).zip(text.lines().map(|line| line.trim_end_matches(['\r', ' ']))).filter(|(_, line)| {
        let line = line.trim_start();
        !line.is_empty() && !line.starts_with(REMARK)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_lines_with_one_slot() {
        let found = templates("t", "\u{feff}a photo of a {}.\r\n\n# from the paper\na drawing of {}, indoors.\n");
        assert_eq!(found.expect("two"), ["a photo of a {}.", "a drawing of {}, indoors."]);
        let error = templates("t.txt", "a photo\na {} of {}\nfine {}").expect_err("two wrong").to_string();
        assert!(error.contains("t.txt") && error.contains("line 1") && error.contains("2 times"), "{error}");
        assert!(templates("t", "\n# nothing\n").expect_err("none").to_string().contains("one per line"));
    }

    #[test]
    fn labels_are_said_as_written_or_as_the_file_says() {
        let found = label_names("n", "hot_dog\nn01440764\ttench, a fish\n\ncat\n").expect("three");
        let words: Vec<(&str, &str)> = found.iter().map(|name| (name.label.as_str(), name.words.as_str())).collect();
        assert_eq!(words, [("hot_dog", "hot dog"), ("n01440764", "tench, a fish"), ("cat", "cat")]);
    }

    #[test]
    fn labels_without_words_and_labels_twice_are_named() {
        let error = label_names("n.txt", "cat\ncat\ndog\t \n").expect_err("two wrong").to_string();
        assert!(error.contains("line 2") && error.contains("twice") && error.contains("line 3"), "{error}");
        assert!(label_names("n", "cat\n").expect_err("one").to_string().contains("two to choose between"));
    }

    #[test]
    fn words_with_braces_are_words() {
        let two = ["a {}.".to_owned(), "the {} there".to_owned()];
        assert_eq!(prompts(&two, "{} sign"), ["a {} sign.", "the {} sign there"]);
    }
}
