//! What the design fixes about the sources themselves: who imports whom, how long a file may be, what a method needs.
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// From the top; siblings of a layer may import each other without cycles.
const LAYERS: [&[&str]; 8] = [
    &["run"],
    &["pipeline"],
    &["train", "evaluate"],
    &["method"],
    &["batch"],
    &["prefetch", "stores", "ingest", "select", "scan", "augment", "pair", "lint", "synthetic"],
    &["schema", "device", "loss", "model", "tokenize"],
    &["error", "seed"],
];
const DATA_HALF: [&str; 9] = ["stores", "ingest", "select", "scan", "augment", "pair", "lint", "prefetch", "tokenize"];
const DATA_CRATES: [&str; 4] = ["arrow", "datafusion", "parquet", "tokio"];
const MODEL_CRATES: [&str; 3] = ["burn", "burn_flex", "burn_store"];
/// Names that hide a name that exists.
const HIDING_NAMES: [&str; 6] = ["utils", "common", "helpers", "types", "traits", "config"];
const LONGEST_FILE: usize = 400;

/// A file of `src/`.
struct Source {
    /// Below `src/`.
    path: PathBuf,
    /// `["augment", "image", "decode"]` for `augment/image/decode.rs` and for `augment/image/decode/mod.rs`.
    module: Vec<String>,
    /// Everything before the tests, comments blanked.
    code: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn before_tests(text: &str) -> &str {
    text.find("\n#[cfg(test)]\n").map_or(text, |end| &text[..=end])
}

fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    files(&root().join("src"), &mut paths);
    assert!(paths.len() > 20, "the sources are not where this test looks");
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let code = before_tests(&text).lines().map(|line| line.split("//").next().unwrap_or_default());
        let code = code.collect::<Vec<_>>().join("\n");
        let path = path.strip_prefix(root().join("src")).unwrap().to_owned();
        let mut module: Vec<String> =
            path.with_extension("").iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        if module.last().is_some_and(|last| last == "mod") {
            module.pop();
        }
        Source { path, module, code }
    };
    paths.into_iter().map(read).collect()
}

/// Library files only: `main.rs` and `cli.rs` belong to the binary, `lib.rs` names everything.
fn library() -> Vec<Source> {
    let outside = ["lib", "main", "cli"];
    sources().into_iter().filter(|source| !outside.contains(&source.module[0].as_str())).collect()
}

/// Every path that follows `crate::`, braces expanded.
fn imports(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for (at, word) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':' && c != '$') {
            expand(&code[at + word.len()..], &[], &mut found);
        }
    }
    found
}

/// Reads one use tree and returns what is left behind it.
fn expand<'a>(mut text: &'a str, prefix: &[String], found: &mut Vec<Vec<String>>) -> &'a str {
    let mut path = prefix.to_vec();
    loop {
        text = text.trim_start();
        if let Some(inside) = text.strip_prefix('{') {
            text = inside;
            loop {
                text = expand(text, &path, found).trim_start();
                match text.chars().next() {
                    Some(',') => text = &text[1..],
                    Some('}') => return &text[1..],
                    _ => return text,
                }
            }
        }
        let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
        if end > 0 {
            path.push(text[..end].to_owned());
        }
        text = &text[end..];
        match text.strip_prefix("::") {
            // `::<T>` ends a path of names.
            Some(rest) if !rest.starts_with('<') => text = rest,
            _ => break,
        }
    }
    // A comma before the closing brace leaves nothing.
    if path.len() > prefix.len() {
        found.push(path);
    }
    text.strip_prefix(" as ").map_or(text, |rest| rest.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_'))
}

fn mentions(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = &code[at + name.len()..];
        before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':' && c != '.' && c != '"')
            && (after.starts_with("::") || (after.starts_with(';') && code[..at].ends_with("use ")))
    })
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

#[test]
fn use_trees_are_read() {
    let found = imports("use crate::{a::{self, B}, c::D as E, f,};\nlet x = crate::g::h::<u8>(1); $crate::not::this");
    let found: Vec<String> = found.iter().map(|path| path.join("::")).collect();
    assert_eq!(found, ["a::self", "a::B", "c::D", "f", "g::h"]);
    assert!(mentions("use burn::tensor;", "burn") && mentions("x: burn::Y", "burn") && !mentions("auburn::x", "burn"));
    assert!(!mentions("use datafusion::arrow::array", "arrow"));
}

#[test]
fn every_module_has_a_layer() {
    for source in library() {
        assert!(layer(&source.module[0]).is_some(), "{} is in no layer", source.path.display());
    }
}

#[test]
fn imports_go_one_way() {
    let mut wrong = Vec::new();
    for source in library() {
        let from = layer(&source.module[0]).unwrap();
        for import in imports(&source.code) {
            // `crate::Result` and macros have no layer.
            if layer(&import[0]).is_some_and(|to| to < from) {
                wrong.push(format!("{} imports {}", source.path.display(), import.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "against the direction {LAYERS:?}:\n{}", wrong.join("\n"));
}

#[test]
fn siblings_of_a_layer_make_no_cycles() {
    let library = library();
    let modules: BTreeSet<Vec<String>> = library.iter().map(|source| source.module.clone()).collect();
    let mut edges: BTreeMap<Vec<String>, BTreeSet<Vec<String>>> = BTreeMap::new();
    for source in &library {
        for import in imports(&source.code) {
            // The file that holds what is imported is the longest prefix that is a module.
            let target = (1..=import.len()).rev().map(|n| import[..n].to_vec()).find(|path| modules.contains(path));
            if let Some(target) = target.filter(|target| target[0] != source.module[0]) {
                edges.entry(source.module.clone()).or_default().insert(target);
            }
        }
    }
    for start in edges.keys() {
        let (mut seen, mut next) = (BTreeSet::new(), vec![start.clone()]);
        while let Some(module) = next.pop() {
            for target in edges.get(&module).into_iter().flatten() {
                assert_ne!(target, start, "{} imports itself by way of {}", start.join("::"), module.join("::"));
                if seen.insert(target.clone()) {
                    next.push(target.clone());
                }
            }
        }
    }
}

#[test]
fn the_halves_meet_in_batch_alone() {
    let mut wrong = Vec::new();
    for source in library() {
        let (top, path) = (source.module[0].as_str(), source.path.display());
        let has = |crates: &[&str]| crates.iter().any(|name| mentions(&source.code, name));
        if DATA_HALF.contains(&top) && has(&MODEL_CRATES) {
            wrong.push(format!("{path} is of the data half and knows Burn"));
        }
        if ["loss", "model"].contains(&top) && has(&DATA_CRATES) {
            wrong.push(format!("{path} is mathematics and knows arrow, datafusion or tokio"));
        }
        if top != "batch" && has(&MODEL_CRATES) && has(&DATA_CRATES[..3]) {
            wrong.push(format!("{path} knows both halves"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_the_device_file_asks_for_features() {
    for source in sources() {
        let asks = source.code.contains("feature = \"");
        assert!(!asks || source.path == Path::new("device.rs"), "{} asks for a feature", source.path.display());
    }
}

#[test]
fn files_are_short_and_named_by_what_they_hold() {
    let mut paths = Vec::new();
    files(&root().join("src"), &mut paths);
    let mut wrong = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        let lines = before_tests(&text).lines().count();
        if lines > LONGEST_FILE {
            wrong.push(format!("{}: {lines} lines before its tests, at most {LONGEST_FILE}", path.display()));
        }
        let below = path.strip_prefix(root()).unwrap().with_extension("");
        if below.iter().any(|part| HIDING_NAMES.contains(&part.to_str().unwrap())) {
            wrong.push(format!("{}: name it after what it holds", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_method_is_complete() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let golden: Vec<String> = fs::read_dir(root().join("tests/golden"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let methods: Vec<Source> =
        library().into_iter().filter(|source| source.module.len() == 2 && source.module[0] == "method").collect();
    assert!(!methods.is_empty());
    for method in methods {
        let name = &method.module[1];
        let loss = imports(&method.code).into_iter().any(|path| path[0] == "loss");
        assert!(loss, "{name} takes no loss from src/loss");
        assert!(method.code.contains("impl Method for "), "the trainer cannot drive {name}");
        assert!(root().join(format!("pipelines/{name}.toml")).is_file(), "{name} has no pipeline");
        assert!(
            diptych::pipeline::EMBEDDED.iter().any(|(known, _)| known == name),
            "{name}'s pipeline is not built in"
        );
        let written = fs::read_to_string(root().join(format!("pipelines/{name}.toml"))).unwrap();
        assert!(written.contains(&format!("[method.{name}]")), "{name}'s pipeline trains something else");
        assert!(golden.iter().any(|file| file.contains(name.as_str())), "{name} has no golden file");
        assert!(readme.contains(&format!("pipelines/{name}.toml")), "README.md does not mention {name}");
    }
}
