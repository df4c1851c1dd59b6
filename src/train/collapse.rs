//! The collapse watch: whether embeddings still tell items apart, and a warning in words where they do not.
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::error::{Context, Result, Stage};

/// Warn below this share of the spread of evenly distributed embeddings, 1/√width.
const SPREAD_SHARE: f64 = 0.1;
/// Warn where the loss keeps this close, relatively, to what it is without any signal, …
const NO_SIGNAL_SHARE: f64 = 0.01;
/// … for so many steps.
const NO_SIGNAL_STEPS: u64 = 500;
/// Items that the effective rank looks at: its eigenvalues cost the cube of what is counted.
const RANK_ITEMS: usize = 256;
/// Side of the matrix up to which its eigenvalues are cheap beside a step: about 20 ms.
const CHEAP_RANK_SIDE: usize = 256;
/// Halvings of the interval around an eigenvalue: to a 10¹²th of the largest.
const BISECTIONS: usize = 40;

/// Statistics of the L2-normalised embeddings z₁, z₂ of one batch's two views.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Embeddings {
    /// E‖z₁ − z₂‖² over pairs (Wang and Isola, arXiv:2005.10242): 0 is best.
    pub alignment: f64,
    /// ln E e^(−2‖zᵢ − zⱼ‖²) over different items of one view, mean over the views (same paper): lower is better.
    pub uniformity: f64,
    /// Standard deviation over items, mean over dimensions; healthy ≈ 1/√width.
    pub embedding_std: f64,
    /// exp of the entropy of the covariance's normalised eigenvalues (after Roy and Vetterli 2007) over the first 256 items,
    /// 1 … min(width, 511). Above 256 eigenvalues, which cost more than the rest of a report together, only every tenth
    /// report and the first have it.
    pub effective_rank: Option<f64>,
    /// Mean cosine of the two views of an item.
    pub positive_cosine: f64,
    /// Mean cosine of views of different items.
    pub negative_cosine: f64,
}

/// Measures `[items, width]` embeddings of both views with one read from the device.
///
/// # Errors
/// The device fails.
pub fn measure(embeddings: &[Tensor<2>; 2], with_rank: bool) -> Result<Embeddings> {
    let [first, second] = embeddings.clone().map(Tensor::inner);
    let [items, width] = first.dims();
    let n = items as f64;
    let scalar = |tensor: Tensor<2>| tensor.sum_dim(1).sum_dim(0).reshape([1]); // [1]
    let positive = scalar(first.clone() * second.clone());
    // ‖zᵢ − zⱼ‖² = 2 − 2 zᵢ·zⱼ for rows of length 1.
    let potential = |view: &Tensor<2>| scalar((view.clone().matmul(view.clone().transpose()) * 4.0 - 4.0).exp());
    let potentials = [potential(&first), potential(&second)];
    let spread = with_rank.then(|| spread_matrix(&first, &second));
    let both = Tensor::cat(vec![first, second], 0); // [2 items, width]
    let length = scalar(both.clone() * both.clone());
    let mean = both.clone().sum_dim(0) / (2.0 * n); // [1, width]
    let centred = both - mean.clone();
    let variances = (centred.clone() * centred).sum_dim(0) / (2.0 * n); // [1, width]

    let [one, two] = potentials;
    let mut parts = vec![positive, length, one, two, mean.reshape([width]), variances.reshape([width])];
    let side = spread.as_ref().map_or(0, |spread| spread.dims()[0]);
    parts.extend(spread.map(|spread| spread.reshape([side * side])));
    let data = Tensor::cat(parts, 0).into_data(); // [4 + 2 width (+ side²)]
    let values = data.as_slice::<f32>().context(Stage::Train, "embeddings", "cannot read their statistics")?;
    let values: Vec<f64> = values.iter().map(|&x| f64::from(x)).collect();
    let (scalars, rest) = values.split_at(4);
    let (mean, rest) = rest.split_at(width);
    let (variances, spread) = rest.split_at(width);

    let uniformity = |sum: f64| libm::log(((sum - n) / (n * (n - 1.0))).max(f64::MIN_POSITIVE));
    let all_pairs = 4.0 * n * n * mean.iter().map(|m| m * m).sum::<f64>();
    Ok(Embeddings {
        alignment: (scalars[1] - 2.0 * scalars[0]) / n,
        uniformity: 0.5 * (uniformity(scalars[2]) + uniformity(scalars[3])),
        embedding_std: variances.iter().map(|&v| libm::sqrt(v)).sum::<f64>() / width as f64,
        effective_rank: with_rank.then(|| effective_rank(spread, side)),
        positive_cosine: scalars[0] / n,
        negative_cosine: (all_pairs - scalars[1] - 2.0 * scalars[0]) / (2.0 * n * (2.0 * n - 2.0)),
    })
}

/// A matrix with the covariance's eigenvalues, but for a factor and for zeros: ZᵀZ or ZZᵀ, whichever is smaller, for the
/// centred rows Z of both views. `[side, side]`
fn spread_matrix(first: &Tensor<2>, second: &Tensor<2>) -> Tensor<2> {
    let [items, width] = first.dims();
    let items = items.min(RANK_ITEMS);
    let part = |view: &Tensor<2>| view.clone().narrow(0, 0, items); // [items, width]
    let rows = Tensor::cat(vec![part(first), part(second)], 0); // [2 items, width]
    let rows = rows.clone() - rows.sum_dim(0) / (2.0 * items as f64);
    let turned = rows.clone().transpose(); // [width, 2 items]
    if width <= 2 * items { turned.matmul(rows) } else { rows.matmul(turned) }
}

/// Whether every report can have the effective rank of embeddings of this shape.
pub fn rank_is_cheap(items: usize, width: usize) -> bool {
    width.min(2 * items.min(RANK_ITEMS)) <= CHEAP_RANK_SIDE
}

/// What the watch has seen so far; a part of every checkpoint.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct CollapseWatch {
    no_signal_since: Option<u64>,
    warned_of_loss: bool,
    warned_of_spread: bool,
}

impl CollapseWatch {
    /// Warnings that the report of `step` gives reason for; each is given once until its cause is gone.
    ///
    /// `no_signal` is the loss of embeddings that say nothing.
    pub fn look(&mut self, step: u64, loss: f64, no_signal: f64, width: usize, seen: &Embeddings) -> Vec<String> {
        let mut warnings = Vec::new();
        let healthy = 1.0 / libm::sqrt(width as f64);
        let narrow = seen.embedding_std < SPREAD_SHARE * healthy;
        if narrow && !self.warned_of_spread {
            warnings.push(format!(
                "step {step}: the embeddings are collapsing: their standard deviation is {:.4}, a healthy one is about \
                 {healthy:.4}; lower the learning rate, or look at the pairs with `diptych preview`",
                seen.embedding_std
            ));
        }
        self.warned_of_spread = narrow;

        if (loss - no_signal).abs() > NO_SIGNAL_SHARE * no_signal {
            (self.no_signal_since, self.warned_of_loss) = (None, false);
            return warnings;
        }
        let since = *self.no_signal_since.get_or_insert(step);
        if step - since >= NO_SIGNAL_STEPS && !self.warned_of_loss {
            self.warned_of_loss = true;
            warnings.push(format!(
                "step {step}: the loss has been within 1 % of {no_signal:.4}, its value without any signal, for {} steps: \
                 nothing is being learnt; change the learning rate, or make the task easier",
                step - since
            ));
        }
        warnings
    }
}

/// exp(−Σ p ln p) over the eigenvalues' shares p of a symmetric positive semi-definite `[width, width]` matrix.
fn effective_rank(matrix: &[f64], width: usize) -> f64 {
    let eigenvalues: Vec<f64> = eigenvalues(matrix, width).into_iter().map(|x| x.max(0.0)).collect();
    let sum: f64 = eigenvalues.iter().sum();
    if sum <= 0.0 {
        return 0.0;
    }
    let shares = eigenvalues.iter().map(|x| x / sum).filter(|p| *p > 0.0);
    libm::exp(-shares.map(|p| p * libm::log(p)).sum::<f64>())
}

/// Eigenvalues of a symmetric matrix, ascending.
fn eigenvalues(matrix: &[f64], width: usize) -> Vec<f64> {
    let (diagonal, beside) = tridiagonal(matrix.to_vec(), width);
    let radius = |i: usize| {
        let left = if i == 0 { 0.0 } else { beside[i - 1].abs() };
        left + beside.get(i).map_or(0.0, |x| x.abs())
    };
    // Gershgorin: every eigenvalue is within these.
    let low = (0..width).map(|i| diagonal[i] - radius(i)).fold(f64::INFINITY, f64::min);
    let high = (0..width).map(|i| diagonal[i] + radius(i)).fold(f64::NEG_INFINITY, f64::max);
    let tiny = f64::EPSILON * low.abs().max(high.abs()).max(f64::MIN_POSITIVE);
    // Sturm: the negative pivots of T − xI count the eigenvalues below x.
    let below = |x: f64| {
        let mut pivot = 1.0;
        let mut count = 0;
        for i in 0..width {
            let coupling = if i == 0 { 0.0 } else { beside[i - 1] * beside[i - 1] / pivot };
            pivot = diagonal[i] - x - coupling;
            if pivot.abs() < tiny {
                pivot = -tiny;
            }
            count += usize::from(pivot < 0.0);
        }
        count
    };
    let nth = |n: usize| {
        let (mut low, mut high) = (low, high);
        for _ in 0..BISECTIONS {
            let middle = 0.5 * (low + high);
            if below(middle) > n { high = middle } else { low = middle }
        }
        0.5 * (low + high)
    };
    (0..width).map(nth).collect()
}

/// Householder's reduction of a symmetric matrix to diagonal and off-diagonal.
fn tridiagonal(mut a: Vec<f64>, width: usize) -> (Vec<f64>, Vec<f64>) {
    let mut beside = vec![0.0; width.saturating_sub(1)];
    for k in 0..width.saturating_sub(2) {
        let from = k + 1;
        let mut v: Vec<f64> = (from..width).map(|i| a[i * width + k]).collect();
        let length = libm::sqrt(v.iter().map(|x| x * x).sum());
        let end = if v[0] > 0.0 { -length } else { length };
        beside[k] = end;
        v[0] -= end;
        let norm = libm::sqrt(v.iter().map(|x| x * x).sum());
        if norm == 0.0 {
            continue;
        }
        v.iter_mut().for_each(|x| *x /= norm);
        let row = |i: usize| (from + i) * width + from;
        let product = |i: usize| v.iter().zip(&a[row(i)..]).map(|(x, y)| x * y).sum::<f64>();
        let p: Vec<f64> = (0..v.len()).map(product).collect();
        let along: f64 = p.iter().zip(&v).map(|(x, y)| x * y).sum();
        let w: Vec<f64> = p.iter().zip(&v).map(|(x, y)| x - along * y).collect();
        for i in 0..v.len() {
            for (j, x) in a[row(i)..row(i) + v.len()].iter_mut().enumerate() {
                *x -= 2.0 * (v[i] * w[j] + w[i] * v[j]);
            }
        }
    }
    if width > 1 {
        beside[width - 2] = a[(width - 1) * width + width - 2];
    }
    ((0..width).map(|i| a[i * width + i]).collect(), beside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    /// `[items, width]` of unit rows; `spread` 0 makes them equal.
    fn rows(name: u64, items: usize, width: usize, spread: f64) -> Vec<Vec<f64>> {
        let mut draws = crate::seed::draws(name, "embeddings", &[]);
        let mut row = || {
            let raw: Vec<f64> = (0..width).map(|j| f64::from(u8::from(j == 0)) + spread * draws.normal()).collect();
            let length = raw.iter().map(|x| x * x).sum::<f64>().sqrt();
            raw.into_iter().map(|x| x / length).collect()
        };
        (0..items).map(|_| row()).collect()
    }

    fn tensor(rows: &[Vec<f64>]) -> Tensor<2> {
        let shape = [rows.len(), rows[0].len()];
        let values: Vec<f32> = rows.iter().flatten().map(|&x| x as f32).collect();
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    }

    fn dot(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(x, y)| x * y).sum()
    }

    #[test]
    fn statistics_equal_their_definitions() {
        let (items, width) = (24, 10);
        let views = [rows(1, items, width, 3.0), rows(2, items, width, 0.7)];
        let seen = measure(&[tensor(&views[0]), tensor(&views[1])], true).unwrap();
        let n = items as f64;
        let positive = (0..items).map(|i| dot(&views[0][i], &views[1][i])).sum::<f64>() / n;
        let all: Vec<&Vec<f64>> = views.iter().flatten().collect();
        let mut negative = Vec::new();
        let mut uniformity = 0.0;
        for i in 0..2 * items {
            let others = (0..2 * items).filter(|j| j % items != i % items);
            negative.extend(others.map(|j| dot(all[i], all[j])));
        }
        for view in &views {
            let pairs = (0..items).flat_map(|i| (0..items).filter(move |j| *j != i).map(move |j| (i, j)));
            let sum: f64 = pairs.map(|(i, j)| (-2.0 * (2.0 - 2.0 * dot(&view[i], &view[j]))).exp()).sum();
            uniformity += 0.5 * (sum / (n * (n - 1.0))).ln();
        }
        let std = (0..width).map(|j| {
            let mean = all.iter().map(|z| z[j]).sum::<f64>() / (2.0 * n);
            (all.iter().map(|z| (z[j] - mean).powi(2)).sum::<f64>() / (2.0 * n)).sqrt()
        });
        let close = |a: f64, b: f64| assert!((a - b).abs() < 2e-5, "{a} {b}");
        close(seen.positive_cosine, positive);
        close(seen.alignment, 2.0 - 2.0 * positive);
        close(seen.negative_cosine, negative.iter().sum::<f64>() / negative.len() as f64);
        close(seen.uniformity, uniformity);
        close(seen.embedding_std, std.sum::<f64>() / width as f64);
        let rank = seen.effective_rank.unwrap();
        let mut covariance = vec![0.0; width * width];
        for z in &all {
            for (i, c) in covariance.iter_mut().enumerate() {
                let mean = |j: usize| all.iter().map(|z| z[j]).sum::<f64>() / (2.0 * n);
                *c += (z[i / width] - mean(i / width)) * (z[i % width] - mean(i % width));
            }
        }
        assert!((rank - effective_rank(&covariance, width)).abs() < 1e-3, "{rank}");
        assert!(rank > 5.0 && rank < 10.0, "{rank}");
    }

    #[test]
    fn effective_rank_is_the_same_from_the_side_of_the_items() {
        let views = [rows(1, 4, 20, 3.0), rows(2, 4, 20, 0.7)];
        let rank = measure(&[tensor(&views[0]), tensor(&views[1])], true).unwrap().effective_rank.unwrap();
        let all: Vec<&Vec<f64>> = views.iter().flatten().collect();
        let mean: Vec<f64> = (0..20).map(|j| all.iter().map(|z| z[j]).sum::<f64>() / 8.0).collect();
        let covariance = |i: usize, j: usize| all.iter().map(|z| (z[i] - mean[i]) * (z[j] - mean[j])).sum::<f64>();
        let dense: Vec<f64> = (0..400).map(|i| covariance(i / 20, i % 20)).collect();
        assert!((rank - effective_rank(&dense, 20)).abs() < 1e-3, "{rank}");
    }

    #[test]
    fn effective_rank_is_one_on_a_line_and_the_width_on_a_sphere() {
        let width = 8;
        let mut line = vec![0.0; width * width];
        for i in 0..width {
            for j in 0..width {
                line[i * width + j] = (i + 1) as f64 * (j + 1) as f64;
            }
        }
        assert!((effective_rank(&line, width) - 1.0).abs() < 1e-6);
        let sphere: Vec<f64> = (0..width * width).map(|i| f64::from(u8::from(i % (width + 1) == 0))).collect();
        assert!((effective_rank(&sphere, width) - 8.0).abs() < 1e-9);
        assert_eq!(effective_rank(&[0.0; 4], 2), 0.0);
        assert_eq!(effective_rank(&[0.5], 1), 1.0);
    }

    #[test]
    fn eigenvalues_are_the_closed_form_ones_and_keep_the_traces() {
        // Second differences: 2 − 2 cos(kπ/(n+1)).
        let n = 40;
        let mut differences = vec![0.0; n * n];
        for i in 0..n {
            differences[i * n + i] = 2.0;
            if i + 1 < n {
                differences[i * n + i + 1] = -1.0;
                differences[(i + 1) * n + i] = -1.0;
            }
        }
        for (k, found) in eigenvalues(&differences, n).into_iter().enumerate() {
            let expected = 2.0 - 2.0 * (std::f64::consts::PI * (k + 1) as f64 / (n + 1) as f64).cos();
            assert!((found - expected).abs() < 1e-10, "{k}: {found} {expected}");
        }
        let views = rows(3, n, n, 1.0);
        let dense: Vec<f64> = (0..n * n).map(|i| dot(&views[i / n], &views[i % n])).collect();
        let found = eigenvalues(&dense, n);
        assert!((found.iter().sum::<f64>() - n as f64).abs() < 1e-8);
        let squares = dense.iter().map(|x| x * x).sum::<f64>();
        assert!((found.iter().map(|x| x * x).sum::<f64>() - squares).abs() < 1e-8 * squares);
    }

    #[test]
    fn a_narrow_spread_is_put_in_words_once_until_it_recovers() {
        let wide = [tensor(&rows(1, 16, 8, 3.0)), tensor(&rows(2, 16, 8, 3.0))];
        let narrow = [tensor(&rows(1, 16, 8, 0.01)), tensor(&rows(2, 16, 8, 0.01))];
        let (wide, narrow) = (measure(&wide, false).unwrap(), measure(&narrow, false).unwrap());
        let mut watch = CollapseWatch::default();
        let mut look = |step, seen: &Embeddings| watch.look(step, 0.1, 31.0_f64.ln(), 8, seen).len();
        assert_eq!(look(1, &wide), 0);
        assert_eq!((look(2, &narrow), look(3, &narrow), look(4, &wide), look(5, &narrow)), (1, 0, 0, 1));
    }

    #[test]
    fn a_loss_that_stays_at_no_signal_is_noticed_after_five_hundred_steps_and_a_resume() {
        let seen = measure(&[tensor(&rows(1, 16, 8, 3.0)), tensor(&rows(2, 16, 8, 3.0))], false).unwrap();
        let no_signal = 31.0_f64.ln();
        let mut watch = CollapseWatch::default();
        assert!(watch.look(10, no_signal * 1.005, no_signal, 8, &seen).is_empty());
        assert!(watch.look(500, no_signal * 0.995, no_signal, 8, &seen).is_empty());
        let saved = serde_json::to_string(&watch).unwrap();
        let mut watch: CollapseWatch = serde_json::from_str(&saved).unwrap();
        let warnings = watch.look(510, no_signal, no_signal, 8, &seen);
        assert!(warnings[0].contains("for 500 steps"), "{warnings:?}");
        assert!(watch.look(520, no_signal, no_signal, 8, &seen).is_empty());
        assert!(watch.look(530, 1.0, no_signal, 8, &seen).is_empty());
        assert!(watch.look(900, no_signal, no_signal, 8, &seen).is_empty());
    }
}
