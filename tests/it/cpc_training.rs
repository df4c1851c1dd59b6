//! CPC under the trainer: what SimCLR's runs are held to, on windows whose labels are known.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use burn::tensor::Device;
use diptych::Result;
use diptych::batch::{Batch, Content, SequencedWindows, SeriesBatch};
use diptych::evaluate::EvaluateSettings;
use diptych::evaluate::extract::{Represent, encoded, extract, raw};
use diptych::evaluate::protocol::{Evaluation, Role};
use diptych::method::cpc::Settings;
use diptych::method::{CPC, Method as _};
use diptych::model::InitOptions;
use diptych::seed;
use diptych::train::metrics::MetricsLine;
use diptych::train::report::write_report;
use diptych::train::{AdamWSettings, BatchSource, TrainPlan, TrainReport, state, train};

use super::training::{
    self, Nobody, Numbered, PER_EPOCH, assert_resumes_bit_for_bit, assert_same_bits_on_any_threads, lines, saved,
};

const ROWS: usize = 24;
const CHANNELS: usize = 2;
const STEPS: usize = 64;

/// Sines of one of four frequencies, the row's label, in a random phase, with noise; a window's speaker is its loudness.
fn series(batch: u64) -> (SeriesBatch, Vec<usize>) {
    let mut windows = Vec::with_capacity(ROWS * CHANNELS * STEPS);
    let mut labels = Vec::with_capacity(ROWS);
    for row in 0..ROWS {
        let mut draws = seed::draws(9, "sines", &[batch, row as u64]);
        let label = draws.below(4) as usize;
        let phase = draws.between(0.0, std::f64::consts::TAU);
        for channel in 0..CHANNELS {
            for step in 0..STEPS {
                let wave = (0.25 * (label + 1) as f64 * step as f64 + phase + channel as f64).sin();
                windows.push((wave * (1.0 + (row % 3) as f64) + 0.3 * draws.normal()) as f32);
            }
        }
        labels.push(label);
    }
    let groups = Some((0..ROWS as u32).map(|row| row % 3).collect());
    // The last two rows are windows of one series.
    let sequences = (0..ROWS as u32).map(|row| row.min(ROWS as u32 - 2)).collect();
    (SeriesBatch { windows, rows: ROWS, channels: CHANNELS, steps: STEPS, sequences, groups }, labels)
}

fn batch(number: u64, device: &Device) -> Batch {
    let (series, labels) = series(number);
    let content = Content::Windows(SequencedWindows::of(series, device).expect("its parts agree"));
    training::batch(number, ROWS, content, vec![labels.iter().map(|label| Some(label.to_string())).collect()])
}

fn settings(negatives: &str, normalization: &str) -> Settings {
    toml::from_str(&format!(
        "channels = {CHANNELS}\npredicted_frames = 3\nnegatives = {negatives}\ncontext.gru.width_channels = 12\n\
         [encoder.series]\nnormalization = \"{normalization}\"\nlayers = [\n\
         {{ width_channels = 12, kernel_steps = 4, stride_steps = 4 }},\n\
         {{ width_channels = 12, kernel_steps = 2, stride_steps = 2 }},\n]\n"
    ))
    .expect("settings")
}

fn method(settings: &Settings, device: &Device) -> CPC {
    CPC::new(settings, InitOptions { seed: 1, compat_torch: false }, device).expect("plain settings")
}

fn plan(run: &Path, max_steps: u64) -> TrainPlan {
    let adamw = AdamWSettings { rate: 3e-3, ..AdamWSettings::default() };
    training::plan(run, max_steps, adamw, 5.0, (ROWS, "context_future", "cpc"))
}

fn go(settings: &Settings, plan: &TrainPlan) -> Result<TrainReport<CPC>> {
    training::go(method(settings, &plan.device), plan, batch)
}

#[test]
fn resumed_cpc_run_equals_uninterrupted_run_bit_for_bit() {
    // Drawn negatives depend on the step, BatchNorm has buffers, W_k was scaled by the first batch alone.
    for settings in [settings("{ sampled = 16 }", "batch"), settings("\"same_group\"", "channel")] {
        assert_resumes_bit_for_bit(|device| method(&settings, device), plan, batch, "");
    }
}

#[test]
fn cpc_training_has_the_same_bits_with_one_thread_and_with_three() {
    let settings = settings("\"batch_all_time\"", "channel");
    assert_same_bits_on_any_threads(|device| method(&settings, device), plan, batch);
}

#[test]
fn the_first_batch_sets_the_scale_of_scores_whatever_that_of_the_series() {
    struct Loud(Numbered, f64);
    impl BatchSource for Loud {
        fn next(&mut self) -> Result<Option<Batch>> {
            let Some(number) = self.0.numbers.next() else { return Ok(None) };
            let (mut series, _) = series(number);
            series.windows.iter_mut().for_each(|x| *x *= self.1 as f32);
            let content = Content::Windows(SequencedWindows::of(series, &self.0.device)?);
            Ok(Some(Batch { content, ..batch(number, &self.0.device) }))
        }
    }
    // Without normalisation the encodings are as loud as the series.
    let settings = settings("\"batch_same_time\"", "none");
    for loudness in [1e-3, 1.0, 1e3] {
        let run = tempfile::tempdir().expect("a folder");
        let plan = plan(run.path(), 1);
        let numbered = || Numbered { numbers: 0..PER_EPOCH, device: plan.device.clone(), make: batch };
        let source = |_: u64, _: u64| Ok(Loud(numbered(), loudness));
        train(method(&settings, &plan.device), source, &plan, &mut Nobody).expect("trains");
        let first = &lines(run.path())[0];
        let chance = first.method["chance_losses"][0];
        assert!((first.loss - chance).abs() < 1.0, "x {loudness}: {} beside {chance}", first.loss);
    }
}

#[test]
fn checkpoints_hold_pytorchs_names_and_shapes() {
    let run = tempfile::tempdir().expect("a folder");
    go(&settings("\"batch_same_time\"", "batch"), &plan(run.path(), 1)).expect("trains");
    let weights = saved(run.path()).weights;
    let shapes: BTreeMap<&str, Vec<usize>> =
        weights.iter().map(|(name, data)| (name.as_str(), data.shape().as_slice().to_vec())).collect();
    let mut expected = BTreeMap::from([
        ("g_ar.bias_hh_l0", vec![36]),
        ("g_ar.bias_ih_l0", vec![36]),
        ("g_ar.weight_hh_l0", vec![36, 12]),
        ("g_ar.weight_ih_l0", vec![36, 12]),
        ("g_enc.layers.0.conv.weight", vec![12, CHANNELS, 4]),
        ("g_enc.layers.1.conv.weight", vec![12, 12, 2]),
        ("predictor.steps.0.weight", vec![12, 12]),
        ("predictor.steps.1.weight", vec![12, 12]),
        ("predictor.steps.2.weight", vec![12, 12]),
    ]);
    for layer in ["g_enc.layers.0", "g_enc.layers.1"] {
        for name in ["weight", "bias", "running_mean", "running_var"] {
            let name: &'static str = format!("{layer}.batch_norm.{name}").leak();
            expected.insert(name, vec![12]);
        }
    }
    assert_eq!(shapes, expected);
}

#[test]
fn training_tells_the_future_and_its_contexts_name_the_frequency() {
    let run = tempfile::tempdir().expect("a folder");
    let settings = settings("\"batch_same_time\"", "channel");
    let plan = plan(run.path(), 150);
    let trained = go(&settings, &plan).expect("trains").method;
    let metrics = lines(run.path());
    let mean =
        |lines: &[MetricsLine], of: fn(&MetricsLine) -> f64| lines.iter().map(of).sum::<f64>() / lines.len() as f64;
    let (first, last) = (&metrics[..10], &metrics[140..]);
    assert!(mean(last, |line| line.loss) < 0.75 * mean(first, |line| line.loss));
    for line in &metrics {
        // Two windows of the batch are of one series: 22 negatives of 23 others there, and no bound.
        let chance = line.method["chance_accuracies"][0];
        assert!((chance - (22.0 / 24.0 + 2.0 / 23.0) / 24.0).abs() < 1e-9, "{chance}");
        assert!(!line.method.contains_key("information_nats") && line.method["step_accuracies"].len() == 3);
    }
    let accuracy = mean(last, |line| line.method["step_accuracies"][0]);
    assert!(accuracy > 4.0 / 24.0, "accuracy {accuracy}");

    // The same evaluation as SimCLR's, on batches that training never saw.
    let untrained = method(&settings, &Device::flex());
    let all: [Represent<'_>; 3] = [&|batch| encoded(&trained, batch), &|batch| encoded(&untrained, batch), &raw];
    let features = |numbers: Range<u64>| {
        let mut source = Numbered { numbers, device: Device::flex(), make: batch };
        extract(|| source.next(), &all, "evaluate.bank_sql", &["label".to_owned()]).expect("features").features
    };
    let (bank, queries) = (features(5_000..5_020), features(6_000..6_010));
    assert_eq!(bank[0].width, trained.feature_width());
    assert_eq!(bank[2].width, CHANNELS * STEPS);
    let wanted: EvaluateSettings =
        toml::from_str("bank_sql = \"b\"\nquery_sql = \"q\"\nlabels_per_class = []").expect("settings");
    let mut evaluation = Evaluation::new(&wanted, trained.features_in_words(), 1).expect("settings");
    let roles = [(Role::Encoder, "encoder"), (Role::Untrained, "untrained"), (Role::Floor, "raw_series")];
    for (at, (role, name)) in roles.into_iter().enumerate() {
        evaluation.add(role, name, &bank[at], &queries[at]).expect("fits");
    }
    let scores = evaluation.scores().expect("scores");
    let probe = &scores.linear_probe["label"];
    assert!(probe.accuracy > 0.9, "{}", probe.accuracy);
    let page = std::fs::read_to_string(write_report(run.path()).expect("a report")).expect("a page");
    assert!(page.contains("Accuracy k steps ahead"));
}

#[test]
fn a_batch_of_images_is_refused_in_words() {
    let device = Device::flex();
    let mut cpc = method(&settings("\"batch_same_time\"", "channel"), &device);
    let pixels = burn::tensor::Tensor::<5, burn::tensor::Int>::zeros([4, 2, 3, 8, 8], &device);
    let error = cpc.train_loss(Content::Views(pixels).input(), 0).expect_err("images").to_string();
    assert!(error.contains("cpc") && error.contains("2 views"), "{error}");
    let before = state::collect(&cpc);
    assert!(before.contains_key("g_ar.weight_ih_l0"));
}
