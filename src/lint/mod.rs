//! What is odd about a data set, found before a run finds it.
//!
//! ```text
//!  shards ──▶ open ──────▶ rows ─────────▶ images ───────────▶ duplicates ──▶ findings ──▶ table
//!             each alone   narrow columns  decoded in full,    exact, near    one per row  lint.parquet
//!             if it must   + statistics    hashed twice        by hash
//! ```
//!
//! **Memory.** About 80 bytes per row (hashes, ids, captions as hashes), one row group's images, and per thread what decoding the
//! largest image takes (16 bytes per pixel up to the limit). Findings are kept up to [`FINDINGS_KEPT`] of a kind and class; all are counted.

pub mod caption;
pub mod duplicates;
mod each_shard;
pub mod histogram;
mod images;
#[expect(clippy::module_inception, reason = "the file is named as the command that it runs")]
pub mod lint;
mod numbers;
mod open;
mod rows;
mod series;
pub mod statistics;
pub mod table;

use std::collections::BTreeMap;

use serde::Serialize;

pub use lint::lint;

/// Findings of one kind and class that are kept; more are counted only.
pub const FINDINGS_KEPT: usize = 100_000;

/// What to look for.
#[derive(Debug, Clone, PartialEq)]
pub struct LintSettings {
    /// Whether images, or the numbers of series, are read: decode check, duplicates, thumbnails.
    pub images: bool,
    /// Images that declare more are bad.
    pub max_pixels: u64,
    /// Perceptual hashes that differ in at most so many of 64 bits are near duplicates; at most 7.
    pub near_bits: u32,
    /// Captions that more rows than this share are suspicious.
    pub repeated_more_than: u64,
    /// Threads that decode.
    pub threads: usize,
    /// Images to keep small versions of; with 0 pairs of near duplicates have none either.
    pub thumbnails: usize,
}

impl Default for LintSettings {
    fn default() -> Self {
        Self { images: true, max_pixels: 100_000_000, near_bits: 3, repeated_more_than: 10, threads: 1, thumbnails: 60 }
    }
}

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A file that cannot be read, or differs from its schema.
    Shard,
    /// An image that training would refuse, or that is not what its row says.
    Image,
    /// A series that training would refuse, or would learn nothing from.
    Series,
    /// An image or series that is there more than once.
    Duplicate,
    /// A caption that describes no image.
    Caption,
}

impl Kind {
    /// As the table writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Shard => "shard",
            Self::Image => "image",
            Self::Series => "series",
            Self::Duplicate => "duplicate",
            Self::Caption => "caption",
        }
    }
}

/// Where a finding is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The sample; `None` for a whole shard.
    pub sample_id: Option<u64>,
    /// Name of the shard.
    pub shard: String,
    /// Row in the shard.
    pub row: Option<u64>,
}

/// One thing that is odd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub place: Place,
    /// About what.
    pub kind: Kind,
    /// Which of the kind's oddities, such as `decode` or `mojibake`.
    pub class: &'static str,
    /// One sentence.
    pub message: String,
    /// For duplicates the sample it duplicates.
    pub other: Option<u64>,
}

/// All that was found, in the order in which it was.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// Up to [`FINDINGS_KEPT`] of a kind and class.
    pub kept: Vec<Finding>,
    /// By kind and class.
    pub counts: BTreeMap<Kind, BTreeMap<&'static str, u64>>,
}

impl Findings {
    /// Counts a finding, and keeps it if there is room.
    pub fn add(&mut self, finding: Finding) {
        let count = self.counts.entry(finding.kind).or_default().entry(finding.class).or_default();
        *count += 1;
        if *count <= FINDINGS_KEPT as u64 {
            self.kept.push(finding);
        }
    }

    /// The first that was found of a kind and class.
    pub fn first(&self, kind: Kind, class: &str) -> Option<&Finding> {
        self.kept.iter().find(|finding| finding.kind == kind && finding.class == class)
    }

    /// How many images or series training would refuse.
    pub fn bad(&self) -> u64 {
        let series: u64 = series::BAD.iter().map(|class| self.of_class(Kind::Series, class)).sum();
        self.of(Kind::Image) - self.of_class(Kind::Image, "differs") + series
    }

    /// How many of a kind there are.
    pub fn of(&self, kind: Kind) -> u64 {
        self.counts.get(&kind).map_or(0, |classes| classes.values().sum())
    }

    /// How many of a kind and class there are.
    pub fn of_class(&self, kind: Kind, class: &str) -> u64 {
        self.counts.get(&kind).and_then(|classes| classes.get(class)).copied().unwrap_or(0)
    }
}

/// A small version of an image.
#[derive(Debug, Clone)]
pub struct Thumbnail {
    /// Which.
    pub sample_id: u64,
    /// A JPEG.
    pub jpeg: Vec<u8>,
    /// What to write below it.
    pub text: String,
}

/// Everything that a lint found out.
#[derive(Debug, Clone, Default)]
pub struct Lint {
    /// Numbers about all rows.
    pub statistics: statistics::Statistics,
    /// What is odd.
    pub findings: Findings,
    /// Shards that were read to their end.
    pub shards: u64,
    /// Shards that were not.
    pub unread_shards: u64,
    /// A keyed sample of good images.
    pub sample: Vec<Thumbnail>,
    /// Pairs of near duplicates.
    pub pairs: Vec<[Thumbnail; 2]>,
    /// About the set as a whole: columns that some shards lack, a search that was cut short; one sentence each.
    pub differences: Vec<String>,
}
