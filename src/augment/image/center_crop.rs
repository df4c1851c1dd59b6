//! `center_crop`: a square from the centre.
use super::{GeometryOp, precise_resize::Interpolation, region::Region};
use crate::{augment::recipe::CenterCropSettings, seed::Draws};

/// A square from the centre; an image that is smaller is padded with black.
///
/// torchvision's `CenterCrop`: the corner is (length − side) / 2, halves rounded to even; padding puts the odd pixel at
/// the right and the bottom. Exact on its own; after `resize` both are one resampling.
#[derive(Debug, Clone, PartialEq)]
pub struct CenterCrop {
    /// Side of the square.
    pub side_pixels: usize,
}

impl CenterCrop {
    /// As a pipeline writes it.
    pub const NAME: &'static str = "center_crop";

    /// From settings that `ImageRecipe::resolve` has checked.
    pub(super) fn new(settings: &CenterCropSettings) -> Self {
        Self { side_pixels: settings.side_pixels as usize }
    }
}

impl GeometryOp for CenterCrop {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn describe(&self) -> String {
        format!("{} v1 side_pixels={}", Self::NAME, self.side_pixels)
    }

    fn region(&self, width: usize, height: usize, _draws: &mut Draws) -> Region {
        let side = self.side_pixels;
        let corner = |length: usize| {
            let room = length as f64 - side as f64;
            // A negative corner is padding: its smaller half comes first.
            if room >= 0.0 { libm::rint(room / 2.0) } else { libm::ceil(room / 2.0) }
        };
        Region {
            left: corner(width),
            top: corner(height),
            width: side as f64,
            height: side as f64,
            out_width: side,
            out_height: side,
            closed: true,
            interpolation: Interpolation::Bilinear,
        }
    }
}
