//! Errors by stage: which stage failed, at which place, why, and what to do about it.
//!
//! `Display` says stage, place and reason; the cause is in [`std::error::Error::source`] and is not repeated.

use std::fmt;

/// `E` stays a parameter: derive macros of the model half name `Result` with two.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What another library reported underneath ours.
pub type Cause = Box<dyn std::error::Error + Send + Sync + 'static>;

/// The part of the flow in which an error arose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// The words of the command line.
    CommandLine,
    /// What a pipeline names besides shards, such as files of templates, and is not so. Exit code 2.
    Pipeline,
    /// A shard's columns against a schema and what is asked of them. Exit code 2.
    Schema,
    /// Foreign data into shards.
    Import,
    /// The words of a query, wrong before any row is read. Exit code 2.
    Sql,
    /// Which files the named shards are.
    Shards,
    /// SQL into a selection.
    Select,
    /// Selected rows in the order of the epoch.
    Scan,
    /// Pixels, samples, tokens.
    Augment,
    /// The queue between the data half and the trainer.
    Prefetch,
    /// Arrow columns into tensors.
    Batch,
    /// Devices and what the build supports.
    Device,
    /// Encoders and heads.
    Model,
    /// The training loop.
    Train,
    /// Checkpoints and run folders.
    Checkpoint,
    /// Frozen embeddings and their scores.
    Evaluate,
    /// Results on their way to stdout or into shards of their own.
    Output,
    /// What is odd about a data set.
    Lint,
    /// A bug of ours.
    Internal,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CommandLine => "command line",
            Self::Pipeline => "pipeline",
            Self::Schema => "schema",
            Self::Import => "import",
            Self::Sql => "sql",
            Self::Shards => "shards",
            Self::Select => "select",
            Self::Scan => "scan",
            Self::Augment => "augment",
            Self::Prefetch => "prefetch",
            Self::Batch => "batch",
            Self::Device => "device",
            Self::Model => "model",
            Self::Train => "train",
            Self::Checkpoint => "checkpoint",
            Self::Evaluate => "evaluate",
            Self::Output => "output",
            Self::Lint => "lint",
            Self::Internal => "internal error (a bug in diptych, please report it)",
        })
    }
}

/// One mistake in a pipeline file or on the command line: where, what, and the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Dotted key, such as `train.optimizer.sgd.momentum`; empty where the file itself is unreadable.
    pub key: String,
    /// Line and column in the file, both from 1; `None` for a value that came from the command line or a default.
    pub position: Option<(usize, usize)>,
    /// What is wrong.
    pub problem: String,
    /// What to write instead.
    pub remedy: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((line, column)) = self.position {
            write!(f, "line {line}, column {column}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "`{}`: ", self.key)?;
        }
        f.write_str(&self.problem)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Every mistake of one pipeline, at once. Exit code 2.
    #[error("{}", listing(file, mistakes))]
    Pipeline {
        /// The file as the user named it.
        file: String,
        /// In the order of the file.
        mistakes: Vec<Mistake>,
    },
    /// A stage failed.
    #[error("{stage}: {}{reason}", prefix(place))]
    Stage {
        /// Which.
        stage: Stage,
        /// File, shard and row, column, step …: whatever leads to the spot. May be empty.
        place: String,
        /// What is wrong and the remedy, one sentence each.
        reason: String,
        /// What the library underneath said.
        #[source]
        source: Option<Cause>,
    },
    /// A signal asked the run to stop; a checkpoint was written. Exit code 128 + signal.
    #[error("stopped by {name} after a checkpoint at step {step}", name = signal_name(*signal))]
    Interrupted {
        /// 2 for SIGINT, 15 for SIGTERM.
        signal: i32,
        /// The step of the checkpoint.
        step: u64,
    },
}

fn signal_name(signal: i32) -> &'static str {
    if signal == 2 { "SIGINT" } else { "SIGTERM" }
}

fn prefix(place: &str) -> String {
    if place.is_empty() { String::new() } else { format!("{place}: ") }
}

fn listing(file: &str, mistakes: &[Mistake]) -> String {
    let count = mistakes.len();
    let mut text = format!("{file}: {count} mistake{}", if count == 1 { "" } else { "s" });
    for mistake in mistakes {
        text.push_str("\n  ");
        text.push_str(&mistake.to_string());
    }
    text
}

impl Error {
    /// A failure of `stage` at `place`.
    pub fn at(stage: Stage, place: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Stage { stage, place: place.into(), reason: reason.into(), source: None }
    }

    /// A bug of ours.
    pub fn internal(reason: impl Into<String>) -> Self {
        Self::at(Stage::Internal, "", reason)
    }

    /// The same error with what caused it.
    #[must_use]
    pub fn caused_by(self, cause: impl Into<Cause>) -> Self {
        match self {
            Self::Stage { stage, place, reason, .. } => {
                Self::Stage { stage, place, reason, source: Some(cause.into()) }
            }
            other => other,
        }
    }

    /// What the process exits with: 2 where the command line or the pipeline is wrong, its SQL and the columns that it
    /// names included, 130 and 143 after a signal, else 1.
    pub fn exit_code(&self) -> u8 {
        use Stage::{CommandLine, Pipeline, Schema, Sql};
        match self {
            Self::Pipeline { .. } | Self::Stage { stage: CommandLine | Pipeline | Schema | Sql, .. } => 2,
            Self::Interrupted { signal, .. } => 128 + u8::try_from(*signal).unwrap_or(2),
            Self::Stage { .. } => 1,
        }
    }

    /// The error and its causes, one line each, as the command line prints them. Libraries that repeat a cause in what
    /// they say themselves are heard once.
    pub fn report(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let told = error.to_string();
            if !text.contains(&told) {
                text.push_str("\n  because: ");
                text.push_str(&told);
            }
            cause = error.source();
        }
        text
    }
}

/// Attaches stage and place to a foreign error on its way up.
pub trait Context<T> {
    /// On failure: `stage` at `place` could not `reason`.
    fn context(self, stage: Stage, place: impl Into<String>, reason: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<Cause>> Context<T> for std::result::Result<T, E> {
    fn context(self, stage: Stage, place: impl Into<String>, reason: impl Into<String>) -> Result<T> {
        self.map_err(|cause| Error::at(stage, place, reason).caused_by(cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_does_not_repeat_the_source() {
        let error = Error::at(Stage::Scan, "a.parquet row 3", "cannot read the page").caused_by("disk on fire");
        assert_eq!(error.to_string(), "scan: a.parquet row 3: cannot read the page");
        assert!(error.report().ends_with("because: disk on fire"));
    }

    #[test]
    fn a_cause_that_its_effect_repeats_is_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot open: {0}")]
        struct Repeats(#[source] std::io::Error);
        let error = Error::at(Stage::Scan, "a", "fails").caused_by(Repeats(std::io::Error::other("no such file")));
        assert_eq!(error.report(), "scan: a: fails\n  because: cannot open: no such file");
    }

    #[test]
    fn exit_codes_are_the_documented_ones() {
        assert_eq!(Error::Pipeline { file: "p".into(), mistakes: vec![] }.exit_code(), 2);
        for stage in [Stage::CommandLine, Stage::Pipeline, Stage::Schema, Stage::Sql] {
            assert_eq!(Error::at(stage, "", "x").exit_code(), 2);
        }
        for stage in [Stage::Train, Stage::Select, Stage::Shards, Stage::Output] {
            assert_eq!(Error::at(stage, "", "x").exit_code(), 1);
        }
        assert_eq!(Error::Interrupted { signal: 2, step: 1 }.exit_code(), 130);
        assert_eq!(Error::Interrupted { signal: 15, step: 1 }.exit_code(), 143);
    }
}
