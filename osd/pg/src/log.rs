//! The pg's log: what was done in which order, what a replica lacks of it, and the replies owed to retries.
//! Pure bookkeeping: who sends logs to whom is `pg/peering.rs`.
//!
//! Invariants:
//! - versions rise through the log; all entries are in `(tail, head]`;
//! - two logs that share a version share everything below it that both still hold;
//! - an object is in [`Missing`] exactly if the store's version of it is not what the log says it is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use nacre_proto::ids::{ObjectId, SessionId, Version};

use crate::codec_enum;
use crate::codec_struct;
use crate::op::{OpError, OpResult};

/// A request's identity: repeated by a retry, so that it takes effect once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReqId {
    /// Who asks.
    pub session: SessionId,
    /// The session's own count, rising.
    pub tid: u64,
}
codec_struct!(ReqId { session, tid });

/// What the reply to a logged operation was.
pub type Outcome = Result<Vec<OpResult>, OpError>;

/// A remembered reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dup {
    /// Its place in the order.
    pub version: Version,
    /// The object's version, as it was answered.
    pub replied: Version,
    /// What was answered.
    pub outcome: Outcome,
}

impl crate::format::Codec for Outcome {
    fn put(&self, out: &mut crate::format::Pen) {
        match self {
            Ok(results) => {
                out.push(0);
                results.put(out);
            }
            Err(e) => {
                out.push(1);
                e.put(out);
            }
        }
    }
    fn get(r: &mut crate::format::Reader<'_>) -> Result<Self, crate::format::FormatError> {
        match <u8 as crate::format::Codec>::get(r)? {
            0 => Ok(Ok(crate::format::Codec::get(r)?)),
            1 => Ok(Err(crate::format::Codec::get(r)?)),
            other => Err(crate::format::FormatError::Tag(other)),
        }
    }
}
codec_struct!(Dup { version, replied, outcome });

/// What an entry did to its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Made or changed it.
    Modify,
    /// Removed it.
    Delete,
    /// Nothing: a refused operation, remembered so that its retry is refused too.
    Error,
}
codec_enum!(Change { 0 => Modify {}, 1 => Delete {}, 2 => Error {} });

/// How counts move with an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Heads.
    pub objects: i64,
    /// Clones.
    pub clones: i64,
    /// Bytes by object size, clones included.
    pub bytes: i64,
}
codec_struct!(Delta { objects, clones, bytes });

/// One entry: one object's change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its place in the order.
    pub version: Version,
    /// The object.
    pub oid: ObjectId,
    /// The object's version before; none if it did not exist.
    pub prior: Option<Version>,
    /// What happened to it.
    pub change: Change,
    /// The request, on the last entry of the request's own.
    pub reqid: Option<ReqId>,
    /// The session has had the replies to all of its requests below this.
    pub acked_below: u64,
    /// What was answered.
    pub outcome: Option<Outcome>,
    /// The object's version that went with the answer, if it is not this entry's.
    pub replied: Option<Version>,
    /// Counts.
    pub delta: Delta,
}
codec_struct!(LogEntry { version, oid, prior, change, reqid, acked_below, outcome, replied, delta });

impl LogEntry {
    /// Its place in the order alone, without effect: what stays of it where its object does not belong.
    #[must_use]
    pub fn mark(&self) -> LogEntry {
        LogEntry {
            version: self.version,
            oid: self.oid.clone(),
            prior: None,
            change: Change::Error,
            reqid: None,
            acked_below: 0,
            outcome: None,
            replied: None,
            delta: Delta::default(),
        }
    }

    /// The reply to remember of it.
    fn dup(&self) -> Dup {
        let outcome = self.outcome.clone().unwrap_or(Ok(Vec::new()));
        Dup { version: self.version, replied: self.replied.unwrap_or(self.version), outcome }
    }

    /// The version the object has after this entry; none if it is gone.
    pub fn after(&self) -> Option<Version> {
        match self.change {
            Change::Modify => Some(self.version),
            Change::Delete => None,
            Change::Error => self.prior,
        }
    }
}

/// Replies that retries may still ask for, beyond what the log holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dups {
    /// By request.
    pub replies: BTreeMap<ReqId, Dup>,
    /// How far each session has had its replies.
    pub acked: BTreeMap<SessionId, u64>,
}
codec_struct!(Dups { replies, acked });

/// A part of a log on its way between replicas: the entries after `tail`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogPart {
    /// Everything up to here is left out.
    pub tail: Version,
    /// The last version.
    pub head: Version,
    /// In order.
    pub entries: Vec<Arc<LogEntry>>,
}
codec_struct!(LogPart { tail, head, entries });

/// Do versions rise through these entries, from after `from`.
pub(crate) fn is_rising(from: Version, entries: &[Arc<LogEntry>]) -> bool {
    let mut last = from;
    entries.iter().all(|e| std::mem::replace(&mut last, e.version) < e.version)
}

impl LogPart {
    /// Is it a part of a log at all: what another sent is not to stop this osd.
    pub fn is_sound(&self) -> bool {
        is_rising(self.tail, &self.entries) && self.entries.last().map_or(self.tail, |e| e.version) == self.head
    }
}

/// One object whose stored state is not what the log says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingItem {
    /// The version it should have.
    pub need: Version,
    /// The version it has; none if it is not there.
    pub have: Option<Version>,
}
codec_struct!(MissingItem { need, have });

/// All objects a replica lacks.
pub type Missing = BTreeMap<ObjectId, MissingItem>;

/// The log of one replica.
#[derive(Clone, Debug, Default)]
pub struct Log {
    tail: Version,
    entries: VecDeque<Arc<LogEntry>>,
    /// Replies by request, of the entries and of those trimmed.
    reqs: BTreeMap<ReqId, Version>,
    /// Replies whose entries were trimmed before the session had them.
    dups: Dups,
}

impl Log {
    /// From what the store holds.
    pub fn load(tail: Version, entries: impl IntoIterator<Item = impl Into<Arc<LogEntry>>>, dups: Dups) -> Log {
        let mut log = Log { tail, dups, ..Log::default() };
        for e in entries {
            let e = e.into();
            if e.version > tail {
                log.push(e);
            }
        }
        log
    }

    /// Everything up to here was trimmed.
    pub fn tail(&self) -> Version {
        self.tail
    }

    /// The last version.
    pub fn head(&self) -> Version {
        self.entries.back().map_or(self.tail, |e| e.version)
    }

    /// How many entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// In order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &LogEntry> {
        self.entries.iter().map(|e| &**e)
    }

    /// The remembered replies beyond the log.
    pub fn dups(&self) -> &Dups {
        &self.dups
    }

    /// Appends one entry.
    pub fn push(&mut self, e: impl Into<Arc<LogEntry>>) {
        let e = e.into();
        assert!(e.version > self.head(), "log entry {} after {}", e.version, self.head());
        if let Some(reqid) = e.reqid {
            self.reqs.insert(reqid, e.version);
            if e.acked_below > 0 {
                let acked = self.dups.acked.entry(reqid.session).or_default();
                *acked = (*acked).max(e.acked_below);
            }
        }
        self.entries.push_back(e);
    }

    /// What was answered to this request, if it was logged.
    pub fn reply_to(&self, reqid: ReqId) -> Option<Dup> {
        if let Some(&version) = self.reqs.get(&reqid) {
            return Some(self.entry(version)?.dup());
        }
        self.dups.replies.get(&reqid).cloned()
    }

    /// Did the session say that it has had the answer to this request: then nobody waits for it any more, and it may be
    /// forgotten; a copy of it that comes late is not to be carried out again.
    pub fn is_answered(&self, reqid: ReqId) -> bool {
        self.dups.acked.get(&reqid.session).is_some_and(|below| reqid.tid < *below)
    }

    /// The entry of a version.
    pub fn entry(&self, version: Version) -> Option<&LogEntry> {
        let at = self.entries.partition_point(|e| e.version < version);
        self.entries.get(at).map(|e| &**e).filter(|e| e.version == version)
    }

    /// Is this version the tail or in the log.
    pub fn holds(&self, version: Version) -> bool {
        version == self.tail || self.entry(version).is_some()
    }

    /// The newest version here that is not after `v`, or the tail. It is the newest that a log ending at `v` shares with
    /// this one, if this one is the authoritative: what the other holds beyond it was made in an interval this one knows
    /// nothing of, and this one's next entry in a later one.
    pub fn floor(&self, v: Version) -> Version {
        let at = self.entries.partition_point(|e| e.version <= v);
        at.checked_sub(1).and_then(|i| self.entries.get(i)).map_or(self.tail, |e| e.version)
    }

    /// Drops entries up to `to`. Replies which their session has not had yet stay remembered, `max_dups` of them, and as
    /// many sessions, besides those of which something is remembered.
    pub fn trim(&mut self, to: Version, max_dups: usize) -> Trimmed {
        let (mut kept, mut sessions) = (Vec::new(), BTreeSet::new());
        while self.entries.front().is_some_and(|e| e.version <= to) {
            let Some(e) = self.entries.pop_front() else { break };
            self.tail = e.version;
            let Some(reqid) = e.reqid else { continue };
            if self.reqs.get(&reqid) == Some(&e.version) {
                self.reqs.remove(&reqid);
            }
            if e.acked_below > 0 {
                sessions.insert(reqid.session);
            }
            if reqid.tid >= self.dups.acked.get(&reqid.session).copied().unwrap_or(0) {
                self.dups.replies.insert(reqid, e.dup());
                kept.push(reqid);
            }
        }
        let acked = &self.dups.acked;
        let mut dropped: Vec<ReqId> = Vec::new();
        for &r in self.dups.replies.keys() {
            if r.tid < acked.get(&r.session).copied().unwrap_or(0) {
                dropped.push(r);
            }
        }
        let over = (self.dups.replies.len() - dropped.len()).saturating_sub(max_dups);
        if over > 0 {
            let gone: BTreeSet<ReqId> = dropped.iter().copied().collect();
            let mut oldest: Vec<(Version, ReqId)> =
                self.dups.replies.iter().filter(|(r, _)| !gone.contains(r)).map(|(r, d)| (d.version, *r)).collect();
            oldest.sort();
            dropped.extend(oldest.into_iter().take(over).map(|(_, r)| r));
        }
        for r in &dropped {
            self.dups.replies.remove(r);
        }
        let over = self.dups.acked.len().saturating_sub(max_dups);
        if over > 0 {
            // Sessions are numbered as they come: the lowest are the oldest.
            let idle = |s: &SessionId| {
                let all = ReqId { session: *s, tid: 0 }..=ReqId { session: *s, tid: u64::MAX };
                self.reqs.range(all.clone()).next().is_none() && self.dups.replies.range(all).next().is_none()
            };
            let gone: Vec<SessionId> = self.dups.acked.keys().filter(|s| idle(s)).take(over).copied().collect();
            for s in gone {
                self.dups.acked.remove(&s);
                sessions.insert(s);
            }
        }
        kept.extend(dropped);
        Trimmed { requests: kept, sessions }
    }

    /// Loses what it remembers beyond the log: a deliberate fault.
    pub(crate) fn forget_dups(&mut self) {
        self.dups.replies.clear();
    }

    /// The entries after `since`, if the log still reaches back to it; else all of it.
    pub fn part(&self, since: Version) -> LogPart {
        let since = if self.holds(since) { since } else { self.tail };
        let entries = self.entries.iter().filter(|e| e.version > since).cloned().collect();
        LogPart { tail: since, head: self.head(), entries }
    }

    /// Takes another log for its own, whole: before a backfill.
    pub fn replace(&mut self, part: &LogPart, dups: Dups) {
        *self = Log::load(part.tail, part.entries.clone(), dups);
    }

    /// The newest version both logs hold, or none if `part` begins after this log ends: then only a backfill helps.
    pub fn common(&self, part: &LogPart) -> Option<Version> {
        let theirs: BTreeSet<Version> =
            part.entries.iter().map(|e| e.version).chain(std::iter::once(part.tail)).collect();
        self.entries.iter().rev().map(|e| e.version).chain(std::iter::once(self.tail)).find(|v| theirs.contains(v))
    }

    /// Makes this log equal to the authoritative one above their common version and says what becomes of the objects.
    ///
    /// For each object that a divergent or a new entry touches: the target is what the authoritative log leaves it at,
    /// or, where that log does not mention it, what it was before the first divergent entry. If the store has just
    /// that, nothing is missing; if the target is absence, the object is removed; else it is missing. Of a damaged one
    /// it is said that nothing is there, and yet its remains are: absence is made of whatever was missing too.
    pub fn merge(
        &mut self,
        part: &LogPart,
        dups: &Dups,
        missing: &Missing,
        covers: impl Fn(&ObjectId) -> bool,
    ) -> Option<Merge> {
        let common = self.common(part)?;
        let mut touched: BTreeMap<ObjectId, Touched> = BTreeMap::new();
        let cut = self.entries.partition_point(|e| e.version <= common);
        let divergent: Vec<Arc<LogEntry>> = self.entries.split_off(cut).into();
        for e in &divergent {
            if let Some(r) = e.reqid
                && self.reqs.get(&r) == Some(&e.version)
            {
                self.reqs.remove(&r);
            }
            if e.change == Change::Error {
                continue;
            }
            let t = touched.entry(e.oid.clone()).or_insert(Touched { had: None, target: e.prior });
            t.had = e.after();
        }
        let mut out = Merge { common, rewound: divergent.len(), ..Merge::default() };
        for e in part.entries.iter().filter(|e| e.version > common) {
            out.appended.push(e.clone());
            self.push(e.clone());
            if e.change == Change::Error {
                continue;
            }
            let t = touched.entry(e.oid.clone()).or_insert(Touched { had: e.prior, target: None });
            t.target = e.after();
        }
        for (r, d) in &dups.replies {
            if !self.reqs.contains_key(r) && self.dups.replies.insert(*r, d.clone()).is_none() {
                out.dups.push(*r);
            }
        }
        for (&s, &a) in &dups.acked {
            let own = self.dups.acked.entry(s).or_default();
            *own = (*own).max(a);
        }
        for (oid, t) in touched {
            if !covers(&oid) {
                continue;
            }
            let have = missing.get(&oid).map_or(t.had, |m| m.have);
            let item = match t.target {
                None => {
                    if have.is_some() || missing.contains_key(&oid) {
                        out.remove.push(oid.clone());
                    }
                    None
                }
                Some(target) if have == Some(target) => None,
                Some(need) => Some(MissingItem { need, have }),
            };
            if missing.get(&oid) != item.as_ref() {
                out.missing.push((oid, item));
            }
        }
        Some(out)
    }
}

/// What of the memory of replies changed with a trim, for the store.
#[derive(Clone, Debug, Default)]
pub struct Trimmed {
    /// Requests now remembered beyond the log, or forgotten.
    pub requests: Vec<ReqId>,
    /// Sessions whose mark can no longer be told from the log, or is forgotten.
    pub sessions: BTreeSet<SessionId>,
}

struct Touched {
    had: Option<Version>,
    target: Option<Version>,
}

/// What a merge asks of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merge {
    /// The newest version both logs held.
    pub common: Version,
    /// How many own entries were divergent.
    pub rewound: usize,
    /// The entries to append.
    pub appended: Vec<Arc<LogEntry>>,
    /// Objects to remove.
    pub remove: Vec<ObjectId>,
    /// Changes of what is missing.
    pub missing: Vec<(ObjectId, Option<MissingItem>)>,
    /// Replies newly remembered.
    pub dups: Vec<ReqId>,
}

/// Encodes a key of the collection's small values: a letter for the kind, then the key.
pub(crate) fn meta_key<K: crate::format::Codec>(kind: u8, key: &K) -> Bytes {
    let mut out = crate::format::Pen::new();
    out.push(kind);
    key.put(&mut out);
    out.into_bytes()
}

#[cfg(test)]
#[path = "log_test.rs"]
mod tests;
