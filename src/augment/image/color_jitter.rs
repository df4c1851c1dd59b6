//! `color_jitter`: brightness, contrast, saturation and hue, in random order.
use super::{
    PixelOp, Scratch,
    grayscale::luma,
    planes::Planes,
    simd::{clamp_and_cut, cut, multiversion},
};
use crate::{augment::recipe::ColorJitterSettings, seed::Draws};

/// SimCLR's share of the strength for brightness, contrast and saturation (Chen et al. 2020, appendix A).
const STRENGTH_TO_FACTOR: f64 = 0.8;
/// SimCLR's share of the strength for hue.
const STRENGTH_TO_HUE: f64 = 0.2;

/// Changes brightness, contrast, saturation and hue in random order, with a probability for all four together.
///
/// Brightness, contrast and saturation are those of PIL (and of torchvision on PIL images), bit for bit: a blend
/// `d + f (x − d)` in f32, clamped and cut, where `d` is black, the rounded mean of the luma, or the luma. Hue is that of
/// torchvision on u8 tensors (HSV in floats, scaled back by 255.999 and cut), within one level: PIL's own hue rounds
/// through 8-bit HSV and loses colours.
#[derive(Debug, Clone, PartialEq)]
pub struct ColorJitter {
    /// In [0, 1].
    pub probability: f64,
    /// Lowest and highest factor.
    pub brightness: [f64; 2],
    /// Lowest and highest factor.
    pub contrast: [f64; 2],
    /// Lowest and highest factor.
    pub saturation: [f64; 2],
    /// Lowest and highest shift, in turns.
    pub hue: [f64; 2],
}

impl ColorJitter {
    /// As a pipeline writes it.
    pub const NAME: &'static str = "color_jitter";

    /// From settings that `ImageRecipe::resolve` has checked.
    pub(super) fn new(settings: &ColorJitterSettings) -> Self {
        let factor = |one: Option<f64>| {
            let spread = settings.strength.map_or(one.unwrap_or(0.0), |s| STRENGTH_TO_FACTOR * s);
            [(1.0 - spread).max(0.0), 1.0 + spread]
        };
        let hue = settings.strength.map_or(settings.hue.unwrap_or(0.0), |s| STRENGTH_TO_HUE * s);
        Self {
            probability: settings.probability,
            brightness: factor(settings.brightness),
            contrast: factor(settings.contrast),
            saturation: factor(settings.saturation),
            hue: [-hue, hue],
        }
    }
}

impl PixelOp for ColorJitter {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn describe(&self) -> String {
        let Self { probability, brightness: b, contrast: c, saturation: s, hue: h } = self;
        let name = Self::NAME;
        format!("{name} v1 probability={probability} brightness={b:?} contrast={c:?} saturation={s:?} hue={h:?}")
    }

    fn apply(&self, planes: &mut Planes<'_>, draws: &mut Draws, _scratch: &mut Scratch) {
        if !draws.chance(self.probability) {
            return;
        }
        let mut order = [0_u8, 1, 2, 3];
        draws.shuffle(&mut order);
        // Drawn in this order whatever the order of the steps, and also where a range is a single value.
        let [brightness, contrast, saturation, turns] =
            [self.brightness, self.contrast, self.saturation, self.hue].map(|[low, high]| draws.between(low, high));
        for step in order {
            match step {
                0 if self.brightness != [1.0, 1.0] => adjust_brightness(planes, brightness as f32),
                1 if self.contrast != [1.0, 1.0] => adjust_contrast(planes, contrast as f32),
                2 if self.saturation != [1.0, 1.0] => adjust_saturation(planes, saturation as f32),
                3 if self.hue != [0.0, 0.0] => adjust_hue(planes, turns as f32),
                _ => {}
            }
        }
    }
}

/// Blends with black.
pub(super) fn adjust_brightness(planes: &mut Planes<'_>, factor: f32) {
    blend_with(planes.pixels(), 0.0, factor);
}

/// Blends with the mean of the luma, rounded to a level.
pub(super) fn adjust_contrast(planes: &mut Planes<'_>, factor: f32) {
    let pixels = (planes.width() * planes.height()).max(1) as u64;
    let [red, green, blue] = planes.rgb();
    let mean = (2 * sum_luma(red, green, blue) + pixels) / (2 * pixels);
    blend_with(planes.pixels(), mean as f32, factor);
}

/// Blends with the luma.
pub(super) fn adjust_saturation(planes: &mut Planes<'_>, factor: f32) {
    let [red, green, blue] = planes.rgb();
    blend_with_luma(red, green, blue, factor);
}

/// Shifts the hue by `turns` in [−.5, .5].
pub(super) fn adjust_hue(planes: &mut Planes<'_>, turns: f32) {
    let [red, green, blue] = planes.rgb();
    shift_hue(red, green, blue, 6.0 * turns.clamp(-0.5, 0.5));
}

multiversion! {
    fn blend_with(values: &mut [u8], other: f32, factor: f32) {
        for value in values {
            *value = clamp_and_cut(other + factor * (f32::from(*value) - other));
        }
    }

    fn sum_luma(red: &[u8], green: &[u8], blue: &[u8]) -> u64 {
        // Blocks whose sums fit a u32 keep the inner loop narrow.
        const BLOCK_PIXELS: usize = 1 << 16;
        let mut total = 0;
        for start in (0..red.len()).step_by(BLOCK_PIXELS) {
            let block = start..red.len().min(start + BLOCK_PIXELS);
            let (red, green, blue) = (&red[block.clone()], &green[block.clone()], &blue[block]);
            let mut sum = 0_u32;
            for ((r, g), b) in red.iter().zip(green).zip(blue) {
                // SAFETY: a luma is a whole number up to 255.
                sum += u32::from(unsafe { cut(luma(f32::from(*r), f32::from(*g), f32::from(*b))) });
            }
            total += u64::from(sum);
        }
        total
    }

    fn blend_with_luma(red: &mut [u8], green: &mut [u8], blue: &mut [u8], factor: f32) {
        for ((red, green), blue) in red.iter_mut().zip(green).zip(blue) {
            let [r, g, b] = [f32::from(*red), f32::from(*green), f32::from(*blue)];
            let gray = luma(r, g, b);
            *red = clamp_and_cut(gray + factor * (r - gray));
            *green = clamp_and_cut(gray + factor * (g - gray));
            *blue = clamp_and_cut(gray + factor * (b - gray));
        }
    }

    fn shift_hue(red: &mut [u8], green: &mut [u8], blue: &mut [u8], sixths: f32) {
        for ((red, green), blue) in red.iter_mut().zip(green).zip(blue) {
            let [r, g, b] = [f32::from(*red), f32::from(*green), f32::from(*blue)];
            // Comparisons instead of `f32::max`, whose care for NaN costs two instructions.
            let larger = if g > b { g } else { b };
            let smaller = if g > b { b } else { g };
            let value = if r > larger { r } else { larger };
            let chroma = value - if r < smaller { r } else { smaller };
            let per_chroma = 1.0 / if chroma > 0.0 { chroma } else { 1.0 };
            let from_blue = 4.0 + (r - g) * per_chroma;
            let from_green = 2.0 + (b - r) * per_chroma;
            let from_red = (g - b) * per_chroma;
            let hue = if value == g { from_green } else { from_blue };
            let hue = if value == r { from_red } else { hue } + sixths;
            let hue = if hue < 0.0 { hue + 6.0 } else { hue };
            let hue = if hue >= 6.0 { hue - 6.0 } else { hue };
            // HSV to RGB without sectors: channel n is value − chroma · clamp(min(k, 4 − k), 0, 1), k = (n + hue) mod 6.
            let channel = |offset: f32| {
                let k = hue + offset;
                let k = if k >= 6.0 { k - 6.0 } else { k };
                let slope = if k < 4.0 - k { k } else { 4.0 - k };
                let slope = if slope > 0.0 { slope } else { 0.0 };
                let slope = if slope < 1.0 { slope } else { 1.0 };
                // SAFETY: lies between the smallest and the largest channel, so below 256 after scaling.
                unsafe { cut((value - chroma * slope) * (255.999 / 255.0)) }
            };
            (*red, *green, *blue) = (channel(5.0), channel(3.0), channel(1.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strength_is_simclrs_and_factors_never_go_below_zero() {
        let settings = |strength, brightness| ColorJitterSettings {
            probability: 0.8,
            strength,
            brightness,
            contrast: None,
            saturation: None,
            hue: None,
        };
        let half = ColorJitter::new(&settings(Some(0.5), None));
        assert_eq!((half.brightness, half.saturation, half.hue), ([0.6, 1.4], [0.6, 1.4], [-0.1, 0.1]));
        assert_eq!(ColorJitter::new(&settings(Some(2.0), None)).contrast, [0.0, 2.6]);
        let single = ColorJitter::new(&settings(None, Some(0.4)));
        assert_eq!((single.brightness, single.contrast, single.hue), ([0.6, 1.4], [1.0, 1.0], [-0.0, 0.0]));
    }
}
