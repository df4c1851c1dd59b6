//! An encoded image, from its first bytes to decoded planes.
use std::io::Cursor;

use image::{
    ColorType, ImageDecoder, ImageResult, Limits,
    codecs::{gif::GifDecoder, png::PngDecoder, webp::WebPDecoder},
    metadata::Orientation,
};

use super::{
    decoded::Decoded,
    header::{Format, Header, jpeg_orientation, probe},
    interleaved,
    jpeg::JpegDecoder,
    pil_mode::PilMode,
    region::Region,
};
use crate::augment::{BadClass, BadSample};

/// Room beside the pixels themselves that a decoder may take.
pub(super) const DECODER_ROOM_BYTES: u64 = 64 << 20;
/// What a decoder may take per declared pixel: RGBA of 16 bits, or the coefficients of a progressive CMYK JPEG.
pub(super) const DECODER_BYTES_PER_PIXEL: u64 = 8;

/// An encoded image whose header has been read and found to be within the limit.
///
/// What becomes RGB by which rule: grey → three equal channels; palette → its colours; 1, 2 and 4 bits → stretched to 8;
/// 16 bits → the high byte; alpha and transparent palette entries → dropped, not blended, as PIL's `convert("RGB")` does;
/// CMYK and YCCK → as PIL, ink times black, with Adobe's inversion; GIF and WebP animations → the first frame, on black
/// where a GIF's frame does not cover the canvas. Colour profiles are ignored. EXIF orientation is ignored unless asked
/// for, as in torchvision and CLIP.
///
/// **Memory.** What an image declares bounds what decoding it takes, whatever its bytes say: at most 16 bytes per declared
/// pixel (8 inside the decoder, at most 8 for what it hands out) and 64 MiB.
#[derive(Debug)]
pub struct Source<'a> {
    encoded: &'a [u8],
    header: Header,
    orientation: Orientation,
}

/// Decoders' memory, one per thread.
#[derive(Debug, Default)]
pub(super) struct Decoders {
    jpeg: Option<JpegDecoder>,
    interleaved: Vec<u8>,
}

impl Decoders {
    /// Bytes this holds on to.
    pub(super) fn capacity_bytes(&self) -> usize {
        self.interleaved.capacity() + self.jpeg.as_ref().map_or(0, JpegDecoder::capacity_bytes)
    }
}

impl<'a> Source<'a> {
    /// Reads the header; decodes nothing.
    ///
    /// # Errors
    /// What [`probe`] and [`Header::check_pixels`] refuse.
    pub fn open(encoded: &'a [u8], max_pixels: u64, exif_orientation: bool) -> Result<Self, BadSample> {
        let header = probe(encoded)?;
        header.check_pixels(max_pixels)?;
        let orientation = match header.format {
            _ if !exif_orientation => None,
            Format::Jpeg => jpeg_orientation(encoded),
            // With limits from the start: a colour profile is inflated with the header.
            Format::Png => {
                let decoder = PngDecoder::with_limits(Cursor::new(encoded), limits(&header));
                agreeing(decoder, &header)?.orientation().ok()
            }
            Format::Webp => agreeing(WebPDecoder::new(Cursor::new(encoded)), &header)?.orientation().ok(),
            Format::Gif => None,
        };
        Ok(Self { encoded, header, orientation: orientation.unwrap_or(Orientation::NoTransforms) })
    }

    /// How PIL would hold this before any conversion.
    pub(super) fn pil_mode(&self) -> PilMode {
        PilMode::of(self.encoded, &self.header)
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Width and height as the views see them: turned where orientation is asked for.
    pub fn size(&self) -> (usize, usize) {
        let (width, height) = (self.header.width as usize, self.header.height as usize);
        if interleaved::swaps_sides(self.orientation) { (height, width) } else { (width, height) }
    }

    /// Decodes at least what `regions` need.
    ///
    /// # Errors
    /// [`BadClass::Decode`]; [`BadClass::Header`] where the decoder reads another size than the header's.
    pub(super) fn decode(
        &self,
        regions: &[Region],
        decoders: &mut Decoders,
        decoded: &mut Decoded,
    ) -> Result<(), BadSample> {
        let reader = Cursor::new(self.encoded);
        match self.header.format {
            Format::Jpeg => {
                let mut decoder = decoders.jpeg.take().map_or_else(JpegDecoder::new, Ok)?;
                decoder.decode(self.encoded, regions, self.orientation, decoded)?;
                // After a failure the decoder is gone: libjpeg-turbo keeps a part of a header it has given up on.
                decoders.jpeg = Some(decoder);
                Ok(())
            }
            Format::Png => self.read(PngDecoder::with_limits(reader, limits(&self.header)), decoders, decoded),
            Format::Webp => self.read(WebPDecoder::new(reader), decoders, decoded),
            Format::Gif => self.read(GifDecoder::new(reader), decoders, decoded),
        }
    }

    /// Decodes all of it into full-size planes of RGB or grey, chroma enlarged as libjpeg does.
    ///
    /// `mode` is [`PilMode::Plain`] for any image, or else this one's own. Where that has a fourth channel, alpha or black,
    /// it is returned, `[height, width]` as stored, and planes of inks are cyan, magenta and yellow.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub(super) fn decode_rgb(
        &self,
        mode: PilMode,
        decoders: &mut Decoders,
        decoded: &mut Decoded,
    ) -> Result<Option<Vec<u8>>, BadSample> {
        let samples: &[u8] = if self.header.format == Format::Jpeg {
            let mut decoder = decoders.jpeg.take().map_or_else(JpegDecoder::new, Ok)?;
            decoder.decode_rgb(self.encoded, mode == PilMode::Inks, self.orientation, decoded)?;
            decoders.jpeg.insert(decoder).interleaved()
        } else {
            self.decode(&[], decoders, decoded)?;
            &decoders.interleaved
        };
        if !matches!(mode, PilMode::Alpha | PilMode::Inks) {
            return Ok(None);
        }
        let channels = usize::from(self.header.channels);
        let pixels = samples.chunks_exact(channels).take(self.header.pixels() as usize);
        Ok(Some(pixels.map(|pixel| pixel[channels - 1]).collect()))
    }

    fn read(
        &self,
        decoder: ImageResult<impl ImageDecoder>,
        decoders: &mut Decoders,
        decoded: &mut Decoded,
    ) -> Result<(), BadSample> {
        let decoder = agreeing(decoder, &self.header)?;
        let color = decoder.color_type();
        let bytes = self.header.pixels() as usize * usize::from(color.bytes_per_pixel());
        if decoders.interleaved.len() < bytes {
            decoders.interleaved.resize(bytes, 0);
        }
        let samples = &mut decoders.interleaved[..bytes];
        decoder.read_image(samples).map_err(|error| refused(&error))?;
        let channels = usize::from(color.channel_count());
        let samples = match color {
            ColorType::L8 | ColorType::La8 | ColorType::Rgb8 | ColorType::Rgba8 => samples,
            ColorType::L16 | ColorType::La16 | ColorType::Rgb16 | ColorType::Rgba16 => high_bytes(samples),
            other => {
                let message = format!("samples of type {other:?} are not supported");
                return Err(BadSample::undecodable(message));
            }
        };
        let width = self.header.width as usize;
        interleaved::into_planes(samples, width, channels, self.orientation, [1.0; 2], decoded);
        Ok(())
    }
}

/// What was declared decides, not what might have been: a small image has no use for the memory of a large one.
fn limits(header: &Header) -> Limits {
    let mut limits = Limits::no_limits();
    let pixels = header.pixels().saturating_mul(DECODER_BYTES_PER_PIXEL);
    limits.max_alloc = Some(pixels.saturating_add(DECODER_ROOM_BYTES));
    limits
}

/// A decoder that agrees with the header and will not allocate beyond its limits.
fn agreeing<D: ImageDecoder>(decoder: ImageResult<D>, header: &Header) -> Result<D, BadSample> {
    let mut decoder = decoder.map_err(|error| refused(&error))?;
    decoder.set_limits(limits(header)).map_err(|error| refused(&error))?;
    if decoder.dimensions() != (header.width, header.height) {
        let message = "two headers declare different sizes".to_owned();
        return Err(BadSample { class: BadClass::Header, message });
    }
    Ok(decoder)
}

fn refused(error: &image::ImageError) -> BadSample {
    BadSample::undecodable(error.to_string())
}

/// Moves the high bytes of native 16-bit samples to the front.
fn high_bytes(samples: &mut [u8]) -> &mut [u8] {
    let count = samples.len() / 2;
    for index in 0..count {
        let sample = u16::from_ne_bytes([samples[2 * index], samples[2 * index + 1]]);
        samples[index] = (sample >> 8) as u8;
    }
    &mut samples[..count]
}
