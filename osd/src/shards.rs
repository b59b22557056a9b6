//! Which shard has a placement group, and the way to each.
//!
//! A group's shard follows from its name alone, so whoever has something for a group knows where it goes, also when this
//! OSD has not heard of its pool yet. A split makes children that belong elsewhere only while a pool has fewer groups
//! than the OSD has shards; those are handed over: see [`Event::Adopt`].
//!
//! Invariant: what one thread sends to one group arrives in the order in which it was sent.

use std::sync::{Arc, Mutex, PoisonError};

use nacre_maps::ClusterMap;
use nacre_pg::view::pg_of_hash;
use nacre_proto::ids::PgId;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::shard::Event;
use crate::slots::{Slot, Slots};

/// The most shards an OSD has.
pub const MOST: u64 = 64;

/// How many there are if nobody says: one for each four cores, since a host has several OSDs, and the kernel and the
/// journal want cores too; never more than four.
pub fn by_cores() -> u64 {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() as u64 / 4).clamp(1, 4))
}

/// See the module. Clones lead to the same shards.
#[derive(Clone, Debug)]
pub struct Shards {
    queues: Arc<[UnboundedSender<Event>]>,
    slots: Arc<Mutex<Slots>>,
}

impl Shards {
    /// So many, with what each of them hears.
    pub fn new(count: u64) -> (Shards, Vec<UnboundedReceiver<Event>>) {
        let (queues, heard): (Vec<_>, Vec<_>) = (0..count.clamp(1, MOST)).map(|_| mpsc::unbounded_channel()).unzip();
        (Shards { queues: queues.into(), slots: Arc::new(Mutex::new(Slots::new([1, 1, 1]))) }, heard)
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.queues.len()
    }

    /// The shard that has a group. Groups of a pool go round, each pool begins elsewhere.
    pub fn of(&self, pg: PgId) -> usize {
        let place = pg.pool.0.wrapping_add(u64::from(pg.seed));
        (place % self.queues.len() as u64) as usize
    }

    /// To the shard that has the group. Shards are gone only when the daemon ends.
    pub fn send(&self, pg: PgId, event: Event) {
        let _ = self.queues[self.of(pg)].send(event);
    }

    /// To each. False: one of them is gone.
    pub fn all(&self, event: impl Fn() -> Event) -> bool {
        self.queues.iter().filter(|queue| queue.send(event()).is_err()).count() == 0
    }

    /// Works on the slots, which are the OSD's and not a shard's, and tells those whom that concerns. The answers leave
    /// under the lock: of two that concern one group the later must come later.
    pub(crate) fn slots(&self, work: impl FnOnce(&mut Slots) -> Vec<Slot>, mut here: impl FnMut(Slot)) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        for slot in work(&mut slots) {
            match self.count() {
                1 => here(slot),
                _ => self.send(slot.pg, Event::Slot(slot)),
            }
        }
    }
}

/// The groups that a map splits off from others: each with the one it comes from.
pub(crate) fn births(before: &ClusterMap, map: &ClusterMap) -> Vec<(PgId, PgId)> {
    let mut found = Vec::new();
    for (pool, now) in map.pools.iter() {
        let Some(old) = before.pools.get(pool).map(|old| old.pg_num) else { continue };
        let pg = |seed| PgId { pool: *pool, seed };
        // A seed is a hash without its upper bits: where its objects were before is found as for those.
        found.extend((old..now.pg_num).map(|seed| (pg(seed), pg(pg_of_hash(seed, old)))));
    }
    found
}

#[cfg(test)]
mod tests {
    use nacre_pg::io::Order;
    use nacre_proto::ids::PoolId;

    use super::*;

    #[test]
    fn groups_go_round_and_what_is_sent_to_one_arrives_in_its_shard_in_order() {
        let (shards, mut queues) = Shards::new(3);
        let pg = |pool, seed| PgId { pool: PoolId(pool), seed };
        let places: Vec<usize> = (0..6).map(|seed| shards.of(pg(1, seed))).collect();
        assert_eq!(places, [1, 2, 0, 1, 2, 0]);
        assert_eq!(shards.of(pg(2, 0)), 2, "another pool begins elsewhere");
        for deep in [true, false, true] {
            shards.send(pg(1, 4), Event::Order(pg(1, 4), Order::Scrub { deep }));
        }
        let mut heard = Vec::new();
        while let Ok(Event::Order(_, Order::Scrub { deep })) = queues[2].try_recv() {
            heard.push(deep);
        }
        assert_eq!(heard, [true, false, true]);
        assert!(shards.all(|| Event::Report));
        drop(queues.pop());
        assert!(!shards.all(|| Event::Report), "one is gone");
    }
}
