//! An encoded image resampled to one size, for looking at it as a whole: hashes, means, smaller copies.
use super::{planes::PlanarImage, region::Region, scratch::guarded, source::Source};
use crate::augment::BadSample;

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
        let image = scratch.resampled(&region);
        image.ok_or_else(|| BadSample::undecodable("cannot be resampled to this size"))
    })
}

#[cfg(test)]
mod tests {
    use image::ImageEncoder as _;

    use super::*;
    use crate::augment::BadClass;

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
        let class = |encoded: &[u8], max_pixels| {
            let limits = DecodeLimits { max_pixels, ..LIMITS };
            thumbnail(encoded, limits, |_, _| (5, 3)).map(|_| ()).map_err(|bad| bad.class)
        };
        assert_eq!(class(&image, 1_500), Ok(()));
        assert_eq!(class(&image, 1_499), Err(BadClass::TooManyPixels));
        assert_eq!(class(&image[..image.len() - 30], 1_500), Err(BadClass::Decode));
        assert_eq!(class(b"", 1_500), Err(BadClass::Empty));
        assert!(thumbnail(&image, LIMITS, |_, _| (0, 5)).is_err());
    }
}
