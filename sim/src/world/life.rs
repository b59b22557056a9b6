//! How an osd's process ends and begins again.

use std::sync::Arc;

use nacre_pg::io::Input;
use nacre_proto::ids::{Epoch, OsdId, PgId};

use super::{End, Event, MS, World};

impl World {
    /// Power is lost at an osd.
    pub fn crash(&mut self, osd: OsdId) {
        let i = osd.0 as usize;
        if !self.nodes[i].running {
            return;
        }
        let pending = self.nodes[i].store.pending_bytes();
        let bytes = self.rng.below(pending + 1);
        self.note(|| format!("{osd} crashes, {bytes} of {pending} unsynced bytes survive"));
        self.nodes[i].crash(bytes);
        self.reports.retain(|(o, _), _| *o != osd);
        self.reset_all(osd);
    }

    pub(super) fn reset_all(&mut self, osd: OsdId) {
        for o in 0..self.nodes.len() as u32 {
            if o != osd.0 {
                self.reset(End::Osd(osd.0), End::Osd(o));
            }
        }
        for c in 0..self.clients.len() as u32 {
            self.reset(End::Osd(osd.0), End::Client(c));
        }
    }

    pub(super) fn restart(&mut self, osd: OsdId) {
        let i = osd.0 as usize;
        if self.nodes[i].running {
            return;
        }
        if self.is_cut(End::Mon, End::Osd(osd.0)) {
            self.after(100 * MS, Event::Restart { osd });
            return;
        }
        self.note(|| format!("{osd} starts"));
        let floor = self.maps.last().epoch;
        self.scenario.floors.insert(osd, floor);
        if let Err(e) = self.nodes[i].restart(&self.maps, self.now, floor) {
            self.violations.push(format!("restart: {e}"));
            return;
        }
        let loaded: Vec<PgId> = self.nodes[i].pgs.keys().copied().collect();
        for pg in loaded {
            let Some((_, core)) = self.nodes[i].pgs.get(&pg) else { continue };
            for e in core.epoch().0 + 1..=floor.0 {
                if let Some(m) = self.maps.get(Epoch(e)) {
                    let view = Arc::new(m.view(pg));
                    self.input(osd, pg, Input::Map(view));
                }
            }
        }
        self.reset_all(osd);
        let run = self.nodes[i].run;
        let d = self.rng.range(1, 50) * MS;
        self.after(d, Event::Boot { osd, run });
    }
}
