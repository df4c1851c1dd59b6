//! Convolution, normalisations, a gated recurrent unit and the halves of a transformer's block for Burn's CPU backend (`flex`), as
//! operations of their own in autodiff.
//!
//! Burn's own convolution on `flex` takes several times as long as the matrix products inside it, because it changes the
//! layout of every input, output and gradient, and its batch normalisation is some twenty passes over the activations.
//! Here activations stay channels-last, `[images, height, width, channels]`, from end to end. A recurrent unit made of
//! tensor operations records twenty of them per frame. A transformer spends two thirds of its time between the products, in passes over
//! activations and copies between layouts; here a tile of rows goes through half a block while it is in the cache. On other devices the
//! callers compose the same functions from Burn's operations; the tests hold both forms against each other.

mod activation;
mod attention;
mod batch_norm;
mod channel_norm;
mod convolution;
mod gru;
mod image_tokens;
mod layer_norm;
mod linear;
mod partition;
mod product;
mod recorded;
mod recorded_sequences;
mod recorded_transformer;
mod residual;
mod wide;

use rayon::prelude::*;

pub(super) use activation::Gelu;
pub(super) use recorded::{batch_norm_train, convolve, convolve_steps, normalize};
pub(super) use recorded_sequences::{channel_norm, gru};
pub(super) use recorded_transformer::{Affine, Norm, ResidualHalf, attend, image_tokens, layer_norm, linear, perceive};

/// A vector of zeros, cleared by all threads: on one, clearing takes a tenth of a step's time.
fn zeros(length: usize) -> Vec<f32> {
    rayon::iter::repeat_n(0.0, length).with_min_len(1 << 14).collect()
}
