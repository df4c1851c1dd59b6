//! Where the windows of one sample begin, in steps of a series or sentences of a document.
use std::fmt;

use crate::seed::Draws;

/// Where windows begin: on the grid 0, hop, 2 hop, ….
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Starts {
    /// Drawn, no two alike.
    Random {
        /// Steps between places on the grid.
        hop_steps: usize,
    },
    /// The same every time, spread over the grid.
    Regular {
        /// Steps between places on the grid.
        hop_steps: usize,
    },
    /// One behind the other on the grid, on and on through the repeats of a sample.
    Successive {
        /// Steps between places on the grid.
        hop_steps: usize,
    },
    /// From the first step to the last, however close; what is shorter than a window is followed by zeros.
    Covering,
}

impl fmt::Display for Starts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Random { hop_steps } => write!(f, "random/{hop_steps}"),
            Self::Regular { hop_steps } => write!(f, "regular/{hop_steps}"),
            Self::Successive { hop_steps } => write!(f, "successive/{hop_steps}"),
            Self::Covering => f.write_str("covering"),
        }
    }
}

impl Starts {
    /// Steps that so many windows of `window_steps` need.
    pub(super) fn least_steps(self, window_steps: usize, windows: usize) -> usize {
        match self {
            Self::Random { hop_steps } | Self::Regular { hop_steps } | Self::Successive { hop_steps } => {
                window_steps + windows.saturating_sub(1) * hop_steps
            }
            Self::Covering => 1,
        }
    }

    /// Where so many windows of `window_steps` begin among `steps`, which are no fewer than [`Self::least_steps`]; `repeat` is which
    /// repeat of the sample it is, from 0.
    pub(super) fn of(
        self,
        steps: usize,
        window_steps: usize,
        windows: usize,
        repeat: usize,
        draws: impl FnOnce() -> Draws,
    ) -> Vec<usize> {
        match self {
            Self::Random { hop_steps } => {
                let places = (steps - window_steps) / hop_steps + 1;
                let mut draws = draws();
                // Floyd's: so many draws as windows, all subsets equally likely.
                let mut taken: Vec<usize> = Vec::with_capacity(windows);
                for last in places - windows..places {
                    let place = draws.below(last as u64 + 1) as usize;
                    taken.push(if taken.contains(&place) { last } else { place });
                }
                taken.into_iter().map(|place| place * hop_steps).collect()
            }
            Self::Regular { hop_steps } => {
                let places = (steps - window_steps) / hop_steps + 1;
                (0..windows).map(|window| (2 * window + 1) * places / (2 * windows) * hop_steps).collect()
            }
            Self::Successive { hop_steps } => {
                let places = (steps - window_steps) / hop_steps + 1;
                (0..windows).map(|window| (repeat * windows + window) % places * hop_steps).collect()
            }
            Self::Covering => {
                let room = steps.saturating_sub(window_steps);
                match windows {
                    1 => vec![room / 2],
                    _ => (0..windows).map(|window| room * window / (windows - 1)).collect(),
                }
            }
        }
    }
}
