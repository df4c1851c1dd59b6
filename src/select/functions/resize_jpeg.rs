//! `resize_jpeg(image, side, quality)`.
use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, BinaryViewArray},
        datatypes::{DataType, UInt64Type},
    },
    common::{Result, exec_err},
    logical_expr::ScalarUDF,
};
use turbojpeg::{Compressor, Image, PixelFormat, Subsamp};

use super::{
    encoded_images::{LIMITS, of_images},
    function::{Function, Group, IMAGE, Takes, documented},
};
use crate::augment::image::{
    planes::PlanarImage,
    thumbnail::{DecodeLimits, thumbnail},
};

/// JPEG knows no larger side.
const LONGEST_SIDE: u64 = 65_500;

/// A smaller copy as JPEG.
pub fn resize_jpeg() -> ScalarUDF {
    let documentation = documented(
        Group::Image,
        "resize_jpeg(image, side, quality)",
        "The image as a JPEG whose shorter side is `side` pixels, bilinear with antialiasing, aspect kept, 4:2:0. \
         Images that are not larger keep their size and are encoded again. EXIF orientation is applied, since the copy \
         carries none; alpha is dropped and grey becomes colour. NULL for what cannot be decoded, or would be longer \
         than 65500 pixels.",
        &[IMAGE, ("side", "Pixels of the shorter side, from 1."), ("quality", "1 (smallest) to 100 (best).")],
        "> SELECT image_format(resize_jpeg($PNG, 2, 90)) AS format,
         image_width(resize_jpeg($PNG, 2, 90)) AS width;
+--------+-------+
| format | width |
+--------+-------+
| jpeg   | 3     |
+--------+-------+",
    );
    let takes = &[Takes::Image, Takes::UInt64, Takes::UInt64];
    Function::new("resize_jpeg", takes, DataType::BinaryView, body, documentation).into_udf()
}

fn body(args: &[ArrayRef]) -> Result<ArrayRef> {
    let (sides, qualities) = (args[1].as_primitive::<UInt64Type>(), args[2].as_primitive::<UInt64Type>());
    if let Some(side) = sides.iter().flatten().find(|side| !(1..=LONGEST_SIDE).contains(side)) {
        return exec_err!("resize_jpeg: a side of {side} pixels; choose 1 to {LONGEST_SIDE}");
    }
    if let Some(quality) = qualities.iter().flatten().find(|quality| !(1..=100).contains(quality)) {
        return exec_err!("resize_jpeg: quality {quality}; choose 1 to 100");
    }
    let copies = of_images(&args[0], |row, encoded| {
        let is_known = sides.is_valid(row) && qualities.is_valid(row);
        if is_known { resized(encoded, sides.value(row) as usize, qualities.value(row) as i32) } else { None }
    })?;
    Ok(Arc::new(BinaryViewArray::from_iter(copies)))
}

fn resized(encoded: &[u8], side: usize, quality: i32) -> Option<Vec<u8>> {
    let limits = DecodeLimits { exif_orientation: true, ..LIMITS };
    let image = thumbnail(encoded, limits, |width, height| shorter_side(side, width, height)).ok()?;
    encode(&image, quality).ok()
}

/// `width` x `height` with a shorter side of at most `side`; the longer is rounded down, as torchvision does.
fn shorter_side(side: usize, width: usize, height: usize) -> (usize, usize) {
    let short = width.min(height);
    if short <= side {
        return (width, height);
    }
    (side * width / short, side * height / short)
}

fn encode(image: &PlanarImage, quality: i32) -> turbojpeg::Result<Vec<u8>> {
    let (width, height) = (image.width(), image.height());
    let (red, rest) = image.pixels().split_at(width * height);
    let (green, blue) = rest.split_at(width * height);
    let pixels: Vec<u8> = red.iter().zip(green).zip(blue).flat_map(|((&r, &g), &b)| [r, g, b]).collect();
    let mut compressor = Compressor::new()?;
    compressor.set_quality(quality)?;
    compressor.set_subsamp(Subsamp::Sub2x2)?;
    compressor.compress_to_vec(Image { pixels: &pixels[..], width, pitch: 3 * width, height, format: PixelFormat::RGB })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shorter_side_is_met_and_nothing_is_enlarged() {
        assert_eq!(shorter_side(256, 1024, 768), (341, 256));
        assert_eq!(shorter_side(256, 768, 1024), (256, 341));
        assert_eq!(shorter_side(256, 200, 1024), (200, 1024));
    }
}
