//! ABX discrimination on frozen features (Schatz et al. 2013): is X nearer to A, of its own class, than to B of another?
//!
//! A, B and X are of one group (a speaker) within groups; across groups X is of another group than A and B, so that a
//! representation of who speaks does not pass for one of what is said. Nothing is fitted: no bank, no probe.
use std::collections::BTreeMap;

use super::{
    features::Features,
    knn::UnitRows,
    scores::{Discrimination, Figure},
    statistics::{Jackknifed, jackknife_95},
};
use crate::{
    Result,
    error::{Error, Stage},
    seed::{self, Draws},
};

/// Drawn for each X and each of both kinds.
pub const TRIPLES_PER_SAMPLE: usize = 256;

/// Fewest groups that an interval is taken over, within and across: of what is left without one of them, there must still be
/// another group, and across a pair of them.
const LEAST_GROUPS: [usize; 2] = [2, 3];

/// Samples of one group: by class.
type Classes = BTreeMap<u32, Vec<u32>>;

/// One drawn comparison, as rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Triple {
    a: u32,
    b: u32,
    x: u32,
}

/// Triples of some samples, the same for every representation of them.
#[derive(Debug)]
pub struct Triples {
    /// Within and across, each by X.
    kinds: [Vec<Vec<Triple>>; 2],
    /// Of each sample.
    groups: Vec<u32>,
}

/// How wrong one representation answers each triple, in the order of X, for each of both kinds: 0, 1, or ½ for a tie.
#[derive(Debug, Clone, PartialEq)]
pub struct Errors([Vec<f32>; 2]);

impl Triples {
    /// Draws by `seed`. For each X a class other than its own that A's group has too, and A and B uniformly from theirs;
    /// across, first a group other than X's. A sample for which there is no such triple is no X.
    ///
    /// # Errors
    /// There are not as many groups as labels.
    pub fn draw(labels: &[String], groups: &[String], seed: u64) -> Result<Self> {
        if labels.len() != groups.len() {
            let reason = format!("{} labels and {} groups are not of the same samples", labels.len(), groups.len());
            return Err(Error::internal(reason));
        }
        let (classes, groups) = (super::features::Classes::of(labels).numbers(labels), numbers(groups));
        let mut by_group: BTreeMap<u32, Classes> = BTreeMap::new();
        for (row, (&class, &group)) in (0..).zip(classes.iter().zip(&groups)) {
            by_group.entry(group).or_default().entry(class).or_default().push(row);
        }
        // Groups that can set A against B, for X of a class.
        let mut able: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (&group, classes) in by_group.iter().filter(|(_, classes)| classes.len() > 1) {
            classes.keys().for_each(|&class| able.entry(class).or_default().push(group));
        }
        let none = vec![];
        let of_x = |row: usize, across: bool| -> Vec<Triple> {
            let (class, own, x) = (classes[row], groups[row], row as u32);
            let mut draws = seed::draws(seed, "triples of ABX", &[row as u64, u64::from(across)]);
            let others: Vec<u32> =
                able.get(&class).unwrap_or(&none).iter().copied().filter(|&group| (group == own) != across).collect();
            // Within, another sample of its own class must be there.
            if others.is_empty() || (!across && by_group[&own][&class].len() < 2) {
                return vec![];
            }
            let draw = |draws: &mut Draws| {
                let group = &by_group[one_of(&others, draws)];
                let same = &group[&class];
                let a = loop {
                    let a = *one_of(same, draws);
                    if a != x {
                        break a;
                    }
                };
                let of: Vec<&Vec<u32>> =
                    group.iter().filter(|(other, _)| **other != class).map(|(_, rows)| rows).collect();
                let differing = *one_of::<&Vec<u32>>(&of, draws);
                Triple { a, b: *one_of(differing, draws), x }
            };
            (0..TRIPLES_PER_SAMPLE).map(|_| draw(&mut draws)).collect()
        };
        let kinds = [false, true].map(|across| (0..labels.len()).map(|row| of_x(row, across)).collect());
        Ok(Self { kinds, groups })
    }

    /// Answers every triple by the cosines of `features`; equal ones are half right.
    ///
    /// # Errors
    /// The features are of other samples.
    pub fn answer(&self, features: &Features) -> Result<Errors> {
        if features.rows() != self.groups.len() {
            let (ours, theirs) = (self.groups.len(), features.rows());
            return Err(Error::internal(format!("triples of {ours} samples, not of {theirs}")));
        }
        let rows = UnitRows::of(features);
        let wrong = |&Triple { a, b, x }: &Triple| {
            let [to_a, to_b] = [a, b].map(|other| rows.cosine(x as usize, other as usize));
            if to_a > to_b {
                0.0
            } else if to_a < to_b {
                1.0
            } else {
                0.5
            }
        };
        Ok(Errors(self.kinds.each_ref().map(|by_x| by_x.iter().flatten().map(wrong).collect())))
    }

    /// Error shares of the encoder beside those of its floors.
    ///
    /// # Errors
    /// No sample has a triple of either kind.
    pub fn scores(&self, group: &str, [encoder, untrained, floor]: &[Errors; 3]) -> Result<Discrimination> {
        if self.kinds.iter().flatten().all(Vec::is_empty) {
            let reason = format!(
                "no two queries of one class and {group} stand beside one of another class; choose another column, or leave it out"
            );
            return Err(Error::at(Stage::Evaluate, "evaluate.abx_group", reason));
        }
        let figure = |kind: usize| {
            let samples = self.kinds[kind].iter().filter(|triples| !triples.is_empty()).count();
            let [own, untrained, floor] = [encoder, untrained, floor].map(|errors| &errors.0[kind]);
            let differences: Vec<f32> = own.iter().zip(floor).map(|(own, floor)| own - floor).collect();
            let (error, over) = self.left_out_in_turn(kind, own);
            let (minus_floor, _) = self.left_out_in_turn(kind, &differences);
            (samples > 0).then(|| Figure {
                error: error.mean,
                ci95: error.ci95.map(|end| end.clamp(0.0, 1.0)),
                untrained: mean(untrained),
                floor: mean(floor),
                minus_floor: minus_floor.mean,
                minus_floor_ci95: minus_floor.ci95.map(|end| end.clamp(-1.0, 1.0)),
                samples,
                left_out: self.groups.len() - samples,
                interval_over: match over {
                    Unit::Groups => format!("{} of {group}", error.parts),
                    Unit::Samples => format!("{} queries", error.parts),
                },
            })
        };
        let (within, across) = (figure(0), figure(1));
        let [over_within, over_across] = [&within, &across]
            .map(|figure| figure.as_ref().map_or_else(|| "none".to_owned(), |found| found.interval_over.clone()));
        Ok(Discrimination {
            group: group.to_owned(),
            protocol: format!(
                "cosine of whole features, nothing fitted; {TRIPLES_PER_SAMPLE} triples drawn for each query as X, the mean \
                 over queries; classes, and across groups the group of A and B, drawn uniformly; intervals by Student's t \
                 from leaving out each of what they are over in turn, as A, B and X (within: {over_within}; across: {over_across})"
            ),
            within,
            across,
        })
    }

    /// Mean of a number per triple with its interval over groups, since triples of a speaker agree with each other; over
    /// samples where there are too few groups.
    fn left_out_in_turn(&self, kind: usize, values: &[f32]) -> (Jackknifed, Unit) {
        let triples = || self.kinds[kind].iter().flatten();
        let in_groups = triples().map(|Triple { a, x, .. }| [a, x].map(|&row| self.groups[row as usize]));
        let over_groups = Sums::of(values, in_groups);
        if over_groups.parts.len() >= LEAST_GROUPS[kind] {
            return (over_groups.jackknifed(), Unit::Groups);
        }
        let in_samples = triples().map(|&Triple { a, b, x }| [a, b, x]);
        (Sums::of(values, in_samples).jackknifed(), Unit::Samples)
    }
}

/// What is left out in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Groups,
    Samples,
}

/// Sum and number of all triples' values, and of those in which a part occurs.
struct Sums {
    all: (f64, f64),
    parts: BTreeMap<u32, (f64, f64)>,
}

impl Sums {
    /// Each triple's parts; one that occurs twice counts once.
    fn of<const N: usize>(values: &[f32], parts: impl Iterator<Item = [u32; N]>) -> Self {
        let mut sums = Self { all: (0.0, 0.0), parts: BTreeMap::new() };
        for (&value, parts) in values.iter().zip(parts) {
            let value = f64::from(value);
            sums.all = (sums.all.0 + value, sums.all.1 + 1.0);
            for (_, part) in parts.iter().enumerate().filter(|(at, part)| !parts[..*at].contains(part)) {
                let (sum, number) = sums.parts.entry(*part).or_default();
                (*sum, *number) = (*sum + value, *number + 1.0);
            }
        }
        sums
    }

    fn jackknifed(&self) -> Jackknifed {
        let (sum, number) = self.all;
        let without = self.parts.values().map(|(part, of_part)| (sum - part) / (number - of_part));
        jackknife_95(sum / number, &without.collect::<Vec<f64>>())
    }
}

fn mean(values: &[f32]) -> f64 {
    values.iter().copied().map(f64::from).sum::<f64>() / values.len() as f64
}

fn numbers(groups: &[String]) -> Vec<u32> {
    super::features::Classes::of(groups).numbers(groups)
}

fn one_of<'a, T>(from: &'a [T], draws: &mut Draws) -> &'a T {
    &from[draws.below(from.len() as u64) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASSES: usize = 3;
    const GROUPS: usize = 4;
    const EACH: usize = 5;

    /// Each of 3 classes five times by each of 4 speakers; rows are `class axes · by_class + speaker axes · by_group + noise`.
    fn features(by_class: f64, by_group: f64, noise: f64) -> (Features, Vec<String>) {
        let mut draws = seed::draws(7, "features", &[]);
        let (mut values, mut labels, mut groups) = (vec![], vec![], vec![]);
        for row in 0..CLASSES * GROUPS * EACH {
            let (class, group) = (row % CLASSES, row / CLASSES % GROUPS);
            let axis = |at: usize, of: usize| if at == of { 1.0 } else { 0.0 };
            values.extend((0..CLASSES).map(|at| (by_class * axis(at, class) + noise * draws.normal()) as f32));
            values.extend((0..GROUPS).map(|at| (by_group * axis(at, group) + noise * draws.normal()) as f32));
            labels.push(format!("word {class}"));
            groups.push(format!("speaker {group}"));
        }
        let sample_ids = (0..labels.len() as u64).collect();
        (Features { values, width: CLASSES + GROUPS, labels, sample_ids }, groups)
    }

    fn errors(by_class: f64, by_group: f64, noise: f64) -> [f64; 2] {
        let (features, groups) = features(by_class, by_group, noise);
        let triples = Triples::draw(&features.labels, &groups, 1).unwrap();
        let Errors(kinds) = triples.answer(&features).unwrap();
        kinds.map(|of_triples| mean(&of_triples))
    }

    #[test]
    fn classes_alone_are_never_mistaken_and_groups_alone_are_guessing() {
        assert_eq!(errors(1.0, 0.0, 0.0), [0.0, 0.0]);
        // Without noise every cosine of a group is the same: ties.
        assert_eq!(errors(0.0, 1.0, 0.0), [0.5, 0.5]);
        assert_eq!(errors(1.0, 100.0, 0.0), [0.0, 0.0], "within a group only the class is left to differ");
        let [within, across] = errors(0.0, 0.0, 1.0);
        assert!((within - 0.5).abs() < 0.1 && (across - 0.5).abs() < 0.1, "{within} {across}");
    }

    #[test]
    fn a_class_that_each_group_says_in_its_own_way_is_known_within_and_not_across() {
        // An axis for every pair of class and group.
        let (mut found, groups) = features(1.0, 0.0, 0.0);
        found.width = CLASSES * GROUPS;
        found.values = (0..found.rows())
            .flat_map(|row| (0..CLASSES * GROUPS).map(move |at| f32::from(u8::from(at == row % (CLASSES * GROUPS)))))
            .collect();
        let triples = Triples::draw(&found.labels, &groups, 1).unwrap();
        let Errors([within, across]) = triples.answer(&found).unwrap();
        assert!(within.iter().all(|&error| error == 0.0) && across.iter().all(|&error| error == 0.5));
        assert_eq!(within.len(), found.rows() * TRIPLES_PER_SAMPLE);
    }

    #[test]
    fn intervals_are_over_groups_and_wide_where_groups_differ() {
        let (mut found, groups) = features(1.0, 0.0, 0.0);
        let triples = Triples::draw(&found.labels, &groups, 1).unwrap();
        let scored = |features: &Features| {
            let errors = triples.answer(features).unwrap();
            let floor = Errors([0, 1].map(|kind: usize| vec![1.0; errors.0[kind].len()]));
            triples.scores("speaker", &[errors.clone(), errors, floor]).unwrap()
        };
        let within = scored(&found).within.unwrap();
        assert_eq!((within.error, within.ci95, within.minus_floor_ci95), (0.0, [0.0, 0.0], [-1.0, -1.0]));
        // One of four speakers says nothing that could be told apart: ties within, and wherever he is A and B, or X.
        for row in (0..found.rows()).filter(|row| groups[*row] == "speaker 3") {
            found.values[row * found.width..][..found.width].fill(1.0);
        }
        let scores = scored(&found);
        let (within, across) = (scores.within.unwrap(), scores.across.unwrap());
        assert_eq!((within.error, within.interval_over.as_str()), (0.125, "4 of speaker"));
        // Means .0, .0, .0, .5: deviation .25, of their mean .125; Student's t with 3 degrees is 3.182.
        assert!(within.ci95[0] == 0.0 && (within.ci95[1] - (0.125 + 3.182_446 * 0.125)).abs() < 1e-6, "{within:?}");
        assert!((across.error - 0.25).abs() < 0.02 && across.ci95[1] > 0.8, "{across:?}");
        assert!(scores.protocol.contains("within: 4 of speaker; across: 4 of speaker"), "{}", scores.protocol);
        // Two speakers leave no pair when one is left out.
        let few: Vec<String> = groups.iter().map(|name| name.replace('2', "0").replace('3', "1")).collect();
        let triples = Triples::draw(&found.labels, &few, 1).unwrap();
        let errors = triples.answer(&found).unwrap();
        let scores = triples.scores("speaker", &[errors.clone(), errors.clone(), errors]).unwrap();
        assert_eq!(scores.within.unwrap().interval_over, "2 of speaker");
        let across = scores.across.unwrap();
        assert_eq!(across.interval_over, "60 queries");
        assert!(across.ci95[1] - across.ci95[0] < 0.5, "{across:?}");
    }

    #[test]
    fn triples_are_what_they_say_and_a_function_of_the_seed() {
        let (found, groups) = features(1.0, 1.0, 1.0);
        let triples = Triples::draw(&found.labels, &groups, 1).unwrap();
        for (kind, by_x) in triples.kinds.iter().enumerate() {
            for (row, triples) in by_x.iter().enumerate() {
                assert_eq!(triples.len(), TRIPLES_PER_SAMPLE);
                for &Triple { a, b, x } in triples {
                    let (label, group) = (|at: u32| &found.labels[at as usize], |at: u32| &groups[at as usize]);
                    assert!(x as usize == row && a != x && label(a) == label(x) && label(b) != label(x));
                    assert!(group(a) == group(b) && (group(a) == group(x)) == (kind == 0));
                }
            }
        }
        let again = |seed| Triples::draw(&found.labels, &groups, seed).unwrap().kinds;
        assert!(again(1) == triples.kinds && again(2) != triples.kinds);
    }

    #[test]
    fn samples_without_a_triple_are_left_out_and_counted() {
        let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        // Ann says yes twice and no once; Bob says yes once, and only that.
        let (labels, groups) = (texts(&["yes", "yes", "no", "yes"]), texts(&["ann", "ann", "ann", "bob"]));
        let features = Features {
            values: vec![1.0, 0.0, 0.9, 0.1, 0.0, 1.0, 0.1, 1.0],
            width: 2,
            labels: labels.clone(),
            sample_ids: vec![0, 1, 2, 3],
        };
        let triples = Triples::draw(&labels, &groups, 1).unwrap();
        let errors = triples.answer(&features).unwrap();
        let scores = triples.scores("group", &[errors.clone(), errors.clone(), errors]).unwrap();
        let (within, across) = (scores.within.unwrap(), scores.across.unwrap());
        assert_eq!((within.samples, within.left_out, within.error), (2, 2, 0.0));
        // Bob's yes resembles Ann's no.
        assert_eq!((across.samples, across.left_out, across.error), (1, 3, 1.0));
        let alone = Triples::draw(&labels[3..], &groups[3..], 1).unwrap();
        let one = Features { values: vec![1.0], width: 1, labels: labels[3..].to_vec(), sample_ids: vec![3] };
        let errors = alone.answer(&one).unwrap();
        let refused = alone.scores("speaker", &[errors.clone(), errors.clone(), errors]).unwrap_err().to_string();
        assert!(refused.contains("evaluate.abx_group") && refused.contains("speaker"), "{refused}");
    }
}
