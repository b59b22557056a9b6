//! The shell around the cores: what comes in is fed to them, what they ask for becomes events.

use std::sync::{Arc, PoisonError};

use nacre_pg::PlacementGroup;
use nacre_pg::io::{Class, Input, Output, Request, Step, Way};
use nacre_pg::msg::{Body, Chunk, PeerMsg};
use nacre_pg::op::{ClientOp, Reply};
use nacre_pg::view::pg_of_hash;
use nacre_proto::ids::{Epoch, OsdId, PgId};
use nacre_store::ObjectStore;

use super::{End, Event, MS, World};
use crate::node::Early;
use crate::oracle::{interval, ledger};

impl World {
    pub(super) fn peer(&mut self, to: OsdId, from: OsdId, pg: PgId, msg: PeerMsg) {
        let i = to.0 as usize;
        if !self.nodes[i].running {
            return;
        }
        if msg.epoch > self.nodes[i].epoch {
            let epoch = msg.epoch;
            self.nodes[i].early.push_back((epoch, Early::Peer(from, pg, msg)));
            if self.scenario.gossip {
                // Peers bring each other up to date.
                self.node_maps(to, epoch);
            }
            return;
        }
        if self.nodes[i].leaving.contains_key(&pg) {
            // The old copy's removal is not durable yet.
            let pending = self.nodes[i].store.pending();
            if pending > 0 && self.nodes[i].store.commit(usize::MAX) == 0 {
                self.disk_failed(to);
                return;
            }
            self.told_durable(to);
            self.nodes[i].leaving.remove(&pg);
        }
        if !self.nodes[i].pgs.contains_key(&pg) {
            let Some((history, past)) = msg.body.creates() else { return };
            let Some(map) = self.maps.get(self.nodes[i].epoch) else { return };
            let view = Arc::new(map.view(pg));
            // Only if the interval it speaks of still stands here.
            let mut stands = msg.interval <= view.epoch;
            let mut prev: Option<nacre_pg::view::View> = None;
            for e in msg.interval.0..=view.epoch.0 {
                let Some(v) = self.maps.get(Epoch(e)).map(|m| m.view(pg)) else { continue };
                if prev.as_ref().is_some_and(|p| !p.same_interval(&v)) {
                    stands = false;
                }
                prev = Some(v);
            }
            if !stands {
                return;
            }
            let floor = self.started_at(to);
            let node = &mut self.nodes[i];
            let core = PlacementGroup::create(pg, to, Arc::clone(&node.cfg), Arc::clone(&view), msg.interval);
            node.add(core.with_history(history, past).of_run(floor, node.began));
            self.input(to, pg, Input::Map(view));
        }
        if self.nodes[i].pgs.get(&pg).is_some_and(|(_, g)| msg.interval < g.info().interval) {
            self.seen("message of an interval that is over");
        }
        self.mix(u64::from(from.0) << 32 | u64::from(to.0));
        let name = msg.body.name();
        self.note(|| {
            let mut what = format!("{:?}", msg.body);
            what.truncate(what.char_indices().nth(400).map_or(what.len(), |(i, _)| i));
            format!("{from} -> {to} {pg} {name} @{} {what}", msg.interval)
        });
        self.input(to, pg, Input::Peer { from, msg });
    }

    pub(super) fn op(&mut self, to: OsdId, pg: PgId, op: ClientOp) {
        let i = to.0 as usize;
        if !self.nodes[i].running {
            return;
        }
        if op.epoch > self.nodes[i].epoch {
            self.nodes[i].early.push_back((op.epoch, Early::Op(pg, op)));
            return;
        }
        if self.nodes[i].pgs.contains_key(&pg) {
            self.input(to, pg, Input::Op(op));
        } else {
            let epoch = self.nodes[i].epoch;
            self.reply(to, op.id, Reply::Again { epoch });
        }
    }

    /// One step of one core, and what it asks for.
    pub fn input(&mut self, osd: OsdId, pg: PgId, input: Input) {
        let i = osd.0 as usize;
        if !self.nodes[i].running {
            return;
        }
        let stale = interval::is_stale(self, osd, pg, &input);
        let now = self.nodes[i].now(self.now);
        let wall_ms = self.now / MS;
        let mut out = Vec::new();
        let Some((core, group)) = self.nodes[i].pgs.get_mut(&pg) else { return };
        let core = *core;
        group.step(&mut Step { now, wall_ms, out: &mut out }, input);
        self.mix(out.len() as u64);
        if stale {
            self.violations.extend(interval::effect(osd, pg, &out));
        }
        for o in out {
            self.output(osd, pg, core, o);
        }
    }

    pub(super) fn output(&mut self, osd: OsdId, pg: PgId, core: u64, output: Output) {
        let i = osd.0 as usize;
        let run = self.nodes[i].run;
        match output {
            Output::Send { to, msg } => {
                let shares = |c: &Chunk| c.shared.is_some();
                match &msg.body {
                    Body::Push { chunk, .. } if shares(chunk) => self.seen("ranges taken from a clone by a member"),
                    Body::Pulled { chunk: Some(chunk), .. } if shares(chunk) => {
                        self.seen("ranges taken from a clone by a primary");
                    }
                    Body::Pull { .. } if self.scenario.hunts => self.asks_for_piece(osd, to, pg),
                    _ => {}
                }
                let (delay, link) = self.route(End::Osd(osd.0), End::Osd(to.0));
                self.after(delay, Event::Peer { to, from: osd, link, pg, msg: Box::new(msg) });
            }
            Output::Carry { to, msg } => {
                if let Body::CopyIs(is) = &msg.body
                    && is.at.offset > 0
                    && is.piece.as_ref().is_some_and(|p| p.next.is_none())
                {
                    self.seen("object read to its end for a copy");
                }
                let to = match to {
                    Way::Pg(pg, to) => Some((pg, to)),
                    Way::Object(oid) => {
                        let map = self.maps.get(self.nodes[i].epoch);
                        let pg =
                            |m: &crate::map::Map| PgId { pool: oid.pool, seed: pg_of_hash(oid.hash, m.pool.pg_num) };
                        map.and_then(|m| m.view(pg(m)).primary.map(|p| (pg(m), p)))
                    }
                };
                if let Some((pg, to)) = to {
                    let (delay, link) = self.route(End::Osd(osd.0), End::Osd(to.0));
                    self.after(delay, Event::Peer { to, from: osd, link, pg, msg: Box::new(msg) });
                }
            }
            Output::Submit { id, txn } => {
                self.ledger.disks.submitted(osd, core, id, &txn);
                let durable = Arc::clone(&self.nodes[i].durable);
                let done = Box::new(move |r: Result<(), nacre_store::StoreError>| {
                    if r.is_ok() {
                        durable.lock().unwrap_or_else(PoisonError::into_inner).push((pg, core, id));
                    }
                });
                if let Err(e) = self.nodes[i].store.submit(txn, done) {
                    self.violations.push(format!("{osd} pg {pg}: the store refused a transaction: {e}"));
                    return;
                }
                if !self.nodes[i].committing {
                    self.nodes[i].committing = true;
                    let slow = self.slow.get(&osd).is_some_and(|t| *t > self.now);
                    if slow {
                        self.seen("slow sync");
                    }
                    let most = if slow { 400 * MS } else { self.scenario.sync };
                    let delay = self.rng.range(most / 10 + 1, most);
                    self.after(delay, Event::Commit { osd, run });
                }
            }
            Output::Ordered { .. } => {}
            Output::Read { id, oid, items, class } => {
                let slow = self.slow.get(&osd).is_some_and(|t| *t > self.now);
                let most = if slow { 200 * MS } else { MS };
                let mut delay = if self.rng.chance(1, 2) { 0 } else { self.rng.below(most) };
                if let Some(rng) = self.paced.as_mut().filter(|_| class != Class::Client)
                    && rng.chance(1, 8)
                {
                    delay += rng.below(900 * MS);
                    self.seen("background read put off");
                }
                self.after(delay, Event::Read { osd, run, pg, core, id, oid, items });
            }
            Output::Reply { op, reply } => self.reply(osd, op, reply),
            Output::Ask(what @ (Request::Slot { .. } | Request::Release { .. })) => {
                self.slot_asked(osd, pg, core, &what)
            }
            Output::Ask(what) => {
                let interval = self.nodes[i].pgs.get(&pg).map(|(_, g)| g.info().interval).unwrap_or_default();
                let delay = self.rng.range(1, 10) * MS;
                self.after(delay, Event::Ask { from: osd, run, pg, interval, what });
            }
            Output::Arm { id, at } => {
                let when = self.nodes[i].when(at);
                let delay = when.saturating_sub(self.now);
                self.after(delay, Event::Timer { osd, run, pg, core, id });
            }
            Output::Report(report) => drop(self.reports.insert((osd, pg), *report)),
            Output::Born(child) => {
                let id = child.id();
                self.nodes[i].add(*child);
                // From the map of its birth on: its parent may be following maps from long ago.
                let born = self.nodes[i].pgs.get(&id).map(|(_, g)| g.epoch()).unwrap_or_default();
                for e in born.0..=self.nodes[i].epoch.0 {
                    if let Some(m) = self.maps.get(Epoch(e)) {
                        let view = Arc::new(m.view(id));
                        self.input(osd, id, Input::Map(view));
                    }
                }
            }
            Output::Gone => {
                self.nodes[i].pgs.remove(&pg);
                self.nodes[i].leaving.insert(pg, nacre_pg::io::TxnId(0));
                self.reports.remove(&(osd, pg));
            }
            Output::Moved { from, to, by } => {
                *self.moves.entry((from, to)).or_default() += 1;
                if to == "active" {
                    ledger::serves(self, osd, pg);
                }
                self.note(|| format!("{osd} {pg} {from} -> {to} by {by}"));
            }
            Output::Notify { session, cookie, notify, oid, payload } => {
                let client = (session.0 - 1) as u32;
                let (delay, link) = self.route(End::Osd(osd.0), End::Client(client));
                let name = oid.name;
                self.after(delay, Event::Notified { client, from: osd, link, name, cookie, notify, payload });
            }
        }
    }

    pub(super) fn commit(&mut self, osd: OsdId, run: u64) {
        let i = osd.0 as usize;
        if self.nodes[i].run != run || !self.nodes[i].running {
            return;
        }
        let pending = self.nodes[i].store.pending() as u64;
        let count = self.rng.range(1, pending.max(1)) as usize;
        if pending > 0 && self.nodes[i].store.commit(count) == 0 {
            self.disk_failed(osd);
            return;
        }
        self.nodes[i].committing = false;
        if self.nodes[i].store.pending() > 0 {
            self.nodes[i].committing = true;
            let delay = self.rng.range(1, self.scenario.sync);
            self.after(delay, Event::Commit { osd, run });
        } else {
            self.nodes[i].leaving.clear();
        }
        self.told_durable(osd);
    }

    pub(super) fn told_durable(&mut self, osd: OsdId) {
        let list = {
            let durable = &self.nodes[osd.0 as usize].durable;
            std::mem::take(&mut *durable.lock().unwrap_or_else(PoisonError::into_inner))
        };
        for (pg, core, id) in list {
            self.ledger.disks.reached(osd, pg, core, id);
            if self.nodes[osd.0 as usize].pgs.get(&pg).is_some_and(|(c, _)| *c == core) {
                self.input(osd, pg, Input::Committed(id));
            }
        }
    }
}
