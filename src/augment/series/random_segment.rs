//! `random_segment`: keeps a shorter stretch of the window.
use serde::{Deserialize, Serialize};

use super::{SeriesOp, Window};
use crate::seed::Draws;

/// `random_segment`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RandomSegmentSettings {
    /// Steps that are kept.
    pub steps: usize,
}

/// A stretch of so many steps, every start equally likely, the same of all channels.
#[derive(Debug, Clone, PartialEq)]
pub struct RandomSegment {
    /// Steps that are kept; all of a window that has no more.
    pub steps: usize,
}

impl RandomSegment {
    /// As a pipeline writes it.
    pub const NAME: &'static str = "random_segment";

    /// From settings that the recipe has checked.
    pub fn new(settings: &RandomSegmentSettings) -> Self {
        Self { steps: settings.steps }
    }
}

impl SeriesOp for RandomSegment {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn describe(&self) -> String {
        format!("{} v1 steps={}", Self::NAME, self.steps)
    }

    fn steps_after(&self, steps: usize) -> usize {
        self.steps.min(steps)
    }

    fn apply(&self, window: &mut Window, draws: &mut Draws) {
        let kept = self.steps_after(window.steps);
        let start = draws.below((window.steps - kept) as u64 + 1) as usize;
        for channel in 0..window.channels {
            let from = channel * window.steps + start;
            window.values.copy_within(from..from + kept, channel * kept);
        }
        window.steps = kept;
        window.values.truncate(window.channels * kept);
    }
}
