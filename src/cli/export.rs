//! The words of `export`.
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use diptych::{error::Result, model::clip::Naming, run::export};

use super::places;

/// Writes a run's CLIP as a folder that transformers, open_clip and `diptych score --weights` load.
///
/// The newest checkpoint, with averaged weights where the run keeps an average; beside the weights the configuration of
/// the model and of its images.
#[derive(Debug, Args)]
pub(crate) struct ExportWords {
    /// The run's folder.
    run: PathBuf,
    /// A new folder.
    #[arg(long, value_name = "DIR", value_parser = places::local)]
    to: PathBuf,
    /// Whose files: transformers (the default where its CLIPModel has such a model) or open_clip.
    #[arg(long, value_name = "LIBRARY")]
    r#for: Option<Library>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Library {
    Transformers,
    OpenClip,
}

impl ExportWords {
    pub(crate) fn run(self) -> Result<()> {
        let naming = self.r#for.map(|library| match library {
            Library::Transformers => Naming::Transformers,
            Library::OpenClip => Naming::OpenClip,
        });
        export::run(&export::Request { run: self.run, to: self.to, naming })
    }
}
