//! A batch in chunks: what the loss sees of each, and where a chunk stands in its batch.
use burn::tensor::Tensor;

/// Rows of the batch of a step. Draws in training (dropout, patch dropout) are named by them, so that a chunk draws what
/// the whole batch would, as often as it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchRows {
    /// The step, counted from 0.
    pub step: u64,
    /// Where the first row stands in the global batch.
    pub first: usize,
}

impl BatchRows {
    /// A batch from its beginning.
    pub fn whole(step: u64) -> Self {
        Self { step, first: 0 }
    }
}

/// All that a loss needs of some items.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// The two things that should meet, of any length, row i of both from one item: `[items, width]` each.
    pub sides: [Tensor<2>; 2],
    /// Of each side one number per item, equal where the items are (hashes of captions or images); `None` where nobody
    /// asked.
    pub identities: [Option<Vec<u64>>; 2],
}

impl Embedded {
    /// Of items nobody knows duplicates of.
    pub fn new(sides: [Tensor<2>; 2]) -> Self {
        Self { sides, identities: [None, None] }
    }

    /// Items.
    pub fn items(&self) -> usize {
        self.sides[0].dims()[0]
    }

    /// The chunks of one batch, one below the other; `None` where there is none.
    ///
    /// Identities that a chunk lacks are lacking for all.
    pub fn cat(chunks: Vec<Self>) -> Option<Self> {
        if chunks.is_empty() {
            return None;
        }
        let side = |side: usize| Tensor::cat(chunks.iter().map(|chunk| chunk.sides[side].clone()).collect(), 0);
        let identities = |side: usize| {
            let of_chunks: Option<Vec<&[u64]>> = chunks.iter().map(|chunk| chunk.identities[side].as_deref()).collect();
            of_chunks.map(|of_chunks| of_chunks.concat())
        };
        Some(Self { sides: [side(0), side(1)], identities: [identities(0), identities(1)] })
    }
}
