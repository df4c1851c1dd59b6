//! Series at another rate: `--rate-hz`.
//!
//! A windowed sinc of [`FILTER_STEPS`] steps at the lower of both rates: what lies above half of that rate is removed, what
//! lies below seven eighths of that half is kept. Step m of the result is the series at m / rate seconds, to a thousandth of
//! an input step, and there are round(steps · to / from) of them. The last bits depend on the vector instructions of the
//! machine.
use std::cell::RefCell;

use rubato::{
    Async, FixedAsync, Resampler, SincInterpolationParameters, SincInterpolationType, WindowFunction,
    audioadapter_buffers::direct::InterleavedSlice, calculate_cutoff,
};

use super::audio::{Decoded, MAX_DECODED_BYTES};
use crate::augment::{BadClass, BadSample};
use crate::pair::Numbers;

/// Length of the filter in steps of the lower rate.
const FILTER_STEPS: usize = 256;
/// Filters between two steps of the lower rate.
const OVERSAMPLING: usize = 1_024;
const WINDOW: WindowFunction = WindowFunction::BlackmanHarris2;
/// Steps that are read at a time.
const CHUNK_STEPS: usize = 4_096;
/// Silences before the series that are tried, for the one with which its first step falls on a step of the result.
const MOST_SILENCE_STEPS: usize = 2_048;
/// Rates that differ by more are a slip of the pen: the filter would be longer than most series.
const LARGEST_RATIO: f64 = 64.0;
/// What 1.0 is in whole numbers of 16 bits.
const FULL_SCALE: f64 = 32_768.0;

thread_local! {
    /// The last one that was used, whose table of filters (2 MB) takes longer than a short recording.
    static RESAMPLER: RefCell<Option<Prepared>> = const { RefCell::new(None) };
}

/// A resampler for one pair of rates.
struct Prepared {
    rates: (f64, f64),
    channels: usize,
    resampler: Async<f64>,
    /// Steps of silence before the series, and of the result before its first.
    silence_steps: usize,
    skipped_steps: usize,
}

/// The series at `rate_hz`.
///
/// A missing value is filled with the one before it in its channel, else the one after, else 0, and is missing again in the
/// steps of the result that are nearest to it.
///
/// # Errors
/// It says no rate, one that is more than 64 times another, or it becomes too long.
pub(super) fn at_rate(series: Decoded, rate_hz: f64) -> Result<Decoded, BadSample> {
    let Some(from) = series.rate_hz else {
        let message = "it says no rate, so that it has no other; leave --rate-hz away, or add a column of times";
        return Err(BadSample::undecodable(message));
    };
    if from == rate_hz {
        return Ok(series);
    }
    let ratio = rate_hz / from;
    if !(1.0 / LARGEST_RATIO..=LARGEST_RATIO).contains(&ratio) {
        return Err(BadSample::undecodable(format!(
            "its rate is {from} Hz, too far from {rate_hz} Hz to be resampled"
        )));
    }
    let channels = series.channels as usize;
    let steps = series.bytes.len() / (series.numbers.bytes() * channels.max(1));
    let wanted = ((steps as f64 * ratio).round() as usize).max(1);
    let bytes = wanted.saturating_mul(channels * series.numbers.bytes());
    if bytes > MAX_DECODED_BYTES {
        let message = format!("at {rate_hz} Hz it has more than {MAX_DECODED_BYTES} bytes; cut the file into parts");
        return Err(BadSample { class: BadClass::TooLong, message });
    }
    let bytes = RESAMPLER.with_borrow_mut(|kept| {
        let prepared = match kept {
            Some(prepared) if prepared.rates == (from, rate_hz) && prepared.channels == channels => prepared,
            _ => kept.insert(Prepared::new((from, rate_hz), channels)?),
        };
        prepared.resampler.reset();
        prepared.run(&series, steps, wanted)
    });
    let bytes = bytes.map_err(|error| BadSample::undecodable(format!("it cannot be resampled: {error}")))?;
    Ok(Decoded { bytes, rate_hz: Some(rate_hz), ..series })
}

/// Steps of the filter, and filters between two steps that are read.
///
/// Fewer steps at a lower rate are as many seconds, so the filter is longer in steps that are read, and smoother: it needs
/// fewer places between them. The table has the same size for all pairs of rates.
fn filter(ratio: f64) -> (usize, usize) {
    let shrinks = ratio.min(1.0);
    let length = ((FILTER_STEPS as f64 / shrinks).ceil() as usize).next_multiple_of(8);
    (length, (OVERSAMPLING as f64 * shrinks).ceil() as usize)
}

impl Prepared {
    fn new((from, to): (f64, f64), channels: usize) -> Result<Self, String> {
        let ratio = to / from;
        let (length, oversampling) = filter(ratio);
        let parameters = SincInterpolationParameters::new(length, WINDOW)
            .f_cutoff(calculate_cutoff(FILTER_STEPS, WINDOW))
            .oversampling_factor(oversampling)
            .interpolation(SincInterpolationType::Linear);
        let resampler = Async::new_sinc(ratio, 1.0, &parameters, CHUNK_STEPS, channels, FixedAsync::Input);
        // The first step that comes out is the series at length/2 - 1/oversampling steps before its begin, plus one step of
        // the result.
        let behind = |silence: usize| (silence as f64 + length as f64 / 2.0 - 1.0 / oversampling as f64) * ratio;
        let off = |silence: &usize| (behind(*silence) - behind(*silence).round()).abs();
        let silence_steps = (0..MOST_SILENCE_STEPS).min_by(|a, b| off(a).total_cmp(&off(b))).unwrap_or(0);
        let skipped_steps = (behind(silence_steps).round() as usize).saturating_sub(1);
        let resampler = resampler.map_err(|error| error.to_string())?;
        Ok(Self { rates: (from, to), channels, resampler, silence_steps, skipped_steps })
    }

    /// The first `wanted` steps of the result.
    fn run(&mut self, series: &Decoded, steps: usize, wanted: usize) -> Result<Vec<u8>, String> {
        let channels = self.channels;
        let number = |at: usize| number_at(series, at);
        // What stands for a value that is missing: the one before it, at first the first that is there.
        let first = |channel: usize| (0..steps).map(|step| number(step * channels + channel)).find(|x| x.is_finite());
        let mut last: Vec<f64> = (0..channels).map(|channel| first(channel).unwrap_or(0.0)).collect();
        let most = self.resampler.output_frames_max();
        let (mut input, mut output) = (vec![0.0; CHUNK_STEPS * channels], vec![0.0; most * channels]);
        let mut bytes = Vec::with_capacity(wanted * channels * series.numbers.bytes());
        let per_step = self.rates.0 / self.rates.1;
        let (mut begin, mut skipped, mut done) = (0, 0, 0);
        while done < wanted {
            for (at, step) in (begin..begin + CHUNK_STEPS).enumerate() {
                let of_series = step.checked_sub(self.silence_steps).filter(|step| *step < steps);
                for (channel, last) in last.iter_mut().enumerate() {
                    input[at * channels + channel] = match of_series {
                        None => 0.0,
                        Some(step) => {
                            let value = number(step * channels + channel);
                            *last = if value.is_finite() { value } else { *last };
                            *last
                        }
                    };
                }
            }
            begin += CHUNK_STEPS;
            let reads = InterleavedSlice::new(&input, channels, CHUNK_STEPS).map_err(|error| error.to_string())?;
            let mut writes =
                InterleavedSlice::new_mut(&mut output, channels, most).map_err(|error| error.to_string())?;
            let came = self.resampler.process_into_buffer(&reads, &mut writes, None);
            let (_, came) = came.map_err(|error| error.to_string())?;
            let early = (self.skipped_steps - skipped).min(came);
            skipped += early;
            for step in output[early * channels..came * channels].chunks_exact(channels).take(wanted - done) {
                let nearest = ((done as f64 * per_step).round() as usize).min(steps.saturating_sub(1));
                for (channel, value) in step.iter().enumerate() {
                    let is_missing = !number(nearest * channels + channel).is_finite();
                    push(series.numbers, if is_missing { f64::NAN } else { *value }, &mut bytes);
                }
                done += 1;
            }
        }
        Ok(bytes)
    }
}

/// A number by its place among all, NaN behind the last.
fn number_at(series: &Decoded, at: usize) -> f64 {
    match series.numbers {
        Numbers::I16 => {
            let bytes = series.bytes.as_chunks::<2>().0.get(at);
            bytes.map_or(f64::NAN, |bytes| f64::from(i16::from_le_bytes(*bytes)) / FULL_SCALE)
        }
        Numbers::F32 => {
            let bytes = series.bytes.as_chunks::<4>().0.get(at);
            bytes.map_or(f64::NAN, |bytes| f64::from(f32::from_le_bytes(*bytes)))
        }
    }
}

fn push(numbers: Numbers, value: f64, bytes: &mut Vec<u8>) {
    match numbers {
        Numbers::I16 => {
            let whole = (value * FULL_SCALE).round().clamp(f64::from(i16::MIN), f64::from(i16::MAX));
            bytes.extend_from_slice(&(whole as i16).to_le_bytes());
        }
        Numbers::F32 => bytes.extend_from_slice(&(value as f32).to_le_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use super::*;

    /// `channels` sines of 0.5 · sin(2π · hz · t + channel).
    fn sines(numbers: Numbers, rate: f64, channels: usize, hz: f64, steps: usize) -> Decoded {
        let mut bytes = Vec::new();
        for step in 0..steps {
            for channel in 0..channels {
                push(numbers, wave(step as f64 / rate, channel, hz), &mut bytes);
            }
        }
        Decoded { bytes, numbers, channels: channels as u32, rate_hz: Some(rate), start_time: Some(5) }
    }

    fn wave(seconds: f64, channel: usize, hz: f64) -> f64 {
        0.5 * (TAU * hz * seconds + channel as f64).sin()
    }

    fn values(series: &Decoded) -> Vec<f64> {
        (0..series.bytes.len() / series.numbers.bytes()).map(|at| number_at(series, at)).collect()
    }

    #[test]
    fn a_sine_is_the_same_sine_at_another_rate_step_for_step() {
        for (from, to, hz) in [
            (16_000.0, 8_000.0, 440.0),
            (8_000.0, 16_000.0, 3_000.0),
            (44_100.0, 16_000.0, 6_500.0),
            (16_000.0, 44_100.0, 440.0),
            (100.3, 25.7, 3.0),
        ] {
            let steps = 12_345;
            let made = at_rate(sines(Numbers::F32, from, 2, hz, steps), to).unwrap();
            let wanted = (steps as f64 * to / from).round() as usize;
            assert_eq!((made.rate_hz, made.channels, made.start_time), (Some(to), 2, Some(5)));
            let found = values(&made);
            assert_eq!(found.len(), 2 * wanted, "{from} to {to}");
            // Within half a filter of an end there is silence in the filter's reach.
            let edge = 129 + (129.0 * to / from).ceil() as usize;
            for step in edge..wanted - edge {
                for channel in 0..2 {
                    let (is, should) = (found[2 * step + channel], wave(step as f64 / to, channel, hz));
                    assert!((is - should).abs() < 2e-3, "{from} to {to}, step {step}: {is}, not {should}");
                }
            }
        }
    }

    #[test]
    fn rates_that_are_far_apart_need_no_larger_table() {
        for ratio in [1.0 / LARGEST_RATIO, 0.1, 16_000.0 / 44_100.0, 1.0, 3.0, LARGEST_RATIO] {
            let (length, oversampling) = filter(ratio);
            assert!(length * oversampling < 300_000, "{ratio}: {length} x {oversampling}");
        }
        let steps = 64 * 1_200;
        let found = values(&at_rate(sines(Numbers::F32, 64_000.0, 1, 200.0, steps), 1_000.0).unwrap());
        assert_eq!(found.len(), 1_200);
        for (step, is) in found.iter().enumerate().take(1_000).skip(200) {
            let should = wave(step as f64 / 1_000.0, 0, 200.0);
            assert!((is - should).abs() < 2e-3, "step {step}: {is}, not {should}");
        }
        let aliased = values(&at_rate(sines(Numbers::F32, 64_000.0, 1, 700.0, steps), 1_000.0).unwrap());
        assert!(aliased[200..1_000].iter().all(|x| x.abs() < 1e-4), "a tone of 700 Hz is there at 1 kHz");
    }

    #[test]
    fn what_lies_above_half_of_the_new_rate_is_gone() {
        let made = at_rate(sines(Numbers::F32, 16_000.0, 1, 4_200.0, 16_000), 8_000.0).unwrap();
        let found = values(&made);
        let loudest = found[300..7_700].iter().fold(0.0_f64, |most, x| most.max(x.abs()));
        assert!(loudest < 1e-4, "a tone of 4.2 kHz is there at 8 kHz: {loudest}");
        // Every second step of it alone would be a tone of 3.8 kHz as loud as it was.
        let kept = at_rate(sines(Numbers::F32, 16_000.0, 1, 3_500.0, 16_000), 8_000.0).unwrap();
        assert!(values(&kept)[300..7_700].iter().fold(0.0_f64, |most, x| most.max(x.abs())) > 0.49);
    }

    #[test]
    fn whole_numbers_are_rounded_and_keep_their_full_scale() {
        let made = at_rate(sines(Numbers::I16, 8_000.0, 1, 200.0, 4_000), 4_000.0).unwrap();
        assert_eq!((made.numbers, made.bytes.len()), (Numbers::I16, 4_000));
        let found = values(&made);
        assert!((300..1_700).all(|step| (found[step] - wave(step as f64 / 4_000.0, 0, 200.0)).abs() < 1e-3));
        let loud: Vec<u8> =
            (0..4_000).flat_map(|step: i32| if step % 64 < 32 { i16::MAX } else { i16::MIN }.to_le_bytes()).collect();
        let loud = Decoded { bytes: loud, ..sines(Numbers::I16, 8_000.0, 1, 1.0, 1) };
        // Ringing beyond the full scale is cut, not wrapped.
        let found = values(&at_rate(loud, 12_000.0).unwrap());
        assert!(found[980..990].iter().all(|x| x.abs() > 0.5), "{:?}", &found[980..990]);
    }

    #[test]
    fn missing_values_stay_missing_where_they_were_and_harm_nothing_else() {
        let whole = sines(Numbers::F32, 100.0, 2, 1.0, 4_000);
        let mut gap = whole.clone();
        for step in 2_000..2_010 {
            gap.bytes[8 * step..8 * step + 4].copy_from_slice(&f32::NAN.to_le_bytes());
        }
        let (whole, gap) = (values(&at_rate(whole, 50.0).unwrap()), values(&at_rate(gap, 50.0).unwrap()));
        for step in 0..2_000 {
            assert_eq!(gap[2 * step].is_nan(), (1_000..1_005).contains(&step), "step {step}");
            assert_eq!(gap[2 * step + 1], whole[2 * step + 1], "the other channel");
        }
        assert!((gap[2 * 1_200] - whole[2 * 1_200]).abs() < 1e-9 && (gap[2 * 999] - whole[2 * 999]).abs() < 0.2);
    }

    #[test]
    fn series_shorter_than_the_filter_and_other_pairs_of_rates_in_turn_are_dealt_with() {
        for (steps, to, wanted) in [(1, 50.0, 1), (3, 50.0, 2), (5, 250.0, 13), (7, 99.0, 7)] {
            let made = at_rate(sines(Numbers::F32, 100.0, 1, 1.0, steps), to).unwrap();
            assert_eq!(values(&made).len(), wanted, "{steps} steps to {to} Hz");
        }
        let series = sines(Numbers::I16, 100.0, 1, 1.0, 9);
        assert_eq!(at_rate(series.clone(), 100.0).unwrap(), series);
        assert_eq!(at_rate(series.clone(), 37.0), at_rate(series, 37.0), "a resampler that was used is as new");
    }

    #[test]
    fn no_rate_and_rates_far_apart_are_told() {
        let bare = Decoded { rate_hz: None, ..sines(Numbers::F32, 1.0, 1, 0.1, 9) };
        assert!(at_rate(bare, 8_000.0).unwrap_err().message.contains("says no rate"));
        let far = at_rate(sines(Numbers::F32, 1.0, 1, 0.1, 9), 8_000.0).unwrap_err();
        assert!(far.message.contains("too far from 8000 Hz"), "{far}");
    }
}
