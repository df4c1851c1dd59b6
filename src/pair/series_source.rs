//! The bytes of one series as channels and steps.
//!
//! Samples lie where the fetch put them. What a window holds is converted to f32 and laid out channel after channel as it is
//! read: one copy, of the window alone.
use serde::{Deserialize, Serialize};

use super::{Encoded, Numbers};
use crate::augment::{BadClass, BadSample, series::Window};

/// What 1.0 is in whole numbers of 16 bits.
const FULL_SCALE: f32 = 32_768.0;
/// Keeps silence from becoming infinitely loud.
const SMALLEST_RMS: f64 = 1e-4;
/// Deviations of constant channels.
const SMALLEST_DEVIATION: f64 = 1e-8;

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

    /// Fills `window`, `[channels, steps]`, from `start` on; zeros where the series has ended.
    pub fn read(&self, start: usize, steps: usize, window: &mut Window) {
        (window.channels, window.steps) = (self.channels, steps);
        window.values.clear();
        window.values.resize(self.channels * steps, 0.0);
        let end = (start + steps).min(self.steps);
        let taken = end.saturating_sub(start);
        let step_bytes = self.channels * self.encoded.numbers.bytes();
        let bytes = &self.encoded.bytes[(end - taken) * step_bytes..end * step_bytes];
        match self.encoded.numbers {
            Numbers::I16 => scatter(bytes.as_chunks().0, self.channels, taken, window, |bytes: &[u8; 2]| {
                f32::from(i16::from_le_bytes(*bytes)) / FULL_SCALE
            }),
            Numbers::F32 => {
                scatter(bytes.as_chunks().0, self.channels, taken, window, |bytes: &[u8; 4]| {
                    f32::from_le_bytes(*bytes)
                });
                fill_missing(window, taken);
            }
        }
    }

    /// What makes each channel's numbers: x · factor + shift.
    pub fn factors(&self, scale: Scale) -> Vec<(f32, f32)> {
        match scale {
            Scale::None => vec![(1.0, 0.0); self.channels],
            Scale::SeriesRms => {
                let (mut squares, mut count) = (0.0, 0_u64);
                self.each(|_, x| {
                    squares += x * x;
                    count += 1;
                });
                let rms = (squares / count.max(1) as f64).sqrt();
                vec![((0.1 / (rms + SMALLEST_RMS)) as f32, 0.0); self.channels]
            }
            Scale::SeriesStandard => {
                let mut sums = vec![(0.0, 0.0, 0_u64); self.channels];
                self.each(|channel, x| {
                    let (sum, squares, count) = &mut sums[channel];
                    (*sum, *squares, *count) = (*sum + x, *squares + x * x, *count + 1);
                });
                let of = |(sum, squares, count): (f64, f64, u64)| {
                    let mean = sum / count.max(1) as f64;
                    let deviation = (squares / count.max(1) as f64 - mean * mean).max(0.0).sqrt();
                    let factor = 1.0 / deviation.max(SMALLEST_DEVIATION);
                    (factor as f32, (-mean * factor) as f32)
                };
                sums.into_iter().map(of).collect()
            }
        }
    }

    /// Every number that is there, in the order of the steps.
    fn each(&self, mut take: impl FnMut(usize, f64)) {
        let mut take_at = |at: usize, x: f32| {
            if x.is_finite() {
                take(at % self.channels, f64::from(x));
            }
        };
        match self.encoded.numbers {
            Numbers::I16 => {
                let numbers = self.encoded.bytes.as_chunks::<2>().0.iter().enumerate();
                numbers.for_each(|(at, bytes)| take_at(at, f32::from(i16::from_le_bytes(*bytes)) / FULL_SCALE));
            }
            Numbers::F32 => {
                let numbers = self.encoded.bytes.as_chunks::<4>().0.iter().enumerate();
                numbers.for_each(|(at, bytes)| take_at(at, f32::from_le_bytes(*bytes)));
            }
        }
    }
}

/// Interleaved numbers into the rows of a window.
fn scatter<const BYTES: usize>(
    numbers: &[[u8; BYTES]],
    channels: usize,
    taken: usize,
    window: &mut Window,
    number: impl Fn(&[u8; BYTES]) -> f32,
) {
    for (channel, row) in window.channels_mut().enumerate() {
        let of_channel = numbers.iter().skip(channel).step_by(channels);
        row[..taken].iter_mut().zip(of_channel).for_each(|(slot, bytes)| *slot = number(bytes));
    }
}

/// A missing value becomes the one before it in its channel, else the one after it, else 0: within the window alone.
fn fill_missing(window: &mut Window, taken: usize) {
    for row in window.channels_mut() {
        let row = &mut row[..taken];
        if row.iter().all(|x| x.is_finite()) {
            continue;
        }
        let mut last = row.iter().copied().find(|x| x.is_finite()).unwrap_or(0.0);
        for x in row {
            if x.is_finite() {
                last = *x;
            } else {
                *x = last;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|x| x.to_le_bytes()).collect()
    }

    fn encoded(bytes: &[u8], channels: u32) -> Encoded<'_> {
        Encoded { bytes, numbers: Numbers::F32, channels }
    }

    fn read(values: &[f32], channels: u32, start: usize, steps: usize) -> Vec<f32> {
        let bytes = bytes(values);
        let mut window = Window::default();
        let source = SeriesSource::open(encoded(&bytes, channels), channels as usize).unwrap();
        source.read(start, steps, &mut window);
        window.values
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
        let series = Encoded { bytes: &bytes, numbers: Numbers::I16, channels: 1 };
        let mut window = Window::default();
        SeriesSource::open(series, 1).unwrap().read(0, 3, &mut window);
        assert_eq!(window.values, [0.0, -1.0, 0.5]);
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
