//! Which kind of source FROM is.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::audio::EXTENSIONS as AUDIO_EXTENSIONS;
use super::class_folders::ClassFolders;
use super::document_table::DocumentTable;
use super::idx::IdxFiles;
use super::kind::Kind;
use super::metadata_folder::MetadataFolder;
use super::modality::Modality;
use super::rows::Rejected;
use super::source::Source;
use super::spool::Spool;
use super::text_series::TextSeries;
use super::walk::{Listed, Listing, walk};
use super::{ImportSettings, Progress, parquet_rows, path_table, patterns, webdataset};
use crate::error::{Context, Error, Result, Stage};

/// A source, and what was seen of it that is not imported.
pub(super) struct Detected {
    pub(super) source: Box<dyn Source>,
    /// Samples that pass 1 found to be of no use.
    pub(super) refused: Vec<Rejected>,
    pub(super) skipped: BTreeMap<String, u64>,
    pub(super) left_out: BTreeMap<String, u64>,
    pub(super) unlisted: u64,
    pub(super) ignored_columns: Vec<String>,
    pub(super) warnings: Vec<String>,
}

impl Detected {
    fn of(source: impl Source + 'static, skipped: BTreeMap<String, u64>) -> Self {
        Self {
            source: Box::new(source),
            refused: vec![],
            skipped,
            left_out: BTreeMap::new(),
            unlisted: 0,
            ignored_columns: vec![],
            warnings: vec![],
        }
    }
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
    let place = from.display().to_string();
    let mut modality = Modality::Image;
    let (root, mut listing) = if from.is_dir() {
        (from.to_owned(), walk(from, to, progress)?)
    } else {
        let (root, files) = patterns::files(from)?;
        let listing = sorted_in(&root, files, settings.read_as)?;
        (root, listing)
    };
    if settings.read_as == Some(Kind::Paths) {
        listing.tables.append(&mut listing.parquet);
        listing.tables.sort_by(|a, b| a.path.cmp(&b.path));
    }
    if settings.read_as == Some(Kind::AudioFolder) && listing.audio.is_empty() {
        return Err(no_audio(listing.images.len(), &place));
    }
    // Folders of audio are folders of files like those of images.
    if settings.read_as == Some(Kind::AudioFolder) || (listing.images.is_empty() && !listing.audio.is_empty()) {
        std::mem::swap(&mut listing.images, &mut listing.audio);
        modality = Modality::Audio;
    }
    // And so are folders of documents; unasked, texts are what lies beside data.
    if settings.read_as == Some(Kind::Documents) && !listing.texts.is_empty() {
        std::mem::swap(&mut listing.images, &mut listing.texts);
        modality = Modality::Text;
    }
    if !settings.label_names.is_empty() && listing.idx.is_empty() {
        let reason = "holds no IDX files, and label names are for those; leave them away";
        return Err(Error::at(Stage::Import, place, reason));
    }
    let kind = match settings.read_as {
        Some(Kind::AudioFolder) if listing.metadata.is_empty() => check_forced(Kind::ClassFolders, &listing, &place)?,
        Some(Kind::AudioFolder) => check_forced(Kind::MetadataFolder, &listing, &place)?,
        // Images beside tables are not what was asked for.
        Some(Kind::Documents) if modality != Modality::Text => check_forced(Kind::Documents, &listing, &place)?,
        Some(Kind::Documents) if listing.metadata.is_empty() => Kind::ClassFolders,
        Some(Kind::Documents) => Kind::MetadataFolder,
        Some(kind) => check_forced(kind, &listing, &place)?,
        None => judged(&listing, &place)?,
    };
    if !settings.columns.is_empty()
        && matches!(kind, Kind::ClassFolders | Kind::Idx | Kind::Ts | Kind::UcrTsv | Kind::CsvSeries | Kind::Documents)
    {
        let reason = format!("is read as {kind}, which has no columns to name; leave --column away");
        return Err(Error::at(Stage::Import, place, reason));
    }
    skip_others(kind, &mut listing);
    let columns = &settings.columns;
    match kind {
        Kind::ClassFolders | Kind::AudioFolder => {
            let found = ClassFolders::new(&root, listing.images, modality)?;
            let warnings = found.only_class().into_iter().collect();
            Ok(Detected { warnings, refused: listing.missing, ..Detected::of(found, listing.skipped) })
        }
        Kind::Documents => {
            let found = DocumentTable::open(&root, &listing.tables, Spool::new(to)?, progress)?;
            let ignored_columns = found.ignored_columns.clone();
            Ok(Detected { ignored_columns, ..Detected::of(found, listing.skipped) })
        }
        Kind::CsvSeries => {
            Ok(Detected::of(ClassFolders::new(&root, listing.tables, Modality::CsvSeries)?, listing.skipped))
        }
        Kind::Ts => Ok(Detected::of(TextSeries::open(kind, &root, &listing.ts)?, listing.skipped)),
        Kind::UcrTsv => Ok(Detected::of(TextSeries::open(kind, &root, &listing.tables)?, listing.skipped)),
        Kind::Idx => Ok(Detected::of(IdxFiles::open(&root, &listing.idx, &settings.label_names, to)?, listing.skipped)),
        Kind::MetadataFolder => {
            let found = MetadataFolder::new(&root, &listing.metadata, &listing.images, columns, modality)?;
            let (unlisted, ignored_columns) = (found.unlisted, found.ignored_columns.clone());
            Ok(Detected { unlisted, ignored_columns, ..Detected::of(found, listing.skipped) })
        }
        Kind::Webdataset => {
            let found = webdataset::open(&root, &listing.archives, columns, Spool::new(to)?, progress)?;
            let webdataset::Archives { mut samples, skipped, ignored_keys, warnings } = found;
            let refused = std::mem::take(&mut samples.rejected);
            for (what, count) in skipped {
                *listing.skipped.entry(what).or_default() += count;
            }
            let ignored_columns =
                ignored_keys.into_iter().map(|key| format!("{key}: a key of json that is not imported"));
            let ignored_columns = ignored_columns.collect();
            Ok(Detected { refused, ignored_columns, warnings, ..Detected::of(samples, listing.skipped) })
        }
        Kind::Parquet | Kind::Img2dataset => {
            let spool = Spool::new(to)?;
            let found = parquet_rows::open(&root, &listing.parquet, columns, settings.read_as, spool, progress)?;
            let parquet_rows::ParquetRows { mut samples, left_out, ignored_columns } = found;
            let refused = std::mem::take(&mut samples.rejected);
            Ok(Detected { refused, left_out, ignored_columns, ..Detected::of(samples, listing.skipped) })
        }
        Kind::Paths => {
            let (found, refused) = path_table::open(&root, &listing.tables, columns, progress)?;
            let ignored_columns = found.ignored_columns.clone();
            Ok(Detected { refused, ignored_columns, ..Detected::of(found, listing.skipped) })
        }
    }
}

/// Files that were named one by one: `--as` says what they are, whatever they are called, unless its kind has several
/// formats.
fn sorted_in(root: &Path, files: Vec<PathBuf>, read_as: Option<Kind>) -> Result<Listing> {
    let mut listing = Listing::default();
    for path in files {
        let full = root.join(&path);
        let metadata = std::fs::metadata(&full).context(
            Stage::Import,
            full.display().to_string(),
            "cannot be looked at; check permissions",
        )?;
        let file = Listed { path, bytes: metadata.len() };
        match read_as {
            Some(Kind::Webdataset) => listing.archives.push(file),
            Some(Kind::Parquet) => listing.parquet.push(file),
            Some(Kind::Paths | Kind::UcrTsv | Kind::CsvSeries) => listing.tables.push(file),
            Some(Kind::Documents) => {
                // A table where its name says so, else text, whatever it is called.
                if let Err(file) = listing.add(file) {
                    listing.texts.push(file);
                }
            }
            Some(Kind::Ts) => listing.ts.push(file),
            Some(Kind::MetadataFolder | Kind::Idx | Kind::AudioFolder) => {
                let reason = "is a file, and metadata folders and IDX files come in folders; name the folder";
                return Err(Error::at(Stage::Import, full.display().to_string(), reason));
            }
            Some(Kind::ClassFolders | Kind::Img2dataset) | None => {
                if let Err(file) = listing.add(file) {
                    if is_arrow_ipc(&file.path) {
                        let reason = "is Arrow IPC, which is read in place, without import: name it in scan.shards, or \
                                      write shards with diptych sql \"SELECT * FROM shards\" --shards FILE --to FOLDER";
                        return Err(Error::at(Stage::Import, full.display().to_string(), reason));
                    }
                    let reason = format!("has a name that says nothing; say what it is with --as ({})", Kind::list());
                    return Err(Error::at(Stage::Import, root.join(file.path).display().to_string(), reason));
                }
            }
        }
    }
    if !listing.idx.is_empty() {
        let reason = "is an IDX file, whose labels lie beside it; name the folder";
        return Err(Error::at(Stage::Import, root.join(&listing.idx[0]).display().to_string(), reason));
    }
    Ok(listing)
}

fn is_arrow_ipc(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default();
    ["arrow", "feather", "ipc"].iter().any(|known| extension.eq_ignore_ascii_case(known))
}

fn no_audio(images: usize, place: &str) -> Error {
    let kind = Kind::AudioFolder;
    let remedy = match images {
        0 => "name a folder that holds some".to_owned(),
        images => format!("leave --as {kind} away to import its {images} images"),
    };
    let endings = AUDIO_EXTENSIONS.join(", ");
    let reason = format!("holds no audio ({endings}), so it cannot be read as {kind}; {remedy}");
    Error::at(Stage::CommandLine, place, reason)
}

/// Whether there is anything of a kind that was asked for.
fn check_forced(kind: Kind, listing: &Listing, place: &str) -> Result<Kind> {
    let (is_there, what) = match kind {
        Kind::ClassFolders | Kind::AudioFolder => (!listing.images.is_empty(), "images or audio"),
        Kind::Documents => (!listing.tables.is_empty(), ".txt, .text, .md, .rst, .csv, .tsv or .jsonl"),
        Kind::Ts => (!listing.ts.is_empty(), ".ts"),
        Kind::UcrTsv => (!listing.tables.is_empty(), ".tsv"),
        Kind::CsvSeries => (!listing.tables.is_empty(), ".csv"),
        Kind::MetadataFolder => (!listing.metadata.is_empty(), "metadata.csv, .jsonl or .parquet"),
        Kind::Idx => (!listing.idx.is_empty(), "IDX files"),
        Kind::Webdataset => (!listing.archives.is_empty(), ".tar, .tar.gz or .tgz"),
        // Its other output format; Parquet beside tars has no images.
        Kind::Img2dataset if !listing.archives.is_empty() => return Ok(Kind::Webdataset),
        Kind::Img2dataset => (!listing.parquet.is_empty(), ".parquet, .tar, .tar.gz or .tgz"),
        Kind::Parquet => (!listing.parquet.is_empty(), ".parquet"),
        Kind::Paths => (!listing.tables.is_empty(), ".csv, .tsv, .jsonl or .parquet"),
    };
    if is_there {
        return Ok(kind);
    }
    let reason = format!("holds no {what}, so it cannot be read as {kind}; there are {}", Kind::list());
    Err(Error::at(Stage::CommandLine, place, reason))
}

/// The one kind of source that is there.
fn judged(listing: &Listing, place: &str) -> Result<Kind> {
    let ambiguous = |reason: &str| Err(Error::at(Stage::Import, place, reason));
    if !listing.idx.is_empty() {
        return if listing.images.is_empty() && listing.metadata.is_empty() && listing.archives.is_empty() {
            Ok(Kind::Idx)
        } else {
            ambiguous("holds IDX files beside images, archives or metadata tables; import them from a folder each")
        };
    }
    match (!listing.archives.is_empty(), !listing.images.is_empty(), !listing.metadata.is_empty()) {
        (true, true, _) => {
            ambiguous("holds tar archives beside images; say which with --as webdataset or --as class_folders")
        }
        (true, false, _) => Ok(Kind::Webdataset),
        (false, _, true) => Ok(Kind::MetadataFolder),
        (false, true, false) => Ok(Kind::ClassFolders),
        (false, false, false) if !listing.parquet.is_empty() => Ok(Kind::Parquet),
        (false, false, false) if !listing.ts.is_empty() => Ok(Kind::Ts),
        (false, false, false) if !listing.tables.is_empty() => {
            Ok(if listing.tables.iter().all(is_of_ucr) { Kind::UcrTsv } else { Kind::Paths })
        }
        (false, false, false) => {
            let reason = format!(
                "holds no images (jpg, jpeg, png, webp, gif), no audio (wav, flac, ogg, mp3), no .ts, no metadata.csv, .jsonl or .parquet, no IDX files, no .tar, \
                 .parquet or table of paths; name the folder or file that does, or its kind with --as ({})",
                Kind::list()
            );
            Err(Error::at(Stage::Import, place, reason))
        }
    }
}

/// Whether a table is named like those of the UCR archive: `GunPoint_TRAIN.tsv`.
fn is_of_ucr(file: &Listed) -> bool {
    let name = file.path.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with("_TRAIN.tsv") || name.ends_with("_TEST.tsv")
}

/// What another kind would read is counted like everything that nobody reads, but for metadata tables and IDX files.
fn skip_others(kind: Kind, listing: &mut Listing) {
    let is_parquet = matches!(kind, Kind::Parquet | Kind::Img2dataset);
    let lists = [
        (kind == Kind::Webdataset, &listing.archives),
        (is_parquet, &listing.parquet),
        (matches!(kind, Kind::Paths | Kind::UcrTsv | Kind::CsvSeries | Kind::Documents), &listing.tables),
        (kind == Kind::Ts, &listing.ts),
        // Beside images; after an exchange these are the images.
        (false, &listing.audio),
        (false, &listing.texts),
        // Those of a metadata folder are counted as unlisted.
        (matches!(kind, Kind::ClassFolders | Kind::MetadataFolder), &listing.images),
    ];
    for file in lists.into_iter().filter(|(is_read, _)| !is_read).flat_map(|(_, files)| files) {
        let extension = file.path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        *listing.skipped.entry(format!(".{extension}")).or_default() += 1;
    }
}
