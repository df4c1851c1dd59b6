//! `solarize`: inverts bright values.
use super::{PixelOp, Scratch, planes::Planes, simd::multiversion};
use crate::{augment::recipe::SolarizeSettings, seed::Draws};

/// Inverts values at or above a threshold with a probability. Exact, as in torchvision.
#[derive(Debug, Clone, PartialEq)]
pub struct Solarize {
    /// In [0, 1].
    pub probability: f64,
    /// Lowest value that is inverted.
    pub threshold: u8,
}

impl Solarize {
    /// As a pipeline writes it.
    pub const NAME: &'static str = "solarize";

    /// From settings that `ImageRecipe::resolve` has checked.
    pub(super) fn new(settings: &SolarizeSettings) -> Self {
        Self { probability: settings.probability, threshold: settings.threshold }
    }
}

impl PixelOp for Solarize {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn describe(&self) -> String {
        format!("{} v1 probability={} threshold={}", Self::NAME, self.probability, self.threshold)
    }

    fn apply(&self, planes: &mut Planes<'_>, draws: &mut Draws, _scratch: &mut Scratch) {
        if draws.chance(self.probability) {
            invert_from(planes.pixels(), self.threshold);
        }
    }
}

multiversion! {
    fn invert_from(values: &mut [u8], threshold: u8) {
        for value in values {
            *value = if *value >= threshold { 255 - *value } else { *value };
        }
    }
}
