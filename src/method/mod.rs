//! Encoder, head and loss of one published method.

pub mod clip;
pub mod cpc;
mod simclr;

use std::fmt::Debug;

use burn::module::Module;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::batch::Input;
use crate::error::{Context as _, Error, Result, Stage};
use crate::model::{EncoderSettings, HeadSettings, NormSettings};
pub use clip::CLIP;
pub use cpc::CPC;
pub use simclr::SimCLR;

/// Of methods whose batches are taken in one piece.
const NO_CHUNKS: &str = "its loss is not taken of one embedding per item; take batches in one piece, train.chunks = 1";

/// What one training step's forward gives.
#[derive(Debug, Clone)]
pub struct MethodOutput {
    /// `[1]`, the mean over the batch.
    pub loss: Tensor<1>,
    /// Of both things that should meet, at unit length and cut off from the graph, `[items, width]`: the collapse watch.
    pub embeddings: [Tensor<2>; 2],
    /// The loss of embeddings that say nothing.
    pub no_signal_loss: f64,
    /// What else there is to report.
    pub readings: Vec<Reading>,
}

/// Rows of the batch of a step. Draws in training (dropout, patch dropout) are named by them, so that a chunk draws what
/// the whole batch would, as often as it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchRows {
    /// The step, counted from 0.
    pub step: u64,
    /// Where the first row stands in the global batch.
    pub first: usize,
}

impl BatchRows {
    /// A batch from its beginning.
    pub fn whole(step: u64) -> Self {
        Self { step, first: 0 }
    }
}

/// All that a loss needs of some items.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// The two things that should meet, of any length, row i of both from one item: `[items, width]` each.
    pub sides: [Tensor<2>; 2],
    /// Of each side one number per item, equal where the items are (hashes of captions or images); `None` where nobody
    /// asked.
    pub identities: [Option<Vec<u64>>; 2],
}

impl Embedded {
    /// Of items nobody knows duplicates of.
    pub fn new(sides: [Tensor<2>; 2]) -> Self {
        Self { sides, identities: [None, None] }
    }

    /// Items.
    pub fn items(&self) -> usize {
        self.sides[0].dims()[0]
    }

    /// The chunks of one batch, one below the other; `None` where there is none.
    ///
    /// Identities that a chunk lacks are lacking for all.
    pub fn cat(chunks: &[Self]) -> Option<Self> {
        if chunks.is_empty() {
            return None;
        }
        let side = |side: usize| Tensor::cat(chunks.iter().map(|chunk| chunk.sides[side].clone()).collect(), 0);
        let identities = |side: usize| {
            let of_chunks: Option<Vec<&[u64]>> = chunks.iter().map(|chunk| chunk.identities[side].as_deref()).collect();
            of_chunks.map(|of_chunks| of_chunks.concat())
        };
        Some(Self { sides: [side(0), side(1)], identities: [identities(0), identities(1)] })
    }
}

/// What a method reports of a step besides its loss: numbers that stand under this name in `metrics.jsonl`.
#[derive(Debug, Clone)]
pub struct Reading {
    /// In snake case.
    pub name: &'static str,
    /// One number, or one per step ahead.
    pub values: ReadingValues,
}

/// Numbers, read from the device only where they are reported.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "a step has a handful")]
pub enum ReadingValues {
    /// Outside autodiff. `[numbers]`
    Measured(Tensor<1>),
    /// Known beforehand.
    Known(Vec<f64>),
}

impl Reading {
    /// Numbers on the device.
    pub fn measured(name: &'static str, values: Tensor<1>) -> Self {
        Self { name, values: ReadingValues::Measured(values) }
    }

    /// Numbers known beforehand.
    pub fn known(name: &'static str, values: Vec<f64>) -> Self {
        Self { name, values: ReadingValues::Known(values) }
    }
}

impl ReadingValues {
    /// Device sync: the numbers.
    ///
    /// # Errors
    /// The device does not give them back.
    pub fn read(self) -> Result<Vec<f64>> {
        match self {
            Self::Known(values) => Ok(values),
            Self::Measured(tensor) => {
                let values = tensor.into_data().try_into_vec::<f32>();
                let values = values.context(Stage::Train, "readings", "cannot be read from the device")?;
                Ok(values.into_iter().map(f64::from).collect())
            }
        }
    }
}

/// One published method: everything between a batch and its loss.
///
/// Every implementation runs `obeys_method_rules`.
pub trait Method: Module + Clone + Debug {
    /// As a pipeline writes it.
    fn name(&self) -> &'static str;

    /// Columns of [`Self::features`].
    fn feature_width(&self) -> usize;

    /// What [`Self::features`] are, for the protocol of an evaluation.
    fn features_in_words(&self) -> &'static str;

    /// Items that a batch must have for the loss to mean something.
    fn least_items(&self) -> usize {
        1
    }

    /// Whether the method's PyTorch recipe decays biases, gains and scales too, as `train.compat = "torch"` then does.
    fn decays_vectors_in_torch(&self) -> bool {
        true
    }

    /// Called once, with a run's first batch, before its first step: scales that depend on the data. A resumed run has
    /// them in its weights.
    ///
    /// # Errors
    /// As of [`Self::train_loss`].
    fn prepare(self, _first: Input) -> Result<Self> {
        Ok(self)
    }

    /// The loss of the batch of `step`, counted from 0, in training mode: BatchNorm uses the batch and moves its running
    /// statistics.
    ///
    /// # Errors
    /// The batch holds something else than this method takes, or too little of it.
    fn train_loss(&mut self, input: Input, step: u64) -> Result<MethodOutput>;

    /// Features in front of the head, in evaluation mode and outside autodiff, `[items, feature_width]`. Moves nothing.
    ///
    /// # Errors
    /// As of [`Self::train_loss`].
    fn features(&self, input: Input) -> Result<Tensor<2>>;

    /// Called after each optimizer step: momentum encoders, queues.
    fn after_step(&mut self) {}

    /// Why a batch cannot be trained on in chunks; `None` where [`Self::embed`] and [`Self::loss_of`] can.
    ///
    /// They can where no item's embedding depends on the other items of its chunk: not with BatchNorm.
    fn refuses_chunks(&self) -> Option<String> {
        Some(NO_CHUNKS.to_owned())
    }

    /// What the loss compares of some rows of a batch, in training mode. With and without autodiff, alone and among
    /// others, the same rows give the same embeddings: all draws are named by `rows`.
    ///
    /// # Errors
    /// As of [`Self::train_loss`]; the method knows no chunks.
    fn embed(&mut self, _input: Input, _rows: BatchRows) -> Result<Embedded> {
        Err(Error::at(Stage::Model, self.name(), self.refuses_chunks().unwrap_or_default()))
    }

    /// The loss of a batch's embeddings. Of a whole batch, [`Self::train_loss`] gives the same.
    ///
    /// # Errors
    /// As of [`Self::train_loss`]; the method knows no chunks.
    fn loss_of(&self, _embedded: Embedded) -> Result<MethodOutput> {
        Err(Error::at(Stage::Model, self.name(), self.refuses_chunks().unwrap_or_default()))
    }
}

/// `[method.*]` of a pipeline: exactly one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MethodSettings {
    /// Chen et al. 2020.
    Simclr(SimclrSettings),
    /// Van den Oord et al. 2018.
    Cpc(cpc::Settings),
    /// Radford et al. 2021, or with SigLIP's loss Zhai et al. 2023.
    Clip(clip::Settings),
}

impl MethodSettings {
    /// Why a batch cannot be taken in chunks, as [`Method::refuses_chunks`] of what they make.
    pub fn refuses_chunks(&self) -> Option<String> {
        match self {
            Self::Simclr(settings) => settings.refuses_chunks(),
            Self::Cpc(_) => Some(NO_CHUNKS.to_owned()),
            Self::Clip(settings) => settings.refuses_chunks(),
        }
    }
}

/// `[method.simclr]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimclrSettings {
    /// Exactly one encoder.
    pub encoder: EncoderSettings,
    /// Projection head.
    #[serde(default = "default_head")]
    pub head: HeadSettings,
    /// Width of z.
    #[serde(default = "default_projection_width")]
    pub projection_width: usize,
    /// NT-Xent's τ.
    #[serde(default = "default_temperature")]
    pub temperature: f64,
    /// Subtract ImageNet's mean and divide by its standard deviation; the paper does neither.
    #[serde(default)]
    pub imagenet_normalization: bool,
    /// Rows of the loss's matrix of logits at a time, of which there are two per item; all where this is absent. With
    /// large batches memory grows with these rows times the batch, not with its square.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_tile_rows: Option<usize>,
    /// Whether both views share one forward (and so one set of BatchNorm statistics), as torch repositories do.
    #[serde(default)]
    pub joint_forward: bool,
}

impl SimclrSettings {
    /// Why a batch cannot be taken in chunks: what is normalised over a batch would be normalised over a chunk.
    pub fn refuses_chunks(&self) -> Option<String> {
        let encoder = self.encoder.name();
        if self.encoder.norm() == NormSettings::Batch {
            let reason = format!(
                "encoder.{encoder}.norm = \"batch\" normalises over the batch, so that chunks of it would give other \
                 embeddings; set encoder.{encoder}.norm = \"group\" (or \"frozen\" for a trained encoder)"
            );
            return Some(reason);
        }
        (self.head != HeadSettings::PaperV1).then(|| {
            "this head normalises over the batch, whatever encoder.norm says; take head = \"paper_v1\", which has no BatchNorm"
                .to_owned()
        })
    }
}

fn default_head() -> HeadSettings {
    HeadSettings::PaperV1
}
fn default_projection_width() -> usize {
    128
}
fn default_temperature() -> f64 {
    0.1
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests read single values as they go")]
mod tests {
    use std::collections::BTreeMap;

    use burn::module::{ModuleMapper, ModuleVisitor, Param};
    use burn::tensor::{Device, Gradients, TensorData};

    use super::*;
    use crate::batch::{PairCaptions, Pairs, SequencedWindows};
    use crate::loss::duplicates::DuplicatePolicy;
    use crate::loss::tower_loss::TowerLoss;
    use crate::model::{ConvNetSettings, InitOptions, ResNetSettings, Stem};

    /// Visits parameters with their paths: values, and gradients' largest magnitudes where there are any.
    struct Parameters<'a> {
        path: Vec<String>,
        gradients: Option<&'a Gradients>,
        values: BTreeMap<String, Vec<f32>>,
        slopes: BTreeMap<String, f32>,
    }

    impl ModuleVisitor for Parameters<'_> {
        fn enter_module(&mut self, name: &str, container: &str) {
            // As in checkpoints, a variant is no part of a path.
            self.path.push(if container.starts_with("Enum:") { String::new() } else { name.to_owned() });
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let names: Vec<&str> = self.path.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
            let path = names.join(".");
            let gradient = self.gradients.and_then(|gradients| param.val().grad(gradients));
            if let Some(gradient) = gradient {
                self.slopes.insert(path.clone(), gradient.abs().max().into_scalar());
            }
            let fresh = self.values.insert(path.clone(), param.val().into_data().try_into_vec::<f32>().expect("f32"));
            assert!(fresh.is_none(), "two parameters at {path}");
        }
    }

    fn parameters<'a>(module: &impl Module, gradients: Option<&'a Gradients>) -> Parameters<'a> {
        let mut visitor = Parameters { path: vec![], gradients, values: BTreeMap::new(), slopes: BTreeMap::new() };
        module.visit(&mut visitor);
        visitor
    }

    fn is_buffer(path: &str) -> bool {
        path.ends_with(".running_mean") || path.ends_with(".running_var")
    }

    fn pixels(items: usize, phase: f64, device: &Device) -> Tensor<4> {
        let values: Vec<f32> =
            (0..items * 3 * 144).map(|i| (0.5 + 0.5 * (0.61 * i as f64 + phase).sin()) as f32).collect();
        Tensor::from_data(TensorData::new(values, [items, 3, 12, 12]), device)
    }

    /// Everything that holds for any method; `make` builds one on a device from a seed.
    /// `train` makes a batch of so many items, `one` what features are taken of.
    fn obeys_method_rules<M: Method>(
        make: impl Fn(u64, &Device) -> M,
        train: impl Fn(usize, &Device) -> Input,
        one: impl Fn(usize, &Device) -> Input,
        foreign: impl Fn(&Device) -> Input,
        expected_names: &[&str],
    ) {
        let device = Device::flex().autodiff();
        let mut method = make(1, &device);
        let items = method.least_items().max(4);

        // The same seed gives the same weights, another one others, whatever the device's autodiff.
        let start = parameters(&method, None).values;
        assert_eq!(start, parameters(&make(1, &Device::flex()), None).values);
        assert_ne!(start, parameters(&make(2, &device), None).values);
        for name in expected_names {
            assert!(start.contains_key(*name), "no {name} among {:?}", start.keys());
        }

        // Features: of the declared width, the same twice, outside autodiff, and they move nothing.
        let features = method.features(one(items, &device)).expect("its own input");
        assert_eq!(features.dims(), [items, method.feature_width()]);
        assert!(!features.is_autodiff() && !method.features_in_words().is_empty());
        let fewer = method.features(one(items - 2, &device)).expect("its own input").narrow(0, 1, 1);
        let gap: f32 = (features.clone().narrow(0, 1, 1) - fewer).abs().max().into_scalar();
        assert!(gap < 1e-5, "features of an item depend on its neighbours: {gap}");
        let again = method.features(one(items, &device)).expect("its own input");
        assert_eq!(features.into_data(), again.into_data());
        assert_eq!(start, parameters(&method, None).values);

        // One step: a finite loss, a gradient for every trainable parameter and for no buffer; only buffers move.
        let output = method.train_loss(train(items, &device), 7).expect("its own input");
        assert!(output.no_signal_loss > 0.0);
        let mut names: Vec<&str> = output.readings.iter().map(|reading| reading.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), output.readings.len());
        assert_eq!(output.loss.dims(), [1]);
        assert!(output.loss.clone().inner().into_scalar::<f32>().is_finite());
        for embeddings in &output.embeddings {
            assert_eq!(embeddings.dims()[0], items);
            assert!(!embeddings.is_tracked());
            let length: f32 = embeddings.clone().inner().square().sum_dim(1).narrow(0, 1, 1).into_scalar();
            assert!((length - 1.0).abs() < 1e-4 || length == 0.0, "a row of length {length}");
        }
        let gradients = output.loss.backward();
        let after = parameters(&method, Some(&gradients));
        for (path, values) in &after.values {
            let slope = after.slopes.get(path);
            if is_buffer(path) {
                assert!(slope.is_none(), "{path} is trained");
                assert_ne!(values, &start[path], "{path} did not move");
            } else {
                assert!(slope.is_some_and(|s| s.is_finite() && *s > 0.0), "{path} has gradient {slope:?}");
                assert_eq!(values, &start[path], "{path} moved in the forward");
            }
        }

        // Without autodiff the loss is the same number, and a copy of a model goes its own way.
        let mut again = make(1, &device);
        let copy = again.clone();
        // Up to its last digits: kernels go through few rows in another order where no backward follows.
        let plain = again.valid().train_loss(train(items, &Device::flex()), 7).expect("its own input").loss;
        let tracked = again.train_loss(train(items, &device), 7).expect("its own input").loss.inner();
        let (plain, tracked) = (plain.into_scalar::<f32>(), tracked.into_scalar::<f32>());
        assert!((plain - tracked).abs() <= 4.0 * f32::EPSILON * tracked.abs(), "{plain} {tracked}");
        assert_eq!(parameters(&copy, None).values, start);
        method.after_step();

        // What belongs to another method is refused by this one's name.
        for refused in [method.train_loss(foreign(&device), 0).err(), method.features(foreign(&device)).err()] {
            let text = refused.expect("another method's input").to_string();
            assert!(text.contains(method.name()), "{text}");
        }

        // Preparing twice is preparing once, and keeps every parameter where the optimizer finds it.
        let first = || train(items, &device);
        let once = make(1, &device).prepare(first()).expect("its own input");
        let (names, twice) = (parameters(&once, None), once.clone().prepare(first()).expect("its own input"));
        assert!(names.values.keys().eq(start.keys()));
        for (path, values) in parameters(&twice, None).values {
            let far = values.iter().zip(&names.values[&path]).any(|(a, b)| (a - b).abs() > 1e-5 * b.abs());
            assert!(!far, "{path} moved in the second preparation");
        }
        let slopes = |method: &mut M| {
            let loss = method.train_loss(first(), 0).expect("its own input").loss;
            parameters(method, Some(&loss.backward())).slopes
        };
        assert!(slopes(&mut once.clone()).keys().eq(slopes(&mut make(1, &device)).keys()));
    }

    fn views(items: usize, device: &Device) -> Input {
        Input::Views(vec![pixels(items, 0.0, device), pixels(items, 1.3, device)])
    }

    fn view(items: usize, device: &Device) -> Input {
        Input::Views(vec![pixels(items, 0.0, device)])
    }

    /// `[items, 2, 40]` of two sines.
    fn windows(items: usize, device: &Device) -> Input {
        let values: Vec<f32> = (0..items * 80).map(|i| (0.37 * i as f32).sin() + (1.91 * i as f32).cos()).collect();
        let windows = Tensor::<3>::from_data(TensorData::new(values, [items, 2, 40]), device);
        Input::Windows(SequencedWindows::apart(windows))
    }

    fn simclr_obeys_method_rules(settings: SimclrSettings, expected_names: &[&str]) {
        obeys_method_rules(make(settings), views, view, |device| windows(4, device), expected_names);
    }

    #[test]
    fn cpc_on_series_obeys_method_rules() {
        for (negatives, context, name) in [
            ("\"batch_same_time\"", "gru = { width_channels = 5 }", "g_ar.weight_ih_l0"),
            (
                "{ sampled = 9 }",
                "causal_transformer = { width_channels = 4, blocks = 1, heads = 2 }",
                "g_ar.norm.weight",
            ),
        ] {
            let text = format!(
                "channels = 2\npredicted_frames = 3\nnegatives = {negatives}\ncontext.{context}\n[encoder.series]\n\
                 layers = [{{ width_channels = 6, kernel_steps = 4, stride_steps = 2 }}]\nnormalization = \"batch\"\n"
            );
            let settings: cpc::Settings = toml::from_str(&text).expect("settings");
            let make = |seed, device: &Device| {
                CPC::new(&settings, InitOptions { seed, compat_torch: false }, device).expect("plain settings")
            };
            let names = [
                "g_enc.layers.0.conv.weight",
                "g_enc.layers.0.batch_norm.running_var",
                "predictor.steps.2.weight",
                name,
            ];
            obeys_method_rules(make, windows, windows, |device| views(4, device), &names);
        }
    }

    #[test]
    fn cpc_on_images_obeys_method_rules() {
        let text = "predicted_frames = 1\nnegatives = \"batch_all_time\"\ncontext.gru.width_channels = 5\n\
                    [encoder.patches]\nside_pixels = 6\nhop_pixels = 3\nencoder.convnet.base_width = 2\n";
        let settings: cpc::Settings = toml::from_str(text).expect("settings");
        let make = |seed, device: &Device| {
            CPC::new(&settings, InitOptions { seed, compat_torch: false }, device).expect("plain settings")
        };
        obeys_method_rules(
            make,
            view,
            view,
            |device| views(4, device),
            &["g_ar.bias_hh_l0", "predictor.steps.0.weight"],
        );
    }

    #[test]
    fn cpc_reports_every_step_and_a_bound_only_over_distinct_sequences() {
        let settings: cpc::Settings = toml::from_str(
            "channels = 2\npredicted_frames = 3\n[encoder.series]\n\
             layers = [{ width_channels = 6, kernel_steps = 4, stride_steps = 2 }]\n",
        )
        .expect("settings");
        let device = Device::flex();
        let mut method =
            CPC::new(&settings, InitOptions { seed: 1, compat_torch: false }, &device).expect("plain settings");
        let names = |output: &MethodOutput| output.readings.iter().map(|r| r.name).collect::<Vec<_>>();
        let output = method.train_loss(windows(4, &device), 0).expect("windows");
        let all = [
            "step_losses",
            "step_accuracies",
            "chance_losses",
            "chance_accuracies",
            "first_disjoint_step",
            "information_nats",
        ];
        assert_eq!(names(&output), all);
        let read = |at: usize| output.readings[at].values.clone().read().expect("numbers");
        assert!((read(2)[1] - 4.0_f64.ln()).abs() < 1e-9 && read(3) == [0.25; 3] && read(4) == [2.0]);
        for k in 0..3 {
            assert!((read(5)[k] - (read(2)[k] - read(0)[k])).abs() < 1e-6);
        }
        let Input::Windows(mut twice) = windows(4, &device) else { unreachable!("windows are windows") };
        twice.sequences = vec![0, 1, 2, 0];
        let output = method.train_loss(Input::Windows(twice), 0).expect("windows");
        assert_eq!(names(&output), all[..5]);
    }

    /// Twelve-pixel images with texts of one to three words.
    fn pairs(items: usize, device: &Device) -> Input {
        let tokens = (0..items as u32).map(|item| {
            let words = (0..1 + item % 3).map(|word| 1 + item + 5 * word);
            [18].into_iter().chain(words).chain([19]).collect()
        });
        let captions = PairCaptions::of_distinct_images(tokens.collect());
        Input::Pairs(Pairs { images: pixels(items, 0.4, device), captions })
    }

    const SMALL_CLIP: &str = "embedding_width = 6\nactivation = \"gelu\"\n\
        text = { context_tokens = 6, vocabulary_tokens = 20, width = 8, blocks = 1, heads = 2, perceptron_width = 12 }\n\
        [vision.vision_transformer]\nimage_side_pixels = 12\npatch_side_pixels = 4\nwidth = 8\nblocks = 2\nheads = 2\n\
        perceptron_width = 16\n";

    fn clip(text: &str) -> clip::Settings {
        toml::from_str(text).expect("settings")
    }

    fn make_clip(settings: clip::Settings) -> impl Fn(u64, &Device) -> CLIP {
        move |seed, device| {
            CLIP::new(&settings, InitOptions { seed, compat_torch: false }, device).expect("plain settings")
        }
    }

    #[test]
    fn clip_obeys_method_rules() {
        for (loss, features, dropout) in [
            (TowerLoss::Softmax, clip::Features::BeforeProjection, 0.4),
            (TowerLoss::Sigmoid, clip::Features::Embedding, 0.0),
        ] {
            let settings = clip::Settings { loss, features, patch_dropout: dropout, ..clip(SMALL_CLIP) };
            let mut names = vec![
                "towers.visual.conv1.weight",
                "towers.visual.transformer.resblocks.1.attn.in_proj_weight",
                "towers.token_embedding.weight",
                "towers.text_projection",
                "towers.logit_scale",
            ];
            names.extend(loss.has_bias().then_some("towers.logit_bias"));
            obeys_method_rules(make_clip(settings), pairs, pairs, |device| windows(4, device), &names);
        }
    }

    #[test]
    fn clip_takes_images_without_texts_for_features_and_not_for_its_loss() {
        let device = Device::flex();
        let mut method = make_clip(clip(SMALL_CLIP))(1, &device);
        let of_pairs = method.features(pairs(4, &device)).expect("images");
        let Input::Pairs(Pairs { images, .. }) = pairs(4, &device) else { unreachable!("pairs are pairs") };
        let of_views = method.features(Input::Views(vec![images])).expect("images");
        assert_eq!(of_pairs.into_data(), of_views.into_data());
        let error = method.train_loss(view(4, &device), 0).expect_err("no texts").to_string();
        assert!(error.contains("clip") && error.contains("takes images with texts"), "{error}");
        let other_side = Input::Views(vec![Tensor::<4>::zeros([2, 3, 8, 8], &device)]);
        let error = method.features(other_side).expect_err("another size").to_string();
        assert!(error.contains("8x8") && error.contains("12x12"), "{error}");
        let captions = PairCaptions::of_distinct_images(vec![vec![18, 99, 19]; 4]);
        let strangers = Input::Pairs(Pairs { images: pixels(4, 0.0, &device), captions });
        assert!(method.train_loss(strangers, 0).expect_err("no such token").to_string().contains("token 99"));
    }

    /// Sets the logarithm of the scale: the only parameter that is one number in these models.
    struct Scale(f32);

    impl ModuleMapper for Scale {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let is_scale =
                param.val().dims() == [1; D] && param.val().inner().into_data().iter::<f32>().all(|x| x > 0.0);
            match is_scale {
                true => param.map(|old| (old.inner() * 0.0 + self.0).autodiff().require_grad()),
                false => param,
            }
        }
    }

    #[test]
    fn clips_scale_is_brought_back_to_a_hundred_and_can_fall_again() {
        let device = Device::flex().autodiff();
        let scaled = |loss, logarithm: f32| {
            let mut method = make_clip(clip::Settings { loss, ..clip(SMALL_CLIP) })(1, &device);
            method = method.map(&mut Scale(logarithm));
            method.after_step();
            method
        };
        let value = |method: &CLIP| method.towers().logit_scale.val().inner().into_scalar::<f32>();
        let above = scaled(TowerLoss::Softmax, 9.0);
        assert!((f64::from(value(&above)) - 100.0_f64.ln()).abs() < 1e-6);
        assert!((value(&scaled(TowerLoss::Softmax, 2.5)) - 2.5).abs() < 1e-6);
        assert!((value(&scaled(TowerLoss::Sigmoid, 9.0)) - 9.0).abs() < 1e-6);
        let mut above = above;
        let loss = above.train_loss(pairs(4, &device), 0).expect("pairs").loss;
        let slopes = parameters(&above, Some(&loss.backward())).slopes;
        assert!(slopes["towers.logit_scale"] > 0.0);
    }

    #[test]
    fn clip_reports_duplicates_and_masks_them_on_request() {
        let device = Device::flex();
        let read = |output: &MethodOutput, name: &str| {
            let reading = output.readings.iter().find(|reading| reading.name == name).expect("reported");
            reading.values.clone().read().expect("numbers")
        };
        let with_duplicates = || {
            let Input::Pairs(pairs) = pairs(4, &device) else { unreachable!("pairs are pairs") };
            let mut tokens = pairs.captions.tokens;
            tokens[3] = tokens[0].clone();
            let captions = PairCaptions::new(tokens, vec![0, 1, 1, 3]).expect("as many");
            Input::Pairs(Pairs { captions, ..pairs })
        };
        let output = |duplicates| {
            let settings = clip::Settings { duplicates, ..clip(SMALL_CLIP) };
            make_clip(settings)(1, &device).train_loss(with_duplicates(), 0).expect("pairs")
        };
        let keep = output(DuplicatePolicy::Keep);
        assert_eq!((read(&keep, "duplicate_captions"), read(&keep, "duplicate_images")), (vec![1.0], vec![1.0]));
        assert!((keep.no_signal_loss - 4.0_f64.ln()).abs() < 1e-12);
        assert!((read(&keep, "logit_scale")[0] - 1.0 / 0.07).abs() < 1e-3);
        let accuracy = read(&keep, "image_to_text_accuracy")[0];
        assert!((0.0..=1.0).contains(&accuracy));
        let mask = output(DuplicatePolicy::Mask);
        assert!((mask.no_signal_loss - 3.0_f64.ln()).abs() < 1e-12);
        let losses = [keep, mask, output(DuplicatePolicy::SoftTargets)].map(|output| output.loss.into_scalar::<f32>());
        assert!(losses[0] != losses[1] && losses[1] != losses[2], "{losses:?}");
    }

    #[test]
    fn parts_of_a_batch_are_encoded_as_in_the_whole() {
        let device = Device::flex();
        let settings = clip::Settings { patch_dropout: 0.5, ..clip(SMALL_CLIP) };
        let mut method = make_clip(settings)(1, &device);
        let whole =
            |method: &mut CLIP, step| method.embed(pairs(4, &device), BatchRows::whole(step)).expect("pairs").sides;
        let [images, _] = whole(&mut method, 3);
        let Pairs { images: pixels, captions } = pairs(4, &device).into_pairs("clip").expect("pairs");
        let part = Pairs {
            images: pixels.narrow(0, 2, 2),
            captions: PairCaptions::of_distinct_images(captions.tokens[2..].to_vec()),
        };
        let rows = BatchRows { step: 3, first: 2 };
        let [part, _] = method.embed(Input::Pairs(part), rows).expect("pairs").sides;
        let gap = (images.clone().narrow(0, 2, 2) - part).abs().max().into_scalar::<f32>();
        assert!(gap < 1e-5, "{gap}");
        let [other, _] = whole(&mut method, 4);
        assert!((images - other).abs().max().into_scalar::<f32>() > 1e-4, "another step drops other patches");
    }

    #[test]
    fn clip_with_the_papers_resnet_has_a_finite_loss_and_features() {
        let text = SMALL_CLIP.split("[vision").next().expect("a beginning");
        let text = format!(
            "{text}[vision.modified_resnet]\nimage_side_pixels = 32\nwidth = 4\nblocks = [1, 1, 1, 1]\nheads = 4\n"
        );
        let device = Device::flex().autodiff();
        let mut method = make_clip(clip(&text))(1, &device);
        let values: Vec<f32> = (0..4 * 3 * 32 * 32).map(|i| (0.37 * i as f32).sin()).collect();
        let images = Tensor::<4>::from_data(TensorData::new(values, [4, 3, 32, 32]), &device);
        let Input::Pairs(Pairs { captions, .. }) = pairs(4, &device) else { unreachable!("pairs are pairs") };
        let output = method.train_loss(Input::Pairs(Pairs { images: images.clone(), captions }), 0).expect("pairs");
        let slopes = parameters(&method, Some(&output.loss.backward())).slopes;
        assert!(slopes.values().all(|slope| slope.is_finite()) && slopes["towers.visual.conv1.weight"] > 0.0);
        assert_eq!(method.features(Input::Views(vec![images])).expect("images").dims(), [4, method.feature_width()]);
    }

    fn simclr(encoder: EncoderSettings, head: HeadSettings, joint_forward: bool) -> SimclrSettings {
        SimclrSettings {
            encoder,
            head,
            projection_width: 8,
            temperature: 0.1,
            imagenet_normalization: joint_forward,
            loss_tile_rows: joint_forward.then_some(3),
            joint_forward,
        }
    }

    fn make(settings: SimclrSettings) -> impl Fn(u64, &Device) -> SimCLR {
        move |seed, device| {
            SimCLR::new(&settings, InitOptions { seed, compat_torch: false }, device).expect("plain settings")
        }
    }

    #[test]
    fn simclr_with_a_convnet_obeys_method_rules() {
        let names = ["encoder.conv4.weight", "encoder.bn1.running_mean", "head.layers.1.linear.bias"];
        for joint in [false, true] {
            let encoder = EncoderSettings::ConvNet(ConvNetSettings { base_width: 4, ..ConvNetSettings::default() });
            simclr_obeys_method_rules(simclr(encoder, HeadSettings::PaperV1, joint), &names);
        }
    }

    #[test]
    fn simclr_with_every_resnet_obeys_method_rules() {
        let settings =
            |stem| ResNetSettings { stem, base_width: 4, zero_init_residual: false, norm: NormSettings::Batch };
        let names = [
            "encoder.conv1.weight",
            "encoder.bn1.running_var",
            "encoder.layer1.0.bn2.bias",
            "encoder.layer2.0.downsample.0.weight",
            "encoder.layer4.1.downsample.1.running_mean",
        ];
        simclr_obeys_method_rules(
            simclr(EncoderSettings::ResNet18(settings(Stem::Cifar)), HeadSettings::GoogleV1, false),
            &names[..4],
        );
        simclr_obeys_method_rules(
            simclr(EncoderSettings::ResNet34(settings(Stem::Imagenet)), HeadSettings::GoogleV2, false),
            &names[..4],
        );
        simclr_obeys_method_rules(
            simclr(EncoderSettings::ResNet50(settings(Stem::Imagenet)), HeadSettings::GoogleV2, true),
            &["encoder.layer1.0.downsample.0.weight", "encoder.layer1.0.conv3.weight", "head.layers.2.bn.weight"],
        );
    }

    #[test]
    fn simclr_without_batch_norm_obeys_method_rules() {
        let norm = NormSettings::Group;
        let convnet = EncoderSettings::ConvNet(ConvNetSettings { base_width: 4, norm });
        let resnet = EncoderSettings::ResNet18(ResNetSettings { norm, base_width: 4, ..ResNetSettings::default() });
        for (encoder, name) in [(convnet, "encoder.bn4.weight"), (resnet, "encoder.layer2.0.downsample.1.bias")] {
            let settings = SimclrSettings { joint_forward: true, ..simclr(encoder, HeadSettings::PaperV1, false) };
            let start = parameters(&make(settings.clone())(1, &Device::flex()), None).values;
            assert!(start.contains_key(name) && !start.keys().any(|path| is_buffer(path)), "{:?}", start.keys());
            if name.starts_with("encoder.bn4") {
                simclr_obeys_method_rules(settings, &[name]);
            }
        }
    }

    #[test]
    fn frozen_statistics_do_not_move() {
        let device = Device::flex().autodiff();
        let encoder = ConvNetSettings { base_width: 4, norm: NormSettings::Frozen };
        let settings = simclr(EncoderSettings::ConvNet(encoder), HeadSettings::PaperV1, false);
        let mut method = make(settings)(1, &device);
        let start = parameters(&method, None).values;
        let gradients = method.train_loss(views(4, &device), 0).expect("two views").loss.backward();
        let after = parameters(&method, Some(&gradients));
        assert_eq!(after.values, start);
        assert!(start.keys().any(|path| is_buffer(path)));
        assert!(start.keys().all(|path| after.slopes.contains_key(path) != is_buffer(path)));
    }

    #[test]
    fn zero_gain_starts_blocks_as_identities_but_not_under_compat_torch() {
        let device = Device::flex();
        let encoder = EncoderSettings::ResNet18(ResNetSettings { base_width: 4, ..ResNetSettings::default() });
        let settings = simclr(encoder, HeadSettings::PaperV1, false);
        for (compat_torch, gain) in [(false, 0.0), (true, 1.0)] {
            let method =
                SimCLR::new(&settings, InitOptions { seed: 1, compat_torch }, &device).expect("plain settings");
            let values = parameters(&method, None).values;
            assert_eq!(values["encoder.layer1.0.bn2.weight"], [gain; 4]);
            assert_eq!(values["encoder.layer1.0.bn1.weight"], [1.0; 4]);
        }
    }

    #[test]
    fn joint_forward_shares_statistics_between_the_views() {
        let device = Device::flex();
        let encoder = || EncoderSettings::ConvNet(ConvNetSettings { base_width: 4, ..ConvNetSettings::default() });
        let loss = |joint| {
            let mut settings = simclr(encoder(), HeadSettings::PaperV1, joint);
            settings.imagenet_normalization = false;
            let views = Input::Views(vec![pixels(4, 0.0, &device), pixels(4, 1.3, &device) * 0.5]);
            make(settings)(1, &device).train_loss(views, 0).expect("two views").loss.into_scalar::<f32>()
        };
        assert!((loss(true) - loss(false)).abs() > 1e-4);
    }
}
