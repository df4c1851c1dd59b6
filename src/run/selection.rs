//! `diptych selection show|diff|union|intersect|minus`: saved selections, without their shards.
use std::path::{Path, PathBuf};

use super::{output, progress};
use crate::{
    error::Result,
    select::{
        combine::{Combination, combine},
        difference::{Shown, difference},
        selection_file::SavedSelection,
    },
};

/// The words of the command.
#[derive(Debug, Clone)]
pub enum Request {
    /// What a file holds.
    Show {
        /// The file.
        file: PathBuf,
        /// Ends with a JSON line.
        json: bool,
    },
    /// How two files differ.
    Diff {
        /// The files.
        files: [PathBuf; 2],
        /// Ends with a JSON line.
        json: bool,
    },
    /// A file made of two.
    Combine {
        /// How.
        how: Combination,
        /// The files.
        files: [PathBuf; 2],
        /// Where to save what comes of it.
        to: PathBuf,
        /// Ends with a JSON line.
        json: bool,
    },
}

/// Reads, compares or combines, and prints.
///
/// # Errors
/// A file is no selection, or the two cannot be combined.
pub fn run(request: &Request) -> Result<()> {
    match request {
        Request::Show { file, json } => show(&SavedSelection::read(file)?, *json),
        Request::Diff { files, json } => {
            let [a, b] = read(files)?;
            let difference = difference(&a, &b)?;
            output::line(&difference.to_string())?;
            if *json { output::json(&difference) } else { Ok(()) }
        }
        Request::Combine { how, files, to, json } => {
            let [a, b] = read(files)?;
            combine(&a, &b, *how)?.save(to)?;
            progress::log(&format!("saved to {}", to.display()));
            if SavedSelection::read(to)?.selection().items() == 0 {
                progress::log("warning: no sample is left");
            }
            show(&SavedSelection::read(to)?, *json)
        }
    }
}

fn read(files: &[PathBuf; 2]) -> Result<[SavedSelection; 2]> {
    let read = |file: &PathBuf| SavedSelection::read(Path::new(file));
    Ok([read(&files[0])?, read(&files[1])?])
}

fn show(saved: &SavedSelection, json: bool) -> Result<()> {
    let shown = Shown::of(saved);
    output::line(&shown.to_string())?;
    if json { output::json(&shown) } else { Ok(()) }
}
