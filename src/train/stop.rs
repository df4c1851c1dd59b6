//! SIGINT and SIGTERM as a question that the loop asks after every step.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use signal_hook::low_level::exit;

use crate::error::{Context, Result, Stage};

/// What the process ends with at the second signal: without a checkpoint, a run has failed.
const IMPATIENT: i32 = 1;

/// The first signal asks the run to stop after its step and a checkpoint; the second ends the process at once.
#[derive(Debug, Clone)]
pub struct StopSignal {
    signal: Arc<AtomicUsize>,
}

impl StopSignal {
    /// Listens from now on, for the life of the process; `say` tells the user what a signal does.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub fn listen(say: impl Fn(&str) + Send + 'static) -> Result<Self> {
        let signal = Arc::new(AtomicUsize::new(0));
        let register = || {
            for number in [SIGINT, SIGTERM] {
                flag::register_usize(number, Arc::clone(&signal), number.unsigned_abs() as usize)?;
            }
            let mut arriving = Signals::new([SIGINT, SIGTERM])?;
            let telling = move || {
                let mut arriving = arriving.forever();
                arriving.next();
                say(
                    "stopping: the step is finished and a checkpoint written; a second signal stops at once, without one",
                );
                arriving.next();
                say("stopped at once: --resume goes on from the latest checkpoint");
                exit(IMPATIENT);
            };
            std::thread::Builder::new().name("signals".into()).spawn(telling)?;
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
        let stop = StopSignal::listen(|_| ()).unwrap();
        assert_eq!(stop.received(), None);
        signal_hook::low_level::raise(SIGTERM).unwrap();
        assert_eq!(stop.received(), Some(15));
        assert_eq!(stop.received(), Some(15));
    }
}
