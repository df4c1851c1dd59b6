//! Multinomial logistic regression: mean cross-entropy + λ/2·‖W‖² (the bias is free) over chunks of rows.
//!
//! Products are f32 matmuls on the host; what is summed over chunks is summed in f64 and in the order of the chunks, so
//! value and gradient do not depend on the number of threads.

use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;

use super::{cholesky::Cholesky, lbfgs::Objective};
use crate::{Result, error::Error};

/// Multiply-adds of one chunk's product: a chunk of 784 pixels and ten classes has 850 rows and stays in the cache.
const CHUNK_OPERATIONS: usize = 6_700_000;
/// Chunks whose gradients are in memory at once.
const WAVE_CHUNKS: usize = 32;
/// Rows from which the second moments of the features are estimated: they only steer the search.
const MOMENT_ROWS: usize = 16_384;
/// Features up to which the search knows all second moments, in seconds; above, their diagonal.
const MOST_FULL_WIDTH: usize = 1_024;

/// Rows that are computed together.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// `[rows, width]`, standardised.
    features: Tensor<2>,
    classes: Vec<u32>,
}

impl Chunk {
    /// Cuts standardised rows `[rows, width]` into chunks for `classes` classes.
    pub(crate) fn cut(values: &[f32], width: usize, row_classes: &[u32], classes: usize) -> Vec<Self> {
        let rows = (CHUNK_OPERATIONS / (width * classes).max(1)).clamp(64, 4_096);
        let device = Device::flex();
        let of = |(values, classes): (&[f32], &[u32])| Self {
            features: Tensor::from_data(TensorData::new(values.to_vec(), [classes.len(), width]), &device),
            classes: classes.to_vec(),
        };
        values.chunks(rows * width).zip(row_classes.chunks(rows)).map(of).collect()
    }

    /// `[rows, classes]`
    fn logits(&self, weights: &Weights) -> Result<Vec<f32>> {
        let mut logits = host(self.features.clone().matmul(weights.matrix.clone()))?;
        for row in logits.chunks_mut(weights.bias.len()) {
            row.iter_mut().zip(&weights.bias).for_each(|(logit, bias)| *logit += bias);
        }
        Ok(logits)
    }

    /// Summed cross-entropy and its gradient `[width + 1, classes]`, bias last.
    fn loss(&self, weights: &Weights) -> Result<(f64, Vec<f32>)> {
        let classes = weights.bias.len();
        let mut residuals = self.logits(weights)?;
        let mut loss = 0.0;
        let mut bias = vec![0.0_f64; classes];
        for (row, &truth) in residuals.chunks_mut(classes).zip(&self.classes) {
            let truth_logit = f64::from(row[truth as usize]);
            loss += softmax(row) - truth_logit;
            row[truth as usize] -= 1.0;
            bias.iter_mut().zip(row.iter()).for_each(|(sum, &x)| *sum += f64::from(x));
        }
        let residuals =
            Tensor::<2>::from_data(TensorData::new(residuals, [self.classes.len(), classes]), &Device::flex());
        let mut gradient = host(self.features.clone().transpose().matmul(residuals))?; // [width, classes]
        gradient.extend(bias.iter().map(|&x| x as f32));
        Ok((loss, gradient))
    }
}

/// Logits into probabilities, in place; gives the logarithm of the sum of exponentials.
fn softmax(row: &mut [f32]) -> f64 {
    let highest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0_f64;
    for logit in row.iter_mut() {
        *logit = (*logit - highest).exp();
        sum += f64::from(*logit);
    }
    let scale = (1.0 / sum) as f32;
    row.iter_mut().for_each(|x| *x *= scale);
    sum.ln() + f64::from(highest)
}

fn host(tensor: Tensor<2>) -> Result<Vec<f32>> {
    tensor.into_data().try_into_vec().map_err(|error| Error::internal(format!("product is not f32: {error:?}")))
}

struct Weights {
    /// `[width, classes]`
    matrix: Tensor<2>,
    bias: Vec<f32>,
}

impl Weights {
    /// From parameters `[width + 1, classes]`, bias last.
    fn of(parameters: &[f64], width: usize) -> Self {
        let classes = parameters.len() / (width + 1);
        let mut values: Vec<f32> = parameters.iter().map(|&x| x as f32).collect();
        let bias = values.split_off(width * classes);
        Self { matrix: Tensor::from_data(TensorData::new(values, [width, classes]), &Device::flex()), bias }
    }
}

/// The most probable class of every row; of equal ones the lowest.
pub(crate) fn predict(chunks: &[Chunk], parameters: &[f64], width: usize) -> Result<Vec<u32>> {
    let weights = Weights::of(parameters, width);
    let of_chunk = |chunk: &Chunk| -> Result<Vec<u32>> {
        let logits = chunk.logits(&weights)?;
        let highest = |row: &[f32]| (0..row.len()).fold(0, |best, at| if row[at] > row[best] { at } else { best });
        Ok(logits.chunks(weights.bias.len()).map(|row| highest(row) as u32).collect())
    };
    let predicted: Result<Vec<Vec<u32>>> = chunks.par_iter().map(of_chunk).collect();
    Ok(predicted?.concat())
}

/// The function that [`super::lbfgs::minimise`] minimises.
///
/// The Hessian of the cross-entropy is at most ½·XᵀX/n for each class (Böhning 1992): plus λ, that is the first metric.
pub(crate) struct Regression<'a> {
    chunks: &'a [Chunk],
    rows: usize,
    width: usize,
    l2: f64,
    /// `None` for wide features: standardised columns have the second moment 1.
    metric: Option<Cholesky>,
}

impl<'a> Regression<'a> {
    pub(crate) fn new(chunks: &'a [Chunk], width: usize, moments: Option<&[f64]>, l2: f64) -> Self {
        let metric = moments.and_then(|moments| {
            let entry = |(at, x): (usize, &f64)| 0.5 * x + if at % (width + 1) == 0 { l2 } else { 0.0 };
            Cholesky::of(moments.iter().enumerate().map(entry).collect(), width)
        });
        Self { chunks, rows: chunks.iter().map(|chunk| chunk.classes.len()).sum(), width, l2, metric }
    }
}

impl Objective for Regression<'_> {
    fn value_and_gradient(&self, parameters: &[f64]) -> Result<(f64, Vec<f64>)> {
        let weights = Weights::of(parameters, self.width);
        let mut loss = 0.0;
        let mut gradient = vec![0.0; parameters.len()];
        for wave in self.chunks.chunks(WAVE_CHUNKS) {
            let parts: Vec<Result<_>> = wave.par_iter().map(|chunk| chunk.loss(&weights)).collect();
            for part in parts {
                let (part_loss, part_gradient) = part?;
                loss += part_loss;
                gradient.iter_mut().zip(part_gradient).for_each(|(sum, x)| *sum += f64::from(x));
            }
        }
        let n = self.rows as f64;
        gradient.iter_mut().for_each(|x| *x /= n);
        let free = parameters.len() / (self.width + 1);
        let penalised = parameters.len() - free;
        let mut penalty = 0.0;
        for (slope, &weight) in gradient.iter_mut().zip(&parameters[..penalised]) {
            penalty += weight * weight;
            *slope += self.l2 * weight;
        }
        Ok((loss / n + 0.5 * self.l2 * penalty, gradient))
    }

    fn precondition(&self, gradient: &mut [f64]) {
        let classes = gradient.len() / (self.width + 1);
        let (weights, bias) = gradient.split_at_mut(self.width * classes);
        match &self.metric {
            Some(metric) => metric.solve(weights, classes),
            None => weights.iter_mut().for_each(|x| *x /= 0.5 + self.l2),
        }
        bias.iter_mut().for_each(|x| *x *= 2.0);
    }
}

/// XᵀX/n `[width, width]` of a sample of the chunks that is spread over all; `None` where the features are too wide.
pub(crate) fn second_moments(chunks: &[Chunk], width: usize) -> Result<Option<Vec<f64>>> {
    if width > MOST_FULL_WIDTH {
        return Ok(None);
    }
    let rows: usize = chunks.iter().map(|chunk| chunk.classes.len()).sum();
    let every = (rows / MOMENT_ROWS).max(1);
    let mut moments = vec![0.0; width * width];
    let mut seen = 0;
    for chunk in chunks.iter().step_by(every) {
        let product = host(chunk.features.clone().transpose().matmul(chunk.features.clone()))?; // [width, width]
        moments.iter_mut().zip(product).for_each(|(sum, x)| *sum += f64::from(x));
        seen += chunk.classes.len();
    }
    moments.iter_mut().for_each(|x| *x /= seen.max(1) as f64);
    Ok(Some(moments))
}
