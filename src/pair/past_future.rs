//! `past_future`: the window before a point of a series and the window after it, as two tensors.
use serde::{Deserialize, Serialize};

use super::{
    context_future::{default_column, one},
    series_source::Scale,
    series_windows::SeriesWindows,
    starts::Starts,
};
use crate::augment::{image::recipe::RecipeProblem, recipe::AugmentSettings, series::recipe::SeriesRecipe};

/// `[pair.past_future]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PastFutureSettings {
    /// Column with the series.
    #[serde(default = "default_column")]
    pub column: String,
    /// Numbers per step; series with others are bad samples.
    #[serde(default = "one")]
    pub channels: usize,
    /// Steps of each of both windows.
    pub window_steps: usize,
    /// Steps between them that neither sees.
    #[serde(default)]
    pub gap_steps: usize,
    /// By what the whole series holds.
    #[serde(default)]
    pub scale: Scale,
}

/// The pair of `[pair.past_future]`, `[2, channels, steps]`: past and future, ops drawn for each.
#[derive(Debug, Clone, Copy)]
pub struct PastFuture;

impl PastFuture {
    /// As a pipeline writes it.
    pub const NAME: &'static str = "past_future";

    /// The pairs that training sees.
    ///
    /// # Errors
    /// Every problem of the recipe.
    pub fn training(
        settings: &PastFutureSettings,
        augment: &AugmentSettings,
    ) -> Result<SeriesWindows, Vec<RecipeProblem>> {
        let steps = settings.window_steps;
        let recipe = SeriesRecipe::resolve(&augment.series, steps)?;
        Ok(SeriesWindows {
            name: Self::NAME,
            column: settings.column.clone(),
            channels: settings.channels,
            window_steps: 2 * steps + settings.gap_steps,
            windows: 1,
            starts: Starts::Random { hop_steps: 1 },
            scale: settings.scale,
            parts: vec![0, steps + settings.gap_steps],
            part_steps: steps,
            group: None,
            shape: vec![2, settings.channels, recipe.steps()],
            recipe,
        })
    }

    /// One window from the middle of a series: no op, no draw.
    ///
    /// # Errors
    /// None; the shape is that of one part.
    pub fn evaluation(settings: &PastFutureSettings) -> Result<SeriesWindows, Vec<RecipeProblem>> {
        let recipe = SeriesRecipe::resolve(&[], settings.window_steps)?;
        Ok(SeriesWindows {
            windows: 1,
            window_steps: settings.window_steps,
            starts: Starts::Covering,
            parts: vec![],
            shape: vec![settings.channels, settings.window_steps],
            recipe,
            ..Self::training(settings, &AugmentSettings::default())?
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        pair::{Encoded, Numbers, SampleKernel},
        seed::ItemKey,
    };

    #[test]
    fn the_future_begins_where_the_past_and_the_gap_end() {
        let settings: PastFutureSettings = toml::from_str("window_steps = 4\ngap_steps = 3\nchannels = 2").unwrap();
        let kernel = PastFuture::training(&settings, &AugmentSettings::default()).unwrap();
        assert_eq!((kernel.shape(), kernel.least_steps()), (&[2, 2, 4][..], 11));
        let bytes: Vec<u8> = (0..30).flat_map(|x| [x as f32, 100.0 + x as f32]).flat_map(f32::to_le_bytes).collect();
        let encoded = Encoded { bytes: &bytes, numbers: Numbers::F32, channels: 2, facts: None };
        for row in 0..50 {
            let mut out = vec![0; kernel.slot_bytes()];
            kernel.apply(encoded, 0, 0, ItemKey { shard: 0, row, occurrence: 0 }, &mut out).unwrap();
            let values: Vec<f32> = out.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            let start = values[0];
            let expected = |first: f32| (0..4).map(move |step| first + step as f32);
            let all: Vec<f32> =
                [start, 100.0 + start, start + 7.0, 107.0 + start].into_iter().flat_map(expected).collect();
            assert_eq!(values, all);
        }
        assert_eq!(PastFuture::evaluation(&settings).unwrap().shape(), [2, 4]);
    }
}
