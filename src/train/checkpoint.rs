//! Checkpoints: `RUN/checkpoints/step-N/`, complete or not there.
//!
//! A checkpoint is written under a name that ends in `.partial`, every file and the folder flushed to the disk, then
//! renamed, then the parent flushed; only then are older ones removed. Whatever happens in between, also a full disk,
//! leaves the previous one valid. Digests of all files stand in `state.json`: the newest checkpoint that agrees with them
//! is used, and a damaged newer one is named in a warning. Going back costs time only, training is deterministic.
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::identity::{Identity, Origin};
use super::progress::Progress;
use super::safetensors::{from_bytes, to_bytes};
use super::state::Tensors;
use crate::error::{Context, Error, Result, Stage};

/// Folder of a run that holds its checkpoints.
pub const CHECKPOINTS_FOLDER: &str = "checkpoints";
/// What the name of a checkpoint ends in while it is being written or removed.
pub const PARTIAL_SUFFIX: &str = ".partial";
/// Version of the layout.
const FORMAT: u32 = 1;

const PREFIX: &str = "step-";
const STATE: &str = "state.json";
const WEIGHTS: &str = "weights.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const EMA: &str = "ema.safetensors";

/// `state.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointState {
    /// Version of the layout.
    pub format: u32,
    /// The run's cursor and counts.
    pub progress: Progress,
    /// Length of `metrics.jsonl`.
    pub metrics_bytes: u64,
    /// What the run trains on.
    pub identity: Identity,
    /// Where it was written.
    pub origin: Origin,
    /// BLAKE3 of every other file, hexadecimal.
    pub files: BTreeMap<String, String>,
}

/// The tensors of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckpointTensors {
    /// Parameters and buffers, as [`super::state::collect`] lays them out.
    pub weights: Tensors,
    /// Moments, by parameter path.
    pub optimizer: Tensors,
    /// Averaged weights, laid out as the weights.
    pub ema: Option<Tensors>,
}

/// A checkpoint read back and verified.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Its folder.
    pub folder: PathBuf,
    /// Its state.
    pub state: CheckpointState,
    /// Its tensors.
    pub tensors: CheckpointTensors,
}

impl CheckpointState {
    /// The state of a checkpoint whose files are not laid out yet.
    pub fn new(progress: Progress, metrics_bytes: u64, identity: Identity, origin: Origin) -> Self {
        Self { format: FORMAT, progress, metrics_bytes, identity, origin, files: BTreeMap::new() }
    }
}

/// Writes a checkpoint, then removes all but the newest `keep` (at least one). Its folder comes back.
///
/// # Errors
/// The disk is full or gone; the previous checkpoint is as it was.
pub fn write(run: &Path, state: CheckpointState, tensors: &CheckpointTensors, keep: usize) -> Result<PathBuf> {
    write_through(run, state, tensors, keep, &mut write_file)
}

type Sink<'a> = &'a mut dyn FnMut(&Path, &[u8]) -> io::Result<()>;

fn write_through(
    run: &Path,
    mut state: CheckpointState,
    tensors: &CheckpointTensors,
    keep: usize,
    sink: Sink<'_>,
) -> Result<PathBuf> {
    let parent = run.join(CHECKPOINTS_FOLDER);
    let folder = parent.join(format!("{PREFIX}{}", state.progress.step));
    let partial = partial_name(&folder);
    let mut files = vec![(WEIGHTS, to_bytes(&tensors.weights)?), (OPTIMIZER, to_bytes(&tensors.optimizer)?)];
    if let Some(ema) = &tensors.ema {
        files.push((EMA, to_bytes(ema)?));
    }
    state.files = files.iter().map(|(name, b)| ((*name).to_owned(), blake3::hash(b).to_hex().to_string())).collect();
    let text = serde_json::to_vec_pretty(&state).context(Stage::Checkpoint, STATE, "cannot format it")?;
    files.push((STATE, text));

    let mut publish = || {
        if !parent.exists() {
            fs::create_dir_all(&parent)?;
            // Else a crash may take the whole folder, whose entries are flushed below, out of the run's.
            sync_folder(run)?;
        }
        remove_folder(&partial)?;
        fs::create_dir(&partial)?;
        for (name, bytes) in &files {
            sink(&partial.join(name), bytes)?;
        }
        sync_folder(&partial)?;
        if folder.exists() {
            // Only a damaged one is ever written again: a valid one would have been continued.
            retire(&folder)?;
        }
        fs::rename(&partial, &folder)?;
        sync_folder(&parent)
    };
    publish().map_err(|cause| {
        // The disk may be full: its space is wanted back, and what cannot be removed is ignored by readers.
        let _ = fs::remove_dir_all(&partial);
        let reason = "cannot write the checkpoint; the previous one is as it was, make room and resume";
        Error::at(Stage::Checkpoint, folder.display().to_string(), reason).caused_by(cause)
    })?;
    prune(&parent, state.progress.step, keep.max(1)).context(
        Stage::Checkpoint,
        parent.display().to_string(),
        "cannot remove old ones",
    )?;
    Ok(folder)
}

/// The newest checkpoint of a run that agrees with its digests, and a warning for each newer one that does not.
///
/// # Errors
/// There are checkpoints, but all are damaged: every one is listed.
pub fn latest(run: &Path) -> Result<Option<(Checkpoint, Vec<String>)>> {
    let parent = run.join(CHECKPOINTS_FOLDER);
    let steps = steps(&parent).context(Stage::Checkpoint, parent.display().to_string(), "cannot list it")?;
    let mut damaged = Vec::new();
    for step in steps.into_iter().rev() {
        match read(&parent.join(format!("{PREFIX}{step}"))) {
            Ok(checkpoint) => return Ok(Some((checkpoint, damaged))),
            Err(error) => damaged.push(error.report()),
        }
    }
    if damaged.is_empty() {
        return Ok(None);
    }
    let reason = format!("no checkpoint can be used; begin again in another folder\n  {}", damaged.join("\n  "));
    Err(Error::at(Stage::Checkpoint, parent.display().to_string(), reason))
}

/// Reads one checkpoint and verifies its digests.
///
/// # Errors
/// Names the file that is missing or damaged.
pub fn read(folder: &Path) -> Result<Checkpoint> {
    let bytes_of = |name: &str| {
        let path = folder.join(name);
        fs::read(&path).context(Stage::Checkpoint, path.display().to_string(), "cannot read it")
    };
    let place = folder.join(STATE).display().to_string();
    let state: CheckpointState =
        serde_json::from_slice(&bytes_of(STATE)?).context(Stage::Checkpoint, &place, "is damaged")?;
    if state.format != FORMAT {
        let reason = format!("has format {}, this version reads {FORMAT}", state.format);
        return Err(Error::at(Stage::Checkpoint, place, reason));
    }
    let tensors_of = |name: &str| {
        let bytes = bytes_of(name)?;
        let place = folder.join(name).display().to_string();
        if state.files.get(name) != Some(&blake3::hash(&bytes).to_hex().to_string()) {
            return Err(Error::at(Stage::Checkpoint, place, "is damaged: its digest is not the one in state.json"));
        }
        from_bytes(&place, &bytes)
    };
    let ema = state.files.contains_key(EMA).then(|| tensors_of(EMA)).transpose()?;
    let tensors = CheckpointTensors { weights: tensors_of(WEIGHTS)?, optimizer: tensors_of(OPTIMIZER)?, ema };
    Ok(Checkpoint { folder: folder.to_owned(), state, tensors })
}

/// Removes what an interrupted write left behind. Call it before writing, never beside another process's run.
///
/// # Errors
/// The disk refuses.
pub fn remove_leftovers(run: &Path) -> Result<()> {
    let parent = run.join(CHECKPOINTS_FOLDER);
    let remove = || {
        for name in names(&parent)? {
            if name.ends_with(PARTIAL_SUFFIX) {
                remove_folder(&parent.join(name))?;
            }
        }
        io::Result::Ok(())
    };
    remove().context(Stage::Checkpoint, parent.display().to_string(), "cannot remove what a write left behind")
}

/// Newer checkpoints than the one just written are damaged, and stay until they are written again.
fn prune(parent: &Path, newest: u64, keep: usize) -> io::Result<()> {
    let steps: Vec<u64> = steps(parent)?.into_iter().filter(|step| *step <= newest).collect();
    for step in &steps[..steps.len().saturating_sub(keep)] {
        retire(&parent.join(format!("{PREFIX}{step}")))?;
    }
    Ok(())
}

/// Renames before removing: a crash halfway must not leave what looks like a damaged checkpoint.
fn retire(folder: &Path) -> io::Result<()> {
    let mut old = folder.as_os_str().to_owned();
    old.push(format!(".old{PARTIAL_SUFFIX}"));
    let old = PathBuf::from(old);
    remove_folder(&old)?;
    fs::rename(folder, &old)?;
    remove_folder(&old)
}

fn partial_name(folder: &Path) -> PathBuf {
    let mut name = folder.as_os_str().to_owned();
    name.push(PARTIAL_SUFFIX);
    PathBuf::from(name)
}

fn names(parent: &Path) -> io::Result<Vec<String>> {
    match fs::read_dir(parent) {
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Steps of all complete checkpoints, ascending.
fn steps(parent: &Path) -> io::Result<Vec<u64>> {
    let names = names(parent)?;
    let mut steps: Vec<u64> = names.iter().filter_map(|name| name.strip_prefix(PREFIX)?.parse().ok()).collect();
    steps.sort_unstable();
    Ok(steps)
}

fn remove_folder(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::TensorData;

    fn tensors(value: f32) -> CheckpointTensors {
        let of = |value| Tensors::from([("w".to_owned(), TensorData::new(vec![value; 4], [2, 2]))]);
        CheckpointTensors { weights: of(value), optimizer: of(value + 1.0), ema: Some(of(value + 2.0)) }
    }

    fn state(step: u64) -> CheckpointState {
        let identity = Identity {
            selection_digest: "ab".into(),
            order: "v1".into(),
            seed: 1,
            batch_rows: 2,
            recipe: "two_views".into(),
            method: "simclr".into(),
            optimizer: "sgd".into(),
        };
        let progress = Progress { step, ..Progress::default() };
        CheckpointState::new(progress, 17, identity, Origin::here("cpu"))
    }

    fn listed(run: &Path) -> Vec<String> {
        let mut names = names(&run.join(CHECKPOINTS_FOLDER)).unwrap();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_checkpoint_comes_back_as_it_was_and_old_ones_go() {
        let run = tempfile::tempdir().unwrap();
        assert!(latest(run.path()).unwrap().is_none());
        for step in [8, 9, 10] {
            write(run.path(), state(step), &tensors(step as f32), 2).unwrap();
        }
        assert_eq!(listed(run.path()), ["step-10", "step-9"]);
        let (checkpoint, warnings) = latest(run.path()).unwrap().unwrap();
        assert!(warnings.is_empty());
        assert_eq!(checkpoint.tensors, tensors(10.0));
        assert_eq!(checkpoint.state, CheckpointState { files: checkpoint.state.files.clone(), ..state(10) });
    }

    #[test]
    fn a_full_disk_leaves_the_previous_checkpoint_valid() {
        let run = tempfile::tempdir().unwrap();
        write(run.path(), state(1), &tensors(1.0), 1).unwrap();
        for room in 0..4 {
            let mut files = 0;
            let mut sink = |path: &Path, bytes: &[u8]| {
                files += 1;
                if files > room {
                    fs::write(path, &bytes[..bytes.len() / 2])?;
                    return Err(io::ErrorKind::StorageFull.into());
                }
                write_file(path, bytes)
            };
            let error = write_through(run.path(), state(2), &tensors(2.0), 1, &mut sink).unwrap_err();
            assert!(error.to_string().contains("step-2"), "{error}");
            assert_eq!(latest(run.path()).unwrap().unwrap().0.tensors, tensors(1.0));
            assert_eq!(listed(run.path()), ["step-1"]);
        }
        write(run.path(), state(2), &tensors(2.0), 1).unwrap();
        assert_eq!(listed(run.path()), ["step-2"]);
    }

    #[test]
    fn a_damaged_file_is_named_and_the_checkpoint_before_it_used() {
        let run = tempfile::tempdir().unwrap();
        for step in [1, 2] {
            write(run.path(), state(step), &tensors(step as f32), 3).unwrap();
        }
        let path = run.path().join("checkpoints/step-2/optimizer.safetensors");
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        let (checkpoint, warnings) = latest(run.path()).unwrap().unwrap();
        assert_eq!(checkpoint.state.progress.step, 1);
        assert!(warnings[0].contains("step-2/optimizer.safetensors"), "{warnings:?}");
        fs::remove_file(run.path().join("checkpoints/step-1/state.json")).unwrap();
        let error = latest(run.path()).unwrap_err().to_string();
        assert!(error.contains("step-2/optimizer.safetensors") && error.contains("step-1/state.json"), "{error}");
        // Going on from an older one neither counts the damaged one nor removes it, until it is reached again.
        write(run.path(), state(1), &tensors(7.0), 1).unwrap();
        assert_eq!(latest(run.path()).unwrap().unwrap().0.tensors, tensors(7.0));
        write(run.path(), state(2), &tensors(5.0), 3).unwrap();
        assert_eq!(latest(run.path()).unwrap().unwrap().0.tensors, tensors(5.0));
    }

    #[test]
    fn leftovers_of_a_killed_write_are_ignored_and_removed() {
        let run = tempfile::tempdir().unwrap();
        write(run.path(), state(1), &tensors(1.0), 1).unwrap();
        let partial = run.path().join("checkpoints/step-2.partial");
        fs::create_dir(&partial).unwrap();
        fs::write(partial.join(WEIGHTS), b"torn").unwrap();
        assert_eq!(latest(run.path()).unwrap().unwrap().0.state.progress.step, 1);
        remove_leftovers(run.path()).unwrap();
        assert_eq!(listed(run.path()), ["step-1"]);
    }
}
