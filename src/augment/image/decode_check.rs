//! Whether all of an image can be decoded, and what it looks like: for checks of data, not for training.
use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::{
    Scratch,
    header::Header,
    planes::{PlanarImage, Planes},
    region::Region,
    resample::resample,
    source::Source,
};
use crate::augment::{BadClass, BadSample};

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// An image of which every pixel has been decoded, still in its decoder's planes.
#[derive(Debug)]
pub struct Checked<'a> {
    /// What the first bytes declare.
    pub header: Header,
    scratch: &'a mut Scratch,
}

impl Checked<'_> {
    /// The whole image in `width` x `height` pixels, whatever its own aspect.
    ///
    /// # Errors
    /// [`BadClass::Decode`] where the planes hold nothing of that size.
    pub fn resized(&mut self, width: usize, height: usize) -> Result<PlanarImage, BadSample> {
        let whole = Region::whole(self.header.width as usize, self.header.height as usize);
        let region = Region { out_width: width, out_height: height, ..whole };
        let mut image = PlanarImage::default();
        image.resize(width, height);
        let mut planes: Planes<'_> = image.planes();
        match resample(&mut self.scratch.resampler, &self.scratch.decoded, &region, &mut planes) {
            true => Ok(image),
            false => Err(bad("the image does not fill its own size")),
        }
    }
}

/// Decodes all of an image as training would decode what it needs, and hands it to `look`.
///
/// Every byte that makes pixels is read. A JPEG may be transformed to a fraction of its size that still has `side_pixels` on
/// both sides; `usize::MAX` forbids that. Orientation is left as stored. Nothing is allocated for more than `max_pixels` pixels.
///
/// # Errors
/// The sample is bad. Whatever a decoder does with hostile bytes, a panic included, arrives here as [`BadClass::Decode`].
pub fn decode_check<T>(
    encoded: &[u8],
    max_pixels: u64,
    side_pixels: usize,
    look: impl FnOnce(&mut Checked<'_>) -> Result<T, BadSample>,
) -> Result<T, BadSample> {
    SCRATCH.with_borrow_mut(|scratch| {
        let checked = catch_unwind(AssertUnwindSafe(|| {
            let source = Source::open(encoded, max_pixels, false)?;
            let header = *source.header();
            // A view of the whole image forbids leaving rows out.
            let (width, height) = (header.width as usize, header.height as usize);
            let (out_width, out_height) = (width.min(side_pixels).max(1), height.min(side_pixels).max(1));
            let whole = Region { out_width, out_height, ..Region::whole(width, height) };
            source.decode(&[whole], &mut scratch.decoders, &mut scratch.decoded)?;
            look(&mut Checked { header, scratch: &mut *scratch })
        }));
        match checked {
            Ok(result) => {
                scratch.trim();
                result
            }
            Err(_) => {
                // What the panic left behind is in no state to be used again.
                *scratch = Scratch::default();
                Err(bad("the decoder panicked"))
            }
        }
    })
}

fn bad(message: &str) -> BadSample {
    BadSample { class: BadClass::Decode, message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use image::{ExtendedColorType, ImageEncoder as _, codecs::png::PngEncoder};

    use super::*;

    fn png(width: u32, height: u32) -> Vec<u8> {
        let mut encoded = vec![];
        let pixels = vec![200; (3 * width * height) as usize];
        PngEncoder::new(&mut encoded).write_image(&pixels, width, height, ExtendedColorType::Rgb8).expect("encodes");
        encoded
    }

    #[test]
    fn whole_images_pass_and_show_themselves_in_any_size() {
        let seen = decode_check(&png(30, 20), 600, usize::MAX, |checked| {
            assert_eq!((checked.header.width, checked.header.height), (30, 20));
            checked.resized(7, 9)
        });
        let seen = seen.expect("a good PNG");
        assert_eq!((seen.width(), seen.height()), (7, 9));
        assert!(seen.pixels().iter().all(|&value| value == 200), "{:?}", seen.pixels());
    }

    #[test]
    fn limits_and_damage_are_classed() {
        let class = |encoded: &[u8], max| decode_check(encoded, max, 1, |_| Ok(())).expect_err("bad").class;
        assert_eq!(class(&png(30, 20), 599), BadClass::TooManyPixels);
        let whole = png(30, 20);
        assert_eq!(class(&whole[..whole.len() - 20], 600), BadClass::Decode);
        assert_eq!(
            decode_check(&whole, 600, 1, |_| -> Result<(), _> { panic!("odd") }).expect_err("bad").class,
            BadClass::Decode
        );
        assert!(decode_check(&whole, 600, 1, |_| Ok(())).is_ok(), "nothing is left of the panic");
    }
}
