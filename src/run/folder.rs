//! The run folder: `pipeline.toml`, `selection.selection`, `metrics.jsonl`, `checkpoints/`, `views.png`, `report.html`.
use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    error::{Context as _, Error, Result, Stage},
    pipeline::Plan,
};

/// A run's folder.
#[derive(Debug, Clone)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Makes a new run with its resolved pipeline.
    ///
    /// # Errors
    /// The folder holds a run or anything else, or cannot be made.
    pub fn create(path: &Path, plan: &Plan) -> Result<Self> {
        let named = path.display().to_string();
        if path.join("pipeline.toml").exists() {
            let reason = format!("there is a run already; go on with it by --resume {named}, or name another folder");
            return Err(Error::at(Stage::CommandLine, named, reason));
        }
        if path.exists() && fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()) {
            let reason = "the folder is not empty and holds no run; name a new folder";
            return Err(Error::at(Stage::CommandLine, named, reason));
        }
        let folder = Self { path: path.to_owned() };
        fs::create_dir_all(folder.checkpoints()).context(Stage::Checkpoint, named, "cannot make the run folder")?;
        folder.write("pipeline.toml", plan.to_toml()?.as_bytes())?;
        Ok(folder)
    }

    /// An existing run and its pipeline, with `--set` texts applied.
    ///
    /// # Errors
    /// There is no run, or its pipeline has mistakes.
    pub fn open(path: &Path, sets: &[String]) -> Result<(Self, Plan)> {
        let folder = Self { path: path.to_owned() };
        let file = folder.file("pipeline.toml");
        if !file.is_file() {
            let reason = "there is no run in this folder: it has no pipeline.toml";
            return Err(Error::at(Stage::CommandLine, path.display().to_string(), reason));
        }
        let named = file.display().to_string();
        let text = fs::read_to_string(&file).context(Stage::Checkpoint, &named, "cannot read the run's pipeline")?;
        Ok((folder, Plan::parse(&named, &text, sets)?))
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// `checkpoints/`.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// The data set's identity: what training and resuming read instead of running the SQL again.
    pub fn selection(&self) -> PathBuf {
        self.file("selection.selection")
    }

    /// Writes a file whole or not at all.
    ///
    /// # Errors
    /// The disk says no.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let (path, partial) = (self.file(name), self.file(&format!("{name}.partial")));
        let write = || {
            fs::write(&partial, bytes)?;
            fs::File::open(&partial)?.sync_all()?;
            fs::rename(&partial, &path)
        };
        write().context(Stage::Checkpoint, path.display().to_string(), "cannot write this file")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_existing_run_is_refused_with_the_remedy() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("run");
        let plan = Plan::read("simclr_small", &[]).unwrap();
        RunFolder::create(&path, &plan).unwrap();
        let (_, again) = RunFolder::open(&path, &[]).unwrap();
        assert_eq!(again.pipeline, plan.pipeline);
        let error = RunFolder::create(&path, &plan).unwrap_err();
        assert!(error.to_string().contains("--resume") && error.exit_code() == 2, "{error}");
        let missing = RunFolder::open(parent.path(), &[]).unwrap_err();
        assert!(missing.to_string().contains("no run in this folder"), "{missing}");
    }

    #[test]
    fn a_folder_with_other_things_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("thesis.tex"), "x").unwrap();
        let error = RunFolder::create(folder.path(), &Plan::read("simclr_small", &[]).unwrap()).unwrap_err();
        assert!(error.to_string().contains("not empty"), "{error}");
    }
}
