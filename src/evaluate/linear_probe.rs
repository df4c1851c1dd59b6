//! Linear probe: multinomial logistic regression on frozen features.
//!
//! Features are standardised by the bank's means and deviations; λ is chosen among [`L2_CANDIDATES`] on the held-out
//! part of the bank, from the strongest down, each fit starting where the last one ended; the final fit sees the whole
//! bank and goes on until ten iterations gain less than 1e-4 nats. The optimum is unique, so the figure depends on the
//! features and not on a solver's settings.

use rayon::prelude::*;

use super::{
    features::{Features, UNKNOWN_CLASS, gather},
    held_out::{HeldOut, best_of},
    lbfgs::{Stop, minimise},
    logistic::{Chunk, Regression, predict, second_moments},
};
use crate::{
    Result,
    error::{Error, Stage},
};

/// λ of λ/2·‖W‖² beside the mean cross-entropy, in order of preference: of equal accuracies the strongest.
pub const L2_CANDIDATES: [f64; 5] = [1e-1, 1e-2, 1e-3, 1e-4, 1e-5];
/// Where a fit that only helps to choose may stop.
const CHOICE: Stop = Stop { distance: 1e-5, gain: 1e-3, most_iterations: 300 };
/// Where the fit that is reported stops. On Fashion-MNIST's raw pixels going on to the very minimum (300 iterations
/// instead of 140) moves the accuracy by less than .001.
const FINAL: Stop = Stop { distance: 1e-7, gain: 1e-4, most_iterations: 500 };
/// Columns with a smaller standard deviation carry nothing but rounding.
const LEAST_DEVIATION: f64 = 1e-7;

/// What a probe gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// Whether each query was classified correctly.
    pub correct: Vec<bool>,
    /// λ in use.
    pub l2: f64,
    /// Mean cross-entropy plus penalty on the bank, nats.
    pub loss: f64,
    /// Iterations of the final fit.
    pub iterations: usize,
    /// Whether the final fit reached its minimum.
    pub converged: bool,
}

/// Trains on the bank and classifies the queries.
///
/// # Errors
/// Where the widths differ or a bank class is unknown.
pub fn linear_probe(
    bank: &Features,
    bank_classes: &[u32],
    queries: &Features,
    query_classes: &[u32],
    split: &HeldOut,
    classes: usize,
) -> Result<Probe> {
    let width = bank.width;
    if width != queries.width {
        return Err(Error::at(
            Stage::Evaluate,
            "linear probe",
            "bank and queries have features of different width; were they made by one encoder?",
        ));
    }
    if bank_classes.contains(&UNKNOWN_CLASS) {
        return Err(Error::internal("a bank sample has no class"));
    }
    let scaling = Scaling::of(&bank.values, width);
    let chunks_of = |rows: &[usize]| {
        let mut values = gather(&bank.values, width, rows);
        scaling.apply(&mut values);
        let row_classes: Vec<u32> = rows.iter().map(|&row| bank_classes[row]).collect();
        Chunk::cut(&values, width, &row_classes, classes)
    };
    // Kept rows first: the final fit reuses these chunks together with the held-out ones.
    let mut chunks = chunks_of(&split.kept);
    let kept = chunks.len();
    chunks.extend(chunks_of(&split.held_out));
    let moments = second_moments(&chunks, width)?;

    let mut path = vec![vec![0.0; (width + 1) * classes]];
    let mut scores = vec![];
    if !split.held_out.is_empty() {
        let truth: Vec<u32> = split.held_out.iter().map(|&row| bank_classes[row]).collect();
        for l2 in L2_CANDIDATES {
            let mut parameters = path.last().cloned().unwrap_or_default();
            let regression = Regression::new(&chunks[..kept], width, moments.as_deref(), l2);
            minimise(&regression, &mut parameters, CHOICE)?;
            let predicted = predict(&chunks[kept..], &parameters, width)?;
            scores.push(predicted.iter().zip(&truth).filter(|(p, t)| p == t).count() as f64);
            path.push(parameters);
        }
    }
    let choices: Vec<usize> = (0..scores.len()).collect();
    let (l2, start) = best_of(&choices, &scores).map_or((1e-3, 0), |at| (L2_CANDIDATES[at], at + 1));
    let mut parameters = path.swap_remove(start);
    let regression = Regression::new(&chunks, width, moments.as_deref(), l2);
    let outcome = minimise(&regression, &mut parameters, FINAL)?;

    let mut values = queries.values.clone();
    scaling.apply(&mut values);
    let predicted = predict(&Chunk::cut(&values, width, query_classes, classes), &parameters, width)?;
    Ok(Probe {
        correct: predicted.iter().zip(query_classes).map(|(p, t)| p == t).collect(),
        l2,
        loss: outcome.value,
        iterations: outcome.iterations,
        converged: outcome.converged,
    })
}

/// Mean and inverse deviation of every column; constant columns become 0.
struct Scaling {
    means: Vec<f64>,
    inverse_deviations: Vec<f64>,
}

impl Scaling {
    fn of(values: &[f32], width: usize) -> Self {
        let rows = (values.len() / width).max(1) as f64;
        let column_sums = |term: &(dyn Fn(usize, f64) -> f64 + Sync)| -> Vec<f64> {
            // Chunks of rows of fixed length, added in order: the same bits with any number of threads.
            let parts: Vec<Vec<f64>> = values
                .par_chunks(width * 1_024)
                .map(|chunk| {
                    let mut sums = vec![0.0; width];
                    for row in chunk.chunks(width) {
                        for (column, (sum, &x)) in sums.iter_mut().zip(row).enumerate() {
                            *sum += term(column, f64::from(x));
                        }
                    }
                    sums
                })
                .collect();
            let mut total = vec![0.0; width];
            for part in parts {
                total.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
            }
            total
        };
        let means: Vec<f64> = column_sums(&|_, x| x).iter().map(|sum| sum / rows).collect();
        let squares = column_sums(&|column, x| (x - means[column]).powi(2));
        let inverse = |sum: &f64| {
            let deviation = (sum / rows).sqrt();
            if deviation > LEAST_DEVIATION { 1.0 / deviation } else { 0.0 }
        };
        Self { inverse_deviations: squares.iter().map(inverse).collect(), means }
    }

    fn apply(&self, values: &mut [f32]) {
        values.par_chunks_mut(self.means.len()).for_each(|row| {
            for ((x, mean), inverse) in row.iter_mut().zip(&self.means).zip(&self.inverse_deviations) {
                *x = ((f64::from(*x) - mean) * inverse) as f32;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{evaluate::golden, seed};

    /// `classes` clouds around random centres in 6 dimensions, on columns of very different scale.
    fn clouds(rows: usize, classes: usize, spread: f64, seed: u64) -> (Features, Vec<u32>) {
        let mut centres = seed::draws(1, "centres", &[]);
        let centres: Vec<f64> = (0..classes * 6).map(|_| centres.normal()).collect();
        let mut draws = seed::draws(seed, "clouds", &[]);
        let row_classes: Vec<u32> = (0..rows).map(|row| (row % classes) as u32).collect();
        let mut values = vec![];
        for &class in &row_classes {
            for column in 0..6 {
                let x = centres[class as usize * 6 + column] + spread * draws.normal();
                values.push((x * 10_f64.powi(column as i32 - 3) + 5.0) as f32);
            }
            values.push(3.0); // a constant column
        }
        let sample_ids = (0..rows as u64).collect();
        (Features { values, width: 7, labels: vec![String::new(); rows], sample_ids }, row_classes)
    }

    #[test]
    fn separate_clouds_are_told_apart() {
        let ((bank, classes), (queries, truth)) = (clouds(600, 3, 0.1, 2), clouds(90, 3, 0.1, 3));
        let probe = linear_probe(&bank, &classes, &queries, &truth, &HeldOut::of(600, 0), 3).unwrap();
        assert!(probe.correct.iter().all(|&right| right));
        assert!(probe.converged);
    }

    #[test]
    fn optimum_equals_that_of_newtons_method_in_numpy() {
        let (bank, classes) = golden::features(0, golden::BANK_ROWS);
        let (queries, _) = golden::features(5_000, golden::QUERY_ROWS);
        let scaling = Scaling::of(&bank.values, golden::WIDTH);
        let chunks_of = |features: &Features, classes: &[u32]| {
            let mut values = features.values.clone();
            scaling.apply(&mut values);
            Chunk::cut(&values, golden::WIDTH, classes, 3)
        };
        let chunks = chunks_of(&bank, &classes);
        let moments = second_moments(&chunks, golden::WIDTH).unwrap();
        for case in golden::numbers()["probes"].as_array().unwrap() {
            let l2 = case["l2"].as_f64().unwrap();
            // With all second moments as the first metric and with their diagonal, as wide features have it.
            for moments in [moments.as_deref(), None] {
                let mut parameters = vec![0.0; (golden::WIDTH + 1) * 3];
                let regression = Regression::new(&chunks, golden::WIDTH, moments, l2);
                let outcome = minimise(&regression, &mut parameters, Stop { gain: 0.0, ..FINAL }).unwrap();
                assert!(outcome.converged);
                assert!((outcome.value - case["loss"].as_f64().unwrap()).abs() < 2e-6, "L2 {l2}: {outcome:?}");
                let predicted = predict(&chunks_of(&queries, &[0; 60]), &parameters, golden::WIDTH).unwrap();
                assert_eq!(predicted, golden::integers(&case["predicted"]), "L2 {l2}");
            }
        }
    }

    #[test]
    fn result_does_not_depend_on_the_number_of_threads() {
        let ((bank, classes), (queries, truth)) = (clouds(6_000, 4, 1.0, 2), clouds(500, 4, 1.0, 3));
        let with_threads = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| linear_probe(&bank, &classes, &queries, &truth, &HeldOut::of(6_000, 0), 4).unwrap())
        };
        let one = with_threads(1);
        assert_eq!(one, with_threads(3));
        let right = one.correct.iter().filter(|&&right| right).count();
        assert!((250..500).contains(&right), "{right}: the test needs overlapping classes");
    }

    #[test]
    fn queries_of_unknown_class_count_as_wrong() {
        let ((bank, classes), (queries, mut truth)) = (clouds(600, 3, 0.1, 2), clouds(9, 3, 0.1, 3));
        truth[4] = UNKNOWN_CLASS;
        let probe = linear_probe(&bank, &classes, &queries, &truth, &HeldOut::of(600, 0), 3).unwrap();
        assert_eq!(probe.correct.iter().filter(|&&right| !right).count(), 1);
        assert!(!probe.correct[4]);
    }
}
