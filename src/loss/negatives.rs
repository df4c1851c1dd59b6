//! Which frames stand against the true future in InfoNCE.
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, Stage};
use crate::seed;

/// An excluded logit, relative to the positive's. Finite, so that no kernel meets ∞ · 0, and far below any real one.
const EXCLUDED: f32 = -1e30;

/// `negatives` of a method: the candidates of frame t + k of sequence b, beside itself.
///
/// The true future is never its own negative. Frames below k are no candidates: they are nobody's future.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Negatives {
    /// Frame t + k of every other sequence of the batch.
    BatchSameTime,
    /// Every other frame of every sequence of the batch, its own included.
    BatchAllTime,
    /// Every other frame of the same sequence.
    WithinSequence,
    /// Every other frame of the sequences of the same group (a speaker), its own sequence included.
    SameGroup,
    /// Every frame of every other sequence of the batch.
    ExcludeCurrentSequence,
    /// As many of [`Self::BatchAllTime`]'s, drawn uniformly with replacement for each anchor by (seed, batch, k).
    Sampled(usize),
}

/// What a batch's sequences are besides their frames.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sequences<'a> {
    /// Each sequence's group, for [`Negatives::SameGroup`].
    pub groups: Option<&'a [u64]>,
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

impl Negatives {
    /// Whether ln(1 + N) − L bounds the mutual information of context and future from below.
    ///
    /// That asks for negatives drawn independently of the context *and of each other*. With frames of the context's own
    /// sequence a critic is paid for recognising what it has seen. Frames of one other sequence resemble each other: if
    /// each sequence were constant, (B − 1) T′ negatives would be B − 1, and one bit could pass for ln(1 + T′) / 2 nats.
    /// So only the same frame of other, independent sequences qualifies.
    pub fn bounds_information(self) -> bool {
        self == Self::BatchSameTime
    }

    /// Guessing among the candidates of `frames` anchors in each of `count` sequences.
    ///
    /// # Errors
    /// An anchor has no negative, or groups are missing.
    pub(super) fn chance(self, count: usize, frames: usize, sequences: &Sequences<'_>) -> Result<Chance> {
        let negatives: Vec<usize> = match self {
            Self::BatchSameTime => vec![count - 1],
            Self::BatchAllTime => vec![count * frames - 1],
            Self::WithinSequence => vec![frames - 1],
            Self::ExcludeCurrentSequence => vec![(count - 1) * frames],
            // Where there is nothing to draw from, nothing can be drawn.
            Self::Sampled(number) => vec![if count * frames > 1 { number } else { 0 }],
            Self::SameGroup => {
                let groups = groups_of(count, sequences)?;
                groups.iter().map(|g| groups.iter().filter(|other| *other == g).count() * frames - 1).collect()
            }
        };
        if negatives.contains(&0) {
            let reason = format!(
                "{count} sequences of {frames} predicted frames leave an anchor without negatives under {self:?}; take \
                 more sequences or longer windows"
            );
            return Err(Error::at(Stage::Model, "InfoNCE", reason));
        }
        let mean =
            |of: fn(f64) -> f64| negatives.iter().map(|&n| of(1.0 + n as f64)).sum::<f64>() / negatives.len() as f64;
        Ok(Chance { accuracy: mean(f64::recip), loss: mean(f64::ln) })
    }

    /// To be added to the logits of `[sequences · frames, sequences · frames]`: excluded ones sink out of sight.
    /// `None` where only the positive itself is to be left out.
    pub(super) fn excluded(
        self,
        count: usize,
        frames: usize,
        sequences: &Sequences<'_>,
        device: &Device,
    ) -> Result<Option<Tensor<3>>> {
        let excludes: Box<dyn Fn(usize, usize) -> bool> = match self {
            Self::ExcludeCurrentSequence => Box::new(|of, candidate| of == candidate),
            Self::SameGroup => {
                let groups = groups_of(count, sequences)?;
                Box::new(move |of, candidate| groups[of] != groups[candidate])
            }
            _ => return Ok(None),
        };
        let values: Vec<f32> =
            (0..count * count).map(|pair| if excludes(pair / count, pair % count) { EXCLUDED } else { 0.0 }).collect();
        let pairs = Tensor::<4>::from_data(TensorData::new(values, [count, 1, count, 1]), device);
        let all = pairs.expand([count, frames, count, frames]); // [sequences, frames, sequences, frames]
        Ok(Some(all.reshape([1, count * frames, count * frames])))
    }
}

fn groups_of<'a>(count: usize, sequences: &Sequences<'a>) -> Result<&'a [u64]> {
    sequences.groups.filter(|groups| groups.len() == count).ok_or_else(|| {
        let found = sequences.groups.map_or(0, <[u64]>::len);
        let reason = format!(
            "negatives of the same group need the group of each of the {count} sequences, found {found}; name the column \
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

/// For each of `rows` anchors, `number` other rows. `[1, rows, number]`
pub(super) fn sampled(
    rows: usize,
    number: usize,
    k: usize,
    sequences: &Sequences<'_>,
    device: &Device,
) -> Tensor<3, Int> {
    let drawn = draw(rows, number, k, sequences);
    Tensor::from_data(TensorData::new(drawn, [1, rows, number]), device)
}

fn draw(rows: usize, number: usize, k: usize, sequences: &Sequences<'_>) -> Vec<i64> {
    let mut draws = seed::draws(sequences.seed, "negatives of InfoNCE", &[sequences.batch, k as u64]);
    (0..rows as u64)
        .flat_map(|row| vec![row; number])
        .map(|row| {
            let other = draws.below(rows as u64 - 1);
            (other + u64::from(other >= row)) as i64
        })
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The definition: every (sequence, frame) that stands against the future of `anchor`, frames counted from k.
    pub(in crate::loss) fn by_definition(
        negatives: Negatives,
        anchor: (usize, usize),
        [count, frames, k]: [usize; 3],
        sequences: &Sequences<'_>,
    ) -> Vec<(usize, usize)> {
        let all = (0..count).flat_map(|b| (0..frames).map(move |t| (b, t)));
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
            let drawn = draw(count * frames, number, k, sequences);
            let own = &drawn[row * number..(row + 1) * number];
            return own.iter().map(|&j| (j as usize / frames, j as usize % frames)).collect();
        }
        all.filter(keep).collect()
    }

    #[test]
    fn drawn_negatives_are_uniform_over_all_others_and_a_function_of_their_key() {
        let sequences = Sequences { seed: 3, batch: 5, ..Sequences::default() };
        let (rows, number) = (5, 20_000);
        let drawn = draw(rows, number, 1, &sequences);
        for row in 0..rows {
            let own = &drawn[row * number..(row + 1) * number];
            for other in 0..rows {
                let share = own.iter().filter(|&&j| j as usize == other).count() as f64 / number as f64;
                let expected = if other == row { 0.0 } else { 0.25 };
                assert!((share - expected).abs() < 0.015, "{share} of row {row}'s are {other}");
            }
        }
        assert_eq!(drawn, draw(rows, number, 1, &sequences));
        assert_ne!(drawn, draw(rows, number, 2, &sequences));
        assert_ne!(drawn, draw(rows, number, 1, &Sequences { batch: 6, ..sequences }));
        assert_ne!(drawn, draw(rows, number, 1, &Sequences { seed: 4, ..sequences }));
    }

    #[test]
    fn chance_counts_the_negatives_of_the_definition() {
        let groups = [7, 8, 7, 7];
        let sequences = Sequences { groups: Some(&groups), ..Sequences::default() };
        for negatives in [
            Negatives::BatchSameTime,
            Negatives::BatchAllTime,
            Negatives::WithinSequence,
            Negatives::SameGroup,
            Negatives::ExcludeCurrentSequence,
            Negatives::Sampled(9),
        ] {
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
