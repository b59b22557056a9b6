//! Memory for requests in flight that all connections of a daemon share. A connection that finds it used up leaves its
//! next request in the socket until others are done.
//!
//! Invariant: what is charged is never more than the size, except for one request at a time that is larger than the size
//! on its own.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

/// The budget.
#[derive(Debug)]
pub struct Budget {
    size: AtomicU64,
    used: AtomicU64,
    waits: AtomicBool,
    wakers: Mutex<Vec<Waker>>,
}

impl Budget {
    /// Of this many bytes.
    #[must_use]
    pub fn new(size: u64) -> Arc<Budget> {
        Arc::new(Budget {
            size: AtomicU64::new(size),
            used: AtomicU64::new(0),
            waits: AtomicBool::new(false),
            wakers: Mutex::new(Vec::new()),
        })
    }

    /// Another size. What is charged stays charged.
    pub fn resize(&self, size: u64) {
        if self.size.swap(size, Ordering::SeqCst) < size {
            self.wake();
        }
    }

    /// What is charged now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::SeqCst)
    }

    pub(super) fn try_charge(&self, cost: u64) -> bool {
        let size = self.size.load(Ordering::SeqCst);
        let fits = |used: u64| (used == 0 || used.saturating_add(cost) <= size).then(|| used + cost);
        self.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits).is_ok()
    }

    /// Charges, or has `waker` woken when there may be room.
    pub(super) fn charge_or_wait(&self, cost: u64, waker: &Waker) -> bool {
        if self.try_charge(cost) {
            return true;
        }
        let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        if !wakers.iter().any(|w| w.will_wake(waker)) {
            wakers.push(waker.clone());
        }
        self.waits.store(true, Ordering::SeqCst);
        drop(wakers);
        // What was given back between the first try and the flag woke nobody.
        self.try_charge(cost)
    }

    pub(super) fn release(&self, cost: u64) {
        if cost == 0 {
            return;
        }
        self.used.fetch_sub(cost, Ordering::SeqCst);
        self.wake();
    }

    fn wake(&self) {
        if self.waits.swap(false, Ordering::SeqCst) {
            let woken = std::mem::take(&mut *self.wakers.lock().unwrap_or_else(PoisonError::into_inner));
            woken.into_iter().for_each(Waker::wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_never_overdrawn_but_by_one_that_is_larger_than_all() {
        let budget = Budget::new(100);
        assert!(budget.try_charge(60));
        assert!(!budget.try_charge(60));
        assert!(budget.try_charge(40));
        budget.release(60);
        budget.release(40);
        assert!(budget.try_charge(500), "alone, it may");
        assert!(!budget.try_charge(1));
        budget.release(500);
        assert_eq!(budget.used(), 0);
        assert!(budget.try_charge(60));
        budget.resize(50);
        assert!(!budget.try_charge(1), "what is charged stays charged, and fills the smaller one");
        budget.resize(200);
        assert!(budget.try_charge(140));
    }
}
