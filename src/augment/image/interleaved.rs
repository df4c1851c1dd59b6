//! Interleaved samples into planes of RGB: the rules for grey, alpha, 16 bits and CMYK.
use image::metadata::Orientation;

use super::decoded::{Decoded, Layout};

/// CMYK to RGB in the first three bytes of each pixel, as PIL does it.
///
/// Every writer follows Adobe: the four inks are stored inverted, so a stored 255 means no ink, and a channel is its ink
/// times black, divided by 255 and rounded.
pub(super) fn cmyk_to_rgb(samples: &mut [u8]) {
    for pixel in samples.chunks_exact_mut(4) {
        let black = u32::from(pixel[3]);
        for channel in &mut pixel[..3] {
            let product = (255 - u32::from(*channel)) * black + 128;
            let ink = (product + (product >> 8)) >> 8;
            *channel = (black - ink) as u8;
        }
    }
}

/// Spreads rows of interleaved 8-bit pixels over planes, turned as `orientation` says.
///
/// One or two channels are grey (and alpha), three or four are RGB (and alpha, which is dropped, not blended, like PIL's
/// `convert("RGB")`).
pub(super) fn into_planes(
    samples: &[u8],
    width: usize,
    channels: usize,
    orientation: Orientation,
    scale: [f64; 2],
    decoded: &mut Decoded,
) {
    let height = samples.len() / (width * channels).max(1);
    let turned = swaps_sides(orientation);
    let (to_width, to_height) = if turned { (height, width) } else { (width, height) };
    let count = if channels < 3 { 1 } else { 3 };
    if count == 1 {
        decoded.layout = Layout::Gray;
        decoded.planes[0].resize(to_width, to_height, scale);
    } else {
        decoded.prepare_rgb(to_width, to_height, scale);
    }
    if orientation == Orientation::NoTransforms {
        for (channel, plane) in decoded.planes.iter_mut().enumerate().take(count) {
            for (sample, pixel) in plane.samples_mut().iter_mut().zip(samples.chunks_exact(channels)) {
                *sample = pixel[channel];
            }
        }
        return;
    }
    for (channel, plane) in decoded.planes.iter_mut().enumerate().take(count) {
        for (y, row) in plane.samples_mut().chunks_exact_mut(to_width).enumerate() {
            for (x, sample) in row.iter_mut().enumerate() {
                let (from_x, from_y) = source_of(orientation, x, y, width, height);
                *sample = samples[(from_y * width + from_x) * channels + channel];
            }
        }
    }
}

/// Whether width and height change places.
pub(super) fn swaps_sides(orientation: Orientation) -> bool {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH)
}

/// Which stored pixel shows at (x, y) of the turned image; `width` and `height` are those stored.
fn source_of(orientation: Orientation, x: usize, y: usize, width: usize, height: usize) -> (usize, usize) {
    match orientation {
        Orientation::NoTransforms => (x, y),
        Orientation::FlipHorizontal => (width - 1 - x, y),
        Orientation::Rotate180 => (width - 1 - x, height - 1 - y),
        Orientation::FlipVertical => (x, height - 1 - y),
        Orientation::Rotate90FlipH => (y, x),
        Orientation::Rotate90 => (y, height - 1 - x),
        Orientation::Rotate270FlipH => (width - 1 - y, height - 1 - x),
        Orientation::Rotate270 => (width - 1 - y, x),
    }
}
