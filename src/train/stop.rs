//! SIGINT and SIGTERM as a question that the loop asks after every step.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::error::{Context, Result, Stage};

/// The first signal asks the run to stop after its step and a checkpoint; the second ends the process at once.
#[derive(Debug, Clone)]
pub struct StopSignal {
    signal: Arc<AtomicUsize>,
}

impl StopSignal {
    /// Listens from now on, for the life of the process.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub fn listen() -> Result<Self> {
        let signal = Arc::new(AtomicUsize::new(0));
        let armed = Arc::new(AtomicBool::new(false));
        let register = || {
            for number in [SIGINT, SIGTERM] {
                // The order of registration matters: the first signal must not see what it arms.
                flag::register_conditional_shutdown(number, 128 + number, Arc::clone(&armed))?;
                flag::register(number, Arc::clone(&armed))?;
                flag::register_usize(number, Arc::clone(&signal), number.unsigned_abs() as usize)?;
            }
            std::io::Result::Ok(())
        };
        register().context(Stage::Train, "signals", "cannot listen for SIGINT and SIGTERM")?;
        Ok(Self { signal })
    }

    /// The number of the signal that arrived, if any.
    pub fn received(&self) -> Option<i32> {
        match self.signal.load(Ordering::SeqCst) {
            0 => None,
            number => i32::try_from(number).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_kept_until_it_is_asked_for() {
        let stop = StopSignal::listen().unwrap();
        assert_eq!(stop.received(), None);
        signal_hook::low_level::raise(SIGTERM).unwrap();
        assert_eq!(stop.received(), Some(15));
        assert_eq!(stop.received(), Some(15));
    }
}
