//! What a recipe may say: every problem at once, with its key and remedy.
use super::recipe::{RecipeProblem, RecipePurpose, out_side_pixels};
use crate::augment::recipe::{
    ColorJitterSettings, GaussianBlurSettings, ImageOpSettings, RandomAffineSettings, RandomResizedCropSettings,
};

/// Sides above this are mistakes: a view would have more pixels than most images.
const MAX_SIDE_PIXELS: u32 = 4096;
/// Wider kernels would leave the range of the blur's 16-bit sums.
const MAX_KERNEL_PIXELS: u32 = 255;
/// Decoders count pixels in 32 bits.
pub(super) const MAX_MEGAPIXELS: f64 = 1_000.0;
/// Jitter beyond this turns every image black, white or grey.
const MAX_SPREAD: f64 = 10.0;
/// A picture of a hundredth is a dot; what is much smaller overflows the fixed point of its coordinates.
const LEAST_SCALE: f64 = 0.01;

/// Problems of one recipe, in its order.
pub(super) fn problems(ops: &[ImageOpSettings], purpose: RecipePurpose) -> Vec<RecipeProblem> {
    let mut found = Found { problems: vec![], prefix: purpose.key().to_owned() };
    if ops.is_empty() {
        found.add(
            "",
            "the recipe is empty",
            r#"write at least one op, such as { random_resized_crop = { side_pixels = 224 } }"#,
        );
        return found.problems;
    }
    for (index, op) in ops.iter().enumerate() {
        found.prefix = format!("{}[{index}].{}", purpose.key(), name(op));
        found.op(op);
        if purpose == RecipePurpose::Evaluation && is_random(op) {
            found.add("", "an evaluation must give the same pixels every time", "use resize and center_crop");
        }
        if let (ImageOpSettings::CenterCrop(crop), Some(ImageOpSettings::Resize(resize))) =
            (op, index.checked_sub(1).map(|before| &ops[before]))
            && crop.side_pixels > resize.side_pixels
        {
            let problem = format!("{} is more than the {} that resize leaves", crop.side_pixels, resize.side_pixels);
            found.add("side_pixels", &problem, "make the square at most as large, else its border is black");
        }
    }
    found.prefix = purpose.key().to_owned();
    if out_side_pixels(ops).is_none() {
        let remedy = match purpose {
            RecipePurpose::Training => "add random_resized_crop, or center_crop after resize",
            RecipePurpose::Evaluation => "add center_crop",
        };
        found.add("", "the result has no fixed size, so no batch can hold it", remedy);
    }
    found.problems
}

struct Found {
    problems: Vec<RecipeProblem>,
    prefix: String,
}

impl Found {
    fn add(&mut self, key: &str, problem: &str, remedy: &str) {
        let path = if key.is_empty() { self.prefix.clone() } else { format!("{}.{key}", self.prefix) };
        self.problems.push(RecipeProblem { path, problem: problem.to_owned(), remedy: remedy.to_owned() });
    }

    /// A number outside [`low`, `high`], or no number at all.
    fn range(&mut self, key: &str, value: f64, low: f64, high: f64) {
        if !(value >= low && value <= high) {
            self.add(key, &format!("{value} is out of range"), &format!("choose {low} to {high}"));
        }
    }

    fn side(&mut self, side: u32) {
        self.range("side_pixels", f64::from(side), 1.0, f64::from(MAX_SIDE_PIXELS));
    }

    /// A pair that must rise from above `low` to at most `high`.
    fn rising(&mut self, key: &str, [first, second]: [f64; 2], low: f64, high: f64) {
        if !(first > low && first <= second && second <= high) {
            let upper = if high.is_finite() { format!(" and at most {high}") } else { String::new() };
            let remedy = format!("choose [lowest, highest], both above {low}{upper}");
            self.add(key, &format!("[{first}, {second}] is no range here"), &remedy);
        }
    }

    fn op(&mut self, op: &ImageOpSettings) {
        match op {
            ImageOpSettings::RandomResizedCrop(settings) => self.random_resized_crop(settings),
            ImageOpSettings::HorizontalFlip(settings) | ImageOpSettings::Grayscale(settings) => {
                self.range("probability", settings.probability, 0.0, 1.0);
            }
            ImageOpSettings::ColorJitter(settings) => self.color_jitter(settings),
            ImageOpSettings::GaussianBlur(settings) => self.gaussian_blur(settings),
            ImageOpSettings::RandomAffine(settings) => self.random_affine(settings),
            ImageOpSettings::Solarize(settings) => self.range("probability", settings.probability, 0.0, 1.0),
            ImageOpSettings::Resize(settings) => self.side(settings.side_pixels),
            ImageOpSettings::CenterCrop(settings) => self.side(settings.side_pixels),
        }
    }

    fn random_resized_crop(&mut self, settings: &RandomResizedCropSettings) {
        self.side(settings.side_pixels);
        self.rising("area", settings.area, 0.0, 1.0);
        self.rising("aspect", settings.aspect, 0.0, f64::INFINITY);
        if settings.aspect[1] == f64::INFINITY {
            self.add("aspect", "infinity is no aspect", "choose a number such as 1.333");
        }
    }

    fn color_jitter(&mut self, settings: &ColorJitterSettings) {
        let ColorJitterSettings { probability, strength, brightness, contrast, saturation, hue } = *settings;
        self.range("probability", probability, 0.0, 1.0);
        let singles = [("brightness", brightness), ("contrast", contrast), ("saturation", saturation), ("hue", hue)];
        if let Some(strength) = strength {
            // SimCLR's hue is a fifth of it, and a hue beyond half a turn repeats.
            self.range("strength", strength, 0.0, 2.5);
            for (key, value) in singles {
                if value.is_some() {
                    self.add(key, "strength already sets it", "write strength alone, or the four without it");
                }
            }
        } else if singles.iter().all(|(_, value)| value.is_none()) {
            self.add("", "changes nothing", "write strength, or some of brightness, contrast, saturation and hue");
        }
        for (key, value) in &singles[..3] {
            self.range(key, value.unwrap_or(0.0), 0.0, MAX_SPREAD);
        }
        self.range("hue", hue.unwrap_or(0.0), 0.0, 0.5);
    }

    fn random_affine(&mut self, settings: &RandomAffineSettings) {
        let RandomAffineSettings { probability, degrees, scale, shift_share } = *settings;
        self.range("probability", probability, 0.0, 1.0);
        self.range("degrees", degrees, 0.0, 180.0);
        self.rising("scale", scale, LEAST_SCALE, MAX_SPREAD);
        self.range("shift_share", shift_share, 0.0, 1.0);
        if degrees == 0.0 && scale == [1.0; 2] && shift_share == 0.0 {
            self.add("", "changes nothing", "write some of degrees, scale and shift_share");
        }
    }

    fn gaussian_blur(&mut self, settings: &GaussianBlurSettings) {
        self.range("probability", settings.probability, 0.0, 1.0);
        self.rising("sigma", settings.sigma, 0.0, 1_000.0);
        if let Some(side) = settings.kernel_pixels
            && (side % 2 == 0 || side > MAX_KERNEL_PIXELS)
        {
            let remedy =
                format!("choose an odd number up to {MAX_KERNEL_PIXELS}, or leave it out for a tenth of the side");
            self.add("kernel_pixels", &format!("{side} has no centre or is too wide"), &remedy);
        }
    }
}

fn name(op: &ImageOpSettings) -> &'static str {
    super::recipe::ImageOp::from(op).name()
}

/// Whether an op may give other pixels for another key.
fn is_random(op: &ImageOpSettings) -> bool {
    let by_chance = |probability: f64| probability > 0.0 && probability < 1.0;
    match op {
        ImageOpSettings::RandomResizedCrop(_) => true,
        ImageOpSettings::HorizontalFlip(s) | ImageOpSettings::Grayscale(s) => by_chance(s.probability),
        ImageOpSettings::ColorJitter(s) => s.probability > 0.0,
        ImageOpSettings::GaussianBlur(s) => {
            by_chance(s.probability) || (s.probability > 0.0 && s.sigma[0] != s.sigma[1])
        }
        ImageOpSettings::RandomAffine(s) => s.probability > 0.0,
        ImageOpSettings::Solarize(s) => by_chance(s.probability),
        ImageOpSettings::Resize(_) | ImageOpSettings::CenterCrop(_) => false,
    }
}
