//! Clients that watch objects and notify each other. Drawn from a stream of its own.

use std::collections::BTreeMap;

use bytes::Bytes;
use nacre_pg::log::{Outcome, ReqId};
use nacre_pg::op::{ClientOp, Op, OpError, SnapContext};
use nacre_proto::ids::{OsdId, SessionId, SnapId};

use super::{object, pg_of};
use crate::world::{Event, MS, World};

/// A watch of a client, as it sees it.
#[derive(Clone, Debug)]
pub struct Watching {
    /// Asked for first.
    pub began: u64,
    /// When each asking that was answered with success was asked and answered.
    pub renewals: Vec<(u64, u64)>,
    /// When it was asked to end, or may have ended by itself.
    pub ended: Option<u64>,
    /// How long it lasts without a renewal, milliseconds.
    pub last_ms: u64,
}

/// What a run did with watches: kept for the oracle.
#[derive(Clone, Debug, Default)]
pub struct Watches {
    /// By object, client and cookie.
    pub all: BTreeMap<(Bytes, u32, u64), Watching>,
    /// Answers that were sent: by object, notify, client and cookie.
    pub sent: BTreeMap<(Bytes, u64, u32, u64), Bytes>,
}

impl World {
    /// Perhaps watches, stops to, or notifies. True if it asked something.
    pub(super) fn watch_work(&mut self, client: u32, name: &Bytes, value: &Bytes) -> bool {
        let me = &mut self.clients[client as usize];
        if !self.scenario.watches || !me.extra.chance(1, 4) {
            return false;
        }
        let mine: Vec<u64> = self
            .watches
            .all
            .iter()
            .filter(|((n, c, _), w)| n == name && *c == client && w.ended.is_none())
            .map(|((_, _, cookie), _)| *cookie)
            .collect();
        let op = match me.extra.below(6) {
            0..3 if mine.len() < 2 => {
                let last_ms = [700, 3000][me.extra.below(2) as usize];
                let cookie = self.now;
                let w = Watching { began: self.now, renewals: Vec::new(), ended: None, last_ms };
                self.watches.all.insert((name.clone(), client, cookie), w);
                Op::Watch { cookie, timeout_ms: last_ms }
            }
            0 => {
                let cookie = mine[0];
                self.watch_ends(name, client, cookie);
                Op::Unwatch { cookie }
            }
            _ => Op::Notify { payload: value.clone(), timeout_ms: me.extra.range(200, 3000) },
        };
        self.ask_op(client, name, vec![op], SnapId::HEAD);
        true
    }

    fn watch_ends(&mut self, name: &Bytes, client: u32, cookie: u64) {
        let now = self.now;
        if let Some(w) = self.watches.all.get_mut(&(name.clone(), client, cookie)) {
            w.ended.get_or_insert(now);
        }
    }

    /// Renews its watches.
    pub(crate) fn client_keeps(&mut self, client: u32) {
        let c = client as usize;
        if !self.scenario.watches || !self.clients[c].alive {
            return;
        }
        let mine: Vec<(Bytes, u64, u64)> = self
            .watches
            .all
            .iter()
            .filter(|((_, who, _), w)| *who == client && w.ended.is_none() && !w.renewals.is_empty())
            .map(|((n, _, cookie), w)| (n.clone(), *cookie, w.last_ms))
            .collect();
        for (name, cookie, timeout_ms) in mine {
            if !self.clients[c].pending.values().any(|p| p.name == name) {
                self.ask_op(client, &name, vec![Op::Watch { cookie, timeout_ms }], SnapId::HEAD);
            }
        }
        self.after(150 * MS, Event::Keep { client });
    }

    /// A request that touched a watch, or may have ended some, was answered.
    pub(super) fn watch_answered(&mut self, client: u32, name: &Bytes, ops: &[Op], asked: u64, outcome: &Outcome) {
        let now = self.now;
        for op in ops {
            let Op::Watch { cookie, .. } = op else { continue };
            match outcome {
                Ok(_) => {
                    if let Some(w) = self.watches.all.get_mut(&(name.clone(), client, *cookie)) {
                        w.renewals.push((asked, now));
                    }
                }
                Err(OpError::NotFound { .. }) => self.watch_ends(name, client, *cookie),
                Err(e) => self.violations.push(format!("client {client} was refused a watch: {e}")),
            }
        }
    }

    /// A notify reaches a watcher, who answers as a rule.
    pub(crate) fn notified(&mut self, client: u32, from: OsdId, name: Bytes, cookie: u64, notify: u64, payload: Bytes) {
        let c = client as usize;
        if !self.clients[c].alive {
            return;
        }
        self.note(|| format!("client {client} is told {notify} by {from} as {cookie}"));
        if self.faulty && self.clients[c].extra.chance(1, 10) {
            return;
        }
        let Some(map) = self.maps.get(self.clients[c].epoch).cloned() else { return };
        let answer = Bytes::from([format!("{client}/{cookie}:").as_bytes(), &payload].concat());
        self.watches.sent.insert((name.clone(), notify, client, cookie), answer.clone());
        let tid = self.clients[c].next_tid;
        self.clients[c].next_tid += 1;
        let op = ClientOp {
            id: nacre_pg::op::OpId(0),
            reqid: ReqId { session: SessionId(u64::from(client) + 1), tid },
            acked_below: self.clients[c].pending.keys().next().copied().unwrap_or(tid),
            epoch: map.epoch,
            oid: object(&name, SnapId::HEAD),
            snapc: SnapContext::default(),
            ops: vec![Op::NotifyAck { notify, cookie, payload: answer }],
        };
        self.send_op(client, from, pg_of(&map, &name), op);
    }
}
