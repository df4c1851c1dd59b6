//! Which frames stand against the true future in InfoNCE.
use std::collections::BTreeSet;

use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, Stage};
use crate::seed;

/// An excluded logit, relative to the positive's. Finite, so that no kernel meets ∞ · 0, and far below any real one.
const EXCLUDED: f32 = -1e30;

/// `negatives` of a method: the candidates of frame t + k of sequence b, beside itself.
///
/// The true future is never its own negative; so that it cannot become one through a second window over the same samples,
/// other windows of the anchor's own series are never negatives either. Frames below k are no candidates: they are nobody's
/// future.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Negatives {
    /// Frame t + k of the windows of every other sequence.
    BatchSameTime,
    /// Every other frame of its own window and every frame of the windows of other sequences.
    BatchAllTime,
    /// Every other frame of its own window.
    WithinSequence,
    /// Of the frames of [`Self::BatchAllTime`] those of the same group (a speaker).
    SameGroup,
    /// Every frame of the windows of other sequences.
    ExcludeCurrentSequence,
    /// As many of [`Self::BatchAllTime`]'s, drawn uniformly with replacement for each anchor by (seed, batch, k).
    Sampled(usize),
}

/// What a batch's windows are besides their frames.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sequences<'a> {
    /// Each window's sequence: equal for windows of one series. `None` where each is of its own.
    pub sequences: Option<&'a [u32]>,
    /// Each window's group, for [`Negatives::SameGroup`].
    pub groups: Option<&'a [u32]>,
    /// The run's seed, for [`Negatives::Sampled`].
    pub seed: u64,
    /// Number of the batch in the run, for [`Negatives::Sampled`].
    pub batch: u64,
}

/// What guessing gives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Chance {
    /// Mean of 1 / (1 + N) over anchors with N negatives.
    pub accuracy: f64,
    /// Mean of ln(1 + N).
    pub loss: f64,
}

impl Sequences<'_> {
    /// Whether no two windows are of one sequence.
    pub fn are_distinct(&self) -> bool {
        let Some(sequences) = self.sequences else { return true };
        let mut seen = BTreeSet::new();
        sequences.iter().all(|sequence| seen.insert(sequence))
    }

    /// Whether one window's frames may be another's negatives, or its own its own.
    fn meet(&self, one: usize, other: usize) -> bool {
        one == other || self.sequences.is_none_or(|sequences| sequences[one] != sequences[other])
    }

    fn check(&self, count: usize) -> Result<()> {
        match self.sequences.map_or(count, <[u32]>::len) {
            found if found == count => Ok(()),
            found => Err(Error::internal(format!("{found} sequences are named for {count} windows"))),
        }
    }
}

impl Negatives {
    /// Whether ln(1 + N) − L bounds the mutual information of context and future from below.
    ///
    /// That asks for negatives drawn independently of the context *and of each other*. With frames of the context's own
    /// sequence a critic is paid for recognising what it has seen. Frames of one other sequence resemble each other: if
    /// each sequence were constant, (B − 1) T′ negatives would be B − 1, and one bit could pass for ln(1 + T′) / 2 nats.
    /// So only the same frame of other, independent sequences qualifies, with one window of each.
    pub fn bounds_information(self, sequences: &Sequences<'_>) -> bool {
        self == Self::BatchSameTime && sequences.are_distinct()
    }

    /// Guessing among the candidates of `frames` anchors in each of `count` windows.
    ///
    /// # Errors
    /// An anchor has no negative, or groups are missing.
    pub(super) fn chance(self, count: usize, frames: usize, sequences: &Sequences<'_>) -> Result<Chance> {
        sequences.check(count)?;
        let groups = if self == Self::SameGroup { groups_of(count, sequences)? } else { &[] };
        // Windows whose frames an anchor of window `of` may meet, its own among them.
        let windows = |of: usize| {
            let same_group = |other: usize| groups.is_empty() || groups[of] == groups[other];
            (0..count).filter(|&other| sequences.meet(of, other) && same_group(other)).count()
        };
        let negatives: Vec<usize> = (0..count)
            .map(|of| match self {
                Self::BatchSameTime => windows(of) - 1,
                Self::BatchAllTime | Self::SameGroup => windows(of) * frames - 1,
                Self::WithinSequence => frames - 1,
                Self::ExcludeCurrentSequence => (windows(of) - 1) * frames,
                // Where there is nothing to draw from, nothing can be drawn.
                Self::Sampled(number) => number * usize::from(windows(of) * frames > 1),
            })
            .collect();
        if negatives.is_empty() || negatives.contains(&0) {
            let reason = format!(
                "{count} windows of {frames} predicted frames leave an anchor without negatives under {self:?}; take \
                 windows of more sequences, or longer ones"
            );
            return Err(Error::at(Stage::Model, "InfoNCE", reason));
        }
        let mean =
            |of: fn(f64) -> f64| negatives.iter().map(|&n| of(1.0 + n as f64)).sum::<f64>() / negatives.len() as f64;
        Ok(Chance { accuracy: mean(f64::recip), loss: mean(f64::ln) })
    }

    /// To be added to the logits, `[1, rows, rows]` for rows of windows under `batch_same_time` and of their frames under
    /// the others: excluded ones sink out of sight. `None` where only the positive itself is to be left out.
    pub(super) fn excluded(
        self,
        count: usize,
        frames: usize,
        sequences: &Sequences<'_>,
        device: &Device,
    ) -> Result<Option<Tensor<3>>> {
        let groups = if self == Self::SameGroup { groups_of(count, sequences)? } else { &[] };
        let excludes = |of: usize, candidate: usize| {
            !sequences.meet(of, candidate)
                || (self == Self::ExcludeCurrentSequence && of == candidate)
                || (self == Self::SameGroup && groups[of] != groups[candidate])
        };
        let values: Vec<f32> =
            (0..count * count).map(|pair| if excludes(pair / count, pair % count) { EXCLUDED } else { 0.0 }).collect();
        // Within one window nobody else's frames are at hand.
        if self == Self::WithinSequence || values.iter().all(|&value| value == 0.0) {
            return Ok(None);
        }
        if self == Self::BatchSameTime {
            return Ok(Some(Tensor::from_data(TensorData::new(values, [1, count, count]), device)));
        }
        let pairs = Tensor::<4>::from_data(TensorData::new(values, [count, 1, count, 1]), device);
        let all = pairs.expand([count, frames, count, frames]); // [windows, frames, windows, frames]
        Ok(Some(all.reshape([1, count * frames, count * frames])))
    }
}

fn groups_of<'a>(count: usize, sequences: &Sequences<'a>) -> Result<&'a [u32]> {
    sequences.groups.filter(|groups| groups.len() == count).ok_or_else(|| {
        let found = sequences.groups.map_or(0, <[u32]>::len);
        let reason = format!(
            "negatives of the same group need the group of each of the {count} windows, found {found}; name the column \
             that holds it, or choose other negatives"
        );
        Error::at(Stage::Model, "InfoNCE", reason)
    })
}

/// Added to the logits so that a row is not its own negative. `[1, rows, rows]`
pub(super) fn itself(rows: usize, device: &Device) -> Tensor<3> {
    // `float` of the inverse would make a pass more; the identity is one scaled.
    (Tensor::<2>::eye(rows, device) * EXCLUDED).unsqueeze()
}

/// For each of the `frames` anchors of each of `count` windows, `number` other rows. `[1, count · frames, number]`
pub(super) fn sampled(
    [count, frames]: [usize; 2],
    number: usize,
    k: usize,
    sequences: &Sequences<'_>,
    device: &Device,
) -> Tensor<3, Int> {
    let drawn = draw([count, frames], number, k, sequences);
    Tensor::from_data(TensorData::new(drawn, [1, count * frames, number]), device)
}

fn draw([count, frames]: [usize; 2], number: usize, k: usize, sequences: &Sequences<'_>) -> Vec<i64> {
    let mut draws = seed::draws(sequences.seed, "negatives of InfoNCE", &[sequences.batch, k as u64]);
    let mut drawn = Vec::with_capacity(count * frames * number);
    for of in 0..count {
        let windows: Vec<usize> = (0..count).filter(|&other| sequences.meet(of, other)).collect();
        let before = windows.iter().filter(|&&other| other < of).count();
        for frame in 0..frames {
            // Places among the rows of these windows, its own left out.
            let own = (before * frames + frame) as u64;
            for _ in 0..number {
                let other = draws.below((windows.len() * frames) as u64 - 1);
                let place = (other + u64::from(other >= own)) as usize;
                drawn.push((windows[place / frames] * frames + place % frames) as i64);
            }
        }
    }
    drawn
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::loss) const POLICIES: [Negatives; 6] = [
        Negatives::BatchSameTime,
        Negatives::BatchAllTime,
        Negatives::WithinSequence,
        Negatives::SameGroup,
        Negatives::ExcludeCurrentSequence,
        Negatives::Sampled(7),
    ];

    /// The definition: every (sequence, frame) that stands against the future of `anchor`, frames counted from k.
    pub(in crate::loss) fn by_definition(
        negatives: Negatives,
        anchor: (usize, usize),
        [count, frames, k]: [usize; 3],
        sequences: &Sequences<'_>,
    ) -> Vec<(usize, usize)> {
        let sequence = |b: usize| sequences.sequences.map_or(b as u32, |sequences| sequences[b]);
        let others = |b: &usize| *b == anchor.0 || sequence(*b) != sequence(anchor.0);
        let all = (0..count).filter(others).flat_map(|b| (0..frames).map(move |t| (b, t)));
        let group = |b: usize| sequences.groups.expect("groups")[b];
        let keep = |&(b, t): &(usize, usize)| match negatives {
            Negatives::BatchSameTime => t == anchor.1 && b != anchor.0,
            Negatives::BatchAllTime => (b, t) != anchor,
            Negatives::WithinSequence => b == anchor.0 && t != anchor.1,
            Negatives::SameGroup => group(b) == group(anchor.0) && (b, t) != anchor,
            Negatives::ExcludeCurrentSequence => b != anchor.0,
            Negatives::Sampled(_) => false,
        };
        if let Negatives::Sampled(number) = negatives {
            let row = anchor.0 * frames + anchor.1;
            let drawn = draw([count, frames], number, k, sequences);
            let own = &drawn[row * number..(row + 1) * number];
            return own.iter().map(|&j| (j as usize / frames, j as usize % frames)).collect();
        }
        all.filter(keep).collect()
    }

    #[test]
    fn drawn_negatives_are_uniform_over_all_others_and_a_function_of_their_key() {
        let sequences = Sequences { seed: 3, batch: 5, ..Sequences::default() };
        let (rows, number) = (5, 20_000);
        let drawn = draw([rows, 1], number, 1, &sequences);
        for row in 0..rows {
            let own = &drawn[row * number..(row + 1) * number];
            for other in 0..rows {
                let share = own.iter().filter(|&&j| j as usize == other).count() as f64 / number as f64;
                let expected = if other == row { 0.0 } else { 0.25 };
                assert!((share - expected).abs() < 0.015, "{share} of row {row}'s are {other}");
            }
        }
        assert_eq!(drawn, draw([rows, 1], number, 1, &sequences));
        assert_ne!(drawn, draw([rows, 1], number, 2, &sequences));
        assert_ne!(drawn, draw([rows, 1], number, 1, &Sequences { batch: 6, ..sequences }));
        assert_ne!(drawn, draw([rows, 1], number, 1, &Sequences { seed: 4, ..sequences }));
    }

    #[test]
    fn drawn_negatives_reach_every_allowed_frame_and_no_other_window_of_the_series() {
        let sequences = Sequences { sequences: Some(&[0, 1, 0]), ..Sequences::default() };
        let (frames, number) = (2, 4_000);
        let drawn = draw([3, frames], number, 1, &sequences);
        for row in 0..3 * frames {
            let own = &drawn[row * number..(row + 1) * number];
            let allowed = |other: usize| {
                other != row && (other / frames == row / frames || other / frames == 1 || row / frames == 1)
            };
            let expected = 1.0 / (0..3 * frames).filter(|&other| allowed(other)).count() as f64;
            for other in 0..3 * frames {
                let share = own.iter().filter(|&&j| j as usize == other).count() as f64 / number as f64;
                let expected = if allowed(other) { expected } else { 0.0 };
                assert!((share - expected).abs() < 0.04, "{share} of row {row}'s are {other}, not {expected}");
            }
        }
    }

    #[test]
    fn chance_counts_the_negatives_of_the_definition() {
        let (groups, of_series) = ([7, 8, 7, 7], [0, 1, 2, 0]);
        let apart = Sequences { groups: Some(&groups), ..Sequences::default() };
        let together = Sequences { sequences: Some(&of_series), ..apart };
        for (sequences, negatives) in [apart, together].into_iter().flat_map(|s| POLICIES.map(|n| (s, n))) {
            let chance = negatives.chance(4, 3, &sequences).expect("negatives");
            let candidates: Vec<f64> = (0..12)
                .map(|a| 1.0 + by_definition(negatives, (a / 3, a % 3), [4, 3, 1], &sequences).len() as f64)
                .collect();
            let accuracy = candidates.iter().map(|n| 1.0 / n).sum::<f64>() / 12.0;
            let loss = candidates.iter().map(|n| n.ln()).sum::<f64>() / 12.0;
            assert!((chance.accuracy - accuracy).abs() < 1e-12 && (chance.loss - loss).abs() < 1e-12, "{negatives:?}");
        }
    }

    #[test]
    fn an_anchor_without_negatives_and_missing_groups_are_refused() {
        let none = Sequences::default();
        assert!(Negatives::BatchSameTime.chance(1, 5, &none).is_err());
        assert!(Negatives::ExcludeCurrentSequence.chance(1, 5, &none).is_err());
        assert!(Negatives::WithinSequence.chance(5, 1, &none).is_err());
        assert!(Negatives::BatchAllTime.chance(1, 1, &none).is_err());
        assert!(Negatives::Sampled(3).chance(1, 1, &none).is_err());
        assert!(Negatives::Sampled(0).chance(4, 4, &none).is_err());
        assert!(Negatives::SameGroup.chance(2, 4, &none).is_err());
        let of_one = Sequences { sequences: Some(&[4, 4]), ..none };
        assert!(Negatives::BatchSameTime.chance(2, 5, &of_one).is_err());
        assert!(Negatives::WithinSequence.chance(2, 5, &of_one).is_ok());
        assert!(Negatives::BatchAllTime.chance(3, 5, &of_one).is_err());
        assert!(Negatives::SameGroup.chance(3, 4, &Sequences { groups: Some(&[1, 1]), ..none }).is_err());
        assert!(Negatives::SameGroup.chance(2, 1, &Sequences { groups: Some(&[1, 2]), ..none }).is_err());
        assert!(Negatives::SameGroup.chance(2, 1, &Sequences { groups: Some(&[1, 1]), ..none }).is_ok());
    }

    #[test]
    fn settings_read_as_a_pipeline_writes_them() {
        #[derive(Deserialize)]
        struct Table {
            negatives: Negatives,
        }
        let read = |text: &str| toml::from_str::<Table>(text).map(|table| table.negatives);
        assert_eq!(read("negatives = \"batch_same_time\"").expect("a policy"), Negatives::BatchSameTime);
        assert_eq!(read("negatives = { sampled = 128 }").expect("a policy"), Negatives::Sampled(128));
        assert!(read("negatives = \"same_speaker\"").is_err());
    }
}
