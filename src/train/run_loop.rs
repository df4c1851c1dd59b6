//! The loop: learning rate → forward and backward → clip → step → average → report every n → checkpoint every m.
//!
//! Device syncs: at reports the losses since the last one, the gradients' norm and the embeddings' statistics; at
//! checkpoints everything. All are in `recorder.rs`. Between them the loop only queues work.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use burn::tensor::Device;

use super::TrainSettings;
use super::checkpoint::{self, Checkpoint};
use super::chunks;
use super::clip::{clip, global_norm};
use super::ema::Ema;
use super::identity::{Identity, Origin};
use super::metrics::{MetricsFile, MetricsLine};
use super::optimizer::Optimizer;
use super::progress::Progress;
use super::recorder::{Recorder, StepFacts};
use super::schedule::Schedule;
use super::state::restore;
use crate::batch::Batch;
use crate::error::{Error, Result, Stage};
use crate::method::Method;

/// Batches of one epoch, in its order.
pub trait BatchSource {
    /// The next batch; `None` at the epoch's end. Blocks.
    ///
    /// # Errors
    /// Whatever the data half reports.
    fn next(&mut self) -> Result<Option<Batch>>;

    /// Time since the source began in which data waited for room in the queue.
    fn data_waited(&self) -> Duration {
        Duration::ZERO
    }

    /// How much of the quarantine table belongs to the batches returned so far, in whatever unit the source counts.
    fn quarantine_offset(&self) -> u64 {
        0
    }
}

/// Who watches a run: progress bar, log, evaluation, signals.
pub trait Observer<M> {
    /// The run is about to take its first step, or the first since a checkpoint.
    fn started(&mut self, _schedule: &Schedule, _progress: &Progress) {}
    /// A step was queued.
    fn step(&mut self, _step: u64) {}
    /// A line was written.
    fn report(&mut self, _line: &MetricsLine) {}
    /// A checkpoint of `progress` is about to be written: what it names must be on the disk by then.
    ///
    /// # Errors
    /// It is not, which stops the run with the checkpoint before.
    fn before_checkpoint(&mut self, _progress: &Progress) -> Result<()> {
        Ok(())
    }
    /// A checkpoint was written.
    fn checkpoint(&mut self, _step: u64, _folder: &Path) {}
    /// An epoch, from 0, ended: scores of `method` (with averaged weights, where an average is kept), by name, to be
    /// written down. Empty: none.
    ///
    /// # Errors
    /// An evaluation that fails stops the run.
    fn epoch_end(&mut self, _epoch: u64, _method: &M) -> Result<BTreeMap<String, f64>> {
        Ok(BTreeMap::new())
    }
    /// Something the user should know.
    fn warn(&mut self, _text: &str) {}
    /// The signal that asks the run to stop, if one arrived.
    fn stop_signal(&mut self) -> Option<i32> {
        None
    }
}

/// Everything a run is, resolved.
#[derive(Debug, Clone)]
pub struct TrainPlan {
    /// `[train]`.
    pub settings: TrainSettings,
    /// The run's folder; it exists.
    pub run: PathBuf,
    /// Full batches of an epoch.
    pub batches_per_epoch: u64,
    /// What it trains on.
    pub identity: Identity,
    /// Where it trains.
    pub device: Device,
    /// The device as the pipeline names it.
    pub device_name: String,
    /// Continue from the newest checkpoint; from the start where there is none yet.
    pub resume: bool,
    /// Names of the changes of [`Identity`] that are wanted.
    pub accept_changes: Vec<String>,
}

impl TrainPlan {
    /// Steps after which the run is done.
    pub fn steps(&self) -> u64 {
        let all = self.settings.epochs.saturating_mul(self.batches_per_epoch);
        self.settings.max_steps.map_or(all, |most| most.min(all))
    }

    /// Every so many steps, and the first and the last: the shortest run has its loss on record.
    fn reports_at(&self, step: u64) -> bool {
        step == 1 || step == self.steps() || step.is_multiple_of(self.settings.report_every_steps.max(1))
    }

    fn epoch_consumed(&self, progress: &Progress) -> bool {
        progress.batches_consumed >= self.batches_per_epoch
    }
}

/// What a finished run leaves in memory.
#[derive(Debug)]
pub struct TrainReport<M> {
    /// The trained method.
    pub method: M,
    /// The same with averaged weights, where an average was kept.
    pub averaged: Option<M>,
    /// How far it got.
    pub progress: Progress,
    /// Loss of the last step; `None` where this process took none.
    pub last_loss: Option<f64>,
}

struct Start<M> {
    method: M,
    optimizer: Optimizer,
    ema: Option<Ema>,
    progress: Progress,
    metrics_bytes: u64,
}

/// Trains `method` on what `data` gives for an epoch and the batches of it already consumed.
///
/// Loss that is not finite stops the run; it is read at every report and before every checkpoint, and the error has the
/// sample ids of the batch whose loss broke, also where steps passed since.
///
/// # Errors
/// Whatever data, device or disk report, a loss that is not finite, a checkpoint that does not fit, and
/// [`Error::Interrupted`] after a signal and a checkpoint.
pub fn train<M, S, D>(
    method: M,
    mut data: D,
    plan: &TrainPlan,
    observer: &mut dyn Observer<M>,
) -> Result<TrainReport<M>>
where
    M: Method,
    S: BatchSource,
    D: FnMut(u64, u64) -> Result<S>,
{
    let settings = &plan.settings;
    let origin = Origin::here(&plan.device_name);
    let schedule = Schedule::new(settings, plan.identity.batch_rows, plan.batches_per_epoch);
    let Start { mut method, mut optimizer, mut ema, mut progress, metrics_bytes } =
        start(method, plan, &origin, observer)?;
    let metrics = MetricsFile::open(&plan.run, metrics_bytes)?;
    let mut recorder = Recorder::new(plan, metrics, origin, &progress);
    observer.started(&schedule, &progress);

    while progress.epoch < settings.epochs && (progress.step < plan.steps() || plan.epoch_consumed(&progress)) {
        let mut stops = false;
        if !plan.epoch_consumed(&progress) {
            let mut source = recorder.waiting(|| data(progress.epoch, progress.batches_consumed))?;
            recorder.source_began();
            while !stops && let Some(batch) = recorder.waiting(|| source.next())? {
                let rate = schedule.rate(progress.step);
                if progress.step == 0 {
                    (method, ema) = prepared(method, &batch, settings)?;
                }
                let (output, mut gradients) =
                    chunks::step(&mut method, &batch.content, progress.step, settings.chunks)?;
                progress.step_taken(batch.sample_ids.len(), batch.replaced);
                progress.quarantine_offset = source.quarantine_offset();
                let step = progress.step;
                let reports = plan.reports_at(step);
                let wants_norm = reports || settings.clip_gradient_norm.is_some();
                let gradient_norm = if wants_norm { global_norm(&gradients) } else { None };
                if let (Some(maximum), Some(norm)) = (settings.clip_gradient_norm, &gradient_norm) {
                    gradients = clip(gradients, norm, maximum);
                }
                method = optimizer.step(method, gradients, rate, step);
                method.after_step();
                if let Some(ema) = &mut ema {
                    ema.update(&method, step);
                }
                recorder.remember(step, &output.loss, &batch);
                observer.step(step);
                if reports {
                    let facts = StepFacts { rate, gradient_norm, data_waited: source.data_waited() };
                    recorder.report(&mut progress, &output, &batch, &facts, observer)?;
                }
                let signal = observer.stop_signal();
                let due = settings.checkpoint_every_steps.is_some_and(|every| step.is_multiple_of(every.max(1)));
                stops = signal.is_some() || settings.max_steps == Some(step);
                if due || stops {
                    recorder.aside(|r| r.checkpoint(&progress, &method, &optimizer, ema.as_ref(), observer))?;
                }
                if let Some(signal) = signal {
                    return Err(Error::Interrupted { signal, step });
                }
            }
        }
        if stops && !plan.epoch_consumed(&progress) {
            break;
        }
        let averaged = ema.as_ref().map(|ema| ema.apply(method.clone()));
        let scores = recorder.aside(|_| observer.epoch_end(progress.epoch, averaged.as_ref().unwrap_or(&method)))?;
        recorder.scores(&progress, scores)?;
        progress.epoch_done();
        if settings.checkpoint_every_steps.is_none() || progress.epoch >= settings.epochs {
            recorder.aside(|r| r.checkpoint(&progress, &method, &optimizer, ema.as_ref(), observer))?;
        }
    }
    let averaged = ema.map(|ema| ema.apply(method.clone()));
    Ok(TrainReport { method, averaged, progress, last_loss: recorder.last_loss() })
}

/// The method scaled by the run's first batch, and its average from there.
fn prepared<M: Method>(method: M, first: &Batch, settings: &TrainSettings) -> Result<(M, Option<Ema>)> {
    let method = method.prepare(first.content.input())?;
    let ema = settings.ema_decay.map(|decay| Ema::new(decay, &method));
    Ok((method, ema))
}

/// The first step of a run, or where its newest checkpoint left it.
fn start<M: Method>(method: M, plan: &TrainPlan, origin: &Origin, observer: &mut dyn Observer<M>) -> Result<Start<M>> {
    let settings = &plan.settings;
    if plan.batches_per_epoch == 0 {
        let reason = "an epoch has not one full batch; select more samples or lower `prefetch.batch_rows`";
        return Err(Error::at(Stage::Train, "", reason));
    }
    checkpoint::remove_leftovers(&plan.run)?;
    let found = checkpoint::latest(&plan.run)?;
    if !plan.resume && found.is_some() {
        let reason = "the folder holds a run with checkpoints; continue it with `--resume` or name another folder";
        return Err(Error::at(Stage::Checkpoint, plan.run.display().to_string(), reason));
    }
    let compat = settings.compat.filter(|_| method.decays_vectors_in_torch());
    let mut optimizer = Optimizer::new(&settings.optimizer, compat, &method, &plan.device);
    let Some((checkpoint, damaged)) = found else {
        let ema = settings.ema_decay.map(|decay| Ema::new(decay, &method));
        return Ok(Start { method, optimizer, ema, progress: Progress::default(), metrics_bytes: 0 });
    };
    damaged.iter().for_each(|damage| observer.warn(damage));
    let Checkpoint { state, tensors, folder } = checkpoint;
    for change in plan.identity.check(&state.identity, &plan.accept_changes)? {
        observer.warn(&format!("{}: goes on with a changed {change}", folder.display()));
    }
    origin.differences(&state.origin).iter().for_each(|difference| observer.warn(difference));
    let method = restore(method, &tensors.weights)?;
    optimizer.load(&tensors.optimizer)?;
    let ema = match (settings.ema_decay, &tensors.ema) {
        (None, None) => None,
        (Some(decay), Some(saved)) => Some(Ema::load(decay, &method, saved)?),
        (wanted, _) => {
            let reason =
                if wanted.is_some() { "has no average of the weights" } else { "has an average of the weights" };
            let reason = format!("{reason}, unlike this run; set `train.ema_decay` as it was");
            return Err(Error::at(Stage::Checkpoint, folder.display().to_string(), reason));
        }
    };
    Ok(Start { method, optimizer, ema, progress: state.progress, metrics_bytes: state.metrics_bytes })
}

#[cfg(test)]
mod tests {
    use super::super::checkpoint::{CheckpointTensors, latest};
    use super::super::metrics::METRICS_FILE;
    use super::super::toy::{ITEMS, Toy, batch};
    use super::super::{AdamWSettings, LarsSettings, OptimizerSettings, SgdSettings};
    use super::*;

    const PER_EPOCH: u64 = 8;

    struct Source {
        numbers: std::ops::Range<u64>,
        device: Device,
    }

    impl BatchSource for Source {
        fn next(&mut self) -> Result<Option<Batch>> {
            Ok(self.numbers.next().map(|number| batch(number, &self.device)))
        }
    }

    #[derive(Default)]
    struct Watcher {
        stop_at: Option<u64>,
        step: u64,
        warnings: Vec<String>,
        epochs: Vec<u64>,
        scored: bool,
        full_disk_at: Option<u64>,
        scored_weights: Vec<super::super::state::Tensors>,
    }

    impl Observer<Toy> for Watcher {
        fn step(&mut self, step: u64) {
            self.step = step;
        }
        fn warn(&mut self, text: &str) {
            self.warnings.push(text.to_owned());
        }
        fn before_checkpoint(&mut self, progress: &Progress) -> Result<()> {
            match self.full_disk_at == Some(progress.step) {
                true => Err(Error::at(Stage::Scan, "quarantine", "cannot be written; is the disk full?")),
                false => Ok(()),
            }
        }
        fn epoch_end(&mut self, epoch: u64, method: &Toy) -> Result<BTreeMap<String, f64>> {
            self.epochs.push(epoch);
            self.scored_weights.push(super::super::state::collect(method));
            let scores = self.scored.then(|| ("knn_accuracy".to_owned(), 0.5));
            Ok(scores.into_iter().collect())
        }
        fn stop_signal(&mut self) -> Option<i32> {
            (self.stop_at == Some(self.step)).then_some(15)
        }
    }

    fn plan(run: &Path, optimizer: OptimizerSettings) -> TrainPlan {
        let settings = TrainSettings {
            clip_gradient_norm: Some(1.5),
            ema_decay: Some(0.99),
            max_steps: Some(20),
            ..TrainSettings::new(3, optimizer)
        };
        let identity = Identity {
            selection_digest: "ab".into(),
            order: "v1".into(),
            seed: 1,
            batch_rows: ITEMS,
            recipe: "two_views".into(),
            method: "simclr".into(),
            optimizer: "sgd".into(),
        };
        TrainPlan {
            settings,
            run: run.to_owned(),
            batches_per_epoch: PER_EPOCH,
            identity,
            device: Device::flex().autodiff(),
            device_name: "cpu".into(),
            resume: false,
            accept_changes: Vec::new(),
        }
    }

    fn go(seed: u64, plan: &TrainPlan, watcher: &mut Watcher) -> Result<TrainReport<Toy>> {
        let device = plan.device.clone();
        let source = |epoch: u64, first: u64| {
            let numbers = epoch * PER_EPOCH + first..(epoch + 1) * PER_EPOCH;
            Ok(Source { numbers, device: device.clone() })
        };
        train(Toy::seeded(seed, &plan.device), source, plan, watcher)
    }

    fn sgd() -> OptimizerSettings {
        OptimizerSettings::Sgd(SgdSettings::default())
    }

    fn saved(run: &Path) -> (Progress, CheckpointTensors) {
        let (checkpoint, warnings) = latest(run).unwrap().unwrap();
        assert_eq!(warnings, Vec::<String>::new());
        (checkpoint.state.progress, checkpoint.tensors)
    }

    /// Lines without what depends on the clock.
    fn lines(run: &Path) -> Vec<MetricsLine> {
        let text = std::fs::read_to_string(run.join(METRICS_FILE)).unwrap();
        let timeless = |line: &str| MetricsLine {
            samples_per_second: 0.0,
            data_wait_share: 0.0,
            trainer_waited_seconds: 0.0,
            data_waited_seconds: 0.0,
            ..serde_json::from_str(line).unwrap()
        };
        text.lines().map(timeless).collect()
    }

    #[test]
    fn resumed_run_equals_uninterrupted_run_bit_for_bit() {
        for optimizer in [
            OptimizerSettings::Sgd(SgdSettings { nesterov: true, weight_decay: 1e-4, ..SgdSettings::default() }),
            OptimizerSettings::AdamW(AdamWSettings::default()),
            OptimizerSettings::Lars(LarsSettings { rate: Some(1.0), ..LarsSettings::default() }),
        ] {
            let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let report = go(0, &plan(whole.path(), optimizer.clone()), &mut Watcher::default()).unwrap();
            assert_eq!((report.progress.step, report.progress.epoch), (20, 2));
            let first = plan(parts.path(), optimizer);
            let mut first = TrainPlan { settings: TrainSettings { max_steps: Some(7), ..first.settings }, ..first };
            go(0, &first, &mut Watcher::default()).unwrap();
            assert_eq!(saved(parts.path()).0.batches_consumed, 7);
            (first.settings.max_steps, first.resume) = (Some(20), true);
            // Other initial weights: whatever is not restored shows.
            let resumed = go(99, &first, &mut Watcher::default()).unwrap();
            assert_eq!(saved(parts.path()), saved(whole.path()));
            assert!(saved(whole.path()).1.ema.is_some());
            assert_eq!(lines(parts.path()), lines(whole.path()));
            assert_eq!(lines(whole.path()).len(), 20);
            let read = |report: &TrainReport<Toy>| super::super::state::collect(report.averaged.as_ref().unwrap());
            assert_eq!(read(&resumed), read(&report));
        }
    }

    #[test]
    fn a_step_changes_every_kind_of_state() {
        let run = tempfile::tempdir().unwrap();
        let mut plan = plan(run.path(), OptimizerSettings::AdamW(AdamWSettings::default()));
        plan.settings.max_steps = Some(7);
        go(0, &plan, &mut Watcher::default()).unwrap();
        let (_, seven) = saved(run.path());
        (plan.settings.max_steps, plan.resume) = (Some(8), true);
        go(0, &plan, &mut Watcher::default()).unwrap();
        let (_, eight) = saved(run.path());
        for (before, after) in [
            (&seven.weights, &eight.weights),
            (&seven.optimizer, &eight.optimizer),
            (seven.ema.as_ref().unwrap(), eight.ema.as_ref().unwrap()),
        ] {
            for (name, data) in before {
                assert_ne!(*data, after[name], "{name} did not change: comparing it shows nothing");
            }
        }
    }

    #[test]
    fn a_signal_ends_the_run_after_its_step_and_a_checkpoint() {
        let run = tempfile::tempdir().unwrap();
        let plan = plan(run.path(), sgd());
        let error = go(0, &plan, &mut Watcher { stop_at: Some(5), ..Watcher::default() }).unwrap_err();
        assert!(matches!(error, Error::Interrupted { signal: 15, step: 5 }), "{error}");
        assert_eq!(saved(run.path()).0.step, 5);
    }

    #[test]
    fn a_loss_that_breaks_names_its_step_and_samples_even_when_read_later() {
        for report_every_steps in [1, 5] {
            let run = tempfile::tempdir().unwrap();
            let mut plan =
                plan(run.path(), OptimizerSettings::Sgd(SgdSettings { rate: 1e38, ..SgdSettings::default() }));
            plan.settings.report_every_steps = report_every_steps;
            plan.settings.clip_gradient_norm = None;
            let error = go(0, &plan, &mut Watcher::default()).unwrap_err().to_string();
            assert!(error.contains("step 2, batch 00000000000000000000000000000001"), "{error}");
            assert!(error.contains("[6, 7, 8, 9, 10, 11]"), "{error}");
            assert!(latest(run.path()).unwrap().is_none());
        }
    }

    #[test]
    fn a_changed_run_is_refused_and_an_accepted_change_is_told() {
        let run = tempfile::tempdir().unwrap();
        let mut plan = plan(run.path(), sgd());
        plan.settings.max_steps = Some(3);
        go(0, &plan, &mut Watcher::default()).unwrap();
        let error = go(0, &plan, &mut Watcher::default()).unwrap_err().to_string();
        assert!(error.contains("--resume"), "{error}");
        (plan.resume, plan.identity.seed, plan.settings.max_steps) = (true, 2, Some(4));
        let error = go(0, &plan, &mut Watcher::default()).unwrap_err().to_string();
        assert!(error.contains("seed was 1, is 2"), "{error}");
        plan.accept_changes = vec!["seed".into()];
        let mut watcher = Watcher::default();
        assert_eq!(go(0, &plan, &mut watcher).unwrap().progress.step, 4);
        assert!(watcher.warnings[0].contains("changed seed"), "{:?}", watcher.warnings);
        plan.settings.ema_decay = None;
        let error = go(0, &plan, &mut watcher).unwrap_err().to_string();
        assert!(error.contains("train.ema_decay"), "{error}");
    }

    #[test]
    fn resuming_before_the_first_checkpoint_begins_again() {
        let (run, whole) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(run.path().join(METRICS_FILE), "a torn line").unwrap();
        let plan = TrainPlan { resume: true, ..plan(run.path(), sgd()) };
        go(0, &plan, &mut Watcher::default()).unwrap();
        go(0, &TrainPlan { run: whole.path().to_owned(), ..plan }, &mut Watcher::default()).unwrap();
        assert_eq!(lines(run.path()), lines(whole.path()));
    }

    #[test]
    fn epochs_end_with_scores_and_a_checkpoint_and_a_finished_run_stays_finished() {
        let run = tempfile::tempdir().unwrap();
        let mut plan = plan(run.path(), sgd());
        plan.settings.max_steps = None;
        plan.settings.report_every_steps = 4;
        let mut watcher = Watcher { scored: true, ..Watcher::default() };
        go(0, &plan, &mut watcher).unwrap();
        assert_eq!(watcher.epochs, [0, 1, 2]);
        let read = || std::fs::read_to_string(run.path().join(METRICS_FILE)).unwrap();
        let text = read();
        assert_eq!(text.lines().filter(|line| line.contains("knn_accuracy")).count(), 3);
        // Every fourth of 24, and the first.
        assert_eq!(text.lines().filter(|line| line.contains("batch_digest")).count(), 7);
        let (progress, _) = saved(run.path());
        assert_eq!((progress.step, progress.epoch, progress.batches_consumed), (24, 3, 0));
        assert_eq!((progress.samples, progress.bad_items), (24 * ITEMS as u64, 2));
        plan.resume = true;
        let again = go(0, &plan, &mut watcher).unwrap();
        assert_eq!((again.progress.step, again.last_loss), (24, None));
        assert_eq!(read(), text);
    }

    #[test]
    fn a_run_shorter_than_its_report_interval_reports_its_first_and_last_step() {
        let run = tempfile::tempdir().unwrap();
        let mut plan = plan(run.path(), sgd());
        (plan.settings.max_steps, plan.settings.report_every_steps) = (Some(5), 10);
        go(0, &plan, &mut Watcher::default()).unwrap();
        assert_eq!(lines(run.path()).iter().map(|line| line.step).collect::<Vec<_>>(), [1, 5]);
    }

    #[test]
    fn what_a_checkpoint_names_and_cannot_be_written_stops_the_run_before_it() {
        let run = tempfile::tempdir().unwrap();
        let mut plan = plan(run.path(), sgd());
        plan.settings.checkpoint_every_steps = Some(2);
        let error = go(0, &plan, &mut Watcher { full_disk_at: Some(6), ..Watcher::default() }).unwrap_err();
        assert!(error.to_string().contains("is the disk full?"), "{error}");
        assert_eq!(saved(run.path()).0.step, 4);
    }

    #[test]
    fn an_epochs_end_scores_the_weights_that_an_evaluation_of_its_checkpoint_scores() {
        let run = tempfile::tempdir().unwrap();
        let mut plan = plan(run.path(), sgd());
        plan.settings.max_steps = Some(PER_EPOCH);
        let mut watcher = Watcher::default();
        go(0, &plan, &mut watcher).unwrap();
        let (_, tensors) = saved(run.path());
        assert_eq!(watcher.scored_weights, [tensors.ema.unwrap()]);
        assert_ne!(watcher.scored_weights, [tensors.weights]);
    }

    #[test]
    fn max_steps_at_an_epochs_end_still_ends_the_epoch() {
        let run = tempfile::tempdir().unwrap();
        let mut plan = plan(run.path(), sgd());
        plan.settings.max_steps = Some(PER_EPOCH);
        let mut watcher = Watcher::default();
        let report = go(0, &plan, &mut watcher).unwrap();
        assert_eq!((report.progress.step, report.progress.epoch, watcher.epochs), (8, 1, vec![0]));
    }
}
