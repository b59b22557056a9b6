//! How an osd's process ends and begins again.

use std::sync::Arc;

use nacre_pg::io::Input;
use nacre_proto::ids::{Epoch, OsdId, PgId};

use super::{End, Event, MS, World};

impl World {
    /// Power is lost at an osd; false if it did not run.
    pub fn crash(&mut self, osd: OsdId) -> bool {
        let i = osd.0 as usize;
        if !self.nodes[i].running {
            return false;
        }
        let pending = self.nodes[i].store.pending_bytes();
        let bytes = self.rng.below(pending + 1);
        self.note(|| format!("{osd} crashes, {bytes} of {pending} unsynced bytes survive"));
        if pending > 0 {
            self.seen(if bytes == 0 || bytes == pending { "whole writes lost or kept" } else { "torn writes" });
        }
        self.nodes[i].crash(bytes);
        self.reports.retain(|(o, _), _| *o != osd);
        self.reset_all(osd);
        true
    }

    /// A store that could not sync is worth nothing: the process ends, and begins again from what is durable.
    pub(super) fn disk_failed(&mut self, osd: OsdId) {
        self.seen("sync refused");
        self.crash(osd);
        let away = self.rng.range(5, 2000);
        self.after(away * MS, Event::Restart { osd });
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
