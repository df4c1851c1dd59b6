//! FROM as a file or a pattern over files: `shard-{000..012}.tar`, `part-*.parquet`, `{train,val}.csv`.
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result, Stage};
use crate::select::glob::{Glob, is_glob};

/// Files that one range may stand for.
const MAX_RANGE: u64 = 1_000_000;
/// Missing files that an error names.
const NAMED: usize = 5;

/// The folder that all files are below, and their paths from there, sorted.
///
/// Every name that a brace stands for must be there: a shard less would be a smaller data set without a word.
///
/// # Errors
/// Nothing is there, something is missing, `**` stands in it, or a folder cannot be listed.
pub(super) fn files(from: &Path) -> Result<(PathBuf, Vec<PathBuf>)> {
    let place = from.display().to_string();
    if from.is_file() {
        let root = from.parent().unwrap_or(Path::new("")).to_owned();
        return Ok((root, from.file_name().map(PathBuf::from).into_iter().collect()));
    }
    if let Some((scheme, _)) = place.split_once("://") {
        let reason =
            format!("{scheme} is not read by import; name local files (img2dataset fetches images from the web)");
        return Err(Error::at(Stage::Import, place, reason));
    }
    if !is_glob(&place) {
        let reason = "is not there; name a folder, a file, or a pattern such as shard-{000..012}.tar";
        return Err(Error::at(Stage::Import, place, reason));
    }
    if let Some(open) = unclosed(&place) {
        let reason = format!("has a brace that is never closed, {open}; write it as in shard-{{000..012}}.tar");
        return Err(Error::at(Stage::CommandLine, place, reason));
    }
    if place.contains("**") {
        let reason = "holds **, and import has no pattern for folders of any depth; name the folder, all of which is \
                      searched through, or write one * per depth";
        return Err(Error::at(Stage::CommandLine, place, reason));
    }
    let is_plain = |part: &&str| !is_glob(part);
    let parts: Vec<&str> = place.split('/').collect();
    let plain = parts.iter().take_while(|part| is_plain(part)).count();
    let root = match parts[..plain].join("/") {
        root if root.is_empty() && plain > 0 => PathBuf::from("/"),
        root => PathBuf::from(root),
    };
    let (mut found, mut missing) = (vec![], vec![]);
    for name in braces(&parts[plain..].join("/"), &place)? {
        if is_glob(&name) {
            let before = found.len();
            matching(&root, Path::new(""), &name.split('/').collect::<Vec<_>>(), &mut found)?;
            if found.len() == before {
                missing.push(name);
            }
        } else if root.join(&name).is_file() {
            found.push(PathBuf::from(name));
        } else {
            missing.push(name);
        }
    }
    if !missing.is_empty() {
        let more = if missing.len() > NAMED { format!(" and {} more", missing.len() - NAMED) } else { String::new() };
        let first = missing[..missing.len().min(NAMED)].join(", ");
        return Err(Error::at(
            Stage::Import,
            place,
            format!("matches nothing where there should be {first}{more}; fetch them or change the pattern"),
        ));
    }
    found.sort_unstable();
    found.dedup();
    Ok((root, found))
}

/// From the first brace on that nothing closes.
fn unclosed(pattern: &str) -> Option<&str> {
    let mut rest = pattern;
    while let Some(open) = rest.find('{') {
        match rest[open..].find('}') {
            Some(close) => rest = &rest[open + close + 1..],
            None => return Some(&rest[open..]),
        }
    }
    None
}

/// Every text that the braces stand for: `{a,b}` and `{000..012}`, the latter as wide as it is written.
fn braces(pattern: &str, place: &str) -> Result<Vec<String>> {
    let Some((before, inside, after)) = pattern.find('{').and_then(|open| {
        let close = open + pattern[open..].find('}')?;
        Some((&pattern[..open], &pattern[open + 1..close], &pattern[close + 1..]))
    }) else {
        return Ok(vec![pattern.to_owned()]);
    };
    let choices: Vec<String> = match range(inside) {
        Some((first, last, width)) => {
            if last < first || last - first >= MAX_RANGE {
                let reason = format!(
                    "{{{inside}}} stands for no files or for more than {MAX_RANGE}; write it upwards and shorter"
                );
                return Err(Error::at(Stage::CommandLine, place, reason));
            }
            (first..=last).map(|number| format!("{number:0width$}")).collect()
        }
        None => inside.split(',').map(str::to_owned).collect(),
    };
    let rests = braces(after, place)?;
    if choices.len() as u64 * rests.len() as u64 > MAX_RANGE {
        return Err(Error::at(Stage::CommandLine, place, format!("stands for more than {MAX_RANGE} files")));
    }
    Ok(choices.iter().flat_map(|choice| rests.iter().map(move |rest| format!("{before}{choice}{rest}"))).collect())
}

fn range(inside: &str) -> Option<(u64, u64, usize)> {
    let (first, last) = inside.split_once("..")?;
    let width = if first.starts_with('0') { first.len() } else { 0 };
    Some((first.parse().ok()?, last.parse().ok()?, width))
}

/// Files below `root` whose path matches part by part.
fn matching(root: &Path, below: &Path, parts: &[&str], found: &mut Vec<PathBuf>) -> Result<()> {
    let Some((first, rest)) = parts.split_first() else { return Ok(()) };
    let folder = root.join(below);
    let folder = if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder };
    let place = || folder.display().to_string();
    let cannot_list = "cannot be listed; check permissions";
    let glob = Glob::new(first);
    if !folder.exists() {
        return Ok(());
    }
    for entry in std::fs::read_dir(&folder).context(Stage::Import, place(), cannot_list)? {
        let name = entry.context(Stage::Import, place(), cannot_list)?.file_name();
        let text = name.to_string_lossy();
        if text.starts_with('.') || !glob.matches(&[&text]) {
            continue;
        }
        let path = below.join(&name);
        if rest.is_empty() {
            if root.join(&path).is_file() {
                found.push(path);
            }
        } else if root.join(&path).is_dir() {
            matching(root, &path, rest, found)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
            std::fs::write(folder.path().join(name), b"").unwrap();
        }
        folder
    }

    fn found(folder: &tempfile::TempDir, pattern: &str) -> Result<Vec<String>> {
        let (root, files) = files(&folder.path().join(pattern))?;
        assert!(files.iter().all(|file| root.join(file).is_file()));
        Ok(files.into_iter().map(|file| file.to_str().unwrap().to_owned()).collect())
    }

    #[test]
    fn ranges_lists_and_wildcards_name_files() {
        let folder = folder(&["s-008.tar", "s-009.tar", "s-010.tar", "a/1.csv", "b/1.csv", "b/.2.csv", "b/2.tsv"]);
        assert_eq!(found(&folder, "s-{008..010}.tar").unwrap(), ["s-008.tar", "s-009.tar", "s-010.tar"]);
        assert_eq!(found(&folder, "s-{008,010}.tar").unwrap(), ["s-008.tar", "s-010.tar"]);
        assert_eq!(found(&folder, "s-0{08..9}.tar").unwrap(), ["s-008.tar", "s-009.tar"]);
        assert_eq!(found(&folder, "*/*.csv").unwrap(), ["a/1.csv", "b/1.csv"]);
        assert_eq!(found(&folder, "{a,b}/?.{csv,tsv}").unwrap_err().to_string().matches("a/?.tsv").count(), 1);
        assert_eq!(found(&folder, "b/2.tsv").unwrap(), ["2.tsv"]);
    }

    #[test]
    fn what_is_missing_is_named() {
        let folder = folder(&["s-1.tar"]);
        let error = |pattern: &str| found(&folder, pattern).unwrap_err().to_string();
        assert!(error("s-{0..9}.tar").contains("be s-0.tar, s-2.tar, s-3.tar, s-4.tar, s-5.tar and 4 more"));
        assert!(error("gone").contains("is not there"));
        assert!(error("*.csv").contains("be *.csv"));
        assert!(error("gone/*.tar").contains("matches nothing"));
        assert!(error("s-{0..9").contains("never closed, {0..9;"));
        assert!(error("s-{3..1}.tar").contains("upwards"));
        assert!(error("s-{0..99999999}.tar").contains("1000000"));
        let error = files(Path::new("https://x.org/a.tar")).unwrap_err().to_string();
        assert!(error.contains("img2dataset"), "{error}");
    }

    #[test]
    fn two_stars_are_refused_with_the_way_to_search_through_folders() {
        let folder = folder(&["a/1.csv", "a/b/2.csv"]);
        for pattern in ["**", "**/*.csv", "a/**", "{a,**}/1.csv", "a/**.csv"] {
            let error = found(&folder, pattern).unwrap_err().to_string();
            assert!(error.contains("holds **") && error.contains("name the folder"), "{pattern}: {error}");
        }
        assert_eq!(found(&folder, "*/*/*.csv").unwrap(), ["a/b/2.csv"]);
    }
}
