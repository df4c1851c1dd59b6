//! `random_affine`: turns, scales and shifts the picture within its frame.
use super::{PixelOp, Scratch, planes::Planes};
use crate::{augment::recipe::RandomAffineSettings, seed::Draws};

/// Fraction bits of a position.
const POSITION_BITS: u32 = 32;
/// Fraction bits of a weight: four weights of a pixel sum to its square, and times a byte they fit a u32.
const WEIGHT_BITS: u32 = 11;

/// Turns clockwise, scales and shifts about the centre with a probability, bilinearly; what comes in from outside repeats the
/// edge.
///
/// torchvision's `RandomAffine` without shear, which fills with one colour instead, for an edge that is the ground looks like
/// more of it. A scale below 1 is not antialiased. Within one level of the formula.
#[derive(Debug, Clone, PartialEq)]
pub struct RandomAffine {
    /// In [0, 1].
    pub probability: f64,
    /// Lowest and highest turn.
    pub degrees: [f64; 2],
    /// Lowest and highest factor.
    pub scale: [f64; 2],
    /// Lowest and highest shift to the right, as a share of the width.
    pub right: [f64; 2],
    /// Lowest and highest shift downwards, as a share of the height.
    pub down: [f64; 2],
}

impl RandomAffine {
    /// As a pipeline writes it.
    pub const NAME: &'static str = "random_affine";

    /// From settings that `ImageRecipe::resolve` has checked.
    pub(super) fn new(settings: &RandomAffineSettings) -> Self {
        let RandomAffineSettings { probability, degrees, scale, shift_share } = *settings;
        let around = |most: f64| [-most, most];
        Self { probability, degrees: around(degrees), scale, right: around(shift_share), down: around(shift_share) }
    }
}

impl PixelOp for RandomAffine {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn describe(&self) -> String {
        let Self { probability, degrees, scale, right, down } = self;
        format!(
            "{} v1 probability={probability} degrees={degrees:?} scale={scale:?} right={right:?} down={down:?}",
            Self::NAME
        )
    }

    fn apply(&self, planes: &mut Planes<'_>, draws: &mut Draws, scratch: &mut Scratch) {
        if !draws.chance(self.probability) {
            return;
        }
        let [turn, scale, right, down] =
            [self.degrees, self.scale, self.right, self.down].map(|[low, high]| draws.between(low, high));
        let (width, height) = (planes.width(), planes.height());
        let map = Map::new(turn.to_radians(), scale, [right * width as f64, down * height as f64], [width, height]);
        for plane in planes.rgb() {
            scratch.affine_source.clear();
            scratch.affine_source.extend_from_slice(plane);
            map.apply(&scratch.affine_source, plane);
        }
    }
}

/// Where each pixel comes from, in fixed point: `start + x · along + y · down`, from the corner.
struct Map {
    size: [usize; 2],
    start: [i64; 2],
    along: [i64; 2],
    down: [i64; 2],
}

impl Map {
    fn new(radians: f64, scale: f64, shift: [f64; 2], size: [usize; 2]) -> Self {
        let (sine, cosine) = (libm::sin(radians) / scale, libm::cos(radians) / scale);
        let centre = size.map(|length| (length as f64 - 1.0) / 2.0);
        let [x, y] = [0, 1].map(|axis| -centre[axis] - shift[axis]);
        let start = [x * cosine + y * sine + centre[0], y * cosine - x * sine + centre[1]];
        let fixed = |value: f64| libm::round(value * (1_u64 << POSITION_BITS) as f64) as i64;
        Self { size, start: start.map(fixed), along: [cosine, -sine].map(fixed), down: [sine, cosine].map(fixed) }
    }

    fn apply(&self, source: &[u8], out: &mut [u8]) {
        let [width, height] = self.size;
        let inside = |at: i64, length: usize| at.clamp(0, length as i64 - 1) as usize;
        let weight = |position: i64| (position >> (POSITION_BITS - WEIGHT_BITS)) as u32 & ((1 << WEIGHT_BITS) - 1);
        for (y, row) in out.chunks_exact_mut(width).enumerate() {
            let [mut from_x, mut from_y] = [0, 1].map(|axis| self.start[axis] + y as i64 * self.down[axis]);
            for out in row {
                let (x, y) = (from_x >> POSITION_BITS, from_y >> POSITION_BITS);
                let [left, right] = [inside(x, width), inside(x + 1, width)];
                let [upper, lower] = [inside(y, height), inside(y + 1, height)].map(|y| &source[y * width..][..width]);
                let (to_right, to_lower) = (weight(from_x), weight(from_y));
                let (to_left, to_upper) = ((1 << WEIGHT_BITS) - to_right, (1 << WEIGHT_BITS) - to_lower);
                let of = |row: &[u8]| u32::from(row[left]) * to_left + u32::from(row[right]) * to_right;
                let sum = of(upper) * to_upper + of(lower) * to_lower;
                *out = ((sum + (1 << (2 * WEIGHT_BITS - 1))) >> (2 * WEIGHT_BITS)) as u8;
                from_x += self.along[0];
                from_y += self.along[1];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{augment::image::planes::PlanarImage, seed::draws};

    fn moved(degrees: f64, scale: f64, right: f64, down: f64, image: &PlanarImage) -> Vec<u8> {
        let same = |value: f64| [value; 2];
        let (degrees, scale, right, down) = (same(degrees), same(scale), same(right), same(down));
        let op = RandomAffine { probability: 1.0, degrees, scale, right, down };
        let mut image = image.clone();
        op.apply(&mut image.planes(), &mut draws(0, "affine", &[]), &mut Scratch::default());
        image.pixels().to_vec()
    }

    #[test]
    fn turns_by_right_angles_and_whole_shifts_move_pixels_as_they_are() {
        let pixels: Vec<u8> = (0..3).flat_map(|_| [1, 2, 3, 4, 5, 6, 7, 8, 9]).collect();
        let image = PlanarImage::from_pixels(3, 3, pixels.clone()).expect("its size");
        assert_eq!(moved(0.0, 1.0, 0.0, 0.0, &image), pixels);
        // Clockwise.
        assert_eq!(moved(90.0, 1.0, 0.0, 0.0, &image)[..9], [7, 4, 1, 8, 5, 2, 9, 6, 3]);
        assert_eq!(moved(180.0, 1.0, 0.0, 0.0, &image)[18..], [9, 8, 7, 6, 5, 4, 3, 2, 1]);
        // To the right and up; edges are repeated.
        assert_eq!(moved(0.0, 1.0, 1.0 / 3.0, 0.0, &image)[..9], [1, 1, 2, 4, 4, 5, 7, 7, 8]);
        assert_eq!(moved(0.0, 1.0, 0.0, -1.0 / 3.0, &image)[..9], [4, 5, 6, 7, 8, 9, 7, 8, 9]);
        // Twice as large: the centre stays, the corners come from half way to it.
        assert_eq!(moved(0.0, 2.0, 0.0, 0.0, &image)[..9], [3, 4, 4, 5, 5, 6, 6, 7, 7]);
    }
}
