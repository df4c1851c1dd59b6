//! The augmentations through their public API: golden pixels, decoding rules, hostile bytes, purity.
use std::{io::Cursor, sync::Arc, thread};

use diptych::{
    augment::{
        BadClass, BadSample,
        image::{
            PixelOp, Scratch,
            color_jitter::ColorJitter,
            gaussian_blur::GaussianBlur,
            grayscale::Grayscale,
            header::{Format, Header, probe},
            horizontal_flip::HorizontalFlip,
            planes::PlanarImage,
            preprocess::{Preprocess, ResizeTo},
            random_affine::RandomAffine,
            recipe::{ImageOp, ImageRecipe, RecipePurpose},
            solarize::Solarize,
        },
        recipe::{
            AugmentSettings, CenterCropSettings, ChanceSettings, ColorJitterSettings, GaussianBlurSettings,
            ImageOpSettings, Interpolation, RandomAffineSettings, RandomResizedCropSettings, ResizeSettings,
            SolarizeSettings,
        },
    },
    pair::{Encoded, SampleKernel, TwoViewsSettings, one_view::OneView, two_views::TwoViews},
    seed::{DrawKey, Draws, ItemKey, draws},
};
use image::{
    ExtendedColorType, ImageEncoder, Rgb, RgbImage,
    codecs::{gif::GifEncoder, jpeg::JpegEncoder, png::PngEncoder, webp::WebPEncoder},
};
use serde::Deserialize;

const ITEM: ItemKey = ItemKey { shard: 77, row: 3, occurrence: 0 };

/// `tests/golden/image_ops.json`.
#[derive(Deserialize)]
struct Golden {
    width: usize,
    height: usize,
    image: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    op: String,
    settings: Vec<f64>,
    pixels: String,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../golden/image_ops.json")).expect("written by image_ops.py")
}

fn bytes(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal")).collect()
}

fn largest_difference(ours: &[u8], theirs: &[u8]) -> u8 {
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0)
}

/// A jitter of one kind whose range is one value.
fn jitter(op: &str, value: f64) -> ColorJitter {
    let same = |name: &str, nothing: f64| if op == name { [value; 2] } else { [nothing; 2] };
    ColorJitter {
        probability: 1.0,
        brightness: same("brightness", 1.0),
        contrast: same("contrast", 1.0),
        saturation: same("saturation", 1.0),
        hue: same("hue", 0.0),
    }
}

#[test]
fn pixel_ops_give_the_values_of_their_formulas() {
    let golden = golden();
    let mut compared = 0;
    for case in &golden.cases {
        // Integer and f32 formulas are met exactly; hue and blur are stated as within one level.
        let (op, tolerance): (Box<dyn PixelOp>, u8) = match case.op.as_str() {
            "brightness" | "contrast" | "saturation" => (Box::new(jitter(&case.op, case.settings[0])), 0),
            "hue" => (Box::new(jitter("hue", case.settings[0])), 1),
            "grayscale" => (Box::new(Grayscale { probability: 1.0 }), 0),
            "horizontal_flip" => (Box::new(HorizontalFlip { probability: 1.0 }), 0),
            "solarize" => (Box::new(Solarize { probability: 1.0, threshold: case.settings[0] as u8 }), 0),
            "gaussian_blur" => {
                let (side, sigma) = (case.settings[0] as u32, case.settings[1]);
                (Box::new(GaussianBlur { probability: 1.0, sigma: [sigma; 2], kernel_pixels: Some(side) }), 1)
            }
            "random_affine" => {
                let [degrees, scale, right, down] = case.settings[..] else { panic!("four: {:?}", case.settings) };
                let [degrees, scale, right, down] = [degrees, scale, right, down].map(|value| [value; 2]);
                (Box::new(RandomAffine { probability: 1.0, degrees, scale, right, down }), 1)
            }
            _ => continue,
        };
        let mut image = PlanarImage::from_pixels(golden.width, golden.height, bytes(&golden.image)).expect("its size");
        op.apply(&mut image.planes(), &mut draws(0, "golden", &[]), &mut Scratch::default());
        let difference = largest_difference(image.pixels(), &bytes(&case.pixels));
        assert!(difference <= tolerance, "{} {:?}: {difference}", case.op, case.settings);
        compared += 1;
    }
    assert_eq!(compared, 18);
}

#[test]
fn resize_and_center_crop_give_the_values_of_their_formulas() {
    let golden = golden();
    let pixels = bytes(&golden.image);
    let plane = golden.width * golden.height;
    let interleaved: Vec<u8> = (0..plane).flat_map(|i| [pixels[i], pixels[plane + i], pixels[2 * plane + i]]).collect();
    let encoded = png(&interleaved, golden.width as u32, golden.height as u32, ExtendedColorType::Rgb8);
    let mut compared = 0;
    for case in &golden.cases {
        let (ops, tolerance) = match case.op.as_str() {
            "center_crop" => (vec![center_crop(case.settings[0] as u32)], 0),
            "resize_center_crop" => (vec![resize(case.settings[0] as u32), center_crop(case.settings[1] as u32)], 1),
            _ => continue,
        };
        let difference = largest_difference(&one_view(ops, &encoded).expect("a good image"), &bytes(&case.pixels));
        assert!(difference <= tolerance, "{} {:?}: {difference}", case.op, case.settings);
        compared += 1;
    }
    assert_eq!(compared, 5);
}

/// An independent witness: another library's bilinear convolution of the same pixels.
#[test]
fn resize_agrees_with_fast_image_resize() {
    use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer, images::Image};
    for side in [20_u32, 32, 96] {
        let photo = photo(96, 64);
        let wide = side * 96 / 64;
        let source = Image::from_vec_u8(96, 64, photo.as_raw().clone(), PixelType::U8x3).expect("96 x 64 RGB");
        let mut target = Image::new(wide, side, PixelType::U8x3);
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
        Resizer::new().resize(&source, &mut target, &options).expect("same pixel types");

        let png = png(photo.as_raw(), 96, 64, ExtendedColorType::Rgb8);
        let ours = one_view(vec![resize(side), center_crop(side)], &png).expect("a good PNG");
        let left = (wide - side) / 2;
        let theirs: Vec<u8> = (0..3_u32)
            .flat_map(|channel| (0..side).flat_map(move |y| (0..side).map(move |x| (channel, y, x))))
            .map(|(channel, y, x)| target.buffer()[((y * wide + x + left) * 3 + channel) as usize])
            .collect();
        assert!(largest_difference(&ours, &theirs) <= 1, "side {side}");
    }
}

fn center_crop(side_pixels: u32) -> ImageOpSettings {
    ImageOpSettings::CenterCrop(CenterCropSettings { side_pixels })
}

fn resize(side_pixels: u32) -> ImageOpSettings {
    ImageOpSettings::Resize(ResizeSettings { side_pixels, interpolation: Interpolation::Bilinear })
}

fn random_resized_crop(side_pixels: u32) -> ImageOpSettings {
    let (area, aspect) = ([0.08, 1.0], [3.0 / 4.0, 4.0 / 3.0]);
    crop_by(Interpolation::Bilinear, side_pixels, area, aspect)
}

fn crop_by(interpolation: Interpolation, side_pixels: u32, area: [f64; 2], aspect: [f64; 2]) -> ImageOpSettings {
    ImageOpSettings::RandomResizedCrop(RandomResizedCropSettings { side_pixels, area, aspect, interpolation })
}

/// SimCLR's recipe, with every pixel op certain, and solarize.
fn everything(side_pixels: u32) -> Vec<ImageOpSettings> {
    let chance = |probability| ChanceSettings { probability };
    vec![
        random_resized_crop(side_pixels),
        ImageOpSettings::HorizontalFlip(chance(0.5)),
        ImageOpSettings::ColorJitter(strength(1.0)),
        ImageOpSettings::Grayscale(chance(0.2)),
        ImageOpSettings::GaussianBlur(GaussianBlurSettings {
            probability: 0.5,
            sigma: [0.1, 2.0],
            kernel_pixels: None,
        }),
        ImageOpSettings::Solarize(SolarizeSettings { probability: 0.2, threshold: 128 }),
        ImageOpSettings::RandomAffine(affine()),
    ]
}

fn affine() -> RandomAffineSettings {
    RandomAffineSettings { probability: 0.7, degrees: 20.0, scale: [0.8, 1.1], shift_share: 0.1 }
}

fn strength(strength: f64) -> ColorJitterSettings {
    let (brightness, contrast, saturation, hue) = (None, None, None, None);
    ColorJitterSettings { probability: 0.8, strength: Some(strength), brightness, contrast, saturation, hue }
}

fn two_views(image: Vec<ImageOpSettings>) -> TwoViews {
    let augment = AugmentSettings { image, ..Default::default() };
    TwoViews::new(&TwoViewsSettings { column: "image".into() }, &augment).expect("a valid recipe")
}

fn one_view(evaluation: Vec<ImageOpSettings>, encoded: &[u8]) -> Result<Vec<u8>, BadSample> {
    one_view_of(&AugmentSettings { evaluation, ..Default::default() }, encoded)
}

fn one_view_of(augment: &AugmentSettings, encoded: &[u8]) -> Result<Vec<u8>, BadSample> {
    let kernel = OneView::new("image", augment).expect("a valid recipe");
    apply(&kernel, encoded, 0, ITEM)
}

fn apply(kernel: &dyn SampleKernel, encoded: &[u8], seed: u64, item: ItemKey) -> Result<Vec<u8>, BadSample> {
    let mut out = vec![0; kernel.shape().iter().product()];
    kernel.apply(Encoded::image(encoded), seed, 0, item, &mut out).map(|()| out)
}

/// Smooth, coloured, without symmetry.
fn photo(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let wave = |a: u32, b: u32| (127.0 + 100.0 * (f64::from(a * x + b * y) / 90.0).sin()) as u8;
        Rgb([wave(1, 3), wave(4, 1), wave(2, 5)])
    })
}

fn jpeg(image: &RgbImage) -> Vec<u8> {
    let mut encoded = vec![];
    JpegEncoder::new_with_quality(&mut encoded, 90)
        .write_image(image, image.width(), image.height(), ExtendedColorType::Rgb8)
        .expect("encodes");
    encoded
}

fn png(samples: &[u8], width: u32, height: u32, color: ExtendedColorType) -> Vec<u8> {
    let mut encoded = vec![];
    PngEncoder::new(&mut encoded).write_image(samples, width, height, color).expect("encodes");
    encoded
}

fn webp(image: &RgbImage) -> Vec<u8> {
    let mut encoded = vec![];
    WebPEncoder::new_lossless(&mut encoded)
        .write_image(image, image.width(), image.height(), ExtendedColorType::Rgb8)
        .expect("encodes");
    encoded
}

fn gif(image: &RgbImage) -> Vec<u8> {
    let mut encoded = vec![];
    GifEncoder::new(&mut encoded)
        .encode(image, image.width(), image.height(), ExtendedColorType::Rgb8)
        .expect("encodes");
    encoded
}

fn every_format() -> [(Format, Vec<u8>); 4] {
    let image = photo(60, 40);
    [
        (Format::Jpeg, jpeg(&image)),
        (Format::Png, png(&image, 60, 40, ExtendedColorType::Rgb8)),
        (Format::Webp, webp(&image)),
        (Format::Gif, gif(&image)),
    ]
}

#[test]
fn header_of_every_format_is_read() {
    for (format, encoded) in every_format() {
        assert_eq!(probe(&encoded), Ok(Header { format, width: 60, height: 40, channels: 3 }));
    }
    assert_eq!(probe(&[]).expect_err("nothing").class, BadClass::Empty);
    assert_eq!(probe(b"BM and more").expect_err("a bitmap").class, BadClass::UnknownFormat);
    for (format, encoded) in every_format() {
        let cut = &encoded[..if format == Format::Jpeg { 20 } else { 9 }];
        let class = probe(cut).expect_err("cut off").class;
        assert!(matches!(class, BadClass::Header | BadClass::UnknownFormat), "{format:?}: {class:?}");
    }
}

#[test]
fn every_format_decodes_to_the_same_picture() {
    let ops = || vec![resize(40), center_crop(40)];
    let expected = one_view(ops(), &every_format()[1].1).expect("a good PNG");
    for (format, encoded) in every_format() {
        let pixels = one_view(ops(), &encoded).expect("a good image");
        let sum: f64 = pixels.iter().zip(&expected).map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
        let mean = sum / pixels.len() as f64;
        // WebP is lossless here; JPEG loses little; GIF has a palette.
        let limit = match format {
            Format::Png | Format::Webp => 0.0,
            Format::Jpeg => 3.0,
            Format::Gif => 8.0,
        };
        assert!(mean <= limit, "{format:?}: {mean}");
    }
}

/// Channels of the one pixel of a one-pixel image.
fn pixel(samples: &[u8], color: ExtendedColorType) -> Vec<u8> {
    one_view(vec![center_crop(1)], &png(samples, 1, 1, color)).expect("a good image")
}

#[test]
fn gray_alpha_and_sixteen_bits_become_rgb_by_the_stated_rules() {
    assert_eq!(pixel(&[90], ExtendedColorType::L8), [90, 90, 90]);
    assert_eq!(pixel(&[90, 10], ExtendedColorType::La8), [90, 90, 90]);
    assert_eq!(pixel(&[1, 2, 3], ExtendedColorType::Rgb8), [1, 2, 3]);
    // Dropped, not blended: a transparent pixel keeps its colour.
    assert_eq!(pixel(&[1, 2, 3, 0], ExtendedColorType::Rgba8), [1, 2, 3]);
    // PNG is big endian, the encoder takes native samples.
    let native = |values: &[u16]| values.iter().flat_map(|value| value.to_ne_bytes()).collect::<Vec<u8>>();
    assert_eq!(pixel(&native(&[0x12ff]), ExtendedColorType::L16), [0x12; 3]);
    assert_eq!(pixel(&native(&[0x12ff, 0x3400, 0x5680]), ExtendedColorType::Rgb16), [0x12, 0x34, 0x56]);
    assert_eq!(pixel(&native(&[0x12ff, 0x3400, 0x5680, 7]), ExtendedColorType::Rgba16), [0x12, 0x34, 0x56]);
}

#[test]
fn palette_becomes_its_colours_and_transparent_entries_keep_theirs() {
    // A 1x1 PNG with a palette of two colours, the second one transparent and used, written by hand.
    let chunk = |kind: &[u8; 4], data: &[u8]| {
        let body: Vec<u8> = kind.iter().chain(data).copied().collect();
        [&(data.len() as u32).to_be_bytes()[..], &body, &crc32(&body).to_be_bytes()].concat()
    };
    let stored =
        [&[0x78, 0x01, 0x01, 0x02, 0x00, 0xfd, 0xff, 0x00, 0x80][..], &adler32(&[0x00, 0x80]).to_be_bytes()].concat();
    let encoded = [
        &b"\x89PNG\r\n\x1a\n"[..],
        &chunk(b"IHDR", &[0, 0, 0, 1, 0, 0, 0, 1, 1, 3, 0, 0, 0]),
        &chunk(b"PLTE", &[9, 8, 7, 60, 50, 40]),
        &chunk(b"tRNS", &[255, 0]),
        &chunk(b"IDAT", &stored),
        &chunk(b"IEND", &[]),
    ]
    .concat();
    assert_eq!(one_view(vec![center_crop(1)], &encoded).expect("a good PNG"), [60, 50, 40]);
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

fn adler32(bytes: &[u8]) -> u32 {
    let (a, b) = bytes.iter().fold((1_u32, 0_u32), |(a, b), &byte| {
        let a = (a + u32::from(byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    b << 16 | a
}

#[test]
fn cmyk_jpeg_is_ink_times_black_with_adobes_inversion() {
    // Stored inverted: little cyan, half magenta, no yellow, a little black.
    let samples = [230, 128, 255, 200].repeat(16 * 16);
    let source = turbojpeg::Image {
        pixels: samples.as_slice(),
        width: 16,
        pitch: 64,
        height: 16,
        format: turbojpeg::PixelFormat::CMYK,
    };
    let encoded = turbojpeg::compress(source, 95, turbojpeg::Subsamp::None).expect("encodes");
    assert_eq!(probe(&encoded).expect("a header").channels, 4);
    let pixels = one_view(vec![center_crop(1)], &encoded).expect("a good JPEG");
    for (pixel, ink) in pixels.iter().zip([230.0, 128.0, 255.0]) {
        assert!((f64::from(*pixel) - ink * 200.0 / 255.0).abs() <= 2.0, "{pixels:?}");
    }
}

#[test]
fn jpegs_of_every_subsampling_and_scale_look_like_their_picture() {
    let image = photo(200, 150);
    let expected =
        one_view(vec![resize(40), center_crop(40)], &png(&image, 200, 150, ExtendedColorType::Rgb8)).expect("PNG");
    use turbojpeg::Subsamp::{Gray, None, Sub1x2, Sub2x1, Sub2x2, Sub4x1};
    for subsampling in [None, Sub2x1, Sub2x2, Sub1x2, Sub4x1, Gray] {
        let source = turbojpeg::Image {
            pixels: image.as_raw().as_slice(),
            width: 200,
            pitch: 600,
            height: 150,
            format: turbojpeg::PixelFormat::RGB,
        };
        let encoded = turbojpeg::compress(source, 95, subsampling).expect("encodes");
        // 150 rows to 40 allow a decode at half the size.
        let pixels = one_view(vec![resize(40), center_crop(40)], &encoded).expect("a good JPEG");
        if subsampling == Gray {
            assert_eq!(pixels[..1600], pixels[1600..3200]);
            continue;
        }
        let sum: f64 = pixels.iter().zip(&expected).map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
        assert!(sum / 4800.0 < 2.5, "{subsampling:?}: {}", sum / 4800.0);
    }
}

#[test]
fn exif_orientation_turns_only_where_asked_for() {
    let image = photo(32, 16);
    let plain = jpeg(&image);
    // Orientation 6: rotate by 90 degrees clockwise. One IFD entry, little endian.
    let exif = b"Exif\0\0II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let length = (exif.len() as u16 + 2).to_be_bytes();
    let turned = [&plain[..2], &[0xff, 0xe1], &length, exif, &plain[2..]].concat();
    let settings = |exif_orientation| AugmentSettings {
        evaluation: vec![center_crop(16)],
        exif_orientation,
        ..Default::default()
    };
    let upright = one_view_of(&settings(false), &plain).expect("a good JPEG");
    assert_eq!(one_view_of(&settings(false), &turned).expect("a good JPEG"), upright);
    let rotated = one_view_of(&settings(true), &turned).expect("a good JPEG");
    // The centre of 32x16 is the centre of 16x32: the square itself turns. RGB and planes may differ by rounding.
    for channel in 0..3 {
        for y in 0..16 {
            for x in 0..16 {
                let (now, before) = (rotated[channel * 256 + y * 16 + x], upright[channel * 256 + (15 - x) * 16 + y]);
                assert!(now.abs_diff(before) <= 2, "channel {channel} at ({x}, {y}): {now} and {before}");
            }
        }
    }
}

#[test]
fn too_many_declared_pixels_are_refused_before_anything_is_allocated() {
    let mut huge = jpeg(&photo(16, 16));
    let frame = huge.windows(2).position(|window| window == [0xff, 0xc0]).expect("a baseline frame");
    huge[frame + 5..frame + 9].copy_from_slice(&[0xfa, 0xfa, 0xfa, 0xfa]);
    assert_eq!(probe(&huge).expect("a header").width, 64_250);
    let refused = one_view(vec![center_crop(8)], &huge).expect_err("four gigapixels");
    assert_eq!(refused.class, BadClass::TooManyPixels);
    assert!(refused.message.contains("64250x64250"), "{refused}");
}

#[test]
fn truncated_and_damaged_jpegs_are_decode_failures() {
    let encoded = jpeg(&photo(120, 90));
    for keep in [50, 75, 95] {
        let cut = &encoded[..encoded.len() * keep / 100];
        assert_eq!(one_view(vec![center_crop(90)], cut).expect_err("cut off").class, BadClass::Decode, "{keep} %");
    }
    let mut damaged = encoded.clone();
    let middle = encoded.len() / 2;
    damaged[middle..middle + 2].copy_from_slice(&[0xff, 0xd9]);
    assert_eq!(one_view(vec![center_crop(90)], &damaged).expect_err("ends early").class, BadClass::Decode);
}

/// All of a square image, and what CLIP's preprocessing, which is PIL's, makes of it.
fn cubic_crop_and_preprocess(encoded: &[u8], side: u32) -> (Vec<u8>, Vec<u8>) {
    let kernel = two_views(vec![crop_by(Interpolation::Bicubic, side, [1.0; 2], [1.0; 2])]);
    let ours = apply(&kernel, encoded, 1, ITEM).expect("a good image");
    let side = side as usize;
    let preprocess =
        Preprocess { resize: ResizeTo::SquarePixels(side), crop_side_pixels: side, ..Preprocess::default() };
    (ours[..3 * side * side].to_vec(), preprocess.levels(encoded, 1_000_000).expect("a good image"))
}

#[test]
fn bicubic_crops_are_pils_for_png_and_near_it_for_jpeg() {
    for (from, side) in [(60, 32), (60, 60), (40, 96)] {
        let image = photo(from, from);
        let (ours, pil) = cubic_crop_and_preprocess(&png(&image, from, from, ExtendedColorType::Rgb8), side);
        assert_eq!(ours, pil, "{from} to {side}");
        let triangle = two_views(vec![crop_by(Interpolation::Bilinear, side, [1.0; 2], [1.0; 2])]);
        let bilinear =
            apply(&triangle, &png(&image, from, from, ExtendedColorType::Rgb8), 1, ITEM).expect("a good PNG");
        assert_eq!(bilinear[..ours.len()] == ours[..], from == side, "{from} to {side}");
        // Chroma at half the size is enlarged by another filter than libjpeg's.
        let (ours, pil) = cubic_crop_and_preprocess(&jpeg(&image), side);
        let mean = ours.iter().zip(&pil).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / ours.len() as f64;
        assert!(mean < 2.0, "{from} to {side}: {mean}");
    }
}

#[test]
fn strips_that_a_cubic_filter_would_blow_up_are_refused() {
    let strip = png(&vec![9; 3 * 9_000], 1, 9_000, ExtendedColorType::Rgb8);
    let augment = |interpolation| AugmentSettings {
        image: vec![crop_by(interpolation, 224, [1.0; 2], [1.0 / 9_000.0, 1.0])],
        max_megapixels: 0.1,
        ..Default::default()
    };
    let views = |interpolation| {
        let kernel = TwoViews::new(&TwoViewsSettings { column: "image".into() }, &augment(interpolation));
        apply(&kernel.expect("a valid recipe"), &strip, 1, ITEM)
    };
    assert!(views(Interpolation::Bilinear).is_ok());
    assert_eq!(views(Interpolation::Bicubic).expect_err("2 megapixels").class, BadClass::TooManyPixels);
}

#[test]
fn rows_below_every_view_are_not_decoded_and_make_no_difference() {
    let whole = jpeg(&photo(64, 640));
    // A view of the upper rows only: the bytes of the last rows may be anything.
    let crop = |encoded: &[u8], seed: u64| {
        let kernel = two_views(vec![random_resized_crop(16)]);
        apply(&kernel, encoded, seed, ITEM)
    };
    let mut cut_short = 0;
    for seed in 0..40 {
        let mut noise = whole.clone();
        let start = noise.len() * 3 / 4;
        let end = noise.len() - 2;
        noise[start..end].fill(0);
        if let (Ok(clean), Ok(noisy)) = (crop(&whole, seed), crop(&noise, seed)) {
            cut_short += usize::from(clean == noisy);
        }
    }
    assert!(cut_short > 0, "no pair of crops left the last quarter alone");
}

#[test]
fn views_are_the_same_on_one_thread_and_on_four() {
    let kernel = Arc::new(two_views(everything(32)));
    let images: Arc<Vec<Vec<u8>>> = Arc::new((0..24).map(|n| jpeg(&photo(50 + 7 * n, 90 - 2 * n))).collect());
    let item = |row: usize| ItemKey { row: row as u64, ..ITEM };
    let alone: Vec<_> =
        images.iter().enumerate().map(|(row, image)| apply(&*kernel, image, 1, item(row)).expect("good")).collect();
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let (kernel, images) = (Arc::clone(&kernel), Arc::clone(&images));
            thread::spawn(move || {
                // Backwards, so that reused memory meets other images first.
                let rows = (0..images.len()).rev().filter(|row| row % 4 == thread);
                rows.map(|row| (row, apply(&*kernel, &images[row], 1, item(row)).expect("good"))).collect::<Vec<_>>()
            })
        })
        .collect();
    for (row, pixels) in threads.into_iter().flat_map(|thread| thread.join().expect("no panic")) {
        assert_eq!(pixels, alone[row], "row {row}");
    }
}

#[test]
fn views_differ_and_every_part_of_the_key_changes_them() {
    let kernel = two_views(everything(32));
    let image = jpeg(&photo(120, 90));
    let mut base = vec![0; kernel.shape().iter().product()];
    kernel.apply(Encoded::image(&image), 1, 0, ITEM, &mut base).expect("a good JPEG");
    let view = base.len() / 2;
    assert_ne!(base[..view], base[view..]);
    let others = [
        (2, 0, ITEM),
        (1, 1, ITEM),
        (1, 0, ItemKey { shard: 78, ..ITEM }),
        (1, 0, ItemKey { row: 4, ..ITEM }),
        (1, 0, ItemKey { occurrence: 1, ..ITEM }),
    ];
    for (seed, pass, item) in others {
        let mut other = vec![0; base.len()];
        kernel.apply(Encoded::image(&image), seed, pass, item, &mut other).expect("a good JPEG");
        assert_ne!(other, base, "{seed} {pass} {item:?}");
    }
    let mut again = vec![0; base.len()];
    kernel.apply(Encoded::image(&image), 1, 0, ITEM, &mut again).expect("a good JPEG");
    assert_eq!(again, base);
}

#[test]
fn evaluation_gives_the_same_pixels_whatever_the_key() {
    let augment = AugmentSettings { image: everything(32), ..Default::default() };
    let kernel = OneView::new("image", &augment).expect("the recipe derived from the training side");
    assert_eq!(kernel.shape(), [1, 3, 32, 32]);
    let image = jpeg(&photo(120, 90));
    let other = ItemKey { row: 9, ..ITEM };
    assert_eq!(apply(&kernel, &image, 1, ITEM), apply(&kernel, &image, 2, other));
}

#[test]
fn ops_after_a_pixel_op_may_still_be_geometric() {
    let kernel = two_views(vec![ImageOpSettings::ColorJitter(strength(0.5)), random_resized_crop(20), center_crop(12)]);
    let pixels = apply(&kernel, &jpeg(&photo(64, 48)), 1, ITEM).expect("a good JPEG");
    assert_ne!(pixels[..432], pixels[432..]);
}

/// What holds for every op, whatever it does: written once, run for each.
fn obeys_image_op_rules(settings: &ImageOpSettings) {
    let op = ImageOp::from(settings);
    let json = serde_json::to_string(settings).expect("plain data");
    assert!(json.starts_with(&format!("{{\"{}\"", op.name())), "{}: named otherwise in a pipeline: {json}", op.name());
    assert!(op.describe().starts_with(op.name()) && op.describe().contains(" v1"), "{}", op.describe());
    let key = |seed| DrawKey { seed, pass: 0, item: ITEM, view: 0, op: op.name(), op_occurrence: 0 }.draws();
    for (width, height) in [(1, 1), (1, 9), (17, 13), (64, 64), (130, 3)] {
        match &op {
            ImageOp::Geometry(op) => {
                for seed in 0..20 {
                    let region = op.region(width, height, &mut key(seed));
                    assert!(region.out_width > 0 && region.out_height > 0, "{region:?}");
                    assert!(region.is_crop() || region.lies_within(width, height), "{region:?} of {width}x{height}");
                    assert_eq!(region, op.region(width, height, &mut key(seed)));
                }
            }
            ImageOp::Pixel(op) => {
                let apply = |pixels: Vec<u8>, draws: &mut Draws, scratch: &mut Scratch| {
                    let mut image = PlanarImage::from_pixels(width, height, pixels).expect("its size");
                    op.apply(&mut image.planes(), draws, scratch);
                    image.pixels().to_vec()
                };
                let noise: Vec<u8> = (0..3 * width * height).map(|i| (i * 7919 % 251) as u8).collect();
                let mut used = Scratch::default();
                for seed in 0..20 {
                    let fresh = apply(noise.clone(), &mut key(seed), &mut Scratch::default());
                    assert_eq!(
                        fresh,
                        apply(noise.clone(), &mut key(seed), &mut used),
                        "scratch leaks into {}",
                        op.name()
                    );
                    // Black is black and grey is grey, up to inversion.
                    let black = apply(vec![0; noise.len()], &mut key(seed), &mut used);
                    assert!(black.iter().all(|&value| value == 0 || value == 255), "{}: {black:?}", op.name());
                    let gray = apply(vec![90; noise.len()], &mut key(seed), &mut used);
                    assert!(gray.iter().all(|&value| value == gray[0]), "{}: {gray:?}", op.name());
                }
            }
        }
    }
}

#[test]
fn every_op_obeys_the_rules() {
    let ops = everything(16);
    assert_eq!(ops.len(), 7);
    let cubic = crop_by(Interpolation::Bicubic, 16, [0.5, 1.0], [0.75, 1.5]);
    ops.iter().chain(&[resize(7), center_crop(5), cubic]).for_each(obeys_image_op_rules);
}

#[test]
fn recipe_reports_all_its_problems_at_once() {
    let jitter = ColorJitterSettings { probability: 1.5, hue: Some(0.7), ..strength(1.0) };
    let settings = AugmentSettings {
        image: vec![
            ImageOpSettings::RandomResizedCrop(RandomResizedCropSettings {
                side_pixels: 0,
                area: [0.5, 0.2],
                aspect: [0.75, 1.5],
                interpolation: Interpolation::Bilinear,
            }),
            ImageOpSettings::ColorJitter(jitter),
            ImageOpSettings::GaussianBlur(GaussianBlurSettings {
                probability: 0.5,
                sigma: [0.0, 2.0],
                kernel_pixels: Some(4),
            }),
            ImageOpSettings::RandomAffine(RandomAffineSettings { degrees: 200.0, scale: [0.0, 1.0], ..affine() }),
        ],
        evaluation: vec![random_resized_crop(32), resize(40)],
        max_megapixels: -1.0,
        ..Default::default()
    };
    let paths = |purpose| -> Vec<String> {
        let problems = ImageRecipe::resolve(&settings, purpose).expect_err("many problems");
        assert!(problems.iter().all(|p| !p.problem.is_empty() && !p.remedy.is_empty()), "{problems:?}");
        problems.into_iter().map(|problem| problem.path).collect()
    };
    assert_eq!(
        paths(RecipePurpose::Training),
        [
            "image[0].random_resized_crop.side_pixels",
            "image[0].random_resized_crop.area",
            "image[1].color_jitter.probability",
            "image[1].color_jitter.hue",
            "image[1].color_jitter.hue",
            "image[2].gaussian_blur.sigma",
            "image[2].gaussian_blur.kernel_pixels",
            "image[3].random_affine.degrees",
            "image[3].random_affine.scale",
            "max_megapixels",
        ]
    );
    assert_eq!(paths(RecipePurpose::Evaluation), ["evaluation[0].random_resized_crop", "evaluation", "max_megapixels"]);
}

#[test]
fn header_agrees_with_the_decoders() {
    for (_, encoded) in every_format() {
        let header = probe(&encoded).expect("a header");
        let reader = image::ImageReader::new(Cursor::new(&encoded)).with_guessed_format().expect("memory");
        assert_eq!(reader.into_dimensions().expect("a header"), (header.width, header.height));
    }
}
