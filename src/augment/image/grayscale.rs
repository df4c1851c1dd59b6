//! `grayscale`: three equal channels.
use super::{PixelOp, Scratch, planes::Planes, simd::multiversion};
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

/// Luma of one pixel, as PIL's `convert("L")`.
#[inline(always)]
pub(super) fn luma(red: u8, green: u8, blue: u8) -> u8 {
    ((19595 * u32::from(red) + 38470 * u32::from(green) + 7471 * u32::from(blue) + 0x8000) >> 16) as u8
}

multiversion! {
    fn into_gray(red: &mut [u8], green: &mut [u8], blue: &mut [u8]) {
        for ((red, green), blue) in red.iter_mut().zip(green).zip(blue) {
            let gray = luma(*red, *green, *blue);
            (*red, *green, *blue) = (gray, gray, gray);
        }
    }
}
