//! The pass over shards of series: what training would refuse, and what it would learn nothing from.
use std::sync::Arc;

use datafusion::arrow::{
    array::{
        Array as _, ArrayRef, AsArray as _, Float64Array, RecordBatch, StringViewArray, UInt64Array, new_null_array,
    },
    compute::cast,
    datatypes::{DataType, Float64Type, UInt64Type},
};
use futures::StreamExt as _;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    Finding, Kind, Lint, LintSettings, Place,
    duplicates::exact,
    each_shard::{EachShard, each_shard},
    histogram::Histogram,
    numbers::Numbered,
    open::open,
    statistics::{Statistics, count},
};
use crate::{
    augment::verify::verify,
    error::{Context as _, Result, Stage},
    scan::fetch::{as_blobs, numbers_of},
    schema::Schema,
    select::{
        session::session,
        shards::{Shard, ShardSet},
    },
    stores::routing_store::Stores,
};

/// Rows that are looked at together: import's longest are 16 MB each.
const BATCH_ROWS: usize = 8;
const SAMPLES: &str = "samples";
/// Narrow columns and the types they are seen in.
const COLUMNS: [(&str, DataType); 7] = [
    ("channels", DataType::UInt64),
    ("steps", DataType::UInt64),
    ("rate_hz", DataType::Float64),
    ("label", DataType::Utf8View),
    ("split", DataType::Utf8View),
    ("samples_bytes", DataType::UInt64),
    ("samples_xxh3", DataType::UInt64),
];
/// Positions in [`Statistics::histograms`].
const STEPS: usize = 0;
const SECONDS: usize = 1;
const BYTES: usize = 2;

/// Classes of series that training would refuse.
pub(super) const BAD: [&str; 3] = ["empty", "channels", "checksum"];

/// Reads all rows of all shards that `patterns` mean; see [`super::lint()`].
pub(super) async fn lint(
    patterns: &[String],
    schema: &Schema,
    stores: &Arc<Stores>,
    settings: &LintSettings,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Lint> {
    let opened = open(patterns, schema, stores).await?;
    let lint = Lint { statistics: statistics(), ..Lint::default() };
    let mut pass = Pass { samples: settings.images, lint, hashes: vec![] };
    if let Some(set) = each_shard(&mut pass, opened, progress).await {
        pass.finish(&set);
    }
    Ok(pass.lint)
}

fn statistics() -> Statistics {
    let histograms = vec![
        Histogram::doubling("steps", 8.0, 20),
        Histogram::doubling("seconds", 1.0 / 16.0, 20),
        Histogram::doubling("bytes of samples", 64.0, 20),
    ];
    Statistics { histograms, ..Statistics::default() }
}

struct Pass {
    /// Whether numbers are looked at, and not only narrow columns.
    samples: bool,
    lint: Lint,
    /// Hash of the bytes and sample.
    hashes: Vec<(u64, u64)>,
}

impl EachShard for Pass {
    fn lint(&mut self) -> &mut Lint {
        &mut self.lint
    }

    async fn shard(&mut self, set: &ShardSet, shard: &Arc<Shard>, progress: &mut dyn FnMut(u64)) -> Result<()> {
        let alone = ShardSet { shards: vec![Arc::clone(shard)], ..set.clone() };
        let context = session(&alone, 1)?;
        let failed = "cannot be read; see the cause";
        let sized = format!("SET datafusion.execution.batch_size = {BATCH_ROWS}");
        context.sql(&sized).await.context(Stage::Internal, &shard.name, failed)?;
        let named = COLUMNS.iter().map(|(name, _)| *name).chain(self.samples.then_some(SAMPLES));
        let named = named.filter(|name| set.columns.field_with_name(name).is_ok());
        let columns: String = named.map(|name| format!(", \"{name}\"")).collect();
        let frame = context.sql(&format!("SELECT sample_id{columns} FROM shards")).await;
        let rows = frame.context(Stage::Select, &shard.name, failed)?.execute_stream().await;
        let mut rows = rows.context(Stage::Select, &shard.name, failed)?;
        while let Some(batch) = rows.next().await {
            self.rows(shard, &batch.context(Stage::Select, &shard.name, failed)?)?;
            progress(self.lint.statistics.rows);
        }
        Ok(())
    }
}

impl Pass {
    fn rows(&mut self, shard: &Arc<Shard>, batch: &RecordBatch) -> Result<()> {
        let seen = Seen::of(batch, &shard.name)?;
        let blobs = batch.column_by_name(SAMPLES).map(|column| as_blobs(column, &shard.name)).transpose()?;
        let numbers = numbers_of(shard, SAMPLES);
        for row in 0..batch.num_rows() {
            let id = seen.ids.value(row);
            self.count(&seen, row);
            let Some(blobs) = &blobs else { continue };
            let blobs = blobs.as_binary_view();
            let bytes = if blobs.is_null(row) { &[] } else { blobs.value(row) };
            let hash = xxh3_64(bytes);
            let mut say = |class: &'static str, message: String| self.add(shard, id, class, message);
            if let Err(bad) =
                verify(bytes, seen.number("samples_bytes", row), seen.number("samples_xxh3", row), || hash)
            {
                say(bad.class.name(), bad.message);
            }
            if bytes.is_empty() {
                continue;
            }
            self.hashes.push((hash, id));
            let channels = seen.number("channels", row).unwrap_or(1);
            let length = (bytes.len() / numbers.bytes()) as u64;
            if channels == 0 || !length.is_multiple_of(channels) {
                let message = format!("{length} numbers are no whole steps of {channels} channels");
                self.add(shard, id, "channels", message);
                continue;
            }
            if let Some(steps) = seen.number("steps", row).filter(|steps| *steps != length / channels) {
                let message = format!("its row says {steps} steps, and it has {}", length / channels);
                self.add(shard, id, "differs", message);
            }
            let numbered = Numbered { bytes, numbers, channels: channels as usize, rate_hz: seen.rate(row) };
            numbered.doubts().into_iter().for_each(|(class, message)| self.add(shard, id, class, message));
        }
        Ok(())
    }

    fn count(&mut self, seen: &Seen, row: usize) {
        let statistics = &mut self.lint.statistics;
        statistics.rows += 1;
        for (name, column) in &seen.columns {
            *statistics.nulls.entry(name).or_default() += u64::from(column.is_null(row));
        }
        let rate = seen.rate(row);
        let of_rate = rate.map_or_else(|| "no rate".to_owned(), |rate| format!("{rate} Hz"));
        let format = match seen.number("channels", row) {
            Some(1) | None => format!("1 channel at {of_rate}"),
            Some(channels) => format!("{channels} channels at {of_rate}"),
        };
        count(&mut statistics.formats, &format);
        for (counts, name) in [(&mut statistics.splits, "split"), (&mut statistics.labels, "label")] {
            if let Some(text) = seen.text(name, row) {
                count(counts, text);
            }
        }
        if let Some(steps) = seen.number("steps", row) {
            statistics.histograms[STEPS].add(steps as f64);
            if let Some(rate) = rate.filter(|rate| *rate > 0.0) {
                statistics.histograms[SECONDS].add(steps as f64 / rate);
            }
        }
        if let Some(bytes) = seen.number("samples_bytes", row) {
            statistics.image_bytes += bytes;
            statistics.histograms[BYTES].add(bytes as f64);
        }
    }

    fn add(&mut self, shard: &Arc<Shard>, sample_id: u64, class: &'static str, message: String) {
        let row = Some(sample_id - shard.sample_id(0));
        let place = Place { sample_id: Some(sample_id), shard: shard.name.clone(), row };
        self.lint.findings.add(Finding { place, kind: Kind::Series, class, message, other: None });
    }

    fn finish(&mut self, set: &ShardSet) {
        for repeat in exact(&mut self.hashes) {
            let Some((shard, row)) = set.locate(repeat.sample_id) else { continue };
            let of = set.locate(repeat.of).map(|(shard, row)| format!("{} row {row}", shard.name));
            let message = format!("has the samples of {}", of.unwrap_or_default());
            let place = Place { sample_id: Some(repeat.sample_id), shard: shard.name.clone(), row: Some(row) };
            let other = Some(repeat.of);
            self.lint.findings.add(Finding { place, kind: Kind::Duplicate, class: "exact", message, other });
        }
        let formats = &self.lint.statistics.formats;
        if formats.len() > 1 {
            let told: Vec<&str> = formats.keys().map(String::as_str).collect();
            let text = format!(
                "series of several kinds: {}; windows are of so many steps and channels, whatever the rate, so choose \
                 one with SQL or import again with --rate-hz",
                told.join(", ")
            );
            self.lint.differences.push(text);
        }
    }
}

/// The narrow columns of a batch that are there.
struct Seen {
    ids: UInt64Array,
    columns: Vec<(&'static str, ArrayRef)>,
}

impl Seen {
    fn of(batch: &RecordBatch, shard: &str) -> Result<Self> {
        let wrong = "has a column of a type that cannot be read as the schema's";
        let ids = cast(batch.column(0), &DataType::UInt64).context(Stage::Schema, shard, wrong)?;
        let mut columns = Vec::new();
        for (name, data_type) in COLUMNS {
            if let Some(column) = batch.column_by_name(name) {
                let column = match column.data_type() {
                    // Some shards of a set lack it.
                    DataType::Null => new_null_array(&data_type, batch.num_rows()),
                    _ => cast(column, &data_type).context(Stage::Schema, shard, wrong)?,
                };
                columns.push((name, column));
            }
        }
        Ok(Self { ids: ids.as_primitive::<UInt64Type>().clone(), columns })
    }

    fn column(&self, name: &str, row: usize) -> Option<&ArrayRef> {
        let (_, column) = self.columns.iter().find(|(known, _)| *known == name)?;
        column.is_valid(row).then_some(column)
    }

    fn number(&self, name: &str, row: usize) -> Option<u64> {
        let column: &UInt64Array = self.column(name, row)?.as_primitive_opt()?;
        Some(column.value(row))
    }

    fn rate(&self, row: usize) -> Option<f64> {
        let column: &Float64Array = self.column("rate_hz", row)?.as_primitive_opt::<Float64Type>()?;
        Some(column.value(row))
    }

    fn text(&self, name: &str, row: usize) -> Option<&str> {
        let column: &StringViewArray = self.column(name, row)?.as_string_view_opt()?;
        Some(column.value(row))
    }
}
