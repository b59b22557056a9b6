//! The map as subscribers want it: the newest, and the increments that led to it from not too long ago. Fed by the
//! state machine; each monitor has its own.
//!
//! Invariant: increments held end at the newest epoch. A subscriber that was away for longer than they reach back is sent
//! the full map.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use nacre_maps::{ClusterMap, Increment};
use tokio::sync::watch;

use super::past::Past;

/// What brings a subscriber up to date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// From whatever it had to this epoch.
    Full(u64, Bytes),
    /// From the epoch before to this one.
    Increment(u64, Bytes),
}

#[derive(Default)]
struct Held {
    past: Past,
    map: Arc<ClusterMap>,
    /// The newest map's bytes, made when first asked for.
    full: Option<Bytes>,
}

impl Held {
    fn full(&mut self) -> Bytes {
        let Held { map, full, .. } = self;
        full.get_or_insert_with(|| map.encode().into()).clone()
    }
}

/// See the module.
pub struct Hub {
    held: Mutex<Held>,
    epoch: watch::Sender<u64>,
    event: watch::Sender<u64>,
    subscribers: Arc<()>,
}

impl Default for Hub {
    fn default() -> Hub {
        let (epoch, event) = (watch::Sender::new(0), watch::Sender::new(0));
        Hub { held: Mutex::default(), epoch, event, subscribers: Arc::new(()) }
    }
}

impl Hub {
    /// Takes a new map, with the increments that led to it. Without, the state is another one: what is held is replaced
    /// by its past.
    pub fn publish(&self, map: &Arc<ClusterMap>, increments: &[Increment], past: &Past) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if increments.is_empty() && held.map.epoch == map.epoch && held.map.fsid == map.fsid {
            return;
        }
        if increments.first().is_none_or(|increment| increment.from != held.map.epoch) {
            held.past = past.clone();
        } else {
            increments.iter().for_each(|increment| held.past.follow(past, increment.from.0));
        }
        held.map = map.clone();
        held.full = None;
        self.epoch.send_replace(map.epoch.0);
    }

    /// Notes the number of the newest line of the cluster log.
    pub fn note(&self, newest: u64) {
        self.event.send_if_modified(|held| std::mem::replace(held, newest) != newest);
    }

    /// Tells of each new epoch.
    pub fn epochs(&self) -> watch::Receiver<u64> {
        self.epoch.subscribe()
    }

    /// The newest epoch.
    pub fn epoch(&self) -> u64 {
        *self.epoch.borrow()
    }

    /// Held by whoever follows the map for somebody outside, to be counted.
    pub fn subscriber(&self) -> Arc<()> {
        self.subscribers.clone()
    }

    /// How many hold one.
    pub fn subscribers(&self) -> usize {
        Arc::strong_count(&self.subscribers) - 1
    }

    /// Tells of each new line of the cluster log.
    pub fn events(&self) -> watch::Receiver<u64> {
        self.event.subscribe()
    }

    /// The newest map.
    pub fn map(&self) -> Arc<ClusterMap> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).map.clone()
    }

    /// The next step for a subscriber at epoch `have`; nothing if it is up to date or ahead.
    pub fn next(&self, have: u64) -> Option<Step> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = held.map.epoch.0;
        if newest <= have {
            return None;
        }
        if let Some((to, bytes)) = held.past.after(have).filter(|_| have > 0) {
            return Some(Step::Increment(to, bytes));
        }
        Some(Step::Full(newest, held.full()))
    }

    /// The newest map's bytes.
    pub fn full(&self) -> Bytes {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).full()
    }
}
