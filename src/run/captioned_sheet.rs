//! A contact sheet of images with their texts, as a PNG to look at.

use std::path::Path;

use image::{Rgb, RgbImage};

use super::letters::{ADVANCE_DOTS, LINE_DOTS, lines, write_line};
use crate::{
    Result,
    error::{Context, Error, Stage},
};

/// Small images are enlarged by a whole factor until they have at least so many pixels on a side.
const LEAST_SIDE_PIXELS: usize = 128;
/// Width the sheet aims at.
const SHEET_PIXELS: usize = 1_200;
const GAP_PIXELS: usize = 12;
/// Between an image and its text.
const INNER_GAP_PIXELS: usize = 6;
/// Side of a letter's dot.
const DOT_PIXELS: usize = 2;
const MOST_LINES: usize = 4;
const BACKGROUND: Rgb<u8> = Rgb([44, 46, 51]);
const INK: Rgb<u8> = Rgb([225, 228, 235]);

/// Lays out `pixels`, u8 `[items, 1, 3, side, side]`, as a grid in reading order, under each image its text.
///
/// # Errors
/// The length does not fit the shape, or there is nothing to show.
pub fn captioned_sheet(pixels: &[u8], captions: &[String], side_pixels: usize) -> Result<RgbImage> {
    let (items, plane) = (captions.len(), side_pixels * side_pixels);
    if items * plane == 0 || pixels.len() != items * 3 * plane {
        let reason =
            format!("{} bytes are not [{items}, 1, 3, {side_pixels}, {side_pixels}], or nothing", pixels.len());
        return Err(Error::at(Stage::Batch, "contact sheet", reason));
    }
    let scale = LEAST_SIDE_PIXELS.div_ceil(side_pixels);
    let side = side_pixels * scale;
    let letters = side / (ADVANCE_DOTS * DOT_PIXELS);
    let texts: Vec<Vec<String>> = captions.iter().map(|text| lines(text, letters, MOST_LINES)).collect();
    let text_height = texts.iter().map(Vec::len).max().unwrap_or(0) * LINE_DOTS * DOT_PIXELS;
    let (across, down) = (side + GAP_PIXELS, side + INNER_GAP_PIXELS + text_height + GAP_PIXELS);
    let columns = (SHEET_PIXELS / across).clamp(1, items);
    let (width, height) = (columns * across + GAP_PIXELS, items.div_ceil(columns) * down + GAP_PIXELS);
    let (Ok(width), Ok(height)) = (u32::try_from(width), u32::try_from(height)) else {
        return Err(Error::at(Stage::Batch, "contact sheet", "is too large; show fewer items"));
    };
    let mut sheet = RgbImage::from_pixel(width, height, BACKGROUND);
    for (item, (image, text)) in pixels.chunks(3 * plane).zip(&texts).enumerate() {
        let (left, top) = (GAP_PIXELS + item % columns * across, GAP_PIXELS + item / columns * down);
        for y in 0..side {
            for x in 0..side {
                let from = y / scale * side_pixels + x / scale;
                let color = Rgb([image[from], image[plane + from], image[2 * plane + from]]);
                sheet.put_pixel((left + x) as u32, (top + y) as u32, color);
            }
        }
        for (row, line) in text.iter().enumerate() {
            let y = top + side + INNER_GAP_PIXELS + row * LINE_DOTS * DOT_PIXELS;
            write_line(&mut sheet, (left, y), line, DOT_PIXELS, INK);
        }
    }
    Ok(sheet)
}

/// [`captioned_sheet`] into a PNG file.
///
/// # Errors
/// As there, or the file cannot be written.
pub fn write_captioned_sheet(path: &Path, pixels: &[u8], captions: &[String], side_pixels: usize) -> Result<()> {
    captioned_sheet(pixels, captions, side_pixels)?.save_with_format(path, image::ImageFormat::Png).context(
        Stage::Batch,
        path.display().to_string(),
        "cannot write the contact sheet; name a file in a folder that is there and may be written",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_stand_above_their_texts() {
        let pixels: Vec<u8> = [[250, 0, 0], [0, 0, 250]].iter().flat_map(|c| c.iter().flat_map(|&x| [x; 4])).collect();
        let texts = ["a red square".to_owned(), "blue".to_owned()];
        let sheet = captioned_sheet(&pixels, &texts, 2).unwrap();
        // Ten letters a line: the longer text has two.
        assert_eq!(sheet.dimensions(), (2 * 140 + 12, 12 + 128 + 6 + 2 * 20 + 12));
        assert_eq!((sheet.get_pixel(12, 12).0, sheet.get_pixel(152 + 127, 139).0), ([250, 0, 0], [0, 0, 250]));
        let ink =
            |left: u32, top: u32| (left..left + 128).any(|x| (top..top + 14).any(|y| *sheet.get_pixel(x, y) == INK));
        assert!(ink(12, 146) && ink(12, 166) && ink(152, 146) && !ink(152, 166));
        assert!(captioned_sheet(&pixels[1..], &texts, 2).is_err() && captioned_sheet(&[], &[], 2).is_err());
    }
}
