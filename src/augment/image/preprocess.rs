//! What a released CLIP does to an image before it looks at it.
use std::fmt;

use super::{
    pil_mode::{PilMode, nearest_plane},
    precise_resize::{Interpolation, resize_plane},
    scratch::guarded,
    source::Source,
};
use crate::augment::BadSample;

/// Means of red, green and blue over the pixels that CLIP was trained with.
pub const CLIP_MEAN: [f32; 3] = [0.481_454_67, 0.457_827_5, 0.408_210_72];
/// Their deviations.
pub const CLIP_DEVIATION: [f32; 3] = [0.268_629_55, 0.261_302_6, 0.275_777_1];

/// From an encoded image to the values that a model takes.
///
/// The resize with its antialiasing, rounded to bytes, then the crop, then (value / 255 − mean) / deviation; RGB (alpha
/// dropped, palettes looked up, EXIF orientation ignored) before or after. Pixels are PIL's (to Pillow 12; 13 resizes columns
/// first where the height is reduced much more than the width), except that a grey image of 16 bits keeps its high bytes,
/// where PIL cuts it at 255.
#[derive(Debug, Clone, PartialEq)]
pub struct Preprocess {
    /// What the image is resized to.
    pub resize: ResizeTo,
    /// With which filter.
    pub interpolation: Interpolation,
    /// Side of the square that is cut from the centre; not larger than what the resize leaves.
    pub crop_side_pixels: usize,
    /// Where the square starts if the room is odd.
    pub crop_rounding: CropRounding,
    /// When the image becomes RGB.
    pub rgb_conversion: RgbConversion,
    /// Taken from each channel.
    pub mean: [f32; 3],
    /// What each channel is divided by.
    pub deviation: [f32; 3],
}

/// Size after the resize.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResizeTo {
    /// The shorter side has this length, the longer one ⌊length · long / short⌋.
    ShorterSidePixels(usize),
    /// Both sides have this length, whatever the aspect.
    SquarePixels(usize),
}

/// How half the room around the crop is rounded. The two differ by a pixel where the room is 3 more than a multiple of 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CropRounding {
    /// To the nearest, halves to even: OpenAI's code, open_clip and torchvision.
    HalfToEven,
    /// Down: transformers.
    Down,
}

/// Whether the image becomes RGB before or after the resize and crop.
///
/// The two differ for images with alpha, which weighs colours in the resize; with a palette (all GIFs but grey ones) or of
/// one bit, which are resized to the nearest pixel whatever the filter; and of CMYK. All others are the same either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RgbConversion {
    /// transformers, and training here.
    BeforeResize,
    /// OpenAI's code and open_clip, which resize what PIL has opened.
    AfterResize,
}

impl fmt::Display for Preprocess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.resize {
            ResizeTo::ShorterSidePixels(side) => write!(f, "shorter side to {side} pixels")?,
            ResizeTo::SquarePixels(side) => write!(f, "both sides to {side} pixels")?,
        }
        write!(f, " ({:?}), {} pixels from the centre", self.interpolation, self.crop_side_pixels)
    }
}

impl Default for Preprocess {
    fn default() -> Self {
        Self {
            resize: ResizeTo::ShorterSidePixels(224),
            interpolation: Interpolation::Bicubic,
            crop_side_pixels: 224,
            crop_rounding: CropRounding::HalfToEven,
            rgb_conversion: RgbConversion::AfterResize,
            mean: CLIP_MEAN,
            deviation: CLIP_DEVIATION,
        }
    }
}

impl Preprocess {
    /// Levels of the square that the model sees, `[3, side, side]`.
    ///
    /// # Errors
    /// The image is bad, or declares more than `max_pixels`, or would after the resize.
    pub fn levels(&self, encoded: &[u8], max_pixels: u64) -> Result<Vec<u8>, BadSample> {
        guarded(|scratch| {
            let source = Source::open(encoded, max_pixels, false)?;
            let mode = match self.rgb_conversion {
                RgbConversion::BeforeResize => PilMode::Plain,
                RgbConversion::AfterResize => source.pil_mode(),
            };
            let fourth = source.decode_rgb(mode, &mut scratch.decoders, &mut scratch.decoded)?;
            let size = source.size();
            let (width, height) = self.resized(size);
            // Columns are resized first, so that a strip has all its rows at the final width on the way.
            let most = height.max(size.1);
            if width.saturating_mul(most) as u64 > max_pixels {
                let message = format!("{width} x {most} pixels once it is resized");
                return Err(BadSample { class: crate::augment::BadClass::TooManyPixels, message });
            }
            let side = self.crop_side_pixels;
            let (left, top) = (self.corner(width)?, self.corner(height)?);
            let square = |plane: &[u8]| -> Vec<u8> {
                let resized = match mode {
                    PilMode::Nearest => nearest_plane(plane, size, (width, height)),
                    _ => resize_plane(plane, size, (width, height), self.interpolation),
                };
                resized
                    .chunks_exact(width)
                    .skip(top)
                    .take(side)
                    .flat_map(|row| &row[left..left + side])
                    .copied()
                    .collect()
            };
            // Without a resize alpha weighs nothing.
            let fourth = fourth.filter(|_| mode != PilMode::Alpha || size != (width, height));
            let fourth_square = fourth.as_deref().map(square);
            let mut levels = Vec::with_capacity(3 * side * side);
            for channel in 0..3 {
                let plane = scratch.decoded.rgb_plane(channel);
                let (Some(fourth), Some(fourth_square)) = (&fourth, &fourth_square) else {
                    levels.extend(square(plane));
                    continue;
                };
                let weighted: Vec<u8> = plane.iter().zip(fourth).map(|(&level, &by)| mode.before(level, by)).collect();
                levels.extend(square(&weighted).iter().zip(fourth_square).map(|(&level, &by)| mode.after(level, by)));
            }
            Ok(levels)
        })
    }

    /// Values that the model takes, `[3, side, side]`.
    ///
    /// # Errors
    /// As [`Self::levels`].
    pub fn values(&self, encoded: &[u8], max_pixels: u64) -> Result<Vec<f32>, BadSample> {
        let levels = self.levels(encoded, max_pixels)?;
        let plane = self.crop_side_pixels * self.crop_side_pixels;
        let normalised = |(at, &level): (usize, &u8)| {
            let channel = at / plane;
            (f32::from(level) / 255.0 - self.mean[channel]) / self.deviation[channel]
        };
        Ok(levels.iter().enumerate().map(normalised).collect())
    }

    fn resized(&self, (width, height): (usize, usize)) -> (usize, usize) {
        match self.resize {
            ResizeTo::SquarePixels(side) => (side, side),
            ResizeTo::ShorterSidePixels(side) => {
                let longer = side * width.max(height) / width.min(height).max(1);
                if width <= height { (side, longer) } else { (longer, side) }
            }
        }
    }

    fn corner(&self, length: usize) -> Result<usize, BadSample> {
        let Some(room) = length.checked_sub(self.crop_side_pixels) else {
            let message = format!("a crop of {} pixels does not fit {length}", self.crop_side_pixels);
            return Err(BadSample::undecodable(message));
        };
        Ok(match self.crop_rounding {
            CropRounding::Down => room / 2,
            CropRounding::HalfToEven => libm::rint(room as f64 / 2.0) as usize,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crops_differ_by_a_pixel_where_the_room_is_three_above_a_multiple_of_four() {
        let at = |crop_rounding| Preprocess { crop_rounding, ..Preprocess::default() };
        for (room, even, down) in [(0, 0, 0), (1, 0, 0), (2, 1, 1), (3, 2, 1), (5, 2, 2), (7, 4, 3)] {
            assert_eq!(at(CropRounding::HalfToEven).corner(224 + room).expect("fits"), even, "{room}");
            assert_eq!(at(CropRounding::Down).corner(224 + room).expect("fits"), down, "{room}");
        }
        assert!(at(CropRounding::Down).corner(223).is_err());
    }

    #[test]
    fn longer_sides_are_rounded_down_and_endless_strips_are_refused() {
        let preprocess = Preprocess::default();
        assert_eq!(preprocess.resized((640, 480)), (298, 224));
        assert_eq!(preprocess.resized((3, 1_000)), (224, 74_666));
        let mut png = vec![];
        let pixels = vec![200; 3 * 100];
        image::ImageEncoder::write_image(
            image::codecs::png::PngEncoder::new(&mut png),
            &pixels,
            100,
            1,
            image::ExtendedColorType::Rgb8,
        )
        .expect("encodes");
        assert!(preprocess.levels(&png, 1_000_000).is_err());
        let levels = preprocess.levels(&png, 10_000_000).expect("within the limit");
        assert!(levels.len() == 3 * 224 * 224 && levels.iter().all(|&level| level == 200));
        let values = preprocess.values(&png, 10_000_000).expect("within the limit");
        assert!((values[0] - (200.0 / 255.0 - 0.481_454_67) / 0.268_629_55).abs() < 1e-6);
    }
}
