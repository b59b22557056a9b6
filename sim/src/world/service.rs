//! The map service at work: it publishes epochs, hears requests of primaries, marks the silent down and the returned up.

use std::sync::Arc;

use nacre_pg::PlacementGroup;
use nacre_pg::io::{Input, Request};
use nacre_proto::ids::{Epoch, OsdId, PgId};

use super::{End, Event, MS, World};
use crate::node::Early;

impl World {
    /// Changes the map and spreads it.
    pub fn change(&mut self, f: impl FnOnce(&mut crate::map::Map)) {
        self.maps.change(f);
        self.publish();
    }

    pub(crate) fn publish(&mut self) {
        let epoch = self.maps.last().epoch;
        self.note(|| format!("map {epoch}"));
        for i in 0..self.nodes.len() as u32 {
            let d = self.rng.range(1, 20) * MS / 2;
            self.after(d, Event::Map { to: End::Osd(i), epoch });
        }
        for i in 0..self.clients.len() as u32 {
            let lag = if i % 2 == 1 { self.scenario.lag } else { 60 };
            let d = self.rng.range(lag / 60, lag) * MS;
            self.after(d, Event::Map { to: End::Client(i), epoch });
        }
    }

    pub(super) fn map_arrives(&mut self, to: End, epoch: Epoch) {
        match to {
            End::Osd(i) => self.node_maps(OsdId(i), epoch),
            End::Client(i) => self.client_map(i, epoch),
            End::Mon => {}
        }
    }

    /// An osd takes maps in order up to one.
    pub(super) fn node_maps(&mut self, osd: OsdId, epoch: Epoch) {
        let i = osd.0 as usize;
        if !self.nodes[i].running {
            return;
        }
        while self.nodes[i].epoch < epoch {
            let next = self.nodes[i].epoch.next();
            let Some(map) = self.maps.get(next).cloned() else { return };
            self.nodes[i].epoch = next;
            let known: Vec<PgId> = self.nodes[i].pgs.keys().copied().collect();
            for pg in known {
                let view = Arc::new(map.view(pg));
                self.input(osd, pg, Input::Map(view));
            }
            if next == Epoch(1) {
                for pg in map.pgs() {
                    let view = Arc::new(map.view(pg));
                    if view.has(osd) {
                        let cfg = Arc::clone(&self.nodes[i].cfg);
                        self.nodes[i].add(PlacementGroup::create(pg, osd, cfg, Arc::clone(&view), next));
                        self.input(osd, pg, Input::Map(view));
                    }
                }
            }
            let sight = map.osds.get(&osd).copied().unwrap_or_default();
            let current = self.maps.last().osds.get(&osd).copied().unwrap_or_default();
            if !sight.up && !current.up {
                let run = self.nodes[i].run;
                let delay = self.rng.range(10, 400) * MS;
                self.after(delay, Event::Boot { osd, run });
            }
        }
        let ready: Vec<Early> = {
            let node = &mut self.nodes[i];
            let epoch = node.epoch;
            let (ready, rest) = std::mem::take(&mut node.early).into_iter().partition(|(e, _)| *e <= epoch);
            node.early = rest;
            ready.into_iter().map(|(_, e): (Epoch, Early)| e).collect()
        };
        for e in ready {
            match e {
                Early::Peer(from, pg, msg) => self.peer(osd, from, pg, msg),
                Early::Op(pg, op) => self.op(osd, pg, op),
            }
        }
    }

    pub(super) fn ask(&mut self, from: OsdId, run: u64, pg: PgId, interval: Epoch, what: Request) {
        let node = &self.nodes[from.0 as usize];
        if node.run != run || !node.running {
            return;
        }
        if self.is_cut(End::Osd(from.0), End::Mon) {
            self.after(200 * MS, Event::Ask { from, run, pg, interval, what });
            return;
        }
        let last = Arc::clone(self.maps.last());
        let still = (interval.0..=last.epoch.0).map(Epoch).filter_map(|e| self.maps.get(e)).map(|m| m.view(pg));
        let mut same = true;
        let mut prev: Option<nacre_pg::view::View> = None;
        for v in still {
            if prev.as_ref().is_some_and(|p| !p.same_interval(&v)) {
                same = false;
                break;
            }
            prev = Some(v);
        }
        match what {
            Request::UpThru => {
                let sight = last.osds.get(&from).copied().unwrap_or_default();
                if same && sight.up && sight.up_from <= interval && sight.up_thru < interval {
                    self.maps.change_osd(from, |s, _| s.up_thru = interval);
                    self.publish();
                }
            }
            Request::PgTemp(list) if same && list.iter().all(|o| last.osds.get(o).is_some_and(|s| s.up)) => {
                self.change(|m| {
                    if list.is_empty() {
                        m.temp.remove(&pg);
                    } else {
                        m.temp.insert(pg, list);
                    }
                });
            }
            _ => {}
        }
    }

    /// Failure detection: an osd that is silent for its grace is marked down.
    pub(super) fn watch(&mut self) {
        let grace = self.scenario.grace;
        let mut gone = Vec::new();
        for i in 0..self.nodes.len() {
            let osd = OsdId(i as u32);
            let others = (0..self.nodes.len() as u32).filter(|o| *o != osd.0);
            let cut = others.filter(|o| self.is_cut(End::Osd(osd.0), End::Osd(*o))).count();
            let silent = !self.nodes[i].running || self.is_cut(End::Osd(osd.0), End::Mon) || cut >= 2;
            let up = self.maps.last().osds.get(&osd).is_some_and(|s| s.up);
            if !silent || !up {
                self.silent.remove(&osd);
                continue;
            }
            let since = *self.silent.entry(osd).or_insert(self.now);
            // A connection refused says at once that the process is gone.
            let refused = !self.nodes[i].running && self.scenario.refuses;
            if refused || self.now - since >= grace {
                gone.push((osd, !self.nodes[i].running && self.scenario.refuses));
            }
        }
        for (osd, dead) in gone {
            self.note(|| format!("{osd} marked down, dead {dead}"));
            self.maps.change_osd(osd, |s, _| {
                s.up = false;
                s.dead = dead;
            });
            self.publish();
        }
        self.after(50 * MS, Event::Watch);
    }

    pub(super) fn boot(&mut self, osd: OsdId, run: u64) {
        let node = &self.nodes[osd.0 as usize];
        if !node.running || node.run != run {
            return;
        }
        if self.is_cut(End::Osd(osd.0), End::Mon) || self.is_cut(End::Mon, End::Osd(osd.0)) {
            self.after(100 * MS, Event::Boot { osd, run });
            return;
        }
        // Caught up first: it takes part only from the map that shows this run.
        let epoch = self.maps.last().epoch;
        self.node_maps(osd, epoch);
        let sight = self.maps.last().osds.get(&osd).copied().unwrap_or_default();
        if sight.up && sight.up_from > self.started_at(osd) {
            return;
        }
        if sight.up {
            // Quicker than the failure detection: the old run ends in the map first.
            self.maps.change_osd(osd, |s, _| {
                s.up = false;
                s.dead = true;
            });
            self.publish();
        }
        let newborn = std::mem::take(&mut self.nodes[osd.0 as usize].newborn);
        self.maps.change_osd(osd, |s, epoch| {
            s.up = true;
            s.up_from = epoch;
            s.dead = false;
            if newborn {
                s.born = epoch;
            }
        });
        self.note(|| format!("{osd} up"));
        self.publish();
        self.silent.remove(&osd);
    }

    pub(super) fn started_at(&self, osd: OsdId) -> Epoch {
        self.scenario.floors.get(&osd).copied().unwrap_or_default()
    }
}
