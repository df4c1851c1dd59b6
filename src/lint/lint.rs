//! The pass over all rows, and what is made of it.
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use futures::StreamExt as _;
use rayon::{ThreadPool, ThreadPoolBuilder, prelude::*};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    Finding, Kind, Lint, LintSettings, Place, Thumbnail, caption,
    caption::excerpt,
    duplicates::{Repeat, exact, near},
    each_shard::{EachShard, each_shard},
    images::{Seen, look, thumbnail},
    open::open,
    rows::{Row, Rows, stream},
};
use crate::{
    augment::image::perceptual_hash::PerceptualHash,
    error::{Context as _, Result, Stage},
    scan::{
        budget::ByteBudget,
        fetch::{BLOB, Fetcher, Reading},
    },
    schema::Schema,
    seed,
    select::shards::{Shard, ShardSet},
    stores::routing_store::Stores,
};

/// Pairs of near duplicates that are shown.
const PAIRS_SHOWN: usize = 18;
/// Encoded bytes that may be read ahead for them.
const PAIR_BYTES: u64 = 64 << 20;

/// Reads all rows of all shards that `patterns` mean, and says what is odd. `progress` hears of rows done and rows there are.
///
/// # Errors
/// No file is named, shards do not go together, or no threads. A shard that cannot be read is a finding.
pub async fn lint(
    patterns: &[String],
    schema: &Schema,
    stores: &Arc<Stores>,
    settings: &LintSettings,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Lint> {
    if schema.name == "time_series" {
        return super::series::lint(patterns, schema, stores, settings, progress).await;
    }
    let opened = open(patterns, schema, stores).await?;
    let pool = ThreadPoolBuilder::new()
        .num_threads(settings.threads.max(1))
        .thread_name(|number| format!("lint {number}"))
        .build()
        .context(Stage::Internal, "decode threads", "the system gives no threads")?;
    let mut pass = Pass::new(settings, pool);
    match each_shard(&mut pass, opened, progress).await {
        Some(set) => Ok(pass.finish(&set).await),
        None => Ok(pass.lint),
    }
}

/// What is gathered while rows go by.
struct Pass<'a> {
    settings: &'a LintSettings,
    pool: ThreadPool,
    lint: Lint,
    /// Hash of the bytes and sample.
    hashes: Vec<(u64, u64)>,
    likenesses: Vec<(PerceptualHash, u64)>,
    /// Hash of a caption to how often it occurs, and first where.
    captions: HashMap<u64, (u32, u64)>,
    /// Thumbnails by their keyed random numbers: those with the lowest are the sample.
    sample: BTreeMap<(u64, u64), Thumbnail>,
}

impl EachShard for Pass<'_> {
    fn lint(&mut self) -> &mut Lint {
        &mut self.lint
    }

    async fn shard(&mut self, set: &ShardSet, shard: &Arc<Shard>, progress: &mut dyn FnMut(u64)) -> Result<()> {
        let mut batches = stream(set, shard, self.settings.images).await?;
        while let Some(batch) = batches.next().await {
            let batch = batch.context(Stage::Select, &shard.name, "cannot be read to its end; see the cause")?;
            let rows = Rows::of(&batch, &shard.name)?;
            self.rows(shard, &rows);
            progress(self.lint.statistics.rows);
        }
        Ok(())
    }
}

impl<'a> Pass<'a> {
    fn new(settings: &'a LintSettings, pool: ThreadPool) -> Self {
        Self {
            settings,
            pool,
            lint: Lint::default(),
            hashes: vec![],
            likenesses: vec![],
            captions: HashMap::new(),
            sample: BTreeMap::new(),
        }
    }

    fn rows(&mut self, shard: &Arc<Shard>, rows: &Rows) {
        let seen: Vec<Option<Seen>> = match self.settings.images {
            true => {
                let (max_pixels, limit) = (self.settings.max_pixels, self.sample_limit());
                let looked = (0..rows.len()).into_par_iter().map(|at| {
                    let row = rows.row(at);
                    Some(look(&row, max_pixels, lot(row.sample_id) < limit))
                });
                self.pool.install(|| looked.collect())
            }
            false => (0..rows.len()).map(|_| None).collect(),
        };
        for (at, seen) in seen.into_iter().enumerate() {
            let row = rows.row(at);
            self.lint.statistics.add(&row);
            if let Some(caption) = row.caption {
                self.caption(shard, &row, caption);
            }
            if let Some(seen) = seen {
                self.image(shard, &row, seen);
            }
        }
    }

    fn caption(&mut self, shard: &Arc<Shard>, row: &Row<'_>, caption: &str) {
        for (class, message) in caption::doubts(caption) {
            self.add(shard, row.sample_id, Kind::Caption, class, message.into_owned());
        }
        let (times, first) = self.captions.entry(xxh3_64(caption.as_bytes())).or_insert((0, row.sample_id));
        *times = times.saturating_add(1);
        // Said once, when it has become too many.
        if u64::from(*times) == self.settings.repeated_more_than + 1 {
            let first = *first;
            let message = format!(
                "occurs more than {} times, first at sample {first}: {}",
                self.settings.repeated_more_than,
                excerpt(caption)
            );
            self.add(shard, row.sample_id, Kind::Caption, "repeated", message);
        }
    }

    fn image(&mut self, shard: &Arc<Shard>, row: &Row<'_>, seen: Seen) {
        let id = row.sample_id;
        self.hashes.extend(seen.hash.map(|hash| (hash, id)));
        self.likenesses.extend(seen.likeness.map(|likeness| (likeness, id)));
        if let Some(bad) = seen.bad {
            self.add(shard, id, Kind::Image, bad.class.name(), bad.message);
        }
        if let Some(differs) = seen.differs {
            self.add(shard, id, Kind::Image, "differs", differs);
        }
        if let Some(jpeg) = seen.thumbnail {
            let text = row.caption.or(row.label).map(excerpt).unwrap_or_default();
            self.sample.insert((lot(id), id), Thumbnail { sample_id: id, jpeg, text });
            while self.sample.len() > self.settings.thumbnails {
                self.sample.pop_last();
            }
        }
    }

    /// Samples that draw a lower number enter the sample.
    fn sample_limit(&self) -> u64 {
        match self.sample.last_key_value() {
            _ if self.settings.thumbnails == 0 => 0,
            Some(((highest, _), _)) if self.sample.len() >= self.settings.thumbnails => *highest,
            _ => u64::MAX,
        }
    }

    fn add(&mut self, shard: &Arc<Shard>, sample_id: u64, kind: Kind, class: &'static str, message: String) {
        let place =
            Place { sample_id: Some(sample_id), shard: shard.name.clone(), row: Some(sample_id - shard.sample_id(0)) };
        self.lint.findings.add(Finding { place, kind, class, message, other: None });
    }

    async fn finish(mut self, set: &ShardSet) -> Lint {
        let exact = exact(&mut self.hashes);
        for repeat in &exact {
            self.repeat(set, "exact", repeat, |name| format!("has the bytes of {name}"));
        }
        // A copy is near its original in any case.
        let copies: std::collections::HashSet<u64> = exact.iter().map(|repeat| repeat.sample_id).collect();
        self.likenesses.retain(|(_, id)| !copies.contains(id));
        let near = near(&mut self.likenesses, self.settings.near_bits);
        for repeat in &near.repeats {
            let bits = repeat.bits;
            self.repeat(set, "near", repeat, |name| format!("looks like {name}: {bits} of 64 bits differ"));
        }
        if near.bands_cut > 0 {
            let text = "so many hashes are alike that not all pairs were compared: there may be more near duplicates";
            self.lint.differences.push(text.to_owned());
        }
        self.lint.sample = self.sample.into_values().collect();
        if self.settings.thumbnails > 0 {
            // The findings stand without their pictures.
            match pairs(set, &near.repeats, self.settings.max_pixels).await {
                Ok(pairs) => self.lint.pairs = pairs,
                Err(error) => self.lint.differences.push(format!("near duplicates cannot be shown: {error}")),
            }
        }
        self.lint
    }

    fn repeat(&mut self, set: &ShardSet, class: &'static str, repeat: &Repeat, say: impl Fn(&str) -> String) {
        let Some((shard, row)) = set.locate(repeat.sample_id) else { return };
        let name = set.locate(repeat.of).map(|(shard, row)| format!("{} row {row}", shard.name)).unwrap_or_default();
        let place = Place { sample_id: Some(repeat.sample_id), shard: shard.name.clone(), row: Some(row) };
        let message = say(&name);
        self.lint.findings.add(Finding { place, kind: Kind::Duplicate, class, message, other: Some(repeat.of) });
    }
}

/// A number that is random over samples and the same in every run.
fn lot(sample_id: u64) -> u64 {
    seed::draws(0, "lint", &[sample_id]).next_u64()
}

/// The first pairs, both images small.
async fn pairs(set: &ShardSet, repeats: &[Repeat], max_pixels: u64) -> Result<Vec<[Thumbnail; 2]>> {
    let mut shown = vec![];
    if repeats.is_empty() {
        return Ok(shown);
    }
    let fetcher = Fetcher::new(&set.shards, Arc::clone(&set.reads), "image", &[], ByteBudget::new(PAIR_BYTES))?;
    // Spread over all of them: neighbours in a list are often of one kind.
    let step = repeats.len().div_ceil(PAIRS_SHOWN);
    for repeat in repeats.iter().step_by(step) {
        let bits = format!("{} bits differ", repeat.bits);
        let first = one(set, &fetcher, repeat.of, max_pixels, &bits).await?;
        let second = one(set, &fetcher, repeat.sample_id, max_pixels, &bits).await?;
        shown.extend(first.zip(second).map(|(first, second)| [first, second]));
    }
    Ok(shown)
}

async fn one(set: &ShardSet, fetcher: &Fetcher, id: u64, max_pixels: u64, text: &str) -> Result<Option<Thumbnail>> {
    let Some((shard, row)) = set.locate(id) else { return Ok(None) };
    let starts = shard.group_starts();
    let group = starts.partition_point(|&start| start <= row) - 1;
    let rows = [(row - starts[group]) as u32];
    let batch = fetcher.rows(shard.ordinal, group as u32, &rows, &Reading::now()).await?;
    let images: &datafusion::arrow::array::BinaryViewArray =
        datafusion::arrow::array::AsArray::as_binary_view(batch.column(BLOB));
    let jpeg = images.iter().next().flatten().and_then(|encoded| thumbnail(encoded, max_pixels).ok());
    Ok(jpeg.map(|jpeg| Thumbnail { sample_id: id, jpeg, text: text.to_owned() }))
}
