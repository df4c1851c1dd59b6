//! A gated recurrent unit over whole sequences, on slices.
//!
//! Sequences do not depend on each other: a tile of them goes through all frames on one thread, so that no thread waits
//! for another at any frame. What the inputs contribute is one product over all frames, made by the caller. Sizes of
//! tiles depend on shapes alone, so that a result has the same bits with any number of threads.
use rayon::prelude::*;

use super::product::{Matrix, product};
use super::wide::{sigmoid, tanh, wide};
use super::zeros;

/// Sequences that a tile has at least, where there are so many: fewer would only stream the weights.
const TILE_SEQUENCES: usize = 16;

/// Tiles at most: each has its own sum of weight gradients.
const TILES: usize = 16;

/// Weights per piece when the tiles' gradients are summed.
const SUM_VALUES: usize = 4_096;

/// Sizes of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) sequences: usize,
    pub(super) frames: usize,
    pub(super) width: usize,
}

impl Sizes {
    fn tile(&self) -> usize {
        self.sequences.div_ceil(TILES).max(TILE_SEQUENCES)
    }
}

/// What the backward of one tile needs.
#[derive(Debug, Clone)]
pub(super) struct Tile {
    /// `[frames + 1, sequences, width]`, zeros first.
    states: Vec<f32>,
    /// Reset gate, update gate, new state and what the old one gave to it: `[frames, sequences, 4 · width]`.
    gates: Vec<f32>,
}

/// States `[sequences, frames, width]` from what the inputs contribute to the gates, `[sequences, frames, 3 · width]`.
///
/// `weight` is `[3 · width, width]`, `biases` are the inputs' and the states', in the order reset, update, new. Tiles are
/// returned where they are to be `kept`.
pub(super) fn forward(
    inputs: &[f32],
    weight: &[f32],
    biases: [&[f32]; 2],
    kept: bool,
    sizes: Sizes,
) -> (Vec<f32>, Vec<Tile>) {
    let Sizes { sequences, frames, width } = sizes;
    let turned = transposed(weight, 3 * width, width);
    let weight = Matrix::row_major(&turned, width, 3 * width);
    // The new state's hidden bias stays apart: the reset gate multiplies it.
    let mut bias = biases[0].to_vec();
    bias.iter_mut().zip(biases[1]).take(2 * width).for_each(|(sum, hidden)| *sum += hidden);
    let new_bias = &biases[1][2 * width..];
    let mut out = zeros(sequences * frames * width);
    let tiles = out
        .par_chunks_mut(sizes.tile() * frames * width)
        .zip(inputs.par_chunks(sizes.tile() * frames * 3 * width))
        .map(|(out, inputs)| {
            let rows = out.len() / (frames * width);
            let stored = |frames: usize| if kept { frames } else { 1 };
            let mut tile = Tile {
                states: vec![0.0; (stored(frames) + 1) * rows * width],
                gates: vec![0.0; stored(frames) * rows * 4 * width],
            };
            let mut hidden = vec![0.0; rows * 3 * width];
            for frame in 0..frames {
                let at = if kept { frame } else { 0 };
                let (before, after) = tile.states[at * rows * width..][..2 * rows * width].split_at_mut(rows * width);
                let gates = &mut tile.gates[at * rows * 4 * width..][..rows * 4 * width];
                product(&mut hidden, false, Matrix::row_major(before, rows, width), weight);
                for row in 0..rows {
                    let place = row * frames + frame;
                    advance(
                        &inputs[place * 3 * width..][..3 * width],
                        &hidden[row * 3 * width..][..3 * width],
                        &bias,
                        new_bias,
                        &before[row * width..][..width],
                        &mut gates[row * 4 * width..][..4 * width],
                        &mut after[row * width..][..width],
                    );
                    out[place * width..][..width].copy_from_slice(&after[row * width..][..width]);
                }
                if !kept {
                    before.copy_from_slice(after);
                }
            }
            tile
        })
        .collect();
    (out, tiles)
}

/// Gradients of inputs, weight, the inputs' bias and the states' bias from that of the states.
pub(super) fn backward(out_gradient: &[f32], weight: &[f32], tiles: &[Tile], sizes: Sizes) -> [Vec<f32>; 4] {
    let Sizes { sequences, frames, width } = sizes;
    let weights = Matrix::row_major(weight, 3 * width, width);
    let mut of_inputs = zeros(sequences * frames * 3 * width);
    let partial: Vec<[Vec<f32>; 3]> = of_inputs
        .par_chunks_mut(sizes.tile() * frames * 3 * width)
        .zip(out_gradient.par_chunks(sizes.tile() * frames * width))
        .zip(tiles)
        .map(|((of_inputs, out_gradient), tile)| {
            let rows = out_gradient.len() / (frames * width);
            let mut carried = vec![0.0; rows * width];
            let mut of_hidden = vec![0.0; frames * rows * 3 * width];
            let mut of_biases = [vec![0.0; 3 * width], vec![0.0; 3 * width]];
            for frame in (0..frames).rev() {
                let errors = &mut of_hidden[frame * rows * 3 * width..][..rows * 3 * width];
                for row in 0..rows {
                    let place = row * frames + frame;
                    let at = frame * rows + row;
                    let of_input = &mut of_inputs[place * 3 * width..][..3 * width];
                    let error = &mut errors[row * 3 * width..][..3 * width];
                    retreat(
                        &out_gradient[place * width..][..width],
                        &tile.gates[at * 4 * width..][..4 * width],
                        &tile.states[at * width..][..width],
                        &mut carried[row * width..][..width],
                        of_input,
                        error,
                    );
                    add(&mut of_biases[0], of_input);
                    add(&mut of_biases[1], error);
                }
                product(&mut carried, true, Matrix::row_major(errors, rows, 3 * width), weights);
            }
            let mut of_weight = vec![0.0; weight.len()];
            let errors = Matrix::row_major(&of_hidden, frames * rows, 3 * width);
            product(&mut of_weight, false, errors.transposed(), Matrix::row_major(&tile.states, frames * rows, width));
            let [of_input_bias, of_hidden_bias] = of_biases;
            [of_weight, of_input_bias, of_hidden_bias]
        })
        .collect();
    let total = |which: usize, length: usize| {
        let mut sum = vec![0.0; length];
        sum.par_chunks_mut(SUM_VALUES).enumerate().for_each(|(index, sum)| {
            partial.iter().for_each(|part| add(sum, &part[which][index * SUM_VALUES..][..sum.len()]));
        });
        sum
    };
    let (of_weight, of_input_bias, of_hidden_bias) = (total(0, weight.len()), total(1, 3 * width), total(2, 3 * width));
    [of_inputs, of_weight, of_input_bias, of_hidden_bias]
}

fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    for (row, values) in values.chunks_exact(columns).enumerate() {
        for (column, value) in values.iter().enumerate() {
            out[column * rows + row] = *value;
        }
    }
    out
}

wide! {
    fn add(sum: &mut [f32], values: &[f32]) {
        sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
    }

    /// One frame of one sequence: r = σ(…), u = σ(…), n = tanh(x + r · (W h + b)), h′ = (1 − u) · n + u · h.
    fn advance(
        input: &[f32],
        hidden: &[f32],
        bias: &[f32],
        new_bias: &[f32],
        before: &[f32],
        gates: &mut [f32],
        after: &mut [f32],
    ) {
        let width = before.len();
        let (resets, rest) = gates.split_at_mut(width);
        let (updates, rest) = rest.split_at_mut(width);
        let (news, olds) = rest.split_at_mut(width);
        let [input_r, input_u, input_n] = thirds(input, width);
        let [hidden_r, hidden_u, hidden_n] = thirds(hidden, width);
        let [bias_r, bias_u, bias_n] = thirds(bias, width);
        let (olds, new_bias, after) = (&mut olds[..width], &new_bias[..width], &mut after[..width]);
        for i in 0..width {
            let reset = sigmoid(input_r[i] + hidden_r[i] + bias_r[i]);
            let update = sigmoid(input_u[i] + hidden_u[i] + bias_u[i]);
            let old = hidden_n[i] + new_bias[i];
            let new = tanh(input_n[i] + bias_n[i] + reset * old);
            resets[i] = reset;
            updates[i] = update;
            news[i] = new;
            olds[i] = old;
            after[i] = new + update * (before[i] - new);
        }
    }

    /// One frame backwards. `carried` is what later frames leave for this state, then what it leaves for the one before,
    /// but for the product with the weights.
    fn retreat(
        out_gradient: &[f32],
        gates: &[f32],
        before: &[f32],
        carried: &mut [f32],
        of_input: &mut [f32],
        of_hidden: &mut [f32],
    ) {
        let width = before.len();
        let [resets, updates, news] = thirds(gates, width);
        let (olds, out_gradient, carried) = (&gates[3 * width..][..width], &out_gradient[..width], &mut carried[..width]);
        let (input_r, rest) = of_input.split_at_mut(width);
        let (input_u, input_n) = rest.split_at_mut(width);
        let (hidden_r, rest) = of_hidden.split_at_mut(width);
        let (hidden_u, hidden_n) = rest.split_at_mut(width);
        let (input_n, hidden_n) = (&mut input_n[..width], &mut hidden_n[..width]);
        for i in 0..width {
            let slope = out_gradient[i] + carried[i];
            let (reset, update, new) = (resets[i], updates[i], news[i]);
            let of_new = slope * (1.0 - update) * (1.0 - new * new);
            let of_update = slope * (before[i] - new) * update * (1.0 - update);
            let of_reset = of_new * olds[i] * reset * (1.0 - reset);
            input_r[i] = of_reset;
            input_u[i] = of_update;
            input_n[i] = of_new;
            hidden_r[i] = of_reset;
            hidden_u[i] = of_update;
            hidden_n[i] = of_new * reset;
            carried[i] = slope * update;
        }
    }
}

#[inline(always)]
fn thirds(values: &[f32], width: usize) -> [&[f32]; 3] {
    [&values[..width], &values[width..2 * width], &values[2 * width..3 * width]]
}
