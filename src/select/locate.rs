//! Which files a list of paths, globs and folders means, and in which order.
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::glob::{Glob, is_glob};
use super::manifest::{MANIFEST_FILE, Manifest, ManifestShard};
use super::warning::Warning;
use crate::error::{Context, Error, Result, Stage};
use crate::ingest::{IMPORTING_FILE, QUARANTINE_FILE};

/// Suffix of the files that a folder is searched for.
const SUFFIX: &str = ".parquet";

/// One file that belongs to the set.
#[derive(Debug, Clone)]
pub(crate) struct Located {
    /// Absolute.
    pub(crate) path: PathBuf,
    /// As messages name it.
    pub(crate) name: String,
    /// Bytes of the file.
    pub(crate) bytes: u64,
    /// What the manifest of its data set says, where there is one.
    pub(crate) listed: Option<ManifestShard>,
}

/// The files of all patterns, each once, in the order of their ordinals: pattern by pattern, within one in the order of
/// the manifest, and those that no manifest lists by relative path. Warnings name what was left out.
///
/// # Errors
/// A pattern that matches nothing, a manifest that lists what is not there.
pub(crate) fn locate(patterns: &[String]) -> Result<(Vec<Located>, Vec<Warning>)> {
    let mut located: Vec<Located> = Vec::new();
    let mut seen = BTreeSet::new();
    let mut warnings = Vec::new();
    let mut problems = Vec::new();
    for pattern in patterns {
        if pattern.contains("://") {
            problems.push(format!("`{pattern}` is a URL; name local files, globs or folders"));
            continue;
        }
        let path = Path::new(pattern);
        let problems_before = problems.len();
        let found = if path.is_dir() {
            folder(path, &mut warnings, &mut problems)?
        } else if path.exists() || !is_glob(pattern) {
            file(path)?
        } else {
            matching(pattern, &mut warnings, &mut problems)?
        };
        if found.is_empty() && problems.len() == problems_before {
            problems.push(format!("`{pattern}` matches no file; name a file, a glob or a folder with *{SUFFIX} in it"));
        }
        problems.extend(unfinished(&found));
        located.extend(found.into_iter().filter(|found| seen.insert(found.path.clone())));
    }
    if patterns.is_empty() {
        problems.push("no shards are named; name a file, a glob or a folder".into());
    }
    if problems.is_empty() { Ok((located, warnings)) } else { Err(Error::at(Stage::Shards, "", problems.join("\n  "))) }
}

/// Folders in which an import was cut off: their shards are whole, but they are not the data set.
fn unfinished(found: &[Located]) -> Vec<String> {
    let folders: BTreeSet<&Path> = found.iter().filter_map(|found| found.path.parent()).collect();
    let is_unfinished = |folder: &&Path| folder.join(IMPORTING_FILE).exists() && !folder.join(MANIFEST_FILE).exists();
    let name = |folder: &Path| {
        format!("{}: an import into this folder did not finish; wait for it, or import again", folder.display())
    };
    folders.into_iter().filter(is_unfinished).map(name).collect()
}

/// The table of what an import refused lies beside the shards and is none.
fn is_shard(file: &str) -> bool {
    file.ends_with(SUFFIX) && Path::new(file).file_name().is_none_or(|name| name != QUARANTINE_FILE)
}

fn file(path: &Path) -> Result<Vec<Located>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    let listed = match (Manifest::of_folder(folder)?, path.file_name().and_then(|name| name.to_str())) {
        (Some(manifest), Some(name)) => manifest.shards.into_iter().find(|shard| shard.file == name),
        _ => None,
    };
    Ok(vec![one(path, listed)?])
}

fn one(path: &Path, listed: Option<ManifestShard>) -> Result<Located> {
    let name = path.display().to_string();
    let bytes = std::fs::metadata(path).context(Stage::Select, &name, "cannot read this file")?.len();
    let path = std::path::absolute(path).context(Stage::Select, &name, "has no absolute path")?;
    Ok(Located { path, name, bytes, listed })
}

fn folder(folder: &Path, warnings: &mut Vec<Warning>, problems: &mut Vec<String>) -> Result<Vec<Located>> {
    let files = files_below(folder)?;
    let Some(manifest) = Manifest::of_folder(folder)? else {
        return files.iter().filter(|file| is_shard(file)).map(|file| one(&folder.join(file), None)).collect();
    };
    let mut located = Vec::new();
    let mut left: BTreeSet<&String> = files.iter().filter(|file| is_shard(file)).collect();
    for shard in manifest.shards {
        left.remove(&shard.file);
        let path = folder.join(&shard.file);
        if path.is_file() {
            located.push(one(&path, Some(shard))?);
        } else {
            problems.push(gone(&path));
        }
    }
    warnings.extend(left.into_iter().map(|file| unlisted(&folder.join(file))));
    Ok(located)
}

fn gone(path: &Path) -> String {
    format!("{}: {MANIFEST_FILE} lists it, but it is not there", path.display())
}

fn unlisted(path: &Path) -> Warning {
    let text = format!("is left out: {MANIFEST_FILE} does not list it (an import that did not finish?)");
    Warning { place: path.display().to_string(), text }
}

/// What a glob matches. In a data set it means those of its shards that match, as a folder means all.
fn matching(pattern: &str, warnings: &mut Vec<Warning>, problems: &mut Vec<String>) -> Result<Vec<Located>> {
    // The longest head without wildcards is the folder to search.
    let mut base = PathBuf::from(if pattern.starts_with('/') { "/" } else { "" });
    let mut parts = pattern.split('/').filter(|part| !part.is_empty() && *part != ".").peekable();
    while let Some(part) = parts.next_if(|part| !is_glob(part)) {
        base.push(part);
    }
    let rest: Vec<&str> = parts.collect();
    let glob = Glob::new(&rest.join("/"));
    let search = if base.as_os_str().is_empty() { Path::new(".") } else { base.as_path() };
    if !search.is_dir() {
        return Ok(Vec::new());
    }
    let files = files_below(search)?;
    let matches = |file: &str| glob.matches(&file.split('/').collect::<Vec<_>>());
    // The manifest and the table of what import refused are no shards, whatever the glob.
    let is_other = |file: &str| [MANIFEST_FILE, QUARANTINE_FILE].iter().any(|other| Path::new(file).ends_with(other));
    let mut manifests = Manifests::default();
    let (mut found, mut left_out) = (Vec::new(), Vec::new());
    for file in files.iter().filter(|file| matches(file) && !is_other(file)) {
        let path = base.join(file);
        match manifests.entry(search, file)? {
            // A data set stands where its folder stands among the paths.
            Entry::Listed { folder, position, shard } => {
                found.push(((below(&folder, ""), position), one(&path, Some(shard))?));
            }
            Entry::Unlisted => left_out.push(unlisted(&path)),
            Entry::NoManifest => found.push(((file.clone(), 0), one(&path, None)?)),
        }
    }
    let listed = manifests.listed().filter(|file| matches(file));
    problems.extend(listed.filter(|file| files.binary_search(file).is_err()).map(|file| gone(&base.join(file))));
    if found.is_empty() {
        problems.extend(left_out.iter().map(|left| format!("{left}; name the file itself to use it all the same")));
    } else {
        warnings.extend(left_out);
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found.into_iter().map(|(_, located)| located).collect())
}

fn parent(file: &str) -> &str {
    file.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// A file below a folder, which is empty for the folder that is searched.
fn below(folder: &str, file: &str) -> String {
    if folder.is_empty() { file.to_owned() } else { format!("{folder}/{file}") }
}

/// Positions and entries of one manifest, by file.
type Entries = BTreeMap<String, (usize, ManifestShard)>;

/// What the nearest manifest at or above a file says of it.
enum Entry {
    Listed { folder: String, position: usize, shard: ManifestShard },
    Unlisted,
    NoManifest,
}

/// Manifests by folder, each read once.
#[derive(Default)]
struct Manifests(BTreeMap<String, Option<Entries>>);

impl Manifests {
    /// `file` in the nearest manifest at or above it, up to `base`.
    fn entry(&mut self, base: &Path, file: &str) -> Result<Entry> {
        let mut folder = parent(file);
        loop {
            if !self.0.contains_key(folder) {
                let manifest = Manifest::of_folder(&base.join(folder))?;
                let by_file = |manifest: Manifest| {
                    let entries = manifest.shards.into_iter().enumerate();
                    entries.map(|(position, shard)| (shard.file.clone(), (position, shard))).collect()
                };
                self.0.insert(folder.to_owned(), manifest.map(by_file));
            }
            if let Some(Some(entries)) = self.0.get(folder) {
                let below = if folder.is_empty() { file } else { &file[folder.len() + 1..] };
                let listed = |(position, shard): &(usize, ManifestShard)| Entry::Listed {
                    folder: folder.to_owned(),
                    position: *position,
                    shard: shard.clone(),
                };
                return Ok(entries.get(below).map_or(Entry::Unlisted, listed));
            }
            if folder.is_empty() {
                return Ok(Entry::NoManifest);
            }
            folder = parent(folder);
        }
    }

    /// Every file that a manifest met so far lists, below the folder that is searched.
    fn listed(&self) -> impl Iterator<Item = String> + '_ {
        let files = self.0.iter().filter_map(|(folder, entries)| Some((folder, entries.as_ref()?)));
        files.flat_map(|(folder, entries)| entries.keys().map(move |file| below(folder, file)))
    }
}

/// Relative paths of all files below `folder`, sorted, parts separated by `/`; hidden ones are passed over.
fn files_below(folder: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    let mut waiting = vec![(folder.to_owned(), String::new())];
    while let Some((folder, prefix)) = waiting.pop() {
        let place = folder.display().to_string();
        for entry in std::fs::read_dir(&folder).context(Stage::Select, &place, "cannot list this folder")? {
            let entry = entry.context(Stage::Select, &place, "cannot list this folder")?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
            let relative = format!("{prefix}{name}");
            if entry.path().is_dir() {
                waiting.push((entry.path(), format!("{relative}/")));
            } else {
                files.push(relative);
            }
        }
    }
    files.sort_unstable();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, file).unwrap();
        }
        folder
    }

    fn names(folder: &tempfile::TempDir, patterns: &[&str]) -> Result<Vec<String>> {
        let patterns: Vec<String> =
            patterns.iter().map(|p| folder.path().join(p).display().to_string()).collect::<Vec<_>>();
        let (located, _) = locate(&patterns)?;
        let relative = |l: &Located| l.path.strip_prefix(folder.path()).unwrap().display().to_string();
        Ok(located.iter().map(relative).collect())
    }

    fn manifest(files: &[&str]) -> String {
        let shard = |file: &&str| ManifestShard { file: (*file).into(), rows: 0, bytes: 0, fingerprint: String::new() };
        serde_json::to_string(&Manifest { shards: files.iter().map(shard).collect() }).unwrap()
    }

    #[test]
    fn folders_globs_and_files_are_sorted_and_met_once() {
        let tree = tree(&["b.parquet", "a.parquet", "x/c.parquet", "x/d.txt", ".hidden/e.parquet", "f.parquet.tmp"]);
        assert_eq!(names(&tree, &[""]).unwrap(), ["a.parquet", "b.parquet", "x/c.parquet"]);
        assert_eq!(names(&tree, &["*.parquet"]).unwrap(), ["a.parquet", "b.parquet"]);
        assert_eq!(names(&tree, &["b.parquet", "**/*.parquet"]).unwrap(), ["b.parquet", "a.parquet", "x/c.parquet"]);
        assert_eq!(names(&tree, &["x/d.txt"]).unwrap(), ["x/d.txt"]);
    }

    #[test]
    fn every_pattern_without_match_is_named() {
        let tree = tree(&["a.parquet"]);
        let text = names(&tree, &["z*.parquet", "a.parquet"]).unwrap_err().to_string();
        assert!(text.contains("z*.parquet` matches no file"), "{text}");
        assert!(locate(&["s3://bucket/x".into()]).unwrap_err().to_string().contains("is a URL"));
        assert!(locate(&[]).unwrap_err().to_string().contains("no shards are named"));
    }

    #[test]
    fn the_manifest_decides_the_order() {
        let tree = tree(&["b.parquet", "a.parquet", "c.parquet"]);
        std::fs::write(tree.path().join(MANIFEST_FILE), manifest(&["c.parquet", "a.parquet"])).unwrap();
        assert_eq!(names(&tree, &[""]).unwrap(), ["c.parquet", "a.parquet"]);
        let (_, warnings) = locate(&[tree.path().display().to_string()]).unwrap();
        assert!(warnings[0].place.ends_with("b.parquet"), "{warnings:?}");
        assert_eq!(names(&tree, &["b.parquet"]).unwrap(), ["b.parquet"]);
        std::fs::write(tree.path().join(MANIFEST_FILE), manifest(&["gone.parquet"])).unwrap();
        assert!(names(&tree, &[""]).unwrap_err().to_string().contains("gone.parquet: diptych.json lists it"));
    }

    #[test]
    fn a_glob_over_a_data_set_means_its_shards_too() {
        let tree = tree(&["set/b.parquet", "set/a.parquet", "set/c.parquet", "set/quarantine.parquet", "d.parquet"]);
        let list =
            |files: &[&str]| std::fs::write(tree.path().join("set").join(MANIFEST_FILE), manifest(files)).unwrap();
        list(&["c.parquet", "a.parquet"]);
        for glob in ["set/*.parquet", "set/*", "*/*.parquet"] {
            assert_eq!(names(&tree, &[glob]).unwrap(), ["set/c.parquet", "set/a.parquet"], "{glob}");
        }
        assert_eq!(names(&tree, &["**/*.parquet"]).unwrap(), ["d.parquet", "set/c.parquet", "set/a.parquet"]);
        let (_, warnings) = locate(&[tree.path().join("set/*.parquet").display().to_string()]).unwrap();
        assert!(warnings.len() == 1 && warnings[0].place.ends_with("b.parquet"), "{warnings:?}");

        list(&["c.parquet", "gone.parquet"]);
        for glob in ["set/*.parquet", "**/*.parquet"] {
            let text = names(&tree, &[glob]).unwrap_err().to_string();
            assert!(text.contains("set/gone.parquet: diptych.json lists it"), "{text}");
        }
        // Who asks for a part of a data set gets it.
        assert_eq!(names(&tree, &["set/[a-c].parquet"]).unwrap(), ["set/c.parquet"]);
    }
}
