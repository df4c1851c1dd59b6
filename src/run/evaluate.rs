//! `diptych evaluate RUN`, and kNN while training.
use std::path::Path;

use super::{
    data::Data,
    extract::{Extracted, extract},
    folder::RunFolder,
    methods, output, progress,
};
use crate::{
    device,
    error::{Error, Result, Stage},
    evaluate::{
        EvaluateSettings,
        features::{Classes, Features},
        knn::{UnitRows, nearest},
        protocol::{Evaluation, Role},
        raw_pixels::keep_one_of_equal_channels,
    },
    method::Method,
    pipeline::Plan,
    scan::epoch::EpochPlan,
    train::{checkpoint, report::write_report, state::restore},
};

/// Channels of an image.
const CHANNELS: usize = 3;

/// Samples with known labels, and those to classify.
#[derive(Debug)]
struct Sides {
    bank: EpochPlan,
    queries: EpochPlan,
}

impl Sides {
    fn new(plan: &Plan, data: &Data, settings: &EvaluateSettings) -> Result<Self> {
        let side = |key: &str, sql: &str| {
            let (selection, _) = data.select_some(key, sql)?;
            data.evaluation(plan, selection, &settings.label)
        };
        Ok(Self {
            bank: side("evaluate.bank_sql", &settings.bank_sql)?,
            queries: side("evaluate.query_sql", &settings.query_sql)?,
        })
    }
}

/// Scores the run's newest checkpoint beside its floors, prints and saves the scores.
///
/// # Errors
/// There is no such run or checkpoint, the pipeline evaluates nothing, and the data's.
pub fn run(run: &Path, sets: &[String], json: bool) -> Result<()> {
    let (folder, plan) = RunFolder::open(run, sets)?;
    let named = run.display().to_string();
    let Some(settings) = plan.pipeline.evaluate.clone() else {
        let reason = "the run's pipeline has no [evaluate]; give --set 'evaluate={bank_sql=\"…\",query_sql=\"…\"}'";
        return Err(Error::at(Stage::CommandLine, named, reason));
    };
    let Some((newest, damaged)) = checkpoint::latest(folder.path())? else {
        let reason = format!("there is no checkpoint yet; go on with diptych train --resume {named}");
        return Err(Error::at(Stage::Evaluate, named, reason));
    };
    damaged.iter().for_each(|damage| progress::log(&format!("warning: {damage}")));

    let data = Data::open(&plan)?;
    let sides = Sides::new(&plan, &data, &settings)?;
    let device = device::parse(&plan.pipeline.device)?;
    let untrained = methods::simclr(&plan, &device)?;
    let weights = newest.tensors.ema.as_ref().unwrap_or(&newest.tensors.weights);
    let trained = restore(untrained.clone(), weights)?;
    let averaged = if newest.tensors.ema.is_some() { ", averaged weights" } else { "" };
    progress::log(&format!("checkpoint {}{averaged}", newest.folder.display()));

    let encoders = [&trained, &untrained];
    let Extracted { features: bank, pixels: mut bank_pixels } =
        extract("bank", &plan, &data, &sides.bank, &settings.label, &encoders, &device)?;
    let Extracted { features: queries, pixels: mut query_pixels } =
        extract("queries", &plan, &data, &sides.queries, &settings.label, &encoders, &device)?;
    keep_one_of_equal_channels(&mut bank_pixels, &mut query_pixels, CHANNELS);

    let mut evaluation = Evaluation::new(&settings, sides.bank.kernel.describe(), plan.pipeline.seed)?;
    progress::log("classifying");
    evaluation.add(Role::Encoder, "encoder", &bank[0], &queries[0])?;
    evaluation.add(Role::Untrained, "untrained", &bank[1], &queries[1])?;
    evaluation.add(Role::Floor, "raw_pixels", &bank_pixels, &query_pixels)?;
    let scores = evaluation.scores()?;
    let line = scores.to_json_line().map_err(|error| Error::internal("scores are no JSON").caused_by(error))?;
    folder.write("scores.json", format!("{line}\n").as_bytes())?;
    let report = write_report(folder.path())?;
    output::line(&scores.to_string())?;
    output::line(&format!("see {}", report.display()))?;
    if json { output::line(&line) } else { Ok(()) }
}

/// kNN every so many epochs of a training run, with the pipeline's one k.
#[derive(Debug)]
pub struct KnnWatch<'a> {
    plan: &'a Plan,
    data: &'a Data,
    settings: EvaluateSettings,
    sides: Sides,
}

impl<'a> KnnWatch<'a> {
    /// `None` where the pipeline asks for none.
    ///
    /// # Errors
    /// The queries'.
    pub fn new(plan: &'a Plan, data: &'a Data) -> Result<Option<Self>> {
        let settings = plan.pipeline.evaluate.clone().filter(|settings| settings.knn_every_epochs > 0);
        settings.map(|settings| Ok(Self { plan, data, sides: Sides::new(plan, data, &settings)?, settings })).transpose()
    }

    /// Whether the epoch, from 0, is one after which to score.
    pub fn is_due(&self, epoch: u64) -> bool {
        (epoch + 1).is_multiple_of(self.settings.knn_every_epochs)
    }

    /// Share of queries that the method's features classify correctly.
    ///
    /// # Errors
    /// The data's, or features that are not finite.
    pub fn accuracy<M: Method>(&self, method: &M) -> Result<f64> {
        let device = device::parse(&self.plan.pipeline.device)?;
        let side = |name, epochs| {
            let extracted = extract(name, self.plan, self.data, epochs, &self.settings.label, &[method], &device)?;
            let features: Option<Features> = extracted.features.into_iter().next();
            let features = features.ok_or_else(|| Error::internal("one method gives no features"))?;
            features.check(name).map(|()| features)
        };
        let (bank, queries) = (side("bank", &self.sides.bank)?, side("queries", &self.sides.queries)?);
        let classes = Classes::of(&bank.labels);
        let (known, wanted) = (classes.numbers(&bank.labels), classes.numbers(&queries.labels));
        let knn = &self.settings.knn;
        let neighbours = nearest(&UnitRows::of(&queries), &UnitRows::of(&bank), knn.neighbours)?;
        let found = neighbours.vote(&known, classes.count(), knn.neighbours, knn.temperature);
        let correct = found.iter().zip(&wanted).filter(|(found, wanted)| found == wanted).count();
        Ok(correct as f64 / wanted.len().max(1) as f64)
    }
}
