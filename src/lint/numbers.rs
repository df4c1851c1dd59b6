//! What is odd about the numbers of one series.
use crate::pair::Numbers;

/// Steps in a row at full scale that no sound reaches by chance.
const CLIPPED_RUN_STEPS: usize = 3;
/// Share of a series' numbers in such runs above which it is told.
const CLIPPED_SHARE: f64 = 1e-3;
/// Series of f32 with fewer steps per second are no sound, and 1.0 is no full scale of theirs.
const LEAST_SOUND_HZ: f64 = 1_000.0;

/// The numbers of a series, whole steps of one channel or more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Numbered<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) numbers: Numbers,
    pub(super) channels: usize,
    pub(super) rate_hz: Option<f64>,
}

/// What is gathered of one channel.
#[derive(Debug, Clone, Copy)]
struct Channel {
    least: f32,
    most: f32,
    missing: u64,
    /// Steps at full scale up to here without another between.
    run: usize,
    clipped: u64,
}

impl Numbered<'_> {
    /// Class and one sentence each.
    pub(super) fn doubts(&self) -> Vec<(&'static str, String)> {
        let start = Channel { least: f32::INFINITY, most: f32::NEG_INFINITY, missing: 0, run: 0, clipped: 0 };
        let mut channels = vec![start; self.channels];
        let full_scale = match self.numbers {
            Numbers::I16 => Some(f32::from(i16::MAX)),
            Numbers::F32 => self.rate_hz.filter(|rate| *rate >= LEAST_SOUND_HZ).map(|_| 1.0),
        };
        let mut take = |at: usize, x: f32| channels[at % self.channels].take(x, full_scale);
        match self.numbers {
            Numbers::I16 => {
                let numbers = self.bytes.as_chunks::<2>().0.iter().enumerate();
                numbers.for_each(|(at, bytes)| take(at, f32::from(i16::from_le_bytes(*bytes))));
            }
            Numbers::F32 => {
                let numbers = self.bytes.as_chunks::<4>().0.iter().enumerate();
                numbers.for_each(|(at, bytes)| take(at, f32::from_le_bytes(*bytes)));
            }
        }
        let steps = (self.bytes.len() / self.numbers.bytes() / self.channels) as u64;
        let count = steps * self.channels as u64;
        let mut doubts = Vec::new();
        let missing: u64 = channels.iter().map(|channel| channel.missing).sum();
        if missing > 0 {
            let what = "values are missing or not finite; windows fill them with those beside them";
            doubts.push(("non_finite", format!("{missing} of {count} {what}")));
        }
        if channels.iter().all(|channel| channel.missing < steps && channel.least == 0.0 && channel.most == 0.0) {
            doubts.push(("silent", "every number is 0".to_owned()));
            return doubts;
        }
        let is_constant = |channel: &Channel| steps > 1 && channel.least >= channel.most;
        let constant: Vec<String> =
            (0..self.channels).filter(|at| is_constant(&channels[*at])).map(|at| at.to_string()).collect();
        if !constant.is_empty() {
            let value = if channels.iter().all(is_constant) { "holds nothing but" } else { "has beside others" };
            doubts.push(("constant", format!("{value} channels that never change: {}", constant.join(", "))));
        }
        let clipped: u64 = channels.iter().map(|channel| channel.clipped).sum();
        if clipped as f64 > CLIPPED_SHARE * count as f64 {
            let share = 100.0 * clipped as f64 / count as f64;
            let what =
                format!("stand at full scale, {CLIPPED_RUN_STEPS} steps or more in a row: it was recorded too loud");
            doubts.push(("clipped", format!("{clipped} of {count} numbers ({share:.1} %) {what}")));
        }
        doubts
    }
}

impl Channel {
    fn take(&mut self, x: f32, full_scale: Option<f32>) {
        if !x.is_finite() {
            (self.missing, self.run) = (self.missing + 1, 0);
            return;
        }
        (self.least, self.most) = (self.least.min(x), self.most.max(x));
        if full_scale.is_none_or(|full_scale| x.abs() < full_scale) {
            self.run = 0;
            return;
        }
        self.run += 1;
        self.clipped += match self.run {
            CLIPPED_RUN_STEPS => CLIPPED_RUN_STEPS as u64,
            run => u64::from(run > CLIPPED_RUN_STEPS),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes(values: &[f32], channels: usize, rate_hz: f64) -> Vec<&'static str> {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let numbered = Numbered { bytes: &bytes, numbers: Numbers::F32, channels, rate_hz: Some(rate_hz) };
        numbered.doubts().into_iter().map(|(class, _)| class).collect()
    }

    #[test]
    fn every_oddity_has_its_class_and_sound_series_have_none() {
        let wave: Vec<f32> = (0..900).map(|at| (at as f32 * 0.1).sin() * 0.9).collect();
        assert!(classes(&wave, 1, 8_000.0).is_empty() && classes(&wave, 3, 8_000.0).is_empty());
        assert_eq!(classes(&[0.0; 8], 2, 8_000.0), ["silent"]);
        assert_eq!(classes(&[0.5, 1.0, 0.5, 2.0, 0.5, 3.0], 2, 10.0), ["constant"]);
        assert_eq!(classes(&[0.5; 6], 1, 10.0), ["constant"]);
        assert_eq!(classes(&[0.5, f32::NAN, 0.1, f32::INFINITY], 1, 10.0), ["non_finite"]);
        assert_eq!(classes(&[f32::NAN; 4], 1, 10.0), ["non_finite", "constant"]);
        let loud: Vec<f32> = wave.iter().map(|x| (x * 1.5).clamp(-1.0, 1.0)).collect();
        assert_eq!(classes(&loud, 1, 8_000.0), ["clipped"]);
        assert!(classes(&loud, 1, 10.0).is_empty(), "1.0 is no full scale of a sensor");
        // Peaks that touch the full scale are none.
        let peaks: Vec<f32> = (0..900).map(|at| if at % 9 < 2 { 1.0 } else { 0.3 }).collect();
        assert!(classes(&peaks, 1, 8_000.0).is_empty());
        assert!(classes(&[0.25], 1, 8_000.0).is_empty(), "one step never changes");
    }

    #[test]
    fn whole_numbers_have_a_full_scale_of_their_own() {
        let of = |value: fn(i16) -> i16| -> Vec<u8> { (0..300).flat_map(|at| value(at).to_le_bytes()).collect() };
        let doubts = |bytes: &[u8]| Numbered { bytes, numbers: Numbers::I16, channels: 1, rate_hz: None }.doubts();
        let loud = doubts(&of(|at| if at % 20 < 5 { i16::MIN } else { at }));
        assert_eq!(loud.len(), 1);
        assert!(loud[0].0 == "clipped" && loud[0].1.starts_with("75 of 300 numbers (25.0 %)"), "{loud:?}");
        assert!(doubts(&of(|at| at)).is_empty());
    }
}
