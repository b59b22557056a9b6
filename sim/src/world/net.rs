//! The network: connections that keep order and lose what is on them, one-way cuts, and delay.

use nacre_pg::io::Input;
use nacre_pg::op::{ClientOp, OpId, Reply};
use nacre_proto::ids::{OsdId, PgId};

use super::{End, Event, MS, World, pair};
use crate::oracle::ledger::{self, Asked};

impl World {
    /// Is the way from one end to the other cut.
    pub fn is_cut(&self, from: End, to: End) -> bool {
        self.cuts.contains(&(from, to))
    }

    pub(super) fn arrives(&mut self, from: End, to: End, link: u64) -> bool {
        if self.is_cut(from, to) {
            self.seen("message lost in a cut");
            return false;
        }
        let same = self.links.get(&pair(from, to)).map_or(0, |l| l.generation) == link;
        if !same {
            self.seen("message lost with its connection");
        }
        same
    }

    /// When a message sent now arrives, and over which connection.
    pub(super) fn route(&mut self, from: End, to: End) -> (u64, u64) {
        let slow = self.scenario.delay;
        let mut delay = self.rng.range(slow / 4 + 1, slow);
        if self.rng.chance(1, 50) {
            delay *= 10;
        }
        let link = self.links.entry(pair(from, to)).or_default();
        let last = self.directions.entry((from, to)).or_default();
        let at = (self.now + delay).max(*last + 1);
        *last = at;
        let generation = link.generation;
        let latest = self.latest.entry(to).or_default();
        if at < *latest {
            self.seen("message overtook one of another connection");
        } else {
            *latest = at;
        }
        (at - self.now, generation)
    }

    /// What is sent from one end to another from now on arrives only after this delay, in order.
    pub fn hold_up(&mut self, from: End, to: End, delay: u64) {
        let until = self.now + delay;
        let last = self.directions.entry((from, to)).or_default();
        *last = until.max(*last);
    }

    /// Nothing is still to arrive of what was held up.
    pub fn is_delivered(&self) -> bool {
        self.directions.values().all(|at| *at <= self.now + 150 * MS)
    }

    /// The connection between two ends is lost with all that is on it.
    pub fn reset(&mut self, a: End, b: End) {
        self.note(|| format!("connection {a:?} {b:?} lost"));
        self.links.entry(pair(a, b)).or_default().generation += 1;
        self.directions.remove(&(a, b));
        self.directions.remove(&(b, a));
        if let (End::Osd(a), End::Osd(b)) = (a, b) {
            for (me, other) in [(OsdId(a), OsdId(b)), (OsdId(b), OsdId(a))] {
                let pgs: Vec<PgId> = self.nodes[me.0 as usize].pgs.keys().copied().collect();
                for pg in pgs {
                    self.input(me, pg, Input::PeerReset { osd: other });
                }
            }
        }
    }

    pub(super) fn heal(&mut self, a: End, b: End) {
        let was = self.cuts.remove(&(a, b)) | self.cuts.remove(&(b, a));
        if !was {
            return;
        }
        self.reset(a, b);
        if a == End::Mon || b == End::Mon {
            let other = if a == End::Mon { b } else { a };
            let epoch = self.maps.last().epoch;
            self.after(MS, Event::Map { to: other, epoch });
        }
    }

    /// Everything works again.
    pub fn heal_all(&mut self) {
        for (a, b) in self.cuts.clone() {
            self.heal(a, b);
        }
        self.slow.clear();
    }

    /// Sends an operation of a client to an osd.
    pub fn send_op(&mut self, client: u32, to: OsdId, pg: PgId, mut op: ClientOp) -> u64 {
        self.next_op += 1;
        self.ops.insert(self.next_op, Asked::new(client, pg, &op));
        op.id = OpId(self.next_op);
        let (delay, link) = self.route(End::Client(client), End::Osd(to.0));
        self.after(delay, Event::Op { to, client, link, pg, op: Box::new(op) });
        self.next_op
    }

    pub(super) fn reply(&mut self, from: OsdId, op: OpId, reply: Reply) {
        let Some(asked) = self.ops.remove(&op.0) else {
            self.violations.push(format!("{from} answered an operation twice"));
            return;
        };
        if let Reply::Done { outcome, version } = &reply {
            ledger::answered(self, from, &asked, outcome, *version);
        }
        let Asked { client, tid, .. } = asked;
        let (delay, link) = self.route(End::Osd(from.0), End::Client(client));
        self.after(delay, Event::Reply { client, from, link, tid, sending: op.0, reply: Box::new(reply) });
    }
}
