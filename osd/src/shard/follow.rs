//! How a shard follows the map: which groups it has, and what they are told of each epoch.

use std::sync::Arc;

use nacre_pg::io::Input;
use nacre_pg::io::{Order, TxnId};
use nacre_pg::state::History as PgHistory;
use nacre_pg::view::{PastIntervals, View};
use nacre_pg::{PlacementGroup, Stored};
use nacre_proto::ids::{Epoch, PgId, SessionId, Version};
use nacre_proto::txn::{Transaction, TxnOp};
use nacre_store::{ObjectStore, StoreError};

use super::{Event, Outside, Shard};
use crate::shards::births;
use crate::sight::Sight;
use crate::tuning::Tuning;

/// Maps kept beyond those that groups need.
pub(super) const KEEP: u64 = 500;

/// The oldest epoch a stored group still has to follow, if there is a group.
pub fn oldest_epoch(store: &dyn ObjectStore) -> Result<Option<Epoch>, String> {
    let mut oldest = None;
    for pg in store.collections().map_err(|error| error.to_string())? {
        let stored = stored(store, pg).map_err(|error| format!("pg {pg}: {error}"))?;
        let epoch = PlacementGroup::stored_epoch(&stored).map_err(|error| format!("pg {pg}: {error}"))?;
        oldest = Some(oldest.map_or(epoch, |oldest: Epoch| oldest.min(epoch)));
    }
    Ok(oldest)
}

fn stored(store: &dyn ObjectStore, pg: PgId) -> Result<Stored, StoreError> {
    let log = store.log(pg, Version::default(), usize::MAX)?;
    Ok(Stored { meta: store.meta_list(pg)?, log: log.into_iter().map(|(_, entry)| entry).collect() })
}

impl<O: Outside> Shard<O> {
    pub(super) fn on_sight(&mut self, sight: Arc<Sight>) {
        // What is under way was asked under older maps.
        self.drain();
        let before = self.maps.last().cloned();
        self.maps.push(Arc::clone(&sight));
        if let Some(before) = &before {
            self.expect(births(&before.map, &sight.map));
        }
        self.feed(&sight);
        self.drain();
        let tuning = Tuning::of(&sight.map, self.me);
        let known = |session: &SessionId| before.as_ref().is_some_and(|before| before.map.is_fenced(*session));
        let fenced: Vec<SessionId> = sight.map.fenced.keys().filter(|session| !known(session)).copied().collect();
        for session in fenced {
            for (pg, (core, _)) in &self.groups {
                self.work.push_back((*pg, *core, Input::Order(Order::SessionGone(session))));
            }
        }
        if tuning != self.tuning {
            self.tuning = tuning;
            self.tune();
        }
        self.make_groups();
        self.drain();
        self.take_early();
        let epoch = self.epoch();
        let needed = self.groups.values().map(|(_, group)| group.info().interval).min().unwrap_or(epoch);
        // Pools are made from their first epoch on; some history also serves messages that are late.
        self.maps.forget_before(Epoch(needed.0.min(epoch.0.saturating_sub(KEEP))));
    }

    /// Gives a map to every group.
    pub(super) fn feed(&mut self, sight: &Arc<Sight>) {
        let groups: Vec<(PgId, u64)> = self.groups.iter().map(|(pg, (core, _))| (*pg, *core)).collect();
        for (pg, core) in groups {
            match sight.view(pg) {
                Some(view) => self.work.push_back((pg, core, Input::Map(view))),
                None => self.remove(pg),
            }
        }
        let gone: Vec<PgId> = self.expected.keys().filter(|pg| sight.view(**pg).is_none()).copied().collect();
        for pg in gone {
            self.barren(pg);
            for event in self.expected.remove(&pg).unwrap_or_default() {
                self.take(event);
            }
        }
    }

    /// A map splits groups. A parent that is here makes its children when it is fed that map (or later, if it waits for
    /// room); one that is itself expected, when it has come; no other ever does.
    fn expect(&mut self, births: Vec<(PgId, PgId)>) {
        let mut without = Vec::new();
        for (child, parent) in births {
            if self.shards.of(child) == self.index {
                self.expected.entry(child).or_default();
            }
            if self.shards.of(parent) == self.index {
                self.owed.insert(child, parent);
                if !self.groups.contains_key(&parent) && !self.expected.contains_key(&parent) {
                    without.push(parent);
                }
            }
        }
        without.into_iter().for_each(|parent| self.barren(parent));
    }

    /// A group makes no children: it is not here, or goes. Nobody is to wait for them.
    pub(super) fn barren(&mut self, parent: PgId) {
        let void: Vec<PgId> = self.owed.iter().filter(|(_, of)| **of == parent).map(|(child, _)| *child).collect();
        for child in void {
            self.owed.remove(&child);
            self.hand_over(child, self.epoch(), None);
        }
    }

    /// To the shard that has the group from now on.
    pub(super) fn hand_over(&mut self, pg: PgId, epoch: Epoch, child: Option<Box<PlacementGroup>>) {
        if self.shards.of(pg) == self.index {
            self.adopt(pg, epoch, child);
        } else {
            self.shards.send(pg, Event::Adopt(pg, epoch, child));
        }
    }

    /// What a split made, in this epoch: it follows the maps from there on, as its parent did.
    pub(super) fn adopt(&mut self, pg: PgId, epoch: Epoch, child: Option<Box<PlacementGroup>>) {
        if epoch > self.epoch() {
            // The other shard is ahead.
            self.early.push_back((epoch, Event::Adopt(pg, epoch, child)));
            return;
        }
        match child {
            Some(child) => self.follow_from(pg, epoch, child),
            None => self.barren(pg),
        }
        for event in self.expected.remove(&pg).unwrap_or_default() {
            self.take(event);
        }
    }

    /// A group that comes from elsewhere, and the maps from its epoch on.
    fn follow_from(&mut self, pg: PgId, epoch: Epoch, child: Box<PlacementGroup>) {
        let number = self.number();
        self.groups.insert(pg, (number, *child));
        if self.maps.last().is_some_and(|sight| sight.view(pg).is_none()) {
            return self.remove(pg);
        }
        for epoch in epoch.0..=self.epoch().0 {
            match self.maps.get(Epoch(epoch)).and_then(|sight| sight.view(pg)) {
                Some(view) => self.work.push_back((pg, number, Input::Map(view))),
                None => self.outside.broken(format!("pg {pg} was split off in epoch {epoch}, whose map is gone")),
            }
        }
    }

    /// The pool is gone, and with it the group.
    pub(super) fn remove(&mut self, pg: PgId) {
        let core = self.groups.get(&pg).map_or(0, |(core, _)| *core);
        self.gone(pg, core);
        let number = self.number();
        self.leaving.insert(pg, (number, TxnId(0)));
        self.submit(pg, number, TxnId(0), Transaction { pg, ops: vec![TxnOp::RemoveCollection] });
    }

    /// Makes the groups that this OSD leads and that nobody has held yet: all that happened since the pool was made is
    /// followed through the maps. If these no longer reach back so far, whoever holds the group tells us.
    pub(super) fn make_groups(&mut self) {
        let Some(last) = self.maps.last().cloned() else { return };
        let has =
            |pg: &PgId| self.groups.contains_key(pg) || self.leaving.contains_key(pg) || self.expected.contains_key(pg);
        let mine = |pg: &PgId| self.shards.of(*pg) == self.index;
        let missing: Vec<PgId> = last.led_by(self.me).filter(|pg| mine(pg) && !has(pg)).collect();
        for pg in missing {
            let Some(made) = last.map.pools.get(&pg.pool).map(|pool| pool.created_in) else { continue };
            let Some((view, interval, past)) = self.followed(pg, made) else { continue };
            let number = self.number();
            let group = PlacementGroup::create(pg, self.me, Arc::clone(&self.cfg), Arc::clone(&view), interval);
            let history = PgHistory { created: made, ..PgHistory::default() };
            let group = group.with_history(&history, &past).of_run(self.floor, self.began);
            self.groups.insert(pg, (number, group));
            self.work.push_back((pg, number, Input::Map(view)));
        }
    }

    /// The present view of a group, where its interval began, and the intervals before it since an epoch.
    pub(super) fn followed(&self, pg: PgId, since: Epoch) -> Option<(Arc<View>, Epoch, PastIntervals)> {
        let mut past = PastIntervals::default();
        let mut before = self.maps.get(since)?.view(pg)?;
        let mut interval = since;
        for epoch in since.0 + 1..=self.epoch().0 {
            let view = self.maps.get(Epoch(epoch))?.view(pg)?;
            if !before.same_interval(&view) {
                past.close(interval, &before);
                interval = view.epoch;
            }
            before = view;
        }
        Some((before, interval, past))
    }

    pub(super) fn load_groups(&mut self, groups: &[PgId]) -> Result<(), String> {
        let floor = self.epoch();
        let now = self.now();
        (self.floor, self.began) = (floor, now);
        for pg in groups.iter().copied().filter(|pg| self.shards.of(*pg) == self.index).collect::<Vec<_>>() {
            let failed = |error: &dyn std::fmt::Display| format!("pg {pg}: {error}");
            if self.maps.last().is_some_and(|sight| sight.view(pg).is_none()) {
                self.remove(pg);
                continue;
            }
            let stored = stored(&*self.store, pg).map_err(|error| failed(&error))?;
            let epoch = PlacementGroup::stored_epoch(&stored).map_err(|error| failed(&error))?;
            let view = self.maps.get(epoch).and_then(|sight| sight.view(pg)).ok_or_else(|| {
                failed(&format_args!("followed the maps up to {}, which is no longer among those kept here", epoch.0))
            })?;
            let group = PlacementGroup::load(&stored, self.me, Arc::clone(&self.cfg), view, floor, now)
                .map_err(|error| failed(&error))?;
            let number = self.number();
            self.groups.insert(pg, (number, group));
            for epoch in epoch.0 + 1..=floor.0 {
                if let Some(view) = self.maps.get(Epoch(epoch)).and_then(|sight| sight.view(pg)) {
                    self.work.push_back((pg, number, Input::Map(view)));
                }
            }
        }
        self.drain();
        Ok(())
    }
}

#[cfg(test)]
#[path = "follow_test.rs"]
mod tests;
