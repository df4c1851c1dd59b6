//! The two halves of a transformer's block, each as one operation on slices: x + f(norm x).
//!
//! A tile of rows goes through all of a half on one thread while it is in the cache: normalisation, products, what lies
//! between them, and what is added. Only what the backward cannot make again is kept. A few rows go through it step by step
//! instead, so that all threads have a part of them.
use rayon::prelude::*;

use super::activation::{Gelu, activate, activate_back};
use super::attention::{self, AttentionScratch, Heads};
use super::layer_norm::{self, LayerNormalizer, normalize, normalize_again, propagate};
use super::linear::{self, Layer, MANY_ROWS, add_rows};
use super::partition::{Partition, fill_rows, parts, repeated, total, transposed};
use super::product::{Matrix, product};
use super::wide::wide;
use super::zeros;

/// Parameters of one half: the normalisation's, and both products' weights `[outputs, inputs]` and biases.
#[derive(Debug, Clone, Copy)]
pub(super) struct Half<'a> {
    pub(super) norm: &'a LayerNormalizer,
    pub(super) weights: [&'a [f32]; 2],
    pub(super) biases: [&'a [f32]; 2],
    /// What each value that is added to x is multiplied by; 1 where it is `None`.
    pub(super) factors: Option<&'a [f32]>,
}

/// What lies between the products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Between {
    Attention(Heads),
    Activation(Gelu),
}

/// What the backward of one tile needs.
#[derive(Debug, Clone)]
pub(super) struct Tile {
    /// Mean and inverse deviation of each row.
    moments: Vec<f32>,
    /// What the first product gives.
    inner: Vec<f32>,
    /// What the heads see, and their statistics; empty without heads.
    seen: Vec<f32>,
    stats: Vec<f32>,
}

/// Buffers of a thread.
#[derive(Default)]
struct Scratch {
    normed: Vec<f32>,
    between: Vec<f32>,
    of_branch: Vec<f32>,
    of_between: Vec<f32>,
    of_inner: Vec<f32>,
    attention: AttentionScratch,
}

impl Half<'_> {
    fn width(&self) -> usize {
        self.norm.width()
    }

    /// Columns of the first product.
    fn inner(&self) -> usize {
        self.biases[0].len()
    }

    /// Columns that the second product takes.
    fn between(&self) -> usize {
        self.weights[1].len() / self.width()
    }

    /// Values of all parameters: weight and shift of the normalisation, weights and bias of each product.
    fn lengths(&self) -> [usize; 5] {
        let [first, second] = self.weights.map(<[f32]>::len);
        [2 * self.width(), first, self.inner(), second, self.width()]
    }

    fn factors(&self, start: usize, length: usize) -> Option<&[f32]> {
        self.factors.map(|factors| &factors[start..start + length])
    }
}

impl Between {
    /// Rows that depend on each other.
    fn rows(&self) -> usize {
        match self {
            Self::Attention(heads) => heads.tokens,
            Self::Activation(_) => 1,
        }
    }

    fn partition(&self, rows: usize, half: &Half<'_>) -> Partition {
        let weights = half.lengths().iter().sum();
        Partition::new(rows / self.rows(), self.rows(), weights)
    }
}

/// `[rows, width]` to the same, and the tiles where they are to be `kept`.
pub(super) fn forward(x: &[f32], half: &Half<'_>, between: &Between, kept: bool) -> (Vec<f32>, Vec<Tile>) {
    let (width, rows) = (half.width(), x.len() / half.width());
    if rows < MANY_ROWS && !kept {
        return (step_by_step(x, half, between), Vec::new());
    }
    let (inner, second) = (half.inner(), half.between());
    let turned = [transposed(half.weights[0], inner, width), transposed(half.weights[1], width, second)];
    let tile = between.partition(rows, half).tile * between.rows() * width;
    let mut out = zeros(x.len());
    let tiles = out
        .par_chunks_mut(tile)
        .zip(x.par_chunks(tile))
        .enumerate()
        .map_init(Scratch::default, |scratch, (index, (out, x))| {
            let rows = x.len() / width;
            let mut moments = vec![0.0; 2 * rows];
            scratch.normed.resize(x.len(), 0.0);
            normalize(x, half.norm, &mut scratch.normed, &mut moments);
            let mut values = repeated(half.biases[0], rows);
            let normed = Matrix::row_major(&scratch.normed, rows, width);
            product(&mut values, true, normed, Matrix::row_major(&turned[0], width, inner));
            let mut kept = Tile { moments, inner: values, seen: Vec::new(), stats: Vec::new() };
            let between = match between {
                Between::Attention(heads) => {
                    kept.seen.resize(rows * second, 0.0);
                    kept.stats.resize(2 * rows * heads.heads, 0.0);
                    let sequences = kept.seen.chunks_exact_mut(heads.tokens * second);
                    let sequences = sequences.zip(kept.stats.chunks_exact_mut(2 * heads.tokens * heads.heads));
                    for ((seen, stats), qkv) in sequences.zip(kept.inner.chunks_exact(heads.tokens * inner)) {
                        attention::forward(qkv, seen, stats, &mut scratch.attention, heads);
                    }
                    &kept.seen
                }
                Between::Activation(gelu) => {
                    scratch.between.resize(kept.inner.len(), 0.0);
                    activate(*gelu, &kept.inner, &mut scratch.between);
                    &scratch.between
                }
            };
            let between = Matrix::row_major(between, rows, second);
            fill_rows(out, half.biases[1]);
            product(out, true, between, Matrix::row_major(&turned[1], second, width));
            add_to(x, half.factors(index * tile, out.len()), out);
            kept
        })
        // Dropped by the thread that made them, where nobody keeps them.
        .filter_map(|tile| kept.then_some(tile))
        .collect();
    (out, tiles)
}

/// [`forward`] of a few rows: every product is shared out by columns, attention by heads.
fn step_by_step(x: &[f32], half: &Half<'_>, between: &Between) -> Vec<f32> {
    let (width, inner, second) = (half.width(), half.inner(), half.between());
    let rows = x.len() / width;
    let (normed, _) = layer_norm::forward(x, half.norm);
    let first = Layer { rows, inputs: width, outputs: inner };
    let values = linear::forward(&normed, half.weights[0], half.biases[0], &first);
    let mut middle = zeros(rows * second);
    match between {
        Between::Attention(heads) => {
            let own = second / heads.heads;
            let sequences = values.par_chunks(heads.tokens * inner).zip(middle.par_chunks_mut(heads.tokens * second));
            sequences.for_each(|(qkv, seen)| {
                let one = |scratch: &mut AttentionScratch, head: usize| {
                    let (mut out, mut stats) = (vec![0.0; heads.tokens * own], vec![0.0; 2 * heads.tokens]);
                    attention::forward_head(qkv, head, &mut out, own, &mut stats, scratch, heads);
                    out
                };
                let parts: Vec<Vec<f32>> =
                    (0..heads.heads).into_par_iter().map_init(AttentionScratch::default, one).collect();
                for (token, seen) in seen.chunks_exact_mut(second).enumerate() {
                    for (seen, part) in seen.chunks_exact_mut(own).zip(&parts) {
                        seen.copy_from_slice(&part[token * own..][..own]);
                    }
                }
            });
        }
        Between::Activation(gelu) => {
            let pieces = middle.par_chunks_mut(inner).zip(values.par_chunks(inner));
            pieces.for_each(|(middle, values)| activate(*gelu, values, middle));
        }
    }
    let last = Layer { rows, inputs: second, outputs: width };
    let mut out = linear::forward(&middle, half.weights[1], half.biases[1], &last);
    add_to(x, half.factors, &mut out);
    out
}

/// Gradients of x, of weight and shift of the normalisation, and of weights and bias of each product, from the output's.
pub(super) fn backward(
    x: &[f32],
    gradient: &[f32],
    tiles: &[Tile],
    half: &Half<'_>,
    between: &Between,
) -> (Vec<f32>, [Vec<f32>; 6]) {
    let (width, rows) = (half.width(), x.len() / half.width());
    let partition = between.partition(rows, half);
    let (tile, group) = (partition.tile * between.rows() * width, partition.group() * between.rows() * width);
    let mut of_x = zeros(x.len());
    let sums: Vec<Vec<f32>> = of_x
        .par_chunks_mut(group)
        .zip(x.par_chunks(group))
        .zip(gradient.par_chunks(group))
        .zip(tiles.par_chunks(partition.tiles))
        .enumerate()
        .map_init(Scratch::default, |scratch, (index, (((of_x, x), gradient), tiles))| {
            let mut sums = vec![0.0; half.lengths().iter().sum()];
            let pieces = of_x.chunks_mut(tile).zip(x.chunks(tile)).zip(gradient.chunks(tile)).zip(tiles);
            for (place, (((of_x, x), gradient), kept)) in pieces.enumerate() {
                let factors = half.factors(index * group + place * tile, x.len());
                of_x.copy_from_slice(gradient);
                if let Some(factors) = factors {
                    scratch.of_branch.resize(x.len(), 0.0);
                    multiply(gradient, factors, &mut scratch.of_branch);
                }
                retreat(
                    x,
                    factors.is_none().then_some(gradient),
                    kept,
                    half,
                    between,
                    place > 0,
                    of_x,
                    &mut sums,
                    scratch,
                );
            }
            sums
        })
        .collect();
    let [norm, first, first_bias, second, second_bias] = half.lengths();
    let lengths = [norm / 2, norm / 2, first, first_bias, second, second_bias];
    (of_x, total(&sums, lengths))
}

/// One tile backwards: adds to the gradient of x what comes through the branch, and to the sums if it `accumulates`. The
/// branch's gradient is `of_branch`, or in the scratch.
#[expect(clippy::too_many_arguments, reason = "one tile's part of each of the arguments of `backward`")]
fn retreat(
    x: &[f32],
    of_branch: Option<&[f32]>,
    kept: &Tile,
    half: &Half<'_>,
    between: &Between,
    accumulates: bool,
    of_x: &mut [f32],
    sums: &mut [f32],
    scratch: &mut Scratch,
) {
    let (width, inner, second) = (half.width(), half.inner(), half.between());
    let rows = x.len() / width;
    let [of_norm, of_first, of_first_bias, of_second, of_second_bias] = parts(sums, half.lengths());
    let of_branch = of_branch.unwrap_or(&scratch.of_branch);
    let errors = Matrix::row_major(of_branch, rows, width);
    add_rows(of_second_bias, of_branch);
    scratch.of_between.resize(rows * second, 0.0);
    product(&mut scratch.of_between, false, errors, Matrix::row_major(half.weights[1], width, second));
    let (between, of_inner) = match between {
        Between::Attention(heads) => {
            scratch.of_inner.resize(rows * inner, 0.0);
            let sequences = scratch.of_inner.chunks_exact_mut(heads.tokens * inner);
            let sequences = sequences.zip(scratch.of_between.chunks_exact(heads.tokens * second));
            let sequences = sequences.zip(kept.inner.chunks_exact(heads.tokens * inner));
            for (((of_qkv, of_seen), qkv), stats) in
                sequences.zip(kept.stats.chunks_exact(2 * heads.tokens * heads.heads))
            {
                attention::backward(qkv, of_seen, stats, of_qkv, &mut scratch.attention, heads);
            }
            (&kept.seen, &scratch.of_inner)
        }
        Between::Activation(gelu) => {
            scratch.between.resize(rows * inner, 0.0);
            activate_back(*gelu, &kept.inner, &mut scratch.between, &mut scratch.of_between);
            (&scratch.between, &scratch.of_between)
        }
    };
    product(of_second, accumulates, errors.transposed(), Matrix::row_major(between, rows, second));
    scratch.normed.resize(x.len(), 0.0);
    normalize_again(x, &kept.moments, half.norm, &mut scratch.normed);
    add_rows(of_first_bias, of_inner);
    let errors = Matrix::row_major(of_inner, rows, inner);
    product(of_first, accumulates, errors.transposed(), Matrix::row_major(&scratch.normed, rows, width));
    // The normalised rows have served: their place takes their gradient.
    product(&mut scratch.normed, false, errors, Matrix::row_major(half.weights[0], inner, width));
    propagate(x, &kept.moments, half.norm, &scratch.normed, of_x, of_norm);
}

fn add_to(x: &[f32], factors: Option<&[f32]>, out: &mut [f32]) {
    match factors {
        None => add(x, out),
        Some(factors) => multiply_and_add(x, factors, out),
    }
}

wide! {
    fn add(x: &[f32], out: &mut [f32]) {
        out.iter_mut().zip(x).for_each(|(out, x)| *out += x);
    }

    fn multiply_and_add(x: &[f32], factors: &[f32], out: &mut [f32]) {
        out.iter_mut().zip(x).zip(factors).for_each(|((out, x), factor)| *out = x + factor * *out);
    }

    fn multiply(values: &[f32], factors: &[f32], out: &mut [f32]) {
        out.iter_mut().zip(values).zip(factors).for_each(|((out, value), factor)| *out = value * factor);
    }
}
