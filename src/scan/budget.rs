//! Bytes that may be held at a time: whoever allocates carries a [`Charge`], which ends with the memory.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// A bound on bytes shared by many owners.
#[derive(Debug)]
pub struct ByteBudget {
    limit_bytes: u64,
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct State {
    used: u64,
    peak: u64,
}

impl ByteBudget {
    /// A budget of `limit_bytes`.
    pub fn new(limit_bytes: u64) -> Arc<Self> {
        Arc::new(Self { limit_bytes, state: Mutex::default(), freed: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Two numbers: a panic elsewhere cannot leave them half written.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bound in bytes.
    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// Bytes held now.
    pub fn used_bytes(&self) -> u64 {
        self.state().used
    }

    /// Most bytes ever held at a time.
    pub fn peak_bytes(&self) -> u64 {
        self.state().peak
    }

    /// Charges at once, over the bound if it must be: for what somebody is already waiting for.
    pub fn charge_now(self: &Arc<Self>, bytes: u64) -> Charge {
        let mut state = self.state();
        state.used += bytes;
        state.peak = state.peak.max(state.used);
        Charge { budget: Arc::clone(self), bytes }
    }

    fn try_charge(self: &Arc<Self>, bytes: u64) -> Option<Charge> {
        let mut state = self.state();
        let fits = state.used == 0 || state.used.saturating_add(bytes) <= self.limit_bytes;
        fits.then(|| {
            state.used += bytes;
            state.peak = state.peak.max(state.used);
            Charge { budget: Arc::clone(self), bytes }
        })
    }

    /// Waits for room, then charges. What is larger than the whole budget passes once nothing else is held.
    pub async fn charge(self: &Arc<Self>, bytes: u64) -> Charge {
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            // Registered before the check: memory freed in between is not missed.
            freed.as_mut().enable();
            if let Some(charge) = self.try_charge(bytes) {
                return charge;
            }
            freed.await;
        }
    }
}

/// Bytes held; dropping it returns them.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<ByteBudget>,
    bytes: u64,
}

impl Charge {
    /// How many.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.state().used -= self.bytes;
        self.budget.freed.notify_waiters();
    }
}

/// Memory together with its charge: slices of it keep both alive.
#[derive(Debug)]
pub struct Charged<T> {
    memory: T,
    _charge: Arc<Charge>,
}

impl<T: AsRef<[u8]> + Send + 'static> Charged<T> {
    /// As bytes whose last slice returns the charge, or its share of one, without a copy.
    pub fn into_bytes(memory: T, charge: Arc<Charge>) -> bytes::Bytes {
        bytes::Bytes::from_owner(Self { memory, _charge: charge })
    }
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Charged<T> {
    fn as_ref(&self) -> &[u8] {
        self.memory.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_charge_waits_for_memory_to_be_freed() {
        let budget = ByteBudget::new(10);
        let first = budget.charge(6).await;
        let mut waiting = pin!(budget.charge(5));
        assert!(waiting.as_mut().now_or_never().is_none(), "11 bytes of 10");
        drop(first);
        let second = waiting.await;
        assert_eq!((second.bytes(), budget.used_bytes(), budget.peak_bytes()), (5, 5, 6));
    }

    #[tokio::test]
    async fn an_oversized_charge_passes_alone() {
        let budget = ByteBudget::new(10);
        let huge = budget.charge(100).await;
        assert!(budget.try_charge(1).is_none());
        drop(huge);
        assert!(budget.try_charge(1).is_some());
    }

    #[tokio::test]
    async fn the_last_slice_returns_the_charge() {
        let budget = ByteBudget::new(10);
        let bytes = Charged::into_bytes(vec![1_u8, 2, 3, 4], Arc::new(budget.charge_now(4)));
        let slice = bytes.slice(2..3);
        drop(bytes);
        assert_eq!((slice[0], budget.used_bytes()), (3, 4));
        drop(slice);
        assert_eq!(budget.used_bytes(), 0);
    }
}
