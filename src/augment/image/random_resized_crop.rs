//! `random_resized_crop`: a random box of random area and aspect, resized to a square.
use super::{GeometryOp, precise_resize::Interpolation, region::Region};
use crate::{augment::recipe::RandomResizedCropSettings, seed::Draws};

/// Boxes that are tried before the fallback, as in torchvision.
const ATTEMPTS: usize = 10;

/// A box whose area is a random share of the image's and whose aspect is log-uniform, resized to a square.
///
/// torchvision's `RandomResizedCrop` with antialiasing: ten attempts to place a box, then the largest central one whose
/// aspect is in range. RGB images become within one level of PIL's, and exactly PIL's where interpolation is bicubic; how a
/// JPEG's planes and a scaled decode differ from decode-all-then-crop is said in [`decoded`](super::decoded).
#[derive(Debug, Clone, PartialEq)]
pub struct RandomResizedCrop {
    /// Side of the result.
    pub side_pixels: usize,
    /// Share of the image's area, lowest and highest.
    pub area: [f64; 2],
    /// Width over height, lowest and highest.
    pub aspect: [f64; 2],
    /// Which filter.
    pub interpolation: Interpolation,
}

impl RandomResizedCrop {
    /// As a pipeline writes it.
    pub const NAME: &'static str = "random_resized_crop";

    /// From settings that `ImageRecipe::resolve` has checked.
    pub(super) fn new(settings: &RandomResizedCropSettings) -> Self {
        let RandomResizedCropSettings { side_pixels, area, aspect, interpolation } = *settings;
        Self { side_pixels: side_pixels as usize, area, aspect, interpolation }
    }

    fn closed(&self, left: usize, top: usize, width: usize, height: usize) -> Region {
        Region {
            left: left as f64,
            top: top as f64,
            width: width as f64,
            height: height as f64,
            out_width: self.side_pixels,
            out_height: self.side_pixels,
            closed: true,
            interpolation: self.interpolation,
        }
    }
}

impl GeometryOp for RandomResizedCrop {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn describe(&self) -> String {
        let Self { side_pixels, area, aspect, interpolation } = self;
        let filter = interpolation.name();
        format!("{} v1 side_pixels={side_pixels} area={area:?} aspect={aspect:?} {filter}", Self::NAME)
    }

    fn region(&self, width: usize, height: usize, draws: &mut Draws) -> Region {
        let pixels = (width * height) as f64;
        let logarithms = self.aspect.map(libm::log);
        for _ in 0..ATTEMPTS {
            let area = pixels * draws.between(self.area[0], self.area[1]);
            let aspect = libm::exp(draws.between(logarithms[0], logarithms[1]));
            // `rint` rounds halves to even, like Python's `round`.
            let box_width = libm::rint(libm::sqrt(area * aspect)) as usize;
            let box_height = libm::rint(libm::sqrt(area / aspect)) as usize;
            if (1..=width).contains(&box_width) && (1..=height).contains(&box_height) {
                let top = draws.below((height - box_height) as u64 + 1) as usize;
                let left = draws.below((width - box_width) as u64 + 1) as usize;
                return self.closed(left, top, box_width, box_height);
            }
        }
        let ratio = width as f64 / height as f64;
        let (box_width, box_height) = if ratio < self.aspect[0] {
            (width, libm::rint(width as f64 / self.aspect[0]) as usize)
        } else if ratio > self.aspect[1] {
            (libm::rint(height as f64 * self.aspect[1]) as usize, height)
        } else {
            (width, height)
        };
        let (box_width, box_height) = (box_width.clamp(1, width), box_height.clamp(1, height));
        self.closed((width - box_width) / 2, (height - box_height) / 2, box_width, box_height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::draws;

    fn op(area: [f64; 2], aspect: [f64; 2]) -> RandomResizedCrop {
        RandomResizedCrop { side_pixels: 8, area, aspect, interpolation: Interpolation::Bilinear }
    }

    #[test]
    fn areas_are_uniform_and_aspects_log_uniform() {
        // An image so large that every box fits: nothing is rejected, so the draws' own moments show.
        let op = op([0.1, 0.3], [0.5, 2.0]);
        let (mut area, mut log_aspect, count) = (0.0, 0.0, 4_000);
        for number in 0..count {
            let region = op.region(4_000, 4_000, &mut draws(0, "boxes", &[number]));
            assert!(region.closed && region.lies_within(4_000, 4_000), "{region:?}");
            area += region.width * region.height / 16e6;
            log_aspect += (region.width / region.height).ln();
        }
        let count = count as f64;
        assert!((area / count - 0.2).abs() < 0.005, "{}", area / count);
        assert!((log_aspect / count).abs() < 0.03, "{}", log_aspect / count);
    }

    #[test]
    fn image_in_which_no_box_fits_gives_its_central_part() {
        let wide = op([0.9, 1.0], [0.75, 4.0 / 3.0]).region(300, 30, &mut draws(0, "boxes", &[]));
        assert_eq!((wide.left, wide.top, wide.width, wide.height), (130.0, 0.0, 40.0, 30.0));
        let tall = op([0.9, 1.0], [0.75, 4.0 / 3.0]).region(30, 300, &mut draws(0, "boxes", &[]));
        assert_eq!((tall.left, tall.top, tall.width, tall.height), (0.0, 130.0, 30.0, 40.0));
    }
}
