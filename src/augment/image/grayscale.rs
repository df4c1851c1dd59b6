//! `grayscale`: three equal channels.
use super::{
    PixelOp, Scratch,
    planes::Planes,
    simd::{cut, multiversion},
};
use crate::{augment::recipe::ChanceSettings, seed::Draws};

/// Replaces the three channels by their luma with a probability.
///
/// PIL's integers, as torchvision has them for PIL images: (19595 R + 38470 G + 7471 B + 32768) / 65536. They keep grey
/// pixels as they are; torchvision's tensor code has weights that sum to .9999 and darkens them by one level.
#[derive(Debug, Clone, PartialEq)]
pub struct Grayscale {
    /// In [0, 1].
    pub probability: f64,
}

impl Grayscale {
    /// As a pipeline writes it.
    pub const NAME: &'static str = "grayscale";

    /// From settings that `ImageRecipe::resolve` has checked.
    pub(super) fn new(settings: &ChanceSettings) -> Self {
        Self { probability: settings.probability }
    }
}

impl PixelOp for Grayscale {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn describe(&self) -> String {
        format!("{} v1 probability={}", Self::NAME, self.probability)
    }

    fn apply(&self, planes: &mut Planes<'_>, draws: &mut Draws, _scratch: &mut Scratch) {
        if draws.chance(self.probability) {
            let [red, green, blue] = planes.rgb();
            into_gray(red, green, blue);
        }
    }
}

/// Luma of one pixel, as PIL's `convert("L")`, a whole number. Products and sums stay below 2²⁴, so f32 is as exact as
/// PIL's integers, and twice as fast as 32-bit multiplication.
#[inline(always)]
pub(super) fn luma(red: f32, green: f32, blue: f32) -> f32 {
    let sum = 19595.0 * red + 38470.0 * green + 7471.0 * blue + 32768.0;
    // SAFETY: at most 65536 · 255 + 32768, over 65536.
    f32::from(unsafe { cut(sum * (1.0 / 65536.0)) })
}

multiversion! {
    fn into_gray(red: &mut [u8], green: &mut [u8], blue: &mut [u8]) {
        for ((red, green), blue) in red.iter_mut().zip(green).zip(blue) {
            // SAFETY: a luma is a whole number up to 255.
            let gray = unsafe { cut(luma(f32::from(*red), f32::from(*green), f32::from(*blue))) };
            (*red, *green, *blue) = (gray, gray, gray);
        }
    }
}
