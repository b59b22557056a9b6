//! What a monitor shows on its `/metrics` page and to `nacre daemon mon.N perf`, beside what every process shows. Values
//! that something else keeps anyway are read when the page is asked for.

use std::sync::Arc;

use nacre_net::identity::Gate;
use nacre_net::metrics::{Histogram, Registry};
use openraft::async_runtime::WatchReceiver;

use crate::node::Node;

/// How long commands take, from their arrival at the leader until they are committed and applied.
pub fn commits(registry: &Registry) -> Histogram {
    registry.histogram(
        "commit_seconds",
        "Time from a command's arrival at this monitor as leader until it was applied.",
        &[],
    )
}

/// Registers what is read from the node.
pub fn register(registry: &Registry, node: &Arc<Node>, gate: &Gate) {
    let raft = |name, help, kind, read: fn(&openraft::RaftMetrics<crate::raft::Product>) -> u64| {
        let node = node.clone();
        registry.read(name, help, kind, move || read(&node.raft.metrics().borrow_watched()) as f64);
    };
    raft("term", "The term of consensus this monitor is in.", "gauge", |seen| seen.current_term);
    raft("leads", "1 while this monitor leads the quorum.", "gauge", |seen| {
        u64::from(seen.current_leader == Some(seen.id))
    });
    raft("knows_leader", "1 while this monitor knows a leader.", "gauge", |seen| {
        u64::from(seen.current_leader.is_some())
    });
    raft("voters", "Monitors that vote.", "gauge", |seen| {
        seen.membership_config.membership().voter_ids().count() as u64
    });
    raft("log_last_entry", "Number of the newest entry in the log.", "gauge", |seen| seen.last_log_index.unwrap_or(0));
    raft("log_entries", "Entries in the log that snapshots have not replaced.", "gauge", |seen| {
        let purged = seen.purged.map_or(0, |id| id.index + 1);
        seen.last_log_index.map_or(0, |last| (last + 1).saturating_sub(purged))
    });
    raft("snapshot_entry", "Number of the last entry in the newest snapshot.", "gauge", |seen| {
        seen.snapshot.map_or(0, |id| id.index)
    });
    let state = |name, help, kind, read: fn(&crate::state::State) -> u64| {
        let node = node.clone();
        registry.read(name, help, kind, move || read(&node.shared.read()) as f64);
    };
    state("applied_entry", "Number of the newest entry that is part of the state.", "gauge", |state| {
        state.applied.map_or(0, |id| id.index)
    });
    state("commands_total", "Commands that are part of the state.", "counter", |state| state.commands);
    state("map_epoch", "The epoch of the cluster map.", "gauge", |state| state.map.epoch.0);
    state("osds", "OSDs in the cluster map.", "gauge", |state| state.map.osds.iter().count() as u64);
    state("osds_up", "OSDs that are up.", "gauge", |state| state.map.up_osds().count() as u64);
    state("osds_in", "OSDs that are in.", "gauge", |state| {
        state.map.osds.iter().filter(|(_, osd)| osd.is_in()).count() as u64
    });
    state("pools", "Pools in the cluster map.", "gauge", |state| state.map.pools.iter().count() as u64);
    state("members", "Identities that hold a certificate.", "gauge", |state| {
        state.identities.desk.members.len() as u64
    });
    let store = node.clone();
    registry.read("store_syncs_total", "Times the store was made durable.", "counter", move || store.syncs() as f64);
    let hub = node.hub.clone();
    registry
        .read("subscribers", "Streams of the cluster map that are open.", "gauge", move || hub.subscribers() as f64);
    let gate = gate.clone();
    registry.read("denied_total", "Calls and connections that were refused.", "counter", move || {
        gate.denied_total() as f64
    });
}
