//! An encoded image resampled to one size, for looking at it as a whole: hashes, means, smaller copies.
use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::{Scratch, planes::PlanarImage, region::Region, resample::resample, source::Source};
use crate::augment::{BadClass, BadSample};

/// An eighth of each side is what a JPEG decoder makes of every coefficient with the least other work.
const SMALLEST_SCALE: usize = 8;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// What to decode and what not.
#[derive(Debug, Clone, Copy)]
pub struct DecodeLimits {
    /// Images that declare more are refused before anything is allocated for them.
    pub max_pixels: u64,
    /// Whether the image is turned as its EXIF orientation says.
    pub exif_orientation: bool,
}

/// The whole image as RGB of the size that `size` makes of its own (width, height), bilinearly and without aliases.
///
/// A JPEG is decoded at the smallest of 1/8, 1/4, 1/2 and 1 that still has the pixels of the result.
///
/// # Errors
/// The image is bad, whatever a decoder does with hostile bytes; or `size` asked for no pixels.
pub fn thumbnail(
    encoded: &[u8],
    limits: DecodeLimits,
    size: impl FnOnce(usize, usize) -> (usize, usize),
) -> Result<PlanarImage, BadSample> {
    guarded(|scratch| {
        let source = Source::open(encoded, limits.max_pixels, limits.exif_orientation)?;
        let (width, height) = source.size();
        let (out_width, out_height) = size(width, height);
        let region = Region { out_width, out_height, ..Region::whole(width, height) };
        source.decode(&[region], &mut scratch.decoders, &mut scratch.decoded)?;
        let mut image = PlanarImage::default();
        image.resize(out_width, out_height);
        if resample(&mut scratch.resampler, &scratch.decoded, &region, &mut image.planes()) {
            return Ok(image);
        }
        Err(decode_failure("cannot be resampled to this size"))
    })
}

/// Decodes every coefficient of the image and keeps nothing.
///
/// # Errors
/// The image is bad.
pub fn decodes(encoded: &[u8], max_pixels: u64) -> Result<(), BadSample> {
    guarded(|scratch| {
        let source = Source::open(encoded, max_pixels, false)?;
        let (width, height) = source.size();
        let (out_width, out_height) = ((width / SMALLEST_SCALE).max(1), (height / SMALLEST_SCALE).max(1));
        let region = Region { out_width, out_height, ..Region::whole(width, height) };
        source.decode(&[region], &mut scratch.decoders, &mut scratch.decoded)
    })
}

fn guarded<T>(work: impl FnOnce(&mut Scratch) -> Result<T, BadSample>) -> Result<T, BadSample> {
    SCRATCH.with_borrow_mut(|scratch| match catch_unwind(AssertUnwindSafe(|| work(scratch))) {
        Ok(result) => {
            scratch.trim();
            result
        }
        Err(_) => {
            // What the panic left behind is in no state to be used again.
            *scratch = Scratch::default();
            Err(decode_failure("the decoder panicked"))
        }
    })
}

fn decode_failure(message: &str) -> BadSample {
    BadSample { class: BadClass::Decode, message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use image::ImageEncoder as _;

    use super::*;

    const LIMITS: DecodeLimits = DecodeLimits { max_pixels: 10_000, exif_orientation: false };

    fn png(width: u32, height: u32, pixel: impl Fn(u32, u32) -> u8) -> Vec<u8> {
        let samples: Vec<u8> = (0..width * height).map(|at| pixel(at % width, at / width)).collect();
        let mut encoded = vec![];
        image::codecs::png::PngEncoder::new(&mut encoded)
            .write_image(&samples, width, height, image::ExtendedColorType::L8)
            .unwrap();
        encoded
    }

    #[test]
    fn a_flat_image_stays_flat_at_any_size() {
        let image = png(50, 30, |_, _| 77);
        for size in [(1, 1), (9, 8), (32, 32), (200, 10)] {
            let small = thumbnail(&image, LIMITS, |_, _| size).unwrap();
            assert_eq!((small.width(), small.height()), size);
            assert!(small.pixels().iter().all(|&sample| sample == 77), "{size:?}");
        }
    }

    #[test]
    fn the_size_is_chosen_by_the_images_own() {
        let small = thumbnail(&png(60, 20, |x, _| x as u8), LIMITS, |width, height| (width / 10, height / 10)).unwrap();
        assert_eq!((small.width(), small.height()), (6, 2));
        assert!(small.pixels()[0] < small.pixels()[5]);
    }

    #[test]
    fn damage_and_too_many_pixels_are_answers() {
        let image = png(50, 30, |x, y| (x * y) as u8);
        decodes(&image, 1_500).unwrap();
        assert_eq!(decodes(&image, 1_499).unwrap_err().class, BadClass::TooManyPixels);
        assert_eq!(decodes(&image[..image.len() - 30], 1_500).unwrap_err().class, BadClass::Decode);
        assert_eq!(decodes(b"", 1_500).unwrap_err().class, BadClass::Empty);
        assert!(thumbnail(&image, LIMITS, |_, _| (0, 5)).is_err());
    }
}
