//! Windows of series into other windows: one keyed op per file.
//!
//! | op | does |
//! |---|---|
//! | [`random_segment`] | keeps a shorter stretch |
//! | [`rescale`] | one factor for all numbers |
//! | [`add_noise`] | Gaussian noise |
//! | [`time_mask`] | zeros for some stretches |
//! | [`channel_drop`] | zeros for some channels |
pub mod add_noise;
pub mod channel_drop;
pub mod random_segment;
pub mod recipe;
pub mod rescale;
pub mod time_mask;

use std::fmt::Debug;

use crate::seed::Draws;

/// A stretch of a series, `[channels, steps]`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Window {
    /// Rows of [`Self::values`].
    pub channels: usize,
    /// Columns of [`Self::values`].
    pub steps: usize,
    /// Channel after channel.
    pub values: Vec<f32>,
}

impl Window {
    /// The numbers of each channel.
    pub fn channels_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.values.chunks_exact_mut(self.steps.max(1))
    }
}

/// One op of a recipe: a pure function of the window and its draws.
pub trait SeriesOp: Debug + Send + Sync {
    /// As a pipeline writes it.
    fn name(&self) -> &'static str;
    /// Name, version, settings.
    fn describe(&self) -> String;
    /// Steps of what it makes of a window of `steps`.
    fn steps_after(&self, steps: usize) -> usize {
        steps
    }
    /// Changes the window.
    fn apply(&self, window: &mut Window, draws: &mut Draws);
}

#[cfg(test)]
mod tests {
    use super::{
        add_noise::{AddNoise, AddNoiseSettings},
        channel_drop::{ChannelDrop, ChannelDropSettings},
        random_segment::{RandomSegment, RandomSegmentSettings},
        rescale::{Rescale, RescaleSettings},
        time_mask::{TimeMask, TimeMaskSettings},
        *,
    };
    use crate::seed::draws;

    fn window(channels: usize, steps: usize) -> Window {
        let values = (0..channels * steps).map(|at| 1.0 + at as f32).collect();
        Window { channels, steps, values }
    }

    fn after(op: &dyn SeriesOp, window: &Window, number: u64) -> Window {
        let mut changed = window.clone();
        op.apply(&mut changed, &mut draws(3, op.name(), &[number]));
        changed
    }

    /// What holds for every op: same draws, same numbers; other draws, other numbers; the announced shape; a description
    /// that names it; no panic on the smallest windows.
    fn obeys_series_op_rules(op: &dyn SeriesOp) {
        let whole = window(3, 50);
        let results: Vec<Window> = (0..16).map(|number| after(op, &whole, number)).collect();
        for (number, result) in results.iter().enumerate() {
            assert_eq!(*result, after(op, &whole, number as u64), "{}", op.name());
            assert_eq!((result.channels, result.steps), (3, op.steps_after(50)), "{}", op.name());
            assert_eq!(result.values.len(), 3 * result.steps);
            assert!(result.values.iter().all(|x| x.is_finite()));
        }
        assert!(results.iter().any(|result| *result != results[0]), "{} never draws", op.name());
        assert!(op.describe().starts_with(op.name()), "{}", op.describe());
        for (channels, steps) in [(1, 1), (1, 2), (2, 1)] {
            let small = after(op, &window(channels, steps), 0);
            assert_eq!(small.values.len(), channels * op.steps_after(steps));
        }
    }

    #[test]
    fn every_op_obeys_the_rules() {
        let ops: [&dyn SeriesOp; 5] = [
            &RandomSegment::new(&RandomSegmentSettings { steps: 20 }),
            &Rescale::new(&RescaleSettings { probability: 1.0, factor: [0.5, 2.0] }),
            &AddNoise::new(&AddNoiseSettings { probability: 1.0, sigma: [0.1, 0.2] }),
            &TimeMask::new(&TimeMaskSettings { probability: 1.0, steps: [1, 10], masks: 2 }),
            &ChannelDrop::new(&ChannelDropSettings { probability: 0.5 }),
        ];
        ops.into_iter().for_each(obeys_series_op_rules);
    }

    #[test]
    fn a_segment_is_one_stretch_of_every_channel() {
        let op = RandomSegment::new(&RandomSegmentSettings { steps: 20 });
        let mut starts = std::collections::BTreeSet::new();
        for number in 0..200 {
            let Window { values, .. } = after(&op, &window(2, 50), number);
            let start = values[0];
            starts.insert(start as u32);
            assert!((0..20).all(|step| values[step] == start + step as f32));
            assert!((0..20).all(|step| values[20 + step] == start + 50.0 + step as f32));
        }
        assert_eq!((starts.first(), starts.last()), (Some(&1), Some(&31)), "both ends are reached");
    }

    #[test]
    fn a_factor_is_one_for_all_numbers_and_lies_in_its_range() {
        let op = Rescale::new(&RescaleSettings { probability: 1.0, factor: [0.5, 2.0] });
        for number in 0..100 {
            let whole = window(2, 5);
            let changed = after(&op, &whole, number);
            let factor = changed.values[0];
            assert!((0.5..=2.0).contains(&factor), "{factor}");
            assert!(changed.values.iter().zip(&whole.values).all(|(new, old)| (new / old - factor).abs() < 1e-5));
        }
        let never = Rescale::new(&RescaleSettings { probability: 0.0, factor: [0.5, 2.0] });
        assert_eq!(after(&never, &window(2, 5), 0), window(2, 5));
    }

    #[test]
    fn noise_has_the_deviation_that_was_drawn() {
        let op = AddNoise::new(&AddNoiseSettings { probability: 1.0, sigma: [0.25, 0.25] });
        let silence = Window { channels: 1, steps: 20_000, values: vec![0.0; 20_000] };
        let noise = after(&op, &silence, 0).values;
        let mean = noise.iter().sum::<f32>() / 20_000.0;
        let variance = noise.iter().map(|x| x * x).sum::<f32>() / 20_000.0;
        assert!(mean.abs() < 0.01 && (variance.sqrt() - 0.25).abs() < 0.01, "{mean} {variance}");
    }

    #[test]
    fn masks_are_stretches_over_all_channels() {
        let op = TimeMask::new(&TimeMaskSettings { probability: 1.0, steps: [3, 6], masks: 1 });
        for number in 0..50 {
            let Window { values, .. } = after(&op, &window(2, 40), number);
            let masked: Vec<usize> = (0..40).filter(|&step| values[step] == 0.0).collect();
            assert!((3..=6).contains(&masked.len()), "{masked:?}");
            assert_eq!(masked.last().unwrap() - masked[0] + 1, masked.len(), "{masked:?}");
            assert_eq!(masked, (0..40).filter(|&step| values[40 + step] == 0.0).collect::<Vec<_>>());
        }
    }

    #[test]
    fn one_channel_always_stays() {
        let op = ChannelDrop::new(&ChannelDropSettings { probability: 1.0 });
        let mut kept = std::collections::BTreeSet::new();
        for number in 0..50 {
            let mut changed = after(&op, &window(3, 4), number);
            let channels: Vec<bool> = changed.channels_mut().map(|channel| channel[0] != 0.0).collect();
            assert_eq!(channels.iter().filter(|kept| **kept).count(), 1, "{channels:?}");
            kept.insert(channels);
        }
        assert_eq!(kept.len(), 3, "each of them at some time");
        assert_eq!(after(&op, &window(1, 4), 0), window(1, 4));
    }
}
