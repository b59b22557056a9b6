//! What goes wrong, and what operators do meanwhile.

use nacre_proto::ids::{OsdId, SnapId};

use crate::world::{End, Event, MS, World};

impl World {
    /// One fault, and when the next comes.
    pub(crate) fn fault(&mut self) {
        if !self.faulty {
            return;
        }
        let n = self.nodes.len() as u64;
        let osd = OsdId(self.rng.below(n) as u32);
        let other = OsdId(((u64::from(osd.0) + 1 + self.rng.below(n - 1)) % n) as u32);
        match self.rng.below(24) {
            0..5 => self.crash_and_return(osd),
            5 => {
                // All at once: the power of the room.
                for i in 0..n as u32 {
                    if self.rng.chance(2, 3) {
                        self.crash_and_return(OsdId(i));
                    }
                }
            }
            6..9 => self.reset(End::Osd(osd.0), End::Osd(other.0)),
            9 => {
                let c = self.rng.below(self.clients.len() as u64) as u32;
                self.reset(End::Osd(osd.0), End::Client(c));
            }
            10 | 11 => self.cut(End::Osd(osd.0), End::Osd(other.0)),
            12..15 => self.isolate(osd),
            15 => self.cut(End::Mon, End::Osd(osd.0)),
            16 => {
                let inside = self.maps.last().inside.contains(&osd);
                let size = self.maps.last().pool.size as usize;
                if inside && self.maps.last().inside.len() > size {
                    self.note(|| format!("{osd} out"));
                    self.change(|m| {
                        m.inside.remove(&osd);
                    });
                } else if !inside {
                    self.note(|| format!("{osd} in"));
                    self.change(|m| {
                        m.inside.insert(osd);
                    });
                }
            }
            17 => {
                let w = self.rng.range(30, 100);
                self.change(|m| {
                    m.weight.insert(osd, w);
                });
            }
            18 => {
                let base = self.scenario.size;
                let size = if self.maps.last().pool.size == base { (base + 1).min(n as u32) } else { base };
                let least = self.rng.range(1, u64::from(base)) as u32;
                let min_size = if self.scenario.loose { least } else { self.scenario.min_size };
                self.change(|m| {
                    m.pool.size = size;
                    m.pool.min_size = min_size;
                });
            }
            19 => self.upmap(),
            20 => drop(self.slow.insert(osd, self.now + self.rng.range(100, 1500) * MS)),
            21 | 22 if self.scenario.snapshots => self.change(|m| {
                m.snap_seq = SnapId(m.snap_seq.0 + 1);
                let s = m.snap_seq;
                m.snaps.insert(s);
            }),
            _ => {
                let alive: Vec<u32> = self.clients.iter().filter(|c| c.alive).map(|c| c.id).collect();
                if alive.len() > 2
                    && self.rng.chance(1, 4)
                    && let Some(&c) = self.rng.clone().pick(&alive)
                {
                    self.client_dies(c);
                }
            }
        }
        let pause = self.scenario.calm;
        let next = self.rng.range(pause / 10, pause);
        self.after(next, Event::Fault);
    }

    fn crash_and_return(&mut self, osd: OsdId) {
        self.crash(osd);
        let away = match self.rng.below(3) {
            0 => self.rng.range(5, 100),
            1 => self.rng.range(100, 2000),
            _ => self.rng.range(2000, 8000),
        };
        self.after(away * MS, Event::Restart { osd });
    }

    fn cut(&mut self, a: End, b: End) {
        let kind = self.rng.below(3);
        if kind != 1 {
            self.cuts.insert((a, b));
        }
        if kind != 0 {
            self.cuts.insert((b, a));
        }
        self.note(|| format!("cut {a:?} {b:?} kind {kind}"));
        let last = self.rng.range(20, 4000) * MS;
        self.after(last, Event::Heal { a, b });
    }

    /// An osd is cut from the map service and most others; perhaps clients still reach it.
    fn isolate(&mut self, osd: OsdId) {
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
    }

    fn upmap(&mut self) {
        let pgs = self.maps.last().pgs();
        let Some(&pg) = self.rng.clone().pick(&pgs) else { return };
        let all: Vec<OsdId> = self.maps.last().inside.iter().copied().collect();
        let size = self.maps.last().pool.size as usize;
        let start = self.rng.below(all.len() as u64) as usize;
        let list: Vec<OsdId> = all.iter().cycle().skip(start).take(size.min(all.len())).copied().collect();
        let clear = self.rng.chance(1, 2);
        self.change(|m| {
            if clear {
                m.upmap.remove(&pg);
            } else {
                m.upmap.insert(pg, list);
            }
        });
    }
}
