//! The floor of audio: means and deviations of mel-frequency cepstral coefficients, which know nothing of context.
//!
//! Frames of 25 ms every 10 ms, Hamming window, power spectrum, 26 triangles on the mel scale from 50 Hz to half the rate,
//! logarithm, orthonormal DCT-II, the first 13 coefficients: the usual ones of speech recognition. Zeros behind the last
//! sample are no part of a series and are left out; a series shorter than two frames is followed by as many as it lacks.
use std::f64::consts::PI;

/// Coefficients that are kept.
pub const COEFFICIENTS: usize = 13;
/// Triangles on the mel scale.
const BANDS: usize = 26;
const FRAME_SECONDS: f64 = 0.025;
const HOP_SECONDS: f64 = 0.010;
const LOWEST_HZ: f64 = 50.0;
/// Keeps silence finite.
const SMALLEST_POWER: f64 = 1e-8;
/// Numbers per series: a mean and a deviation of each coefficient.
pub const WIDTH: usize = 2 * COEFFICIENTS;

/// Everything that depends on the rate alone.
#[derive(Debug, Clone)]
pub struct Mfcc {
    hop_steps: usize,
    window: Vec<f64>,
    /// One turn of a cosine and of a sine, `transform_steps` long.
    turn: Vec<(f64, f64)>,
    /// For each band its bins with their weights.
    bands: Vec<Vec<(usize, f64)>>,
}

impl Mfcc {
    /// For series of `rate_hz` steps a second; `None` where a frame would have fewer than 8.
    pub fn new(rate_hz: f64) -> Option<Self> {
        let frame_steps = (FRAME_SECONDS * rate_hz).round() as usize;
        if frame_steps < 8 || !rate_hz.is_finite() {
            return None;
        }
        let transform_steps = frame_steps.next_power_of_two();
        let angle = |at: usize, of: usize| 2.0 * PI * at as f64 / of as f64;
        let window = (0..frame_steps).map(|at| 0.54 - 0.46 * libm::cos(angle(at, frame_steps - 1)));
        let turn = (0..transform_steps)
            .map(|at| (libm::cos(angle(at, transform_steps)), libm::sin(angle(at, transform_steps))));
        Some(Self {
            hop_steps: (HOP_SECONDS * rate_hz).round().max(1.0) as usize,
            window: window.collect(),
            turn: turn.collect(),
            bands: bands(transform_steps, rate_hz),
        })
    }

    /// [`WIDTH`] numbers of one series, all its windows together: means, then deviations.
    pub fn statistics<'a>(&self, windows: impl IntoIterator<Item = &'a [f32]>) -> [f32; WIDTH] {
        let (mut sums, mut squares, mut frames) = ([0.0; COEFFICIENTS], [0.0; COEFFICIENTS], 0_u64);
        for window in windows {
            let end = window.iter().rposition(|x| *x != 0.0).map_or(0, |last| last + 1);
            let least = 2 * self.window.len();
            let mut padded = window[..end].to_vec();
            padded.resize(end.max(least), 0.0);
            for frame in padded.windows(self.window.len()).step_by(self.hop_steps) {
                for (at, x) in self.coefficients(frame).into_iter().enumerate() {
                    sums[at] += x;
                    squares[at] += x * x;
                }
                frames += 1;
            }
        }
        let count = frames.max(1) as f64;
        let mut found = [0.0; WIDTH];
        for at in 0..COEFFICIENTS {
            let mean = sums[at] / count;
            found[at] = mean as f32;
            found[COEFFICIENTS + at] = (squares[at] / count - mean * mean).max(0.0).sqrt() as f32;
        }
        found
    }

    fn coefficients(&self, frame: &[f32]) -> [f64; COEFFICIENTS] {
        let samples: Vec<f64> = frame.iter().zip(&self.window).map(|(x, w)| f64::from(*x) * w).collect();
        let steps = self.turn.len();
        let power: Vec<f64> = (0..=steps / 2)
            .map(|bin| {
                let (mut real, mut imaginary) = (0.0, 0.0);
                for (at, x) in samples.iter().enumerate() {
                    let (cosine, sine) = self.turn[at * bin % steps];
                    real += x * cosine;
                    imaginary += x * sine;
                }
                real * real + imaginary * imaginary
            })
            .collect();
        let energy = |band: &Vec<(usize, f64)>| band.iter().map(|&(bin, weight)| weight * power[bin]).sum::<f64>();
        let logs: Vec<f64> = self.bands.iter().map(|band| libm::log(energy(band) + SMALLEST_POWER)).collect();
        let bands = BANDS as f64;
        std::array::from_fn(|number| {
            let scale = if number == 0 { (1.0 / bands).sqrt() } else { (2.0 / bands).sqrt() };
            let angle = |at: usize| PI * number as f64 * (2 * at + 1) as f64 / (2.0 * bands);
            scale * logs.iter().enumerate().map(|(at, x)| x * libm::cos(angle(at))).sum::<f64>()
        })
    }
}

/// Triangles whose corners are equally far apart in mel, on whole bins.
fn bands(transform_steps: usize, rate_hz: f64) -> Vec<Vec<(usize, f64)>> {
    let mel = |hz: f64| 2595.0 * libm::log10(1.0 + hz / 700.0);
    let (low, high) = (mel(LOWEST_HZ), mel(rate_hz / 2.0));
    let corner = |number: usize| {
        let at = low + (high - low) * number as f64 / (BANDS + 1) as f64;
        let hz = 700.0 * (libm::pow(10.0, at / 2595.0) - 1.0);
        ((transform_steps + 1) as f64 * hz / rate_hz).floor() as usize
    };
    let last_bin = transform_steps / 2;
    let band = |number: usize| {
        let [left, top, right] = [corner(number), corner(number + 1), corner(number + 2)];
        let rising = (left..top).map(|bin| (bin, (bin - left) as f64 / (top - left).max(1) as f64));
        let falling = (top..right).map(|bin| (bin, (right - bin) as f64 / (right - top).max(1) as f64));
        rising.chain(falling).filter(|(bin, _)| *bin <= last_bin).collect()
    };
    (0..BANDS).map(band).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The signals of `tests/golden/mfcc.py`.
    fn signal(number: usize, steps: usize, rate: f64) -> Vec<f32> {
        let value = |step: usize| {
            let (t, n) = (step as f64 / rate, number as f64);
            (0.3 * libm::sin(2.0 * PI * (200.0 + 100.0 * n) * t)
                + 0.1 * libm::sin(2.0 * PI * 1_500.0 * t * (1.0 + t))
                + 0.05 * libm::sin(12.9898 * step as f64)) as f32
        };
        (0..steps).map(value).collect()
    }

    #[test]
    fn statistics_are_those_of_numpy_and_scipy() {
        let golden: serde_json::Value = serde_json::from_str(include_str!("../../tests/golden/mfcc.json")).unwrap();
        for case in golden["cases"].as_array().unwrap() {
            let number = |key: &str| case[key].as_u64().unwrap() as usize;
            let rate = number("rate_hz") as f64;
            let series = signal(number("number"), number("steps"), rate);
            let found = Mfcc::new(rate).unwrap().statistics([series.as_slice()]);
            for (at, expected) in case["statistics"].as_array().unwrap().iter().enumerate() {
                let expected = expected.as_f64().unwrap();
                assert!((f64::from(found[at]) - expected).abs() < 2e-3 * expected.abs().max(1.0), "{at}: {found:?}");
            }
        }
    }

    #[test]
    fn padding_behind_a_series_changes_nothing_and_windows_add_up() {
        let mfcc = Mfcc::new(8_000.0).unwrap();
        let series = signal(1, 2_000, 8_000.0);
        let mut padded = series.clone();
        padded.resize(3_000, 0.0);
        assert_eq!(mfcc.statistics([series.as_slice()]), mfcc.statistics([padded.as_slice()]));
        let twice = mfcc.statistics([series.as_slice(), series.as_slice()]);
        let once = mfcc.statistics([series.as_slice()]);
        assert!(twice.iter().zip(once).all(|(a, b)| (a - b).abs() < 1e-4));
        assert!(mfcc.statistics([&[0.0; 100][..]]).iter().all(|x| x.is_finite()), "silence");
        assert!(Mfcc::new(100.0).is_none() && Mfcc::new(f64::NAN).is_none());
    }
}
