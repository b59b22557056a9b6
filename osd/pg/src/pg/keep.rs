//! What the store holds of the pg itself: its info, past intervals, missing objects, remembered replies, log.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use nacre_proto::ids::{Epoch, ObjectId, OsdId, PgId, Version};
use nacre_proto::txn::TxnOp;

use super::{Desk, PlacementGroup, Promise, Role, drifted};
use crate::format::{Codec, FormatError, Kind, Pen, Reader, open, seal, seal_with};
use crate::io::Time;
use crate::log::{Dup, Dups, Log, LogEntry, MissingItem, ReqId, is_rising, meta_key};
use crate::object::{head_of, temp_of};
use crate::state::{Config, History, Info};
use crate::view::{PastIntervals, View};

const INFO: &[u8] = b"i";
const PAST: &[u8] = b"p";
const TAIL: &[u8] = b"l";
const MISSING: u8 = b'm';
const DUP: u8 = b'd';
const ACKED: u8 = b'a';
const TEMP: u8 = b't';

/// What the store gives back of one pg.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// Its small values.
    pub meta: Vec<(Bytes, Bytes)>,
    /// Its log, in order.
    pub log: Vec<Bytes>,
}

impl PlacementGroup {
    /// A pg that holds nothing, in an interval that began at `interval`. Nothing is written before the first step.
    pub fn create(id: PgId, me: OsdId, cfg: Arc<Config>, view: Arc<View>, interval: Epoch) -> PlacementGroup {
        let mut info = Info::new(id);
        info.epoch = view.epoch;
        info.interval = interval;
        info.pg_num = view.pool.pg_num;
        PlacementGroup {
            id,
            me,
            cfg,
            past: PastIntervals::default(),
            log: Log::default(),
            missing: BTreeMap::new(),
            floor: Epoch(0),
            desk: Desk {
                pg: id,
                epoch: view.epoch,
                interval,
                next_txn: 1,
                next_read: 1,
                commits: VecDeque::new(),
                pen: Pen::new(),
                reads: BTreeMap::new(),
                on_disk: false,
            },
            role: Role::Dormant,
            promise: Promise::default(),
            held: Vec::new(),
            come_forward: None,
            temps: BTreeSet::new(),
            contexts: BTreeMap::new(),
            watches: super::watch::Watches::default(),
            inconsistent: BTreeMap::new(),
            findings: super::Findings::default(),
            next_round: 0,
            waiting: VecDeque::new(),
            queued: BTreeMap::new(),
            copies: BTreeMap::new(),
            logged: None,
            lease_waits: BTreeSet::new(),
            told: false,
            gone: false,
            newborn: false,
            slots: BTreeMap::new(),
            view,
            info,
        }
    }

    /// Gives a pg made by a message, or by the pool's first epoch, the history it comes with.
    pub fn with_history(mut self, history: &History, past: &PastIntervals) -> PlacementGroup {
        self.info.history = *history;
        self.past = past.clone();
        self
    }

    /// Other settings, from the next step on.
    pub fn retune(&mut self, cfg: Arc<Config>) {
        self.cfg = cfg;
    }

    /// Says of a pg made in the middle of an osd's run when that began: intervals of a former life, of which peers may still
    /// speak, give it no role, and what a former life may have promised is kept.
    pub fn of_run(mut self, floor: Epoch, began: Time) -> PlacementGroup {
        self.floor = floor;
        self.promise = Promise { until: began + drifted(self.cfg.lease, &self.cfg, true), holder: None };
        self
    }

    /// The epoch up to which a stored pg followed its intervals: maps are to be fed from the next one on.
    pub fn stored_epoch(stored: &Stored) -> Result<Epoch, FormatError> {
        let raw = stored.meta.iter().find(|(k, _)| k == INFO).ok_or(FormatError::Short)?;
        Ok(open::<Info>(Kind::Info, &raw.1)?.epoch)
    }

    /// From the store, after a restart. `view` is that of the stored epoch; maps in which this osd's run began at or
    /// before `floor` are of a former life and give it no role.
    pub fn load(
        stored: &Stored,
        me: OsdId,
        cfg: Arc<Config>,
        view: Arc<View>,
        floor: Epoch,
        now: Time,
    ) -> Result<PlacementGroup, FormatError> {
        let mut info = None;
        let mut past = PastIntervals::default();
        let mut tail = Version::default();
        let mut missing = BTreeMap::new();
        let mut dups = Dups::default();
        let mut temps = BTreeSet::new();
        for (key, value) in &stored.meta {
            let mut r = Reader::new(key.get(1..).unwrap_or_default());
            match key.first() {
                _ if key == INFO => info = Some(open::<Info>(Kind::Info, value)?),
                _ if key == PAST => past = open(Kind::Intervals, value)?,
                _ if key == TAIL => tail = open(Kind::Tail, value)?,
                Some(&MISSING) => {
                    missing.insert(ObjectId::get(&mut r)?, open::<MissingItem>(Kind::Missing, value)?);
                }
                Some(&DUP) => {
                    dups.replies.insert(ReqId::get(&mut r)?, open::<Dup>(Kind::Dup, value)?);
                }
                Some(&ACKED) => {
                    dups.acked.insert(Codec::get(&mut r)?, open(Kind::Dup, value)?);
                }
                Some(&TEMP) => {
                    open::<ObjectId>(Kind::Temp, value)?;
                    temps.insert(ObjectId::get(&mut r)?);
                }
                _ => return Err(FormatError::Tag(key.first().copied().unwrap_or(0))),
            }
        }
        let mut info = info.ok_or(FormatError::Short)?;
        let entries = stored.log.iter().map(|raw| open::<LogEntry>(Kind::LogEntry, raw));
        let mut entries = entries.map(|e| e.map(Arc::new)).collect::<Result<Vec<_>, _>>()?;
        entries.retain(|e| e.version > tail);
        if !is_rising(tail, &entries) {
            return Err(FormatError::Order);
        }
        let log = Log::load(tail, entries, dups);
        for e in log.iter().filter(|e| e.version > info.stats_at) {
            info.stats.add(&e.delta);
        }
        info.last_update = log.head();
        info.log_tail = log.tail();
        info.stats_at = log.head();
        let promise = Promise { until: now + drifted(cfg.lease, &cfg, true), holder: None };
        let mut out = PlacementGroup::create(info.pg, me, cfg, view, info.interval);
        out.desk.on_disk = true;
        Ok(PlacementGroup { info, past, log, missing, temps, floor, promise, ..out })
    }

    /// The info as it is stored now.
    pub(crate) fn keep_info(&mut self) -> TxnOp {
        self.info.epoch = self.view.epoch;
        self.info.stats_at = self.info.last_update;
        TxnOp::SetMeta { key: Bytes::from_static(INFO), value: Some(seal(Kind::Info, &self.info)) }
    }

    pub(crate) fn keep_past(&self) -> TxnOp {
        TxnOp::SetMeta { key: Bytes::from_static(PAST), value: Some(seal(Kind::Intervals, &self.past)) }
    }

    /// Everything, for a collection that has nothing yet.
    pub(crate) fn keep_all(&self) -> Vec<TxnOp> {
        let mut ops = vec![
            TxnOp::SetMeta { key: Bytes::from_static(INFO), value: Some(seal(Kind::Info, &self.info)) },
            self.keep_past(),
            self.keep_tail(),
        ];
        self.keep_dups(&mut ops);
        for (oid, item) in &self.missing {
            ops.push(TxnOp::SetMeta { key: meta_key(MISSING, oid), value: Some(seal(Kind::Missing, item)) });
        }
        ops.extend(self.log.iter().map(Self::keep_entry));
        ops
    }

    pub(crate) fn keep_tail(&self) -> TxnOp {
        TxnOp::SetMeta { key: Bytes::from_static(TAIL), value: Some(seal(Kind::Tail, &self.log.tail())) }
    }

    pub(crate) fn keep_entry(e: &LogEntry) -> TxnOp {
        TxnOp::LogAppend { version: e.version, entry: seal(Kind::LogEntry, e) }
    }

    /// As [`Self::keep_entry`], for the way that every write takes.
    pub(crate) fn append_entry(&mut self, e: &LogEntry) -> TxnOp {
        TxnOp::LogAppend { version: e.version, entry: seal_with(&mut self.desk.pen, Kind::LogEntry, e) }
    }

    pub(crate) fn keep_dup(&self, r: &ReqId) -> TxnOp {
        let value = self.log.dups().replies.get(r).map(|d| seal(Kind::Dup, d));
        TxnOp::SetMeta { key: meta_key(DUP, r), value }
    }

    fn keep_acked(&self, ops: &mut Vec<TxnOp>) {
        for (s, a) in &self.log.dups().acked {
            ops.push(TxnOp::SetMeta { key: meta_key(ACKED, s), value: Some(seal(Kind::Dup, a)) });
        }
    }

    pub(crate) fn keep_dups(&self, ops: &mut Vec<TxnOp>) {
        self.keep_acked(ops);
        for r in self.log.dups().replies.keys() {
            ops.push(self.keep_dup(r));
        }
    }

    /// Changes what is missing, in memory and in the transaction.
    pub(crate) fn set_missing(&mut self, oid: ObjectId, item: Option<MissingItem>, ops: &mut Vec<TxnOp>) {
        let key = meta_key(MISSING, &oid);
        match item {
            Some(item) => {
                ops.push(TxnOp::SetMeta { key, value: Some(seal(Kind::Missing, &item)) });
                if let Some(c) = self.contexts.get_mut(&head_of(&oid)) {
                    c.forget();
                }
                self.missing.insert(oid, item);
            }
            None => {
                if self.missing.remove(&oid).is_some() {
                    ops.push(TxnOp::SetMeta { key, value: None });
                }
            }
        }
    }

    /// Begins or ends the gathering of an object.
    pub(crate) fn set_temp(&mut self, oid: &ObjectId, on: bool, ops: &mut Vec<TxnOp>) {
        let key = meta_key(TEMP, oid);
        if on {
            self.temps.insert(oid.clone());
            ops.push(TxnOp::SetMeta { key, value: Some(seal(Kind::Temp, oid)) });
        } else if self.temps.remove(oid) {
            ops.push(TxnOp::SetMeta { key, value: None });
        }
    }

    /// Drops unfinished copies: the interval they were made in is over.
    pub(crate) fn drop_temps(&mut self, ops: &mut Vec<TxnOp>) {
        for oid in std::mem::take(&mut self.temps) {
            ops.push(TxnOp::Remove { oid: temp_of(&oid) });
            ops.push(TxnOp::SetMeta { key: meta_key(TEMP, &oid), value: None });
        }
    }

    /// Trims the log, in memory and in the transaction.
    pub(crate) fn trim_log(&mut self, to: Version, ops: &mut Vec<TxnOp>) {
        if to <= self.log.tail() {
            return;
        }
        let trimmed = self.log.trim(to, self.cfg.max_dups);
        self.info.log_tail = self.log.tail();
        if self.cfg.is(super::Fault::ForgetDups) {
            self.log.forget_dups();
            ops.push(TxnOp::LogTrim { to });
            ops.push(self.keep_tail());
            return;
        }
        for r in &trimmed.requests {
            ops.push(self.keep_dup(r));
        }
        for s in trimmed.sessions {
            let value = self.log.dups().acked.get(&s).map(|a| seal(Kind::Dup, a));
            ops.push(TxnOp::SetMeta { key: meta_key(ACKED, &s), value });
        }
        ops.push(TxnOp::LogTrim { to });
        ops.push(self.keep_tail());
        // Counts of trimmed entries can no longer be added up after a restart.
        let info = self.keep_info();
        ops.push(info);
    }
}

#[cfg(test)]
#[path = "keep_test.rs"]
mod tests;
