//! Memory for queries, of which a part is kept from those that could spill instead.
use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use datafusion::{
    common::{Result, resources_err},
    execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation},
};

use super::report::Bytes;

/// Of the whole, what is kept from either kind of consumer while the other is there: one part in this many.
const KEPT_PART: usize = 4;

/// DataFusion's `FairSpillPool` with two reserves.
///
/// Consumers that can spill share evenly what the others leave of three quarters. In the fair pool they may take all of it:
/// sorts that have ended then hold every byte, the merge of their results cannot spill and gets none, and a query fails that
/// had room enough. Those that cannot spill leave a quarter as long as there are some that can: the merge of the sort that ends
/// first would take what the second needs for its next batch.
#[derive(Debug)]
pub(crate) struct SpillingPool {
    bytes: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Consumers that can spill.
    spillers: usize,
    /// Bytes of theirs.
    spillable: usize,
    /// Bytes of the others.
    unspillable: usize,
}

impl State {
    /// Bytes of consumers of this one's kind.
    fn held_by(&mut self, consumer: &MemoryConsumer) -> &mut usize {
        if consumer.can_spill() { &mut self.spillable } else { &mut self.unspillable }
    }
}

impl SpillingPool {
    /// Of so many bytes.
    pub(crate) fn new(bytes: usize) -> Self {
        Self { bytes, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryPool for SpillingPool {
    fn name(&self) -> &str {
        "spilling"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.state().spillers += usize::from(consumer.can_spill());
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        let mut state = self.state();
        state.spillers = state.spillers.saturating_sub(usize::from(consumer.can_spill()));
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        *self.state().held_by(reservation.consumer()) += additional;
    }

    fn shrink(&self, reservation: &MemoryReservation, less: usize) {
        let mut state = self.state();
        let held = state.held_by(reservation.consumer());
        *held = held.saturating_sub(less);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let mut state = self.state();
        let consumer = reservation.consumer();
        let left = if consumer.can_spill() {
            let kept = (self.bytes / KEPT_PART).max(state.unspillable);
            (self.bytes.saturating_sub(kept) / state.spillers.max(1)).saturating_sub(reservation.size())
        } else {
            let kept = if state.spillers > 0 { self.bytes / KEPT_PART } else { 0 };
            self.bytes.saturating_sub(kept.max(state.spillable)).saturating_sub(state.unspillable)
        };
        if additional > left {
            let (wanted, left, all) = (Bytes(additional as u64), Bytes(left as u64), Bytes(self.bytes as u64));
            return resources_err!("{} wants {wanted} more, and {left} of {all} are left for it", consumer.name());
        }
        *state.held_by(consumer) += additional;
        Ok(())
    }

    fn reserved(&self) -> usize {
        let state = self.state();
        state.spillable + state.unspillable
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.bytes)
    }
}

impl fmt::Display for SpillingPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name(), Bytes(self.bytes as u64))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn those_that_can_spill_leave_a_quarter_and_share_the_rest() {
        let pool: Arc<dyn MemoryPool> = Arc::new(SpillingPool::new(400));
        let sort = |name: &str| MemoryConsumer::new(name).with_can_spill(true).register(&pool);
        let (one, two) = (sort("one"), sort("two"));
        one.try_grow(150).unwrap();
        two.try_grow(150).unwrap();
        assert!(one.try_grow(1).unwrap_err().to_string().contains("one wants 1 bytes more, and 0 bytes"));
        let merge = MemoryConsumer::new("merge").register(&pool);
        merge.try_grow(100).unwrap();
        assert!(merge.try_grow(1).is_err());
        drop(two);
        assert_eq!(pool.reserved(), 250);
        merge.try_grow(150).unwrap();
        assert!(one.try_grow(1).is_err(), "what the others took beyond their part is gone");
    }

    #[test]
    fn those_that_cannot_spill_leave_a_quarter_while_others_are_there() {
        let pool: Arc<dyn MemoryPool> = Arc::new(SpillingPool::new(400));
        let sort = MemoryConsumer::new("sort").with_can_spill(true).register(&pool);
        let merge = MemoryConsumer::new("merge").register(&pool);
        merge.try_grow(300).unwrap();
        assert!(merge.try_grow(1).is_err());
        sort.try_grow(100).unwrap();
        sort.free();
        drop(sort);
        merge.try_grow(100).unwrap();
    }
}
