//! The whole evaluation: every representation goes through the same figures on the same samples.
//!
//! Representations are added one after another and only who was right is kept, so one of them is in memory at a time.

use std::collections::BTreeMap;

use super::{
    EvaluateSettings,
    features::{Classes, Features, UNKNOWN_CLASS},
    few_labels::{FewLabels, Labelled, candidates, classify, few_labels},
    held_out::{HeldOut, best_of},
    knn::UnitRows,
    linear_probe::{Probe, linear_probe},
    scores::{AgainstFloor, Counts, Score, Scores, Verdict},
    statistics::{Paired, accuracy, accuracy_95, crossed_mean, paired},
};
use crate::{
    Result,
    error::{Error, Stage},
};

/// A bank smaller than this leaves nothing to hold out.
const LEAST_BANK_ROWS: usize = 10;

/// What a representation is to the evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The trained encoder.
    Encoder,
    /// The same encoder with its initial weights.
    Untrained,
    /// The input itself, such as raw pixels.
    Floor,
}

/// Who was right, for each figure.
#[derive(Debug)]
struct Outcome {
    name: String,
    probe: Probe,
    chosen_neighbours: usize,
    knn: BTreeMap<usize, Vec<bool>>,
    few: BTreeMap<usize, FewLabels>,
}

/// What all representations share.
#[derive(Debug)]
struct Samples {
    bank_ids: Vec<u64>,
    query_ids: Vec<u64>,
    classes: usize,
    bank_classes: Vec<u32>,
    query_classes: Vec<u32>,
    split: HeldOut,
}

/// An evaluation under way.
#[derive(Debug)]
pub struct Evaluation {
    settings: EvaluateSettings,
    recipe: String,
    seed: u64,
    samples: Option<Samples>,
    outcomes: BTreeMap<Role, Outcome>,
}

impl Evaluation {
    /// Nothing added yet. `recipe` is the evaluation transform as one line; `seed` keys the held-out part and the label
    /// draws.
    ///
    /// # Errors
    /// Where the settings make no sense.
    pub fn new(settings: &EvaluateSettings, recipe: impl Into<String>, seed: u64) -> Result<Self> {
        let knn = &settings.knn;
        if !(knn.temperature > 0.0 && knn.temperature.is_finite()) {
            return Err(Error::at(
                Stage::Pipeline,
                "evaluate.knn.temperature",
                "must be above 0; the usual one is 0.1",
            ));
        }
        if knn.neighbours == 0 || knn.candidates.contains(&0) || settings.labels_per_class.contains(&0) {
            return Err(Error::at(
                Stage::Pipeline,
                "evaluate",
                "neighbours, candidates and labels_per_class must be at least 1",
            ));
        }
        Ok(Self { settings: settings.clone(), recipe: recipe.into(), seed, samples: None, outcomes: BTreeMap::new() })
    }

    /// Scores one representation of bank and queries; all of them must hold the same samples in the same order.
    ///
    /// # Errors
    /// Where features are not finite, the samples differ from those of the representations before, or a query is also
    /// in the bank.
    pub fn add(&mut self, role: Role, name: &str, bank: &Features, queries: &Features) -> Result<()> {
        bank.check(&format!("bank of {name}"))?;
        queries.check(&format!("queries of {name}"))?;
        if self.samples.is_none() {
            self.samples = Some(Samples::of(bank, queries, self.seed)?);
        }
        let Some(samples) = &self.samples else { return Err(Error::internal("samples were just set")) };
        if samples.bank_ids != bank.sample_ids || samples.query_ids != queries.sample_ids {
            return Err(Error::internal(format!("{name} has other samples than the representations before it")));
        }
        let Samples { classes, bank_classes, query_classes, split, .. } = samples;
        let probe = linear_probe(bank, bank_classes, queries, query_classes, split, *classes)?;

        let bank = Labelled { rows: UnitRows::of(bank), classes: bank_classes.clone() };
        let queries = Labelled { rows: UnitRows::of(queries), classes: query_classes.clone() };
        let knn = &self.settings.knn;
        let candidates = candidates(knn);
        let chosen_neighbours = {
            let (kept, held_out) = (bank.take(&split.kept), bank.take(&split.held_out));
            let scores: Vec<f64> =
                classify(&kept, &held_out, *classes, knn, &candidates)?.iter().map(|c| accuracy(c)).collect();
            best_of(&candidates, &scores).unwrap_or(knn.neighbours)
        };
        let mut listed = candidates;
        listed.push(knn.neighbours);
        listed.sort_unstable();
        listed.dedup();
        let correct = classify(&bank, &queries, *classes, knn, &listed)?;
        let mut few = BTreeMap::new();
        let draws = self.settings.label_draws.max(1);
        let largest_class = samples.samples_per_class()[1];
        for &per_class in self.settings.labels_per_class.iter().filter(|&&wanted| wanted <= largest_class) {
            few.insert(per_class, few_labels(&bank, &queries, split, *classes, per_class, draws, knn, self.seed)?);
        }
        let knn = listed.into_iter().zip(correct).collect();
        self.outcomes.insert(role, Outcome { name: name.to_owned(), probe, chosen_neighbours, knn, few });
        Ok(())
    }

    /// The encoder's scores beside those of whatever floors were added.
    ///
    /// # Errors
    /// Where no encoder was added.
    pub fn scores(&self) -> Result<Scores> {
        let (Some(samples), Some(encoder)) = (&self.samples, self.outcomes.get(&Role::Encoder)) else {
            return Err(Error::internal("an evaluation without an encoder"));
        };
        let label = self.settings.label.clone();
        let knn = &self.settings.knn;
        let weighting = format!("weight exp(cos / {})", knn.temperature);

        let probe = self.score(
            |outcome| Some(std::slice::from_ref(&outcome.probe.correct)),
            &format!(
                "logistic regression on standardised features, L2 chosen among {} on the held-out part of the bank, \
                 then fitted to the whole bank until ten iterations gain less than 1e-4 nats; {}",
                super::linear_probe::L2_CANDIDATES.map(|l2| format!("{l2:e}")).join(", "),
                self.choices(|outcome| {
                    let Probe { l2, iterations, converged, .. } = outcome.probe;
                    let unfinished = if converged { "" } else { ", NOT converged" };
                    format!("L2 {l2:e} ({iterations} iterations{unfinished})")
                })
            ),
        )?;
        let chosen = self.score(
            |outcome| outcome.knn.get(&outcome.chosen_neighbours).map(std::slice::from_ref),
            &format!(
                "cosine, {weighting}, k chosen among {} on the held-out part of the bank; {}",
                candidates(knn).iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
                self.choices(|outcome| format!("k = {}", outcome.chosen_neighbours))
            ),
        )?;
        let mut at = BTreeMap::new();
        for &k in encoder.knn.keys() {
            let protocol =
                format!("cosine, {weighting}, k = {} of {}", k.min(samples.bank_ids.len()), samples.bank_ids.len());
            at.insert(k, self.score(|outcome| outcome.knn.get(&k).map(std::slice::from_ref), &protocol)?);
        }
        let [least, most] = samples.samples_per_class();
        let mut few = BTreeMap::new();
        for &n in encoder.few.keys() {
            let fewer = match n > least {
                true => format!("all labels of classes with fewer (the smallest has {least}), "),
                false => String::new(),
            };
            let protocol = format!(
                "cosine, {weighting}, {fewer}mean over {} draws of labels, k chosen with as many labels on the held-out \
                 part; {}",
                self.settings.label_draws.max(1),
                self.choices(|outcome| outcome
                    .few
                    .get(&n)
                    .map_or(String::new(), |few| format!("k = {}", few.neighbours)))
            );
            few.insert(n, self.score(|outcome| outcome.few.get(&n).map(|few| few.correct.as_slice()), &protocol)?);
        }
        let too_many = self.settings.labels_per_class.iter().filter(|&&wanted| wanted > most);
        let reason = |&wanted: &usize| (wanted, format!("no class of the bank has more than {most} samples"));
        let left_out = BTreeMap::from([(label.clone(), too_many.map(reason).collect())]);
        let keyed = |score| BTreeMap::from([(label.clone(), score)]);
        Ok(Scores {
            linear_probe: keyed(probe),
            knn: keyed(chosen),
            knn_at: BTreeMap::from([(label.clone(), at)]),
            few_labels: BTreeMap::from([(label.clone(), few)]),
            left_out,
            abx: BTreeMap::new(),
            data: BTreeMap::from([(label.clone(), samples.counts())]),
            bank: None,
            queries: None,
            recipe: self.recipe.clone(),
            seed: self.seed,
            ..Scores::default()
        })
    }

    /// `encoder k = 5, raw_pixels k = 1`
    fn choices(&self, of: impl Fn(&Outcome) -> String) -> String {
        self.outcomes.values().map(|outcome| format!("{} {}", outcome.name, of(outcome))).collect::<Vec<_>>().join(", ")
    }

    /// One figure of all representations. `correct` picks `[draws][queries]`.
    fn score<'a>(&'a self, correct: impl Fn(&'a Outcome) -> Option<&'a [Vec<bool>]>, protocol: &str) -> Result<Score> {
        let of = |role: Role| self.outcomes.get(&role).and_then(|outcome| Some((outcome, correct(outcome)?)));
        let Some((_, encoder)) = of(Role::Encoder) else {
            return Err(Error::internal("the encoder lacks a figure that it should have"));
        };
        let (accuracy, ci95) = mean_95(encoder);
        let (untrained, floor) = (of(Role::Untrained), of(Role::Floor));
        let figures = |found: Option<(&Outcome, &[Vec<bool>])>| found.map(|(_, correct)| mean_95(correct));
        let (untrained_figures, floor_figures) = (figures(untrained), figures(floor));
        let better = match (untrained_figures, floor_figures) {
            (Some((a, _)), Some((b, _))) => {
                if a > b {
                    untrained
                } else {
                    floor
                }
            }
            _ => untrained.or(floor),
        };
        let against_best_floor = better.map(|(outcome, other)| {
            let paired = paired_95(encoder, other);
            let (_, other_ci95) = mean_95(other);
            let verdict = Verdict::of(paired.ci95);
            let intervals_overlap = ci95[0] <= other_ci95[1] && other_ci95[0] <= ci95[1];
            AgainstFloor { name: outcome.name.clone(), paired, verdict, intervals_overlap }
        });
        Ok(Score {
            accuracy,
            ci95,
            untrained: untrained_figures.map(|(x, _)| x),
            untrained_ci95: untrained_figures.map(|(_, ci)| ci),
            floor: floor_figures.map(|(x, _)| x),
            floor_ci95: floor_figures.map(|(_, ci)| ci),
            against_best_floor,
            protocol: protocol.to_owned(),
        })
    }
}

impl Samples {
    fn of(bank: &Features, queries: &Features, seed: u64) -> Result<Self> {
        if bank.rows() < LEAST_BANK_ROWS {
            return Err(Error::at(
                Stage::Evaluate,
                "evaluate.bank_sql",
                format!("the bank has {} samples; it takes at least {LEAST_BANK_ROWS}", bank.rows()),
            ));
        }
        let mut known = bank.sample_ids.clone();
        known.sort_unstable();
        let shared = queries.sample_ids.iter().filter(|id| known.binary_search(id).is_ok()).count();
        if shared > 0 {
            return Err(Error::at(
                Stage::Evaluate,
                "evaluate.query_sql",
                format!(
                    "{shared} queries are bank samples too and would find themselves; make the two queries disjoint"
                ),
            ));
        }
        let classes = Classes::of(&bank.labels);
        Ok(Self {
            bank_ids: bank.sample_ids.clone(),
            query_ids: queries.sample_ids.clone(),
            classes: classes.count(),
            bank_classes: classes.numbers(&bank.labels),
            query_classes: classes.numbers(&queries.labels),
            split: HeldOut::of(bank.rows(), seed),
        })
    }

    /// Of the bank: the class that has fewest, and that which has most.
    fn samples_per_class(&self) -> [usize; 2] {
        let mut counts = vec![0; self.classes];
        self.bank_classes.iter().for_each(|&class| counts[class as usize] += 1);
        [counts.iter().min(), counts.iter().max()].map(|count| count.copied().unwrap_or(0))
    }

    fn counts(&self) -> Counts {
        Counts {
            samples_per_class: self.samples_per_class(),
            bank: self.bank_ids.len(),
            held_out: self.split.held_out.len(),
            queries: self.query_ids.len(),
            classes: self.classes,
            queries_of_unknown_class: self.query_classes.iter().filter(|&&class| class == UNKNOWN_CLASS).count(),
        }
    }
}

/// Draws that all say the same are one: so it is where every draw takes all labels.
fn distinct(draws: &[Vec<bool>]) -> &[Vec<bool>] {
    let is_one = draws.windows(2).all(|pair| pair[0] == pair[1]);
    if is_one { &draws[..draws.len().min(1)] } else { draws }
}

/// Mean accuracy and interval of `[draws][queries]`: Wilson's for one draw.
fn mean_95(correct: &[Vec<bool>]) -> (f64, [f64; 2]) {
    if let [only] = distinct(correct) {
        return (accuracy(only), accuracy_95(only));
    }
    let queries = correct.first().map_or(0, Vec::len);
    let crossed = crossed_mean(correct.len(), queries, |draw, query| f64::from(u8::from(correct[draw][query])));
    (crossed.mean, crossed.ci95.map(|end| end.clamp(0.0, 1.0)))
}

/// Difference on the same draws and queries.
fn paired_95(first: &[Vec<bool>], second: &[Vec<bool>]) -> Paired {
    if let ([first], [second]) = (distinct(first), distinct(second)) {
        return paired(first, second);
    }
    let (draws, queries) = (first.len().min(second.len()), first.first().map_or(0, Vec::len));
    let of = |right: bool| f64::from(u8::from(right));
    let crossed = crossed_mean(draws, queries, |draw, query| of(first[draw][query]) - of(second[draw][query]));
    let only = |a: &[Vec<bool>], b: &[Vec<bool>]| {
        let pairs = a.iter().zip(b).flat_map(|(a, b)| a.iter().zip(b));
        pairs.filter(|&(&a, &b)| a && !b).count() as f64 / draws.max(1) as f64
    };
    Paired {
        difference: crossed.mean,
        ci95: crossed.ci95.map(|end| end.clamp(-1.0, 1.0)),
        only_first: only(first, second),
        only_second: only(second, first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{evaluate::KnnSettings, seed};

    fn settings() -> EvaluateSettings {
        EvaluateSettings {
            further_labels: vec![],
            abx_group: None,
            bank_sql: String::new(),
            query_sql: String::new(),
            label: "kind".into(),
            knn: KnnSettings { neighbours: 20, temperature: 0.1, candidates: vec![1, 5] },
            knn_every_epochs: 0,
            labels_per_class: vec![1, 10],
            label_draws: 4,
            zero_shot: None,
            retrieval: None,
        }
    }

    /// Three classes around three axes; more `noise` is a worse representation.
    fn features(rows: usize, first_id: u64, noise: f64) -> Features {
        let mut draws = seed::draws(first_id, "protocol test", &[noise.to_bits()]);
        let mut values = vec![];
        for row in 0..rows {
            for column in 0..3 {
                values.push((f64::from(u8::from(row % 3 == column)) + noise * draws.normal()) as f32);
            }
        }
        Features {
            values,
            width: 3,
            labels: (0..rows).map(|row| ["ant", "bee", "cat"][row % 3].to_owned()).collect(),
            sample_ids: (first_id..first_id + rows as u64).collect(),
        }
    }

    fn evaluated() -> Scores {
        let mut evaluation = Evaluation::new(&settings(), "center_crop 3", 9).unwrap();
        for (role, name, noise) in
            [(Role::Floor, "raw_pixels", 0.5), (Role::Untrained, "untrained", 0.8), (Role::Encoder, "encoder", 0.3)]
        {
            evaluation.add(role, name, &features(600, 0, noise), &features(300, 1_000, noise)).unwrap();
        }
        evaluation.scores().unwrap()
    }

    #[test]
    fn better_representation_is_ahead_on_every_figure() {
        let scores = evaluated();
        let lines = scores.lines("kind");
        assert_eq!(lines.len(), 2 + 3 + 2);
        for (name, score) in lines {
            let against = score.against_best_floor.as_ref().unwrap();
            assert_eq!(against.name, "raw_pixels", "{name}");
            let difference = score.accuracy - score.floor.unwrap();
            assert!((against.paired.difference - difference).abs() < 1e-9, "{name}");
            assert!(score.ci95[0] < score.accuracy && score.accuracy < score.ci95[1], "{name}");
            if !name.contains("1 label") {
                assert_eq!(against.verdict, Verdict::Ahead, "{name}: {score:?}");
            }
        }
    }

    #[test]
    fn same_seed_gives_the_same_scores() {
        assert_eq!(evaluated().to_json_line().unwrap(), evaluated().to_json_line().unwrap());
    }

    #[test]
    fn protocol_is_printed_with_the_number() {
        let text = evaluated().to_string();
        for part in [
            "L2 chosen among 1e-1, 1e-2",
            "weight exp(cos / 0.1)",
            "mean over 4 draws",
            "center_crop 3",
            "k = 20 of 600",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn a_number_of_labels_that_no_class_has_is_left_out_with_its_reason() {
        let labels_per_class = vec![1, 100, 150, 151];
        let settings = EvaluateSettings { labels_per_class, ..settings() };
        let mut evaluation = Evaluation::new(&settings, "", 0).unwrap();
        let mut bank = features(300, 0, 0.1);
        // 150 ants, 100 bees, 50 cats.
        for (at, label) in bank.labels.iter_mut().enumerate() {
            *label = if at % 6 < 3 { "ant".into() } else { ["bee", "bee", "cat"][at % 3].to_owned() };
        }
        evaluation.add(Role::Encoder, "encoder", &bank, &features(30, 1_000, 0.1)).unwrap();
        let scores = evaluation.scores().unwrap();
        assert_eq!(scores.data["kind"].samples_per_class, [50, 150]);
        assert_eq!(scores.few_labels["kind"].keys().copied().collect::<Vec<_>>(), [1, 100, 150]);
        assert!(scores.left_out["kind"][&151].contains("more than 150 samples"), "{:?}", scores.left_out);
        let text = scores.to_string();
        assert!(
            text.contains("kNN, at most 100 labels per class") && text.contains("kNN, 1 label per class"),
            "{text}"
        );
        assert!(text.contains("the smallest has 50"), "{text}");
    }

    #[test]
    fn queries_that_are_in_the_bank_are_refused() {
        let mut evaluation = Evaluation::new(&settings(), "", 0).unwrap();
        let error =
            evaluation.add(Role::Encoder, "encoder", &features(60, 0, 0.1), &features(60, 50, 0.1)).unwrap_err();
        assert!(error.to_string().contains("10 queries are bank samples too"), "{error}");
    }

    #[test]
    fn labels_that_the_bank_lacks_are_counted() {
        let mut queries = features(30, 1_000, 0.1);
        queries.labels[3] = "dog".into();
        let mut evaluation = Evaluation::new(&settings(), "", 0).unwrap();
        evaluation.add(Role::Encoder, "encoder", &features(300, 0, 0.1), &queries).unwrap();
        let scores = evaluation.scores().unwrap();
        assert_eq!(scores.data["kind"].queries_of_unknown_class, 1);
        assert!(scores.linear_probe["kind"].accuracy < 1.0);
        assert!(scores.linear_probe["kind"].floor.is_none());
    }

    #[test]
    fn representations_of_other_samples_are_refused() {
        let mut evaluation = Evaluation::new(&settings(), "", 0).unwrap();
        evaluation.add(Role::Encoder, "encoder", &features(60, 0, 0.1), &features(30, 100, 0.1)).unwrap();
        assert!(evaluation.add(Role::Floor, "raw", &features(60, 0, 0.1), &features(30, 101, 0.1)).is_err());
    }
}
