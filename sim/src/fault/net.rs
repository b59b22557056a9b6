//! The network's faults: connections lost or late, cuts in one direction or both, isolation, partition.

use nacre_proto::ids::OsdId;

use crate::world::{End, Event, MS, World};

impl World {
    fn another(&mut self, osd: OsdId) -> OsdId {
        let n = self.nodes.len() as u64;
        OsdId(((u64::from(osd.0) + 1 + self.rng.below(n - 1)) % n) as u32)
    }

    pub(super) fn lose_connection(&mut self, osd: OsdId) -> bool {
        let other = self.another(osd);
        self.reset(End::Osd(osd.0), End::Osd(other.0));
        true
    }

    pub(super) fn lose_client_connection(&mut self, osd: OsdId) -> bool {
        let c = self.rng.below(self.clients.len() as u64) as u32;
        self.reset(End::Osd(osd.0), End::Client(c));
        true
    }

    /// What an osd sends to another (or to all others) arrives late: perhaps in another interval.
    pub(super) fn stall(&mut self, osd: OsdId) -> bool {
        let late = self.rng.range(20, 1500) * MS;
        let one = self.rng.chance(1, 2).then(|| self.another(osd));
        for to in (0..self.nodes.len() as u32).map(OsdId) {
            if to != osd && one.is_none_or(|o| o == to) {
                self.hold_up(End::Osd(osd.0), End::Osd(to.0), late);
            }
        }
        self.note(|| format!("{osd} sends late to {one:?} (none: all) for {} ms", late / MS));
        true
    }

    pub(super) fn cut_one(&mut self, osd: OsdId) -> bool {
        let other = self.another(osd);
        self.cut(End::Osd(osd.0), End::Osd(other.0));
        true
    }

    pub(super) fn cut_map(&mut self, osd: OsdId) -> bool {
        self.cut(End::Mon, End::Osd(osd.0));
        true
    }

    fn cut(&mut self, a: End, b: End) {
        let kind = self.rng.below(3);
        if kind != 1 {
            self.cuts.insert((a, b));
        }
        if kind != 0 {
            self.cuts.insert((b, a));
        }
        if kind < 2 {
            self.seen("one-way cut");
        }
        self.note(|| format!("cut {a:?} {b:?} kind {kind}"));
        let last = self.rng.range(20, 4000) * MS;
        self.after(last, Event::Heal { a, b });
    }

    /// An osd is cut from the map service and most others; clients still reach it.
    pub(super) fn isolate(&mut self, osd: OsdId) -> bool {
        let me = End::Osd(osd.0);
        let last = self.rng.range(200, 5000) * MS;
        let mut others = vec![End::Mon];
        others.extend((0..self.nodes.len() as u32).filter(|o| *o != osd.0).map(End::Osd));
        let leaky = self.rng.chance(1, 3);
        for other in others {
            if leaky && other != End::Mon && self.rng.chance(1, 2) {
                continue;
            }
            self.cuts.insert((me, other));
            self.cuts.insert((other, me));
            self.after(last, Event::Heal { a: me, b: other });
        }
        self.note(|| format!("{osd} isolated"));
        true
    }

    /// Two sides; the map service is on one of them, clients may be on either. Now and then one side hears the other.
    pub(super) fn partition(&mut self) -> bool {
        let osds = self.nodes.len() as u32;
        let split_clients = self.rng.chance(1, 2);
        let mut here = vec![End::Mon];
        let mut there = Vec::new();
        for o in 0..osds {
            if self.rng.chance(1, 2) { here.push(End::Osd(o)) } else { there.push(End::Osd(o)) }
        }
        for c in 0..self.clients.len() as u32 {
            if split_clients && self.rng.chance(1, 2) {
                if self.rng.chance(1, 2) { here.push(End::Client(c)) } else { there.push(End::Client(c)) }
            }
        }
        let one_way = self.rng.below(6);
        let last = self.rng.range(200, 4000) * MS;
        for &a in &here {
            for &b in &there {
                if one_way != 0 {
                    self.cuts.insert((a, b));
                }
                if one_way != 1 {
                    self.cuts.insert((b, a));
                }
                self.after(last, Event::Heal { a, b });
            }
        }
        self.note(|| format!("partition: {here:?} from {there:?}, one way {}", one_way < 2));
        !there.is_empty()
    }
}
