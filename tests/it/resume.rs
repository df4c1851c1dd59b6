//! Real processes, killed and resumed: the same batches, losses and bits as a run that was left alone.
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use diptych::seed::draws;
use diptych::synthetic::write_class_folders;
use safetensors::SafeTensors;
use serde_json::Value;
use tempfile::TempDir;

const DIPTYCH: &str = env!("CARGO_BIN_EXE_diptych");
const PATIENCE: Duration = Duration::from_secs(180);
const STEPS: u64 = 60;

/// Small, and with everything on that has state: momentum, average, BatchNorm, pixel digests, a checkpoint each step.
const PIPELINE: &str = r#"
[scan]
schema = "image_text"
shards = ["SHARDS"]
sql = "SELECT sample_id FROM shards WHERE split = 'train'"
shuffle_window_rows = 64
shuffle_window_megabytes = 8
lanes = 2

[augment]
image = [
  { random_resized_crop = { side_pixels = 16, area = [0.3, 1.0] } },
  { horizontal_flip = { probability = 0.5 } },
  { color_jitter = { probability = 0.8, strength = 0.5 } },
]

[pair.two_views]
column = "image"

[prefetch]
batch_rows = 16
capacity_megabytes = 8
pixel_digest = true

[method.simclr]
encoder.convnet = { base_width = 8 }
head = "google_v1"
projection_width = 32
temperature = 0.2

[train]
epochs = 6
optimizer.lars = { rate = 0.5 }
schedule.cosine = { warmup_epochs = 1 }
clip_gradient_norm = 10.0
ema_decay = 0.99
checkpoint_every_steps = 1
"#;

struct Data {
    folder: TempDir,
}

impl Data {
    /// 160 pictures for training as shards: ten batches an epoch.
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let pictures = folder.path().join("pictures");
        write_class_folders(&pictures, 16, 24, 3).expect("pictures");
        let shards = folder.path().join("shards");
        let status = Command::new(DIPTYCH).arg("import").args([&pictures, &shards]).stderr(Stdio::null()).status();
        assert!(status.expect("diptych runs").success(), "import failed");
        let pipeline = PIPELINE.replace("SHARDS", &shards.display().to_string());
        fs::write(folder.path().join("pipeline.toml"), pipeline).expect("a pipeline");
        Self { folder }
    }

    fn run(&self, name: &str) -> Run {
        Run { pipeline: self.folder.path().join("pipeline.toml"), folder: self.folder.path().join(name) }
    }

    fn whole(&self) -> Run {
        let run = self.run("whole");
        let status = run.start().wait().expect("diptych ends");
        assert!(status.success(), "{}", run.log());
        assert_eq!(run.steps(), STEPS, "{}", run.log());
        run
    }
}

struct Run {
    pipeline: PathBuf,
    folder: PathBuf,
}

impl Run {
    fn log_path(&self) -> PathBuf {
        self.folder.with_extension("log")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn spawn(&self, mut command: Command) -> Child {
        let log = fs::File::create(self.log_path()).expect("a log");
        command.stdout(Stdio::null()).stderr(log).spawn().expect("diptych runs")
    }

    fn start(&self) -> Child {
        let mut command = Command::new(DIPTYCH);
        command.arg("train").arg(&self.pipeline).arg("--run").arg(&self.folder);
        self.spawn(command)
    }

    fn resume(&self) -> Child {
        let mut command = Command::new(DIPTYCH);
        command.arg("train").arg("--resume").arg(&self.folder);
        self.spawn(command)
    }

    /// Complete lines of `metrics.jsonl` that report a step.
    fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.folder.join("metrics.jsonl")).unwrap_or_default();
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        let values = complete.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON lines"));
        values.filter(|line| line.get("batch_digest").is_some()).collect()
    }

    /// The last reported step.
    fn steps(&self) -> u64 {
        self.lines().last().map_or(0, |line| line["step"].as_u64().expect("a step"))
    }

    fn wait_for_step(&self, child: &mut Child, step: u64) {
        let start = Instant::now();
        while self.steps() < step {
            let ended = child.try_wait().expect("its status");
            assert!(ended.is_none(), "ended with {ended:?} before step {step}: {}", self.log());
            assert!(start.elapsed() < PATIENCE, "no step {step} in time: {}", self.log());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn partial_checkpoint(&self) -> bool {
        let Ok(entries) = fs::read_dir(self.folder.join("checkpoints")) else { return false };
        let name = |entry: std::io::Result<fs::DirEntry>| entry.map(|e| e.file_name().to_string_lossy().into_owned());
        entries.filter_map(|entry| name(entry).ok()).any(|name| name.ends_with(".partial") && !name.contains(".old"))
    }

    /// Kills the process; it must not have ended by itself.
    fn kill(&self, mut child: Child) {
        assert!(child.try_wait().expect("its status").is_none(), "ended before it was killed: {}", self.log());
        child.kill().expect("SIGKILL");
        let status = child.wait().expect("its status");
        assert_eq!(status.code(), None, "ended before it was killed: {}", self.log());
    }

    fn newest_checkpoint(&self) -> PathBuf {
        let entries = fs::read_dir(self.folder.join("checkpoints")).expect("checkpoints");
        let step = |path: &Path| path.file_name()?.to_str()?.strip_prefix("step-")?.parse::<u64>().ok();
        let paths = entries.map(|entry| entry.expect("an entry").path());
        paths.filter(|path| step(path).is_some()).max_by_key(|path| step(path)).expect("a checkpoint")
    }
}

/// Name of file and tensor → dtype, shape and bytes.
fn tensors(checkpoint: &Path) -> BTreeMap<String, (String, Vec<usize>, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for file in ["weights.safetensors", "optimizer.safetensors", "ema.safetensors"] {
        let bytes = fs::read(checkpoint.join(file)).expect(file);
        for (name, view) in SafeTensors::deserialize(&bytes).expect(file).iter() {
            let value = (view.dtype().to_string(), view.shape().to_vec(), view.data().to_vec());
            found.insert(format!("{file}: {name}"), value);
        }
    }
    found
}

/// Everything that must not depend on how often the process died.
fn assert_equal_runs(run: &Run, whole: &Run) {
    let (lines, expected) = (run.lines(), whole.lines());
    assert_eq!(lines.len(), expected.len());
    for (line, expected) in lines.iter().zip(&expected) {
        for key in [
            "step",
            "epoch",
            "samples",
            "batch_digest",
            "loss",
            "learning_rate",
            "gradient_norm",
            "bad_items",
            "alignment",
            "uniformity",
            "embedding_std",
            "effective_rank",
            "positive_cosine",
            "negative_cosine",
        ] {
            assert!(expected.get(key).is_some(), "no {key} in the metrics");
            assert_eq!(line.get(key), expected.get(key), "{key} of step {}", expected["step"]);
        }
    }
    let (found, expected) = (tensors(&run.newest_checkpoint()), tensors(&whole.newest_checkpoint()));
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for needed in ["running_mean", "running_var", "momentum"] {
        assert!(expected.keys().any(|name| name.contains(needed)), "no {needed} in the checkpoint");
    }
    for (name, value) in &expected {
        assert!(found[name] == *value, "{name} differs");
    }
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").arg(name).arg(child.id().to_string()).status().expect("kill runs");
    assert!(status.success());
}

fn finish(run: &Run) {
    let status: ExitStatus = run.resume().wait().expect("diptych ends");
    assert!(status.success(), "{}", run.log());
    assert_eq!(run.steps(), STEPS);
}

#[test]
fn killed_runs_resume_to_the_bits_of_an_uninterrupted_one() {
    let data = Data::new();
    let whole = data.whole();
    let run = data.run("killed");
    let mut child = run.start();
    for third in 0..3 {
        // All three in the first half, so that no run is over before its kill and the fourth has room to miss.
        let step = 2 + 10 * third + draws(11, "kill", &[third]).below(7);
        run.wait_for_step(&mut child, step);
        run.kill(child);
        child = run.resume();
    }
    let mut tries = 0;
    loop {
        let start = Instant::now();
        while !run.partial_checkpoint() {
            assert!(child.try_wait().expect("its status").is_none(), "ended before it was killed: {}", run.log());
            assert!(start.elapsed() < PATIENCE, "no checkpoint in time: {}", run.log());
        }
        run.kill(child);
        tries += 1;
        if run.partial_checkpoint() {
            break;
        }
        // The rename was quicker; the next checkpoint is a step away.
        assert!(tries < 12, "not once killed while a checkpoint was being written");
        child = run.resume();
        run.wait_for_step(&mut child, run.steps().max(1));
    }
    finish(&run);
    assert!(!run.partial_checkpoint(), "what the killed write left is still there");
    assert_equal_runs(&run, &whole);
}

#[test]
fn signals_stop_after_a_checkpoint_with_their_own_exit_codes() {
    let data = Data::new();
    let whole = data.whole();
    let run = data.run("stopped");
    let mut child = run.start();
    for (name, code, step) in [("-INT", 130, 4), ("-TERM", 143, 17)] {
        run.wait_for_step(&mut child, step);
        signal(&child, name);
        assert_eq!(child.wait().expect("diptych ends").code(), Some(code), "{}", run.log());
        assert!(run.log().contains("after a checkpoint at step"), "{}", run.log());
        let newest = run.newest_checkpoint().file_name().expect("a name").to_string_lossy().into_owned();
        assert_eq!(newest, format!("step-{}", run.steps()));
        child = run.resume();
    }
    assert!(child.wait().expect("diptych ends").success(), "{}", run.log());
    assert_equal_runs(&run, &whole);
}

#[test]
fn a_full_disk_ends_the_run_and_leaves_its_checkpoint_valid() {
    let data = Data::new();
    let whole = data.whole();
    let run = data.run("full");
    let mut child = run.start();
    run.wait_for_step(&mut child, 5);
    signal(&child, "-INT");
    assert_eq!(child.wait().expect("diptych ends").code(), Some(130), "{}", run.log());
    let before = tensors(&run.newest_checkpoint());
    // No file may grow over 64 or 128 KiB, by shell: metrics fit, weights do not.
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 128; exec \"$0\" train --resume \"$1\"", DIPTYCH]).arg(&run.folder);
    let status = run.spawn(limited).wait().expect("diptych ends");
    assert_eq!(status.code(), Some(1), "{}", run.log());
    assert!(run.log().contains("checkpoint") && run.log().contains("previous one is as it was"), "{}", run.log());
    assert!(tensors(&run.newest_checkpoint()) == before, "the previous checkpoint changed");
    finish(&run);
    assert_equal_runs(&run, &whole);
}
