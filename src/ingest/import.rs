//! The two passes of an import.
use std::path::Path;
use std::time::Instant;

use super::destination::Destination;
use super::detect::{Detected, detect};
use super::manifest::Manifest;
use super::modality::Modality;
use super::order::{Group, groups};
use super::rows::{Outcome, Rejected, chunks, read_all};
use super::shard::ShardWriter;
use super::source::Source;
use super::{ImportReport, ImportSettings, LABELS_COUNTED, Progress, quarantine, references};
use crate::error::{Context, Error, Result, Stage};
use crate::schema::Schema;

/// Images are numbered in 32 bits while they are imported.
const MAX_IMAGES: usize = u32::MAX as usize;

/// Imports whatever `from` is (a folder, a file, or a pattern such as `shard-{000..012}.tar`) into shards in `to`, which
/// is made where it is not there.
///
/// `progress` is called on this thread, a few times a second at most for files of usual size; an error that it returns
/// stops the import. Whatever stops it, `to` then holds nothing of it.
///
/// # Errors
/// Settings that cannot be meant, a source that cannot be made out or read, a folder that cannot be written or holds a
/// data set already, no usable image at all. Images that cannot be *used* are no error: they are in the report.
pub fn import(
    from: &Path,
    to: &Path,
    settings: &ImportSettings,
    progress: &mut dyn FnMut(&Progress) -> Result<()>,
) -> Result<ImportReport> {
    into_folder(to, settings, |destination| {
        let to_path = canonical(to)?;
        if from.canonicalize().is_ok_and(|from_path| from_path == to_path) {
            let reason = "is both source and destination; name another folder to write into";
            return Err(Error::at(Stage::Import, to.display().to_string(), reason));
        }
        let Detected { source, refused, skipped, left_out, unlisted, ignored_columns, warnings } =
            detect(from, &to_path, settings, progress)?;
        let place = from.display().to_string();
        let (manifest, report) = write(source.as_ref(), &place, refused, destination, settings, progress)?;
        Ok((manifest, ImportReport { skipped, left_out, unlisted, ignored_columns, warnings, ..report }))
    })
}

/// The same for a source of one's own.
///
/// # Errors
/// As [`import`].
pub fn import_source(
    source: &dyn Source,
    to: &Path,
    settings: &ImportSettings,
    progress: &mut dyn FnMut(&Progress) -> Result<()>,
) -> Result<ImportReport> {
    into_folder(to, settings, |destination| write(source, "", vec![], destination, settings, progress))
}

/// The same for a source that is made when the folder has been claimed, and may use it for temporary files.
pub(crate) fn import_made<S: Source>(
    make: impl FnOnce() -> Result<S>,
    to: &Path,
    settings: &ImportSettings,
    progress: &mut dyn FnMut(&Progress) -> Result<()>,
) -> Result<ImportReport> {
    into_folder(to, settings, |destination| write(&make()?, "", vec![], destination, settings, progress))
}

fn canonical(path: &Path) -> Result<std::path::PathBuf> {
    path.canonicalize().context(Stage::Import, path.display().to_string(), "cannot be found; check permissions")
}

/// Claims `to`, lets `import` write and makes its work a data set. An old data set stays whole until the new one is.
pub(crate) fn into_folder(
    to: &Path,
    settings: &ImportSettings,
    import: impl FnOnce(&mut Destination) -> Result<(Manifest, ImportReport)>,
) -> Result<ImportReport> {
    settings.check()?;
    let started = Instant::now();
    let mut destination = Destination::claim(to, settings.overwrite)?;
    let imported = if destination.holds_data_set() {
        destination.claim_beside().and_then(|mut beside| match import(&mut beside) {
            Ok((manifest, report)) => {
                beside.finish(&manifest)?;
                destination.take_from_beside(&manifest)?;
                Ok((manifest, report))
            }
            Err(error) => {
                beside.abandon();
                Err(error)
            }
        })
    } else {
        import(&mut destination)
    };
    match imported {
        Ok((manifest, report)) => {
            destination.finish(&manifest)?;
            Ok(ImportReport { shards: manifest.shards, seconds: started.elapsed().as_secs_f64(), ..report })
        }
        Err(error) => {
            destination.abandon();
            Err(error)
        }
    }
}

/// Pass 2: everything but the manifest.
fn write(
    source: &dyn Source,
    place: &str,
    refused: Vec<Rejected>,
    destination: &mut Destination,
    settings: &ImportSettings,
    progress: &mut dyn FnMut(&Progress) -> Result<()>,
) -> Result<(Manifest, ImportReport)> {
    if source.images() > MAX_IMAGES {
        let reason = format!("{} images are more than one import takes; import them in parts", source.images());
        return Err(Error::at(Stage::Import, "", reason));
    }
    if settings.reference {
        references::check(source)?;
    }
    if settings.rate_hz.is_some() && !matches!(source.modality(), Modality::Audio | Modality::CsvSeries) {
        let reason = format!(
            "is read as {}, whose {} say no rate; leave --rate-hz away",
            source.kind(),
            source.modality().samples()
        );
        return Err(Error::at(Stage::CommandLine, place, reason));
    }
    let keep_order = settings.keep_order || settings.reference && source.is_packed();
    let schema = Schema::named(source.modality().schema())?;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(settings.threads)
        .thread_name(|number| format!("import-{number}"))
        .build()
        .context(Stage::Import, "", "cannot start its threads")?;
    let groups = groups(source, settings.seed, keep_order);
    destination.clear()?;
    let mut writing = Writing {
        shards: ShardWriter::new(source, &schema, settings)?,
        report: ImportReport {
            kind: source.kind().to_owned(),
            samples: source.modality().samples().to_owned(),
            ..ImportReport::default()
        },
        total: (source.images() + refused.len()) as u64,
        rejected: refused,
        progress,
    };
    for group in &groups {
        writing.group(source, group, destination, settings, &pool)?;
    }
    let Writing { shards, mut report, rejected, .. } = writing;
    if report.rows == 0 {
        return Err(no_rows(place, &rejected));
    }
    report.quarantined = rejected.len() as u64;
    quarantine::write(destination, rejected)?;
    let manifest = Manifest {
        quarantined: report.quarantined,
        order: if keep_order { "kept" } else { "keyed" }.to_owned(),
        seed: settings.seed,
        ..Manifest::new(&schema, shards.shards().to_vec())
    };
    Ok((manifest, report))
}

fn no_rows(place: &str, rejected: &[Rejected]) -> Error {
    let first = rejected.first().map(|r| format!("; the first is {}: {}", r.source, r.reason)).unwrap_or_default();
    let reason = match rejected.len() {
        0 => "holds no images, so none of them can be used; name something with images".to_owned(),
        images => format!("none of {images} images can be used{first}; name something with images"),
    };
    Error::at(Stage::Import, place, reason)
}

struct Writing<'a> {
    shards: ShardWriter<'a>,
    report: ImportReport,
    rejected: Vec<Rejected>,
    total: u64,
    progress: &'a mut dyn FnMut(&Progress) -> Result<()>,
}

impl Writing<'_> {
    /// One split: while a chunk is written on this thread, the pool reads and checks the next.
    fn group(
        &mut self,
        source: &dyn Source,
        group: &Group,
        destination: &mut Destination,
        settings: &ImportSettings,
        pool: &rayon::ThreadPool,
    ) -> Result<()> {
        let mut ready: Vec<Outcome> = vec![];
        for chunk in chunks(source, &group.images) {
            let mut next = Ok(vec![]);
            let next_slot = &mut next;
            let outcomes = std::mem::take(&mut ready);
            pool.in_place_scope(|scope| {
                scope.spawn(move |_| *next_slot = read_all(source, chunk, settings));
                self.outcomes(outcomes, &group.slug, destination)
            })?;
            ready = next?;
        }
        self.outcomes(ready, &group.slug, destination)?;
        self.shards.close(destination)
    }

    fn outcomes(&mut self, outcomes: Vec<Outcome>, slug: &str, destination: &mut Destination) -> Result<()> {
        for outcome in outcomes {
            match outcome {
                Ok(row) => {
                    let report = &mut self.report;
                    report.rows += 1;
                    report.image_bytes += row.blob.len() as u64;
                    *report.splits.entry(row.split.clone().unwrap_or_default()).or_default() += 1;
                    let label = row.label.as_deref().unwrap_or_default();
                    let is_counted = report.labels.len() < LABELS_COUNTED || report.labels.contains_key(label);
                    *report.labels.entry(if is_counted { label } else { "…" }.to_owned()).or_default() += 1;
                    self.shards.push(destination, slug, row)?;
                }
                Err(rejected) => self.rejected.push(rejected),
            }
        }
        (self.progress)(&Progress::Writing {
            // Long series are several rows each.
            done: (self.report.rows + self.rejected.len() as u64).min(self.total),
            total: self.total,
            bytes: self.report.image_bytes,
            quarantined: self.rejected.len() as u64,
            shards: self.shards.shards().len(),
        })
    }
}
