//! A pool grows: its pgs double while clients write, and placement follows at once, later, or at the next doubling.

use crate::world::{Event, World};

/// More pgs than this show nothing new.
const MOST: u32 = 16;

impl World {
    /// Doubles the pgs, or lets placement follow an earlier doubling.
    pub(crate) fn grow(&mut self) {
        if !self.faulty {
            return;
        }
        let map = self.maps.last();
        let (pg_num, placed) = (map.pool.pg_num, map.placed);
        let follows = self.rng.chance(1, 3);
        if placed < pg_num && self.rng.chance(1, 2) {
            self.note(|| format!("placement follows to {pg_num} pgs"));
            self.change(|m| m.placed = pg_num);
        } else if pg_num < MOST {
            // Twice at once is what an osd sees that was away.
            let more = if self.rng.chance(1, 6) { (pg_num * 4).min(MOST) } else { pg_num * 2 };
            self.seen("split");
            self.note(|| format!("{pg_num} pgs become {more}"));
            self.change(|m| {
                m.pool.pg_num = more;
                if follows {
                    m.placed = more;
                }
            });
        }
        let pause = self.scenario.span / 4;
        let next = self.rng.range(pause / 10, pause);
        self.after(next, Event::Grow);
    }
}
