//! CLIP under the trainer: what SimCLR's and CPC's runs are held to, on coloured squares with words.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{DType, Device, Int, Tensor, TensorCreationOptions, TensorData};
use diptych::Result;
use diptych::batch::{Batch, Content, ImageTexts, PairCaptions};
use diptych::method::clip::Settings;
use diptych::method::{CLIP, Method as _, MethodOutput};
use diptych::model::InitOptions;
use diptych::seed;
use diptych::train::metrics::MetricsLine;
use diptych::train::report::write_report;
use diptych::train::{
    AdamWSettings, Compat, OptimizerSettings, TrainPlan, TrainReport, TrainSettings, parameters, state,
};

use super::training::{self, assert_resumes_bit_for_bit, assert_same_bits_on_any_threads, lines, saved};

const ROWS: usize = 16;
const SIDE: usize = 16;
const START: u32 = 18;
const END: u32 = 19;

/// A square of one of six colours in one of four corners, with noise; its text names both: `[start, colour, corner, end]`.
fn pairs(batch: u64) -> (Vec<u8>, Vec<Vec<u32>>) {
    let (mut pixels, mut tokens) = (Vec::with_capacity(ROWS * 3 * SIDE * SIDE), Vec::with_capacity(ROWS));
    for row in 0..ROWS {
        let mut draws = seed::draws(9, "squares", &[batch, row as u64]);
        let (colour, corner) = (draws.below(6) as usize + 1, draws.below(4) as usize);
        for channel in 0..3 {
            for y in 0..SIDE {
                for x in 0..SIDE {
                    let inside = usize::from(x >= SIDE / 2) + 2 * usize::from(y >= SIDE / 2) == corner;
                    let level = if inside && colour >> channel & 1 == 1 { 200 } else { 40 };
                    pixels.push(level + draws.below(30) as u8);
                }
            }
        }
        tokens.push(vec![START, colour as u32, 7 + corner as u32, END]);
    }
    (pixels, tokens)
}

fn batch(number: u64, device: &Device) -> Batch {
    let (pixels, tokens) = pairs(number);
    let options = TensorCreationOptions::new(device.clone()).with_dtype(DType::U8);
    let pixels = Tensor::<5, Int>::from_data(TensorData::new(pixels, [ROWS, 1, 3, SIDE, SIDE]), options);
    let captions = PairCaptions::of_distinct_images(tokens);
    training::batch(number, ROWS, Content::ImageTexts(ImageTexts { pixels, captions }), vec![])
}

fn settings(more: &str) -> Settings {
    toml::from_str(&format!(
        "embedding_width = 16\nactivation = \"gelu\"\n{more}\n\
         text = {{ context_tokens = 4, vocabulary_tokens = 20, width = 16, blocks = 1, heads = 2, perceptron_width = 32 }}\n\
         [vision.vision_transformer]\nimage_side_pixels = {SIDE}\npatch_side_pixels = 4\nwidth = 16\nblocks = 2\n\
         heads = 2\nperceptron_width = 32\n"
    ))
    .expect("settings")
}

fn method(settings: &Settings, device: &Device) -> CLIP {
    CLIP::new(settings, InitOptions { seed: 1, compat_torch: false }, device).expect("plain settings")
}

fn plan(run: &Path, max_steps: u64) -> TrainPlan {
    let adamw = AdamWSettings { rate: 3e-3, betas: [0.9, 0.98], epsilon: 1e-6, weight_decay: 0.1 };
    training::plan(run, max_steps, adamw, 1.0, (ROWS, "image_text", "clip"))
}

fn from(method: CLIP, plan: &TrainPlan) -> Result<TrainReport<CLIP>> {
    training::go(method, plan, batch)
}

fn go(settings: &Settings, plan: &TrainPlan) -> Result<TrainReport<CLIP>> {
    from(method(settings, &plan.device), plan)
}

#[test]
fn resumed_clip_run_equals_uninterrupted_run_bit_for_bit() {
    // Dropped patches depend on the step; both losses; duplicates of three kinds.
    for more in [
        "patch_dropout = 0.5\nduplicates = \"keep\"",
        "loss = \"sigmoid\"\nduplicates = \"mask\"",
        "duplicates = \"soft_targets\"\nloss_tile_rows = 5",
    ] {
        assert_resumes_bit_for_bit(|device| method(&settings(more), device), plan, batch, more);
    }
}

#[test]
fn clip_training_has_the_same_bits_with_one_thread_and_with_three() {
    let settings = settings("patch_dropout = 0.25");
    assert_same_bits_on_any_threads(|device| method(&settings, device), plan, batch);
}

#[test]
fn chunks_of_a_batch_train_as_the_batch_does() {
    let settings = settings("patch_dropout = 0.5\nduplicates = \"mask\"");
    let in_chunks = |chunks: usize| {
        let run = tempfile::tempdir().expect("a folder");
        let plan = plan(run.path(), 5);
        let plan = TrainPlan { settings: TrainSettings { chunks, ..plan.settings.clone() }, ..plan };
        go(&settings, &plan).expect("trains");
        lines(run.path()).iter().map(|line| line.loss).collect::<Vec<f64>>()
    };
    let whole = in_chunks(1);
    for (whole, part) in whole.iter().zip(in_chunks(4)) {
        assert!((whole - part).abs() < 1e-4 * whole, "{whole} {part}");
    }
}

fn mean(lines: &[MetricsLine], of: impl Fn(&MetricsLine) -> f64) -> f64 {
    lines.iter().map(of).sum::<f64>() / lines.len() as f64
}

#[test]
fn training_finds_texts_of_images_and_images_of_texts_by_either_loss() {
    for (more, bias) in [("duplicates = \"mask\"", false), ("loss = \"sigmoid\"\nduplicates = \"soft_targets\"", true)]
    {
        let run = tempfile::tempdir().expect("a folder");
        let settings = settings(more);
        let plan = plan(run.path(), 200);
        let trained = go(&settings, &plan).expect("trains").method;
        let metrics = lines(run.path());
        let (first, last) = (&metrics[..10], &metrics[190..]);
        let [before, after] = [first, last].map(|lines| mean(lines, |line| line.loss));
        assert!(after < 0.7 * before, "{more}: {before} {after}");
        for name in ["image_to_text_accuracy", "text_to_image_accuracy"] {
            // Half of the pairs of a batch of 16 have a text that stands there twice or more, which halves what they count:
            // .75 is the most there is, and a sixteenth is chance.
            let accuracy = mean(last, |line| line.method[name][0]);
            assert!(accuracy > 0.35, "{more}: {name} {accuracy}");
        }
        assert!(mean(last, |line| line.method["duplicate_captions"][0]) > 1.0);
        assert!(metrics.iter().all(|line| line.method["duplicate_images"] == [0.0]));
        assert_eq!(metrics[0].method.contains_key("logit_bias"), bias);
        assert!((metrics[0].method["logit_scale"][0] - if bias { 10.0 } else { 1.0 / 0.07 }).abs() < 1e-3);

        // The probe's features of pairs and of images alone are the same.
        let device = Device::flex();
        let features = trained.features(batch(999, &device).content.input()).expect("images");
        assert_eq!(features.dims(), [ROWS, 16]);
        let page = std::fs::read_to_string(write_report(run.path()).expect("a report")).expect("a page");
        assert!(page.contains("Accuracy within the batch") && page.contains("Scale of the logits"));
    }
}

#[test]
fn the_scale_never_passes_a_hundred() {
    let run = tempfile::tempdir().expect("a folder");
    let device = Device::flex().autodiff();
    let start = parameters::map(method(&settings(""), &device), |parameter, values| {
        if parameter.path == "towers.logit_scale" { values * 0.0 + 4.6 } else { values }
    });
    let mut plan = plan(run.path(), 30);
    plan.settings.optimizer = OptimizerSettings::AdamW(AdamWSettings { rate: 0.03, ..AdamWSettings::default() });
    from(start, &plan).expect("trains");
    let scales: Vec<f64> = lines(run.path()).iter().map(|line| line.method["logit_scale"][0]).collect();
    assert!(scales.iter().all(|scale| *scale < 100.001), "{scales:?}");
    assert!(scales.iter().any(|scale| (scale - 99.484).abs() > 0.1), "the scale is trained: {scales:?}");
    let scale = saved(run.path()).weights["towers.logit_scale"].clone();
    assert!(scale.as_slice::<f32>().expect("f32")[0] <= 4.605_171);
}

#[test]
fn weight_decay_touches_matrices_alone() {
    let device = Device::flex().autodiff();
    let steps = |weight_decay: f64, compat: Option<Compat>| {
        let run = tempfile::tempdir().expect("a folder");
        let mut plan = plan(run.path(), 1);
        (plan.settings.ema_decay, plan.settings.compat) = (None, compat);
        plan.settings.optimizer =
            OptimizerSettings::AdamW(AdamWSettings { weight_decay, rate: 0.01, ..AdamWSettings::default() });
        from(method(&settings("loss = \"sigmoid\""), &device), &plan).expect("trains");
        saved(run.path()).weights
    };
    let (with, without) = (steps(0.5, None), steps(0.0, None));
    for (name, data) in &with {
        let decays = data.shape().as_slice().len() >= 2;
        assert_eq!(*data != without[name], decays, "{name}");
    }
    // open_clip's groups are ours.
    assert_eq!(steps(0.5, Some(Compat::Torch)), with);
    for name in ["towers.logit_scale", "towers.logit_bias", "towers.ln_final.weight", "towers.visual.class_embedding"] {
        assert!(with.contains_key(name), "{name}");
    }
}

#[test]
fn checkpoints_hold_open_clips_names() {
    let run = tempfile::tempdir().expect("a folder");
    go(&settings(""), &plan(run.path(), 1)).expect("trains");
    let weights = saved(run.path()).weights;
    let shapes: BTreeMap<&str, Vec<usize>> = weights
        .iter()
        .filter_map(|(name, data)| Some((name.strip_prefix("towers.")?, data.shape().as_slice().to_vec())))
        .collect();
    assert_eq!(shapes.len(), weights.len());
    for (name, shape) in [
        ("visual.conv1.weight", vec![16, 3, 4, 4]),
        ("visual.positional_embedding", vec![17, 16]),
        ("visual.transformer.resblocks.1.attn.in_proj_weight", vec![48, 16]),
        ("visual.proj", vec![16, 16]),
        ("transformer.resblocks.0.mlp.c_fc.weight", vec![32, 16]),
        ("token_embedding.weight", vec![20, 16]),
        ("positional_embedding", vec![4, 16]),
        ("text_projection", vec![16, 16]),
        ("logit_scale", vec![1]),
    ] {
        assert_eq!(shapes[name], shape, "{name}");
    }
    assert!(state::collect(&method(&settings(""), &Device::flex())).keys().eq(weights.keys()));
}

#[test]
fn a_loss_that_is_not_tiled_equals_one_that_is() {
    let device = Device::flex().autodiff();
    let output = |more: &str| -> MethodOutput {
        let content = batch(3, &device).content;
        method(&settings(more), &device).train_loss(content.input(), 0).expect("pairs")
    };
    let read = |output: &MethodOutput| output.loss.clone().inner().into_data().try_into_vec::<f32>().expect("f32")[0];
    for policy in ["keep", "mask", "soft_targets"] {
        for loss in ["softmax", "sigmoid"] {
            let more = format!("duplicates = \"{policy}\"\nloss = \"{loss}\"");
            let (whole, tiled) = (output(&more), output(&format!("{more}\nloss_tile_rows = 3")));
            assert!((read(&whole) - read(&tiled)).abs() < 1e-5 * read(&whole), "{more}");
        }
    }
}

/// Weights, pixels and tokens of `tests/golden/clip.py`, under the method and its optimizer instead of by hand.
#[test]
fn ten_sgd_steps_of_the_method_have_pytorchs_losses() {
    use diptych::batch::{Input, Pairs};
    use diptych::evaluate::clip::transformers;
    use diptych::model::clip::Naming;
    use diptych::train::optimizer::Optimizer;
    use diptych::train::safetensors::from_owned_bytes;
    use diptych::train::{SgdSettings, parameters::gradients};

    use crate::golden::{start, uniform};

    const WORDS: [usize; 3] = [4, 7, 1];
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/clip.safetensors");
    let (golden, notes) = from_owned_bytes(path, std::fs::read(path).expect("there")).expect("safetensors");
    let case = serde_json::from_str::<serde_json::Value>(&notes["cases"]).expect("JSON")["transformers"].clone();
    let entries = case["entries"].as_object().expect("entries").iter().map(|(name, shape)| {
        let shape: Vec<usize> = serde_json::from_value(shape.clone()).expect("a shape");
        if name == "logit_scale" {
            return (name.clone(), TensorData::new(vec![2.0_f32], [1]));
        }
        (name.clone(), TensorData::new(start(name, &shape), shape))
    });
    let (entries, _) = Naming::Transformers.to_open_clip(entries.collect());
    let entries = entries.into_iter().map(|(name, data)| (format!("towers.{name}"), data)).collect();

    let device = Device::flex().autodiff();
    let towers = transformers::described(("config", &case["config"].to_string()), None).expect("a CLIP").settings;
    let settings = Settings {
        embedding_width: towers.embedding_width,
        activation: towers.activation,
        vision: towers.vision.clone(),
        text: towers.text,
        pixel_mean: [0.5; 3],
        pixel_deviation: [0.25; 3],
        ..Settings::default()
    };
    let mut method = state::restore(method(&settings, &device), &entries).expect("every entry has its place");
    let side = towers.vision.image_side_pixels();
    // The script's pixels are what is left once mean and deviation are taken off.
    let pixels: Vec<f32> =
        uniform("pixels", 3 * 3 * side * side).iter().map(|u| ((4.0 * u - 2.0) * 0.25 + 0.5) as f32).collect();
    let tokens: Vec<Vec<u32>> = WORDS
        .iter()
        .enumerate()
        .map(|(row, words)| {
            let inner = uniform(&format!("tokens.{row}"), *words).into_iter().map(|u| (u * 48.0) as u32);
            [48].into_iter().chain(inner).chain([49]).collect()
        })
        .collect();
    let sgd = OptimizerSettings::Sgd(SgdSettings { rate: 0.05, momentum: 0.0, ..SgdSettings::default() });
    let mut optimizer = Optimizer::new(&sgd, None, &method, &device);
    let losses = golden["transformers.losses"].as_slice::<f32>().expect("f32").to_vec();
    assert_eq!(losses.len(), 10);
    for (step, expected) in losses.into_iter().enumerate() {
        let images = Tensor::<4>::from_data(TensorData::new(pixels.clone(), [3, 3, side, side]), &device);
        let pairs = Pairs { images, captions: PairCaptions::of_distinct_images(tokens.clone()) };
        let output = method.train_loss(Input::Pairs(pairs), step as u64).expect("pairs");
        let gradients = gradients(&method, output.loss.backward());
        let found = output.loss.inner().into_data().try_into_vec::<f32>().expect("f32")[0];
        assert!((found - expected).abs() < 1e-4, "loss {found} at step {step}, PyTorch {expected}");
        method = optimizer.step(method, gradients, 0.05, step as u64 + 1);
        method.after_step();
    }
}
