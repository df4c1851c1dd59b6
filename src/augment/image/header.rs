//! What an image's first bytes say: format, size, channels, orientation. No pixel is decoded.
//!
//! Written by hand for the four formats: a header is a few fields at known places, and reading them this way cannot
//! allocate, cannot panic and takes no decoder's word for what is checked before that decoder runs.
use image::metadata::Orientation;

use crate::augment::{BadClass, BadSample};

/// Formats that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// JPEG: baseline, progressive, arithmetic, lossless.
    Jpeg,
    /// PNG.
    Png,
    /// WebP: lossy, lossless, the first frame of an animation.
    Webp,
    /// GIF: the first frame.
    Gif,
}

impl Format {
    /// As the column `format` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "jpeg",
            Self::Png => "png",
            Self::Webp => "webp",
            Self::Gif => "gif",
        }
    }
}

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Format.
    pub format: Format,
    /// Columns as stored: EXIF orientation is not applied.
    pub width: u32,
    /// Rows as stored.
    pub height: u32,
    /// Channels as stored: 1 grey, 2 grey and alpha, 3 colour (or a palette), 4 colour and alpha, or CMYK.
    pub channels: u8,
}

impl Header {
    /// Pixels declared.
    pub fn pixels(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    /// Refuses images that declare more than `max_pixels`, before anything is allocated for them.
    ///
    /// # Errors
    /// [`BadClass::TooManyPixels`].
    pub fn check_pixels(&self, max_pixels: u64) -> Result<(), BadSample> {
        if self.pixels() <= max_pixels {
            return Ok(());
        }
        let message = format!("declares {}x{} pixels, more than the limit of {max_pixels}", self.width, self.height);
        Err(BadSample { class: BadClass::TooManyPixels, message })
    }
}

/// Reads the header of an encoded image.
///
/// # Errors
/// [`BadClass::Empty`], [`BadClass::UnknownFormat`], or [`BadClass::Header`] where it is cut off or contradicts itself.
pub fn probe(encoded: &[u8]) -> Result<Header, BadSample> {
    let bad = |class, message: &str| BadSample { class, message: message.to_owned() };
    if encoded.is_empty() {
        return Err(bad(BadClass::Empty, "no bytes"));
    }
    let header = match format_of(encoded) {
        Some(Format::Jpeg) => JpegFrame::find(encoded).map(|frame| frame.header()),
        Some(Format::Png) => png(encoded),
        Some(Format::Webp) => webp(encoded),
        Some(Format::Gif) => gif(encoded),
        None => return Err(bad(BadClass::UnknownFormat, "the first bytes are not those of JPEG, PNG, WebP or GIF")),
    };
    let header = header.ok_or_else(|| bad(BadClass::Header, "the header is cut off or contradicts itself"))?;
    if header.pixels() == 0 {
        return Err(bad(BadClass::Header, "declares no pixels"));
    }
    Ok(header)
}

/// The format the first bytes belong to, if it is one that is read.
pub fn format_of(encoded: &[u8]) -> Option<Format> {
    match encoded {
        [0xff, 0xd8, 0xff, ..] => Some(Format::Jpeg),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(Format::Png),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Format::Webp),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Format::Gif),
        _ => None,
    }
}

/// The frame header of a JPEG and what a decoder's plan depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct JpegFrame {
    /// Offset of the two bytes that hold the height.
    pub(super) height_at: usize,
    pub(super) width: u16,
    pub(super) height: u16,
    pub(super) components: u8,
    /// Rows of pixels in a row of minimum coded units.
    pub(super) unit_rows: usize,
    /// One Huffman-coded scan with all components and without restart markers: rows lie in the file in order.
    pub(super) rows_in_order: bool,
}

impl JpegFrame {
    /// Walks the segments up to the first scan; `None` where they are cut off or there is no frame.
    pub(super) fn find(encoded: &[u8]) -> Option<Self> {
        let mut frame: Option<Self> = None;
        let mut restarts = false;
        for (marker, at, segment) in JpegSegments::new(encoded) {
            match marker {
                // Every start of frame but DHT (c4), JPG (c8) and DAC (cc), which share the range.
                0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                    let [_precision, h1, h0, w1, w0, components, rest @ ..] = segment else { return None };
                    let rows = rest.chunks_exact(3).map(|component| usize::from(component[1] & 15)).max()?;
                    if frame.is_some() || rest.len() < 3 * usize::from(*components) {
                        return None;
                    }
                    frame = Some(Self {
                        height_at: at + 1,
                        height: u16::from_be_bytes([*h1, *h0]),
                        width: u16::from_be_bytes([*w1, *w0]),
                        components: *components,
                        unit_rows: 8 * rows,
                        rows_in_order: matches!(marker, 0xc0 | 0xc1),
                    });
                }
                0xdd => restarts |= segment.iter().any(|&byte| byte != 0),
                0xda => {
                    let scanned = segment.first();
                    return frame.map(|frame| Self {
                        rows_in_order: frame.rows_in_order && !restarts && scanned == Some(&frame.components),
                        ..frame
                    });
                }
                _ => {}
            }
        }
        frame
    }

    fn header(&self) -> Header {
        let (width, height) = (u32::from(self.width), u32::from(self.height));
        Header { format: Format::Jpeg, width, height, channels: self.components }
    }
}

/// Marker segments of a JPEG up to and with the first start of scan: marker, offset of its contents, contents.
struct JpegSegments<'a> {
    encoded: &'a [u8],
    at: usize,
}

impl<'a> JpegSegments<'a> {
    fn new(encoded: &'a [u8]) -> Self {
        Self { encoded, at: 2 }
    }
}

impl<'a> Iterator for JpegSegments<'a> {
    type Item = (u8, usize, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        // Bytes between segments are skipped, as libjpeg does; ff bytes may be repeated before a marker.
        loop {
            self.at += self.encoded.get(self.at..)?.iter().position(|&byte| byte == 0xff)?;
            self.at += self.encoded[self.at..].iter().position(|&byte| byte != 0xff)?;
            let marker = self.encoded[self.at];
            self.at += 1;
            match marker {
                // No marker, or one without contents.
                0x00 | 0x01 | 0xd0..=0xd8 => {}
                0xd9 => return None,
                _ => {
                    let length = self.encoded.get(self.at..self.at + 2)?;
                    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
                    let start = self.at + 2;
                    self.at += length.max(2);
                    return Some((marker, start, self.encoded.get(start..self.at)?));
                }
            }
        }
    }
}

/// Where a JPEG's EXIF segment says its top is; `None` where it says nothing.
pub(super) fn jpeg_orientation(encoded: &[u8]) -> Option<Orientation> {
    JpegSegments::new(encoded)
        .filter(|(marker, ..)| *marker == 0xe1)
        .find_map(|(_, _, segment)| Orientation::from_exif_chunk(segment.strip_prefix(b"Exif\0\0")?))
}

fn png(encoded: &[u8]) -> Option<Header> {
    let [w3, w2, w1, w0, h3, h2, h1, h0, _depth, color, ..] = encoded.get(16..)? else { return None };
    if encoded.get(12..16)? != b"IHDR" {
        return None;
    }
    let channels = match color {
        0 => 1,
        4 => 2,
        2 | 3 => 3,
        6 => 4,
        _ => return None,
    };
    let (width, height) = (u32::from_be_bytes([*w3, *w2, *w1, *w0]), u32::from_be_bytes([*h3, *h2, *h1, *h0]));
    Some(Header { format: Format::Png, width, height, channels })
}

fn gif(encoded: &[u8]) -> Option<Header> {
    let [w0, w1, h0, h1, ..] = encoded.get(6..)? else { return None };
    let (width, height) = (u16::from_le_bytes([*w0, *w1]), u16::from_le_bytes([*h0, *h1]));
    Some(Header { format: Format::Gif, width: width.into(), height: height.into(), channels: 3 })
}

fn webp(encoded: &[u8]) -> Option<Header> {
    const ALPHA_FLAG: u8 = 0x10;
    let chunk = encoded.get(20..)?;
    let (width, height, alpha) = match (encoded.get(12..16)?, chunk) {
        // Lossy (RFC 6386, 9.1): frame tag, start code, two sizes of 14 bits.
        (b"VP8 ", [_, _, _, 0x9d, 0x01, 0x2a, w0, w1, h0, h1, ..]) => {
            let size = |low, high| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
            (size(*w0, *w1), size(*h0, *h1), false)
        }
        // Lossless: signature, two sizes of 14 bits minus one, whether alpha is used.
        (b"VP8L", [0x2f, b0, b1, b2, b3, ..]) => {
            let bits = u32::from_le_bytes([*b0, *b1, *b2, *b3]);
            ((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1, bits >> 28 & 1 == 1)
        }
        // Extended: flags, three reserved bytes, two sizes of 24 bits minus one.
        (b"VP8X", [flags, _, _, _, w0, w1, w2, h0, h1, h2, ..]) => {
            let size = |b0, b1, b2| u32::from_le_bytes([b0, b1, b2, 0]) + 1;
            let canvas = (size(*w0, *w1, *w2), size(*h0, *h1, *h2));
            if !webp_frames_fit(encoded, canvas) {
                return None;
            }
            (canvas.0, canvas.1, flags & ALPHA_FLAG != 0)
        }
        _ => return None,
    };
    Some(Header { format: Format::Webp, width, height, channels: if alpha { 4 } else { 3 } })
}

/// Whether every lossy frame of an extended WebP declares no more than its canvas, and no metadata more than the file has.
///
/// Decoders compare sizes after they have decoded: a canvas of one pixel may hold a frame of 268 megapixels.
fn webp_frames_fit(encoded: &[u8], canvas: (u32, u32)) -> bool {
    /// Bytes of RIFF's own header.
    const RIFF_BYTES: usize = 12;
    /// Bytes of a frame's header, before the chunks inside of it.
    const ANMF_BYTES: usize = 16;
    let mut at = RIFF_BYTES;
    while let Some(header) = encoded.get(at..at + 8) {
        let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        let body = at + 8;
        let fits = match &header[..4] {
            b"VP8 " => match encoded.get(body + 6..body + 10) {
                Some(size) => {
                    let side = |low, high| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
                    side(size[0], size[1]) <= canvas.0 && side(size[2], size[3]) <= canvas.1
                }
                // Cut off before its size: the decoder will not get further either.
                None => true,
            },
            b"EXIF" => encoded.len() - body >= length,
            _ => true,
        };
        if !fits {
            return false;
        }
        // Chunks inside a frame are walked as well; after the last one the walk is where it would be otherwise.
        at = match &header[..4] {
            b"ANMF" => body + ANMF_BYTES,
            _ => body + length + length % 2,
        };
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
        let padding = vec![0; data.len() % 2];
        [&kind[..], &(data.len() as u32).to_le_bytes(), data, &padding].concat()
    }

    fn extended(width: u8, height: u8, chunks: &[u8]) -> Vec<u8> {
        let canvas = chunk(b"VP8X", &[0, 0, 0, 0, width - 1, 0, 0, height - 1, 0, 0]);
        [&b"RIFF\xff\0\0\0WEBP"[..], &canvas, chunks].concat()
    }

    #[test]
    fn webp_frames_larger_than_their_canvas_are_refused_before_they_are_decoded() {
        let frame = |width: u16, height: u16| {
            let [w, h] = [width, height].map(u16::to_le_bytes);
            chunk(b"VP8 ", &[0x10, 0, 0, 0x9d, 1, 0x2a, w[0], w[1], h[0], h[1], 7])
        };
        let animated = |inner: &[u8]| chunk(b"ANMF", &[&[0; 16][..], inner].concat());
        assert_eq!(probe(&extended(40, 30, &frame(40, 30))).map(|header| header.pixels()), Ok(1_200));
        assert!(probe(&extended(40, 30, &animated(&frame(40, 30)))).is_ok());
        for large in
            [frame(16_383, 16_383), animated(&frame(41, 1)), [chunk(b"ALPH", &[1, 2, 3]), frame(1, 31)].concat()]
        {
            assert_eq!(probe(&extended(40, 30, &large)).expect_err("too large").class, BadClass::Header);
        }
        let mut endless = chunk(b"EXIF", &[1, 2, 3, 4]);
        endless[7] = 0x7f;
        assert_eq!(probe(&extended(40, 30, &endless)).expect_err("cut off").class, BadClass::Header);
    }
}
