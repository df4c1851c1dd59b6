//! A contact sheet of documents: a panel per window, a row per sentence, a cell per token, as a PNG to look at.
//!
//! Equal tokens have equal colours, so that repeats, padding and sentences that are cut are seen at a glance.
use std::path::Path;

use image::{Rgb, RgbImage};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    Result,
    error::{Context, Error, Stage},
};

const CELL_PIXELS: usize = 9;
/// Width the sheet aims at.
const SHEET_PIXELS: usize = 1_200;
/// Between cells, between the windows of one item, and between items.
const CELL_GAP_PIXELS: usize = 1;
const INNER_GAP_PIXELS: usize = 4;
const OUTER_GAP_PIXELS: usize = 12;
const BACKGROUND: Rgb<u8> = Rgb([44, 46, 51]);
const PADDING: Rgb<u8> = Rgb([28, 29, 33]);
/// Least and most of a colour's parts: light on the dark of padding.
const PARTS: (u64, u64) = (80, 240);

/// Lays out `ids`, `[items, windows, sentences, tokens]`, as a grid in reading order, the windows of an item side by side.
///
/// # Errors
/// The length does not fit the shape, or there is nothing to show.
pub fn token_sheet(ids: &[u32], [items, windows, sentences, tokens]: [usize; 4]) -> Result<RgbImage> {
    let panel_ids = sentences * tokens;
    if items * windows * panel_ids == 0 || ids.len() != items * windows * panel_ids {
        let reason = format!("{} ids are not [{items}, {windows}, {sentences}, {tokens}], or nothing", ids.len());
        return Err(Error::at(Stage::Batch, "contact sheet", reason));
    }
    let pitch = CELL_PIXELS + CELL_GAP_PIXELS;
    let (panel_width, panel_height) = (tokens * pitch, sentences * pitch);
    let item_width = windows * panel_width + (windows - 1) * INNER_GAP_PIXELS;
    let columns = (SHEET_PIXELS / (item_width + OUTER_GAP_PIXELS)).clamp(1, items);
    let width = columns * (item_width + OUTER_GAP_PIXELS) + OUTER_GAP_PIXELS;
    let height = items.div_ceil(columns) * (panel_height + OUTER_GAP_PIXELS) + OUTER_GAP_PIXELS;
    let (Ok(width), Ok(height)) = (u32::try_from(width), u32::try_from(height)) else {
        return Err(Error::at(Stage::Batch, "contact sheet", "is too large; show fewer items"));
    };
    let mut sheet = RgbImage::from_pixel(width, height, BACKGROUND);
    for (at, panel) in ids.chunks_exact(panel_ids).enumerate() {
        let (item, window) = (at / windows, at % windows);
        let left = OUTER_GAP_PIXELS
            + item % columns * (item_width + OUTER_GAP_PIXELS)
            + window * (panel_width + INNER_GAP_PIXELS);
        let top = OUTER_GAP_PIXELS + item / columns * (panel_height + OUTER_GAP_PIXELS);
        for (place, &id) in panel.iter().enumerate() {
            let (x, y) = (left + place % tokens * pitch, top + place / tokens * pitch);
            for cell in 0..CELL_PIXELS * CELL_PIXELS {
                sheet.put_pixel((x + cell % CELL_PIXELS) as u32, (y + cell / CELL_PIXELS) as u32, color(id));
            }
        }
    }
    Ok(sheet)
}

fn color(id: u32) -> Rgb<u8> {
    if id == 0 {
        return PADDING;
    }
    let hash = xxh3_64(&id.to_le_bytes());
    let (least, most) = PARTS;
    Rgb([0, 16, 32].map(|shift| (least + (hash >> shift & 0xffff) % (most - least)) as u8))
}

/// [`token_sheet`] into a PNG file.
///
/// # Errors
/// As there, or the file cannot be written.
pub fn write_token_sheet(path: &Path, ids: &[u32], shape: [usize; 4]) -> Result<()> {
    token_sheet(ids, shape)?.save_with_format(path, image::ImageFormat::Png).context(
        Stage::Batch,
        path.display().to_string(),
        "cannot write the contact sheet",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_tokens_have_one_colour_and_padding_is_dark() {
        let sheet = token_sheet(&[3, 4, 0, 3, 0, 0], [1, 1, 2, 3]).unwrap();
        let at = |sentence: u32, token: u32| *sheet.get_pixel(12 + 10 * token, 12 + 10 * sentence);
        assert_eq!(sheet.dimensions(), (12 + 30 + 12, 12 + 20 + 12));
        assert_eq!((at(0, 0), at(0, 2)), (at(1, 0), PADDING));
        assert!(at(0, 0) != at(0, 1) && at(0, 0) != PADDING);
    }

    #[test]
    fn windows_of_an_item_stand_side_by_side_and_wrong_lengths_are_refused() {
        let sheet = token_sheet(&[1; 8], [2, 2, 1, 2]).unwrap();
        assert_eq!(sheet.dimensions(), (12 + 2 * (20 + 4 + 20 + 12), 12 + 10 + 12));
        assert!(token_sheet(&[1; 8], [2, 2, 1, 3]).is_err() && token_sheet(&[], [0, 1, 1, 1]).is_err());
    }
}
