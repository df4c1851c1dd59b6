//! x Wᵀ + b over rows, on slices.
//!
//! Many rows are shared out by rows. Where there are few, as of a single image, tasks take columns of the output: each matrix of
//! weights is then read once, by all threads together.
use rayon::prelude::*;

use super::partition::{Partition, fill_rows, parts, repeated, total, transposed};
use super::product::{Matrix, product};
use super::wide::wide;
use super::zeros;

/// Rows from which on they are shared out.
pub(super) const MANY_ROWS: usize = 2_048;

/// Rows up to which they, not the weights, are packed for the products.
const FEW_ROWS: usize = 256;

/// Pieces of columns, and what their columns are a multiple of, so that products fill their registers.
const COLUMN_PIECES: usize = 8;
const COLUMN_STEP: usize = 48;

/// Multiplications below which nothing is shared out.
const SMALL: usize = 1 << 19;

/// Rows per piece when columns are put together.
const GATHERED_ROWS: usize = 16;

/// Sizes of one layer: the weights are `[outputs, inputs]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layer {
    pub(super) rows: usize,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
}

impl Layer {
    fn partition(&self) -> Partition {
        Partition::new(self.rows, 1, self.outputs * self.inputs)
    }
}

/// `[rows, outputs]` of `x` `[rows, inputs]`.
pub(super) fn forward(x: &[f32], weight: &[f32], bias: &[f32], l: &Layer) -> Vec<f32> {
    let &Layer { rows, inputs, outputs } = l;
    if rows < MANY_ROWS {
        return forward_by_columns(x, weight, bias, l);
    }
    let turned = transposed(weight, outputs, inputs);
    let weights = Matrix::row_major(&turned, inputs, outputs);
    let tile = l.partition().tile;
    let mut out = zeros(rows * outputs);
    out.par_chunks_mut(tile * outputs).zip(x.par_chunks(tile * inputs)).for_each(|(out, x)| {
        fill_rows(out, bias);
        product(out, true, Matrix::row_major(x, x.len() / inputs, inputs), weights);
    });
    out
}

fn forward_by_columns(x: &[f32], weight: &[f32], bias: &[f32], l: &Layer) -> Vec<f32> {
    let &Layer { rows, inputs, outputs } = l;
    let whole = Matrix::row_major(x, rows, inputs);
    if rows * inputs * outputs < SMALL {
        let mut out = repeated(bias, rows);
        product(&mut out, true, whole, Matrix::row_major(weight, outputs, inputs).transposed());
        return out;
    }
    let columns = outputs.div_ceil(COLUMN_PIECES).next_multiple_of(COLUMN_STEP);
    let turned = if rows <= FEW_ROWS { transposed(x, rows, inputs) } else { Vec::new() };
    let pieces: Vec<Vec<f32>> = weight
        .par_chunks(columns * inputs)
        .zip(bias.par_chunks(columns))
        .map(|(weight, bias)| {
            let columns = bias.len();
            let weights = Matrix::row_major(weight, columns, inputs);
            if rows > FEW_ROWS {
                let mut out = repeated(bias, rows);
                product(&mut out, true, whole, weights.transposed());
                return out;
            }
            // The other way round the product reads the weights where they are.
            let mut out: Vec<f32> = bias.iter().flat_map(|&bias| std::iter::repeat_n(bias, rows)).collect();
            product(&mut out, true, weights, Matrix::row_major(&turned, inputs, rows)); // [columns, rows]
            transposed(&out, columns, rows)
        })
        .collect();
    let mut out = zeros(rows * outputs);
    out.par_chunks_mut(GATHERED_ROWS * outputs).enumerate().for_each(|(index, out)| {
        for (row, out) in out.chunks_exact_mut(outputs).enumerate() {
            let row = index * GATHERED_ROWS + row;
            for (out, piece) in out.chunks_mut(columns).zip(&pieces) {
                out.copy_from_slice(&piece[row * out.len()..][..out.len()]);
            }
        }
    });
    out
}

/// Gradients of `x` (where `want_x`), of the weights and of the bias, from the output's.
pub(super) fn backward(
    x: &[f32],
    weight: &[f32],
    gradient: &[f32],
    want_x: bool,
    l: &Layer,
) -> (Option<Vec<f32>>, [Vec<f32>; 2]) {
    let &Layer { rows, inputs, outputs } = l;
    let partition = l.partition();
    let weights = Matrix::row_major(weight, outputs, inputs);
    let lengths = [outputs * inputs, outputs];
    let sums = gradient
        .par_chunks(partition.group() * outputs)
        .zip(x.par_chunks(partition.group() * inputs))
        .map(|(gradient, x)| {
            let mut sums = vec![0.0; lengths.iter().sum()];
            let [of_weight, of_bias] = parts(&mut sums, lengths);
            let tiles = gradient.chunks(partition.tile * outputs).zip(x.chunks(partition.tile * inputs));
            for (index, (gradient, x)) in tiles.enumerate() {
                let rows = x.len() / inputs;
                let errors = Matrix::row_major(gradient, rows, outputs).transposed();
                product(of_weight, index > 0, errors, Matrix::row_major(x, rows, inputs));
                add_rows(of_bias, gradient);
            }
            sums
        })
        .collect::<Vec<Vec<f32>>>();
    let of_x = want_x.then(|| {
        let mut of_x = zeros(rows * inputs);
        of_x.par_chunks_mut(partition.tile * inputs).zip(gradient.par_chunks(partition.tile * outputs)).for_each(
            |(of_x, gradient)| {
                let rows = of_x.len() / inputs;
                product(of_x, false, Matrix::row_major(gradient, rows, outputs), weights);
            },
        );
        of_x
    });
    (of_x, total(&sums, lengths))
}

wide! {
    /// Adds each row of `values` to `sum`.
    pub(super) fn add_rows(sum: &mut [f32], values: &[f32]) {
        let width = sum.len();
        for row in values.chunks_exact(width) {
            let row = &row[..width];
            for c in 0..width {
                sum[c] += row[c];
            }
        }
    }
}
