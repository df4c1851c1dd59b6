//! The run folder: `pipeline.toml`, `selection.selection` (of several sources `NAME.selection.selection`), `metrics.jsonl`, `checkpoints/`, `quarantine/`, `views.png`,
//! `scores.json`, `report.html`.
use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    error::{Context as _, Error, Result, Stage},
    ingest::MadeFolders,
    pipeline::Plan,
};

/// The pipeline as resolved.
pub const PIPELINE: &str = "pipeline.toml";
pub(super) const SELECTION: &str = "selection.selection";
/// What a write that was cut off leaves behind ends in this.
const PARTIAL: &str = ".partial";

/// A run's folder.
#[derive(Debug, Clone)]
pub struct RunFolder {
    path: PathBuf,
    made: MadeFolders,
}

impl RunFolder {
    /// Claims a new folder. It becomes a run when `pipeline.toml` is in it, which [`Self::save_plan`] writes last.
    ///
    /// # Errors
    /// The folder holds a run or anything else, or cannot be made.
    pub fn create(path: &Path) -> Result<Self> {
        let named = path.display().to_string();
        if path.join(PIPELINE).exists() {
            let reason = format!("there is a run already; go on with it by --resume {named}, or name another folder");
            return Err(Error::at(Stage::CommandLine, named, reason));
        }
        let foreign = |name: &str| !name.ends_with(SELECTION) && !name.ends_with(PARTIAL);
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        if entries.map(|entry| entry.file_name()).any(|name| foreign(&name.to_string_lossy())) {
            let reason = "the folder is not empty and holds no run; name a new folder";
            return Err(Error::at(Stage::CommandLine, named, reason));
        }
        let cannot_make = "cannot make the run folder; name one where you may write";
        let made = MadeFolders::make(path).context(Stage::Checkpoint, named, cannot_make)?;
        Ok(Self { path: path.to_owned(), made })
    }

    /// After a failure before anything was written: what [`Self::create`] made goes again.
    pub fn remove_if_new_and_empty(&self) {
        self.made.remove_if_empty();
    }

    /// Whether files can be written, found out before much is computed that is to go there.
    ///
    /// # Errors
    /// The disk says no.
    pub fn check_writable(&self) -> Result<()> {
        let probe = self.file(&format!("probe{PARTIAL}"));
        let probed = fs::File::create(&probe).and_then(|_| fs::remove_file(&probe));
        let reason = "nothing can be written into the run's folder; check permissions and free space";
        probed.context(Stage::Checkpoint, self.path.display().to_string(), reason)
    }

    /// Keeps other processes from training in this folder as long as what comes back lives.
    ///
    /// # Errors
    /// One does already.
    pub fn lock(&self) -> Result<fs::File> {
        let named = self.path.display().to_string();
        let folder = fs::File::open(&self.path).context(Stage::Checkpoint, &named, "cannot open the run folder")?;
        match folder.try_lock() {
            Err(fs::TryLockError::WouldBlock) => {
                Err(Error::at(Stage::Train, named, "another process trains in this folder; stop it first"))
            }
            // A file system without locks trains all the same.
            _ => Ok(folder),
        }
    }

    /// Writes the resolved pipeline.
    ///
    /// # Errors
    /// The disk says no.
    pub fn save_plan(&self, plan: &Plan) -> Result<()> {
        self.write(PIPELINE, plan.to_toml()?.as_bytes())
    }

    /// An existing run and its pipeline, with `--set` texts applied.
    ///
    /// # Errors
    /// There is no run, or its pipeline has mistakes.
    pub fn open(path: &Path, sets: &[String]) -> Result<(Self, Plan)> {
        let folder = Self { path: path.to_owned(), made: MadeFolders::default() };
        let file = folder.file(PIPELINE);
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

    /// The data set's identity: what training and resuming read instead of running the SQL again. The only source has no
    /// name.
    pub fn selection(&self, source: &str) -> PathBuf {
        match source {
            "" => self.file(SELECTION),
            name => self.file(&format!("{name}.{SELECTION}")),
        }
    }

    /// Writes a file whole or not at all.
    ///
    /// # Errors
    /// The disk says no.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let (path, partial) = (self.file(name), self.file(&format!("{name}{PARTIAL}")));
        let write = || {
            fs::write(&partial, bytes)?;
            fs::File::open(&partial)?.sync_all()?;
            fs::rename(&partial, &path)?;
            fs::File::open(&self.path)?.sync_all()
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
        let folder = RunFolder::create(&path).unwrap();
        fs::write(folder.selection(""), "cut off here once").unwrap();
        RunFolder::create(&path).unwrap().save_plan(&plan).unwrap();
        let (_, again) = RunFolder::open(&path, &[]).unwrap();
        assert_eq!(again.pipeline, plan.pipeline);
        let error = RunFolder::create(&path).unwrap_err();
        assert!(error.to_string().contains("--resume") && error.exit_code() == 2, "{error}");
        let lock = folder.lock().unwrap();
        assert!(folder.lock().unwrap_err().to_string().contains("another process"));
        drop(lock);
        folder.lock().unwrap();
        folder.check_writable().unwrap();
        assert!(!path.join("probe.partial").exists());
        folder.remove_if_new_and_empty();
        assert!(path.exists(), "a run is never removed");
        let missing = RunFolder::open(parent.path(), &[]).unwrap_err();
        assert!(missing.to_string().contains("no run in this folder"), "{missing}");
    }

    #[test]
    fn a_folder_with_other_things_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("thesis.tex"), "x").unwrap();
        let error = RunFolder::create(folder.path()).unwrap_err();
        assert!(error.to_string().contains("not empty"), "{error}");
    }
}
