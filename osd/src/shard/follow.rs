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

use super::{Outside, Shard};
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
        self.feed(&sight);
        self.drain();
        let tuning = Tuning::of(&sight.map, self.me);
        let before = self.maps.last().cloned();
        let known = |session: &SessionId| before.as_ref().is_some_and(|before| before.map.is_fenced(*session));
        let fenced: Vec<SessionId> = sight.map.fenced.keys().filter(|session| !known(session)).copied().collect();
        self.maps.push(sight);
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
        let missing: Vec<PgId> =
            last.led_by(self.me).filter(|pg| !self.groups.contains_key(pg) && !self.leaving.contains_key(pg)).collect();
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

    pub(super) fn load_groups(&mut self) -> Result<(), String> {
        let floor = self.epoch();
        let now = self.now();
        (self.floor, self.began) = (floor, now);
        for pg in self.store.collections().map_err(|error| error.to_string())? {
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
