//! `metrics.jsonl`: one JSON object per line, on disk as soon as it is written.
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::collapse::Embeddings;
use crate::error::{Context, Result, Stage};

/// Name of the file in a run folder.
pub const METRICS_FILE: &str = "metrics.jsonl";

/// What is reported of one step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricsLine {
    /// Steps done, this one included.
    pub step: u64,
    /// Epoch, from 0.
    pub epoch: u64,
    /// Items seen since the run began, over all resumes.
    pub samples: u64,
    /// Loss of this step's batch, before its update.
    pub loss: f64,
    /// Rate of this step.
    pub learning_rate: f64,
    /// Items per second since the last report.
    pub samples_per_second: f64,
    /// Share of the time since the last report in which the trainer waited for data.
    pub data_wait_share: f64,
    /// Seconds since the last report in which the trainer waited for data.
    pub trainer_waited_seconds: f64,
    /// Seconds since the last report in which data waited for room in the queue.
    pub data_waited_seconds: f64,
    /// Digest of this step's batch.
    pub batch_digest: String,
    /// Global norm of this step's gradients, before clipping.
    pub gradient_norm: f64,
    /// Items since the run began whose place a substitute took.
    pub bad_items: u64,
    /// Whether the embeddings spread or collapse.
    #[serde(flatten)]
    pub embeddings: Embeddings,
    /// What the method reports of this step besides its loss, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub method: BTreeMap<String, Vec<f64>>,
}

/// Scores taken at an epoch's end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoresLine {
    /// Steps done.
    pub step: u64,
    /// The epoch that ended, from 0.
    pub epoch: u64,
    /// By name, such as `knn_accuracy`.
    pub scores: BTreeMap<String, f64>,
}

/// The open file.
#[derive(Debug)]
pub struct MetricsFile {
    file: File,
    path: PathBuf,
    bytes: u64,
}

impl MetricsFile {
    /// Opens the file of a run and cuts it to its first `keep_bytes`: what a checkpoint had seen.
    ///
    /// # Errors
    /// The file cannot be opened or cut.
    pub fn open(run: &Path, keep_bytes: u64) -> Result<Self> {
        let path = run.join(METRICS_FILE);
        let open = || {
            let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
            // A file that lost lines cannot get them back; what is left stays readable.
            let bytes = keep_bytes.min(file.metadata()?.len());
            file.set_len(bytes)?;
            file.seek(SeekFrom::End(0))?;
            std::io::Result::Ok((file, bytes))
        };
        let (file, bytes) = open().context(Stage::Train, path.display().to_string(), "cannot open the metrics")?;
        Ok(Self { file, path, bytes })
    }

    /// Appends one line in one write.
    ///
    /// # Errors
    /// The disk is full or gone.
    pub fn append(&mut self, line: &impl Serialize) -> Result<()> {
        let place = || self.path.display().to_string();
        let mut text = serde_json::to_string(line).context(Stage::Train, place(), "cannot format a line")?;
        text.push('\n');
        self.file.write_all(text.as_bytes()).context(Stage::Train, place(), "cannot write a line")?;
        self.bytes += text.len() as u64;
        Ok(())
    }

    /// Waits until every line is on the disk, and says how many bytes they are.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn sync(&mut self) -> Result<u64> {
        self.file.sync_data().context(Stage::Train, self.path.display().to_string(), "cannot flush the metrics")?;
        Ok(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opening_cuts_to_the_kept_bytes_and_appends_after_them() {
        let folder = tempfile::tempdir().unwrap();
        let line = |step| ScoresLine { step, epoch: 0, scores: BTreeMap::from([("knn_accuracy".into(), 0.5)]) };
        let mut metrics = MetricsFile::open(folder.path(), 0).unwrap();
        metrics.append(&line(1)).unwrap();
        let kept = metrics.sync().unwrap();
        metrics.append(&line(2)).unwrap();
        drop(metrics);
        let mut metrics = MetricsFile::open(folder.path(), kept).unwrap();
        metrics.append(&line(3)).unwrap();
        let text = std::fs::read_to_string(folder.path().join(METRICS_FILE)).unwrap();
        let steps: Vec<u64> = text.lines().map(|l| serde_json::from_str::<ScoresLine>(l).unwrap().step).collect();
        assert_eq!(steps, [1, 3]);
        assert_eq!(metrics.sync().unwrap(), text.len() as u64);
    }
}
