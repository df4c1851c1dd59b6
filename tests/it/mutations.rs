//! Seeded damage to valid images: whatever comes of it is pixels or a classed error, within the memory that the header declares.
use std::io::Cursor;

use diptych::{
    augment::{
        BadSample,
        image::{decode_check::decode_check, header::probe, perceptual_hash::HASHED_SIDE_PIXELS},
        recipe::{
            AugmentSettings, CenterCropSettings, ChanceSettings, ImageOpSettings, Interpolation,
            RandomResizedCropSettings, ResizeSettings,
        },
    },
    pair::{Encoded, SampleKernel, TwoViewsSettings, one_view::OneView, two_views::TwoViews},
    seed::{Draws, ItemKey, draws},
};
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};

use crate::confined::{confined, count};

/// Images that declare more are refused: bounds the memory of a test that declares sizes at random.
const MAX_MEGAPIXELS: f64 = 4.0;
/// 16 bytes per pixel and 64 MB beside, as `augment::image::source` states, for the decoder and as much again for what is being
/// looked at; the rest is the test binary and its images.
const PEAK_MEGABYTES: u64 = 512;
const ITEM: ItemKey = ItemKey { shard: 5, row: 1, occurrence: 0 };

/// Smooth, coloured, without symmetry.
fn photo(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let wave = |a: u32, b: u32| (127.0 + 100.0 * (f64::from(a * x + b * y) / 90.0).sin()) as u8;
        Rgb([wave(1, 3), wave(4, 1), wave(2, 5)])
    })
}

fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(vec![]);
    image.into().write_to(&mut bytes, format).expect("encodes");
    bytes.into_inner()
}

/// How libjpeg-turbo is asked to write.
#[derive(Clone, Copy)]
struct Jpeg {
    subsampling: turbojpeg::Subsamp,
    progressive: bool,
    arithmetic: bool,
    format: turbojpeg::PixelFormat,
}

const JPEG: Jpeg = Jpeg {
    subsampling: turbojpeg::Subsamp::Sub2x2,
    progressive: false,
    arithmetic: false,
    format: turbojpeg::PixelFormat::RGB,
};

fn jpeg(jpeg: Jpeg) -> Vec<u8> {
    let (width, height) = (72, 56);
    let photo = photo(width as u32, height as u32);
    let pixels: Vec<u8> = match jpeg.format {
        turbojpeg::PixelFormat::CMYK => photo.pixels().flat_map(|pixel| [pixel[0], pixel[1], pixel[2], 210]).collect(),
        _ => photo.into_raw(),
    };
    let pitch = width * jpeg.format.size();
    let image = turbojpeg::Image { pixels: pixels.as_slice(), width, pitch, height, format: jpeg.format };
    let mut compressor = turbojpeg::Compressor::new().expect("a compressor");
    compressor.set_quality(85).expect("a quality");
    compressor.set_subsamp(jpeg.subsampling).expect("a subsampling");
    compressor.set_progressive(jpeg.progressive).expect("a mode");
    compressor.set_arithmetic(jpeg.arithmetic).expect("a coder");
    compressor.compress_to_vec(image).expect("encodes")
}

/// Valid images of every kind that is read, by name.
fn originals() -> Vec<(&'static str, Vec<u8>)> {
    use turbojpeg::{PixelFormat, Subsamp};
    let photo = || DynamicImage::from(photo(60, 44));
    // Orientation 6 and nothing else. One IFD entry, little endian.
    let exif = b"Exif\0\0II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let length = (exif.len() as u16 + 2).to_be_bytes();
    let plain = jpeg(JPEG);
    let turned = [&plain[..2], &[0xff, 0xe1], &length, exif, &plain[2..]].concat();
    vec![
        ("baseline JPEG", plain),
        ("turned JPEG", turned),
        ("4:4:4 JPEG", jpeg(Jpeg { subsampling: Subsamp::None, ..JPEG })),
        ("progressive JPEG", jpeg(Jpeg { progressive: true, ..JPEG })),
        ("arithmetic JPEG", jpeg(Jpeg { arithmetic: true, ..JPEG })),
        ("CMYK JPEG", jpeg(Jpeg { format: PixelFormat::CMYK, subsampling: Subsamp::None, ..JPEG })),
        ("progressive CMYK JPEG", jpeg(Jpeg { format: PixelFormat::CMYK, progressive: true, ..JPEG })),
        ("RGB PNG", encoded(photo(), ImageFormat::Png)),
        ("RGBA PNG", encoded(photo().into_rgba8(), ImageFormat::Png)),
        ("16-bit PNG", encoded(photo().into_rgb16(), ImageFormat::Png)),
        ("grey PNG", encoded(photo().into_luma8(), ImageFormat::Png)),
        ("WebP", encoded(photo(), ImageFormat::WebP)),
        ("WebP with alpha", encoded(photo().into_rgba8(), ImageFormat::WebP)),
        ("GIF", encoded(photo(), ImageFormat::Gif)),
    ]
}

/// One to six changes; `other` is a file to take pieces from.
fn mutate(original: &[u8], other: &[u8], draws: &mut Draws) -> Vec<u8> {
    let mut bytes = original.to_vec();
    for _ in 0..=draws.below(6) {
        // Half of the changes go where headers are.
        let reach = if draws.chance(0.5) { bytes.len().min(64) } else { bytes.len() };
        let at = draws.below(reach as u64) as usize;
        match draws.below(8) {
            0 => bytes[at] = draws.next_u32() as u8,
            1 => bytes[at] ^= 1 << draws.below(8),
            2 => bytes.truncate(at.max(1)),
            3 => splice(&mut bytes, at, original, draws),
            4 => splice(&mut bytes, at, other, draws),
            5 => {
                let end = (at + 1 + draws.below(40) as usize).min(bytes.len());
                bytes.drain(at..end);
                if bytes.is_empty() {
                    return bytes;
                }
            }
            kind => {
                // A length, a size or an offset, of two or four bytes, in either order.
                let number = [0, 1, 2, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff][draws.below(9) as usize];
                let wide: [u8; 4] = if draws.chance(0.5) { u32::to_be_bytes(number) } else { u32::to_le_bytes(number) };
                let written = if kind == 6 { &wide[..] } else { &wide[2..] };
                for (byte, value) in bytes[at..].iter_mut().zip(written) {
                    *byte = *value;
                }
            }
        }
    }
    // Checksums would end most of what happens to a PNG before its decoder sees it.
    if draws.chance(0.7) {
        repair_png(&mut bytes);
    }
    bytes
}

fn splice(bytes: &mut Vec<u8>, at: usize, from: &[u8], draws: &mut Draws) {
    let start = draws.below(from.len() as u64) as usize;
    let piece = &from[start..(start + 1 + draws.below(48) as usize).min(from.len())];
    bytes.splice(at..at, piece.iter().copied());
}

/// Writes the right checksum behind every chunk that is whole.
fn repair_png(bytes: &mut [u8]) {
    if !bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        return;
    }
    let mut at = 8;
    while let Some(length) = bytes.get(at..at + 4) {
        let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
        let end = at.saturating_add(8).saturating_add(length);
        let Some(body) = bytes.get(at + 4..end) else { return };
        let sum = crc32(body).to_be_bytes();
        let Some(stored) = bytes.get_mut(end..end + 4) else { return };
        stored.copy_from_slice(&sum);
        at = end + 4;
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

/// Every way in which an image is decoded.
struct Uses {
    training: TwoViews,
    /// A resize in the middle makes an image of its own.
    staged: TwoViews,
    upright: OneView,
}

impl Uses {
    fn new() -> Self {
        let crop = |side_pixels| ImageOpSettings::CenterCrop(CenterCropSettings { side_pixels });
        let resize = |side_pixels| {
            ImageOpSettings::Resize(ResizeSettings { side_pixels, interpolation: Interpolation::Bilinear })
        };
        let (area, aspect) = ([0.08, 1.0], [0.75, 1.333]);
        let interpolation = Interpolation::Bicubic;
        let crop_settings = RandomResizedCropSettings { side_pixels: 24, area, aspect, interpolation };
        let random = ImageOpSettings::RandomResizedCrop(crop_settings);
        let grey = ImageOpSettings::Grayscale(ChanceSettings { probability: 0.5 });
        let settings = |image: Vec<ImageOpSettings>| AugmentSettings {
            image,
            evaluation: vec![resize(17), crop(16)],
            exif_orientation: true,
            max_megapixels: MAX_MEGAPIXELS,
            ..AugmentSettings::default()
        };
        let pair = TwoViewsSettings { column: "image".into() };
        let two = |image| TwoViews::new(&pair, &settings(image)).expect("a valid recipe");
        Self {
            training: two(vec![random, grey.clone()]),
            staged: two(vec![resize(16), grey, crop(20)]),
            upright: OneView::new("image", &settings(vec![crop(16)])).expect("a valid recipe"),
        }
    }

    fn all(&self, encoded: &[u8], seed: u64) -> [Result<Vec<u8>, BadSample>; 4] {
        let apply = |kernel: &dyn SampleKernel| {
            let mut out = vec![0; kernel.shape().iter().product()];
            kernel.apply(Encoded::image(encoded), seed, 0, ITEM, &mut out).map(|()| out)
        };
        let side = HASHED_SIDE_PIXELS;
        let checked = decode_check(encoded, (MAX_MEGAPIXELS * 1e6) as u64, usize::MAX, |checked| {
            assert_eq!(Ok(checked.header), probe(encoded));
            checked.resized(side, side).map(|image| image.pixels().to_vec())
        });
        [apply(&self.training), apply(&self.staged), apply(&self.upright), checked]
    }
}

#[test]
fn damaged_images_are_pixels_or_classed_errors_within_their_memory() {
    let test = "mutations::damaged_images_are_pixels_or_classed_errors_within_their_memory";
    confined(test, PEAK_MEGABYTES, |cases| {
        let (originals, uses) = (originals(), Uses::new());
        let mut expected = vec![];
        for (name, original) in &originals {
            let pixels = uses.all(original, 1);
            assert!(pixels.iter().all(Result::is_ok), "{name}: {pixels:?}");
            expected.push(pixels);
        }
        let rounds = count("DIPTYCH_MUTATIONS", 1_000).div_ceil(originals.len() as u64);
        let (mut images, mut refused) = (0, 0);
        for round in 0..rounds {
            for (index, (name, original)) in originals.iter().enumerate() {
                let mut draws = draws(11, "mutations", &[index as u64, round]);
                let other = &originals[draws.below(originals.len() as u64) as usize].1;
                let encoded = mutate(original, other, &mut draws);
                cases.now(&format!("{name}, round {round}"));
                images += 1;
                let results = uses.all(&encoded, round);
                for bad in results.iter().filter_map(|result| result.as_ref().err()) {
                    // The last line of defence must not have been needed.
                    assert!(!bad.message.is_empty() && !bad.message.contains("panicked"), "{name} {round}: {bad}");
                }
                if results.iter().any(Result::is_err) {
                    refused += 1;
                    // A decoder that has failed leaves nothing behind for the next image.
                    let next = (index + round as usize) % originals.len();
                    assert_eq!(uses.all(&originals[next].1, 1), expected[next], "after {name} {round}");
                }
            }
        }
        println!("note: {refused} of {images} damaged images were refused, the rest gave pixels");
        assert!(refused * 10 > images * 3, "only {refused} of {images} were refused: the mutations are too tame");
        assert!(refused < images, "all were refused: the mutations are too wild");
    });
}
