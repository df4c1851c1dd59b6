//! What lies in a folder: images, archives, tables, IDX files and the rest, by name and size, in the order of names.
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::audio::EXTENSIONS as AUDIO_EXTENSIONS;
use super::class_folders::source_name;
use super::rows::Rejected;
use super::source::{Place, read_file};
use super::{Progress, QUARANTINE_FILE};
use crate::augment::{BadClass, BadSample};
use crate::error::{Context, Result, Stage};

pub(super) const IMAGE_EXTENSIONS: [&str; 6] = ["jpg", "jpeg", "jpe", "png", "webp", "gif"];
/// Endings of files that are taken for documents.
pub(super) const TEXT_EXTENSIONS: [&str; 4] = ["txt", "text", "md", "rst"];
const METADATA_NAMES: [&str; 3] = ["metadata.csv", "metadata.jsonl", "metadata.parquet"];
/// How often a long listing says how far it is.
const FILES_PER_PROGRESS: u64 = 10_000;

/// One file, below the folder that was walked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
}

impl Listed {
    /// Its bytes, below `root`.
    ///
    /// # Errors
    /// As [`read_file`].
    pub(super) fn read(&self, root: &Path) -> Result<Vec<u8>> {
        read_file(&root.join(&self.path), self.bytes)
    }

    /// Where its bytes are, for who refers to them.
    pub(super) fn place(&self, root: &Path) -> Place {
        Place { file: root.join(&self.path), offset: 0 }
    }
}

/// Everything below a folder.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) images: Vec<Listed>,
    /// Audio, by their names.
    pub(super) audio: Vec<Listed>,
    /// Text, by its names.
    pub(super) texts: Vec<Listed>,
    /// `.ts`.
    pub(super) ts: Vec<Listed>,
    pub(super) metadata: Vec<PathBuf>,
    pub(super) idx: Vec<PathBuf>,
    /// `.tar`, `.tar.gz`, `.tgz`.
    pub(super) archives: Vec<Listed>,
    /// `.parquet`, but for metadata and quarantine.
    pub(super) parquet: Vec<Listed>,
    /// `.csv`, `.tsv`, `.jsonl`, but for metadata.
    pub(super) tables: Vec<Listed>,
    /// Files that are none of these, counted by what they are.
    pub(super) skipped: BTreeMap<String, u64>,
    /// Images that are not there: links that lead nowhere.
    pub(super) missing: Vec<Rejected>,
}

impl Listing {
    /// Sorts in a file by its name; gives it back where the name says nothing.
    pub(super) fn add(&mut self, file: Listed) -> std::result::Result<(), Listed> {
        let name = file.path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let extension = Path::new(&name).extension().map(|extension| extension.to_string_lossy()).unwrap_or_default();
        match extension.as_ref() {
            _ if name.ends_with("-ubyte") || name.ends_with("-ubyte.gz") => self.idx.push(file.path),
            _ if name.ends_with(".tar.gz") => self.archives.push(file),
            "tar" | "tgz" => self.archives.push(file),
            "parquet" => self.parquet.push(file),
            "csv" | "tsv" | "jsonl" | "ndjson" => self.tables.push(file),
            image if IMAGE_EXTENSIONS.contains(&image) => self.images.push(file),
            audio if AUDIO_EXTENSIONS.contains(&audio) => self.audio.push(file),
            "ts" => self.ts.push(file),
            text if TEXT_EXTENSIONS.contains(&text) => self.texts.push(file),
            _ => return Err(file),
        }
        Ok(())
    }
}

/// Walks `root`, and into folders behind links, but not into `excluded` (canonical), where an import writes.
///
/// Links are followed: data sets are often assembled from them. A link to a folder that contains it is skipped.
///
/// # Errors
/// Something cannot be listed; `progress` says stop.
pub(super) fn walk(root: &Path, excluded: &Path, progress: &mut dyn FnMut(&Progress) -> Result<()>) -> Result<Listing> {
    let mut walk = Walk { root, excluded, progress, files: 0, listing: Listing::default() };
    let canonical = root.canonicalize().context(
        Stage::Import,
        root.display().to_string(),
        "cannot be listed; name a folder that is there and may be read",
    )?;
    walk.folder(Path::new(""), &mut vec![canonical])?;
    Ok(walk.listing)
}

struct Walk<'a> {
    root: &'a Path,
    excluded: &'a Path,
    progress: &'a mut dyn FnMut(&Progress) -> Result<()>,
    files: u64,
    listing: Listing,
}

impl Walk<'_> {
    /// `above` holds the canonical paths of this folder and those it was reached through.
    fn folder(&mut self, below: &Path, above: &mut Vec<PathBuf>) -> Result<()> {
        let path = self.root.join(below);
        let place = path.display().to_string();
        let cannot_list = "cannot be listed; check permissions";
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(&path).context(Stage::Import, &place, cannot_list)? {
            entries.push(entry.context(Stage::Import, &place, cannot_list)?.file_name());
        }
        entries.sort_unstable();
        for name in entries {
            let below = below.join(&name);
            let path = self.root.join(&below);
            if name.as_encoded_bytes().starts_with(b".") {
                self.skip("hidden");
                continue;
            }
            let metadata = match std::fs::metadata(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    self.missing(&below);
                    continue;
                }
                metadata => {
                    let reason = "cannot be looked at; check permissions";
                    metadata.context(Stage::Import, path.display().to_string(), reason)?
                }
            };
            if metadata.is_dir() {
                let canonical = path.canonicalize().context(Stage::Import, path.display().to_string(), cannot_list)?;
                if canonical == self.excluded {
                    continue;
                }
                if above.contains(&canonical) {
                    self.skip("links to a folder above");
                    continue;
                }
                above.push(canonical);
                self.folder(&below, above)?;
                above.pop();
            } else if metadata.is_file() {
                self.file(below, metadata.len())?;
            } else {
                self.skip("neither file nor folder");
            }
        }
        Ok(())
    }

    fn file(&mut self, path: PathBuf, bytes: u64) -> Result<()> {
        self.files += 1;
        if self.files.is_multiple_of(FILES_PER_PROGRESS) {
            (self.progress)(&Progress::Listing { files: self.files })?;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        if METADATA_NAMES.contains(&name.as_str()) {
            self.listing.metadata.push(path);
            return Ok(());
        }
        if name == QUARANTINE_FILE {
            self.skip("quarantine tables");
            return Ok(());
        }
        if let Err(file) = self.listing.add(Listed { path, bytes }) {
            match file.path.extension() {
                Some(extension) => self.skip(&format!(".{}", extension.to_string_lossy().to_lowercase())),
                None if self.looks_like_an_image(&file.path)? => self.listing.images.push(file),
                None => self.skip("no extension, no image"),
            }
        }
        Ok(())
    }

    /// What cannot be opened is told when it is read.
    fn looks_like_an_image(&self, path: &Path) -> Result<bool> {
        let path = self.root.join(path);
        let mut first = Vec::new();
        match File::open(&path).and_then(|file| file.take(16).read_to_end(&mut first)) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(true),
            read => read.context(Stage::Import, path.display().to_string(), "cannot be read; check permissions")?,
        };
        Ok(super::check::format_of(&first).is_some())
    }

    fn missing(&mut self, path: &Path) {
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        if IMAGE_EXTENSIONS.contains(&extension.as_str()) {
            let reason = BadSample { class: BadClass::Missing, message: "is a link that leads nowhere".to_owned() };
            self.listing.missing.push(Rejected { source: source_name(path).into_owned(), reason });
        } else {
            self.skip("links that lead nowhere");
        }
    }

    fn skip(&mut self, what: &str) {
        *self.listing.skipped.entry(what.to_owned()).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn write(root: &Path, name: &str, content: &[u8]) {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn listing(root: &Path) -> Result<Listing> {
        walk(root, &root.join("out"), &mut |_| Ok(()))
    }

    fn images(listing: &Listing) -> Vec<&str> {
        listing.images.iter().map(|image| image.path.to_str().unwrap()).collect()
    }

    #[test]
    fn images_are_found_by_extension_in_any_case_or_by_their_first_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let root = &folder.path().canonicalize().unwrap();
        write(root, "b/äöü 猫.JPeG", b"x");
        write(root, "a.PNG", b"");
        write(root, "c/0a1b2c", b"GIF89a??????????????");
        write(root, "c/README", b"hello");
        write(root, "c/notes.txt", b"");
        write(root, "c/.a.png", b"");
        write(root, "c/photo.bmp", b"");
        write(root, "out/a.png", b"");
        write(root, "metadata.jsonl", b"");
        write(root, "raw/train-images-idx3-ubyte.gz", b"");
        let found = listing(root).unwrap();
        assert_eq!(images(&found), ["a.PNG", "b/äöü 猫.JPeG", "c/0a1b2c"]);
        assert_eq!(found.metadata, [Path::new("metadata.jsonl")]);
        assert_eq!(found.idx, [Path::new("raw/train-images-idx3-ubyte.gz")]);
        let skipped: Vec<_> = found.skipped.iter().map(|(k, n)| (k.as_str(), *n)).collect();
        assert_eq!(skipped, [(".bmp", 1), ("hidden", 1), ("no extension, no image", 1)]);
        assert_eq!(found.texts, [Listed { path: "c/notes.txt".into(), bytes: 0 }]);
    }

    #[test]
    fn links_are_followed_but_not_round_in_circles() {
        let folder = tempfile::tempdir().unwrap();
        let root = &folder.path().canonicalize().unwrap();
        write(root, "a/1.png", b"1");
        write(root, "b/2.png", b"22");
        symlink(root.join("b"), root.join("a/to_b")).unwrap();
        symlink(root.join("a"), root.join("b/to_a")).unwrap();
        symlink(root.join("a/1.png"), root.join("3.png")).unwrap();
        let found = listing(root).unwrap();
        assert_eq!(images(&found), ["3.png", "a/1.png", "a/to_b/2.png", "b/2.png", "b/to_a/1.png"]);
        assert_eq!(found.images[0].bytes, 1);
        assert_eq!(found.skipped["links to a folder above"], 2);
    }

    #[test]
    fn a_link_that_leads_nowhere_is_a_missing_image_or_skipped() {
        let folder = tempfile::tempdir().unwrap();
        symlink("gone", folder.path().join("a.png")).unwrap();
        symlink("gone", folder.path().join("notes.txt")).unwrap();
        let found = listing(folder.path()).unwrap();
        assert_eq!((found.missing.len(), found.missing[0].source.as_str()), (1, "a.png"));
        assert_eq!(found.skipped["links that lead nowhere"], 1);
    }
}
