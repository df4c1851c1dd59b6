//! A labelled image set that needs no download: ten kinds of shapes under changing light, place, size and turn.
//!
//! For tests, and for the demo where nothing can be fetched. The label is in the shape alone; colours, position, scale,
//! rotation, a gradient and noise are not. Comparing raw pixels finds it often, but far from always.
use std::borrow::Cow;
use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};

use crate::error::{Context, Error, Result, Stage};
use crate::ingest::source::Source;
use crate::ingest::{ImportReport, ImportSettings, import_source};
use crate::seed::{self, Draws};

/// Names of the classes, in the order of their index.
pub const CLASSES: [&str; 10] =
    ["disk", "ring", "square", "frame", "triangle", "cross", "bars_across", "bars_down", "checker", "dots"];

/// Samples per side of a pixel: edges are smooth, so that small images still tell shapes apart.
const SAMPLES_PER_SIDE: u32 = 3;

/// How the images are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Lossless.
    Png,
    /// Quality 90.
    Jpeg,
}

/// What to generate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntheticSettings {
    /// Images of each class in the split `train`.
    pub train_per_class: usize,
    /// Images of each class in the split `test`.
    pub test_per_class: usize,
    /// Width and height.
    pub side_pixels: u32,
    /// Names the images.
    pub seed: u64,
    /// PNG or JPEG.
    pub encoding: Encoding,
}

impl Default for SyntheticSettings {
    fn default() -> Self {
        Self { train_per_class: 600, test_per_class: 100, side_pixels: 28, seed: 0, encoding: Encoding::Png }
    }
}

/// Writes `train/CLASS/…png` with `per_class` images of each class, and `test/CLASS/…png` with a fifth of that, at least
/// one. The same arguments give the same files.
///
/// # Errors
/// The folder cannot be written.
pub fn write_class_folders(folder: &Path, per_class: usize, side_pixels: u32, seed: u64) -> Result<()> {
    let test_per_class = per_class.div_ceil(5);
    let settings = SyntheticSettings {
        train_per_class: per_class,
        test_per_class,
        side_pixels,
        seed,
        ..SyntheticSettings::default()
    };
    settings.write_files(folder)
}

/// Writes the images straight into shards, as importing the files would.
///
/// # Errors
/// The folder cannot be written or holds a data set already.
pub fn write_shards(folder: &Path, images: &SyntheticSettings, import: &ImportSettings) -> Result<ImportReport> {
    import_source(images, folder, import, &mut |_| Ok(()))
}

impl SyntheticSettings {
    /// Writes every image as a file below `folder`: `SPLIT/CLASS/NUMBER.png`.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn write_files(&self, folder: &Path) -> Result<()> {
        for image in 0..self.images() {
            let path = folder.join(&*self.name(image));
            let place = path.display().to_string();
            let cannot_write = "cannot be written; check permissions and free space";
            std::fs::create_dir_all(path.parent().unwrap_or(folder)).context(Stage::Import, &place, cannot_write)?;
            std::fs::write(&path, self.read(image)?).context(Stage::Import, &place, cannot_write)?;
        }
        Ok(())
    }

    /// The pixels of the image with this number.
    pub fn pixels(&self, image: usize) -> RgbImage {
        let place = self.place(image);
        let numbers = [u64::from(place.is_test), place.class as u64, place.number as u64];
        draw(place.class, self.side_pixels, &mut seed::draws(self.seed, "synthetic", &numbers))
    }

    fn place(&self, image: usize) -> ImagePlace {
        let train = self.train_per_class * CLASSES.len();
        let (is_test, per_class, at) = match image.checked_sub(train) {
            Some(at) => (true, self.test_per_class, at),
            None => (false, self.train_per_class, image),
        };
        ImagePlace { is_test, class: at / per_class, number: at % per_class }
    }
}

/// Where an image stands in the set.
struct ImagePlace {
    is_test: bool,
    class: usize,
    number: usize,
}

impl ImagePlace {
    fn split(&self) -> &'static str {
        if self.is_test { "test" } else { "train" }
    }
}

impl Source for SyntheticSettings {
    fn kind(&self) -> &'static str {
        "synthetic"
    }

    fn images(&self) -> usize {
        (self.train_per_class + self.test_per_class) * CLASSES.len()
    }

    fn name(&self, image: usize) -> Cow<'_, str> {
        let place = self.place(image);
        let extension = match self.encoding {
            Encoding::Png => "png",
            Encoding::Jpeg => "jpg",
        };
        Cow::Owned(format!("{}/{}/{:06}.{extension}", place.split(), CLASSES[place.class], place.number))
    }

    fn expected_bytes(&self, _image: usize) -> u64 {
        let side = u64::from(self.side_pixels);
        side * side * 3 + 256
    }

    fn read(&self, image: usize) -> Result<Vec<u8>> {
        let pixels = DynamicImage::from(self.pixels(image));
        let mut bytes = Cursor::new(Vec::new());
        let written = match self.encoding {
            Encoding::Png => pixels.write_to(&mut bytes, ImageFormat::Png),
            Encoding::Jpeg => {
                pixels.write_with_encoder(image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 90))
            }
        };
        written.map_err(|error| {
            Error::at(Stage::Import, self.name(image), "cannot be encoded; give a side of at least one pixel")
                .caused_by(error)
        })?;
        Ok(bytes.into_inner())
    }

    fn split(&self, image: usize) -> Option<&str> {
        Some(self.place(image).split())
    }

    fn label(&self, image: usize) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(CLASSES[self.place(image).class]))
    }
}

/// What varies within a class.
struct Nuisance {
    shift: [f64; 2],
    scale: f64,
    sine: f64,
    cosine: f64,
    background: [f64; 3],
    foreground: [f64; 3],
    gradient: [f64; 2],
    noise: f64,
}

impl Nuisance {
    fn draw(draws: &mut Draws) -> Self {
        let turn = draws.between(-0.35, 0.35);
        let background = [0; 3].map(|_| draws.between(0.0, 0.45));
        // Brighter than the background in every channel, or shapes would vanish in greyscale.
        let foreground = background.map(|channel| channel + draws.between(0.2, 0.55));
        Self {
            shift: [draws.between(-0.3, 0.3), draws.between(-0.3, 0.3)],
            scale: draws.between(0.45, 0.75),
            sine: libm::sin(turn),
            cosine: libm::cos(turn),
            background,
            foreground,
            gradient: [draws.between(-0.15, 0.15), draws.between(-0.15, 0.15)],
            noise: draws.between(0.01, 0.08),
        }
    }

    /// From the image, [-1, 1] on both axes, to the shape's own coordinates.
    fn to_shape(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let (x, y) = ((x - self.shift[0]) / self.scale, (y - self.shift[1]) / self.scale);
        [self.cosine * x + self.sine * y, self.cosine * y - self.sine * x]
    }
}

fn draw(class: usize, side_pixels: u32, draws: &mut Draws) -> RgbImage {
    let nuisance = Nuisance::draw(draws);
    let samples = side_pixels * SAMPLES_PER_SIDE;
    let coordinate = |sample: u32| 2.0 * (f64::from(sample) + 0.5) / f64::from(samples) - 1.0;
    RgbImage::from_fn(side_pixels, side_pixels, |column, row| {
        let mut covered = 0.0;
        for sample in 0..SAMPLES_PER_SIDE * SAMPLES_PER_SIDE {
            let (right, down) = (sample % SAMPLES_PER_SIDE, sample / SAMPLES_PER_SIDE);
            let at = [coordinate(column * SAMPLES_PER_SIDE + right), coordinate(row * SAMPLES_PER_SIDE + down)];
            covered += f64::from(u8::from(is_inside(class, nuisance.to_shape(at))));
        }
        covered /= f64::from(SAMPLES_PER_SIDE * SAMPLES_PER_SIDE);
        let centre = [column, row].map(|pixel| coordinate(pixel * SAMPLES_PER_SIDE + SAMPLES_PER_SIDE / 2));
        let light = nuisance.gradient[0] * centre[0] + nuisance.gradient[1] * centre[1];
        Rgb([0, 1, 2].map(|channel: usize| {
            let colour = nuisance.background[channel] * (1.0 - covered) + nuisance.foreground[channel] * covered;
            let value = colour + light + nuisance.noise * draws.normal();
            (value * 255.0 + 0.5).clamp(0.0, 255.0) as u8
        }))
    })
}

/// Whether a point lies in the shape, whose extent is about [-1, 1].
fn is_inside(class: usize, [x, y]: [f64; 2]) -> bool {
    let radius = libm::sqrt(x * x + y * y);
    let reach = x.abs().max(y.abs());
    let is_odd_stripe = |at: f64| (libm::floor((at + 1.0) * 2.5) as i64) % 2 == 0;
    match CLASSES[class] {
        "disk" => radius < 0.9,
        "ring" => (0.5..0.95).contains(&radius),
        "square" => reach < 0.8,
        "frame" => (0.45..0.85).contains(&reach),
        "triangle" => y < 0.75 && y > 2.0 * x.abs() - 0.95,
        "cross" => reach < 0.95 && x.abs().min(y.abs()) < 0.25,
        "bars_across" => reach < 1.0 && is_odd_stripe(y),
        "bars_down" => reach < 1.0 && is_odd_stripe(x),
        "checker" => reach < 1.0 && is_odd_stripe(x) != is_odd_stripe(y),
        _ => {
            let nearest = |at: f64| at.abs() - if at.abs() < 0.33 { 0.0 } else { 0.66 };
            reach < 1.0 && libm::sqrt(nearest(x) * nearest(x) + nearest(y) * nearest(y)) < 0.2
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small(seed: u64) -> SyntheticSettings {
        SyntheticSettings { train_per_class: 60, test_per_class: 20, side_pixels: 20, seed, encoding: Encoding::Png }
    }

    #[test]
    fn images_are_a_function_of_their_name() {
        assert_eq!(small(1).pixels(7), small(1).pixels(7));
        assert_ne!(small(1).pixels(7), small(2).pixels(7));
        assert_ne!(small(1).pixels(7), small(1).pixels(8));
        // The first test image of a class is not its first training image.
        assert_ne!(small(1).pixels(0), small(1).pixels(600));
    }

    #[test]
    fn names_splits_and_labels_agree() {
        let images = small(0);
        assert_eq!(images.images(), 800);
        assert_eq!(images.name(60), "train/ring/000000.png");
        assert_eq!(images.name(799), "test/dots/000019.png");
        assert_eq!((images.split(799), images.label(799).unwrap().as_ref()), (Some("test"), "dots"));
    }

    #[test]
    fn both_encodings_decode_to_the_declared_size() {
        for encoding in [Encoding::Png, Encoding::Jpeg] {
            let images = SyntheticSettings { encoding, ..small(0) };
            let decoded = image::load_from_memory(&images.read(3).unwrap()).unwrap();
            assert_eq!((decoded.width(), decoded.height()), (20, 20));
        }
    }

    #[test]
    fn raw_pixels_find_the_class_often_but_far_from_always() {
        let images = small(3);
        let all: Vec<(RgbImage, usize)> = (0..800).map(|i| (images.pixels(i), images.place(i).class)).collect();
        let (train, test) = all.split_at(600);
        let distance = |a: &RgbImage, b: &RgbImage| -> i64 {
            a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| (i64::from(*a) - i64::from(*b)).pow(2)).sum()
        };
        let right = test.iter().filter(|(pixels, class)| {
            let nearest = train.iter().min_by_key(|(other, _)| distance(pixels, other)).unwrap();
            nearest.1 == *class
        });
        let share = right.count() as f64 / test.len() as f64;
        assert!((0.2..0.8).contains(&share), "{share}");
    }
}
