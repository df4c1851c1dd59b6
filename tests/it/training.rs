//! Runs on batches that are made as they are asked for: what the tests of methods under the trainer share.

use std::ops::Range;
use std::path::Path;

use burn::tensor::Device;
use diptych::Result;
use diptych::batch::{Batch, Content};
use diptych::method::Method;
use diptych::seed::ItemKey;
use diptych::train::identity::Identity;
use diptych::train::metrics::{METRICS_FILE, MetricsLine};
use diptych::train::{
    AdamWSettings, BatchSource, Observer, OptimizerSettings, TrainPlan, TrainReport, TrainSettings, checkpoint,
    parameters, train,
};

pub(crate) const PER_EPOCH: u64 = 10;

/// The batch of a number.
pub(crate) type Make = fn(u64, &Device) -> Batch;

/// A batch of `rows` items that no other batch has.
pub(crate) fn batch(number: u64, rows: usize, content: Content, labels: Vec<Vec<Option<String>>>) -> Batch {
    let ids: Vec<u64> = (0..rows as u64).map(|row| number * rows as u64 + row).collect();
    Batch {
        content,
        labels,
        keys: ids.iter().map(|&row| ItemKey { shard: 1, row, occurrence: 0 }).collect(),
        sample_ids: ids.clone(),
        positions: ids,
        digest: format!("{number:032x}"),
        replaced: 0,
    }
}

pub(crate) struct Numbered {
    pub(crate) numbers: Range<u64>,
    pub(crate) device: Device,
    pub(crate) make: Make,
}

impl BatchSource for Numbered {
    fn next(&mut self) -> Result<Option<Batch>> {
        Ok(self.numbers.next().map(|number| (self.make)(number, &self.device)))
    }
}

pub(crate) struct Nobody;

impl<M> Observer<M> for Nobody {}

/// A run on the CPU by AdamW that could go on for a hundred epochs; `recipe` and `method` are its identity.
pub(crate) fn plan(
    run: &Path,
    max_steps: u64,
    adamw: AdamWSettings,
    clip_gradient_norm: f64,
    (rows, recipe, method): (usize, &str, &str),
) -> TrainPlan {
    let settings = TrainSettings {
        ema_decay: Some(0.9),
        clip_gradient_norm: Some(clip_gradient_norm),
        max_steps: Some(max_steps),
        ..TrainSettings::new(100, OptimizerSettings::AdamW(adamw))
    };
    TrainPlan {
        settings,
        run: run.to_owned(),
        batches_per_epoch: PER_EPOCH,
        identity: Identity {
            selection_digest: "ab".to_owned(),
            order: "v1".to_owned(),
            seed: 1,
            batch_rows: rows,
            recipe: recipe.to_owned(),
            method: method.to_owned(),
            optimizer: "adamw".to_owned(),
        },
        device: Device::flex().autodiff(),
        device_name: "cpu".to_owned(),
        resume: false,
        accept_changes: vec![],
    }
}

/// Trains `method` on the batches that `make` gives.
pub(crate) fn go<M: Method>(method: M, plan: &TrainPlan, make: Make) -> Result<TrainReport<M>> {
    let source = |epoch: u64, first: u64| {
        let numbers = epoch * PER_EPOCH + first..(epoch + 1) * PER_EPOCH;
        Ok(Numbered { numbers, device: plan.device.clone(), make })
    };
    train(method, source, plan, &mut Nobody)
}

/// Lines without what depends on the clock.
pub(crate) fn lines(run: &Path) -> Vec<MetricsLine> {
    let text = std::fs::read_to_string(run.join(METRICS_FILE)).expect("metrics");
    let timeless = |line: &str| MetricsLine {
        samples_per_second: 0.0,
        data_wait_share: 0.0,
        trainer_waited_seconds: 0.0,
        data_waited_seconds: 0.0,
        ..serde_json::from_str(line).expect("a line of metrics")
    };
    text.lines().map(timeless).collect()
}

pub(crate) fn saved(run: &Path) -> checkpoint::CheckpointTensors {
    let (checkpoint, warnings) = checkpoint::latest(run).expect("readable").expect("a checkpoint");
    assert_eq!(warnings, Vec::<String>::new());
    checkpoint.tensors
}

/// A run that was stopped after 6 steps and goes on to 14 has the bits of one that never was.
pub(crate) fn assert_resumes_bit_for_bit<M: Method>(
    method: impl Fn(&Device) -> M,
    plan: impl Fn(&Path, u64) -> TrainPlan,
    make: Make,
    what: &str,
) {
    let (whole, parts) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    for (run, steps) in [(&whole, 14), (&parts, 6)] {
        let plan = plan(run.path(), steps);
        go(method(&plan.device), &plan, make).expect("trains");
    }
    // Other initial weights: whatever is not restored shows.
    let goes_on = TrainPlan { resume: true, ..plan(parts.path(), 14) };
    let others = parameters::map(method(&goes_on.device), |_, values| values * 0.5 + 0.1);
    go(others, &goes_on, make).expect("goes on");
    assert_eq!(saved(parts.path()), saved(whole.path()), "{what}");
    assert_eq!(lines(parts.path()), lines(whole.path()), "{what}");
    assert_eq!(lines(whole.path()).len(), 14);
}

/// The number of threads has no say in the bits.
pub(crate) fn assert_same_bits_on_any_threads<M: Method>(
    method: impl Fn(&Device) -> M + Sync,
    plan: impl Fn(&Path, u64) -> TrainPlan + Sync,
    make: Make,
) {
    let on = |threads: usize| {
        let run = tempfile::tempdir().expect("a folder");
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(|| {
            let plan = plan(run.path(), 4);
            go(method(&plan.device), &plan, make).map(drop)
        })
        .expect("trains");
        saved(run.path())
    };
    assert_eq!(on(1), on(3));
}
