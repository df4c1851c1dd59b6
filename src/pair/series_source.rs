//! The bytes of one series as channels and steps.
//!
//! Samples lie where the fetch put them. What a window holds is converted to f32, scaled and laid out channel after channel as
//! it is read, into the slot of its batch: one copy, of the window alone.
use serde::{Deserialize, Serialize};

use super::{Encoded, Numbers};
use crate::augment::{BadClass, BadSample};

/// What 1.0 is in whole numbers of 16 bits.
const FULL_SCALE: f32 = 32_768.0;
/// Its square.
const SQUARED_SCALE: f64 = 32_768.0 * 32_768.0;
/// Keeps silence from becoming infinitely loud.
const SMALLEST_RMS: f64 = 1e-4;
/// Deviations of constant channels.
const SMALLEST_DEVIATION: f64 = 1e-8;
/// An addition takes four cycles, two begin in each.
const SUMS_SIDE_BY_SIDE: usize = 8;

/// How the numbers of a series are scaled, by what the whole row holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// As they are.
    #[default]
    None,
    /// To a root mean square of 0.1 over all channels: x · 0.1 / (rms + 10⁻⁴). For recordings of different loudness.
    SeriesRms,
    /// Each channel to mean 0 and deviation 1.
    SeriesStandard,
}

impl Scale {
    /// As a pipeline writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::SeriesRms => "series_rms",
            Self::SeriesStandard => "series_standard",
        }
    }
}

/// One row's series.
#[derive(Debug, Clone, Copy)]
pub struct SeriesSource<'a> {
    encoded: Encoded<'a>,
    channels: usize,
    steps: usize,
}

impl<'a> SeriesSource<'a> {
    /// Checks that the bytes are whole steps of `channels` numbers.
    ///
    /// # Errors
    /// [`BadClass::Channels`].
    pub fn open(encoded: Encoded<'a>, channels: usize) -> Result<Self, BadSample> {
        let bad = |message: String| BadSample { class: BadClass::Channels, message };
        if encoded.channels as usize != channels {
            return Err(bad(format!("has {} channels, and batches have {channels}", encoded.channels)));
        }
        let step_bytes = channels * encoded.numbers.bytes();
        if step_bytes == 0 || !encoded.bytes.len().is_multiple_of(step_bytes) {
            let numbers = encoded.bytes.len() / encoded.numbers.bytes();
            return Err(bad(format!("has {numbers} numbers, which are no whole steps of {channels} channels")));
        }
        Ok(Self { encoded, channels, steps: encoded.bytes.len() / step_bytes })
    }

    /// Steps of the series.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Fills `window`, `[channels, steps]`, from `start` on, scaled; a zero, scaled, where the series has ended.
    pub fn read<S: Slot>(&self, start: usize, factors: &[(f32, f32)], window: &mut [S]) {
        let steps = window.len() / self.channels.max(1);
        let end = (start + steps).min(self.steps);
        let taken = end.saturating_sub(start);
        let step_bytes = self.channels * self.encoded.numbers.bytes();
        let bytes = &self.encoded.bytes[(end - taken) * step_bytes..end * step_bytes];
        let shape = Shape { channels: self.channels, steps, factors };
        match self.encoded.numbers {
            Numbers::I16 => shape.fill(bytes.as_chunks().0, window, of_i16),
            Numbers::F32 => {
                let numbers = bytes.as_chunks().0;
                match numbers.iter().fold(true, |all, number| all & of_f32(number).is_finite()) {
                    true => shape.fill(numbers, window, of_f32),
                    false => shape.fill(&complete(numbers, self.channels), window, |number| *number),
                }
            }
        }
    }

    /// What makes each channel's numbers: x · factor + shift.
    pub fn factors(&self, scale: Scale) -> Vec<(f32, f32)> {
        match (scale, self.encoded.numbers) {
            (Scale::None, _) => vec![(1.0, 0.0); self.channels],
            (Scale::SeriesRms, Numbers::I16) => {
                let numbers = self.encoded.bytes.as_chunks().0;
                self.rms_factors(squares(numbers) as f64 / SQUARED_SCALE, numbers.len() as u64)
            }
            (Scale::SeriesRms, Numbers::F32) => {
                let moments = self.moments();
                let squares = moments.iter().map(|channel| channel.squares).sum();
                self.rms_factors(squares, moments.iter().map(|channel| channel.count).sum())
            }
            (Scale::SeriesStandard, _) => {
                let of = |Moments { sum, squares, count }: Moments| {
                    let mean = sum / count.max(1) as f64;
                    let deviation = (squares / count.max(1) as f64 - mean * mean).max(0.0).sqrt();
                    let factor = 1.0 / deviation.max(SMALLEST_DEVIATION);
                    (factor as f32, (-mean * factor) as f32)
                };
                self.moments().into_iter().map(of).collect()
            }
        }
    }

    fn rms_factors(&self, squares: f64, count: u64) -> Vec<(f32, f32)> {
        let rms = (squares / count.max(1) as f64).sqrt();
        vec![((0.1 / (rms + SMALLEST_RMS)) as f32, 0.0); self.channels]
    }

    /// Of each channel, over the numbers that are there.
    fn moments(&self) -> Vec<Moments> {
        match self.encoded.numbers {
            Numbers::I16 => moments(self.encoded.bytes.as_chunks().0, self.channels, of_i16),
            Numbers::F32 => moments(self.encoded.bytes.as_chunks().0, self.channels, of_f32),
        }
    }
}

fn of_i16(bytes: &[u8; 2]) -> f32 {
    f32::from(i16::from_le_bytes(*bytes)) / FULL_SCALE
}

fn of_f32(bytes: &[u8; 4]) -> f32 {
    f32::from_le_bytes(*bytes)
}

/// A place for a number of a window.
pub trait Slot {
    /// Puts it there.
    fn put(&mut self, number: f32);
}

impl Slot for f32 {
    fn put(&mut self, number: f32) {
        *self = number;
    }
}

impl Slot for [u8; 4] {
    fn put(&mut self, number: f32) {
        *self = number.to_le_bytes();
    }
}

/// Of a window that is filled.
struct Shape<'a> {
    channels: usize,
    steps: usize,
    factors: &'a [(f32, f32)],
}

impl Shape<'_> {
    /// Interleaved numbers into the rows of a window: read, scaled and written once.
    fn fill<N, S: Slot>(&self, numbers: &[N], window: &mut [S], number: impl Fn(&N) -> f32) {
        let taken = numbers.len() / self.channels;
        let rows = window.chunks_exact_mut(self.steps.max(1)).zip(self.factors);
        for (channel, (row, &(factor, shift))) in rows.enumerate() {
            let (filled, rest) = row.split_at_mut(taken);
            let put = |(slot, stored): (&mut S, &N)| slot.put(number(stored) * factor + shift);
            match self.channels {
                1 => filled.iter_mut().zip(numbers).for_each(put),
                channels => filled.iter_mut().zip(numbers.iter().skip(channel).step_by(channels)).for_each(put),
            }
            rest.iter_mut().for_each(|slot| slot.put(0.0 * factor + shift));
        }
    }
}

/// The sum of all squares: exact, in any order.
fn squares(numbers: &[[u8; 2]]) -> u64 {
    let square = |bytes: &[u8; 2]| {
        let number = i32::from(i16::from_le_bytes(*bytes));
        (number * number) as u32
    };
    let (pairs, rest) = numbers.as_chunks::<2>();
    // Two squares fit 32 bits.
    let paired: u64 = pairs.iter().map(|[one, other]| u64::from(square(one) + square(other))).sum();
    paired + rest.iter().map(|one| u64::from(square(one))).sum::<u64>()
}

/// Sums over the numbers of a channel.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Moments {
    sum: f64,
    squares: f64,
    count: u64,
}

/// Sums side by side, so that none waits for the one before it; how many they are depends on the channels alone.
fn moments<N>(numbers: &[N], channels: usize, number: impl Fn(&N) -> f32) -> Vec<Moments> {
    let mut lanes = vec![Moments::default(); channels * SUMS_SIDE_BY_SIDE.div_ceil(channels.max(1))];
    for steps in numbers.chunks(lanes.len().max(1)) {
        for (lane, stored) in lanes.iter_mut().zip(steps) {
            let x = number(stored);
            let (x, is_there) = if x.is_finite() { (f64::from(x), 1) } else { (0.0, 0) };
            (lane.sum, lane.squares, lane.count) = (lane.sum + x, lane.squares + x * x, lane.count + is_there);
        }
    }
    let of = |channel: usize| {
        lanes.iter().skip(channel).step_by(channels).fold(Moments::default(), |all, lane| Moments {
            sum: all.sum + lane.sum,
            squares: all.squares + lane.squares,
            count: all.count + lane.count,
        })
    };
    (0..channels).map(of).collect()
}

/// Interleaved numbers without gaps: a missing value becomes the one before it in its channel, else the one after it, else 0,
/// within these alone.
fn complete(numbers: &[[u8; 4]], channels: usize) -> Vec<f32> {
    let mut complete: Vec<f32> = numbers.iter().map(of_f32).collect();
    for channel in 0..channels {
        let of_channel = || (channel..numbers.len()).step_by(channels);
        let mut last = of_channel().map(|at| complete[at]).find(|x| x.is_finite()).unwrap_or(0.0);
        for at in of_channel() {
            match complete[at].is_finite() {
                true => last = complete[at],
                false => complete[at] = last,
            }
        }
    }
    complete
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|x| x.to_le_bytes()).collect()
    }

    fn encoded(bytes: &[u8], channels: u32) -> Encoded<'_> {
        Encoded { bytes, numbers: Numbers::F32, channels, facts: None }
    }

    fn read(values: &[f32], channels: u32, start: usize, steps: usize) -> Vec<f32> {
        let bytes = bytes(values);
        let source = SeriesSource::open(encoded(&bytes, channels), channels as usize).unwrap();
        let mut window = vec![7.0; channels as usize * steps];
        source.read(start, &source.factors(Scale::None), &mut window);
        let mut bytes = vec![[0xff; 4]; window.len()];
        source.read(start, &source.factors(Scale::None), &mut bytes);
        assert_eq!(bytes, window.iter().map(|x: &f32| x.to_le_bytes()).collect::<Vec<_>>());
        window
    }

    #[test]
    fn interleaved_numbers_become_channels() {
        let values = [0.0, 10.0, 1.0, 11.0, 2.0, 12.0, 3.0, 13.0];
        assert_eq!(read(&values, 2, 1, 2), [1.0, 2.0, 11.0, 12.0]);
        assert_eq!(read(&values, 1, 5, 3), [12.0, 3.0, 13.0]);
        // Behind the end there are zeros.
        assert_eq!(read(&values, 2, 3, 3), [3.0, 0.0, 0.0, 13.0, 0.0, 0.0]);
        assert_eq!(read(&values, 2, 9, 2), [0.0; 4]);
    }

    #[test]
    fn whole_numbers_have_a_full_scale_of_one() {
        let bytes: Vec<u8> = [0_i16, -32_768, 16_384].iter().flat_map(|x| x.to_le_bytes()).collect();
        let series = Encoded { bytes: &bytes, numbers: Numbers::I16, channels: 1, facts: None };
        let source = SeriesSource::open(series, 1).unwrap();
        let mut window = [7.0; 4];
        source.read(0, &[(1.0, 0.0)], &mut window);
        assert_eq!(window, [0.0, -1.0, 0.5, 0.0]);
        source.read(1, &[(2.0, 0.25)], &mut window);
        assert_eq!(window, [-1.75, 1.25, 0.25, 0.25], "what is behind the end is a zero, scaled");
    }

    #[test]
    fn sums_are_those_of_one_number_after_the_other() {
        let numbers: Vec<i16> = (0..1_003_i32).map(|n| (n * 7_919 % 65_536 - 32_768) as i16).collect();
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        let floats: Vec<u8> = numbers.iter().flat_map(|x| (f32::from(*x) / 32_768.0).to_le_bytes()).collect();
        for channels in [1_u32, 17, 59] {
            let whole = Encoded { bytes: &bytes, numbers: Numbers::I16, channels, facts: None };
            let whole = SeriesSource::open(whole, channels as usize).unwrap();
            let sum: f64 = numbers.iter().map(|x| (f64::from(*x) / 32_768.0).powi(2)).sum();
            let expected = (0.1 / ((sum / 1_003.0).sqrt() + 1e-4)) as f32;
            assert_eq!(whole.factors(Scale::SeriesRms), vec![(expected, 0.0); channels as usize]);
            let same = SeriesSource::open(encoded(&floats, channels), channels as usize).unwrap();
            assert_eq!(same.factors(Scale::SeriesStandard), whole.factors(Scale::SeriesStandard));
            let moments = same.moments();
            for (channel, found) in moments.iter().enumerate() {
                let of_channel =
                    || numbers.iter().skip(channel).step_by(channels as usize).map(|x| f64::from(*x) / 32_768.0);
                assert_eq!((found.sum, found.count), (of_channel().sum(), of_channel().count() as u64));
                assert_eq!(found.squares, of_channel().map(|x| x * x).sum::<f64>());
            }
        }
    }

    #[test]
    fn missing_values_take_the_one_before_else_the_one_after_else_zero() {
        let gap = f32::NAN;
        assert_eq!(read(&[gap, 1.0, gap, gap, 4.0, gap], 1, 0, 6), [1.0, 1.0, 1.0, 1.0, 4.0, 4.0]);
        // Per channel, and nothing from outside the window.
        assert_eq!(read(&[5.0, gap, gap, gap, gap, 7.0], 2, 1, 2), [0.0, 0.0, 7.0, 7.0]);
    }

    #[test]
    fn other_channels_and_half_steps_are_bad_samples() {
        let bytes = bytes(&[1.0, 2.0, 3.0]);
        for (declared, wanted) in [(1, 2), (2, 2)] {
            let bad = SeriesSource::open(encoded(&bytes, declared), wanted).unwrap_err();
            assert_eq!(bad.class, BadClass::Channels, "{bad}");
        }
    }

    #[test]
    fn scales_are_those_of_the_whole_series() {
        let bytes = bytes(&[3.0, 1.0, -3.0, 1.0, f32::NAN, 1.0]);
        let source = SeriesSource::open(encoded(&bytes, 2), 2).unwrap();
        assert_eq!(source.factors(Scale::None), [(1.0, 0.0); 2]);
        let rms = (21.0_f64 / 5.0).sqrt();
        assert!((f64::from(source.factors(Scale::SeriesRms)[1].0) - 0.1 / (rms + 1e-4)).abs() < 1e-7);
        let standard = source.factors(Scale::SeriesStandard);
        assert!((standard[0].0 - 1.0 / 3.0).abs() < 1e-6 && standard[0].1 == 0.0);
        // A constant channel becomes zeros.
        assert!((standard[1].0 + standard[1].1).abs() < 1.0, "{standard:?}");
    }
}
