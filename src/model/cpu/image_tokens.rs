//! The tokens of images: a class token and the patches, each with its position added, on slices.
use rayon::prelude::*;

use super::linear::add_rows;
use super::partition::{Partition, total};
use super::zeros;

/// Sizes: so many patches of each image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patches {
    pub(super) images: usize,
    pub(super) patches: usize,
    pub(super) width: usize,
}

impl Patches {
    /// Values of an image's tokens.
    fn tokens(&self) -> usize {
        (self.patches + 1) * self.width
    }
}

/// `[images, patches + 1, width]` of `patches` `[images, patches, width]`, `class` `[width]` and `positions`
/// `[patches + 1, width]`.
pub(super) fn forward(patches: &[f32], class: &[f32], positions: &[f32], p: &Patches) -> Vec<f32> {
    let mut out = zeros(p.images * p.tokens());
    out.par_chunks_mut(p.tokens()).zip(patches.par_chunks(p.patches * p.width)).for_each(|(out, patches)| {
        let values = class.iter().chain(patches).zip(positions);
        out.iter_mut().zip(values).for_each(|(out, (value, position))| *out = value + position);
    });
    out
}

/// Gradients of patches, class and positions, from that of the tokens.
pub(super) fn backward(gradient: &[f32], p: &Patches) -> [Vec<f32>; 3] {
    let group = Partition::new(p.images, p.patches + 1, p.tokens()).group();
    let mut of_patches = zeros(p.images * p.patches * p.width);
    let sums: Vec<Vec<f32>> = of_patches
        .par_chunks_mut(group * p.patches * p.width)
        .zip(gradient.par_chunks(group * p.tokens()))
        .map(|(of_patches, gradient)| {
            let mut sum = vec![0.0; p.tokens()];
            let images = of_patches.chunks_exact_mut(p.patches * p.width).zip(gradient.chunks_exact(p.tokens()));
            for (of_patches, gradient) in images {
                of_patches.copy_from_slice(&gradient[p.width..]);
                add_rows(&mut sum, gradient);
            }
            sum
        })
        .collect();
    let [of_positions] = total(&sums, [p.tokens()]);
    let of_class = of_positions[..p.width].to_vec();
    [of_patches, of_class, of_positions]
}
