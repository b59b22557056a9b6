//! The state as openraft drives it: entries in, outcomes out, snapshots of it onto the store.
//!
//! The state lives in memory. After a restart it is the snapshot plus the committed entries behind it, which openraft
//! applies again; the snapshot policy bounds how many these are.

use std::io;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};

use nacre_maps::Increment;

use super::State;
use crate::raft::{Config, Entry, LogId, Outcome, Snapshot, SnapshotMeta, StoredMembership};
use crate::store::{Store, StoreError};

/// Told of each change of the state, with the increments that led to its map, if it was not replaced; under the state's lock: must be quick and must not call back.
pub type Observer = Arc<dyn Fn(&State, &[Increment]) + Send + Sync>;

/// A state and its observer; clones share them.
#[derive(Clone)]
pub struct Shared {
    state: Arc<RwLock<State>>,
    observer: Observer,
}

impl Shared {
    /// Reads the state as it is at this monitor, which may lag behind the quorum.
    pub fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace(&self, state: State) {
        let mut held = self.state.write().unwrap_or_else(PoisonError::into_inner);
        *held = state;
        (self.observer)(&held, &[]);
    }

    fn apply(&self, entry: &Entry) -> Outcome {
        let mut held = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let applied = held.apply(entry);
        if !matches!(entry.payload, EntryPayload::Blank) {
            (self.observer)(&held, &applied.increments);
        }
        applied.outcome
    }
}

/// See the module.
#[derive(Clone)]
pub struct Machine {
    shared: Shared,
    store: Store,
}

impl Machine {
    /// Starts from the store's snapshot, or from `fresh` if there is none.
    pub fn open(store: Store, fresh: State, observer: Observer) -> Result<Machine, StoreError> {
        let state = match store.snapshot()? {
            None => fresh,
            Some(found) => State::decode(found.snapshot).map_err(|error| StoreError::Senseless {
                path: store.path().to_owned(),
                what: "snapshot".into(),
                problem: error.to_string(),
            })?,
        };
        let shared = Shared { state: Arc::new(RwLock::new(State::default())), observer };
        shared.replace(state);
        Ok(Machine { shared, store })
    }

    /// The state, to be read.
    pub fn shared(&self) -> Shared {
        self.shared.clone()
    }
}

fn meta(state: &State) -> SnapshotMeta {
    SnapshotMeta { last_log_id: state.applied, last_membership: state.membership.clone() }
}

/// Writes one snapshot. The state was encoded when it was asked for, so entries go on being applied meanwhile.
pub struct Builder {
    meta: SnapshotMeta,
    snapshot: Bytes,
    store: Store,
}

impl<C: Config> RaftSnapshotBuilder<C> for Builder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        self.store.put_snapshot(&self.meta, &self.snapshot)?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot: self.snapshot.clone() })
    }
}

impl<C: Config> RaftStateMachine<C> for Machine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let state = self.shared.read();
        Ok((state.applied, state.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<C>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let outcome = self.shared.apply(&entry);
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let state = self.shared.read();
        Builder { meta: meta(&state), snapshot: state.encode(), store: self.store.clone() }
    }

    async fn install_snapshot(&mut self, offered: &SnapshotMeta, snapshot: Bytes) -> Result<(), io::Error> {
        let state = State::decode(snapshot.clone()).map_err(io::Error::other)?;
        if meta(&state) != *offered {
            return Err(io::Error::other(format!("a snapshot of {} was announced as {offered}", meta(&state))));
        }
        self.store.put_snapshot(offered, &snapshot)?;
        self.shared.replace(state);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(self.store.snapshot()?)
    }
}

#[cfg(test)]
mod tests {
    use nacre_maps::ClusterMap;
    use nacre_mon_api::v1;
    use nacre_proto::ids::Uuid;
    use nacre_proto::v1::map_command::Verb;
    use nacre_proto::v1::{MapCommand, SettingSet};
    use openraft::type_config::TypeConfigExt;
    use prost::Message;

    use super::*;
    use crate::raft::{LeaderId, Product, Request};
    use crate::state::hub::{Hub, Step};
    use crate::store::{Identity, committer_inline};

    /// Changes a setting, so that the map changes.
    fn entry(index: u64) -> Entry {
        let set = SettingSet {
            scope: "global".into(),
            name: "mon.pg.per_osd_target".into(),
            value: (50 + index).to_string(),
        };
        let verb = v1::command::Verb::Map(MapCommand { verb: Some(Verb::SettingSet(set)) });
        let command = v1::Command { verb: Some(verb) }.encode_to_vec().into();
        let request = Request { session: 9, sequence: index, at_ms: index, who: "client.admin".into(), command };
        let log_id = LogId { leader_id: LeaderId { term: 1, node_id: 1 }, index };
        Entry { log_id, payload: EntryPayload::Normal(request) }
    }

    fn opened(store: &Store) -> (Machine, Arc<Hub>) {
        let hub = Arc::new(Hub::default());
        let published = Arc::clone(&hub);
        let observer = move |state: &State, increments: &[Increment]| {
            published.publish(&state.map, increments, &state.past);
        };
        let fresh = State { map: Arc::new(ClusterMap::empty(Uuid([7; 16]))), ..State::default() };
        (Machine::open(store.clone(), fresh, Arc::new(observer)).unwrap(), hub)
    }

    /// Who has this epoch is led from there to the newest, change by change; by how many.
    fn led(hub: &Hub, mut have: u64) -> u64 {
        let mut steps = 0;
        while let Some(step) = hub.next(have) {
            let Step::Increment(to, _) = step else { panic!("at {have}: sent the whole map") };
            (have, steps) = (to, steps + 1);
        }
        assert_eq!(have, hub.epoch());
        steps
    }

    #[test]
    fn who_was_away_is_led_on_also_after_the_monitor_started_anew_from_a_snapshot() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity { fsid: "5f1d".into(), mon: 1, node: 1 };
        let store = Store::open(folder.path(), &identity, true, committer_inline()).unwrap();
        let (mut machine, hub) = opened(&store);
        (1..=20).for_each(|index| drop(machine.shared.apply(&entry(index))));
        let had = hub.epoch() - 12;
        assert_eq!(led(&hub, had), 12);
        // when all that was decided is in a snapshot, and no entry of the log tells how it came about
        Product::run(async {
            let mut builder = RaftStateMachine::<Product>::get_snapshot_builder(&mut machine).await;
            RaftSnapshotBuilder::<Product>::build_snapshot(&mut builder).await.unwrap();
        });
        let (again, hub) = opened(&store);
        // then a subscriber that was away meanwhile is still told each change
        assert_eq!(led(&hub, had), 12);
        (21..=22).for_each(|index| drop(again.shared.apply(&entry(index))));
        assert_eq!(led(&hub, had), 14);
        // and another monitor that takes the snapshot over can tell it as well
        let other = tempfile::tempdir().unwrap();
        let theirs =
            Store::open(other.path(), &Identity { mon: 2, node: 2, ..identity }, true, committer_inline()).unwrap();
        let (mut machine, hub) = opened(&theirs);
        let found = store.snapshot().unwrap().unwrap();
        Product::run(async {
            RaftStateMachine::<Product>::install_snapshot(&mut machine, &found.meta, found.snapshot.clone())
                .await
                .unwrap();
        });
        assert_eq!(led(&hub, had), 12);
    }
}
