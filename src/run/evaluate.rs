//! `diptych evaluate RUN`, and kNN while training.
use std::path::Path;

use burn::tensor::Device;

use super::{
    clip_evaluation, clip_model,
    data::Data,
    folder::RunFolder,
    methods::PlannedMethod,
    output,
    progress::{self, Progress},
    token_counts::token_counts,
};
use crate::{
    batch::Batch,
    device,
    error::{Context as _, Error, Result, Stage},
    evaluate::{
        EvaluateSettings,
        abx::Triples,
        extract::{Extracted, Represent, encoded, extract, mfcc, raw},
        features::Classes,
        knn::{UnitRows, nearest},
        matches::Matches,
        mfcc_statistics::Mfcc,
        protocol::{Evaluation, Role},
        raw_pixels::keep_one_of_equal_channels,
        scores::{Scores, Selected},
    },
    method::Method,
    pair::PairSettings,
    pipeline::Plan,
    scan::epoch::EpochPlan,
    select::shards::hex,
    train::{
        report::{MATCHES_FILE, write_report},
        state::restore,
    },
};

/// Channels of an image.
const CHANNELS: usize = 3;

#[derive(Debug, Clone, Copy)]
enum Side {
    /// Samples with known labels.
    Bank,
    /// Samples to classify.
    Queries,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Bank => "bank",
            Self::Queries => "queries",
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::Bank => "evaluate.bank_sql",
            Self::Queries => "evaluate.query_sql",
        }
    }
}

#[derive(Debug)]
struct Sides {
    bank: EpochPlan,
    queries: EpochPlan,
}

impl Sides {
    fn new(plan: &Plan, data: &Data, settings: &EvaluateSettings) -> Result<Self> {
        let side = |side: Side, sql: &str| {
            let (selection, report) = data.select(sql)?;
            if selection.items() == 0 {
                return Err(nothing_to_evaluate(side, report.of));
            }
            data.evaluation(plan, selection, settings.columns())
        };
        Ok(Self { bank: side(Side::Bank, &settings.bank_sql)?, queries: side(Side::Queries, &settings.query_sql)? })
    }

    fn of(&self, side: Side) -> &EpochPlan {
        match side {
            Side::Bank => &self.bank,
            Side::Queries => &self.queries,
        }
    }

    /// What a side selected, of which `seen` samples came through.
    fn selected(&self, side: Side, seen: usize) -> Selected {
        let selection = &self.of(side).selection;
        let items = selection.only().map_or(0, |selection| selection.items());
        Selected { digest: hex(&selection.digest()), items, left_out: items.saturating_sub(seen as u64) }
    }

    /// One pass over a side's samples for all representations.
    fn features(
        &self,
        side: Side,
        plan: &Plan,
        data: &Data,
        representations: &[Represent<'_>],
        device: &Device,
    ) -> Result<Extracted> {
        let epochs = self.of(side);
        // The extra columns of an evaluation's plan.
        let labels = epochs.extra_columns.as_slice();
        let mut bar = Progress::new(side.name(), epochs.items(), "samples");
        let mut queue = data.queue(plan, epochs, 0, 0)?;
        let (mut seen, rows_per_item) = (0, epochs.kernel.rows_per_item().max(1));
        let next_batch = || {
            let Some(batch) = queue.next_batch()? else { return Ok(None) };
            seen += (batch.num_rows() / rows_per_item) as u64;
            bar.at(seen, "");
            Batch::from_record_batch(&batch, device, &data.shards.shards, labels).map(Some)
        };
        let features = extract(next_batch, representations, side.key(), labels);
        bar.finish();
        let came = features.as_ref().map_or(epochs.items(), |found| found.features[0].rows() as u64);
        if came < epochs.items() {
            let (left_out, name) = (epochs.items() - came, side.name());
            progress::log(&format!("warning: {left_out} of {} {name} cannot be used and are left out", epochs.items()));
        }
        features
    }
}

/// The floor of audio, where the pairing says that series are audio of one channel.
fn audio(pair: &PairSettings) -> Option<Mfcc> {
    match pair {
        PairSettings::ContextFuture(pair) if pair.channels == 1 => pair.rate_hz.and_then(Mfcc::new),
        _ => None,
    }
}

/// A query that keeps no sample, with words that make two sides of any shards.
fn nothing_to_evaluate(side: Side, of: u64) -> Error {
    let half = |side: Side, share: &str| {
        format!("--set \"{}=SELECT sample_id FROM shards WHERE sample_uniform(sample_id, 7) {share}\"", side.key())
    };
    let reason = format!(
        "the query keeps none of {of} rows; where the shards have no such split, divide them by\n  {} {}",
        half(Side::Bank, "< 0.8"),
        half(Side::Queries, ">= 0.8")
    );
    Error::at(Stage::Evaluate, side.key(), reason)
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
    let newest = clip_model::newest(&folder)?;
    folder.check_writable()?;

    let data = Data::open(&plan)?;
    let device = device::parse(&plan.pipeline.device)?;
    let untrained = PlannedMethod::new(&plan, &device)?;
    let weights = newest.tensors.ema.as_ref().unwrap_or(&newest.tensors.weights);
    let trained = restore(untrained.clone(), weights)?;
    let averaged = if newest.tensors.ema.is_some() { ", averaged weights" } else { "" };
    progress::log(&format!("checkpoint {}{averaged}", newest.folder.display()));
    // Opened first: a method without a text tower is told before minutes of classification are spent.
    let embedders = match settings.zero_shot.is_some() || settings.retrieval.is_some() {
        true => {
            let of = |method| clip_model::of_method(&plan, method, &device);
            Some((of(&trained)?, of(&untrained)?))
        }
        false => None,
    };
    let mut scores = match settings.classifies() {
        true => classified(&plan, &data, &settings, [&trained, &untrained], &device)?,
        false => Scores { seed: plan.pipeline.seed, ..Scores::default() },
    };
    let mut matches = None;
    if let Some((trained, untrained)) = &embedders {
        matches = clip_evaluation::add(&mut scores, &settings, &data, trained, Some(untrained))?;
    }
    let line = scores.to_json_line().map_err(|error| Error::internal("scores are no JSON").caused_by(error))?;
    // Computed for long, so shown whatever becomes of the files.
    output::line(&scores.to_string())?;
    let written = folder
        .write("scores.json", format!("{line}\n").as_bytes())
        .and_then(|()| match &matches {
            Some(matches) => save_matches(&folder, matches),
            None => forget_matches(&folder),
        })
        .and_then(|()| write_report(folder.path()));
    if let Ok(report) = &written {
        output::line(&format!("see {}", report.display()))?;
    }
    if json {
        output::line(&line)?;
    }
    written.map(drop)
}

fn save_matches(folder: &RunFolder, matches: &Matches) -> Result<()> {
    let json = serde_json::to_vec(matches).map_err(|error| Error::internal("matches are no JSON").caused_by(error))?;
    folder.write(MATCHES_FILE, &json)
}

/// Pictures of an earlier evaluation would stand in the report beside scores that they do not belong to.
fn forget_matches(folder: &RunFolder) -> Result<()> {
    let path = folder.path().join(MATCHES_FILE);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context(Stage::Output, path.display().to_string(), "cannot be removed")
        }
        _ => Ok(()),
    }
}

/// Features classified by kNN and a linear probe, of the trained method beside its floors.
fn classified(
    plan: &Plan,
    data: &Data,
    settings: &EvaluateSettings,
    [trained, untrained]: [&PlannedMethod; 2],
    device: &Device,
) -> Result<Scores> {
    let sides = Sides::new(plan, data, settings)?;
    let by_encoder = |batch: &Batch| encoded(trained, batch);
    let by_untrained = |batch: &Batch| encoded(untrained, batch);
    let audio = audio(&plan.pipeline.pair);
    let is_text = matches!(plan.pipeline.pair, PairSettings::Sentences(_));
    let by_floor = |batch: &Batch| match &audio {
        Some(audio) => mfcc(audio, batch),
        None if is_text => token_counts(batch),
        None => raw(batch),
    };
    let all: [Represent<'_>; 3] = [&by_encoder, &by_untrained, &by_floor];
    let mut bank = sides.features(Side::Bank, plan, data, &all, device)?;
    let mut queries = sides.features(Side::Queries, plan, data, &all, device)?;
    let floor = match &plan.pipeline.pair {
        PairSettings::TwoViews(_) | PairSettings::OneView(_) | PairSettings::ImageText(_) => {
            keep_one_of_equal_channels(&mut bank.features[2], &mut queries.features[2], CHANNELS);
            "raw_pixels"
        }
        PairSettings::Sentences(_) => "token_counts",
        PairSettings::ContextFuture(_) | PairSettings::PastFuture(_) if audio.is_some() => "mfcc_statistics",
        PairSettings::ContextFuture(_) | PairSettings::PastFuture(_) => "raw_series",
    };

    let recipe = format!("{}; features: {}", sides.bank.kernel.describe(), trained.features_in_words());
    progress::log("classifying");
    let seen = [&bank, &queries].map(|side| side.features[0].rows());
    let groups = settings.abx_group.as_ref().map(|group| (group, queries.column(&settings.columns(), group)));
    let mut scores: Option<Scores> = None;
    for (at, label) in settings.labels().into_iter().enumerate() {
        if at > 0 {
            bank.labelled(at - 1);
            queries.labelled(at - 1);
        }
        let of_label = EvaluateSettings { label: label.clone(), ..settings.clone() };
        let mut evaluation = Evaluation::new(&of_label, recipe.as_str(), plan.pipeline.seed)?;
        evaluation.add(Role::Encoder, "encoder", &bank.features[0], &queries.features[0])?;
        evaluation.add(Role::Untrained, "untrained", &bank.features[1], &queries.features[1])?;
        evaluation.add(Role::Floor, floor, &bank.features[2], &queries.features[2])?;
        let mut found = evaluation.scores()?;
        if let Some((group, groups)) = groups.as_ref().filter(|(group, _)| **group != label) {
            let triples = Triples::draw(&queries.features[0].labels, groups, plan.pipeline.seed)?;
            let [encoder, untrained, floor] = [0, 1, 2].map(|at| triples.answer(&queries.features[at]));
            found.abx.insert(label, triples.scores(group, &[encoder?, untrained?, floor?])?);
        }
        match &mut scores {
            Some(scores) => scores.extend(found),
            None => scores = Some(found),
        }
    }
    let mut scores = scores.ok_or_else(|| Error::internal("an evaluation by no label"))?;
    scores.bank = Some(sides.selected(Side::Bank, seen[0]));
    scores.queries = Some(sides.selected(Side::Queries, seen[1]));
    Ok(scores)
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
        let settings =
            plan.pipeline.evaluate.clone().filter(|settings| settings.knn_every_epochs > 0 && settings.classifies());
        settings
            .map(|settings| Ok(Self { plan, data, sides: Sides::new(plan, data, &settings)?, settings }))
            .transpose()
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
        let by_encoder = |batch: &Batch| encoded(method, batch);
        let features = |side| {
            let all = self.sides.features(side, self.plan, self.data, &[&by_encoder], &device)?;
            let features =
                all.features.into_iter().next().ok_or_else(|| Error::internal("one encoder gives no features"))?;
            features.check(side.name()).map(|()| features)
        };
        let (bank, queries) = (features(Side::Bank)?, features(Side::Queries)?);
        let classes = Classes::of(&bank.labels);
        let (known, wanted) = (classes.numbers(&bank.labels), classes.numbers(&queries.labels));
        let knn = &self.settings.knn;
        let neighbours = nearest(&UnitRows::of(&queries), &UnitRows::of(&bank), knn.neighbours)?;
        let found = neighbours.vote(&known, classes.count(), knn.neighbours, knn.temperature);
        let correct = found.iter().zip(&wanted).filter(|(found, wanted)| found == wanted).count();
        Ok(correct as f64 / wanted.len().max(1) as f64)
    }
}
