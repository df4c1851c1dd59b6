//! Convolution of channels-last images as matrix products, on slices.
//!
//! A tile of images is unrolled into one matrix (a row per output position, a column per tap and channel) that stays in
//! the cache, and multiplied with the weights there and then: the whole unrolled batch would be nine times the batch.
//! Tiles and the groups of them whose weight gradients are added up have sizes that depend on shapes alone, so that a
//! result has the same bits with any number of threads.
use rayon::prelude::*;

use super::product::{Matrix, product};
use super::zeros;

/// Output positions that a tile has at least, where the batch has so many.
const TILE_POSITIONS: usize = 256;

/// Groups of tiles whose weight gradients are summed one after the other.
const GROUPS: usize = 16;

/// Weights per piece when the groups are summed.
const SUM_VALUES: usize = 4_096;

/// Sizes of one convolution. Zeros stand for whatever a patch reads outside the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) images: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) channels: usize,
    /// Rows and columns of the kernel.
    pub(super) kernel: [usize; 2],
    pub(super) stride: usize,
    /// Zeros above and on the left.
    pub(super) padding: [usize; 2],
    pub(super) out_height: usize,
    pub(super) out_width: usize,
    pub(super) out_channels: usize,
}

impl Geometry {
    fn positions(&self) -> usize {
        self.out_height * self.out_width
    }

    fn kernel_area(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Taps times channels: the inner size of the product.
    fn taps(&self) -> usize {
        self.kernel_area() * self.channels
    }

    fn image(&self) -> usize {
        self.height * self.width * self.channels
    }

    fn images_per_tile(&self) -> usize {
        TILE_POSITIONS.div_ceil(self.positions()).min(self.images).max(1)
    }

    /// A 1x1 kernel at stride 1 reads each input once, in order: the input is its own unrolled matrix.
    fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.stride == 1 && self.padding == [0, 0]
    }
}

/// `[out_channels, channels, kernel rows, kernel columns]` as `[kernel area · channels, out_channels]`.
pub(super) fn taps_first(weight: &[f32], g: &Geometry) -> Vec<f32> {
    let area = g.kernel_area();
    let mut out = vec![0.0; weight.len()];
    for (o, filter) in weight.chunks_exact(area * g.channels).enumerate() {
        for (c, plane) in filter.chunks_exact(area).enumerate() {
            for (tap, &value) in plane.iter().enumerate() {
                out[(tap * g.channels + c) * g.out_channels + o] = value;
            }
        }
    }
    out
}

/// The inverse of [`taps_first`].
fn filters_first(taps: &[f32], g: &Geometry) -> Vec<f32> {
    let area = g.kernel_area();
    let mut out = vec![0.0; taps.len()];
    for (o, filter) in out.chunks_exact_mut(area * g.channels).enumerate() {
        for (c, plane) in filter.chunks_exact_mut(area).enumerate() {
            for (tap, value) in plane.iter_mut().enumerate() {
                *value = taps[(tap * g.channels + c) * g.out_channels + o];
            }
        }
    }
    out
}

/// `input` `[images, height, width, channels]` with `taps` (of [`taps_first`]) to
/// `[images, out_height, out_width, out_channels]`.
pub(super) fn forward(input: &[f32], taps: &[f32], g: &Geometry) -> Vec<f32> {
    let tile = g.images_per_tile();
    let weights = Matrix::row_major(taps, g.taps(), g.out_channels);
    let mut out = zeros(g.images * g.positions() * g.out_channels);
    out.par_chunks_mut(tile * g.positions() * g.out_channels).zip(input.par_chunks(tile * g.image())).for_each_init(
        Vec::new,
        |unrolled, (out, input)| {
            let rows = input.len() / g.image() * g.positions();
            product(out, false, Matrix::row_major(unroll(input, unrolled, g), rows, g.taps()), weights);
        },
    );
    out
}

/// Gradients of input (where `want_input`) and weights `[out_channels, channels, rows, columns]` from the output's.
pub(super) fn backward(
    input: &[f32],
    taps: &[f32],
    out_gradient: &[f32],
    want_input: bool,
    g: &Geometry,
) -> (Option<Vec<f32>>, Vec<f32>) {
    let tile = g.images_per_tile();
    let group = g.images.div_ceil(tile).div_ceil(GROUPS) * tile;
    let weights = Matrix::row_major(taps, g.taps(), g.out_channels).transposed();
    let mut input_gradient = zeros(if want_input { input.len() } else { 0 });
    // Zero-length pieces where nobody wants the input's gradient, so that both cases share one loop.
    let mut pieces: Vec<&mut [f32]> = if want_input {
        input_gradient.chunks_mut(group * g.image()).collect()
    } else {
        (0..g.images.div_ceil(group)).map(|_| Default::default()).collect()
    };
    let partial: Vec<Vec<f32>> = pieces
        .par_iter_mut()
        .zip(input.par_chunks(group * g.image()))
        .zip(out_gradient.par_chunks(group * g.positions() * g.out_channels))
        .map_init(Scratch::default, |scratch, ((piece, input), out_gradient)| {
            let mut sum = vec![0.0; taps.len()];
            let tiles = input.chunks(tile * g.image()).zip(out_gradient.chunks(tile * g.positions() * g.out_channels));
            for (index, (input, out_gradient)) in tiles.enumerate() {
                let rows = input.len() / g.image() * g.positions();
                let errors = Matrix::row_major(out_gradient, rows, g.out_channels);
                let unrolled = Matrix::row_major(unroll(input, &mut scratch.unrolled, g), rows, g.taps());
                product(&mut sum, index > 0, unrolled.transposed(), errors);
                if want_input {
                    let start = index * tile * g.image();
                    let into = &mut piece[start..start + input.len()];
                    if g.is_pointwise() {
                        product(into, false, errors, weights);
                    } else {
                        scratch.gradient.resize(rows * g.taps(), 0.0);
                        product(&mut scratch.gradient, false, errors, weights);
                        roll_up(&scratch.gradient, into, g);
                    }
                }
            }
            sum
        })
        .collect();
    let mut sum = vec![0.0; taps.len()];
    sum.par_chunks_mut(SUM_VALUES).enumerate().for_each(|(index, sum)| {
        for part in &partial {
            let part = &part[index * SUM_VALUES..];
            sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
    });
    (want_input.then_some(input_gradient), filters_first(&sum, g))
}

#[derive(Default)]
struct Scratch {
    unrolled: Vec<f32>,
    gradient: Vec<f32>,
}

/// Calls `run` for every output position's every kernel row: (start in the unrolled matrix, first tap of the row that
/// lies within the image, taps that do, start in the image), the last two 0 for rows outside.
fn each_kernel_row(image: usize, g: &Geometry, mut run: impl FnMut(usize, usize, usize, usize)) {
    let [kernel_rows, kernel_columns] = g.kernel;
    for oy in 0..g.out_height {
        for ox in 0..g.out_width {
            let row = ((image * g.out_height + oy) * g.out_width + ox) * g.taps();
            let left = (ox * g.stride) as isize - g.padding[1] as isize;
            let first = (-left).clamp(0, kernel_columns as isize) as usize;
            let end = (g.width as isize - left).clamp(first as isize, kernel_columns as isize) as usize;
            for ky in 0..kernel_rows {
                let at = row + ky * kernel_columns * g.channels;
                let y = (oy * g.stride + ky) as isize - g.padding[0] as isize;
                if (0..g.height as isize).contains(&y) && end > first {
                    let x = (left + first as isize) as usize;
                    let start = ((image * g.height + y as usize) * g.width + x) * g.channels;
                    run(at, first, end - first, start);
                } else {
                    run(at, 0, 0, 0);
                }
            }
        }
    }
}

/// Every output position's patch as one row, zeros where it leaves the image.
fn unroll<'a>(input: &'a [f32], unrolled: &'a mut Vec<f32>, g: &Geometry) -> &'a [f32] {
    if g.is_pointwise() {
        return input;
    }
    let images = input.len() / g.image();
    unrolled.resize(images * g.positions() * g.taps(), 0.0);
    let row = g.kernel[1] * g.channels;
    for image in 0..images {
        each_kernel_row(image, g, |at, first, taps, start| {
            let into = &mut unrolled[at..at + row];
            let (from, to) = (first * g.channels, (first + taps) * g.channels);
            into[..from].fill(0.0);
            into[from..to].copy_from_slice(&input[start..start + to - from]);
            into[to..].fill(0.0);
        });
    }
    unrolled
}

/// Adds each patch's gradients back to where [`unroll`] took its values.
fn roll_up(unrolled: &[f32], into: &mut [f32], g: &Geometry) {
    for image in 0..into.len() / g.image() {
        each_kernel_row(image, g, |at, first, taps, start| {
            let from = &unrolled[at + first * g.channels..at + (first + taps) * g.channels];
            into[start..start + from.len()].iter_mut().zip(from).for_each(|(into, from)| *into += from);
        });
    }
}
