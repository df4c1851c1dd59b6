//! One image, decoded in full: whether training could use it, what it hashes to, what it looks like.
use image::{ExtendedColorType, ImageEncoder as _, codecs::jpeg::JpegEncoder};
use xxhash_rust::xxh3::xxh3_64;

use super::rows::Row;
use crate::augment::{
    BadClass, BadSample,
    image::{
        decode_check::{Checked, decode_check},
        header::Header,
        perceptual_hash::{HASHED_SIDE_PIXELS, PerceptualHash},
        planes::PlanarImage,
    },
};

/// Longer side of a thumbnail.
const THUMBNAIL_PIXELS: usize = 112;
const THUMBNAIL_QUALITY: u8 = 82;

/// What came of one image.
#[derive(Debug)]
pub(super) struct Seen {
    /// XXH3 of the bytes; `None` where there are none.
    pub(super) hash: Option<u64>,
    /// `None` where it could not be decoded or shows nothing.
    pub(super) likeness: Option<PerceptualHash>,
    /// Why training would refuse it.
    pub(super) bad: Option<BadSample>,
    /// What its row says of it and is not so.
    pub(super) differs: Option<String>,
    /// A small JPEG, where asked for.
    pub(super) thumbnail: Option<Vec<u8>>,
}

/// Looks at the image of a row.
pub(super) fn look(row: &Row<'_>, max_pixels: u64, thumbnail: bool) -> Seen {
    let mut seen = Seen { hash: None, likeness: None, bad: None, differs: None, thumbnail: None };
    let Some(encoded) = row.image.filter(|image| !image.is_empty()) else {
        let message = "the image is null or has no bytes".to_owned();
        return Seen { bad: Some(BadSample { class: BadClass::Empty, message }), ..seen };
    };
    let hash = xxh3_64(encoded);
    seen.hash = Some(hash);
    // As the scan verifies before it decodes.
    if let Some(bytes) = row.image_bytes.filter(|&bytes| bytes != encoded.len() as u64) {
        let message = format!("has {} bytes, imported were {bytes}", encoded.len());
        seen.bad = Some(BadSample { class: BadClass::Checksum, message });
    } else if row.image_xxh3.is_some_and(|declared| declared != hash) {
        let message = "its bytes are not those that were imported".to_owned();
        seen.bad = Some(BadSample { class: BadClass::Checksum, message });
    }
    let checked = decode_check(encoded, max_pixels, THUMBNAIL_PIXELS, |checked| {
        let small = checked.resized(HASHED_SIDE_PIXELS, HASHED_SIDE_PIXELS)?;
        let picture = if thumbnail { Some(shrunk(checked)?) } else { None };
        Ok((checked.header, PerceptualHash::of(&small), picture))
    });
    match checked {
        Ok((header, likeness, picture)) => {
            seen.differs = difference(row, &header);
            (seen.likeness, seen.thumbnail) = (likeness, picture);
        }
        Err(bad) => {
            seen.bad.get_or_insert(bad);
        }
    }
    seen
}

/// The whole image as a small JPEG.
///
/// # Errors
/// It cannot be decoded.
pub(super) fn thumbnail(encoded: &[u8], max_pixels: u64) -> Result<Vec<u8>, BadSample> {
    decode_check(encoded, max_pixels, THUMBNAIL_PIXELS, shrunk)
}

fn shrunk(checked: &mut Checked<'_>) -> Result<Vec<u8>, BadSample> {
    let (width, height) = (checked.header.width as usize, checked.header.height as usize);
    let longer = width.max(height).max(1);
    let side = |length: usize| (length * THUMBNAIL_PIXELS / longer).clamp(1, THUMBNAIL_PIXELS);
    let small = checked.resized(side(width), side(height))?;
    jpeg(&small).map_err(|error| BadSample { class: BadClass::Decode, message: error.to_string() })
}

fn jpeg(image: &PlanarImage) -> image::ImageResult<Vec<u8>> {
    let plane = image.width() * image.height();
    let pixels = image.pixels();
    let interleaved: Vec<u8> =
        (0..plane).flat_map(|at| [0, 1, 2].map(|channel| pixels[channel * plane + at])).collect();
    let mut encoded = vec![];
    JpegEncoder::new_with_quality(&mut encoded, THUMBNAIL_QUALITY).write_image(
        &interleaved,
        image.width() as u32,
        image.height() as u32,
        ExtendedColorType::Rgb8,
    )?;
    Ok(encoded)
}

fn difference(row: &Row<'_>, header: &Header) -> Option<String> {
    let size = [row.width, row.height];
    let found = [u64::from(header.width), u64::from(header.height)];
    if let [Some(width), Some(height)] = size
        && [width, height] != found
    {
        return Some(format!("its row says {width}x{height} pixels, its header {}x{}", found[0], found[1]));
    }
    let format = row.format.filter(|format| *format != header.format.name())?;
    Some(format!("its row says {format}, its first bytes {}", header.format.name()))
}
