//! `diptych score` from files to a report.
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use diptych::augment::image::encode::encode_jpeg;
use diptych::augment::image::planes::PlanarImage;
use diptych::augment::image::preprocess::{Preprocess, ResizeTo};
use diptych::evaluate::clip::{Described, checkpoint};
use diptych::model::InitOptions;
use diptych::model::clip::{
    Activation, Clip, ClipSettings, Naming, TextSettings, VisionSettings, VisionTransformerSettings,
};
use serde_json::Value;

use crate::cli::run;

/// A small model that knows all of CLIP's tokens.
fn described() -> Described {
    let vision = VisionTransformerSettings {
        image_side_pixels: 16,
        patch_side_pixels: 8,
        width: 16,
        blocks: 1,
        heads: 2,
        perceptron_width: 32,
    };
    let text = TextSettings { width: 8, blocks: 1, heads: 2, perceptron_width: 16, ..TextSettings::default() };
    let settings = ClipSettings {
        embedding_width: 8,
        activation: Activation::QuickGelu,
        vision: VisionSettings::VisionTransformer(vision),
        text,
        logit_bias: false,
    };
    let resize = ResizeTo::ShorterSidePixels(16);
    Described { settings, preprocess: Preprocess { resize, crop_side_pixels: 16, ..Preprocess::default() } }
}

/// Weights in `folder`, and an image beside them.
pub(crate) fn prepare(folder: &Path, naming: Naming) -> (PathBuf, PathBuf) {
    let described = described();
    let init = InitOptions { seed: 3, compat_torch: false };
    let clip = Clip::new(&described.settings, init, &Device::flex()).expect("sizes");
    let weights = checkpoint::write(folder, naming, &clip, &described).expect("written");
    let image = folder.join("image.jpg");
    let pixels: Vec<u8> = (0..20 * 30 * 3).map(|at| (at * 7 % 251) as u8).collect();
    let pixels = PlanarImage::from_pixels(20, 30, pixels).expect("as many as its sides say");
    std::fs::write(&image, encode_jpeg(&pixels, 90).expect("encodes")).expect("written");
    (weights, image)
}

fn words<'a>(weights: &'a Path, image: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let (weights, image) = (weights.to_str().expect("UTF-8"), image.to_str().expect("UTF-8"));
    let first = ["score", "--weights", weights, "--image", image, image, "--text", "a diagram", "a dog", "a cat"];
    [&first[..], more].concat()
}

#[test]
fn scores_of_both_libraries_files_are_the_same_and_add_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut seen = Vec::new();
    for naming in [Naming::Transformers, Naming::OpenClip] {
        let (weights, image) = prepare(&folder.path().join(naming.name()), naming);
        let output = run(&words(&weights, &image, &["--json"]));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
        assert_eq!((&report["naming"], &report["activation"]), (&naming.name().into(), &"quick_gelu".into()));
        let images = report["images"].as_array().expect("images");
        assert_eq!(images.len(), 2);
        assert_eq!(images[0]["texts"], images[1]["texts"], "the same picture twice");
        let texts = images[0]["texts"].as_array().expect("texts");
        let number = |at: usize, key: &str| texts[at][key].as_f64().expect("a number");
        let sum: f64 = (0..3).map(|at| number(at, "probability")).sum();
        assert!((sum - 1.0).abs() < 1e-9, "{sum}");
        for at in 0..3 {
            assert!((number(at, "logit") - number(at, "cosine") / 0.07).abs() < 1e-4);
            assert!(number(at, "clip_score") >= 0.0 && number(at, "clip_score") <= 2.5);
        }
        assert_eq!(texts[1]["text"], "a dog");
        seen.push(images[0]["texts"].clone());
    }
    assert_eq!(seen[0], seen[1]);
}

#[test]
fn a_text_that_the_model_does_not_read_to_its_end_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let (weights, image) = prepare(folder.path(), Naming::Transformers);
    let long = "dog ".repeat(100);
    let output = run(&words(&weights, &image, &[&long, "--json"]));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("of 102 tokens"), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(report["cut_texts"], serde_json::json!([{"text": long, "tokens": 102}]));
}

#[test]
fn the_table_names_the_variant_and_starts_with_the_likeliest() {
    let folder = tempfile::tempdir().expect("a folder");
    let (weights, image) = prepare(folder.path(), Naming::Transformers);
    let output = run(&words(&weights, &image, &["--clip-score", "torchmetrics"]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2 * 5, "{text}");
    assert!(lines[1].contains("CLIPScore (torchmetrics)"), "{text}");
    let probability =
        |line: &str| line.split_whitespace().next().and_then(|word| word.parse::<f64>().ok()).expect("one");
    let probabilities: Vec<f64> = lines[2..5].iter().map(|line| probability(line)).collect();
    assert!(probabilities.is_sorted_by(|a, b| a >= b), "{text}");
}

#[test]
fn what_is_wrong_is_said_and_fails() {
    let folder = tempfile::tempdir().expect("a folder");
    let (weights, image) = prepare(folder.path(), Naming::Transformers);
    let fails = |words: &[&str], part: &str| {
        let output = run(words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(part), "{said}");
    };
    fails(&words(&weights, &image, &["--activation", "gelu"]), "silently worse");
    fails(&words(&weights, &image, &["--clip-score", "best"]), "write hessel, torchmetrics, cosine");
    fails(&words(&weights, &weights, &[]), "is no image that can be decoded");
    fails(&words(&image, &image, &[]), "is no safetensors file");
    std::fs::remove_file(folder.path().join("config.json")).expect("removed");
    fails(&words(&weights, &image, &[]), "has neither config.json nor open_clip_config.json");
}

#[test]
fn settings_of_images_are_read_where_transformers_5_writes_them_and_are_missed_where_nobody_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let (weights, image) = prepare(folder.path(), Naming::Transformers);
    let scores = |warnings: usize| {
        let output = run(&words(&weights, &image, &["--json"]));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        assert_eq!(said.matches("warning: ").count(), warnings, "{said}");
        let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
        (report["images"].clone(), said)
    };
    let (alone, nested) = ("preprocessor_config.json", "processor_config.json");
    let path = folder.path().join(alone);
    let mut images: Value = serde_json::from_slice(&std::fs::read(&path).expect("written before")).expect("JSON");
    images["image_mean"] = serde_json::json!([0.1, 0.2, 0.9]);
    std::fs::write(&path, images.to_string()).expect("written");
    let (before, _) = scores(0);
    std::fs::remove_file(&path).expect("removed");
    let (assumed, said) = scores(1);
    assert!(said.contains(alone) && said.contains(nested) && said.contains("are assumed"), "{said}");
    assert_ne!(assumed, before);
    let processor = serde_json::json!({ "image_processor": images, "processor_class": "CLIPProcessor" });
    std::fs::write(folder.path().join(nested), processor.to_string()).expect("written");
    assert_eq!(scores(0).0, before);
}

#[test]
fn damage_is_called_damage_and_settings_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let (weights, image) = prepare(folder.path(), Naming::Transformers);
    let fails = |part: &str| {
        let output = run(&words(&weights, &image, &["--json"]));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(part), "{said}");
    };
    let with = |name: &str, change: fn(&mut Value), part: &str| {
        let path = folder.path().join(name);
        let before = std::fs::read_to_string(&path).expect("written before");
        let mut value: Value = serde_json::from_str(&before).expect("JSON");
        change(&mut value);
        std::fs::write(&path, value.to_string()).expect("written");
        fails(part);
        std::fs::write(&path, before).expect("written");
    };
    let preprocessor = "preprocessor_config.json";
    with(preprocessor, |value| value["size"]["shortest_edge"] = 8.into(), "resized to 8 pixels and cropped to 16");
    with(preprocessor, |value| value["size"]["shortest_edge"] = (u64::MAX / 2).into(), "and 16384");
    with(preprocessor, |value| value["image_std"][1] = 0.into(), "normalises no image");
    let multiple = "vision.image_side_pixels: 16 is no multiple of vision.patch_side_pixels, 5";
    with("config.json", |value| value["vision_config"]["patch_size"] = 5.into(), multiple);
    let mut bytes = std::fs::read(&weights).expect("written before");
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"));
    // All of the numbers, as NaN.
    bytes[8 + header as usize..].fill(0xff);
    std::fs::write(&weights, bytes).expect("written");
    fails("not finite");
}
