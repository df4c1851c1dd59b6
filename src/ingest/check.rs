//! Whether bytes are an image we can use: the header always, every pixel where asked.
//!
//! The judge is training's own decoder: an import that took what training refuses would only put the answer off.
use crate::augment::{
    BadSample,
    image::{
        decode_check::decode_check,
        header::{Format, Header, probe},
    },
};

pub(super) use crate::augment::image::header::format_of;

/// As the `format` column has it.
pub(super) fn format_name(format: Format) -> &'static str {
    format.name()
}

/// Reads the header and, with `decode`, everything.
///
/// # Errors
/// The sample is of no use: empty, of another format, with a damaged header, too large, or damaged further on.
pub(super) fn check(bytes: &[u8], max_pixels: u64, decode: bool) -> Result<Header, BadSample> {
    if decode {
        // One pixel of detail: an eighth of each side of a JPEG still reads every coefficient.
        return decode_check(bytes, max_pixels, 1, |checked| Ok(checked.header));
    }
    let header = probe(bytes)?;
    header.check_pixels(max_pixels).map(|()| header)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{DynamicImage, ImageFormat, RgbImage};

    use super::*;
    use crate::augment::BadClass;

    fn encoded(format: ImageFormat) -> Vec<u8> {
        let pixels = RgbImage::from_fn(37, 21, |x, y| image::Rgb([(x * 7) as u8, (y * 11) as u8, (x * y) as u8]));
        let mut bytes = Vec::new();
        DynamicImage::from(pixels).write_to(&mut Cursor::new(&mut bytes), format).unwrap();
        bytes
    }

    fn class(bytes: &[u8]) -> BadClass {
        check(bytes, 1000, true).unwrap_err().class
    }

    const FORMATS: [ImageFormat; 4] = [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP, ImageFormat::Gif];

    #[test]
    fn sound_images_pass_in_every_format() {
        for format in FORMATS {
            let header = check(&encoded(format), 37 * 21, true).unwrap();
            assert_eq!((header.width, header.height), (37, 21));
            assert_eq!(format_of(&encoded(format)), Some(header.format), "{format:?}");
        }
    }

    #[test]
    fn cut_off_images_pass_the_header_and_fail_the_decode() {
        for format in FORMATS {
            let bytes = encoded(format);
            let cut = &bytes[..bytes.len() * 3 / 4];
            assert!(check(cut, 1000, false).is_ok(), "{format:?}");
            assert_eq!(class(cut), BadClass::Decode, "{format:?}");
        }
    }

    #[test]
    fn a_decoder_that_failed_once_still_serves_the_next_image() {
        let good = encoded(ImageFormat::Jpeg);
        assert_eq!(class(&good[..good.len() - 40]), BadClass::Decode);
        check(&good, 1000, true).unwrap();
    }

    #[test]
    fn every_kind_of_damage_has_its_class() {
        assert_eq!(class(b""), BadClass::Empty);
        assert_eq!(class(b"hello, I am no image"), BadClass::UnknownFormat);
        assert_eq!(class(b"BM a bitmap, which we do not read"), BadClass::UnknownFormat);
        assert_eq!(class(&encoded(ImageFormat::Png)[..12]), BadClass::Header);
        assert_eq!(class(&encoded(ImageFormat::Jpeg)[..4]), BadClass::Header);
        let error = check(&encoded(ImageFormat::Png), 37 * 21 - 1, true).unwrap_err();
        assert_eq!(error.class, BadClass::TooManyPixels);
        assert!(error.message.contains("37x21"), "{}", error.message);
    }
}
