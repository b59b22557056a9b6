//! A pool's pgs become more: each pg keeps the objects that still fall to it and gives birth to children for the rest.
//!
//! A split begins an interval, so nothing is on its way between replicas, and every replica divides what it holds by
//! itself, by hash alone: objects (the store does that), missing objects, the log. Entries of the other side stay in the
//! log as marks without effect: so two logs that shared a version still do, and whether one can be joined to another is
//! decided as before. Replies beyond the log are not known by object and go to all. What concerns the time before goes
//! to the child as it is: past intervals, the last start, the promise to an old primary.
//!
//! It does not count: whoever becomes primary of a half counts it anew (`recount.rs`).

use std::sync::Arc;

use nacre_proto::ids::{ObjectId, PgId};
use nacre_proto::txn::TxnOp;

use super::{Fault, OnCommit, PlacementGroup};
use crate::io::{Output, Step};
use crate::log::Log;
use crate::state::Stats;
use crate::view::{pg_of_hash, split_children};

impl PlacementGroup {
    /// Divides this pg if the pool of its new view has more pgs than it followed so far.
    pub(crate) fn split(&mut self, cx: &mut Step<'_>) {
        let (old, new) = (self.info.pg_num, self.view.pool.pg_num);
        if new <= old {
            return;
        }
        self.info.pg_num = new;
        let seeds = split_children(self.id, old, new);
        if seeds.is_empty() {
            return;
        }
        // Nobody knows how many went where; a guess until they are counted.
        let parts = seeds.len() as u64 + 1;
        let Stats { objects, clones, bytes } = self.info.stats;
        self.info.stats = Stats { objects: objects / parts, clones: clones / parts, bytes: bytes / parts };
        self.info.recount = true;
        let children: Vec<PlacementGroup> = seeds.into_iter().map(|id| self.child(id, new)).collect();

        let mut ops = Vec::new();
        self.drop_temps(&mut ops);
        for child in &children {
            ops.push(child.birth(new));
        }
        let seed = self.id.seed;
        let goes = |oid: &ObjectId| pg_of_hash(oid.hash, new) != seed;
        for oid in self.missing.keys().filter(|o| goes(o)).cloned().collect::<Vec<_>>() {
            self.set_missing(oid, None, &mut ops);
        }
        let (log, marked) = self.log.divide(|oid| !goes(oid));
        ops.extend(log.iter().filter(|e| marked.contains(&e.version)).map(Self::keep_entry));
        self.log = log;
        ops.push(self.keep_info());
        ops.push(self.keep_past());
        self.desk.submit(cx, ops, OnCommit::Nothing);
        for child in children {
            cx.out.push(Output::Born(Box::new(child)));
        }
    }

    /// The half that goes to `id`, as this replica holds it.
    fn child(&self, id: PgId, pg_num: u32) -> PlacementGroup {
        let mine = |oid: &ObjectId| pg_of_hash(oid.hash, pg_num) == id.seed;
        let mut child =
            PlacementGroup::create(id, self.me, Arc::clone(&self.cfg), Arc::clone(&self.view), self.info.interval);
        child.info = crate::state::Info { pg: id, ..self.info.clone() };
        if !self.cfg.is(Fault::SplitForgetsPast) {
            child.past = self.past.clone();
        }
        child.log = self.log.divide(mine).0;
        if self.cfg.is(Fault::SplitForgetsRequests) {
            let entries: Vec<_> = child.log.iter().map(|e| crate::log::LogEntry { reqid: None, ..e.clone() }).collect();
            child.log = Log::load(child.log.tail(), entries, crate::log::Dups::default());
        }
        child.missing = self.missing.iter().filter(|(o, _)| mine(o)).map(|(o, m)| (o.clone(), *m)).collect();
        child.floor = self.floor;
        child.promise = self.promise;
        child.desk.on_disk = true;
        child.newborn = true;
        child.info.epoch = self.view.epoch;
        child.info.stats_at = child.info.last_update;
        child
    }

    /// Makes the child's collection with all it needs to know after a crash.
    fn birth(&self, pg_num: u32) -> TxnOp {
        let (mut meta, mut log) = (Vec::new(), Vec::new());
        for op in self.keep_all() {
            match op {
                TxnOp::SetMeta { key, value: Some(value) } => meta.push((key, value)),
                TxnOp::LogAppend { version, entry } => log.push((version, entry)),
                _ => {}
            }
        }
        TxnOp::SplitCollection { child: self.id, pg_num, meta, log }
    }
}

impl Log {
    /// The log with every entry of an object that is not kept turned into a mark, and which versions those are.
    pub(crate) fn divide(
        &self,
        keeps: impl Fn(&ObjectId) -> bool,
    ) -> (Log, std::collections::BTreeSet<nacre_proto::ids::Version>) {
        let marked = self.iter().filter(|e| !keeps(&e.oid)).map(|e| e.version).collect();
        let entries: Vec<_> = self.iter().map(|e| if keeps(&e.oid) { e.clone() } else { e.mark() }).collect();
        (Log::load(self.tail(), entries, self.dups().clone()), marked)
    }
}
