//! `rescale`: louder or softer.
use serde::{Deserialize, Serialize};

use super::{SeriesOp, Window};
use crate::seed::Draws;

/// `rescale`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RescaleSettings {
    /// In [0, 1].
    #[serde(default = "always")]
    pub probability: f64,
    /// Factor, lowest and highest, drawn log-uniformly: half as loud is as likely as twice as loud.
    pub factor: [f64; 2],
}
fn always() -> f64 {
    1.0
}

/// All numbers of a window times one factor.
#[derive(Debug, Clone, PartialEq)]
pub struct Rescale {
    /// In [0, 1].
    pub probability: f64,
    /// Lowest and highest.
    pub factor: [f64; 2],
}

impl Rescale {
    /// As a pipeline writes it.
    pub const NAME: &'static str = "rescale";

    /// From settings that the recipe has checked.
    pub fn new(settings: &RescaleSettings) -> Self {
        Self { probability: settings.probability, factor: settings.factor }
    }
}

impl SeriesOp for Rescale {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn describe(&self) -> String {
        format!("{} v1 probability={} factor={:?}", Self::NAME, self.probability, self.factor)
    }

    fn apply(&self, window: &mut Window, draws: &mut Draws) {
        if draws.chance(self.probability) {
            let [low, high] = self.factor.map(libm::log);
            let factor = libm::exp(draws.between(low, high)) as f32;
            window.values.iter_mut().for_each(|value| *value *= factor);
        }
    }
}
