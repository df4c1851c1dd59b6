//! Whether bytes are an image we can use: the header always, every pixel where asked.
use std::cell::RefCell;
use std::fmt::Display;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::{ImageFormat, ImageReader};
use turbojpeg::{Colorspace, Decompressor, PixelFormat, ScalingFactor};

use crate::augment::{BadClass, BadSample};

/// A progressive JPEG with more scans is no photograph: a few kilobytes of it could keep a decoder busy for minutes.
const MAX_SCANS: u32 = 500;

/// What a header declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) format: ImageFormat,
    pub(super) width: u32,
    pub(super) height: u32,
}

/// The format the first bytes belong to, if it is one we read.
pub(super) fn format_of(first: &[u8]) -> Option<ImageFormat> {
    use ImageFormat::{Gif, Jpeg, Png, WebP};
    image::guess_format(first).ok().filter(|format| matches!(format, Jpeg | Png | WebP | Gif))
}

/// As the `format` column has it.
pub(super) fn format_name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Jpeg => "jpeg",
        ImageFormat::Png => "png",
        ImageFormat::WebP => "webp",
        _ => "gif",
    }
}

/// Reads the header and, with `decode`, everything.
///
/// # Errors
/// The sample is of no use: empty, of another format, with a damaged header, too large, or damaged further on.
pub(super) fn check(bytes: &[u8], max_pixels: u64, decode: bool) -> Result<Header, BadSample> {
    // Decoders are large and fed with whatever lies on a disk: a panic in one is that image's end, not the import's.
    let checked = catch_unwind(AssertUnwindSafe(|| {
        let header = probe(bytes)?;
        let pixels = u64::from(header.width) * u64::from(header.height);
        if pixels > max_pixels {
            let message = format!("declares {}x{} pixels, more than {max_pixels}", header.width, header.height);
            return Err(BadSample { class: BadClass::TooManyPixels, message });
        }
        if decode {
            decode_all(bytes, header)?;
        }
        Ok(header)
    }));
    checked.unwrap_or_else(|_| Err(bad(BadClass::Decode, "the decoder gave up")))
}

fn bad(class: BadClass, message: &(impl Display + ?Sized)) -> BadSample {
    BadSample { class, message: message.to_string() }
}

fn probe(bytes: &[u8]) -> Result<Header, BadSample> {
    if bytes.is_empty() {
        return Err(bad(BadClass::Empty, "no bytes"));
    }
    let Some(format) = format_of(bytes) else {
        return Err(bad(BadClass::UnknownFormat, "begins like no JPEG, PNG, WebP or GIF"));
    };
    let dimensions = ImageReader::with_format(Cursor::new(bytes), format).into_dimensions();
    let (width, height) = dimensions.map_err(|error| bad(BadClass::Header, &error))?;
    if width == 0 || height == 0 {
        return Err(bad(BadClass::Header, &format!("declares {width}x{height} pixels")));
    }
    Ok(Header { format, width, height })
}

fn decode_all(bytes: &[u8], header: Header) -> Result<(), BadSample> {
    if header.format == ImageFormat::Jpeg {
        return decode_jpeg(bytes).map_err(|error| bad(BadClass::Decode, &error));
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), header.format);
    // The pixels are counted already.
    reader.no_limits();
    reader.decode().map(drop).map_err(|error| bad(BadClass::Decode, &error))
}

thread_local! {
    static JPEG: RefCell<Option<Decompressor>> = const { RefCell::new(None) };
}

/// An eighth of each side still reads every coefficient, and libjpeg reports damage that it could conceal.
fn decode_jpeg(bytes: &[u8]) -> turbojpeg::Result<()> {
    JPEG.with_borrow_mut(|kept| {
        let decompressor = match kept {
            Some(decompressor) => decompressor,
            None => kept.insert(Decompressor::new()?),
        };
        decompressor.set_scan_limit(MAX_SCANS)?;
        let header = decompressor.read_header(bytes)?;
        let scale = if header.is_lossless { ScalingFactor::ONE } else { ScalingFactor::ONE_EIGHTH };
        decompressor.set_scaling_factor(scale)?;
        let (width, height) = (scale.scale(header.width), scale.scale(header.height));
        let format = match header.colorspace {
            Colorspace::CMYK | Colorspace::YCCK => PixelFormat::CMYK,
            Colorspace::Gray => PixelFormat::GRAY,
            _ => PixelFormat::RGB,
        };
        let pitch = width * format.size();
        let mut pixels = vec![0; pitch * height];
        decompressor.decompress(bytes, turbojpeg::Image { pixels: &mut pixels[..], width, pitch, height, format })
    })
}

#[cfg(test)]
mod tests {
    use image::{DynamicImage, RgbImage};

    use super::*;

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
            let expected = Header { format, width: 37, height: 21 };
            assert_eq!(check(&encoded(format), 37 * 21, true).unwrap(), expected);
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
