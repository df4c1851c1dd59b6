//! Decoded pixels: against an independent script's, and against a full decode for every JPEG sampling.
use diptych::{
    augment::{
        BadSample,
        image::{decode_check::decode_check, header::probe},
        recipe::{AugmentSettings, CenterCropSettings, ImageOpSettings},
    },
    pair::{Encoded, SampleKernel, one_view::OneView},
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
    kernel.apply(Encoded::image(encoded), 0, 0, ItemKey { shard: 0, row: 0, occurrence: 0 }, &mut out).map(|()| out)
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

/// `[height, width, 3]` from the file's own planes, chroma enlarged `across` and `down` times by a triangle filter, in f64.
fn by_triangle(encoded: &[u8], across: usize, down: usize) -> Vec<u8> {
    let image = turbojpeg::decompress_to_yuv(encoded).expect("decodes");
    // libjpeg-turbo's planes hold whole units of subsampling; their rows are aligned.
    let stored = |side: usize, unit: usize| side.next_multiple_of(unit);
    let luma_row = stored(WIDTH, across).next_multiple_of(image.align);
    let (chroma_row, chroma_rows) =
        ((stored(WIDTH, across) / across).next_multiple_of(image.align), stored(HEIGHT, down) / down);
    let (luma, chroma) = image.pixels.split_at(luma_row * stored(HEIGHT, down));
    let (width, height) = (WIDTH.div_ceil(across), HEIGHT.div_ceil(down));
    let weights = |at: usize, factor: usize, length: usize| {
        let place = ((at as f64 + 0.5) / factor as f64 - 0.5).clamp(0.0, (length - 1) as f64);
        (place as usize, (place as usize + 1).min(length - 1), place.fract())
    };
    let enlarged = |plane: usize, x: usize, y: usize| {
        let samples = &chroma[plane * chroma_row * chroma_rows..];
        let ((left, right, to_right), (top, bottom, to_bottom)) = (weights(x, across, width), weights(y, down, height));
        let row = |y: usize| {
            let at = |x: usize| f64::from(samples[y * chroma_row + x]);
            at(left) * (1.0 - to_right) + at(right) * to_right
        };
        row(top) * (1.0 - to_bottom) + row(bottom) * to_bottom - 128.0
    };
    let pixel = |(x, y): (usize, usize)| {
        let light = f64::from(luma[y * luma_row + x]);
        let (blue, red) = (enlarged(0, x, y), enlarged(1, x, y));
        let rgb = [light + 1.402 * red, light - 0.344_136 * blue - 0.714_136 * red, light + 1.772 * blue];
        rgb.map(|value| value.round().clamp(0.0, 255.0) as u8)
    };
    (0..HEIGHT).flat_map(|y| (0..WIDTH).map(move |x| (x, y))).flat_map(pixel).collect()
}

/// Without subsampling we and libjpeg decode the same samples and round alike. With it, chroma is enlarged by our triangle
/// filter, by libjpeg's own ("fancy", 4:2:2 and 4:2:0) or by repetition (4:1:1 and the like). libjpeg's filters differ from ours
/// where colours change fast, by at most 24 levels in one pixel and 2 on average; where it repeats, the triangle is computed
/// from the file's planes. Ours is never further from the picture than a full decode.
#[test]
fn every_subsampling_in_every_mode_agrees_with_a_full_decode() {
    let pixels = samples(3);
    for (subsampling, repeats) in [
        (Subsamp::None, None),
        (Subsamp::Sub2x1, None),
        (Subsamp::Sub2x2, None),
        (Subsamp::Sub1x2, Some((1, 2))),
        (Subsamp::Sub4x1, Some((4, 1))),
        (Subsamp::Sub1x4, Some((1, 4))),
        (Subsamp::Gray, None),
    ] {
        for (progressive, arithmetic) in [(false, false), (true, false), (false, true), (true, true)] {
            let encoded = encode(&pixels, PixelFormat::RGB, |compressor| {
                compressor.set_subsamp(subsampling)?;
                compressor.set_progressive(progressive)?;
                compressor.set_arithmetic(arithmetic)
            });
            let name = format!("{subsampling:?}, progressive {progressive}, arithmetic {arithmetic}");
            assert_eq!(probe(&encoded).map(|header| header.pixels()), Ok((WIDTH * HEIGHT) as u64), "{name}");
            let full = turbojpeg::decompress(&encoded, PixelFormat::RGB).expect("decodes").pixels;
            let expected = repeats.map_or_else(|| full.clone(), |(across, down)| by_triangle(&encoded, across, down));
            let (largest, mean) = differences(&encoded, &expected);
            let (most, most_mean) = match subsampling {
                Subsamp::None | Subsamp::Gray => (1, 0.5),
                Subsamp::Sub2x1 | Subsamp::Sub2x2 => (24, 2.0),
                _ => (3, 0.7),
            };
            assert!(largest <= most && mean <= most_mean, "{name}: {largest} at most, {mean:.2} on average");
            if subsampling != Subsamp::Gray {
                let off = full.iter().zip(&pixels).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>();
                let (_, ours) = differences(&encoded, &pixels);
                let theirs = off / pixels.len() as f64;
                assert!(ours <= theirs + 0.3, "{name}: {ours:.2} from the picture, a full decode {theirs:.2}");
            }
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
