//! What is known of fetched rows: a row of which many items come is verified and measured once.
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{augment::BadSample, pair::RowFacts};

/// Rows that are remembered: 3 MB, and twice as much for what is worked out of them.
const ROWS: usize = 65_536;

/// A row's facts, or why it is bad.
type Judged = Result<Arc<RowFacts>, BadSample>;

/// The rows that were last looked at, by the number of their fetch: a row that is fetched again is looked at again, one that
/// stays in memory is not.
pub struct KnownRows(Vec<Mutex<Option<(u64, Judged)>>>);

impl Default for KnownRows {
    fn default() -> Self {
        Self((0..ROWS).map(|_| Mutex::default()).collect())
    }
}

impl fmt::Debug for KnownRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnownRows").finish_non_exhaustive()
    }
}

impl KnownRows {
    /// What `judge` says of the row of a fetch. Threads that ask for one row at the same time wait for the first of them.
    pub(super) fn judged(&self, fetch: Option<u64>, judge: impl FnOnce() -> Result<RowFacts, BadSample>) -> Judged {
        let Some(fetch) = fetch else { return judge().map(Arc::new) };
        let slot = &self.0[(fetch % ROWS as u64) as usize];
        // One that panicked while it judged has left the slot as it was.
        let mut known = slot.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some((number, judged)) if *number == fetch => judged.clone(),
            _ => {
                let judged = judge().map(Arc::new);
                *known = Some((fetch, judged.clone()));
                judged
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::BadClass;

    #[test]
    fn a_row_is_judged_once_as_long_as_none_takes_its_place() {
        let known = KnownRows::default();
        let mut judged = vec![];
        let mut ask = |fetch: Option<u64>, factor: f32| {
            let facts = known.judged(fetch, || {
                judged.push(fetch);
                Ok(RowFacts { factors: vec![(factor, 0.0)] })
            });
            facts.unwrap().factors[0].0
        };
        assert_eq!([ask(Some(3), 1.0), ask(Some(3), 2.0), ask(Some(4), 3.0), ask(Some(3), 4.0)], [1.0, 1.0, 3.0, 1.0]);
        let other = 3 + ROWS as u64;
        assert_eq!([ask(Some(other), 5.0), ask(Some(3), 6.0)], [5.0, 6.0]);
        assert_eq!([ask(None, 7.0), ask(None, 8.0)], [7.0, 8.0]);
        assert_eq!(judged, [Some(3), Some(4), Some(other), Some(3), None, None]);
    }

    #[test]
    fn a_bad_row_stays_bad_and_a_panic_is_forgotten() {
        let known = KnownRows::default();
        let bad = || Err(BadSample { class: BadClass::Checksum, message: "other bytes".into() });
        assert!(known.judged(Some(1), bad).is_err());
        assert!(known.judged(Some(1), || Ok(RowFacts::default())).is_err());
        let panicked =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| known.judged(Some(2), || panic!("damage"))));
        assert!(panicked.is_err() && known.judged(Some(2), || Ok(RowFacts::default())).is_ok());
    }
}
