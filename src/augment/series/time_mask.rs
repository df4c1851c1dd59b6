//! `time_mask`: zeros for some stretches.
use serde::{Deserialize, Serialize};

use super::{SeriesOp, Window};
use crate::seed::Draws;

/// `time_mask`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeMaskSettings {
    /// Of each mask, in [0, 1].
    #[serde(default = "always")]
    pub probability: f64,
    /// Steps of a mask, lowest and highest.
    pub steps: [usize; 2],
    /// Masks per window.
    #[serde(default = "one")]
    pub masks: usize,
}
fn always() -> f64 {
    1.0
}
fn one() -> usize {
    1
}

/// Stretches of zeros over all channels; two of them may overlap.
#[derive(Debug, Clone, PartialEq)]
pub struct TimeMask {
    /// Of each mask, in [0, 1].
    pub probability: f64,
    /// Lowest and highest; at most the window.
    pub steps: [usize; 2],
    /// Masks per window.
    pub masks: usize,
}

impl TimeMask {
    /// As a pipeline writes it.
    pub const NAME: &'static str = "time_mask";

    /// From settings that the recipe has checked.
    pub fn new(settings: &TimeMaskSettings) -> Self {
        Self { probability: settings.probability, steps: settings.steps, masks: settings.masks }
    }
}

impl SeriesOp for TimeMask {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn describe(&self) -> String {
        format!("{} v1 probability={} steps={:?} masks={}", Self::NAME, self.probability, self.steps, self.masks)
    }

    fn apply(&self, window: &mut Window, draws: &mut Draws) {
        let [low, high] = self.steps.map(|steps| steps.min(window.steps));
        for _ in 0..self.masks {
            let is_masked = draws.chance(self.probability);
            let length = low + draws.below((high - low) as u64 + 1) as usize;
            let start = draws.below((window.steps - length) as u64 + 1) as usize;
            if is_masked {
                window.channels_mut().for_each(|channel| channel[start..start + length].fill(0.0));
            }
        }
    }
}
