//! `diptych import FROM TO`
use std::path::PathBuf;

use super::{
    output,
    progress::{self, Progress},
};
use crate::{
    error::Result,
    ingest::{self, ImportReport, ImportSettings},
    synthetic::{self, SyntheticSettings},
};

/// FROM with this prefix makes images instead of reading any.
const SYNTHETIC: &str = "synthetic:shapes";

/// Damaged archives that are named one by one.
const WARNINGS_SHOWN: usize = 20;

/// The words of the command.
#[derive(Debug, Clone)]
pub struct Request {
    /// Folder, file or pattern to read.
    pub from: PathBuf,
    /// Folder to write.
    pub to: PathBuf,
    /// How; what is not named on the command line is as [`ImportSettings::default`] has it.
    pub settings: ImportSettings,
    /// Ends with a JSON line.
    pub json: bool,
}

/// Imports and prints what became of it.
///
/// # Errors
/// The import's.
pub fn run(request: &Request) -> Result<()> {
    let Request { from, to, settings, json } = request;
    let work = if settings.reference { "index" } else { "import" };
    let report = match from.to_str() == Some(SYNTHETIC) {
        true => synthetic::write_shards(to, &SyntheticSettings::default(), settings)?,
        false => with_progress(work, "images", |progress| ingest::import(from, to, settings, progress))?,
    };
    output::line(&summary(&report, &to.display().to_string()))?;
    if *json { output::json(&report) } else { Ok(()) }
}

/// Shows how far writing is, and listing where there is any; `what` becomes of `unit`s.
pub(super) fn with_progress(
    what: &'static str,
    unit: &'static str,
    write: impl FnOnce(&mut dyn FnMut(&ingest::Progress) -> Result<()>) -> Result<ImportReport>,
) -> Result<ImportReport> {
    let (mut listing, mut writing): (Option<Progress>, Option<Progress>) = (None, None);
    let report = write(&mut |news| {
        match news {
            ingest::Progress::Listing { files } => {
                listing.get_or_insert_with(|| Progress::new("listing", 0, "files")).at(*files, "");
            }
            ingest::Progress::Writing { done, total, bytes, quarantined, shards } => {
                let news = format!("{:.0} MB, {shards} shards, {quarantined} bad", *bytes as f64 / 1e6);
                writing.get_or_insert_with(|| Progress::new(what, *total, unit)).at(*done, &news);
            }
        }
        Ok(())
    });
    [listing, writing].into_iter().flatten().for_each(Progress::finish);
    report
}

pub(super) fn summary(report: &ImportReport, to: &str) -> String {
    let mut text = format!(
        "{to}: {} in {}, {:.1} MB of {}, from {} in {:.1} s",
        output::counted(report.rows, "row"),
        output::counted(report.shards.len() as u64, "shard"),
        report.image_bytes as f64 / 1e6,
        report.samples,
        report.kind,
        report.seconds
    );
    let counts = |counts: &std::collections::BTreeMap<String, u64>| {
        let named = |name: &str| if name.is_empty() { "none".to_owned() } else { name.to_owned() };
        counts.iter().map(|(name, count)| format!("{} {count}", named(name))).collect::<Vec<_>>().join(", ")
    };
    if report.splits.keys().any(|split| !split.is_empty()) {
        text.push_str(&format!("\nsplits: {}", counts(&report.splits)));
    }
    if report.labels.keys().any(|label| !label.is_empty()) {
        text.push_str(&format!("\nlabels: {}", report.labels.keys().filter(|label| !label.is_empty()).count()));
    }
    if report.quarantined > 0 {
        text.push_str(&format!(
            "\nbad: {} {}, listed in {}/{}",
            report.quarantined,
            report.samples,
            to.trim_end_matches('/'),
            ingest::QUARANTINE_FILE
        ));
    }
    if !report.left_out.is_empty() {
        text.push_str(&format!("\nleft out, by status: {}", counts(&report.left_out)));
    }
    if !report.skipped.is_empty() {
        progress::log(&format!("skipped files: {}", counts(&report.skipped)));
    }
    if report.unlisted > 0 {
        progress::log(&format!("left out {} {} that no metadata table lists", report.unlisted, report.samples));
    }
    report.warnings.iter().take(WARNINGS_SHOWN).for_each(|warning| progress::log(&format!("warning: {warning}")));
    if let more @ 1.. = report.warnings.len().saturating_sub(WARNINGS_SHOWN) {
        progress::log(&format!("warning: and {more} more of that kind, listed in {to}/{}", ingest::QUARANTINE_FILE));
    }
    for column in &report.ignored_columns {
        progress::log(&format!("left out column {column}"));
    }
    text
}
