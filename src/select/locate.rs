//! Which files a list of paths, globs, folders and URLs means, and in which order.
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use datafusion::object_store::path::Path as Location;

use super::format;
use super::glob::{Glob, is_glob};
use super::locate_remote;
use super::manifest::{MANIFEST_FILE, ManifestShard, ShardList};
use super::warning::Warning;
use crate::error::{Context, Error, Result, Stage};
use crate::ingest::{BESIDE_SHARDS, IMPORTING_FILE};
use crate::stores::{address::Address, routing_store::Stores};

/// One file that belongs to the set.
#[derive(Debug, Clone)]
pub(crate) struct Located {
    /// In the stores of the set.
    pub(crate) location: Location,
    /// As messages name it.
    pub(crate) name: String,
    /// Absolute path or URL.
    pub(crate) address: String,
    /// Bytes of the file.
    pub(crate) bytes: u64,
    /// Tells states of a remote object apart, where its store does.
    pub(crate) version: Option<String>,
    /// What the manifest of its data set says, where there is one.
    pub(crate) listed: Option<ManifestShard>,
}

/// What one pattern means.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) located: Vec<Located>,
    pub(super) warnings: Vec<Warning>,
    pub(super) problems: Vec<String>,
}

/// The files of all patterns, each once, in the order of their ordinals: pattern by pattern, within one in the order of
/// the manifest, and those that no manifest lists by relative path. Warnings name what was left out.
///
/// # Errors
/// A pattern that matches nothing, a manifest that lists what is not there, a store that cannot be reached.
pub(crate) async fn locate(patterns: &[String], stores: &Stores) -> Result<(Vec<Located>, Vec<Warning>)> {
    let mut located: Vec<Located> = Vec::new();
    let mut seen = BTreeSet::new();
    let mut warnings = Vec::new();
    let mut problems = Vec::new();
    for pattern in patterns {
        let found = match Address::parse(pattern) {
            Some(Err(problem)) => Found { problems: vec![problem], ..Found::default() },
            Some(Ok(address)) => locate_remote::find(&address, stores).await?,
            None => {
                let pattern = pattern.clone();
                tokio::task::spawn_blocking(move || local(&pattern))
                    .await
                    .map_err(|error| Error::internal("the search for shards did not finish").caused_by(error))??
            }
        };
        if found.located.is_empty() && found.problems.is_empty() {
            problems.push(format!(
                "`{pattern}` matches no file; name a file, a glob or a folder with *.parquet or *.arrow in it"
            ));
        }
        problems.extend(found.problems);
        warnings.extend(found.warnings);
        located.extend(found.located.into_iter().filter(|found| seen.insert(found.location.clone())));
    }
    if patterns.is_empty() {
        problems.push("no shards are named; name a file, a glob or a folder".into());
    }
    if problems.is_empty() { Ok((located, warnings)) } else { Err(Error::at(Stage::Shards, "", problems.join("\n  "))) }
}

fn local(pattern: &str) -> Result<Found> {
    let path = Path::new(pattern);
    let mut found = Found::default();
    let files = if path.is_dir() {
        folder(path, &mut found)?
    } else if path.exists() || !is_glob(pattern) {
        file(path)?
    } else {
        matching(pattern, &mut found)?
    };
    found.problems.extend(unfinished(files.iter().map(|(file, _)| file.as_path())));
    for (file, listed) in files {
        found.located.push(one(&file, listed)?);
    }
    Ok(found)
}

/// Folders in which an import was cut off: their shards are whole, but they are not the data set.
fn unfinished<'a>(files: impl Iterator<Item = &'a Path>) -> Vec<String> {
    let folders: BTreeSet<&Path> = files.filter_map(Path::parent).collect();
    let is_unfinished = |folder: &&Path| folder.join(IMPORTING_FILE).exists() && !folder.join(MANIFEST_FILE).exists();
    folders.into_iter().filter(is_unfinished).map(|folder| unfinished_problem(&folder.display())).collect()
}

pub(super) fn unfinished_problem(folder: &dyn std::fmt::Display) -> String {
    format!("{folder}: an import into this folder did not finish; wait for it, or import again")
}

/// The table of what an import refused lies beside the shards and is none.
fn is_shard(file: &str) -> bool {
    format::is_shard(file) && !lies_beside(file)
}

fn lies_beside(file: &str) -> bool {
    BESIDE_SHARDS.contains(&name_of(file))
}

fn name_of(file: &str) -> &str {
    file.rsplit_once('/').map_or(file, |(_, name)| name)
}

/// Files with what a manifest says about them.
type Listed<T> = Vec<(T, Option<ManifestShard>)>;

fn file(path: &Path) -> Result<Listed<PathBuf>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    let listed = match (ShardList::of_folder(folder)?, path.file_name().and_then(|name| name.to_str())) {
        (Some(manifest), Some(name)) => manifest.shards.into_iter().find(|shard| shard.file == name),
        _ => None,
    };
    Ok(vec![(path.to_owned(), listed)])
}

fn one(path: &Path, listed: Option<ManifestShard>) -> Result<Located> {
    let name = path.display().to_string();
    let bytes = std::fs::metadata(path).context(Stage::Select, &name, "cannot read this file")?.len();
    let path = std::path::absolute(path).context(Stage::Select, &name, "has no absolute path")?;
    let address = path.display().to_string();
    let location =
        Location::from_absolute_path(path).context(Stage::Select, &name, "its path cannot be used; rename it")?;
    Ok(Located { location, name, address, bytes, version: None, listed })
}

fn folder(folder: &Path, found: &mut Found) -> Result<Listed<PathBuf>> {
    let shards = shards_below(&files_below(folder, None)?, ShardList::of_folder(folder)?);
    let path = |file: &str| folder.join(file);
    shards.report(|file| path(file).display().to_string(), found);
    Ok(shards.shards.into_iter().map(|(file, listed)| (path(&file), listed)).collect())
}

/// What is found below a folder.
#[derive(Default)]
pub(super) struct ShardsBelow {
    /// In the order of the manifest, else by path.
    pub(super) shards: Listed<String>,
    left: Vec<String>,
    missing: Vec<String>,
}

/// What `files`, sorted paths below a folder, and its manifest make of it.
pub(super) fn shards_below(files: &[String], manifest: Option<ShardList>) -> ShardsBelow {
    let mut left: BTreeSet<&String> = files.iter().filter(|file| is_shard(file)).collect();
    let mut below = ShardsBelow::default();
    let Some(manifest) = manifest else {
        below.shards = left.into_iter().map(|file| (file.clone(), None)).collect();
        return below;
    };
    for shard in manifest.shards {
        left.remove(&shard.file);
        if files.binary_search(&shard.file).is_ok() {
            below.shards.push((shard.file.clone(), Some(shard)));
        } else {
            below.missing.push(shard.file);
        }
    }
    below.left = left.into_iter().cloned().collect();
    below
}

impl ShardsBelow {
    /// Tells of what was left out and what is missing.
    pub(super) fn report(&self, name: impl Fn(&str) -> String, found: &mut Found) {
        for file in &self.left {
            let text = format!("is left out: {MANIFEST_FILE} does not list it (an import that did not finish?)");
            let warning = Warning { place: name(file), text };
            match self.shards.is_empty() {
                true => found.problems.push(format!("{warning}; name the file itself to use it all the same")),
                false => found.warnings.push(warning),
            }
        }
        for file in &self.missing {
            found.problems.push(format!("{}: {MANIFEST_FILE} lists it, but it is not there", name(file)));
        }
    }
}

/// The longest head of `pattern` without wildcards, and the rest.
pub(super) fn head_and_glob(pattern: &str) -> (String, Glob) {
    let mut parts = pattern.split('/').filter(|part| !part.is_empty() && *part != ".").peekable();
    let mut head = Vec::new();
    while let Some(part) = parts.next_if(|part| !is_glob(part)) {
        head.push(part);
    }
    let rest: Vec<&str> = parts.collect();
    (head.join("/"), Glob::new(&rest.join("/")))
}

/// The folder that a local glob is searched from, and the rest.
fn base_and_glob(pattern: &str) -> (PathBuf, Glob) {
    let (head, glob) = head_and_glob(pattern);
    (Path::new(if pattern.starts_with('/') { "/" } else { "" }).join(head), glob)
}

/// Local files of any kind that a glob matches: the folder that was searched, and their paths below it.
pub(super) fn local_files(pattern: &str) -> Result<(PathBuf, Vec<String>)> {
    let (base, glob) = base_and_glob(pattern);
    let search = if base.as_os_str().is_empty() { PathBuf::from(".") } else { base };
    let mut files = if search.is_dir() { files_below(&search, Some(&glob))? } else { Vec::new() };
    files.retain(|file| glob.matches(&file.split('/').collect::<Vec<_>>()));
    Ok((search, files))
}

fn matching(pattern: &str, found: &mut Found) -> Result<Listed<PathBuf>> {
    let (base, glob) = base_and_glob(pattern);
    let search = if base.as_os_str().is_empty() { Path::new(".") } else { base.as_path() };
    if !search.is_dir() {
        return Ok(Vec::new());
    }
    let mut manifests = Manifests::new(|folder: &str| ShardList::of_folder(&search.join(folder)));
    let matching = matching_below(&files_below(search, Some(&glob))?, &glob, &mut manifests)?;
    matching.report(|file| base.join(file).display().to_string(), found);
    Ok(matching.shards.into_iter().map(|(file, listed)| (base.join(file), listed)).collect())
}

/// What a glob matches among `files`, sorted paths. In a data set it means those of its shards that match, as a folder
/// means all.
pub(super) fn matching_below(
    files: &[String],
    glob: &Glob,
    manifests: &mut Manifests<impl FnMut(&str) -> Result<Option<ShardList>>>,
) -> Result<ShardsBelow> {
    let matches = |file: &str| glob.matches(&file.split('/').collect::<Vec<_>>());
    // The manifest and the table of what import refused are no shards, whatever the glob.
    let mut found = Vec::new();
    let mut below = ShardsBelow::default();
    for file in files.iter().filter(|file| matches(file) && !lies_beside(file)) {
        match manifests.entry(file)? {
            // A data set stands where its folder stands among the paths.
            Entry::Listed { folder, position, shard } => {
                found.push(((path_below(&folder, ""), position), (file.clone(), Some(shard))));
            }
            Entry::Unlisted => below.left.push(file.clone()),
            Entry::NoManifest => found.push(((file.clone(), 0), (file.clone(), None))),
        }
    }
    let listed = manifests.listed().filter(|file| matches(file));
    below.missing = listed.filter(|file| files.binary_search(file).is_err()).collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    below.shards = found.into_iter().map(|(_, listed)| listed).collect();
    Ok(below)
}

fn parent(file: &str) -> &str {
    file.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// A file below a folder, which is empty for the folder that is searched.
pub(super) fn path_below(folder: &str, file: &str) -> String {
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
pub(super) struct Manifests<F> {
    read: F,
    by_folder: BTreeMap<String, Option<Entries>>,
}

impl<F: FnMut(&str) -> Result<Option<ShardList>>> Manifests<F> {
    /// `read` gives the manifest of a folder.
    pub(super) fn new(read: F) -> Self {
        Self { read, by_folder: BTreeMap::new() }
    }

    /// `file` in the nearest manifest at or above it.
    fn entry(&mut self, file: &str) -> Result<Entry> {
        let mut folder = parent(file);
        loop {
            if !self.by_folder.contains_key(folder) {
                let by_file = |manifest: ShardList| {
                    let entries = manifest.shards.into_iter().enumerate();
                    entries.map(|(position, shard)| (shard.file.clone(), (position, shard))).collect()
                };
                let entries = (self.read)(folder)?.map(by_file);
                self.by_folder.insert(folder.to_owned(), entries);
            }
            if let Some(Some(entries)) = self.by_folder.get(folder) {
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
        let files = self.by_folder.iter().filter_map(|(folder, entries)| Some((folder, entries.as_ref()?)));
        files.flat_map(|(folder, entries)| entries.keys().map(move |file| path_below(folder, file)))
    }
}

/// Relative paths of all files below `folder`, sorted, parts separated by `/`; hidden ones are passed over, and so are links
/// to a folder above. With `glob`, only folders are listed in which it can match.
fn files_below(folder: &Path, glob: Option<&Glob>) -> Result<Vec<String>> {
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
                let can_match = |glob: &Glob| glob.reaches(&relative.split('/').collect::<Vec<_>>());
                if !glob.is_none_or(can_match) || leads_above(&entry, &folder) {
                    continue;
                }
                waiting.push((entry.path(), format!("{relative}/")));
            } else {
                files.push(relative);
            }
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Whether an entry of `folder` is a link to this folder or one above it, which would be searched for ever.
fn leads_above(entry: &std::fs::DirEntry, folder: &Path) -> bool {
    let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
    is_link
        && match (entry.path().canonicalize(), folder.canonicalize()) {
            (Ok(target), Ok(folder)) => folder.starts_with(target),
            _ => false,
        }
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
        let (located, _) = run(&patterns)?;
        let relative = |l: &Located| Path::new(&l.name).strip_prefix(folder.path()).unwrap().display().to_string();
        Ok(located.iter().map(relative).collect())
    }

    fn run(patterns: &[String]) -> Result<(Vec<Located>, Vec<Warning>)> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(locate(patterns, &Stores::default()))
    }

    fn manifest(files: &[&str]) -> String {
        let shard = |file: &&str| ManifestShard {
            ordinal: 0,
            file: (*file).into(),
            rows: 0,
            bytes: 0,
            fingerprint: String::new(),
        };
        serde_json::to_string(&ShardList { shards: files.iter().map(shard).collect() }).unwrap()
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
    fn folders_in_which_nothing_can_match_are_not_listed_and_circles_end() {
        let tree = tree(&["a.parquet", "x/b.parquet", "x/y/c.parquet"]);
        std::os::unix::fs::symlink("..", tree.path().join("x/up")).unwrap();
        assert_eq!(names(&tree, &["**/*.parquet"]).unwrap(), ["a.parquet", "x/b.parquet", "x/y/c.parquet"]);
        assert_eq!(names(&tree, &["*/*.parquet"]).unwrap(), ["x/b.parquet"]);
        let (base, files) = local_files(&tree.path().join("*.parquet").display().to_string()).unwrap();
        assert_eq!((base.as_path(), files), (tree.path(), vec!["a.parquet".to_owned()]));
    }

    #[test]
    fn every_pattern_without_match_is_named() {
        let tree = tree(&["a.parquet"]);
        let text = names(&tree, &["z*.parquet", "a.parquet"]).unwrap_err().to_string();
        assert!(text.contains("z*.parquet` matches no file"), "{text}");
        assert!(run(&["ftp://host/x".into()]).unwrap_err().to_string().contains("no store is known for ftp://"));
        assert!(run(&[]).unwrap_err().to_string().contains("no shards are named"));
    }

    #[test]
    fn the_manifest_decides_the_order() {
        let tree = tree(&["b.parquet", "a.parquet", "c.parquet"]);
        std::fs::write(tree.path().join(MANIFEST_FILE), manifest(&["c.parquet", "a.parquet"])).unwrap();
        assert_eq!(names(&tree, &[""]).unwrap(), ["c.parquet", "a.parquet"]);
        let (_, warnings) = run(&[tree.path().display().to_string()]).unwrap();
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
        let (_, warnings) = run(&[tree.path().join("set/*.parquet").display().to_string()]).unwrap();
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
