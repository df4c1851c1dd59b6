//! `diptych train PIPELINE --run DIR` and `diptych train --resume DIR`
use std::{collections::BTreeMap, path::Path};

use super::{
    Named, choose,
    data::Data,
    evaluate::KnnWatch,
    folder::RunFolder,
    memory,
    methods::PlannedMethod,
    output, preview,
    progress::{self, Progress},
    source::EpochSource,
};
use crate::{
    device,
    error::{Error, Result, Stage},
    method::Method,
    pipeline::Plan,
    scan::{
        epoch::EpochPlan,
        mixture::Mixture,
        order::ORDER_VERSION,
        quarantine::{Quarantine, QuarantineState},
    },
    select::{shards::hex, sorted::sorted_by_low_cardinality},
    train::{
        Observer, TrainPlan, TrainReport, checkpoint, identity::Identity, metrics::MetricsLine,
        progress::Progress as TrainProgress, report::write_report, schedule::Schedule, stop::StopSignal, train,
    },
};

/// Pairs on a run's `views.png`.
const PAIRS_SHOWN: usize = 24;

/// Begins a run.
///
/// # Errors
/// Mistakes of the pipeline, a folder in use, and whatever stops the run.
pub fn start(named: &Named, run: &Path) -> Result<()> {
    memory::keep_freed_blocks();
    let plan = named.plan()?.with_absolute_shards()?;
    let folder = RunFolder::create(run)?;
    let begun = begin(&folder, &plan);
    if begun.is_err() {
        folder.remove_if_new_and_empty();
    }
    begun
}

fn begin(folder: &RunFolder, plan: &Plan) -> Result<()> {
    let _lock = folder.lock()?;
    let data = Data::open(plan)?;
    let choice = choose::choose(&data, plan)?;
    choice.log(plan.pipeline.scan.lanes);
    let selection = choice.mixture;
    for warning in sorted_by_low_cardinality(&data.shards, &data.schema) {
        progress::log(&format!("warning: {warning}"));
    }
    let epochs = data.training(plan, selection.clone(), None)?;
    if epochs.batches_per_epoch() == 0 {
        let reason = format!(
            "{} items fill no batch of {}; lower prefetch.batch_rows or select more",
            epochs.items(),
            epochs.batch_rows
        );
        return Err(Error::at(Stage::Train, "prefetch.batch_rows", reason));
    }
    choose::save(folder, &selection)?;
    folder.save_plan(plan)?;
    if let Err(error) = preview::draw(&data, plan, &epochs, &folder.file("views.png"), PAIRS_SHOWN) {
        progress::log(&format!("warning: no picture of the views: {}", error.report()));
    }
    go(folder, plan, &data, selection, &Resume::default())
}

/// Goes on with a run from its newest checkpoint.
///
/// # Errors
/// There is no such run, changes that `accept` does not name, and whatever stops the run.
pub fn resume(run: &Path, sets: &[String], accept: &[String]) -> Result<()> {
    memory::keep_freed_blocks();
    Identity::check_names(accept)?;
    let (folder, plan) = RunFolder::open(run, sets)?;
    let plan = plan.with_absolute_shards()?;
    let _lock = folder.lock()?;
    let data = Data::open(&plan)?;
    let selection = choose::load(&folder, &data, &plan)?;
    let newest = checkpoint::latest(folder.path())?.map(|(newest, _)| newest.state);
    if let Some(state) = &newest {
        // Before anything in the folder changes.
        identity(&plan, &data.training(&plan, selection.clone(), None)?).check(&state.identity, accept)?;
    }
    let quarantine = newest.map_or_else(QuarantineState::default, |state| kept(&state.progress));
    let accept = accept.to_vec();
    go(&folder, &plan, &data, selection, &Resume { resumes: true, accept, quarantine })
}

/// The part of the quarantine that belongs to a checkpoint.
fn kept(progress: &TrainProgress) -> QuarantineState {
    let TrainProgress { quarantine_offset, samples, bad_items, .. } = progress;
    QuarantineState { rows: *quarantine_offset, items: *samples, bad: *bad_items }
}

#[derive(Debug, Default)]
struct Resume {
    resumes: bool,
    accept: Vec<String>,
    quarantine: QuarantineState,
}

fn go(folder: &RunFolder, plan: &Plan, data: &Data, selection: Mixture, resume: &Resume) -> Result<()> {
    let device = device::parse(&plan.pipeline.device)?.autodiff();
    let quarantine = Quarantine::open(&folder.file("quarantine"), resume.quarantine)?;
    let epochs = data.training(plan, selection, Some(quarantine.clone()))?;
    if epochs.items_dropped() > 0 {
        progress::log(&format!("{} items at each epoch's end fill no batch and are dropped", epochs.items_dropped()));
    }
    let train_plan = TrainPlan {
        settings: plan.pipeline.train.clone(),
        run: folder.path().to_owned(),
        batches_per_epoch: epochs.batches_per_epoch(),
        identity: identity(plan, &epochs),
        device: device.clone(),
        device_name: plan.pipeline.device.clone(),
        resume: resume.resumes,
        accept_changes: resume.accept.clone(),
    };
    let mut watch = Watch {
        folder,
        plan,
        bar: Progress::new("train", train_plan.steps(), "steps"),
        stop: StopSignal::listen(progress::log)?,
        quarantine: quarantine.clone(),
        kept: resume.quarantine,
        news: String::new(),
        knn: KnnWatch::new(plan, data)?,
    };
    data.forget_model();
    let trained = PlannedMethod::new(plan, &device).and_then(|method| {
        let source =
            |epoch, first_batch| EpochSource::new(data, plan, &epochs, &quarantine, &device, epoch, first_batch);
        train(method, source, &train_plan, &mut watch)
    });
    watch.bar.finish();
    let closed = match &trained {
        // The table ends where the trainer did: batches that only waited in the queue are no part of the run.
        Ok(_) | Err(Error::Interrupted { .. }) => quarantine.close_at(watch.kept),
        // Of a run that failed everything is kept that may tell why.
        Err(_) => quarantine.flush().map(drop),
    };
    conclude(folder, &quarantine, plan.pipeline.scan.max_bad_share, trained, closed)
}

/// What decides which batches a run sees.
fn identity(plan: &Plan, epochs: &EpochPlan) -> Identity {
    let scan = &epochs.scan;
    Identity {
        selection_digest: hex(&epochs.selection.digest()),
        order: format!(
            "v{ORDER_VERSION}, {} lanes, windows of {} rows or {} MB",
            scan.lanes, scan.shuffle_window_rows, scan.shuffle_window_megabytes
        ),
        seed: plan.pipeline.seed,
        batch_rows: epochs.batch_rows,
        // Which of the files' columns holds the images decides what a view is of.
        recipe: match scan.columns.is_empty() {
            true => epochs.kernel.describe(),
            false => format!("{}, columns {}", epochs.kernel.describe(), in_words(&scan.columns)),
        },
        method: in_words(&plan.pipeline.method),
        optimizer: in_words(&plan.pipeline.train.optimizer),
    }
}

fn in_words(settings: &impl serde::Serialize) -> String {
    // Settings are plain data, which JSON always holds.
    serde_json::to_string(settings).unwrap_or_default()
}

fn conclude<M>(
    folder: &RunFolder,
    quarantine: &Quarantine,
    max_bad_share: f64,
    trained: Result<TrainReport<M>>,
    closed: Result<()>,
) -> Result<()> {
    let named = folder.path().display().to_string();
    // A run that ended early has a report too; why it ended matters more than a report that could not be written.
    let report = write_report(folder.path());
    if let (Err(_), Err(error)) = (&trained, &closed) {
        progress::log(&format!("warning: {}", error.report()));
    }
    // Why training failed goes before what failed after it.
    match trained.and_then(|trained| closed.map(|()| trained)) {
        Ok(trained) => {
            let bad = quarantine.state().rows;
            if bad > 0 {
                progress::log(&format!("{bad} bad rows were replaced, listed in {named}/quarantine"));
            }
            quarantine.judge(max_bad_share)?;
            let done = match trained.last_loss {
                Some(loss) => format!("last loss {loss:.4}"),
                None => "nothing is left to do; raise train.epochs or train.max_steps with --set to go on".to_owned(),
            };
            let TrainProgress { step, samples, .. } = trained.progress;
            output::line(&format!("{named}: {step} steps, {samples} samples, {done}; see {}", report?.display()))
        }
        Err(error @ Error::Interrupted { .. }) => {
            progress::log(&format!("go on with: diptych train --resume {named}"));
            Err(error)
        }
        Err(error) => Err(error),
    }
}

struct Watch<'a> {
    folder: &'a RunFolder,
    plan: &'a Plan,
    bar: Progress,
    stop: StopSignal,
    quarantine: Quarantine,
    /// As of the newest checkpoint.
    kept: QuarantineState,
    news: String,
    knn: Option<KnnWatch<'a>>,
}

impl<M: Method> Observer<M> for Watch<'_> {
    fn started(&mut self, schedule: &Schedule, progress: &TrainProgress) {
        self.bar.say(&schedule.to_string());
        if progress.step > 0 {
            self.bar.say(&format!("goes on after step {}", progress.step));
        }
        // Settings that a resume changed were accepted by now.
        if let Err(error) = self.folder.save_plan(self.plan) {
            self.bar.say(&format!("warning: {}", error.report()));
        }
    }

    fn step(&mut self, step: u64) {
        self.bar.at(step, &self.news);
    }

    fn report(&mut self, line: &MetricsLine) {
        self.news = format!(
            "epoch {} of {} loss {:.4} {:.0} samples/s, waits for data {:.0} %",
            line.epoch + 1,
            self.plan.pipeline.train.epochs,
            line.loss,
            line.samples_per_second,
            100.0 * line.data_wait_share
        );
    }

    /// A checkpoint names rows of the table.
    fn before_checkpoint(&mut self, progress: &TrainProgress) -> Result<()> {
        self.quarantine.flush()?;
        self.kept = kept(progress);
        Ok(())
    }

    fn checkpoint(&mut self, step: u64, folder: &Path) {
        self.bar.say_now_and_then(&format!("checkpoint at step {step}: {}", folder.display()));
    }

    fn epoch_end(&mut self, epoch: u64, method: &M) -> Result<BTreeMap<String, f64>> {
        let Some(knn) = self.knn.as_ref().filter(|knn| knn.is_due(epoch)) else { return Ok(BTreeMap::new()) };
        let accuracy = knn.accuracy(method)?;
        self.bar.say(&format!(
            "after epoch {} of {}: kNN accuracy {accuracy:.4}",
            epoch + 1,
            self.plan.pipeline.train.epochs
        ));
        Ok(BTreeMap::from([("knn_accuracy".to_owned(), accuracy)]))
    }

    fn warn(&mut self, text: &str) {
        self.bar.say(&format!("warning: {text}"));
    }

    fn stop_signal(&mut self) -> Option<i32> {
        self.stop.received()
    }
}
