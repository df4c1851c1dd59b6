//! A recipe as written: a list of ops for one kind of column.
use serde::{Deserialize, Serialize};

pub use super::{image::precise_resize::Interpolation, series::recipe::SeriesOpSettings};

/// `[augment]` of a pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentSettings {
    /// Training recipe of the image column.
    pub image: Vec<ImageOpSettings>,
    /// Evaluation recipe of the image column.
    pub evaluation: Vec<ImageOpSettings>,
    /// Training recipe of the windows of series; evaluations see windows as they are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub series: Vec<SeriesOpSettings>,
    /// Turn images as their EXIF orientation says. Off by default, as in torchvision and CLIP.
    pub exif_orientation: bool,
    /// Images that declare more pixels are bad samples, refused before allocation.
    pub max_megapixels: f64,
    /// Threads that decode and augment; 0: one per core.
    pub decode_threads: usize,
}

impl Default for AugmentSettings {
    fn default() -> Self {
        Self {
            image: vec![],
            evaluation: vec![],
            series: vec![],
            exif_orientation: false,
            max_megapixels: 100.0,
            decode_threads: 0,
        }
    }
}

/// One op of an image recipe, as a pipeline writes it: `{ horizontal_flip = { probability = 0.5 } }`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageOpSettings {
    /// Random area and aspect, resized to a square.
    RandomResizedCrop(RandomResizedCropSettings),
    /// Mirror left and right.
    HorizontalFlip(ChanceSettings),
    /// Brightness, contrast, saturation, hue in random order.
    ColorJitter(ColorJitterSettings),
    /// Three equal channels.
    Grayscale(ChanceSettings),
    /// Gaussian blur.
    GaussianBlur(GaussianBlurSettings),
    /// Turn, scale and shift within the frame.
    RandomAffine(RandomAffineSettings),
    /// Invert values at or above a threshold.
    Solarize(SolarizeSettings),
    /// Shorter side to a length.
    Resize(ResizeSettings),
    /// Square from the centre.
    CenterCrop(CenterCropSettings),
}

/// `random_resized_crop`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RandomResizedCropSettings {
    /// Side of the square result.
    pub side_pixels: u32,
    /// Share of the image's area, lowest and highest.
    #[serde(default = "default_area")]
    pub area: [f64; 2],
    /// Width over height, lowest and highest, drawn log-uniformly.
    #[serde(default = "default_aspect")]
    pub aspect: [f64; 2],
    /// Which filter; `bicubic` is what CLIP was trained with.
    #[serde(default)]
    pub interpolation: Interpolation,
}
fn default_area() -> [f64; 2] {
    [0.08, 1.0]
}
fn default_aspect() -> [f64; 2] {
    [3.0 / 4.0, 4.0 / 3.0]
}

/// `horizontal_flip`, `grayscale`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChanceSettings {
    /// In [0, 1].
    pub probability: f64,
}

/// `color_jitter`: `strength = s` means brightness, contrast, saturation .8 s and hue .2 s (SimCLR); or each by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColorJitterSettings {
    /// In [0, 1].
    #[serde(default = "default_jitter_probability")]
    pub probability: f64,
    /// SimCLR's s; excludes the four below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strength: Option<f64>,
    /// Factor in [max(0, 1 − b), 1 + b].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brightness: Option<f64>,
    /// Factor in [max(0, 1 − c), 1 + c].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contrast: Option<f64>,
    /// Factor in [max(0, 1 − s), 1 + s].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saturation: Option<f64>,
    /// Shift in [−h, h] turns, at most .5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hue: Option<f64>,
}
fn default_jitter_probability() -> f64 {
    0.8
}

/// `gaussian_blur`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GaussianBlurSettings {
    /// In [0, 1].
    pub probability: f64,
    /// Standard deviation in pixels, lowest and highest.
    #[serde(default = "default_sigma")]
    pub sigma: [f64; 2],
    /// Odd side of the kernel; default: a tenth of the image's side, made odd (224 → 23).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_pixels: Option<u32>,
}
fn default_sigma() -> [f64; 2] {
    [0.1, 2.0]
}

/// `random_affine`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RandomAffineSettings {
    /// In [0, 1].
    #[serde(default = "default_affine_probability")]
    pub probability: f64,
    /// Turns by as much at most, either way.
    #[serde(default)]
    pub degrees: f64,
    /// Factor of the picture's size, lowest and highest.
    #[serde(default = "default_scale")]
    pub scale: [f64; 2],
    /// Shifts by as large a share of the side at most, either way along either side.
    #[serde(default)]
    pub shift_share: f64,
}
fn default_affine_probability() -> f64 {
    1.0
}
fn default_scale() -> [f64; 2] {
    [1.0, 1.0]
}

/// `solarize`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SolarizeSettings {
    /// In [0, 1].
    pub probability: f64,
    /// Values at or above it are inverted.
    #[serde(default = "default_threshold")]
    pub threshold: u8,
}
fn default_threshold() -> u8 {
    128
}

/// `resize`: the shorter side to `side_pixels`, aspect kept (torchvision's rule).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResizeSettings {
    /// Length of the shorter side.
    pub side_pixels: u32,
    /// Which filter.
    #[serde(default)]
    pub interpolation: Interpolation,
}

/// `center_crop`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CenterCropSettings {
    /// Side of the square.
    pub side_pixels: u32,
}
