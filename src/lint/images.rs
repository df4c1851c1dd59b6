//! One image, decoded in full: whether training could use it, what it hashes to, what it looks like.
use xxhash_rust::xxh3::xxh3_64;

use super::rows::Row;
use crate::augment::{
    BadSample,
    image::{
        decode_check::{Checked, decode_check},
        encode::encode_jpeg,
        header::Header,
        perceptual_hash::{HASHED_SIDE_PIXELS, PerceptualHash},
    },
    verify::verify,
};

/// Longer side of a thumbnail.
const THUMBNAIL_PIXELS: usize = 112;
const THUMBNAIL_QUALITY: i32 = 82;

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
    /// A small JPEG, where asked for and possible.
    pub(super) thumbnail: Option<Vec<u8>>,
}

/// Looks at the image of a row.
pub(super) fn look(row: &Row<'_>, max_pixels: u64, thumbnail: bool) -> Seen {
    let encoded = row.image.unwrap_or_default();
    let hash = (!encoded.is_empty()).then(|| xxh3_64(encoded));
    // As the scan verifies before it decodes.
    let bad = verify(encoded, row.image_bytes, row.image_xxh3, || hash.unwrap_or_default()).err();
    let mut seen = Seen { hash, likeness: None, bad, differs: None, thumbnail: None };
    if hash.is_none() {
        return seen;
    }
    let checked = decode_check(encoded, max_pixels, THUMBNAIL_PIXELS, |checked| {
        let small = checked.resized(HASHED_SIDE_PIXELS, HASHED_SIDE_PIXELS)?;
        // Findings are the same with and without a picture.
        let picture = if thumbnail { shrunk(checked).ok() } else { None };
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
    encode_jpeg(&small, THUMBNAIL_QUALITY).map_err(|error| BadSample::undecodable(error.to_string()))
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
