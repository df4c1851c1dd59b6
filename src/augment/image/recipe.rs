//! A recipe as resolved: checked, complete, ready to run.
use std::sync::Arc;

use super::{
    GeometryOp, PixelOp, center_crop::CenterCrop, color_jitter::ColorJitter, gaussian_blur::GaussianBlur,
    grayscale::Grayscale, horizontal_flip::HorizontalFlip, random_affine::RandomAffine,
    random_resized_crop::RandomResizedCrop, resize::Resize, solarize::Solarize,
};
use crate::augment::recipe::{
    AugmentSettings, CenterCropSettings, ImageOpSettings, RandomResizedCropSettings, ResizeSettings,
};

/// Version of decoding and resampling; each op has its own.
const PIXELS_VERSION: u32 = 1;
/// Sides from which an evaluation leaves a border out: crops of 87.5 % as in SimCLR; smaller images have none to spare.
const SMALLEST_SIDE_WITH_BORDER: u32 = 64;

/// Which of a pipeline's two recipes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecipePurpose {
    /// `augment.image`: random views.
    Training,
    /// `augment.evaluation`: the same pixels every time.
    Evaluation,
}

impl RecipePurpose {
    /// The key below `augment`.
    pub fn key(self) -> &'static str {
        match self {
            Self::Training => "image",
            Self::Evaluation => "evaluation",
        }
    }
}

/// A mistake in a recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipeProblem {
    /// Key below `augment`, such as `image[2].color_jitter.hue`.
    pub path: String,
    /// What is wrong.
    pub problem: String,
    /// What to write instead.
    pub remedy: String,
}

/// An op, ready to run.
#[derive(Debug, Clone)]
pub enum ImageOp {
    /// Decides which part becomes which size.
    Geometry(Arc<dyn GeometryOp>),
    /// Changes values.
    Pixel(Arc<dyn PixelOp>),
}

impl ImageOp {
    /// As a pipeline writes it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Geometry(op) => op.name(),
            Self::Pixel(op) => op.name(),
        }
    }

    /// Name, version, settings.
    pub fn describe(&self) -> String {
        match self {
            Self::Geometry(op) => op.describe(),
            Self::Pixel(op) => op.describe(),
        }
    }
}

impl From<&ImageOpSettings> for ImageOp {
    fn from(settings: &ImageOpSettings) -> Self {
        match settings {
            ImageOpSettings::RandomResizedCrop(s) => Self::Geometry(Arc::new(RandomResizedCrop::new(s))),
            ImageOpSettings::Resize(s) => Self::Geometry(Arc::new(Resize::new(s))),
            ImageOpSettings::CenterCrop(s) => Self::Geometry(Arc::new(CenterCrop::new(s))),
            ImageOpSettings::HorizontalFlip(s) => Self::Pixel(Arc::new(HorizontalFlip::new(s))),
            ImageOpSettings::ColorJitter(s) => Self::Pixel(Arc::new(ColorJitter::new(s))),
            ImageOpSettings::Grayscale(s) => Self::Pixel(Arc::new(Grayscale::new(s))),
            ImageOpSettings::GaussianBlur(s) => Self::Pixel(Arc::new(GaussianBlur::new(s))),
            ImageOpSettings::RandomAffine(s) => Self::Pixel(Arc::new(RandomAffine::new(s))),
            ImageOpSettings::Solarize(s) => Self::Pixel(Arc::new(Solarize::new(s))),
        }
    }
}

/// A recipe that has been checked: its result is a square of known side.
#[derive(Debug, Clone)]
pub struct ImageRecipe {
    pub(super) ops: Vec<ImageOp>,
    /// For each op, how many of its name come before it: a part of its draws' name.
    pub(super) occurrences: Vec<u32>,
    pub(super) side_pixels: usize,
    pub(super) max_pixels: u64,
    pub(super) exif_orientation: bool,
}

impl ImageRecipe {
    /// Checks the settings of one recipe and makes it ready to run. An evaluation recipe that is empty becomes
    /// [`Self::default_evaluation`] for the training recipe's side.
    ///
    /// # Errors
    /// Every problem of that recipe, at once.
    pub fn resolve(settings: &AugmentSettings, purpose: RecipePurpose) -> Result<Self, Vec<RecipeProblem>> {
        let derived;
        let written = match purpose {
            RecipePurpose::Training => &settings.image,
            RecipePurpose::Evaluation if settings.evaluation.is_empty() => {
                derived = out_side_pixels(&settings.image)
                    .map(|side| Self::default_evaluation(side, &settings.image))
                    .unwrap_or_default();
                &derived
            }
            RecipePurpose::Evaluation => &settings.evaluation,
        };
        let mut problems = super::check::problems(written, purpose);
        if !(settings.max_megapixels > 0.0 && settings.max_megapixels <= super::check::MAX_MEGAPIXELS) {
            problems.push(RecipeProblem {
                path: "max_megapixels".into(),
                problem: format!("{} is out of range", settings.max_megapixels),
                remedy: format!("choose more than 0 and at most {}", super::check::MAX_MEGAPIXELS),
            });
        }
        let side_pixels = match out_side_pixels(written) {
            Some(side) if problems.is_empty() => side as usize,
            _ => return Err(problems),
        };
        let ops: Vec<ImageOp> = written.iter().map(ImageOp::from).collect();
        let before = |index: usize| ops[..index].iter().filter(|op| op.name() == ops[index].name()).count() as u32;
        let occurrences = (0..ops.len()).map(before).collect();
        let max_pixels = (settings.max_megapixels * 1e6) as u64;
        Ok(Self { ops, occurrences, side_pixels, max_pixels, exif_orientation: settings.exif_orientation })
    }

    /// What an evaluation does where none is written: the shorter side to 8/7 of `side_pixels` (224 → 256), then the
    /// central square, which keeps 87.5 % of it; below 64 pixels no border is left out. The filter is that of `training`.
    pub fn default_evaluation(side_pixels: u32, training: &[ImageOpSettings]) -> Vec<ImageOpSettings> {
        let shorter = if side_pixels < SMALLEST_SIDE_WITH_BORDER { side_pixels } else { (side_pixels * 8).div_ceil(7) };
        let filter = training.iter().rev().find_map(|op| match op {
            ImageOpSettings::RandomResizedCrop(RandomResizedCropSettings { interpolation, .. })
            | ImageOpSettings::Resize(ResizeSettings { interpolation, .. }) => Some(*interpolation),
            _ => None,
        });
        let interpolation = filter.unwrap_or_default();
        vec![
            ImageOpSettings::Resize(ResizeSettings { side_pixels: shorter, interpolation }),
            ImageOpSettings::CenterCrop(CenterCropSettings { side_pixels }),
        ]
    }

    /// Side of the square result.
    pub fn side_pixels(&self) -> usize {
        self.side_pixels
    }

    /// Images that declare more are bad samples.
    pub fn max_pixels(&self) -> u64 {
        self.max_pixels
    }

    /// The ops in order.
    pub fn ops(&self) -> &[ImageOp] {
        &self.ops
    }

    /// Everything that decides the pixels, as one line.
    pub fn describe(&self) -> String {
        let ops: Vec<String> = self.ops.iter().map(ImageOp::describe).collect();
        let (exif, max) = (self.exif_orientation, self.max_pixels);
        format!("pixels v{PIXELS_VERSION} exif_orientation={exif} max_pixels={max}: {}", ops.join(" | "))
    }
}

/// Side of a recipe's square result; `None` where its last geometric op leaves it to the image, or there is none.
pub(super) fn out_side_pixels(ops: &[ImageOpSettings]) -> Option<u32> {
    ops.iter().rev().find_map(|op| match op {
        ImageOpSettings::RandomResizedCrop(s) => Some(Some(s.side_pixels)),
        ImageOpSettings::CenterCrop(s) => Some(Some(s.side_pixels)),
        ImageOpSettings::Resize(_) => Some(None),
        _ => None,
    })?
}
