//! Intervals for accuracies: of one classifier, of two on the same samples, and of means over draws of labels.

use serde::{Deserialize, Serialize};

/// 97.5 % point of the standard normal: two-sided 95 %.
const Z95: f64 = 1.959_963_984_540_054;

/// Share of samples for which `correct` holds; 0 for none.
pub fn accuracy(correct: &[bool]) -> f64 {
    if correct.is_empty() { 0.0 } else { count(correct) as f64 / correct.len() as f64 }
}

fn count(correct: &[bool]) -> usize {
    correct.iter().filter(|&&right| right).count()
}

/// Wilson's 95 % score interval for `successes` out of `trials` (Wilson 1927): inside [0, 1] and sound near its ends.
///
/// `[0, 1]` for no trials.
pub fn wilson_95(successes: usize, trials: usize) -> [f64; 2] {
    if trials == 0 {
        return [0.0, 1.0];
    }
    wilson_share_95(successes as f64 / trials as f64, trials as f64)
}

/// The same for a share of a number of trials that need not be whole.
fn wilson_share_95(share: f64, trials: f64) -> [f64; 2] {
    let z2 = Z95 * Z95;
    let centre = (share + z2 / (2.0 * trials)) / (1.0 + z2 / trials);
    let half = Z95 / (1.0 + z2 / trials) * (share * (1.0 - share) / trials + z2 / (4.0 * trials * trials)).sqrt();
    // At 0 and at 1 one end is exactly the end of the range; rounding must not say otherwise.
    let low = if share <= 0.0 { 0.0 } else { centre - half };
    let high = if share >= 1.0 { 1.0 } else { centre + half };
    [low, high]
}

/// A mean of values in [0, 1] that come in clusters, such as hits of the captions of one image, with its 95 % interval.
///
/// Wilson's interval for as many independent trials as the clusters are worth: the number of values over the design effect,
/// which is the variance of the mean between clusters over that of independent successes (Kish 1965; Korn and Graubard,
/// Survey Methodology 24, 1998). The design effect counts as at least 1, so that clusters of one are Wilson's own interval;
/// where all values are 0 or all are 1 a cluster counts as one trial.
pub fn clustered_95(clusters: &[Vec<f64>]) -> (f64, [f64; 2]) {
    let used: Vec<&Vec<f64>> = clusters.iter().filter(|cluster| !cluster.is_empty()).collect();
    let values = used.iter().map(|cluster| cluster.len()).sum::<usize>() as f64;
    if values == 0.0 {
        return (0.0, [0.0, 1.0]);
    }
    let share = used.iter().flat_map(|cluster| cluster.iter()).sum::<f64>() / values;
    let binomial = share * (1.0 - share) / values;
    let count = used.len() as f64;
    let trials = if binomial <= 0.0 || used.len() < 2 {
        count
    } else {
        let residual = |cluster: &&Vec<f64>| cluster.iter().map(|value| value - share).sum::<f64>().powi(2);
        let between = used.iter().map(residual).sum::<f64>() * count / (count - 1.0) / (values * values);
        let is_apart = used.len() as f64 == values;
        if is_apart { values } else { values / (between / binomial).max(1.0) }
    };
    (share, wilson_share_95(share, trials))
}

/// Wilson's interval of an accuracy.
pub fn accuracy_95(correct: &[bool]) -> [f64; 2] {
    wilson_95(count(correct), correct.len())
}

/// Two classifiers on the same samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Paired {
    /// Accuracy of the first minus accuracy of the second.
    pub difference: f64,
    /// 95 % interval of the difference.
    pub ci95: [f64; 2],
    /// Samples that only the first gets right, per draw where there are draws.
    pub only_first: f64,
    /// Samples that only the second gets right.
    pub only_second: f64,
}

/// Difference of two accuracies on the same samples, from the discordant pairs alone, as in McNemar's test.
///
/// The interval is Agresti and Min's adjusted Wald interval (Statistics in Medicine 24, 2005): half a pair is added to
/// each of the four cells, which keeps its coverage where few pairs are discordant. Samples past the shorter slice
/// are not looked at.
pub fn paired(first: &[bool], second: &[bool]) -> Paired {
    let n = first.len().min(second.len());
    let only = |a: &[bool], b: &[bool]| a.iter().zip(b).filter(|&(&a, &b)| a && !b).count() as f64;
    let (b, c) = (only(first, second), only(second, first));
    if n == 0 {
        return Paired { difference: 0.0, ci95: [-1.0, 1.0], only_first: 0.0, only_second: 0.0 };
    }
    let (adjusted_b, adjusted_c, adjusted_n) = (b + 0.5, c + 0.5, n as f64 + 2.0);
    let centre = (adjusted_b - adjusted_c) / adjusted_n;
    let variance = (adjusted_b + adjusted_c - (adjusted_b - adjusted_c).powi(2) / adjusted_n) / adjusted_n.powi(2);
    let half = Z95 * variance.max(0.0).sqrt();
    Paired {
        difference: (b - c) / n as f64,
        ci95: [(centre - half).max(-1.0), (centre + half).min(1.0)],
        only_first: b,
        only_second: c,
    }
}

/// Difference of two means of values in [0, 1] on the same samples, which come in the same clusters.
///
/// [`paired`]'s interval where every sample is a cluster and every value 0 or 1. Values between those (hits among ties)
/// count by their squared differences, and clusters as in [`clustered_95`]: as many samples as they are worth.
pub fn clustered_paired(first: &[Vec<f64>], second: &[Vec<f64>]) -> Paired {
    let gaps = |(a, b): (&Vec<f64>, &Vec<f64>)| a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<f64>>();
    let clusters: Vec<Vec<f64>> = first.iter().zip(second).map(gaps).filter(|gaps| !gaps.is_empty()).collect();
    let all = || clusters.iter().flatten();
    let n = all().count() as f64;
    if n == 0.0 {
        return Paired { difference: 0.0, ci95: [-1.0, 1.0], only_first: 0.0, only_second: 0.0 };
    }
    let only_first: f64 = all().map(|gap| gap.max(0.0)).sum();
    let only_second: f64 = all().map(|gap| (-gap).max(0.0)).sum();
    let squares: f64 = all().map(|gap| gap * gap).sum();
    let difference = (only_first - only_second) / n;
    let count = clusters.len() as f64;
    let apart = squares - n * difference * difference;
    let design = if count == n {
        1.0
    } else if apart <= 0.0 || clusters.len() < 2 {
        n / count
    } else {
        let residual = |gaps: &Vec<f64>| gaps.iter().map(|gap| gap - difference).sum::<f64>().powi(2);
        (clusters.iter().map(residual).sum::<f64>() * count / (count - 1.0) / apart).max(1.0)
    };
    let adjusted_n = n / design + 2.0;
    let centre = (only_first - only_second) / design / adjusted_n;
    let variance = (squares / design + 1.0 - adjusted_n * centre * centre) / adjusted_n.powi(2);
    let half = Z95 * variance.max(0.0).sqrt();
    Paired { difference, ci95: [(centre - half).max(-1.0), (centre + half).min(1.0)], only_first, only_second }
}

/// A mean over draws × samples with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CrossedMean {
    /// Over all draws and samples.
    pub mean: f64,
    /// Covers the choice of draws and the choice of samples.
    pub ci95: [f64; 2],
}

/// Mean of `value(draw, sample)` where every draw meets every sample.
///
/// Draws and samples are both random, so the variance is s²(means by draw) / draws + s²(means by sample) / samples, with
/// Student's quantile by Welch and Satterthwaite's degrees of freedom. The residual is counted in both terms, which
/// makes the interval a little wide rather than narrow. One draw tells nothing about draws: then samples alone count.
pub fn crossed_mean(draws: usize, samples: usize, value: impl Fn(usize, usize) -> f64) -> CrossedMean {
    if draws == 0 || samples == 0 {
        return CrossedMean { mean: 0.0, ci95: [-1.0, 1.0] };
    }
    let mut by_draw = vec![0.0; draws];
    let mut by_sample = vec![0.0; samples];
    for (draw, draw_sum) in by_draw.iter_mut().enumerate() {
        for (sample, sample_sum) in by_sample.iter_mut().enumerate() {
            let x = value(draw, sample);
            *draw_sum += x;
            *sample_sum += x;
        }
    }
    by_draw.iter_mut().for_each(|sum| *sum /= samples as f64);
    by_sample.iter_mut().for_each(|sum| *sum /= draws as f64);
    let mean = by_draw.iter().sum::<f64>() / draws as f64;
    let of_draws = variance_of_mean(&by_draw, mean);
    let of_samples = variance_of_mean(&by_sample, mean);
    let variance = of_draws + of_samples;
    let freedom = |part: f64, n: usize| if n > 1 { part * part / (n - 1) as f64 } else { 0.0 };
    let denominator = freedom(of_draws, draws) + freedom(of_samples, samples);
    let degrees = if denominator > 0.0 { variance * variance / denominator } else { f64::INFINITY };
    let half = student_975(degrees) * variance.sqrt();
    CrossedMean { mean, ci95: [mean - half, mean + half] }
}

fn variance_of_mean(values: &[f64], mean: f64) -> f64 {
    let n = values.len();
    if n < 2 {
        return 0.0;
    }
    values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1) as f64 / n as f64
}

/// A mean with its 95 % interval over parts that were left out in turn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Jackknifed {
    /// Of everything.
    pub mean: f64,
    /// Infinite where there are fewer than two parts, or one of them is everything.
    pub ci95: [f64; 2],
    /// How many parts.
    pub parts: usize,
}

/// `mean` with an interval from the `without`, what it is without each part: variance (n − 1)/n · Σ (without − their mean)²
/// and Student's t with n − 1 degrees (Tukey 1958). For disjoint parts of one size this is the t interval of their means; what
/// belongs to several parts, such as a comparison of two speakers, is left out with each of them.
pub fn jackknife_95(mean: f64, without: &[f64]) -> Jackknifed {
    let (n, parts) = (without.len() as f64, without.len());
    if parts < 2 || without.iter().any(|value| !value.is_finite()) {
        return Jackknifed { mean, ci95: [f64::NEG_INFINITY, f64::INFINITY], parts };
    }
    let centre = without.iter().sum::<f64>() / n;
    let variance = (n - 1.0) / n * without.iter().map(|x| (x - centre).powi(2)).sum::<f64>();
    let half = student_975(n - 1.0) * variance.sqrt();
    Jackknifed { mean, ci95: [mean - half, mean + half], parts }
}

/// 97.5 % points of Student's t with 1, 2, … 9 degrees.
const STUDENT_975: [f64; 9] =
    [12.706_205, 4.302_653, 3.182_446, 2.776_445, 2.570_582, 2.446_912, 2.364_624, 2.306_004, 2.262_157];

/// 97.5 % point of Student's t. From 9 degrees on by the expansion in 1/ν (Abramowitz and Stegun 26.7.5), within .001; below
/// by the table, between its degrees linear in 1/ν.
fn student_975(degrees: f64) -> f64 {
    if degrees < STUDENT_975.len() as f64 {
        let below = (degrees.floor() as usize).clamp(1, STUDENT_975.len() - 1);
        let [low, high] = [below, below + 1].map(|degrees| 1.0 / degrees as f64);
        let share = ((low - 1.0 / degrees.max(1.0)) / (low - high)).clamp(0.0, 1.0);
        return STUDENT_975[below - 1] + share * (STUDENT_975[below] - STUDENT_975[below - 1]);
    }
    let z = Z95;
    let terms = [
        (z.powi(3) + z) / 4.0,
        (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0,
        (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0,
    ];
    z + terms[0] / degrees + terms[1] / degrees.powi(2) + terms[2] / degrees.powi(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: [f64; 2], b: [f64; 2], tolerance: f64) {
        assert!((a[0] - b[0]).abs() < tolerance && (a[1] - b[1]).abs() < tolerance, "{a:?} {b:?}");
    }

    #[test]
    fn wilson_gives_published_values() {
        // Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
        close(wilson_95(81, 263), [0.2553, 0.3662], 5e-5);
        close(wilson_95(15, 148), [0.0624, 0.1605], 5e-5);
        close(wilson_95(0, 20), [0.0, 0.1611], 5e-5);
        close(wilson_95(1, 29), [0.0061, 0.1718], 5e-5);
        assert_eq!(wilson_95(29, 29)[1], 1.0);
        assert_eq!(wilson_95(0, 0), [0.0, 1.0]);
    }

    #[test]
    fn paired_interval_knows_that_samples_are_shared() {
        // 1,000 samples; both right on 800, only the first on 60, only the second on 30.
        let first: Vec<bool> = (0..1000).map(|i| i < 860).collect();
        let second: Vec<bool> = (0..1000).map(|i| i < 800 || (860..890).contains(&i)).collect();
        let result = paired(&first, &second);
        assert_eq!((result.only_first, result.only_second), (60.0, 30.0));
        assert!((result.difference - 0.03).abs() < 1e-12);
        // By hand: b = 60.5, c = 30.5, n = 1002: .02994 ± 1.96 · .009474.
        close(result.ci95, [0.011_37, 0.048_51], 5e-5);
        let reverse = paired(&second, &first);
        assert!((reverse.difference + result.difference).abs() < 1e-12);
        close(reverse.ci95, [-result.ci95[1], -result.ci95[0]], 1e-12);
    }

    #[test]
    fn equal_classifiers_differ_by_zero_with_an_interval_around_it() {
        let result = paired(&[true; 50], &[true; 50]);
        assert_eq!(result.difference, 0.0);
        assert!(result.ci95[0] < 0.0 && result.ci95[1] > 0.0);
    }

    #[test]
    fn paired_clusters_of_one_are_paired_samples_and_larger_ones_widen_the_interval() {
        let first: Vec<bool> = (0..300).map(|i| i < 200).collect();
        let second: Vec<bool> = (0..300).map(|i| (20..150).contains(&i) || i > 290).collect();
        let apart = |right: &[bool]| right.iter().map(|&right| vec![f64::from(u8::from(right))]).collect::<Vec<_>>();
        let (plain, clustered) = (paired(&first, &second), clustered_paired(&apart(&first), &apart(&second)));
        close(clustered.ci95, plain.ci95, 1e-12);
        assert_eq!((clustered.only_first, clustered.only_second), (plain.only_first, plain.only_second));
        // Five samples that agree are worth one; the between variance divides by one cluster less.
        let five_fold = |right: &[bool]| apart(right).iter().map(|value| vec![value[0]; 5]).collect::<Vec<_>>();
        let of_clusters = clustered_paired(&five_fold(&first), &five_fold(&second));
        assert!((of_clusters.difference - plain.difference).abs() < 1e-12);
        close(of_clusters.ci95, plain.ci95, 5e-4);
        // All alike in every cluster: one trial each, no more.
        let all = |value: f64| vec![vec![value; 5]; 29];
        let ones = vec![vec![1.0]; 29];
        close(clustered_paired(&all(1.0), &all(0.0)).ci95, clustered_paired(&ones, &apart(&[false; 29])).ci95, 1e-12);
        assert_eq!(clustered_paired(&[], &[]).ci95, [-1.0, 1.0]);
    }

    #[test]
    fn values_by_themselves_have_wilsons_interval_and_clusters_a_wider_one() {
        let apart: Vec<Vec<f64>> = (0..263).map(|at| vec![f64::from(at < 81)]).collect();
        let (share, ci95) = clustered_95(&apart);
        assert!((share - 81.0 / 263.0).abs() < 1e-12);
        close(ci95, wilson_95(81, 263), 1e-12);
        // Five values that agree are worth one.
        let five_fold: Vec<Vec<f64>> = apart.iter().map(|value| vec![value[0]; 5]).collect();
        let (same, of_clusters) = clustered_95(&five_fold);
        assert!((same - share).abs() < 1e-12);
        // The between variance divides by one cluster less: 262 trials instead of 263.
        close(of_clusters, wilson_share_95(share, 262.0), 1e-9);
        // Values of a cluster that know nothing of each other are worth what they count.
        let mixed: Vec<Vec<f64>> = (0..100).map(|_| vec![1.0, 0.0]).collect();
        close(clustered_95(&mixed).1, wilson_95(100, 200), 1e-12);
    }

    #[test]
    fn at_the_ends_a_cluster_is_one_trial() {
        let all = vec![vec![1.0; 5]; 29];
        close(clustered_95(&all).1, wilson_95(29, 29), 1e-12);
        assert_eq!(clustered_95(&[vec![], vec![0.0; 3]]).1, wilson_95(0, 1));
        assert_eq!(clustered_95(&[]), (0.0, [0.0, 1.0]));
    }

    #[test]
    fn student_is_near_its_tabulated_values() {
        for (degrees, expected, tolerance) in [
            (9.0, 2.262_157, 1e-3),
            (30.0, 2.042_272, 1e-4),
            (4.0, 2.776_445, 1e-6),
            (1.0, 12.706_205, 1e-6),
            (0.3, 12.706_205, 1e-6),
            (8.999, 2.262_157, 1e-3),
            (4.5, 2.66, 0.01),
        ] {
            assert!((student_975(degrees) - expected).abs() < tolerance, "{degrees}");
        }
        assert_eq!(student_975(f64::INFINITY), Z95);
    }

    #[test]
    fn parts_left_out_in_turn_give_the_t_interval_of_their_means() {
        let means: [f64; 6] = [0.1, 0.3, 0.2, 0.25, 0.05, 0.3];
        let mean = means.iter().sum::<f64>() / 6.0;
        let without: Vec<f64> = means.iter().map(|x| (mean * 6.0 - x) / 5.0).collect();
        let found = jackknife_95(mean, &without);
        let half = 2.570_582 * variance_of_mean(&means, mean).sqrt();
        close(found.ci95, [mean - half, mean + half], 1e-12);
        assert_eq!((found.mean, found.parts), (mean, 6));
        for too_few in [&without[..1], &[0.5, f64::NAN][..]] {
            assert_eq!(jackknife_95(mean, too_few).ci95, [f64::NEG_INFINITY, f64::INFINITY]);
        }
    }

    #[test]
    fn spread_between_draws_widens_the_interval() {
        let same = crossed_mean(10, 1000, |_, sample| f64::from(sample % 2 == 0));
        let spread = crossed_mean(10, 1000, |draw, sample| f64::from((sample + draw) % 10 <= draw));
        assert!((same.mean - 0.5).abs() < 1e-12);
        // Draws that agree leave the samples' own interval: 1.96 · √(.25 / 999).
        close(same.ci95, [0.469, 0.531], 5e-4);
        assert!(spread.ci95[1] - spread.ci95[0] > 3.0 * (same.ci95[1] - same.ci95[0]));
    }
}
