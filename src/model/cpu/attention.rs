//! Attention of the tokens of one sequence to each other, on slices, head by head.
//!
//! Queries are taken a block at a time, so that a thread holds few rows of scores, and a causal block does not look at keys
//! behind its last query. Probabilities are not kept: the backward makes them again from the scores' largest values and sums.
use super::product::{Matrix, product, product_into};
use super::wide::{exp, largest, sum, wide};

/// Queries of a block.
const BLOCK_QUERIES: usize = 128;

/// Queries of a block that is causal: the smaller it is, the fewer keys are looked at in vain.
const CAUSAL_BLOCK_QUERIES: usize = 64;

/// Sizes of one sequence: `[tokens, 3 · width]`, queries, keys and values side by side, each of `heads` parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heads {
    pub(super) tokens: usize,
    pub(super) width: usize,
    pub(super) heads: usize,
    /// Whether a token attends to itself and those before it only.
    pub(super) causal: bool,
}

impl Heads {
    fn own(&self) -> usize {
        self.width / self.heads
    }

    /// On the scores.
    fn scale(&self) -> f32 {
        (1.0 / (self.own() as f64).sqrt()) as f32
    }

    /// First query, queries and keys of each block.
    fn blocks(&self) -> impl DoubleEndedIterator<Item = (usize, usize, usize)> + use<> {
        let Self { tokens, causal, .. } = *self;
        let most = if causal { CAUSAL_BLOCK_QUERIES } else { BLOCK_QUERIES };
        (0..tokens.div_ceil(most)).map(move |index| {
            let first = index * most;
            let queries = most.min(tokens - first);
            (first, queries, if causal { first + queries } else { tokens })
        })
    }

    /// Queries (0), keys (1) or values (2) of a head, from token `first` on.
    fn part<'a>(&self, qkv: &'a [f32], which: usize, head: usize, first: usize, tokens: usize) -> Matrix<'a> {
        let start = first * 3 * self.width + self.place(which, head);
        Matrix::strided(&qkv[start..], tokens, self.own(), 3 * self.width)
    }

    /// Where a head's queries, keys or values start within a token.
    fn place(&self, which: usize, head: usize) -> usize {
        which * self.width + head * self.own()
    }
}

/// Buffers of a thread.
#[derive(Debug, Default)]
pub(super) struct AttentionScratch {
    scores: Vec<f32>,
    of_scores: Vec<f32>,
}

/// What all heads of a sequence see, into `out` `[tokens, width]`; `stats` `[heads, tokens, 2]` is what [`backward`] needs.
pub(super) fn forward(qkv: &[f32], out: &mut [f32], stats: &mut [f32], scratch: &mut AttentionScratch, s: &Heads) {
    for (head, stats) in stats.chunks_exact_mut(2 * s.tokens).enumerate() {
        forward_head(qkv, head, &mut out[head * s.own()..], s.width, stats, scratch, s);
    }
}

/// One head of [`forward`], into rows of `out` that start `row_stride` values apart.
pub(super) fn forward_head(
    qkv: &[f32],
    head: usize,
    out: &mut [f32],
    row_stride: usize,
    stats: &mut [f32],
    scratch: &mut AttentionScratch,
    s: &Heads,
) {
    let scores = &mut scratch.scores;
    for (first, queries, keys) in s.blocks() {
        scores.resize(queries * keys, 0.0);
        let of_keys = s.part(qkv, 1, head, 0, keys).transposed();
        product(scores, false, s.part(qkv, 0, head, first, queries), of_keys);
        soften(scores, keys, first, s, &mut stats[2 * first..2 * (first + queries)]);
        let probabilities = Matrix::row_major(scores, queries, keys);
        product_into(&mut out[first * row_stride..], row_stride, false, probabilities, s.part(qkv, 2, head, 0, keys));
    }
}

/// The gradient of `qkv` into `of_qkv`, from that of what the heads see, `[tokens, width]`.
pub(super) fn backward(
    qkv: &[f32],
    out_gradient: &[f32],
    stats: &[f32],
    of_qkv: &mut [f32],
    scratch: &mut AttentionScratch,
    s: &Heads,
) {
    let (own, row) = (s.own(), 3 * s.width);
    let AttentionScratch { scores, of_scores } = scratch;
    for (head, stats) in stats.chunks_exact(2 * s.tokens).enumerate() {
        // From the last block, which alone sees all keys: it overwrites, the others add.
        for (index, (first, queries, keys)) in s.blocks().rev().enumerate() {
            scores.resize(queries * keys, 0.0);
            of_scores.resize(queries * keys, 0.0);
            let (query, key) = (s.part(qkv, 0, head, first, queries), s.part(qkv, 1, head, 0, keys));
            product(scores, false, query, key.transposed());
            soften_again(scores, keys, first, s, &stats[2 * first..2 * (first + queries)]);
            let seen = Matrix::strided(&out_gradient[first * s.width + head * own..], queries, own, s.width);
            product(of_scores, false, seen, s.part(qkv, 2, head, 0, keys).transposed());
            let probabilities = Matrix::row_major(scores, queries, keys);
            product_into(&mut of_qkv[s.place(2, head)..], row, index > 0, probabilities.transposed(), seen);
            soften_back(scores, of_scores, keys, first, s);
            let of_scores = Matrix::row_major(of_scores, queries, keys);
            product_into(&mut of_qkv[first * row + s.place(0, head)..], row, false, of_scores, key);
            product_into(&mut of_qkv[s.place(1, head)..], row, index > 0, of_scores.transposed(), query);
        }
    }
}

wide! {
    /// Scores of queries from `first` on into probabilities; their largest value and the inverse of their sum into `stats`.
    fn soften(scores: &mut [f32], keys: usize, first: usize, s: &Heads, stats: &mut [f32]) {
        let scale = s.scale();
        for (query, (row, stats)) in scores.chunks_exact_mut(keys).zip(stats.chunks_exact_mut(2)).enumerate() {
            let (seen, hidden) = row.split_at_mut(if s.causal { first + query + 1 } else { keys });
            let most = largest(seen.len(), |i| seen[i]);
            for score in seen.iter_mut() {
                *score = exp(scale * (*score - most));
            }
            let inverse = 1.0 / sum(seen.len(), |i| seen[i]);
            for probability in seen.iter_mut() {
                *probability *= inverse;
            }
            hidden.fill(0.0);
            stats.copy_from_slice(&[most, inverse]);
        }
    }

    /// [`soften`] where the statistics are known already.
    fn soften_again(scores: &mut [f32], keys: usize, first: usize, s: &Heads, stats: &[f32]) {
        let scale = s.scale();
        for (query, (row, stats)) in scores.chunks_exact_mut(keys).zip(stats.chunks_exact(2)).enumerate() {
            let (seen, hidden) = row.split_at_mut(if s.causal { first + query + 1 } else { keys });
            let (most, inverse) = (stats[0], stats[1]);
            for score in seen.iter_mut() {
                *score = exp(scale * (*score - most)) * inverse;
            }
            hidden.fill(0.0);
        }
    }

    /// The `gradient` of probabilities into that of scores: p · (g − Σ p g), times the scale.
    fn soften_back(probabilities: &[f32], gradient: &mut [f32], keys: usize, first: usize, s: &Heads) {
        let scale = s.scale();
        for (query, (row, gradient)) in
            probabilities.chunks_exact(keys).zip(gradient.chunks_exact_mut(keys)).enumerate()
        {
            let visible = if s.causal { first + query + 1 } else { keys };
            let (seen, hidden) = gradient.split_at_mut(visible);
            let row = &row[..visible];
            let mean = sum(visible, |i| row[i] * seen[i]);
            for (probability, gradient) in row.iter().zip(seen) {
                *gradient = scale * probability * (*gradient - mean);
            }
            hidden.fill(0.0);
        }
    }
}
