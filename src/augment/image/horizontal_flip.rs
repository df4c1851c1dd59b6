//! `horizontal_flip`: mirrors left and right.
use super::{PixelOp, Scratch, planes::Planes};
use crate::{augment::recipe::ChanceSettings, seed::Draws};

/// Mirrors left and right with a probability. Exact, as in torchvision.
#[derive(Debug, Clone, PartialEq)]
pub struct HorizontalFlip {
    /// In [0, 1].
    pub probability: f64,
}

impl HorizontalFlip {
    /// As a pipeline writes it.
    pub const NAME: &'static str = "horizontal_flip";

    /// From settings that `ImageRecipe::resolve` has checked.
    pub(super) fn new(settings: &ChanceSettings) -> Self {
        Self { probability: settings.probability }
    }
}

impl PixelOp for HorizontalFlip {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn describe(&self) -> String {
        format!("{} v1 probability={}", Self::NAME, self.probability)
    }

    fn apply(&self, planes: &mut Planes<'_>, draws: &mut Draws, _scratch: &mut Scratch) {
        if draws.chance(self.probability) {
            mirror(planes);
        }
    }
}

/// Mirrors every row.
pub(super) fn mirror(planes: &mut Planes<'_>) {
    let width = planes.width().max(1);
    for row in planes.pixels().chunks_exact_mut(width) {
        row.reverse();
    }
}
