//! A recipe of series ops as written and as resolved.
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    SeriesOp, Window,
    add_noise::{AddNoise, AddNoiseSettings},
    channel_drop::{ChannelDrop, ChannelDropSettings},
    random_segment::{RandomSegment, RandomSegmentSettings},
    rescale::{Rescale, RescaleSettings},
    time_mask::{TimeMask, TimeMaskSettings},
};
use crate::{
    augment::image::recipe::RecipeProblem,
    seed::{DrawKey, ItemKey},
};

/// One op of a series recipe, as a pipeline writes it: `{ rescale = { factor = [0.5, 2.0] } }`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeriesOpSettings {
    /// A shorter stretch of the window.
    RandomSegment(RandomSegmentSettings),
    /// One factor for all numbers.
    Rescale(RescaleSettings),
    /// Gaussian noise.
    AddNoise(AddNoiseSettings),
    /// Zeros for some stretches.
    TimeMask(TimeMaskSettings),
    /// Zeros for some channels.
    ChannelDrop(ChannelDropSettings),
}

impl SeriesOpSettings {
    fn op(&self) -> Arc<dyn SeriesOp> {
        match self {
            Self::RandomSegment(settings) => Arc::new(RandomSegment::new(settings)),
            Self::Rescale(settings) => Arc::new(Rescale::new(settings)),
            Self::AddNoise(settings) => Arc::new(AddNoise::new(settings)),
            Self::TimeMask(settings) => Arc::new(TimeMask::new(settings)),
            Self::ChannelDrop(settings) => Arc::new(ChannelDrop::new(settings)),
        }
    }

    /// What is wrong with it, as key, problem and remedy, where windows have `steps`.
    fn problems(&self, steps: usize) -> Vec<(&'static str, String, &'static str)> {
        let mut problems = Vec::new();
        let mut chance = |probability: f64| {
            if !(0.0..=1.0).contains(&probability) {
                problems.push(("probability", format!("{probability} is no probability"), "0 to 1"));
            }
        };
        match self {
            Self::RandomSegment(settings) => {
                if settings.steps == 0 || settings.steps > steps {
                    let problem = format!("{} steps of a window of {steps}", settings.steps);
                    problems.push(("steps", problem, "1 to the steps of the window"));
                }
            }
            Self::Rescale(settings) => {
                chance(settings.probability);
                let [low, high] = settings.factor;
                if !(low > 0.0 && low <= high && high.is_finite()) {
                    problems.push(("factor", format!("{low} to {high} is no range of factors"), "both above 0"));
                }
            }
            Self::AddNoise(settings) => {
                chance(settings.probability);
                let [low, high] = settings.sigma;
                if !(low >= 0.0 && low <= high && high.is_finite()) {
                    problems.push(("sigma", format!("{low} to {high} is no range of deviations"), "0 or more"));
                }
            }
            Self::TimeMask(settings) => {
                chance(settings.probability);
                let [low, high] = settings.steps;
                if low > high || high >= steps {
                    let problem = format!("masks of {low} to {high} steps in a window of {steps}");
                    problems.push(("steps", problem, "lowest and highest, below the steps of the window"));
                }
                if settings.masks == 0 {
                    problems.push(("masks", "no mask".to_owned(), "1 or more, or leave the op out"));
                }
            }
            Self::ChannelDrop(settings) => chance(settings.probability),
        }
        problems
    }
}

/// A recipe that has been checked for windows of one length.
#[derive(Debug, Clone)]
pub struct SeriesRecipe {
    ops: Vec<Arc<dyn SeriesOp>>,
    /// For each op, how many of its name come before it: a part of its draws' name.
    occurrences: Vec<u32>,
    steps: usize,
}

/// Whose window: the part of the draws' name that an op does not choose.
#[derive(Debug, Clone, Copy)]
pub struct WindowKey {
    /// The run's seed.
    pub seed: u64,
    /// Pass over the source.
    pub pass: u64,
    /// Which item.
    pub item: ItemKey,
    /// Which of the item's windows.
    pub window: u32,
}

impl WindowKey {
    /// The draws of one op, or of the pairing.
    pub fn draws(&self, op: &str, op_occurrence: u32) -> crate::seed::Draws {
        let Self { seed, pass, item, window } = *self;
        DrawKey { seed, pass, item, view: window, op, op_occurrence }.draws()
    }
}

impl SeriesRecipe {
    /// Checks the ops for windows of `window_steps`.
    ///
    /// # Errors
    /// Every problem, at once.
    pub fn resolve(written: &[SeriesOpSettings], window_steps: usize) -> Result<Self, Vec<RecipeProblem>> {
        let (mut ops, mut occurrences, mut problems): (Vec<Arc<dyn SeriesOp>>, _, _) = (vec![], vec![], vec![]);
        let mut steps = window_steps;
        for (at, settings) in written.iter().enumerate() {
            let op = settings.op();
            for (key, problem, remedy) in settings.problems(steps) {
                let path = format!("series[{at}].{}.{key}", op.name());
                problems.push(RecipeProblem { path, problem, remedy: remedy.to_owned() });
            }
            steps = op.steps_after(steps).max(1);
            occurrences.push(ops.iter().filter(|other| other.name() == op.name()).count() as u32);
            ops.push(op);
        }
        if problems.is_empty() { Ok(Self { ops, occurrences, steps }) } else { Err(problems) }
    }

    /// Steps of what it makes.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Whether windows stay as they are.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Everything that decides the numbers, as one line.
    pub fn describe(&self) -> String {
        self.ops.iter().map(|op| op.describe()).collect::<Vec<_>>().join(" | ")
    }

    /// Changes a window.
    pub fn apply(&self, window: &mut Window, key: WindowKey) {
        for (op, occurrence) in self.ops.iter().zip(&self.occurrences) {
            op.apply(window, &mut key.draws(op.name(), *occurrence));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> Vec<SeriesOpSettings> {
        #[derive(Deserialize)]
        struct Written {
            series: Vec<SeriesOpSettings>,
        }
        toml::from_str::<Written>(&format!("series = [{text}]")).unwrap().series
    }

    #[test]
    fn ops_of_one_name_draw_on_their_own() {
        let twice = written("{ rescale = { factor = [0.5, 2.0] } }, { rescale = { factor = [0.5, 2.0] } }");
        let recipe = SeriesRecipe::resolve(&twice, 4).unwrap();
        let item = ItemKey { shard: 1, row: 2, occurrence: 0 };
        let key = WindowKey { seed: 0, pass: 0, item, window: 0 };
        let factor = |occurrence: u32| {
            let mut window = Window { channels: 1, steps: 1, values: vec![1.0] };
            recipe.ops[0].apply(&mut window, &mut key.draws("rescale", occurrence));
            window.values[0]
        };
        let mut window = Window { channels: 1, steps: 4, values: vec![1.0; 4] };
        recipe.apply(&mut window, key);
        assert_ne!(factor(0), factor(1));
        assert!((window.values[3] - factor(0) * factor(1)).abs() < 1e-6);
    }

    #[test]
    fn later_ops_are_checked_against_what_earlier_ones_leave() {
        let good = "{ random_segment = { steps = 8 } }, { time_mask = { steps = [1, 4], masks = 2 } }";
        assert_eq!(SeriesRecipe::resolve(&written(good), 10).unwrap().steps(), 8);
        let bad = "{ random_segment = { steps = 8 } }, { time_mask = { steps = [1, 8] } }, \
                   { random_segment = { steps = 9 } }, { rescale = { factor = [0.0, 1.0], probability = 2.0 } }, \
                   { add_noise = { sigma = [2.0, 1.0] } }, { channel_drop = { probability = -1.0 } }";
        let problems = SeriesRecipe::resolve(&written(bad), 10).unwrap_err();
        let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
        let expected = [
            "series[1].time_mask.steps",
            "series[2].random_segment.steps",
            "series[3].rescale.probability",
            "series[3].rescale.factor",
            "series[4].add_noise.sigma",
            "series[5].channel_drop.probability",
        ];
        assert_eq!(paths, expected);
    }
}
