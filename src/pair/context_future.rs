//! `context_future`: windows of series, in each of which what comes first predicts what comes later.
//!
//! Which frames of a window are compared is the loss's; which windows meet is decided here: several of one series where
//! asked, none that crosses a series' end, no two at the same place.
use serde::{Deserialize, Serialize};

use super::{series_source::Scale, series_windows::SeriesWindows, starts::Starts};
use crate::augment::{image::recipe::RecipeProblem, recipe::AugmentSettings, series::recipe::SeriesRecipe};

/// `[pair.context_future]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContextFutureSettings {
    /// Column with the series.
    #[serde(default = "default_column")]
    pub column: String,
    /// Numbers per step; series with others are bad samples.
    #[serde(default = "one")]
    pub channels: usize,
    /// Steps of a window.
    pub window_steps: usize,
    /// Windows begin at multiples of it.
    #[serde(default = "one")]
    pub hop_steps: usize,
    /// Where they begin.
    #[serde(default)]
    pub offsets: Offsets,
    /// Windows of one series that meet in a batch.
    #[serde(default = "one")]
    pub windows_per_series: usize,
    /// Column whose values say which series belong together, for negatives of the same group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// By what the whole series holds.
    #[serde(default)]
    pub scale: Scale,
    /// Steps per second, where the series are audio: evaluations then have MFCC statistics as their floor. Series of other
    /// rates are for `scan.sql` to leave out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_hz: Option<f64>,
    /// Windows of one series that an evaluation averages over, from its first step to its last.
    #[serde(default = "one")]
    pub evaluation_windows: usize,
    /// Steps of each of those windows, where not `window_steps`: with the longest series' and one window, an evaluation
    /// sees all of every series, shorter ones followed by zeros.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation_steps: Option<usize>,
}
pub(super) fn default_column() -> String {
    "samples".into()
}
pub(super) fn one() -> usize {
    1
}

/// Where the windows of a series begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Offsets {
    /// Drawn anew in every pass, keyed by seed, pass and item.
    #[default]
    Random,
    /// The same in every pass, spread evenly.
    Regular,
    /// One behind the other: the first repeat of a series in the selection begins at 0, the next where that would go on by one more
    /// hop, and from the start again behind the last. A selection that repeats each series once per window sees every window
    /// once in a pass.
    Successive,
}

/// The windows of `[pair.context_future]`, `[channels, steps]` per row, `windows_per_series` rows per series.
#[derive(Debug, Clone, Copy)]
pub struct ContextFuture;

impl ContextFuture {
    /// As a pipeline writes it.
    pub const NAME: &'static str = "context_future";
    /// Under which name evaluations describe their windows.
    pub const EVALUATION_NAME: &'static str = "series_windows";

    /// The windows that training sees.
    ///
    /// # Errors
    /// Every problem of the recipe.
    pub fn training(
        settings: &ContextFutureSettings,
        augment: &AugmentSettings,
    ) -> Result<SeriesWindows, Vec<RecipeProblem>> {
        let hop_steps = settings.hop_steps.max(1);
        let starts = match settings.offsets {
            Offsets::Random => Starts::Random { hop_steps },
            Offsets::Regular => Starts::Regular { hop_steps },
            Offsets::Successive => Starts::Successive { hop_steps },
        };
        let recipe = SeriesRecipe::resolve(&augment.series, settings.window_steps)?;
        Ok(windows(Self::NAME, settings, settings.windows_per_series, starts, recipe))
    }

    /// The windows that an evaluation sees: no op, no draw.
    ///
    /// # Errors
    /// None: there is no op that could be wrong.
    pub fn evaluation(settings: &ContextFutureSettings) -> Result<SeriesWindows, Vec<RecipeProblem>> {
        let window_steps = settings.evaluation_steps.unwrap_or(settings.window_steps);
        let recipe = SeriesRecipe::resolve(&[], window_steps)?;
        let windows = windows(Self::EVALUATION_NAME, settings, settings.evaluation_windows, Starts::Covering, recipe);
        Ok(SeriesWindows { group: None, window_steps, ..windows })
    }
}

fn windows(
    name: &'static str,
    settings: &ContextFutureSettings,
    windows: usize,
    starts: Starts,
    recipe: SeriesRecipe,
) -> SeriesWindows {
    SeriesWindows {
        name,
        column: settings.column.clone(),
        channels: settings.channels,
        window_steps: settings.window_steps,
        windows,
        starts,
        scale: settings.scale,
        parts: vec![],
        part_steps: recipe.steps(),
        group: settings.group.clone(),
        shape: vec![settings.channels, recipe.steps()],
        recipe,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        augment::BadClass,
        pair::{Encoded, Numbers, SampleKernel},
        seed::ItemKey,
    };

    fn settings(text: &str) -> ContextFutureSettings {
        toml::from_str(text).unwrap()
    }

    fn training(text: &str) -> SeriesWindows {
        ContextFuture::training(&settings(text), &AugmentSettings::default()).unwrap()
    }

    /// Windows of the series 0, 1, 2, ….
    fn windows(kernel: &SeriesWindows, steps: usize, pass: u64, row: u64) -> Result<Vec<Vec<f32>>, BadClass> {
        repeated(kernel, steps, pass, ItemKey { shard: 1, row, occurrence: 0 })
    }

    fn repeated(kernel: &SeriesWindows, steps: usize, pass: u64, item: ItemKey) -> Result<Vec<Vec<f32>>, BadClass> {
        let bytes: Vec<u8> = (0..steps).flat_map(|x| (x as f32).to_le_bytes()).collect();
        let mut out = vec![0xff; kernel.slot_bytes()];
        let encoded = Encoded { bytes: &bytes, numbers: Numbers::F32, channels: 1, facts: None };
        kernel.apply(encoded, 7, pass, item, &mut out).map_err(|bad| bad.class)?;
        let facts = kernel.facts(encoded).unwrap();
        let mut again = vec![0xff; kernel.slot_bytes()];
        kernel.apply(Encoded { facts: Some(&facts), ..encoded }, 7, pass, item, &mut again).unwrap();
        assert_eq!(again, out, "facts that were kept change nothing");
        let values: Vec<f32> = out.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        Ok(values.chunks(kernel.shape()[1]).map(<[f32]>::to_vec).collect())
    }

    #[test]
    fn windows_never_cross_the_end_and_reach_both_ends() {
        let kernel = training("window_steps = 10");
        let mut starts = BTreeSet::new();
        for row in 0..400 {
            let found = windows(&kernel, 25, 0, row).unwrap();
            assert_eq!(found.len(), 1);
            assert!(found[0].windows(2).all(|pair| pair[1] - pair[0] == 1.0));
            starts.insert(found[0][0] as usize);
        }
        assert_eq!(starts, (0..=15).collect());
    }

    #[test]
    fn windows_of_one_series_are_at_different_places_on_the_grid() {
        let kernel = training("window_steps = 4\nhop_steps = 3\nwindows_per_series = 5");
        assert_eq!(kernel.least_steps(), 16);
        for row in 0..200 {
            let starts: BTreeSet<usize> =
                windows(&kernel, 20, 0, row).unwrap().iter().map(|window| window[0] as usize).collect();
            assert!(starts.len() == 5 && starts.iter().all(|start| start % 3 == 0 && *start <= 15), "{starts:?}");
        }
        // Exactly as many places as windows.
        let all: BTreeSet<usize> =
            windows(&kernel, 16, 0, 0).unwrap().iter().map(|window| window[0] as usize).collect();
        assert_eq!(all, [0, 3, 6, 9, 12].into());
        assert_eq!(windows(&kernel, 15, 0, 0), Err(BadClass::TooShort));
    }

    #[test]
    fn random_offsets_are_drawn_by_seed_pass_and_item_and_regular_ones_by_none() {
        let random = training("window_steps = 10\nwindows_per_series = 2");
        let drawn = |pass, row| windows(&random, 500, pass, row).unwrap();
        assert_eq!(drawn(0, 0), drawn(0, 0));
        assert!(drawn(0, 0) != drawn(1, 0) && drawn(0, 0) != drawn(0, 1));
        let regular = training("window_steps = 10\nwindows_per_series = 2\noffsets = \"regular\"");
        let found = windows(&regular, 50, 0, 0).unwrap();
        assert_eq!(found, windows(&regular, 50, 3, 9).unwrap());
        assert_eq!((found[0][0], found[1][0]), (10.0, 30.0));
    }

    #[test]
    fn repeats_of_a_series_walk_through_its_windows() {
        let kernel = training("window_steps = 10\nhop_steps = 5\nwindows_per_series = 2\noffsets = \"successive\"");
        let starts = |occurrence, pass| -> Vec<f32> {
            let item = ItemKey { shard: 1, row: 0, occurrence };
            repeated(&kernel, 33, pass, item).unwrap().iter().map(|window| window[0]).collect()
        };
        // Places at 0, 5, 10, 15, 20; 25 would end behind the series.
        assert_eq!([starts(0, 0), starts(1, 0), starts(2, 5)], [[0.0, 5.0], [10.0, 15.0], [20.0, 0.0]]);
    }

    #[test]
    fn evaluations_cover_a_series_and_take_short_ones_too() {
        let kernel = ContextFuture::evaluation(&settings("window_steps = 10\nevaluation_windows = 3")).unwrap();
        let starts: Vec<f32> = windows(&kernel, 30, 0, 0).unwrap().iter().map(|window| window[0]).collect();
        assert_eq!(starts, [0.0, 10.0, 20.0]);
        let short = windows(&kernel, 3, 0, 0).unwrap();
        assert_eq!(short[0], [0.0, 1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!((kernel.least_steps(), windows(&kernel, 3, 5, 8).unwrap()), (1, short));
        let whole = ContextFuture::evaluation(&settings("window_steps = 10\nevaluation_steps = 12")).unwrap();
        assert_eq!(whole.shape(), [1, 12]);
        let expected: Vec<f32> = (0..12).map(|step| if step < 11 { step as f32 } else { 0.0 }).collect();
        assert_eq!(windows(&whole, 11, 0, 0).unwrap(), [expected]);
    }

    #[test]
    fn ops_change_the_shape_that_a_batch_has() {
        let augment: AugmentSettings =
            toml::from_str("series = [{ random_segment = { steps = 6 } }, { rescale = { factor = [2.0, 2.0] } }]")
                .unwrap();
        let kernel = ContextFuture::training(&settings("window_steps = 10"), &augment).unwrap();
        assert_eq!(kernel.shape(), [1, 6]);
        let found = windows(&kernel, 10, 0, 3).unwrap();
        assert!((found[0][5] - found[0][0] - 10.0).abs() < 1e-4, "{found:?}");
        assert!(kernel.describe().contains("random_segment v1 steps=6"));
    }
}
