//! Series through the binary: import, preview, a run of CPC that is cut off and resumed.
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use safetensors::SafeTensors;
use serde_json::Value;

use super::{home::Home, series::recordings};

const STEPS: u64 = 24;
/// Checkpoints after it are taken away.
const CUT: u64 = 9;

/// 96 recordings: twelve batches an epoch of two windows of eight series each.
const PIPELINE: &str = r#"
[scan]
schema = "time_series"
shards = ["SHARDS"]
shuffle_window_rows = 64
shuffle_window_megabytes = 8
lanes = 2

[augment]
series = [{ rescale = { factor = [0.5, 2.0] } }, { add_noise = { sigma = [0.0, 0.01] } }]

[pair.context_future]
window_steps = 320
windows_per_series = 2
group = "group"
scale = "series_rms"

[prefetch]
batch_rows = 16
capacity_megabytes = 8
pixel_digest = true

[method.cpc]
encoder.series = { layers = [
  { width_channels = 8, kernel_steps = 8, stride_steps = 8 },
  { width_channels = 8, kernel_steps = 4, stride_steps = 4 },
] }
context.gru = { width_channels = 8 }
predicted_frames = 3
negatives = "batch_all_time"

[train]
epochs = 2
optimizer.adamw = { rate = 1e-3 }
rate_scaling = "none"
ema_decay = 0.9
report_every_steps = 1
checkpoint_every_steps = 1
keep_checkpoints = 100
"#;

/// With the recordings as shards, and the pipeline.
fn home() -> Home {
    let home = Home::new();
    let (from, shards) = (home.path("from"), home.path("shards"));
    fs::create_dir(&from).expect("a folder");
    recordings(&from, 96);
    let told = home.ok(&["import", "from", "shards"]);
    assert!(told.contains("96 rows in 1 shard,") && told.contains("of series"), "{told}");
    fs::write(home.path("cpc.toml"), PIPELINE.replace("SHARDS", &shards.display().to_string())).expect("a file");
    home
}

pub(crate) fn lines(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).expect("metrics");
    let values = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON lines"));
    values.filter(|line| line.get("batch_digest").is_some()).collect()
}

/// By step.
pub(crate) fn checkpoints(run: &Path) -> BTreeMap<u64, PathBuf> {
    let entries = fs::read_dir(run.join("checkpoints")).expect("checkpoints").map(|entry| entry.expect("one").path());
    let step = |path: &Path| path.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok();
    entries.filter_map(|path| Some((step(&path)?, path))).collect()
}

pub(crate) fn tensors(checkpoint: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for file in ["weights.safetensors", "optimizer.safetensors", "ema.safetensors"] {
        let bytes = fs::read(checkpoint.join(file)).expect(file);
        for (name, view) in SafeTensors::deserialize(&bytes).expect(file).iter() {
            found.insert(format!("{file}: {name}"), view.data().to_vec());
        }
    }
    found
}

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a file");
        }
    }
}

pub(crate) fn assert_equal_runs(run: &Path, whole: &Path) {
    let (found, expected) = (lines(run), lines(whole));
    assert_eq!(found.len(), expected.len());
    for (line, expected) in found.iter().zip(&expected) {
        for key in ["step", "samples", "batch_digest", "loss", "gradient_norm", "bad_items"] {
            assert!(expected.get(key).is_some(), "no {key} in the metrics");
            assert_eq!(line.get(key), expected.get(key), "{key} of step {}", expected["step"]);
        }
    }
    let last = |run: &Path| tensors(checkpoints(run).last_key_value().expect("a checkpoint").1);
    let (found, expected) = (last(run), last(whole));
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, value) in &expected {
        assert!(found[name] == *value, "{name} differs");
    }
}

#[test]
fn a_run_that_goes_on_from_a_checkpoint_ends_with_the_bits_of_one_that_never_stopped() {
    let data = home();
    let (whole, resumed, threads) = (data.path("whole"), data.path("resumed"), data.path("threads"));
    let train = |run: &str, sets: &[&str]| {
        data.ok(&[&["train", "cpc.toml", "--run", run][..], sets].concat());
    };
    train("whole", &["--set", "augment.decode_threads=1"]);
    assert_eq!(lines(&whole).last().expect("lines")["step"].as_u64(), Some(STEPS));
    copy(&whole, &resumed);
    for (step, checkpoint) in checkpoints(&resumed) {
        if step > CUT {
            fs::remove_dir_all(checkpoint).expect("a checkpoint");
        }
    }
    assert_eq!(checkpoints(&resumed).last_key_value().map(|(step, _)| *step), Some(CUT));
    data.ok(&["train", "--resume", "resumed"]);
    assert_equal_runs(&resumed, &whole);
    train("threads", &["--set", "augment.decode_threads=3"]);
    assert_equal_runs(&threads, &whole);
}

#[test]
fn windows_are_checked_previewed_and_measured_before_any_training() {
    let data = home();
    let told = data.ok(&["check", "cpc.toml"]);
    assert!(told.contains("16 rows a batch, each a window of 320 steps"), "{told}");
    let told = data.ok(&["preview", "cpc.toml", "--to", "windows.png", "--pairs", "4"]);
    assert!(told.contains("4 series, each a window of 320 steps"), "{told}");
    let sheet = image::open(data.path("windows.png")).expect("a picture");
    assert!(sheet.width() > 2 * 384, "two windows of each series side by side");
    let told = data.ok(&["bench", "cpc.toml", "--batches", "3"]);
    assert!(told.contains("48 in 3 batches"), "{told}");
    let told = data.ok(&["select", "cpc.toml", "--set", "pair.context_future.window_steps=410"]);
    assert!(told.contains("68 of 96 rows"), "the default SQL leaves short series out: {told}");
}

#[test]
fn groups_of_any_size_give_as_many_items_and_a_balanced_run_is_resumed_to_the_bit() {
    let data = home();
    let (whole, resumed) = (data.path("whole"), data.path("resumed"));
    // All of anna's recordings, and half of the others'.
    let sets = [
        "--set",
        "scan.sql=SELECT sample_id FROM shards WHERE \"group\" = 'anna' OR label < '5'",
        "--set",
        "scan.balance={ column = \"group\" }",
    ];
    let told = data.ok(&[&["select", "cpc.toml", "--json", "--verify"][..], &sets].concat());
    let report: Value = serde_json::from_str(told.lines().last().expect("a line")).expect("JSON");
    let sources = report["sources"].as_object().expect("a source per group");
    assert_eq!(sources.keys().collect::<Vec<_>>(), ["0000-anna", "0001-bert", "0002-cleo"]);
    let numbers =
        |key: &str| sources.values().map(|source| source[key].as_u64().expect("a number")).collect::<Vec<_>>();
    assert_eq!(numbers("items"), [32, 17, 16]);
    let epoch = numbers("epoch_items");
    assert!(epoch.iter().all(|items| items.abs_diff(epoch[0]) <= 2) && epoch[0] >= 24, "{epoch:?}");

    data.ok(&[&["train", "cpc.toml", "--run", "whole", "--set", "augment.decode_threads=1"][..], &sets].concat());
    let steps: Vec<u64> = checkpoints(&whole).into_keys().collect();
    assert!(steps.len() > 16, "{steps:?}");
    copy(&whole, &resumed);
    for (step, checkpoint) in checkpoints(&resumed) {
        if step > CUT {
            fs::remove_dir_all(checkpoint).expect("a checkpoint");
        }
    }
    data.ok(&["train", "--resume", "resumed", "--set", "augment.decode_threads=3"]);
    assert_equal_runs(&resumed, &whole);
    let told = data.ok(&[&["explain", "cpc.toml"][..], &sets].concat());
    assert!(told.contains("select 0001-bert: those whose group is bert"), "{told}");
    // A group of fewer samples than lanes could not fill them.
    let few = ["--set", "scan.lanes=20", "--set", "scan.shuffle_window_rows=64"];
    let words = [&["select", "cpc.toml"][..], &sets, &few].concat();
    let output = data.run(&words);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && told.contains("\"bert\" has 17, \"cleo\" has 16"), "{told}");
}
