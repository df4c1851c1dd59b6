//! kNN with n labels per class, over several draws of which labels are known.

use super::{
    KnnSettings,
    features::UNKNOWN_CLASS,
    held_out::{HeldOut, best_of},
    knn::{UnitRows, nearest},
    statistics::accuracy,
};
use crate::{Result, seed};

/// One side of a classification: unit rows and the class of each.
#[derive(Debug, Clone)]
pub struct Labelled {
    /// L2-normalised features.
    pub rows: UnitRows,
    /// One per row.
    pub classes: Vec<u32>,
}

impl Labelled {
    /// These rows, in this order.
    #[must_use]
    pub fn take(&self, rows: &[usize]) -> Self {
        Self { rows: self.rows.take(rows), classes: rows.iter().map(|&row| self.classes[row]).collect() }
    }
}

/// What n labels per class are worth.
#[derive(Debug, Clone, PartialEq)]
pub struct FewLabels {
    /// The k in use.
    pub neighbours: usize,
    /// `[draws][queries]`: whether the query was classified correctly.
    pub correct: Vec<Vec<bool>>,
}

/// Classifies `queries` from `per_class` labels per class (all of a class that has fewer), `draws` times.
///
/// k is the candidate with the best mean accuracy on the held-out part of the bank, for labels drawn from the kept part.
/// Draws depend on the bank's classes and order alone, so every representation gets the same labels.
///
/// # Errors
/// Where a side is empty or the widths differ.
#[expect(clippy::too_many_arguments, reason = "the whole protocol in one place")]
pub fn few_labels(
    bank: &Labelled,
    queries: &Labelled,
    split: &HeldOut,
    classes: usize,
    per_class: usize,
    draws: usize,
    settings: &KnnSettings,
    seed: u64,
) -> Result<FewLabels> {
    let candidates = candidates(settings);
    let held_out = bank.take(&split.held_out);
    let mut sums = vec![0.0; candidates.len()];
    for draw in 0..draws {
        let rows = draw_rows(&bank.classes, &split.kept, per_class, seed, "held_out", draw);
        for (sum, correct) in
            sums.iter_mut().zip(classify(&bank.take(&rows), &held_out, classes, settings, &candidates)?)
        {
            *sum += accuracy(&correct);
        }
    }
    let neighbours = best_of(&candidates, &sums).unwrap_or(settings.neighbours);
    let all: Vec<usize> = (0..bank.classes.len()).collect();
    let mut correct = Vec::with_capacity(draws);
    for draw in 0..draws {
        let rows = draw_rows(&bank.classes, &all, per_class, seed, "bank", draw);
        correct.extend(classify(&bank.take(&rows), queries, classes, settings, &[neighbours])?);
    }
    Ok(FewLabels { neighbours, correct })
}

/// Whether each query is classified correctly, for each k of `neighbours`: one search serves all.
///
/// # Errors
/// Where a side is empty or the widths differ.
pub fn classify(
    bank: &Labelled,
    queries: &Labelled,
    classes: usize,
    settings: &KnnSettings,
    neighbours: &[usize],
) -> Result<Vec<Vec<bool>>> {
    let found = nearest(&queries.rows, &bank.rows, neighbours.iter().copied().max().unwrap_or(1))?;
    let right = |k: &usize| {
        let predicted = found.vote(&bank.classes, classes, *k, settings.temperature);
        predicted.iter().zip(&queries.classes).map(|(p, truth)| p == truth && *truth != UNKNOWN_CLASS).collect()
    };
    Ok(neighbours.iter().map(right).collect())
}

/// The k's to choose among: as listed, or the one k where none is listed.
pub(crate) fn candidates(settings: &KnnSettings) -> Vec<usize> {
    if settings.candidates.is_empty() { vec![settings.neighbours] } else { settings.candidates.clone() }
}

/// `per_class` of `rows` from every class, ascending.
fn draw_rows(classes: &[u32], rows: &[usize], per_class: usize, seed: u64, purpose: &str, draw: usize) -> Vec<usize> {
    let mut order = rows.to_vec();
    let purpose = format!("evaluate.few_labels.{purpose}");
    seed::draws(seed, &purpose, &[per_class as u64, draw as u64]).shuffle(&mut order);
    let mut taken = vec![0_usize; classes.iter().max().map_or(0, |&highest| highest as usize + 1)];
    order.retain(|&row| {
        let count = &mut taken[classes[row] as usize];
        *count += 1;
        *count <= per_class
    });
    order.sort_unstable();
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::features::Features;

    /// Two clouds on the axes, 100 rows each; `noise` of 0 leaves all rows of a class equal.
    fn clouds(rows: usize, noise: f64, seed: u64) -> Labelled {
        let mut draws = seed::draws(seed, "clouds", &[]);
        let mut values = vec![];
        let classes: Vec<u32> = (0..rows).map(|row| (row % 2) as u32).collect();
        for &class in &classes {
            values.push((f64::from(1 - class) + noise * draws.normal()) as f32);
            values.push((f64::from(class) + noise * draws.normal()) as f32);
        }
        let features =
            Features { values, width: 2, labels: vec![String::new(); rows], sample_ids: (0..rows as u64).collect() };
        Labelled { rows: UnitRows::of(&features), classes }
    }

    #[test]
    fn a_draw_holds_n_rows_of_each_class_and_differs_from_the_next() {
        let classes: Vec<u32> = (0..90).map(|row| row % 3).collect();
        let rows: Vec<usize> = (0..90).collect();
        let draw = |n| draw_rows(&classes, &rows, 4, 1, "bank", n);
        for class in 0..3 {
            assert_eq!(draw(0).iter().filter(|&&row| classes[row] == class).count(), 4);
        }
        assert_eq!(draw(0), draw(0));
        assert_ne!(draw(0), draw(1));
        assert_eq!(draw_rows(&classes, &rows, 1_000, 1, "bank", 0), rows);
    }

    #[test]
    fn one_label_per_class_is_enough_for_separate_classes() {
        let bank = clouds(200, 0.0, 1);
        let split = HeldOut::of(200, 0);
        let result = few_labels(&bank, &clouds(40, 0.1, 2), &split, 2, 1, 3, &KnnSettings::default(), 5).unwrap();
        assert_eq!(result.correct.len(), 3);
        assert!(result.correct.iter().all(|draw| draw.iter().all(|&right| right)));
    }

    #[test]
    fn more_labels_help_where_classes_overlap() {
        let bank = clouds(2_000, 0.6, 1);
        let split = HeldOut::of(2_000, 0);
        let mean = |per_class| {
            let queries = clouds(1_000, 0.6, 2);
            let few = few_labels(&bank, &queries, &split, 2, per_class, 10, &KnnSettings::default(), 5).unwrap();
            few.correct.iter().map(|draw| accuracy(draw)).sum::<f64>() / 10.0
        };
        let (one, hundred) = (mean(1), mean(100));
        assert!(hundred > one + 0.03, "{one} {hundred}");
    }

    #[test]
    fn unknown_labels_count_as_wrong() {
        let bank = clouds(20, 0.0, 1);
        let mut queries = clouds(4, 0.0, 1);
        queries.classes[1] = UNKNOWN_CLASS;
        let right = classify(&bank, &queries, 2, &KnnSettings::default(), &[1]).unwrap();
        assert_eq!(right, [[true, false, true, true]]);
    }
}
