//! CPC against the published numbers of its loss, against PyTorch, and on data whose information is known.
//!
//! PyTorch's numbers are written by `tests/golden/cpc.py`; weights and inputs follow from names on both sides.
#![expect(clippy::disallowed_methods, reason = "tests read single values as they go")]

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, TensorData};
use diptych::loss::{InfoNce, Negatives, Sequences};
use diptych::method::cpc::{Pooling, Settings};
use diptych::method::{CPC, Method as _};
use diptych::model::autoregressor::GruSettings;
use diptych::model::conv1d_encoder::{LayerSettings, Normalization, Padding, SeriesSettings, WaveformSettings};
use diptych::model::gru::Gru;
use diptych::model::{AutoregressorSettings, FrameEncoderSettings, InitOptions, Initializer};
use diptych::seed;
use diptych::train::{parameters, state};

use super::golden::{self, RATE, gap, start, uniform};

const INIT: InitOptions = InitOptions { seed: 1, compat_torch: false };

/// Uniform in [-1, 1).
fn centred<const D: usize>(name: &str, shape: [usize; D], device: &Device) -> Tensor<D> {
    let values: Vec<f32> = uniform(name, shape.iter().product()).iter().map(|u| (2.0 * u - 1.0) as f32).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// `start` of the script, by the names and shapes of a checkpoint.
fn started<M: burn::module::Module>(module: M) -> M {
    let mut entries = state::collect(&module);
    for (name, data) in &mut entries {
        let shape: Vec<usize> = data.shape().as_slice().to_vec();
        *data = TensorData::new(start(name, &shape), shape);
    }
    state::restore(module, &entries).expect("the module's own names")
}

fn values<const D: usize>(of: Tensor<D>) -> Vec<f32> {
    of.into_data().try_into_vec::<f32>().expect("f32")
}

#[test]
fn info_nce_gives_its_golden_numbers() {
    let device = Device::flex();
    let (count, frames, k) = (2, 4, 1);
    let z: Vec<f64> = (0..count * frames * 3)
        .map(|i| (0.3 + 0.5 * (i / 12) as f64 + 0.9 * (i / 3 % 4) as f64 + 1.1 * (i % 3) as f64).sin())
        .collect();
    let c = |b: usize, t: usize, j: usize| (0.2 + 0.4 * b as f64 + 0.8 * t as f64 + 0.6 * j as f64).cos();
    let w = |i: usize, j: usize| (1.0 + k as f64 + 0.5 * i as f64 - 0.3 * j as f64).sin();
    let predictions: Vec<f32> = (0..count * (frames - k) * 3)
        .map(|index| {
            let (b, t, i) = (index / 9, index / 3 % 3, index % 3);
            (0..2).map(|j| w(i, j) * c(b, t, j)).sum::<f64>() as f32
        })
        .collect();
    let encodings: Vec<f32> = z.iter().map(|&x| x as f32).collect();
    for (negatives, loss, accuracy) in [
        (Negatives::BatchSameTime, 0.6389708539849936, 2.0 / 3.0),
        (Negatives::BatchAllTime, 1.209616051687743, 1.0 / 3.0),
    ] {
        let step = InfoNce::new(negatives)
            .step(
                k,
                Tensor::from_data(TensorData::new(encodings.clone(), [count, frames, 3]), &device),
                Tensor::from_data(TensorData::new(predictions.clone(), [count, frames - k, 3]), &device),
                &Sequences::default(),
            )
            .expect("a loss");
        let ours = f64::from(step.loss.into_scalar::<f32>());
        assert!((ours - loss).abs() < 1e-5 * loss, "{negatives:?}: {ours}, not {loss}");
        let hits = f64::from(step.accuracy.into_scalar::<f32>());
        assert!((hits - accuracy).abs() < 1e-6, "{negatives:?}: accuracy {hits}, not {accuracy}");
    }
}

#[test]
fn gru_forward_and_backward_equal_those_of_pytorch() {
    let device = Device::flex().autodiff();
    let gru = started(Gru::new("g_ar", 5, 6, &Initializer::new(INIT, &device)));
    let inputs = centred("gru.inputs", [3, 7, 5], &device).require_grad();
    let states = gru.forward(inputs.clone());
    let expected = golden::tensors("cpc", "gru.");
    let furthest = |a: &[f32], b: &[f32]| a.iter().zip(b).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(furthest(&values(states.clone().inner()), &expected["states"]) < 1e-5);
    let mut gradients = (states * centred("gru.coefficients", [3, 7, 6], &device)).sum_dims(&[0, 1, 2]).backward();
    let of_inputs = values(inputs.grad_remove(&mut gradients).expect("tracked"));
    let of_parameters = parameters::gradients(&gru, gradients);
    let mut found: BTreeMap<String, Vec<f32>> =
        of_parameters.into_iter().map(|(name, gradient)| (name, values(gradient.values))).collect();
    found.insert("inputs".to_owned(), of_inputs);
    assert_eq!(found.len(), 5);
    for (name, ours) in found {
        let gap = furthest(&ours, &expected[&format!("gradient.{name}")]);
        assert!(gap < 1e-5, "the gradient of {name} is off by {gap}");
    }
}

fn layer(width_channels: usize, kernel_steps: usize, stride_steps: usize) -> LayerSettings {
    LayerSettings { width_channels, kernel_steps, stride_steps }
}

fn settings(
    channels: usize,
    encoder: FrameEncoderSettings,
    context: usize,
    predicted_frames: usize,
    negatives: Negatives,
) -> Settings {
    let context = AutoregressorSettings::Gru(GruSettings { width_channels: context });
    Settings { channels, encoder, context, predicted_frames, negatives, pooling: Pooling::Statistics }
}

/// Every gradient of the first step, and the losses of ten.
fn follow_pytorch(case: &str, settings: &Settings, shape: [usize; 3]) {
    let device = Device::flex().autodiff();
    let mut model = started(CPC::new(settings, INIT, &device).expect("plain settings"));
    let windows = centred(&format!("{case}.windows"), shape, &device);
    let expected = golden::tensors("cpc", &format!("{case}."));
    assert_eq!(expected["losses"].len(), 10);
    for (step, expected_loss) in expected["losses"].iter().enumerate() {
        let loss = model.loss(windows.clone(), &Sequences::default()).expect("plain windows").loss;
        let gradients = parameters::gradients(&model, loss.backward());
        let loss: f32 = loss.inner().into_scalar();
        assert!((loss - expected_loss).abs() < 1e-4, "{case}: loss {loss} at step {step}, PyTorch {expected_loss}");
        if step == 0 {
            assert_eq!(gradients.len(), expected.len() - 1);
            for (name, gradient) in &gradients {
                let ours = values(gradient.values.clone());
                // Burn keeps the matrix of a linear map the other way round.
                let (rows, columns) = (gradient.rows, ours.len() / gradient.rows);
                let turned: Vec<f32> = (0..ours.len()).map(|i| ours[i % rows * columns + i / rows]).collect();
                let ours = if name.starts_with("predictor.") { turned } else { ours };
                let gap = gap(&ours, &expected[&format!("gradient.{name}")]);
                assert!(gap < 1e-4, "{case}: the gradient of {name} is off by {gap} of its norm");
            }
        }
        model = parameters::map(model, |parameter, values| values - gradients[&parameter.path].values.clone() * RATE);
    }
}

#[test]
fn gradients_and_ten_losses_on_waveforms_equal_those_of_pytorch() {
    let waveform =
        WaveformSettings { width_channels: 8, normalization: Normalization::Channel, padding: Padding::Symmetric };
    let settings = settings(1, FrameEncoderSettings::Waveform(waveform), 6, 3, Negatives::BatchSameTime);
    follow_pytorch("waveform", &settings, [4, 1, 1280]);
}

#[test]
fn gradients_and_ten_losses_on_series_equal_those_of_pytorch() {
    let series = SeriesSettings {
        layers: vec![layer(6, 4, 2), layer(5, 3, 1)],
        normalization: Normalization::None,
        padding: Padding::Causal,
    };
    let settings = settings(3, FrameEncoderSettings::Series(series), 7, 2, Negatives::BatchAllTime);
    follow_pytorch("series", &settings, [3, 3, 20]);
}

/// Adam with its usual decays, so that the controls below train in seconds.
#[derive(Default)]
struct Adam {
    moments: BTreeMap<String, [Tensor<1>; 2]>,
    steps: i32,
}

impl Adam {
    fn step(&mut self, model: CPC, loss: &Tensor<1>, rate: f64) -> CPC {
        let gradients = parameters::gradients(&model, loss.backward());
        self.steps += 1;
        let correction = (1.0 - 0.999_f64.powi(self.steps)).sqrt() / (1.0 - 0.9_f64.powi(self.steps));
        parameters::map(model, |parameter, values| {
            let gradient = gradients[&parameter.path].values.clone();
            let zeros = || [gradient.zeros_like(), gradient.zeros_like()];
            let [first, second] = self.moments.remove(&parameter.path).unwrap_or_else(zeros);
            let first = first * 0.9 + gradient.clone() * 0.1;
            let second = second * 0.999 + gradient.square() * 0.001;
            let step = first.clone() * (rate * correction) / (second.clone().sqrt() + 1e-8);
            self.moments.insert(parameter.path.clone(), [first, second]);
            values - step
        })
    }
}

/// `[count, 1, steps]` of the process x_t = ρ x_{t−1} + √(1 − ρ²) ε, in its stationary state; white noise for ρ = 0.
fn autoregressive(rho: f64, [count, steps]: [usize; 2], name: u64, device: &Device) -> Tensor<3> {
    let mut draws = seed::draws(5, "autoregressive series", &[name]);
    let mut values = Vec::with_capacity(count * steps);
    for _ in 0..count {
        let mut x = draws.normal();
        for _ in 0..steps {
            values.push(x as f32);
            x = rho * x + (1.0 - rho * rho).sqrt() * draws.normal();
        }
    }
    Tensor::from_data(TensorData::new(values, [count, 1, steps]), device)
}

fn mean_and_error(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (count - 1.0);
    (mean, (variance / count).sqrt())
}

/// How much longer the controls train and how much more they measure, where somebody wants to wait.
fn patience() -> usize {
    std::env::var("DIPTYCH_CONTROLS").ok().and_then(|value| value.parse().ok()).unwrap_or(1)
}

#[test]
fn known_information_of_an_autoregressive_process_is_found_and_not_exceeded() {
    let rho: f64 = 0.9;
    let information = -0.5 * (1.0 - rho * rho).ln(); // .830 nats between neighbouring steps
    let device = Device::flex().autodiff();
    // Kernels equal to strides: no frame shares a step with another. Three layers bend one number into 24.
    let series = SeriesSettings {
        layers: vec![layer(24, 1, 1), layer(24, 1, 1), layer(24, 1, 1)],
        normalization: Normalization::None,
        padding: Padding::None,
    };
    let settings = settings(1, FrameEncoderSettings::Series(series), 24, 1, Negatives::BatchSameTime);
    let mut model = CPC::new(&settings, INIT, &device).expect("plain settings");
    let (windows, steps, updates) = (192, 6, 700 * patience());
    let mut adam = Adam::default();
    for update in 0..updates {
        let batch = autoregressive(rho, [windows, steps], update as u64, &device);
        let loss = model.loss(batch, &Sequences::default()).expect("plain windows").loss;
        let rate = 4e-3 * (1.0 - update as f64 / updates as f64) + 1e-5;
        model = adam.step(model, &loss, rate);
    }
    let mut held_out = burn::module::Module::valid(&model);
    let estimates: Vec<f64> = (0..40 * patience() as u64)
        .map(|batch| {
            let windows = autoregressive(rho, [windows, steps], (1 << 32) + batch, &Device::flex());
            let predicted = held_out.loss(windows, &Sequences::default()).expect("plain windows");
            let loss = f64::from(predicted.loss.into_scalar::<f32>());
            held_out
                .info_nce()
                .information_nats(&predicted.chance[0], loss, &Sequences::default())
                .expect("independent negatives")
        })
        .collect();
    let (mean, error) = mean_and_error(&estimates);
    println!("estimate {mean:.4} ± {error:.4} of {information:.4} nats");
    assert!(mean <= information + 3.0 * error, "{mean} ± {error} nats exceed {information}");
    assert!(mean >= 0.95 * information, "only {mean} ± {error} of {information} nats were found");
}

/// How a model is trained on white noise, one fresh batch per update.
struct Noise {
    encoder: FrameEncoderSettings,
    /// Of the encodings and of the contexts.
    width: usize,
    windows: usize,
    /// Of a window.
    frames: usize,
    predicted: usize,
    updates: usize,
    /// Highest of a warm-up and a decay to nothing.
    rate: f64,
}

/// Of each window, the share of its frames t whose true k-th successor scores highest among those of all windows, ties
/// shared out. By the definition, in plain loops, from what a checkpoint holds.
fn hits_by_window(model: &CPC, windows: &Tensor<3>, k: usize) -> Vec<f64> {
    let encodings = model.encoder().forward_eval(windows.clone().into()).expect("plain windows");
    let contexts = model.contexts(windows.clone()).expect("plain windows");
    let ([count, frames, of_encodings], [_, _, of_contexts]) = (encodings.dims(), contexts.dims());
    let (encodings, contexts) = (values(encodings), values(contexts));
    let of_steps = state::collect(model);
    let weight = of_steps[&format!("predictor.steps.{}.weight", k - 1)].clone().try_into_vec::<f32>().expect("f32");
    assert_eq!(weight.len(), of_encodings * of_contexts);
    let row = |of: &[f32], width: usize, window: usize, frame: usize| -> Vec<f64> {
        let first = (window * frames + frame) * width;
        of[first..first + width].iter().copied().map(f64::from).collect()
    };
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let rows: Vec<Vec<f64>> =
        weight.chunks(of_contexts).map(|row| row.iter().copied().map(f64::from).collect()).collect();
    let mut hits = vec![0.0; count];
    for frame in 0..frames - k {
        let futures: Vec<Vec<f64>> = (0..count).map(|b| row(&encodings, of_encodings, b, frame + k)).collect();
        for (window, hits) in hits.iter_mut().enumerate() {
            let context = row(&contexts, of_contexts, window, frame);
            let prediction: Vec<f64> = rows.iter().map(|row| dot(row, &context)).collect();
            let own = dot(&futures[window], &prediction);
            let scores = || futures.iter().map(|future| dot(future, &prediction));
            if scores().all(|score| score <= own) {
                *hits += 1.0 / scores().filter(|score| *score == own).count() as f64;
            }
        }
    }
    hits.into_iter().map(|hits| hits / (frames - k) as f64).collect()
}

impl Noise {
    /// Held-out accuracy of each step ahead with its standard error over windows.
    fn accuracies(self) -> Vec<(f64, f64)> {
        let Self { encoder, width, windows, frames, predicted, updates, rate } = self;
        let steps = encoder.extent(frames).expect("an encoder of series");
        let device = Device::flex().autodiff();
        let settings = settings(1, encoder, width, predicted, Negatives::BatchSameTime);
        let mut model = CPC::new(&settings, INIT, &device).expect("plain settings");
        let mut adam = Adam::default();
        let updates = updates * patience();
        for update in 0..updates {
            let batch = autoregressive(0.0, [windows, steps], update as u64, &device);
            let loss = model.loss(batch, &Sequences::default()).expect("plain windows").loss;
            let (done, left) = (update as f64 / updates as f64, 1.0 - update as f64 / updates as f64);
            model = adam.step(model, &loss, rate * (done / 0.05).min(left / 0.4).min(1.0) + 1e-6);
        }
        let mut held_out = burn::module::Module::valid(&model);
        let mut by_window = vec![vec![]; predicted];
        for batch in 0..40 * patience() as u64 {
            let batch = autoregressive(0.0, [windows, steps], (1 << 32) + batch, &Device::flex());
            for (index, of) in by_window.iter_mut().enumerate() {
                of.extend(hits_by_window(&held_out, &batch, index + 1));
            }
            if by_window[0].len() == windows {
                // What training reports says the same of these windows.
                let found = held_out.loss(batch, &Sequences::default()).expect("plain windows");
                for (of, reported) in by_window.iter().zip(values(found.step_accuracies)) {
                    assert!((of.iter().sum::<f64>() / windows as f64 - f64::from(reported)).abs() < 0.01);
                }
                assert!((found.chance[0].accuracy - 1.0 / windows as f64).abs() < 1e-12);
            }
        }
        let mut draws = seed::draws(6, "bootstrap", &[]);
        let mut of_step = |(index, of): (usize, &Vec<f64>)| {
            let count = of.len();
            let resampled: Vec<f64> = (0..500)
                .map(|_| (0..count).map(|_| of[draws.below(count as u64) as usize]).sum::<f64>() / count as f64)
                .collect();
            let mean = of.iter().sum::<f64>() / count as f64;
            let sigma = (resampled.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 500.0).sqrt();
            println!("k = {}: accuracy {mean:.4} ± {sigma:.4}, chance {:.4}", index + 1, 1.0 / windows as f64);
            (mean, sigma)
        };
        by_window.iter().enumerate().map(&mut of_step).collect()
    }
}

/// Chance where frames share no step, and at least `times` chance at each step where they share some: without that, an
/// encoder that learnt nothing would pass.
fn nothing_is_predicted_but_what_is_copied(accuracies: &[(f64, f64)], chance: f64, times: &[f64]) {
    for (index, (mean, sigma)) in accuracies.iter().enumerate() {
        let k = index + 1;
        match times.get(index) {
            Some(times) => {
                assert!(*mean > times * chance, "k = {k}: frames that share steps were not told apart: {mean}");
            }
            None => assert!((mean - chance).abs() <= 3.5 * sigma, "k = {k}: {mean} ± {sigma}, chance {chance}"),
        }
    }
}

#[test]
fn white_noise_is_at_chance_from_the_first_disjoint_frame_on_and_copied_before() {
    let series = SeriesSettings {
        layers: vec![layer(24, 4, 2), layer(24, 4, 2)],
        normalization: Normalization::Channel,
        padding: Padding::None,
    };
    let field = series.receptive_field();
    assert_eq!((field.width_steps, field.hop_steps, field.first_disjoint_k()), (10, 4, 3));
    let encoder = FrameEncoderSettings::Series(series);
    let noise = Noise { encoder, width: 24, windows: 64, frames: 12, predicted: 5, updates: 150, rate: 3e-3 };
    nothing_is_predicted_but_what_is_copied(&noise.accuracies(), 1.0 / 64.0, &[20.0, 4.0]);
}

#[test]
fn white_noise_through_the_papers_encoder_is_copied_two_frames_ahead_and_at_chance_from_the_third_on() {
    // 465 steps every 160: frames one apart share 305 of them, two apart 145, three apart none.
    let of = |padding| WaveformSettings { width_channels: 32, normalization: Normalization::Channel, padding };
    for padding in [Padding::None, Padding::Causal] {
        let field = of(padding).as_series().receptive_field();
        assert_eq!((field.width_steps, field.hop_steps, field.first_disjoint_k()), (465, 160, 3));
    }
    let encoder = FrameEncoderSettings::Waveform(of(Padding::Causal));
    let noise = Noise { encoder, width: 32, windows: 64, frames: 7, predicted: 5, updates: 700, rate: 3e-3 };
    nothing_is_predicted_but_what_is_copied(&noise.accuracies(), 1.0 / 64.0, &[10.0, 10.0]);
}

#[test]
fn the_present_frame_is_trivially_found() {
    // k = 0: with W the identity, a frame of unit length scores highest with itself, whatever the negatives.
    let device = Device::flex();
    let (count, frames, width) = (8, 6, 16);
    let z = diptych::loss::l2_normalize(centred("present", [count * frames, width], &device));
    let z = z.reshape([count, frames, width]);
    let groups = [1_u32, 1, 2, 2, 3, 3, 4, 4];
    let sequences = Sequences { sequences: None, groups: Some(&groups), seed: 1, batch: 0 };
    for negatives in [
        Negatives::BatchSameTime,
        Negatives::BatchAllTime,
        Negatives::WithinSequence,
        Negatives::SameGroup,
        Negatives::ExcludeCurrentSequence,
        Negatives::Sampled(16),
    ] {
        let step = InfoNce::new(negatives).step(0, z.clone(), z.clone() * 40.0, &sequences).expect("a loss");
        assert_eq!(step.accuracy.into_scalar::<f32>(), 1.0, "{negatives:?}");
        assert!(step.loss.into_scalar::<f32>() < 0.05, "{negatives:?}");
    }
}

#[test]
fn first_scores_have_unit_scale_and_the_first_loss_is_near_chance() {
    let device = Device::flex();
    for (name, encoder, channels, steps) in [
        (
            "waveform",
            FrameEncoderSettings::Waveform(WaveformSettings { width_channels: 48, ..Default::default() }),
            1,
            2560,
        ),
        (
            "series",
            FrameEncoderSettings::Series(SeriesSettings {
                layers: vec![layer(32, 4, 2), layer(32, 4, 2)],
                normalization: Normalization::None,
                padding: Padding::Causal,
            }),
            6,
            64,
        ),
    ] {
        let settings = settings(channels, encoder, 32, 4, Negatives::BatchSameTime);
        let windows = centred(name, [16, channels, steps], &device) * 30.0;
        let model = CPC::new(&settings, INIT, &device).expect("plain settings");
        let mut model = model.calibrated(windows.clone()).expect("plain windows");
        let first = model.loss(windows, &Sequences::default()).expect("plain windows");
        let chance = first.chance[0].loss;
        let loss = f64::from(first.loss.into_scalar::<f32>());
        assert!((loss - chance).abs() < 0.8, "{name}: {loss}, chance {chance}");
    }
}

#[test]
fn contexts_and_features_have_their_shapes_and_move_nothing() {
    let device = Device::flex().autodiff();
    let series =
        SeriesSettings { layers: vec![layer(6, 4, 2)], normalization: Normalization::Batch, padding: Padding::Causal };
    for pooling in [Pooling::LastContext, Pooling::MeanContext, Pooling::Statistics] {
        let base = settings(3, FrameEncoderSettings::Series(series.clone()), 5, 2, Negatives::BatchSameTime);
        let model = CPC::new(&Settings { pooling, ..base }, INIT, &device).expect("plain settings");
        let before = state::collect(&model);
        let windows = centred("windows", [4, 3, 20], &device);
        let contexts = model.contexts(windows.clone()).expect("plain windows");
        assert_eq!(contexts.dims(), [4, 10, 5]);
        let features = model.pooled(windows.clone()).expect("plain windows");
        assert_eq!(features.dims(), [4, model.feature_width()]);
        assert!(!features.is_autodiff() && !contexts.is_autodiff());
        let alone = values(model.pooled(windows.narrow(0, 2, 1)).expect("plain windows"));
        let width = model.feature_width();
        assert!(gap(&alone, &values(features)[2 * width..3 * width]) < 1e-5, "{pooling:?}");
        assert_eq!(before, state::collect(&model));
        for name in ["g_enc.layers.0.conv.weight", "g_enc.layers.0.batch_norm.running_mean", "g_ar.weight_hh_l0"] {
            assert!(before.contains_key(name), "no {name} among {:?}", before.keys());
        }
        assert_eq!(before["predictor.steps.1.weight"].shape().as_slice(), [6, 5]);
    }
}

#[test]
fn windows_that_do_not_fit_are_refused_with_what_to_do() {
    let device = Device::flex();
    let series =
        SeriesSettings { layers: vec![layer(6, 4, 2)], normalization: Normalization::Channel, padding: Padding::None };
    let settings = settings(2, FrameEncoderSettings::Series(series), 5, 3, Negatives::SameGroup);
    let mut model = CPC::new(&settings, INIT, &device).expect("plain settings");
    let none = Sequences::default();
    let of = |shape: [usize; 3]| Tensor::<3>::ones(shape, &device);
    let refused = |result: diptych::Result<diptych::loss::Predicted>, word: &str| {
        let error = result.expect_err("does not fit").to_string();
        assert!(error.contains(word), "{error}");
    };
    refused(model.loss(of([4, 2, 3]), &none), "steps");
    refused(model.loss(of([4, 3, 40]), &none), "channels");
    refused(model.loss(of([4, 2, 8]), &none), "longer windows");
    refused(model.loss(of([4, 2, 40]), &none), "group");
    refused(model.loss(Tensor::<4>::ones([4, 3, 8, 8], &device), &none), "images");
    let groups = Sequences { groups: Some(&[1, 1, 2, 2]), ..none };
    assert!(model.loss(of([4, 2, 40]), &groups).is_ok());
    assert!(CPC::new(&Settings { predicted_frames: 0, ..settings }, INIT, &device).is_err());
}
