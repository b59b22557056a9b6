//! Processes that end: osds, and clients.

use nacre_proto::ids::OsdId;

use crate::world::{Event, MS, World};

impl World {
    /// An osd crashes and returns: at once, after a while, or after long.
    pub(super) fn crash_and_return(&mut self, osd: OsdId) -> bool {
        let crashed = self.crash(osd);
        let away = match self.rng.below(3) {
            0 => self.rng.range(5, 100),
            1 => self.rng.range(100, 2000),
            _ => self.rng.range(2000, 8000),
        };
        self.after(away * MS, Event::Restart { osd });
        crashed
    }

    /// Until everything is healed, unless something else starts it. Half of the osds stay.
    pub(super) fn stay_away(&mut self, osd: OsdId) -> bool {
        let running = self.nodes.iter().filter(|n| n.running).count();
        running > self.nodes.len().div_ceil(2) && self.crash(osd)
    }

    /// The power of the room.
    pub(super) fn power_cut(&mut self) -> bool {
        let mut any = false;
        for i in 0..self.nodes.len() as u32 {
            if self.rng.chance(2, 3) {
                any |= self.crash_and_return(OsdId(i));
            }
        }
        any
    }

    /// At least two clients stay.
    pub(super) fn some_client_dies(&mut self) -> bool {
        let alive: Vec<u32> = self.clients.iter().filter(|c| c.alive).map(|c| c.id).collect();
        let Some(&client) = self.rng.pick(&alive) else { return false };
        if alive.len() <= 2 || !self.rng.chance(1, 4) {
            return false;
        }
        self.client_dies(client);
        true
    }
}
