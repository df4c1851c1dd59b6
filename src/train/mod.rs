//! The loop, its optimizers and its checkpoints.
//!
//! | module | holds |
//! |---|---|
//! | [`run_loop`] | the loop on one page |
//! | [`chunks`] | the gradients of a batch, in one piece or several |
//! | [`optimizer`], [`schedule`], [`clip`], [`ema`] | what a step does to the weights |
//! | [`parameters`], [`state`], [`safetensors`] | a module's tensors by path |
//! | [`checkpoint`], [`identity`], [`progress`] | what survives a process |
//! | [`metrics`], [`collapse`] | what is reported |
//! | [`stop`] | signals |
use serde::{Deserialize, Serialize};

pub mod checkpoint;
pub mod chunks;
pub mod clip;
pub mod collapse;
pub mod ema;
mod flat;
pub mod identity;
pub mod metrics;
pub mod optimizer;
pub mod parameters;
pub mod progress;
mod recorder;
pub mod report;
pub mod run_loop;
pub mod safetensors;
pub mod schedule;
pub mod state;
pub mod stop;
#[cfg(test)]
mod toy;

pub use optimizer::{adamw::AdamWSettings, lars::LarsSettings, sgd::SgdSettings};
pub use run_loop::{BatchSource, Observer, TrainPlan, TrainReport, train};

/// `[train]` of a pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainSettings {
    /// Passes over the selection.
    pub epochs: u64,
    /// Exactly one optimizer.
    pub optimizer: OptimizerSettings,
    /// How the peak rate follows the batch: the optimizer's `rate` is for 256 rows under `linear`, for 1 under `square_root`.
    #[serde(default)]
    pub rate_scaling: RateScaling,
    /// Exactly one schedule.
    #[serde(default)]
    pub schedule: ScheduleSettings,
    /// Take each batch in so many chunks, with the loss and the gradients of the whole: the encoders' activations are those
    /// of one chunk, and embeddings are computed twice. Not with BatchNorm.
    #[serde(default = "one_chunk", skip_serializing_if = "is_one_chunk")]
    pub chunks: usize,
    /// Scale gradients down to this global norm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_gradient_norm: Option<f64>,
    /// Keep an exponential moving average of the weights with this decay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema_decay: Option<f64>,
    /// Steps between two lines of `metrics.jsonl`.
    #[serde(default = "one")]
    pub report_every_steps: u64,
    /// Steps between two checkpoints; default: one at each epoch's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_every_steps: Option<u64>,
    /// Checkpoints kept; older ones are removed.
    #[serde(default = "two")]
    pub keep_checkpoints: usize,
    /// Stop after so many steps, before the epochs are over. The schedule still spans all epochs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u64>,
    /// `torch`: weight decay on every tensor (but for CLIP, as in open_clip), PyTorch's default initialisation, no zero gain, unbiased running variance,
    /// both views in one forward.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compat: Option<Compat>,
}

impl TrainSettings {
    /// The defaults of everything that has one.
    pub fn new(epochs: u64, optimizer: OptimizerSettings) -> Self {
        Self {
            epochs,
            optimizer,
            rate_scaling: RateScaling::default(),
            schedule: ScheduleSettings::default(),
            chunks: one_chunk(),
            clip_gradient_norm: None,
            ema_decay: None,
            report_every_steps: one(),
            checkpoint_every_steps: None,
            keep_checkpoints: two(),
            max_steps: None,
            compat: None,
        }
    }
}

fn one() -> u64 {
    1
}
fn one_chunk() -> usize {
    1
}
fn is_one_chunk(chunks: &usize) -> bool {
    *chunks == 1
}
fn two() -> usize {
    2
}

/// Whose habits to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compat {
    /// A plain PyTorch script's.
    Torch,
}

/// `optimizer.*`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerSettings {
    /// SGD with momentum.
    Sgd(SgdSettings),
    /// Loshchilov and Hutter.
    #[serde(rename = "adamw")]
    AdamW(AdamWSettings),
    /// You et al., as google-research/simclr defines it.
    Lars(LarsSettings),
}

/// How the peak rate follows the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RateScaling {
    /// rate
    #[default]
    None,
    /// rate · batch rows / 256
    Linear,
    /// rate · √(batch rows)
    SquareRoot,
}

/// `schedule.*`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleSettings {
    /// The peak rate after the warm-up.
    Constant(WarmupSettings),
    /// Half a cosine from the peak to 0 after the warm-up.
    Cosine(WarmupSettings),
}
impl Default for ScheduleSettings {
    fn default() -> Self {
        Self::Cosine(WarmupSettings::default())
    }
}

/// Linear from 0.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WarmupSettings {
    /// Length in epochs; may be a fraction.
    pub warmup_epochs: f64,
}
