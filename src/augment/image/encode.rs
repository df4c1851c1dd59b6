//! Pixels back into a file, for copies and for looking at.
use turbojpeg::{Compressor, Image, PixelFormat, Result, Subsamp};

use super::planes::PlanarImage;

/// A JPEG with 4:2:0 chroma; `quality` is 1 (smallest) to 100 (best).
///
/// # Errors
/// A side is longer than JPEG knows, 65,500 pixels, or there are no pixels.
pub fn encode_jpeg(image: &PlanarImage, quality: i32) -> Result<Vec<u8>> {
    let (width, height) = (image.width(), image.height());
    let (red, rest) = image.pixels().split_at(width * height);
    let (green, blue) = rest.split_at(width * height);
    let pixels: Vec<u8> = red.iter().zip(green).zip(blue).flat_map(|((&r, &g), &b)| [r, g, b]).collect();
    let mut compressor = Compressor::new()?;
    compressor.set_quality(quality)?;
    compressor.set_subsamp(Subsamp::Sub2x2)?;
    compressor.compress_to_vec(Image { pixels: &pixels[..], width, pitch: 3 * width, height, format: PixelFormat::RGB })
}
