//! A contact sheet: view pairs side by side, as a PNG to look at.

use std::path::Path;

use image::{Rgb, RgbImage};

use crate::{
    Result,
    error::{Context, Error, Stage},
};

/// Small images are enlarged by a whole factor until a view has at least so many pixels on a side.
const LEAST_SIDE_PIXELS: usize = 96;
/// Width the sheet aims at.
const SHEET_PIXELS: usize = 1_200;
/// Between the views of one item.
const INNER_GAP_PIXELS: usize = 2;
/// Between items.
const OUTER_GAP_PIXELS: usize = 12;
const BACKGROUND: Rgb<u8> = Rgb([44, 46, 51]);

/// Lays out `pixels`, u8 `[items, views, 3, side, side]`, as a grid in reading order, the views of an item side by side.
///
/// # Errors
/// The length does not fit the shape, or there is nothing to show.
pub fn contact_sheet(pixels: &[u8], items: usize, views: usize, side_pixels: usize) -> Result<RgbImage> {
    let plane = side_pixels * side_pixels;
    if items * views * plane == 0 || pixels.len() != items * views * 3 * plane {
        return Err(Error::at(
            Stage::Batch,
            "contact sheet",
            format!("{} bytes are not [{items}, {views}, 3, {side_pixels}, {side_pixels}], or nothing", pixels.len()),
        ));
    }
    let scale = LEAST_SIDE_PIXELS.div_ceil(side_pixels);
    let side = side_pixels * scale;
    let item_width = views * side + (views - 1) * INNER_GAP_PIXELS;
    let columns = (SHEET_PIXELS / (item_width + OUTER_GAP_PIXELS)).clamp(1, items);
    let rows = items.div_ceil(columns);
    let width = columns * (item_width + OUTER_GAP_PIXELS) + OUTER_GAP_PIXELS;
    let height = rows * (side + OUTER_GAP_PIXELS) + OUTER_GAP_PIXELS;
    let (Ok(width), Ok(height)) = (u32::try_from(width), u32::try_from(height)) else {
        return Err(Error::at(Stage::Batch, "contact sheet", "is too large; show fewer items"));
    };
    let mut sheet = RgbImage::from_pixel(width, height, BACKGROUND);
    for (at, view) in pixels.chunks(3 * plane).enumerate() {
        let (item, view_number) = (at / views, at % views);
        let left = OUTER_GAP_PIXELS
            + item % columns * (item_width + OUTER_GAP_PIXELS)
            + view_number * (side + INNER_GAP_PIXELS);
        let top = OUTER_GAP_PIXELS + item / columns * (side + OUTER_GAP_PIXELS);
        for y in 0..side {
            for x in 0..side {
                let from = y / scale * side_pixels + x / scale;
                let color = Rgb([view[from], view[plane + from], view[2 * plane + from]]);
                sheet.put_pixel((left + x) as u32, (top + y) as u32, color);
            }
        }
    }
    Ok(sheet)
}

/// [`contact_sheet`] into a PNG file.
///
/// # Errors
/// As there, or the file cannot be written.
pub fn write_contact_sheet(path: &Path, pixels: &[u8], items: usize, views: usize, side_pixels: usize) -> Result<()> {
    contact_sheet(pixels, items, views, side_pixels)?.save_with_format(path, image::ImageFormat::Png).context(
        Stage::Batch,
        path.display().to_string(),
        "cannot write the contact sheet; name a file in a folder that is there and may be written",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_of_an_item_stand_side_by_side_in_their_own_colours() {
        // Two items of two views of 2x2: item 0 red and green, item 1 blue and white.
        let colours = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]];
        let pixels: Vec<u8> = colours.iter().flat_map(|c| c.iter().flat_map(|&x| [x; 4])).collect();
        let sheet = contact_sheet(&pixels, 2, 2, 2).unwrap();
        // 2 pixels become 96: an item is 194 wide.
        assert_eq!(sheet.dimensions(), (2 * (194 + 12) + 12, 96 + 24));
        for (x, colour) in
            [(12, colours[0]), (107, colours[0]), (110, colours[1]), (218, colours[2]), (411, colours[3])]
        {
            assert_eq!(sheet.get_pixel(x, 12).0, colour, "{x}");
        }
        assert_eq!(sheet.get_pixel(108, 50), &BACKGROUND);
        assert_eq!(sheet.get_pixel(0, 0), &BACKGROUND);
    }

    #[test]
    fn enlarging_keeps_every_pixel_a_square() {
        let pixels: Vec<u8> = (0..3).flat_map(|_| [10, 20, 30, 40]).collect();
        let sheet = contact_sheet(&pixels, 1, 1, 2).unwrap();
        for (x, y, value) in [(0, 0, 10), (47, 47, 10), (48, 0, 20), (0, 48, 30), (95, 95, 40)] {
            assert_eq!(sheet.get_pixel(12 + x, 12 + y).0, [value; 3]);
        }
    }

    #[test]
    fn file_is_a_png_that_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("views.png");
        write_contact_sheet(&path, &[7; 3 * 2 * 3 * 64 * 64], 3, 2, 64).unwrap();
        let back = image::open(&path).unwrap().to_rgb8();
        assert_eq!(back, contact_sheet(&[7; 3 * 2 * 3 * 64 * 64], 3, 2, 64).unwrap());
    }

    #[test]
    fn wrong_length_is_an_error() {
        assert!(contact_sheet(&[0; 11], 1, 1, 2).is_err());
        assert!(contact_sheet(&[], 0, 2, 2).is_err());
    }
}
