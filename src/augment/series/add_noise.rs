//! `add_noise`: Gaussian noise on every number.
use serde::{Deserialize, Serialize};

use super::{SeriesOp, Window};
use crate::seed::Draws;

/// `add_noise`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddNoiseSettings {
    /// In [0, 1].
    #[serde(default = "always")]
    pub probability: f64,
    /// Standard deviation in units of the samples, lowest and highest.
    pub sigma: [f64; 2],
}
fn always() -> f64 {
    1.0
}

/// White noise of one deviation per window.
#[derive(Debug, Clone, PartialEq)]
pub struct AddNoise {
    /// In [0, 1].
    pub probability: f64,
    /// Lowest and highest.
    pub sigma: [f64; 2],
}

impl AddNoise {
    /// As a pipeline writes it.
    pub const NAME: &'static str = "add_noise";

    /// From settings that the recipe has checked.
    pub fn new(settings: &AddNoiseSettings) -> Self {
        Self { probability: settings.probability, sigma: settings.sigma }
    }
}

impl SeriesOp for AddNoise {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn describe(&self) -> String {
        format!("{} v1 probability={} sigma={:?}", Self::NAME, self.probability, self.sigma)
    }

    fn apply(&self, window: &mut Window, draws: &mut Draws) {
        if draws.chance(self.probability) {
            let sigma = draws.between(self.sigma[0], self.sigma[1]);
            window.values.iter_mut().for_each(|value| *value += (sigma * draws.normal()) as f32);
        }
    }
}
