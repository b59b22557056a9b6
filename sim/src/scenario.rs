//! The shape of a run: how many of what, how fast, how faulty. Drawn from the seed, so that seeds differ in kind.

use std::collections::BTreeMap;

use nacre_proto::ids::{Epoch, OsdId};

use crate::rng::Rng;
use crate::world::MS;

/// The shape.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Osds.
    pub osds: u32,
    /// Clients.
    pub clients: u32,
    /// Objects.
    pub objects: u64,
    /// Pgs.
    pub pg_num: u32,
    /// Copies.
    pub size: u32,
    /// Copies needed.
    pub min_size: u32,
    /// min_size changes too.
    pub loose: bool,
    /// Network delay, nanoseconds.
    pub delay: u64,
    /// The disk's sync.
    pub sync: u64,
    /// Silence until an osd is marked down.
    pub grace: u64,
    /// A crashed process is known as dead at once.
    pub refuses: bool,
    /// Peers bring each other's maps up to date.
    pub gossip: bool,
    /// Requests of a client at a time.
    pub in_flight: u64,
    /// Between a client's requests.
    pub pause: u64,
    /// Until a client asks again.
    pub patience: u64,
    /// Between faults.
    pub calm: u64,
    /// Snapshots are made.
    pub snapshots: bool,
    /// Server-side classes are called.
    pub classes: bool,
    /// Clients watch objects and notify each other.
    pub watches: bool,
    /// The number of pgs doubles now and then.
    pub grows: bool,
    /// Length of the faulty phase.
    pub span: u64,
    /// Entries of a log.
    pub log_keep: usize,
    /// How long a map may take to a client.
    pub lag: u64,
    /// Clock rates differ by so many millionths.
    pub drift: u64,
    /// At which map each osd's present run began.
    pub floors: BTreeMap<OsdId, Epoch>,
}

impl Scenario {
    /// Of a seed.
    pub fn draw(seed: u64) -> Scenario {
        let mut r = Rng::new(seed ^ 0x7363_656e);
        let osds = r.range(3, 6) as u32;
        let size = r.range(2, 3) as u32;
        let loose = r.chance(1, 3);
        let mut out = Scenario {
            osds,
            clients: r.range(2, 4) as u32,
            objects: r.range(2, 10),
            pg_num: 1 << r.below(3),
            size,
            min_size: if loose {
                r.range(1, u64::from(size)) as u32
            } else {
                size.div_ceil(2).max(if size > 2 { 2 } else { 1 })
            },
            loose,
            delay: [MS / 5, MS, 5 * MS][r.below(3) as usize],
            sync: [MS / 2, 4 * MS, 30 * MS][r.below(3) as usize],
            grace: [300 * MS, 1000 * MS, 2500 * MS][r.below(3) as usize],
            refuses: r.chance(1, 2),
            gossip: r.chance(1, 2),
            in_flight: r.range(1, 3),
            pause: [20 * MS, 60 * MS, 200 * MS][r.below(3) as usize],
            patience: [400 * MS, 1500 * MS][r.below(2) as usize],
            calm: [400 * MS, 1500 * MS, 4000 * MS][r.below(3) as usize],
            snapshots: r.chance(1, 2),
            classes: Rng::new(seed ^ 0x636c_6173).chance(1, 2),
            watches: Rng::new(seed ^ 0x7761_7463).chance(1, 3),
            grows: Rng::new(seed ^ 0x6772_6f77).chance(1, 2) && seed % 8 != 5,
            span: r.range(4, 12) * 1000 * MS,
            log_keep: [4, 12, 40, 400][r.below(4) as usize],
            drift: [0, 100, 400][r.below(3) as usize],
            // Clients far behind, who still ask an old primary: only so can a missing lease be seen.
            lag: if seed % 8 == 5 { 4000 } else { 60 },
            floors: BTreeMap::new(),
        };
        if out.is_lagging() {
            out.grace = 300 * MS;
            out.objects = 2;
            out.pause = 20 * MS;
            out.in_flight = 1;
            out.refuses = false;
            out.snapshots = false;
            out.calm = 1500 * MS;
        }
        out
    }

    /// Some clients only read, and by maps that are far behind.
    pub fn is_lagging(&self) -> bool {
        self.lag > 60
    }
}
