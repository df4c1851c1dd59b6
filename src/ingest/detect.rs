//! Which kind of source a folder is.
use std::collections::BTreeMap;
use std::path::Path;

use super::class_folders::ClassFolders;
use super::idx::IdxFiles;
use super::metadata_folder::MetadataFolder;
use super::source::Source;
use super::walk::walk;
use super::{ImportSettings, Progress};
use crate::error::{Error, Result, Stage};

/// A source, and what was seen of it that is not imported.
pub(super) struct Detected {
    pub(super) source: Box<dyn Source>,
    pub(super) skipped: BTreeMap<String, u64>,
    pub(super) unlisted: u64,
    pub(super) ignored_columns: Vec<String>,
}

/// Looks at `from`; `to` is where the import writes.
///
/// # Errors
/// It holds nothing that can be imported, or two kinds of source at once.
pub(super) fn detect(
    from: &Path,
    to: &Path,
    settings: &ImportSettings,
    progress: &mut dyn FnMut(&Progress) -> Result<()>,
) -> Result<Detected> {
    let listing = walk(from, to, progress)?;
    let place = from.display().to_string();
    if !settings.label_names.is_empty() && listing.idx.is_empty() {
        let reason = "holds no IDX files, and label names are for those; leave them away";
        return Err(Error::at(Stage::Import, place, reason));
    }
    match (listing.metadata.is_empty(), listing.images.is_empty(), listing.idx.is_empty()) {
        (false, _, true) => {
            let found = MetadataFolder::new(from, &listing.metadata, &listing.images)?;
            Ok(Detected {
                skipped: listing.skipped,
                unlisted: found.unlisted,
                ignored_columns: found.ignored_columns.clone(),
                source: Box::new(found),
            })
        }
        (true, true, false) => {
            let source = IdxFiles::open(from, &listing.idx, &settings.label_names, to)?;
            Ok(nothing_left_out(source, listing.skipped))
        }
        (true, false, true) => Ok(nothing_left_out(ClassFolders::new(from, listing.images)?, listing.skipped)),
        (_, _, false) => {
            let reason = "holds IDX files beside images or metadata tables; import them from a folder each";
            Err(Error::at(Stage::Import, place, reason))
        }
        (true, true, true) => {
            let reason = "holds no images (jpg, jpeg, png, webp, gif), no metadata.csv, .jsonl or .parquet and no IDX files; \
                          name the folder that does";
            Err(Error::at(Stage::Import, place, reason))
        }
    }
}

fn nothing_left_out(source: impl Source + 'static, skipped: BTreeMap<String, u64>) -> Detected {
    Detected { source: Box::new(source), skipped, unlisted: 0, ignored_columns: vec![] }
}
