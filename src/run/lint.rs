//! `diptych lint PIPELINE` or `diptych lint --shards GLOB…`
use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf, sync::Arc};

use serde::Serialize;

use super::{
    Named,
    data::{decode_threads, io_runtime},
    lint_page, output,
    progress::Progress,
};
use crate::{
    error::{Error, Result, Stage},
    lint::{
        self, Kind, Lint, LintSettings,
        statistics::{Statistics, commonest},
        table,
    },
    schema::Schema,
    stores::routing_store::Stores,
};

/// What is linted where no pipeline is named.
const DEFAULT_SCHEMA: &str = "image_text";
/// Schemas that can be linted.
const LINTED: [&str; 2] = [DEFAULT_SCHEMA, "time_series"];
/// Values of a column that the terminal lists.
const VALUES_LISTED: usize = 8;

/// Findings for which `--fail-on` makes the command fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailOn {
    /// Images that training would refuse.
    Bad,
}

/// The words of the command.
#[derive(Debug, Clone)]
pub struct Request {
    /// Whose `scan.shards`, `scan.schema` and `augment.max_megapixels`; all of its rows, whatever its SQL keeps.
    pub pipeline: Option<Named>,
    /// Instead of a pipeline's.
    pub shards: Vec<String>,
    /// Of shards that no pipeline names.
    pub schema: Option<String>,
    /// What files call the schema's columns, beside what the pipeline says.
    pub columns: BTreeMap<String, String>,
    /// Where to write the table and the page.
    pub to: Option<PathBuf>,
    /// Ends with a JSON line.
    pub json: bool,
    /// Exit code 1 also for these.
    pub fail_on: Option<FailOn>,
    /// How; `max_pixels` and `threads` come from the pipeline where there is one.
    pub settings: LintSettings,
}

/// What the JSON line holds.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    shards: u64,
    unread_shards: u64,
    bad_images: u64,
    findings: &'a BTreeMap<Kind, BTreeMap<&'static str, u64>>,
    differences: &'a [String],
    statistics: &'a Statistics,
}

/// Lints, prints a summary, writes table and page where asked.
///
/// # Errors
/// Mistakes of the pipeline, no such shards, a shard that could not be read, or what `--fail-on` names.
pub fn run(request: &Request) -> Result<()> {
    let Resolved { patterns, schema, stores, settings } = resolved(request)?;
    let mut bar: Option<Progress> = None;
    let linted = io_runtime()?.block_on(lint::lint(&patterns, &schema, &stores, &settings, &mut |done, rows| {
        bar.get_or_insert_with(|| Progress::new("lint", rows, "rows")).at(done, "");
    }));
    if let Some(bar) = bar {
        bar.finish();
    }
    let linted = linted?;
    let samples = if schema.name == DEFAULT_SCHEMA { "images" } else { "series" };
    output::line(&text(&linted, samples))?;
    if let Some(folder) = &request.to {
        table::write(folder, &linted.findings.kept)?;
        lint_page::write(folder, &patterns, samples, &linted)?;
        output::line(&format!("written to {}: {} and {}", folder.display(), table::TABLE_FILE, lint_page::PAGE_FILE))?;
    }
    let bad_images = linted.findings.bad();
    if request.json {
        output::json(&Summary {
            shards: linted.shards,
            unread_shards: linted.unread_shards,
            bad_images,
            findings: &linted.findings.counts,
            differences: &linted.differences,
            statistics: &linted.statistics,
        })?;
    }
    if linted.unread_shards > 0 {
        let unread = output::counted(linted.unread_shards, "shard");
        let reason = format!("{unread} could not be read; the findings of kind shard say why");
        return Err(Error::at(Stage::Lint, "", reason));
    }
    match request.fail_on {
        Some(FailOn::Bad) if bad_images > 0 => {
            let reason =
                format!("{bad_images} {samples} are bad; leave them out with SQL, or import their sources again");
            Err(Error::at(Stage::Lint, "--fail-on bad", reason))
        }
        _ => Ok(()),
    }
}

struct Resolved {
    patterns: Vec<String>,
    schema: Schema,
    stores: Arc<Stores>,
    settings: LintSettings,
}

fn resolved(request: &Request) -> Result<Resolved> {
    let mut settings = request.settings.clone();
    let (mut patterns, mut schema) =
        (request.shards.clone(), request.schema.clone().unwrap_or_else(|| DEFAULT_SCHEMA.to_owned()));
    let (mut columns, mut stores) = (BTreeMap::new(), Arc::default());
    if let Some(named) = &request.pipeline {
        let pipeline = named.plan()?.pipeline;
        if patterns.is_empty() {
            patterns = pipeline.scan.all_shards();
        }
        stores = Arc::new(Stores::of_pipeline(&pipeline.scan.store, pipeline.scan.cache.as_ref())?);
        schema = pipeline.scan.schema;
        columns = pipeline.scan.columns;
        settings.max_pixels = (pipeline.augment.max_megapixels * 1e6) as u64;
        settings.threads = pipeline.augment.decode_threads;
    }
    if !LINTED.contains(&schema.as_str()) {
        let reason = format!(
            "lint looks at images and series, and these shards are {schema}; ask for others with SQL, such as\n  \
             diptych sql \"SELECT source FROM shards WHERE sentences < 8\" --schema {schema}"
        );
        return Err(Error::at(Stage::CommandLine, "lint", reason));
    }
    if settings.near_bits > lint::duplicates::MOST_NEAR_BITS {
        let reason =
            format!("{} bits are no likeness; choose 0 to {}", settings.near_bits, lint::duplicates::MOST_NEAR_BITS);
        return Err(Error::at(Stage::CommandLine, "--near-bits", reason));
    }
    settings.threads = decode_threads(settings.threads);
    columns.extend(request.columns.clone());
    Ok(Resolved { patterns, schema: Schema::named(&schema)?.with_names_in_files(&columns)?, stores, settings })
}

fn text(linted: &Lint, samples: &str) -> String {
    let Statistics { rows, image_bytes, nulls, formats, splits, labels, histograms } = &linted.statistics;
    let mut text = format!(
        "{rows} rows in {}, {:.1} MB of {samples}",
        output::counted(linted.shards, "shard"),
        *image_bytes as f64 / 1e6
    );
    if linted.unread_shards > 0 {
        let _ = write!(text, "; {} could not be read", output::counted(linted.unread_shards, "shard"));
    }
    for (name, counts) in [("formats", formats), ("splits", splits), ("labels", labels)] {
        if !counts.is_empty() {
            let _ = write!(text, "\n{name:<10} {}", most(counts));
        }
    }
    let missing: Vec<String> =
        nulls.iter().filter(|(_, count)| **count > 0).map(|(column, count)| format!("{column} {count}")).collect();
    if !missing.is_empty() {
        let _ = write!(text, "\n{:<10} {}", "null", missing.join(", "));
    }
    let _ = write!(
        text,
        "\n\n{:<20} {:>12} {:>12} {:>12} {:>12} {:>12}",
        "size", "least", "10 %", "median", "90 %", "most"
    );
    for histogram in histograms.iter().filter(|histogram| histogram.total() > 0) {
        let _ = write!(text, "\n{:<20}", histogram.name);
        let quantiles = [0.1, 0.5, 0.9].map(|share| histogram.quantile(share));
        for value in [histogram.least, quantiles[0], quantiles[1], quantiles[2], histogram.most] {
            let _ = write!(text, " {:>12}", value.map(lint_page::number).unwrap_or_default());
        }
    }
    text.push_str("\n\nfindings");
    if linted.findings.counts.is_empty() {
        text.push_str("\n  none");
    }
    for (kind, classes) in &linted.findings.counts {
        for (class, count) in classes {
            let first = linted.findings.first(*kind, class);
            let example = first.map(|f| format!("{}: {}", place(f), f.message.replace('\n', " "))).unwrap_or_default();
            let _ = write!(text, "\n  {:<10} {class:<16} {count:>9}  {example}", kind.name());
        }
    }
    linted.differences.iter().for_each(|difference| {
        let _ = write!(text, "\n  {difference}");
    });
    text
}

/// Shard and row of a finding.
pub(crate) fn place(finding: &lint::Finding) -> String {
    match finding.place.row {
        Some(row) => format!("{} row {row}", finding.place.shard),
        None => finding.place.shard.clone(),
    }
}

/// The commonest values and how many there are.
fn most(counts: &BTreeMap<String, u64>) -> String {
    let sorted = commonest(counts);
    let listed: Vec<String> =
        sorted.iter().take(VALUES_LISTED).map(|(value, count)| format!("{value} {count}")).collect();
    match sorted.len() - listed.len() {
        0 => listed.join(", "),
        more => format!("{}, and {more} more", listed.join(", ")),
    }
}
