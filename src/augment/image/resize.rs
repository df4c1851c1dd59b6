//! `resize`: the shorter side to a length.
use super::{GeometryOp, precise_resize::Interpolation, region::Region};
use crate::{augment::recipe::ResizeSettings, seed::Draws};

/// Resizes so that the shorter side has a given length and the aspect is kept, with antialiasing.
///
/// torchvision's `Resize(side)`: the longer side is ⌊side · long / short⌋. Within one level.
#[derive(Debug, Clone, PartialEq)]
pub struct Resize {
    /// Length of the shorter side.
    pub side_pixels: usize,
    /// Which filter.
    pub interpolation: Interpolation,
}

impl Resize {
    /// As a pipeline writes it.
    pub const NAME: &'static str = "resize";

    /// From settings that `ImageRecipe::resolve` has checked.
    pub(super) fn new(settings: &ResizeSettings) -> Self {
        Self { side_pixels: settings.side_pixels as usize, interpolation: settings.interpolation }
    }
}

impl GeometryOp for Resize {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn describe(&self) -> String {
        format!("{} v1 side_pixels={} {}", Self::NAME, self.side_pixels, self.interpolation.name())
    }

    fn region(&self, width: usize, height: usize, _draws: &mut Draws) -> Region {
        let (short, long) = (width.min(height).max(1), width.max(height));
        let longer = self.side_pixels * long / short;
        let (out_width, out_height) =
            if width <= height { (self.side_pixels, longer) } else { (longer, self.side_pixels) };
        Region { out_width, out_height, interpolation: self.interpolation, ..Region::whole(width, height) }
    }
}
