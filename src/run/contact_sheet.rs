//! Pairs of views side by side on one PNG.
use std::io::Cursor;

use image::{ImageFormat, Rgb, RgbImage};

use crate::error::{Context as _, Result, Stage};

/// Between the two views of a pair, and around pairs.
const GAP_PIXELS: (u32, u32) = (1, 6);
const BACKGROUND: Rgb<u8> = Rgb([255, 255, 255]);
/// Small views are drawn larger, up to about this side.
const READABLE_SIDE_PIXELS: u32 = 96;
/// Pairs in a row.
const PAIRS_PER_ROW: usize = 6;

/// A PNG of pairs; each is u8 `[2 views, 3, side, side]`.
///
/// # Errors
/// The PNG encoder's.
pub fn png(pairs: &[Vec<u8>], side_pixels: u32) -> Result<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    draw(pairs, side_pixels).write_to(&mut bytes, ImageFormat::Png).context(
        Stage::Evaluate,
        "contact sheet",
        "cannot write the PNG",
    )?;
    Ok(bytes.into_inner())
}

fn draw(pairs: &[Vec<u8>], side: u32) -> RgbImage {
    let scale = (READABLE_SIDE_PIXELS / side.max(1)).max(1);
    let view = side * scale;
    let (inner, outer) = GAP_PIXELS;
    let cell = (2 * view + inner + outer, view + outer);
    let columns = pairs.len().clamp(1, PAIRS_PER_ROW) as u32;
    let rows = pairs.len().div_ceil(PAIRS_PER_ROW).max(1) as u32;
    let mut sheet = RgbImage::from_pixel(columns * cell.0 + outer, rows * cell.1 + outer, BACKGROUND);
    for (number, pair) in (0_u32..).zip(pairs) {
        let corner = (outer + number % columns * cell.0, outer + number / columns * cell.1);
        let plane = (side * side) as usize;
        for (half, pixels) in (0_u32..).zip(pair.chunks_exact(3 * plane)) {
            for y in 0..view {
                for x in 0..view {
                    let at = ((y / scale) * side + x / scale) as usize;
                    let colour = Rgb([pixels[at], pixels[plane + at], pixels[2 * plane + at]]);
                    sheet.put_pixel(corner.0 + half * (view + inner) + x, corner.1 + y, colour);
                }
            }
        }
    }
    sheet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pixel_lands_in_its_views_place() {
        // Two 1-pixel views: red, then blue.
        let sheet = draw(&[vec![255, 0, 0, 0, 0, 255]], 1);
        assert_eq!(sheet.dimensions(), (2 * 96 + 1 + 6 + 6, 96 + 6 + 6));
        assert_eq!(sheet.get_pixel(6, 6), &Rgb([255, 0, 0]));
        assert_eq!(sheet.get_pixel(6 + 95, 6 + 95), &Rgb([255, 0, 0]));
        assert_eq!(sheet.get_pixel(6 + 96, 6), &BACKGROUND);
        assert_eq!(sheet.get_pixel(6 + 97, 6), &Rgb([0, 0, 255]));
    }

    #[test]
    fn rows_follow_the_number_of_pairs() {
        let pair = vec![0_u8; 2 * 3 * 100 * 100];
        let one = draw(&vec![pair.clone(); 6], 100).dimensions();
        let two = draw(&vec![pair; 7], 100).dimensions();
        assert_eq!((one.0, two.1 - 6), (two.0, 2 * (one.1 - 6)));
    }

    #[test]
    fn the_png_reads_back() {
        let bytes = png(&[vec![9; 2 * 3 * 64]], 8).unwrap();
        let image = image::load_from_memory(&bytes).unwrap().to_rgb8();
        assert_eq!(image.get_pixel(10, 10), &Rgb([9, 9, 9]));
    }
}
