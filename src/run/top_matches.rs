//! Captions with their best images: which these are is known only after all are ranked, so their pictures are a second pass.
use std::collections::{BTreeSet, HashMap};

use datafusion::arrow::array::RecordBatch;

use super::{
    clip_evaluation::Pairs,
    embedded_rows::{IMAGE, column},
};
use crate::{
    augment::image::{
        encode::encode_jpeg,
        thumbnail::{DecodeLimits, thumbnail},
    },
    error::{Context as _, Result, Stage},
    evaluate::{
        clip::embedder::MAX_PIXELS,
        matches::{CaptionMatches, MatchedImage, Matches},
        retrieval::best_images,
    },
    select::functions::encoded_images::EncodedImages,
    train::report::base64,
};

/// Longer side of a picture.
const PICTURE_PIXELS: usize = 112;
const PICTURE_QUALITY: i32 = 82;

/// What an encoded image is known by.
pub(super) type ImageHash = blake3::Hash;

/// Of the encoded images of some rows.
///
/// # Errors
/// The column holds no images.
pub(super) fn hashes(batch: &RecordBatch, rows: &[usize]) -> Result<Vec<ImageHash>> {
    let images = EncodedImages::new(column(batch, IMAGE)?).context(Stage::Evaluate, IMAGE, "holds no images")?;
    Ok(rows.iter().map(|&row| blake3::hash(images.get(row).unwrap_or_default())).collect())
}

/// `pictures` captions, spread evenly over all, with their best images. `rows` hands over all batches once more.
///
/// # Errors
/// Those of `rows`.
pub(super) fn top_matches(
    pairs: &Pairs,
    pictures: usize,
    rows: impl FnOnce(&mut dyn FnMut(&RecordBatch) -> Result<()>) -> Result<()>,
) -> Result<Matches> {
    let count = pairs.captions.len();
    let chosen: BTreeSet<usize> = (0..pictures.min(count)).map(|at| at * count / pictures.min(count)).collect();
    let ranked = |&text: &usize| best_images(&pairs.images, pairs.texts.row(text), pairs.image_of[text]);
    let best: Vec<_> = chosen.iter().map(ranked).collect::<Result<_>>()?;
    let mut wanted: BTreeSet<[u8; 32]> =
        best.iter().flat_map(|best| &best.images).map(|found| *pairs.hashes[found.image].as_bytes()).collect();
    let mut jpegs: HashMap<ImageHash, String> = HashMap::new();
    rows(&mut |batch| {
        let all: Vec<usize> = (0..batch.num_rows()).collect();
        let images = EncodedImages::new(column(batch, IMAGE)?).context(Stage::Evaluate, IMAGE, "holds no images")?;
        for (row, hash) in hashes(batch, &all)?.into_iter().enumerate() {
            if wanted.remove(hash.as_bytes()) {
                jpegs.insert(hash, picture(images.get(row).unwrap_or_default()).unwrap_or_default());
            }
        }
        Ok(())
    })?;
    let shown = |found: &crate::evaluate::retrieval::Match| MatchedImage {
        jpeg: jpegs.get(&pairs.hashes[found.image]).cloned().unwrap_or_default(),
        cosine: found.cosine,
        is_right: found.is_right,
    };
    let captions = chosen.iter().zip(&best).map(|(&text, best)| CaptionMatches {
        caption: pairs.captions[text].clone(),
        own_rank: best.own_rank,
        images: best.images.iter().map(shown).collect(),
    });
    Ok(Matches { captions: captions.collect(), images: pairs.images.rows() })
}

/// A small JPEG in base64.
fn picture(encoded: &[u8]) -> Option<String> {
    let limits = DecodeLimits { max_pixels: MAX_PIXELS, exif_orientation: false };
    let small = thumbnail(encoded, limits, |width, height| {
        let longer = width.max(height).max(1);
        let side = |length: usize| (length * PICTURE_PIXELS / longer).clamp(1, PICTURE_PIXELS);
        (side(width), side(height))
    });
    Some(base64::encode(&encode_jpeg(&small.ok()?, PICTURE_QUALITY).ok()?))
}
