//! What a run leaves behind while it goes on: metrics, warnings, checkpoints. Every device sync of the loop is in here.
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use burn::tensor::Tensor;

use super::checkpoint::{self, CheckpointState, CheckpointTensors};
use super::collapse::{measure, rank_is_cheap};
use super::ema::Ema;
use super::identity::Origin;
use super::metrics::{MetricsFile, MetricsLine, ScoresLine};
use super::optimizer::Optimizer;
use super::progress::Progress;
use super::state::{collect, first_non_finite};
use super::{Observer, TrainPlan};
use crate::batch::Batch;
use crate::error::{Context, Error, Result, Stage};
use crate::method::{Method, MethodOutput};

/// Reports between two effective ranks where one costs more than the rest of a report together.
const RANK_EVERY_REPORTS: u64 = 10;

/// A step whose loss has not been read from the device yet.
#[derive(Debug)]
struct Unread {
    step: u64,
    loss: Tensor<1>,
    digest: String,
    sample_ids: Vec<u64>,
}

/// Writes for one run.
#[derive(Debug)]
pub(super) struct Recorder<'a> {
    plan: &'a TrainPlan,
    metrics: MetricsFile,
    origin: Origin,
    unread: Vec<Unread>,
    last_loss: Option<f64>,
    last_ids: Vec<u64>,
    checkpoint_step: Option<u64>,
    since: Instant,
    samples_before: u64,
    waited: Duration,
    data_waited_before: Duration,
}

/// What a report says of the optimizer's side of a step.
#[derive(Debug)]
pub(super) struct StepFacts {
    pub(super) rate: f64,
    pub(super) gradient_norm: Option<Tensor<1>>,
    /// Time since the source began in which data waited for the trainer.
    pub(super) data_waited: Duration,
}

impl<'a> Recorder<'a> {
    pub(super) fn new(plan: &'a TrainPlan, metrics: MetricsFile, origin: Origin, progress: &Progress) -> Self {
        Self {
            plan,
            metrics,
            origin,
            unread: Vec::new(),
            last_loss: None,
            last_ids: Vec::new(),
            checkpoint_step: None,
            since: Instant::now(),
            samples_before: progress.samples,
            waited: Duration::ZERO,
            data_waited_before: Duration::ZERO,
        }
    }

    /// Counts the time that `fetch` takes as waiting for data.
    pub(super) fn waiting<T>(&mut self, fetch: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let fetched = fetch();
        self.waited += start.elapsed();
        fetched
    }

    /// Leaves the time that `work` takes out of the rates.
    pub(super) fn aside<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let start = Instant::now();
        let done = work(self);
        self.since += start.elapsed();
        done
    }

    /// A new source counts its waits from zero.
    pub(super) fn source_began(&mut self) {
        self.data_waited_before = Duration::ZERO;
    }

    /// Keeps a step's loss, on the device, and who was in its batch.
    pub(super) fn remember(&mut self, step: u64, loss: &Tensor<1>, batch: &Batch) {
        let (digest, sample_ids) = (batch.digest.clone(), batch.sample_ids.clone());
        self.unread.push(Unread { step, loss: loss.clone().inner().detach().reshape([1]), digest, sample_ids });
    }

    /// Device sync: reads the losses since the last read at once; the newest comes back.
    ///
    /// Reading at reports and before checkpoints only keeps a GPU busy, and still the step that broke is known: its
    /// batch is kept until its loss has been read, and no checkpoint is written over a loss that nobody looked at.
    fn read_losses(&mut self) -> Result<Option<f64>> {
        let unread = std::mem::take(&mut self.unread);
        if unread.is_empty() {
            return Ok(self.last_loss);
        }
        let data = Tensor::cat(unread.iter().map(|u| u.loss.clone()).collect(), 0).into_data(); // [unread]
        let losses = data.as_slice::<f32>().context(Stage::Train, "loss", "cannot read it")?;
        for (unread, loss) in unread.into_iter().zip(losses) {
            if !loss.is_finite() {
                let Unread { step, digest, sample_ids, .. } = unread;
                let place = format!("step {step}, batch {digest}");
                let reason = format!(
                    "the loss is {loss}; lower the learning rate, clip gradients, or look at the batch; its sample ids: \
                     {sample_ids:?}"
                );
                return Err(Error::at(Stage::Train, place, reason));
            }
            self.last_loss = Some(f64::from(*loss));
            self.last_ids = unread.sample_ids;
        }
        Ok(self.last_loss)
    }

    /// Device sync: loss, gradient norm, embeddings and readings of the step just taken, as a line of the metrics.
    pub(super) fn report<M>(
        &mut self,
        progress: &mut Progress,
        output: &MethodOutput,
        batch: &Batch,
        facts: &StepFacts,
        observer: &mut dyn Observer<M>,
    ) -> Result<()> {
        let Some(loss) = self.read_losses()? else { return Err(Error::internal("a report before any step")) };
        let gradient_norm = match &facts.gradient_norm {
            None => 0.0,
            Some(norm) => {
                let norm = norm.clone().try_into_scalar::<f32>();
                f64::from(norm.context(Stage::Train, "gradients", "cannot read their norm")?)
            }
        };
        let reports = progress.step / self.plan.settings.report_every_steps.max(1);
        let [items, width] = output.embeddings[0].dims();
        let with_rank = rank_is_cheap(items, width) || reports % RANK_EVERY_REPORTS == 1 || progress.step == 1;
        let embeddings = measure(&output.embeddings, with_rank)?;
        for warning in progress.collapse.look(progress.step, loss, output.no_signal_loss, width, &embeddings) {
            observer.warn(&warning);
        }
        let readings = output.readings.iter().map(|r| Ok((r.name.to_owned(), r.values.clone().read()?)));
        let readings = readings.collect::<Result<BTreeMap<String, Vec<f64>>>>()?;
        let seconds = self.since.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);
        let data_waited = facts.data_waited.saturating_sub(self.data_waited_before);
        let line = MetricsLine {
            step: progress.step,
            epoch: progress.epoch,
            samples: progress.samples,
            loss,
            learning_rate: facts.rate,
            samples_per_second: (progress.samples - self.samples_before) as f64 / seconds,
            data_wait_share: (self.waited.as_secs_f64() / seconds).min(1.0),
            trainer_waited_seconds: self.waited.as_secs_f64(),
            data_waited_seconds: data_waited.as_secs_f64(),
            batch_digest: batch.digest.clone(),
            gradient_norm,
            bad_items: progress.bad_items,
            embeddings,
            method: readings,
        };
        (self.since, self.samples_before) = (Instant::now(), progress.samples);
        (self.waited, self.data_waited_before) = (Duration::ZERO, facts.data_waited);
        self.metrics.append(&line)?;
        observer.report(&line);
        Ok(())
    }

    /// Writes down the scores of an epoch's end, where there are any.
    pub(super) fn scores(&mut self, progress: &Progress, scores: BTreeMap<String, f64>) -> Result<()> {
        if scores.is_empty() {
            return Ok(());
        }
        self.metrics.append(&ScoresLine { step: progress.step, epoch: progress.epoch, scores })
    }

    /// Device sync: everything on the device, unless this step's checkpoint is there already.
    pub(super) fn checkpoint<M: Method>(
        &mut self,
        progress: &Progress,
        method: &M,
        optimizer: &Optimizer,
        ema: Option<&Ema>,
        observer: &mut dyn Observer<M>,
    ) -> Result<()> {
        // Writing it again would take the valid one away for a moment; resuming repeats what followed it.
        if self.checkpoint_step == Some(progress.step) {
            return Ok(());
        }
        self.read_losses()?;
        observer.before_checkpoint(progress)?;
        let weights = collect(method);
        if let Some(name) = first_non_finite(&weights) {
            let reason = format!(
                "{name} is no longer finite, so no checkpoint is written; lower the learning rate or clip gradients; \
                 sample ids of the last batch: {:?}",
                self.last_ids
            );
            return Err(Error::at(Stage::Train, format!("step {}", progress.step), reason));
        }
        let tensors =
            CheckpointTensors { weights, optimizer: optimizer.state(), ema: ema.map(|ema| ema.state(method)) };
        let bytes = self.metrics.sync()?;
        let state = CheckpointState::new(progress.clone(), bytes, self.plan.identity.clone(), self.origin.clone());
        let folder = checkpoint::write(&self.plan.run, state, &tensors, self.plan.settings.keep_checkpoints)?;
        self.checkpoint_step = Some(progress.step);
        observer.checkpoint(progress.step, &folder);
        Ok(())
    }

    pub(super) fn last_loss(&self) -> Option<f64> {
        self.last_loss
    }
}
