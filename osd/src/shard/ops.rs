//! Operations as an operator sees them: which are open and what they wait for, which were slow, which came last, each with
//! the time of every stage. Always on: an operation costs a handful of stores, and the past is two rings of fixed length.
//!
//! Stages, in this order; an operation skips those it has no need of:
//! - *queued*: it has come, the shard has not looked at it yet (or waits for the map it was made under);
//! - *waiting*: its group has it and cannot order it yet: the group does not serve, its object is busy or missing;
//! - *journalled*: it is ordered, and becomes durable here, while the other members are told;
//! - *replicated*: it is durable here, and the others have not all said that it is there.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use nacre_pg::io::{Time, TxnId};
use nacre_pg::log::ReqId;
use nacre_pg::op::{ClientOp, Op, OpId};
use nacre_proto::ids::{ObjectId, PgId};
use serde_json::{Map, Value, json};

/// Remembered of those that are over.
const RECENT: usize = 200;
/// What takes longer is remembered apart, so that a flood of quick ones does not wash it away.
const SLOW: u64 = 1_000_000_000;

/// One operation.
#[derive(Clone, Debug)]
struct Entry {
    pg: PgId,
    reqid: ReqId,
    oid: ObjectId,
    /// The first operation of the vector, and how many there are.
    first: &'static str,
    count: usize,
    asked: u64,
    begun: u64,
    ordered: Option<u64>,
    durable: Option<u64>,
    answered: Option<u64>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Ops {
    open: BTreeMap<OpId, Entry>,
    journal: BTreeMap<(PgId, TxnId), OpId>,
    recent: VecDeque<Entry>,
    slow: VecDeque<Entry>,
}

/// The operation's name, as in the library.
fn name(op: &Op) -> &'static str {
    match op {
        Op::Stat => "stat",
        Op::Read { .. } | Op::SparseRead { .. } => "read",
        Op::Write { .. } => "write",
        Op::WriteFull { .. } => "write_full",
        Op::Append { .. } => "append",
        Op::Create { .. } => "create",
        Op::Remove => "remove",
        Op::Zero { .. } => "zero",
        Op::Truncate { .. } => "truncate",
        Op::SetXattr { .. } => "set_xattr",
        Op::OmapSet { .. } => "omap_set",
        Op::Watch { .. } => "watch",
        Op::Notify { .. } => "notify",
        Op::Call { .. } => "call",
        op if op.writes() => "change",
        _ => "look",
    }
}

impl Ops {
    /// One has come. `asked` is when the connection had it.
    pub(super) fn begin(&mut self, pg: PgId, op: &ClientOp, asked: Time, now: Time) {
        let entry = Entry {
            pg,
            reqid: op.reqid,
            oid: op.oid.clone(),
            first: op.ops.first().map_or("nothing", name),
            count: op.ops.len(),
            asked: asked.0,
            begun: now.0,
            ordered: None,
            durable: None,
            answered: None,
        };
        self.open.insert(op.id, entry);
    }

    /// Its change was ordered, and is in this transaction.
    pub(super) fn ordered(&mut self, id: OpId, pg: PgId, txn: TxnId, now: Time) {
        if let Some(entry) = self.open.get_mut(&id) {
            entry.ordered = Some(now.0);
            self.journal.insert((pg, txn), id);
        }
    }

    /// A transaction is durable here.
    pub(super) fn durable(&mut self, pg: PgId, txn: TxnId, now: Time) {
        let id = self.journal.remove(&(pg, txn));
        if let Some(entry) = id.and_then(|id| self.open.get_mut(&id)) {
            entry.durable = Some(now.0);
        }
    }

    /// It was answered.
    pub(super) fn end(&mut self, id: OpId, now: Time) {
        let Some(mut entry) = self.open.remove(&id) else { return };
        entry.answered = Some(now.0);
        let ring = if now.0.saturating_sub(entry.asked) >= SLOW { &mut self.slow } else { &mut self.recent };
        if ring.len() == RECENT {
            ring.pop_front();
        }
        ring.push_back(entry);
    }

    /// A pg is gone, and its transactions with it.
    pub(super) fn forget(&mut self, pg: PgId) {
        self.journal.retain(|(of, _), _| *of != pg);
    }

    /// How many are open for longer than this, and the pg of the oldest.
    pub(super) fn late(&self, now: Time, after: Duration) -> (usize, Option<PgId>) {
        let after = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
        let late = self.open.values().filter(|entry| now.0.saturating_sub(entry.asked) >= after);
        let oldest = late.clone().min_by_key(|entry| entry.asked).map(|entry| entry.pg);
        (late.count(), oldest)
    }

    /// All of it, oldest first. `age_us` tells how long ago each was asked, so that several shards' can be put together. `cause` says what a pg's operations wait for.
    pub(super) fn show(&self, now: Time, cause: impl Fn(PgId) -> String) -> Value {
        let open: Vec<Value> = self.open.values().map(|entry| entry.show(now.0, Some(cause(entry.pg)))).collect();
        let over = |ring: &VecDeque<Entry>| ring.iter().map(|entry| entry.show(now.0, None)).collect::<Vec<Value>>();
        json!({ "in_flight": open, "slow": over(&self.slow), "recent": over(&self.recent) })
    }
}

impl Entry {
    /// The stage it is in, or was in last, and how long each took so far.
    fn show(&self, now: u64, cause: Option<String>) -> Value {
        let end = self.answered.unwrap_or(now);
        let us = |from: u64, to: u64| to.saturating_sub(from) / 1000;
        let ordered = self.ordered.unwrap_or(end);
        let durable = self.durable.unwrap_or(end);
        let stage = match (self.answered, self.ordered, self.durable) {
            (Some(_), ..) => "answered",
            (None, None, _) => "waiting",
            (None, Some(_), None) => "journalled",
            (None, Some(_), Some(_)) => "replicated",
        };
        json!({
            "client": format!("{}.{}", self.reqid.session.0, self.reqid.tid),
            "pg": self.pg.to_string(),
            "object": String::from_utf8_lossy(&self.oid.name),
            "what": if self.count > 1 { format!("{} and {} more", self.first, self.count - 1) } else { self.first.into() },
            "stage": stage,
            "age_us": us(self.asked, now),
            "took_us": us(self.asked, end),
            "queued_us": us(self.asked, self.begun),
            "waiting_us": us(self.begun, ordered),
            "journalled_us": us(ordered, durable),
            "replicated_us": us(durable.max(ordered), end),
            "why": cause.unwrap_or_default(),
        })
    }
}

/// What several shards show of their operations, as one: oldest first, as each of them has it.
pub fn together(parts: Vec<Value>) -> Value {
    let mut all = Map::new();
    let (mut waiting, mut rate) = (Map::new(), 0.0);
    for part in parts {
        for (list, entries) in part.as_object().into_iter().flatten().filter(|(_, entries)| entries.is_array()) {
            if let (Some(entries), Value::Array(list)) =
                (entries.as_array(), all.entry(list).or_insert_with(|| json!([])))
            {
                list.extend(entries.iter().cloned());
            }
        }
        for (class, count) in part["background"]["waiting"].as_object().into_iter().flatten() {
            let before = waiting.get(class).and_then(Value::as_u64).unwrap_or(0);
            waiting.insert(class.clone(), json!(before + count.as_u64().unwrap_or(0)));
        }
        rate += part["background"]["mib_s"].as_f64().unwrap_or(0.0);
    }
    for list in all.values_mut().filter_map(Value::as_array_mut) {
        list.sort_by_key(|entry| std::cmp::Reverse(entry["age_us"].as_u64()));
    }
    all.insert("background".into(), json!({ "waiting": waiting, "mib_s": rate }));
    Value::Object(all)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use nacre_pg::op::SnapContext;
    use nacre_proto::ids::{Epoch, PoolId, SessionId, SnapId};

    use super::*;

    const MS: u64 = 1_000_000;

    fn begin(ops: &mut Ops, id: u64, at: u64) {
        let pg = PgId { pool: PoolId(1), seed: 3 };
        let reqid = ReqId { session: SessionId(9), tid: id };
        let oid = ObjectId { pool: PoolId(1), hash: 3, namespace: Bytes::new(), name: "a".into(), snap: SnapId::HEAD };
        let vector = vec![Op::Append { data: Bytes::new() }, Op::Stat];
        let op = ClientOp {
            id: OpId(id),
            reqid,
            acked_below: 0,
            epoch: Epoch(1),
            oid,
            snapc: SnapContext::default(),
            ops: vector,
        };
        ops.begin(pg, &op, Time(at), Time(at + MS));
    }

    #[test]
    fn every_stage_has_its_time() {
        let pg = PgId { pool: PoolId(1), seed: 3 };
        let mut ops = Ops::default();
        begin(&mut ops, 1, 0);
        let shown = |ops: &Ops, at: u64| ops.show(Time(at * MS), |_| "a reason".into());
        assert_eq!(shown(&ops, 4)["in_flight"][0]["stage"], "waiting");
        assert_eq!(shown(&ops, 4)["in_flight"][0]["why"], "a reason");
        ops.ordered(OpId(1), pg, TxnId(7), Time(3 * MS));
        assert_eq!(shown(&ops, 4)["in_flight"][0]["stage"], "journalled");
        ops.durable(pg, TxnId(7), Time(10 * MS));
        assert_eq!(shown(&ops, 11)["in_flight"][0]["stage"], "replicated");
        ops.end(OpId(1), Time(12 * MS));
        let all = shown(&ops, 99);
        assert_eq!(all["in_flight"], json!([]));
        let one = &all["recent"][0];
        let took = ["took_us", "queued_us", "waiting_us", "journalled_us", "replicated_us"].map(|key| one[key].clone());
        assert_eq!(took, [12_000, 1000, 2000, 7000, 2000].map(Value::from));
        assert_eq!((&one["client"], &one["what"]), (&json!("9.1"), &json!("append and 1 more")));
    }

    #[test]
    fn the_slow_are_counted_and_outlive_the_quick() {
        let mut ops = Ops::default();
        begin(&mut ops, 1, 0);
        let after = Duration::from_nanos(SLOW);
        assert_eq!(ops.late(Time(SLOW - 1), after).0, 0);
        assert_eq!(ops.late(Time(SLOW), after), (1, Some(PgId { pool: PoolId(1), seed: 3 })));
        ops.end(OpId(1), Time(SLOW));
        for id in 2..500 {
            begin(&mut ops, id, 0);
            ops.end(OpId(id), Time(2 * MS));
        }
        let all = ops.show(Time(0), |_| String::new());
        assert_eq!(all["slow"].as_array().unwrap().len(), 1);
        assert_eq!(all["recent"].as_array().unwrap().len(), RECENT);
        assert!(ops.journal.is_empty());
    }

    #[test]
    fn several_shards_show_their_operations_as_one() {
        let shard = |ages: [u64; 2], reads: u64| {
            let recent = ages.map(|age| json!({ "age_us": age }));
            json!({
                "in_flight": [], "recent": recent,
                "background": { "waiting": { "scrub": reads }, "mib_s": 16.0 },
            })
        };
        let all = together(vec![shard([50, 10], 1), shard([70, 30], 4)]);
        let ages: Vec<u64> =
            all["recent"].as_array().unwrap().iter().map(|op| op["age_us"].as_u64().unwrap()).collect();
        assert_eq!(ages, [70, 50, 30, 10]);
        assert_eq!(all["in_flight"], json!([]));
        assert_eq!(all["background"], json!({ "waiting": { "scrub": 5 }, "mib_s": 32.0 }));
    }
}
