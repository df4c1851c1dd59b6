//! The words of `selection`.
use std::path::PathBuf;

use clap::{Args, Subcommand};
use diptych::{error::Result, run::selection, select::combine::Combination};

/// Shows, compares and combines saved selections; their shards need not be at hand.
///
/// Samples decide, by the fingerprint of their shard and their row. Where both selections have one, the repeats and extra
/// values of the first are kept.
#[derive(Debug, Args)]
pub(crate) struct SelectionWords {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Counts, digest, query and shards of a selection.
    Show(ShowWords),
    /// How two selections differ, shard by shard.
    Diff(DiffWords),
    /// The samples of either.
    Union(CombineWords),
    /// The samples of both.
    Intersect(CombineWords),
    /// The samples of the first that the second has not.
    Minus(CombineWords),
}

#[derive(Debug, Args)]
struct ShowWords {
    /// A file that `diptych select --to` wrote.
    file: PathBuf,
    /// Ends with one JSON object on the last line of stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct DiffWords {
    /// The first selection.
    a: PathBuf,
    /// The second.
    b: PathBuf,
    /// Ends with one JSON object on the last line of stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct CombineWords {
    #[command(flatten)]
    of: DiffWords,
    /// Where to save what comes of it.
    #[arg(long, value_name = "FILE", value_parser = super::places::local)]
    to: PathBuf,
}

impl SelectionWords {
    /// Does what the words say.
    pub(crate) fn run(self) -> Result<()> {
        selection::run(&self.what.into())
    }
}

impl From<What> for selection::Request {
    fn from(what: What) -> Self {
        let combine = |how, words: CombineWords| Self::Combine {
            how,
            files: [words.of.a, words.of.b],
            to: words.to,
            json: words.of.json,
        };
        match what {
            What::Show(words) => Self::Show { file: words.file, json: words.json },
            What::Diff(words) => Self::Diff { files: [words.a, words.b], json: words.json },
            What::Union(words) => combine(Combination::Union, words),
            What::Intersect(words) => combine(Combination::Intersection, words),
            What::Minus(words) => combine(Combination::Difference, words),
        }
    }
}
