//! Decoded pixels: against an independent script's, and against a full decode for every JPEG sampling.
use diptych::{
    augment::{
        BadSample,
        image::{decode_check::decode_check, header::probe},
        recipe::{AugmentSettings, CenterCropSettings, ImageOpSettings},
    },
    pair::{SampleKernel, one_view::OneView},
    seed::ItemKey,
};
use serde::Deserialize;
use turbojpeg::{Colorspace, Compressor, PixelFormat, Subsamp};

/// One entry of `tests/golden/decoding.json`.
#[derive(Deserialize)]
struct Case {
    name: String,
    encoded: String,
    exif_orientation: bool,
    width: usize,
    height: usize,
    /// `[height, width, 3]`
    pixels: String,
    tolerance: u8,
}

fn bytes(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal")).collect()
}

/// The central square of the shorter side, `[3, side, side]`, as training and evaluation see it.
fn central_square(encoded: &[u8], side: usize, exif_orientation: bool) -> Result<Vec<u8>, BadSample> {
    let evaluation = vec![ImageOpSettings::CenterCrop(CenterCropSettings { side_pixels: side as u32 })];
    let augment = AugmentSettings { evaluation, exif_orientation, ..AugmentSettings::default() };
    let kernel = OneView::new("image", &augment).expect("a valid recipe");
    let mut out = vec![0; 3 * side * side];
    kernel.apply(encoded, 0, 0, ItemKey { shard: 0, row: 0, occurrence: 0 }, &mut out).map(|()| out)
}

#[test]
fn pixels_are_those_of_the_stated_rules() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../golden/decoding.json")).expect("from decoding.py");
    for case in &cases {
        let (encoded, expected) = (bytes(&case.encoded), bytes(&case.pixels));
        let side = case.width.min(case.height);
        let (left, top) = ((case.width - side) / 2, (case.height - side) / 2);
        let found =
            central_square(&encoded, side, case.exif_orientation).unwrap_or_else(|bad| panic!("{}: {bad}", case.name));
        for channel in 0..3 {
            for at in 0..side * side {
                let (x, y) = (left + at % side, top + at / side);
                let (ours, theirs) = (found[channel * side * side + at], expected[(y * case.width + x) * 3 + channel]);
                let difference = ours.abs_diff(theirs);
                assert!(difference <= case.tolerance, "{} at ({x}, {y}): {ours} and {theirs}", case.name);
            }
        }
    }
    assert_eq!(cases.iter().filter(|case| case.exif_orientation).count(), 24);
    assert!(cases.len() > 75, "only {} cases", cases.len());
}

const WIDTH: usize = 61;
const HEIGHT: usize = 45;

/// Smooth, coloured, without symmetry; sides that no block divides.
fn samples(channels: usize) -> Vec<u8> {
    let value = |x: usize, y: usize, channel: usize| {
        let phase = (x * (channel + 1) + y * (5 - channel)) as f64 / 17.0;
        (127.0 + 90.0 * phase.sin()) as u8
    };
    let pixels = (0..HEIGHT).flat_map(|y| (0..WIDTH).map(move |x| (x, y)));
    pixels.flat_map(|(x, y)| (0..channels).map(move |channel| value(x, y, channel))).collect()
}

fn encode(samples: &[u8], format: PixelFormat, set: impl FnOnce(&mut Compressor) -> turbojpeg::Result<()>) -> Vec<u8> {
    let pitch = WIDTH * format.size();
    let image = turbojpeg::Image { pixels: samples, width: WIDTH, pitch, height: HEIGHT, format };
    let mut compressor = Compressor::new().expect("a compressor");
    compressor.set_quality(93).and_then(|()| set(&mut compressor)).expect("settings");
    compressor.compress_to_vec(image).expect("encodes")
}

/// Largest and mean difference between our pixels of the whole image and `expected`, `[height, width, 3]`.
fn differences(encoded: &[u8], expected: &[u8]) -> (u8, f64) {
    let ours =
        decode_check(encoded, 1 << 20, usize::MAX, |checked| checked.resized(WIDTH, HEIGHT)).expect("a good image");
    let plane = WIDTH * HEIGHT;
    let pairs = (0..plane).flat_map(|at| [0, 1, 2].map(|c| (ours.pixels()[c * plane + at], expected[at * 3 + c])));
    let differences: Vec<u8> = pairs.map(|(ours, theirs)| ours.abs_diff(theirs)).collect();
    let mean = differences.iter().map(|&d| f64::from(d)).sum::<f64>() / differences.len() as f64;
    (differences.into_iter().max().unwrap_or(0), mean)
}

/// Without subsampling both decode the same samples and round alike. With it, chroma is enlarged by our triangle filter and
/// by libjpeg's, which differ where colours change fast: at most 24 levels in one pixel, 2 on average.
#[test]
fn every_subsampling_in_every_mode_agrees_with_a_full_decode() {
    let pixels = samples(3);
    for subsampling in [
        Subsamp::None,
        Subsamp::Sub2x1,
        Subsamp::Sub2x2,
        Subsamp::Sub1x2,
        Subsamp::Sub4x1,
        Subsamp::Sub1x4,
        Subsamp::Gray,
    ] {
        for (progressive, arithmetic) in [(false, false), (true, false), (false, true), (true, true)] {
            let encoded = encode(&pixels, PixelFormat::RGB, |compressor| {
                compressor.set_subsamp(subsampling)?;
                compressor.set_progressive(progressive)?;
                compressor.set_arithmetic(arithmetic)
            });
            let name = format!("{subsampling:?}, progressive {progressive}, arithmetic {arithmetic}");
            assert_eq!(probe(&encoded).map(|header| header.pixels()), Ok((WIDTH * HEIGHT) as u64), "{name}");
            let expected = turbojpeg::decompress(&encoded, PixelFormat::RGB).expect("decodes");
            let (largest, mean) = differences(&encoded, &expected.pixels);
            let exact = matches!(subsampling, Subsamp::None | Subsamp::Gray);
            let (most, most_mean) = if exact { (1, 0.5) } else { (24, 2.0) };
            assert!(largest <= most && mean <= most_mean, "{name}: {largest} at most, {mean:.2} on average");
        }
    }
}

/// CMYK and YCCK, as libjpeg hands out their inks: ink times black, Adobe's inversion, rounded.
#[test]
fn inks_in_both_colour_spaces_become_ink_times_black() {
    let pixels = samples(4);
    for space in [Colorspace::CMYK, Colorspace::YCCK] {
        for progressive in [false, true] {
            let encoded = encode(&pixels, PixelFormat::CMYK, |compressor| {
                compressor.set_colorspace(space)?;
                compressor.set_subsamp(Subsamp::None)?;
                compressor.set_progressive(progressive)
            });
            assert_eq!(probe(&encoded).expect("a header").channels, 4);
            let inks = turbojpeg::decompress(&encoded, PixelFormat::CMYK).expect("decodes");
            let times = |ink: u8, black: u8| (f64::from(ink) * f64::from(black) / 255.0).round() as u8;
            let expected: Vec<u8> =
                inks.pixels.chunks_exact(4).flat_map(|p| [0, 1, 2].map(|channel| times(p[channel], p[3]))).collect();
            let (largest, _) = differences(&encoded, &expected);
            assert!(largest <= 1, "{space:?}, progressive {progressive}: {largest}");
        }
    }
}
