//! The learning rate of every step: how the peak follows the batch, the warm-up, and what comes after it.
use std::fmt;

use super::{OptimizerSettings, RateScaling, ScheduleSettings, TrainSettings};

/// Batch for which a linearly scaled rate is given (Goyal et al., arXiv:1706.02677).
const LINEAR_REFERENCE_ROWS: f64 = 256.0;
/// SimCLR's rates under LARS (arXiv:2002.05709, appendix B.1 and section 2.2).
const LARS_SQUARE_ROOT_RATE: f64 = 0.075;
const LARS_LINEAR_RATE: f64 = 0.3;

/// Rate as a function of the step.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    rate: f64,
    scaling: RateScaling,
    batch_rows: usize,
    peak: f64,
    cosine: bool,
    warmup_steps: u64,
    total_steps: u64,
}

impl Schedule {
    /// The schedule of a run; it spans all epochs whatever `max_steps` says.
    pub fn new(settings: &TrainSettings, batch_rows: usize, batches_per_epoch: u64) -> Self {
        let scaling = settings.rate_scaling;
        let rate = match &settings.optimizer {
            OptimizerSettings::Sgd(sgd) => sgd.rate,
            OptimizerSettings::AdamW(adamw) => adamw.rate,
            OptimizerSettings::Lars(lars) => lars.rate.unwrap_or(match scaling {
                RateScaling::SquareRoot => LARS_SQUARE_ROOT_RATE,
                RateScaling::Linear | RateScaling::None => LARS_LINEAR_RATE,
            }),
        };
        let rows = batch_rows as f64;
        let peak = match scaling {
            RateScaling::None => rate,
            RateScaling::Linear => rate * rows / LINEAR_REFERENCE_ROWS,
            RateScaling::SquareRoot => rate * libm::sqrt(rows),
        };
        let (cosine, warmup) = match &settings.schedule {
            ScheduleSettings::Constant(warmup) => (false, warmup),
            ScheduleSettings::Cosine(warmup) => (true, warmup),
        };
        let total_steps = settings.epochs.saturating_mul(batches_per_epoch);
        let warmup_steps = (warmup.warmup_epochs.max(0.0) * batches_per_epoch as f64).round() as u64;
        Self { rate, scaling, batch_rows, peak, cosine, warmup_steps: warmup_steps.min(total_steps), total_steps }
    }

    /// The rate of the step after `steps_done` steps: 0 for the very first one where there is a warm-up.
    pub fn rate(&self, steps_done: u64) -> f64 {
        if steps_done < self.warmup_steps {
            return self.peak * steps_done as f64 / self.warmup_steps as f64;
        }
        if !self.cosine {
            return self.peak;
        }
        let span = (self.total_steps - self.warmup_steps).max(1) as f64;
        let progress = ((steps_done - self.warmup_steps) as f64 / span).min(1.0);
        self.peak * 0.5 * (1.0 + libm::cos(std::f64::consts::PI * progress))
    }

    /// The highest rate.
    pub fn peak(&self) -> f64 {
        self.peak
    }

    /// Steps of all epochs.
    pub fn total_steps(&self) -> u64 {
        self.total_steps
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rate, batch_rows, peak, warmup_steps, total_steps, .. } = self;
        write!(f, "peak learning rate {peak}")?;
        match self.scaling {
            RateScaling::None => {}
            RateScaling::Linear => write!(f, " = {rate} x {batch_rows} rows / 256")?,
            RateScaling::SquareRoot => write!(f, " = {rate} x sqrt({batch_rows} rows)")?,
        }
        let shape = if self.cosine { "cosine to 0" } else { "constant" };
        write!(f, ", {shape} over {total_steps} steps, {warmup_steps} of them warm-up")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::{LarsSettings, SgdSettings, WarmupSettings};

    fn settings(optimizer: OptimizerSettings, rate_scaling: RateScaling, schedule: ScheduleSettings) -> TrainSettings {
        TrainSettings { rate_scaling, schedule, ..TrainSettings::new(100, optimizer) }
    }

    #[test]
    fn lars_peaks_are_the_papers() {
        let peak = |scaling, rows| {
            let lars = OptimizerSettings::Lars(LarsSettings::default());
            Schedule::new(&settings(lars, scaling, ScheduleSettings::default()), rows, 10).peak()
        };
        assert!((peak(RateScaling::Linear, 4_096) - 4.8).abs() < 1e-12);
        assert!((peak(RateScaling::SquareRoot, 4_096) - 4.8).abs() < 1e-12);
        assert!((peak(RateScaling::Linear, 256) - 0.3).abs() < 1e-12);
        assert!((peak(RateScaling::SquareRoot, 256) - 1.2).abs() < 1e-12);
    }

    #[test]
    fn warm_up_starts_at_zero_and_the_cosine_ends_near_it() {
        let cosine = ScheduleSettings::Cosine(WarmupSettings { warmup_epochs: 10.0 });
        let sgd = OptimizerSettings::Sgd(SgdSettings { rate: 2.0, ..SgdSettings::default() });
        let schedule = Schedule::new(&settings(sgd, RateScaling::None, cosine), 256, 10);
        assert_eq!(schedule.total_steps(), 1_000);
        assert_eq!(schedule.rate(0), 0.0);
        assert_eq!(schedule.rate(50), 1.0);
        assert_eq!(schedule.rate(100), 2.0);
        assert!((schedule.rate(550) - 1.0).abs() < 1e-12);
        assert!(schedule.rate(999) < 1e-4 && schedule.rate(999) > 0.0);
        assert_eq!(schedule.rate(1_000), 0.0);
        assert_eq!(schedule.rate(5_000), 0.0);
    }

    #[test]
    fn constant_stays_at_the_peak_and_a_warm_up_may_be_a_fraction() {
        let constant = ScheduleSettings::Constant(WarmupSettings { warmup_epochs: 0.5 });
        let sgd = OptimizerSettings::Sgd(SgdSettings { rate: 1.0, ..SgdSettings::default() });
        let schedule = Schedule::new(&settings(sgd, RateScaling::None, constant), 256, 8);
        assert_eq!((schedule.rate(2), schedule.rate(4), schedule.rate(799)), (0.5, 1.0, 1.0));
    }

    #[test]
    fn the_resolved_rate_is_put_in_words() {
        let lars = OptimizerSettings::Lars(LarsSettings::default());
        let text = Schedule::new(&settings(lars, RateScaling::SquareRoot, ScheduleSettings::default()), 256, 10);
        assert!(text.to_string().starts_with("peak learning rate 1.2 = 0.075 x sqrt(256 rows), cosine"), "{text}");
    }
}
