//! What was promised so far, noted as it happens and not read back from the cores later: which writes were answered and
//! with what, and who served a pg last. The invariants beside this file compare it with what the cores hold.

use std::collections::BTreeMap;

use nacre_pg::log::{Outcome, ReqId};
use nacre_pg::op::{ClientOp, Op, OpError};
use nacre_pg::view::pg_of_hash;
use nacre_proto::ids::{Epoch, ObjectId, OsdId, PgId, SessionId, Version};

use super::{acked, durable, once, stale};
use crate::world::World;

/// What kind of request it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Changes nothing.
    Read,
    /// Is remembered under its identity.
    Write,
    /// Notifies and their answers: they promise nothing about the object.
    Talk,
}

/// A request on its way, as the network knows it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Who.
    pub client: u32,
    /// Under which number.
    pub tid: u64,
    /// Of which pg.
    pub pg: PgId,
    /// Of which object.
    pub oid: ObjectId,
    /// What kind.
    pub kind: Kind,
}

impl Asked {
    /// Of a request as it is sent.
    pub fn new(client: u32, pg: PgId, op: &ClientOp) -> Asked {
        let talks = |o: &Op| matches!(o, Op::Notify { .. } | Op::NotifyAck { .. });
        let kind = match () {
            () if op.ops.iter().any(talks) => Kind::Talk,
            () if op.ops.iter().any(Op::writes) => Kind::Write,
            () => Kind::Read,
        };
        Asked { client, tid: op.reqid.tid, pg, oid: op.oid.clone(), kind }
    }

    /// Its identity.
    pub fn reqid(&self) -> ReqId {
        ReqId { session: SessionId(u64::from(self.client) + 1), tid: self.tid }
    }
}

/// A write that was answered.
#[derive(Clone, Debug)]
pub struct Acked {
    /// Of which object.
    pub oid: ObjectId,
    /// Its place in the log.
    pub version: Version,
    /// What was answered.
    pub outcome: Outcome,
}

/// Who served a pg last.
#[derive(Clone, Copy, Debug)]
pub struct Served {
    /// The primary.
    pub by: OsdId,
    /// In which interval.
    pub interval: Epoch,
    /// Among so many pgs.
    pub pg_num: u32,
    /// Since when, in true time.
    pub since: u64,
}

impl Served {
    /// Does the object lie in the pg that was served.
    pub fn has(&self, pg: PgId, oid: &ObjectId) -> bool {
        pg_of_hash(oid.hash, self.pg_num) == pg.seed
    }
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Writes that were answered.
    pub acked: BTreeMap<ReqId, Acked>,
    /// What reached which disk.
    pub disks: durable::Disks,
    /// Who served each pg last.
    pub served: BTreeMap<PgId, Served>,
}

/// An osd answers a request.
pub(crate) fn answered(w: &mut World, by: OsdId, asked: &Asked, outcome: &Outcome, version: Version) {
    match asked.kind {
        Kind::Read => {
            stale::check(w, by, asked);
            durable::check(w, by, asked, version);
        }
        Kind::Write => {
            let log = w.nodes[by.0 as usize].pgs.get(&asked.pg).map(|(_, g)| g.log());
            let logged = log.and_then(|l| l.reply_to(asked.reqid())).map(|d| d.version);
            match logged {
                Some(version) => {
                    let new = Acked { oid: asked.oid.clone(), version, outcome: outcome.clone() };
                    if let Some(old) = w.ledger.acked.get(&asked.reqid()) {
                        let bad = once::compare(asked, old, &new);
                        w.violations.extend(bad);
                    } else {
                        durable::check(w, by, asked, version);
                        w.ledger.acked.insert(asked.reqid(), new);
                    }
                }
                None if matches!(outcome, Err(OpError::Invalid { .. })) => {}
                None => w.violations.push(once::forgotten(by, asked)),
            }
        }
        Kind::Talk => {}
    }
}

/// A primary begins to serve.
pub(crate) fn serves(w: &mut World, by: OsdId, pg: PgId) {
    let Some((_, core)) = w.nodes[by.0 as usize].pgs.get(&pg) else { return };
    let (interval, pg_num) = (core.info().interval, core.info().pg_num);
    let now = Served { by, interval, pg_num, since: w.now };
    let last = *w.ledger.served.entry(pg).or_insert(now);
    if last.interval > interval {
        // Cut off, it does not know yet that its time is over: without leases and replicas it can answer nobody.
        return;
    }
    if last.interval == interval && last.by != by {
        w.violations.push(format!("pg {pg}: {by} and {} both serve interval {interval}", last.by));
    }
    w.ledger.served.insert(pg, now);
    acked::check(w, by, pg);
}
