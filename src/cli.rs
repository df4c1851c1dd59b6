//! The words of the command line. What a command does stands in the library's `run`.
mod clip_model;
mod embed;
mod evaluate;
mod export;
mod import;
mod lint;
mod places;
mod score;
mod selection;
mod sql;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, builder::RangedU64ValueParser};
use diptych::{
    error::Result,
    run::{self, bench, check, explain, index, preview, select, train},
};

/// Contrastive pre-training, from web-scale shards to a trained encoder.
///
/// Results go to stdout, logs and progress to stderr. Exit codes: 0 done, 1 the run failed, 2 the command line or the
/// pipeline is wrong, its SQL and the columns that it names included, 130 and 143 interrupted after a checkpoint.
#[derive(Debug, Parser)]
#[command(name = "diptych", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(after_help = "Examples:\n  diptych import photos/ data/shards\n  \
                            diptych import 'cc3m/{00000..00331}.tar' data/cc3m\n  \
                            diptych import list.tsv data/listed --column image=where --column caption=alt")]
    Import(import::ImportWords),
    /// Turns tars and folders of images into shards that refer to the images where they are.
    ///
    /// Every command then reads the images from those files, which must stay as they are. Takes uncompressed tars, class
    /// folders, metadata folders and tables of paths. Rows of tars keep their order, so that neighbours are read together.
    #[command(after_help = "Example:\n  diptych index 'cc3m/{00000..00331}.tar' data/cc3m")]
    Index(import::ImportWords),
    #[command(after_help = "Examples:\n  \
        diptych select simclr_small --set 'scan.shards=[\"data/shards\"]' --json\n  \
        diptych select \"SELECT sample_id, weight FROM shards JOIN scores USING (source) WHERE \\\n    \
        sample_uniform(sample_id, 7) < weight\" --shards data/shards --tables scores=scores.csv --to kept.selection")]
    Select(SelectWords),
    #[command(
        after_help = "Examples:\n  diptych sql \"SELECT format, count(*) FROM shards GROUP BY format\" --shards data/shards\n  \
                            diptych sql \"SELECT * FROM 'captions/*.csv'\" --json\n  \
                            diptych sql \"SELECT resize_jpeg(image, 256, 90) AS image, caption FROM shards\" \
                            --shards data/shards --to data/small\n  \
                            diptych sql \"SELECT machine, at, temperature, pressure FROM 'readings/*.parquet'\" \
                            --series machine,at --to data/series"
    )]
    Sql(sql::SqlWords),
    #[command(after_help = "Example:\n  diptych functions image_phash")]
    Functions(sql::FunctionsWords),
    #[command(after_help = "Example:\n  diptych lint --shards 'data/shards/*.parquet' --to lint --fail-on bad")]
    Lint(lint::LintWords),
    #[command(after_help = "Examples:\n  diptych selection show kept.selection\n  \
        diptych selection minus all.selection seen.selection --to new.selection")]
    Selection(selection::SelectionWords),
    #[command(after_help = "Example:\n  diptych explain simclr_small --analyze")]
    Explain(ExplainWords),
    #[command(after_help = "Example:\n  diptych preview simclr_small --to views.png")]
    Preview(PreviewWords),
    #[command(after_help = "Examples:\n  diptych train simclr_small --run runs/first --set train.epochs=3\n  \
                            diptych train --resume runs/first")]
    Train(TrainWords),
    #[command(after_help = "Examples:\n  diptych evaluate runs/first --json\n  \
                            diptych evaluate clip --weights clip-vit-base-patch32 --page matches.html")]
    Evaluate(evaluate::EvaluateWords),
    #[command(after_help = "Example:\n  diptych export runs/clip --to clip-weights")]
    Export(export::ExportWords),
    #[command(after_help = "Example:\n  diptych score --weights clip/model.safetensors --image CLIP.png \
                            --text \"a diagram\" \"a dog\" \"a cat\"")]
    Score(score::ScoreWords),
    #[command(after_help = "Example:\n  diptych embed --weights clip --shards data/shards --to data/embeddings")]
    Embed(embed::EmbedWords),
    #[command(after_help = "Example:\n  diptych bench simclr --seconds 20 --json")]
    Bench(BenchWords),
    #[command(after_help = "Example:\n  diptych check my_pipeline.toml")]
    Check(CheckWords),
}

/// A pipeline and what to change in it.
#[derive(Debug, Args)]
struct PipelineWords {
    /// A pipeline file, or the name of a built-in one: simclr, simclr_small, cpc, cpc_digits, cpc_series,
    /// cpc_patches, cpc_text, clip, clip_emoji, clip_vit_b32, siglip.
    pipeline: String,
    /// Changes one setting, such as train.epochs=3; the value is TOML or a bare word. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

/// Resolves a selection, by SQL or as a pipeline says: items, row groups pruned, bytes read and never to be read.
///
/// The SQL is one SELECT over the table `shards` that returns `sample_id`; further columns travel with the samples and
/// override the shards' columns of the same names.
#[derive(Debug, Args)]
struct SelectWords {
    /// SQL, a pipeline file, or the name of a built-in pipeline.
    #[arg(value_name = "SQL or PIPELINE")]
    what: String,
    /// Changes one setting of the pipeline. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Files, globs or folders that SQL knows as `shards`.
    #[arg(long, value_name = "GLOB", num_args = 1..)]
    shards: Vec<String>,
    /// Tables that SQL may join with: .parquet, .csv, .tsv, .json, .jsonl or .arrow.
    #[arg(long, value_name = "NAME=FILE", num_args = 1..)]
    tables: Vec<String>,
    /// Ends with one JSON object on the last line of stdout.
    #[arg(long)]
    json: bool,
    /// Runs the query again with other partition counts and compares the digests.
    #[arg(long)]
    verify: bool,
    /// Saves the selection to this file.
    #[arg(long, value_name = "FILE", value_parser = places::local)]
    to: Option<PathBuf>,
    #[command(flatten)]
    clip: clip_model::ClipScoreWords,
}

/// Prints the whole plan, scan to trainer.
#[derive(Debug, Args)]
struct ExplainWords {
    #[command(flatten)]
    pipeline: PipelineWords,
    /// Runs one epoch's first batches without a trainer and prints what each stage cost.
    #[arg(long)]
    analyze: bool,
}

/// Draws real pairs as one PNG contact sheet.
#[derive(Debug, Args)]
struct PreviewWords {
    #[command(flatten)]
    pipeline: PipelineWords,
    /// Where to write the PNG.
    #[arg(long, value_name = "FILE", default_value = "views.png", value_parser = places::png)]
    to: PathBuf,
    /// Pairs to draw.
    #[arg(long, default_value_t = 24, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pairs: usize,
}

/// Trains an encoder, with metrics, checkpoints and a report in a run folder.
///
/// SIGINT and SIGTERM finish the step, write a checkpoint and exit with 130 and 143. Progress and report count epochs from
/// 1; `epoch` in metrics.jsonl is the number of epochs that are complete, from 0.
#[derive(Debug, Args)]
struct TrainWords {
    /// A pipeline file, or the name of a built-in one: simclr, simclr_small, cpc, cpc_digits, cpc_series,
    /// cpc_patches, cpc_text, clip, clip_emoji, clip_vit_b32, siglip.
    #[arg(required_unless_present = "resume", conflicts_with = "resume", requires = "run")]
    pipeline: Option<String>,
    /// A new folder for the run.
    #[arg(long, value_name = "DIR", conflicts_with = "resume", value_parser = places::local)]
    run: Option<PathBuf>,
    /// Goes on with the run in this folder, from its latest checkpoint.
    #[arg(long, value_name = "DIR")]
    resume: Option<PathBuf>,
    /// Changes one setting, such as train.epochs=3; the value is TOML or a bare word. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Lets a resumed run go on although this changed since its checkpoint. May be repeated.
    #[arg(long, value_name = "WHAT", conflicts_with_all = ["pipeline", "run"])]
    accept_change: Vec<String>,
}

/// Streams batches without a trainer and measures.
#[derive(Debug, Args)]
struct BenchWords {
    #[command(flatten)]
    pipeline: PipelineWords,
    /// Stops after this many seconds.
    #[arg(long, value_name = "N", conflicts_with = "batches", value_parser = seconds)]
    seconds: Option<f64>,
    /// Stops after this many batches.
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u64>::new().range(1..))]
    batches: Option<u64>,
    /// Ends with one JSON object on the last line of stdout.
    #[arg(long)]
    json: bool,
}

/// Finds every mistake in a pipeline file without touching data; then plans its SQL where the shards can be opened.
#[derive(Debug, Args)]
struct CheckWords {
    #[command(flatten)]
    pipeline: PipelineWords,
    /// Prints the pipeline as resolved.
    #[arg(long)]
    resolved: bool,
}

/// A time in which something can be measured.
fn seconds(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds.is_finite() => Ok(seconds),
        _ => Err("write a number above 0".to_owned()),
    }
}

impl CommandLine {
    /// Does what the words say.
    pub(crate) fn run(self) -> Result<()> {
        match self.command {
            Command::Import(words) => run::import::run(&words.into()),
            Command::Index(words) => index::run(words.shard_megabytes(), words.into()),
            Command::Select(words) => select::run(&select::Request {
                what: select::what(&words.what, &words.sets, &words.shards, &words.tables)?,
                json: words.json,
                verify: words.verify,
                to: words.to,
                model: words.clip.scores()?,
            }),
            Command::Sql(words) => words.run(),
            Command::Functions(words) => words.run(),
            Command::Lint(words) => run::lint::run(&words.into()),
            Command::Selection(words) => words.run(),
            Command::Explain(words) => explain::run(&words.pipeline.into(), words.analyze),
            Command::Preview(words) => preview::run(&words.pipeline.into(), &words.to, words.pairs),
            Command::Train(TrainWords { resume: Some(folder), sets, accept_change, .. }) => {
                train::resume(&folder, &sets, &accept_change)
            }
            Command::Train(words) => {
                // clap has seen to it that both are there.
                let pipeline = run::Named { pipeline: words.pipeline.unwrap_or_default(), sets: words.sets };
                train::start(&pipeline, &words.run.unwrap_or_default())
            }
            Command::Evaluate(words) => words.run(),
            Command::Export(words) => words.run(),
            Command::Score(words) => words.run(),
            Command::Embed(words) => words.run(),
            Command::Bench(words) => bench::run(&bench::Request {
                pipeline: words.pipeline.into(),
                seconds: words.seconds,
                batches: words.batches,
                json: words.json,
            }),
            Command::Check(words) => check::run(&words.pipeline.into(), words.resolved),
        }
    }
}

impl From<PipelineWords> for run::Named {
    fn from(words: PipelineWords) -> Self {
        Self { pipeline: words.pipeline, sets: words.sets }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_words_are_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn train_wants_a_pipeline_with_a_run_or_a_run_to_resume() {
        let parses = |words: &[&str]| CommandLine::try_parse_from(["diptych", "train"].iter().chain(words)).is_ok();
        assert!(parses(&["p.toml", "--run", "r"]) && parses(&["--resume", "r", "--set", "train.max_steps=9"]));
        assert!(parses(&["--resume", "r", "--accept-change", "seed"]));
        assert!(!parses(&[]) && !parses(&["p.toml"]) && !parses(&["p.toml", "--resume", "r"]));
        assert!(!parses(&["p.toml", "--run", "r", "--accept-change", "seed"]));
    }

    #[test]
    fn measuring_and_drawing_nothing_are_refused() {
        let parses = |words: &str| CommandLine::try_parse_from(words.split(' ')).is_ok();
        for words in ["bench p --seconds", "bench p --batches", "preview p --pairs"] {
            assert!(parses(&format!("diptych {words} 1")) && !parses(&format!("diptych {words} 0")), "{words}");
        }
        assert!(parses("diptych preview p --to a.PNG") && !parses("diptych preview p --to a.jpg"));
        assert!(parses("diptych bench p --seconds 0.5") && !parses("diptych bench p --seconds inf"));
    }

    #[test]
    fn every_command_shows_an_example() {
        for command in CommandLine::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains(&format!("diptych {}", command.get_name())), "{}", command.get_name());
        }
    }
}
