//! The shape of a run: how many of what, how fast, how faulty. Drawn from the seed, so that seeds differ in kind.

mod file;

use std::collections::BTreeMap;

use nacre_proto::ids::{Epoch, OsdId};

use crate::fault::Fault;
use crate::rng::Rng;
use crate::world::MS;

pub use file::File;

/// The shape.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What it is about.
    pub kind: Kind,
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
    /// Scrubs are ordered.
    pub scrubs: bool,
    /// Bits rot once all is healed.
    pub rot: bool,
    /// Healing mends machines and connections and leaves the map as it is: what hangs is not set going by a new interval.
    pub keeps_map: bool,
    /// A pg is led to where a spare copy holds the newest alone, which is struck while it is asked, and to another member
    /// while it is scrubbed (`fault/hunt.rs`).
    pub hunts: bool,
    /// Length of the faulty phase.
    pub span: u64,
    /// Entries of a log.
    pub log_keep: usize,
    /// How long a map may take to a client.
    pub lag: u64,
    /// Clients by old maps write too; else they only read.
    pub laggards_write: bool,
    /// How often each fault comes, among each other.
    pub faults: BTreeMap<Fault, u64>,
    /// Clock rates differ by so many millionths.
    pub drift: u64,
    /// At which map each osd's present run began.
    pub floors: BTreeMap<OsdId, Epoch>,
}

/// What a run is about: it shapes how often which fault comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A little of everything.
    Mixed,
    /// Primaries are isolated while clients by old maps still ask them: read leases are put to the test.
    Lease,
    /// Connections deliver late, into other intervals.
    Late,
    /// Disks fail, rot, and are replaced; power is cut.
    Disks,
    /// The map changes all the time.
    Churn,
    /// Copies are made anew, in many pieces, while who holds them comes and goes.
    Recovery,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 6] = [Kind::Mixed, Kind::Lease, Kind::Late, Kind::Disks, Kind::Churn, Kind::Recovery];

    /// The name in scenario files and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Mixed => "mixed",
            Kind::Lease => "lease",
            Kind::Late => "late",
            Kind::Disks => "disks",
            Kind::Churn => "churn",
            Kind::Recovery => "recovery",
        }
    }

    /// How much more often than usual a fault comes in such a run.
    const fn stress(self, fault: Fault) -> u64 {
        match (self, fault) {
            (Kind::Lease, Fault::Isolate) => 8,
            (Kind::Lease, Fault::Cut | Fault::Partition | Fault::CutMap) => 2,
            (Kind::Late, Fault::Stall) => 10,
            (Kind::Late, Fault::Out | Fault::Upmap | Fault::Affinity) => 4,
            (Kind::Disks, Fault::FailingDisk | Fault::BitRot | Fault::ReplacedDisk) => 6,
            (Kind::Disks, Fault::PowerCut | Fault::SlowDisk) => 3,
            (Kind::Churn, Fault::Out | Fault::Reweight | Fault::Resize | Fault::Upmap | Fault::Affinity) => 5,
            (Kind::Recovery, Fault::Reset | Fault::Out | Fault::Upmap) => 6,
            (Kind::Recovery, Fault::SlowDisk) => 8,
            (Kind::Recovery, Fault::CutMap | Fault::FailingDisk | Fault::ReplacedDisk | Fault::Crash) => 3,
            _ => 1,
        }
    }
}

impl Scenario {
    /// Of a seed.
    pub fn draw(seed: u64) -> Scenario {
        let mut r = Rng::new(seed ^ 0x7363_656e);
        let kind = match r.below(10) {
            0..3 => Kind::Mixed,
            3 => Kind::Recovery,
            4 | 5 => Kind::Lease,
            6 => Kind::Late,
            7 | 8 => Kind::Disks,
            _ => Kind::Churn,
        };
        Scenario::draw_kind(kind, &mut r)
    }

    /// Of a seed, given what it is about.
    pub fn draw_kind(kind: Kind, r: &mut Rng) -> Scenario {
        let osds = r.range(3, 6) as u32;
        let size = r.range(2, 3) as u32;
        let loose = r.chance(1, 3);
        let mut out = Scenario {
            kind,
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
            classes: r.chance(1, 2),
            watches: r.chance(1, 3),
            grows: r.chance(1, 2) && kind != Kind::Lease,
            span: r.range(4, 12) * 1000 * MS,
            log_keep: [4, 12, 40, 400][r.below(4) as usize],
            drift: [0, 100, 400][r.below(3) as usize],
            lag: 60,
            laggards_write: false,
            faults: Fault::ALL.iter().map(|f| (*f, f.usual() * kind.stress(*f))).collect(),
            floors: BTreeMap::new(),
            scrubs: r.chance(2, 3),
            rot: r.chance(1, 3),
            keeps_map: false,
            hunts: false,
        };
        if kind == Kind::Lease {
            // A lease shows only to clients far behind, who ask a primary that is one no more. Few writes, so that at
            // the cut most objects have none on its way, which would hold their reads back anyway.
            out.lag = 4000;
            out.laggards_write = r.chance(1, 3);
            out.grace = [120 * MS, 300 * MS][r.below(2) as usize];
            out.objects = r.range(3, 6);
            out.pause = [60 * MS, 150 * MS][r.below(2) as usize];
            out.in_flight = 1;
            out.sync = [MS / 2, 4 * MS][r.below(2) as usize];
            out.delay = [MS / 5, MS][r.below(2) as usize];
            out.refuses = false;
            out.snapshots = false;
            out.watches = false;
            out.calm = 1500 * MS;
        }
        if kind == Kind::Recovery {
            out.calm = 400 * MS;
            out.objects = r.range(6, 12);
            if r.chance(1, 2) {
                // One copy is enough to serve, so that the newest may be held by an osd that is no member any more.
                (out.size, out.min_size, out.loose) = (2, 1, true);
            }
            out.log_keep = [4, 12][r.below(2) as usize];
            out.sync = [4 * MS, 30 * MS][r.below(2) as usize];
            out.delay = [MS, 5 * MS][r.below(2) as usize];
            out.grace = [120 * MS, 300 * MS, 1000 * MS][r.below(3) as usize];
        }
        if kind == Kind::Late {
            out.calm = 400 * MS;
            out.delay = MS;
        }
        out.keeps_map = r.chance(if kind == Kind::Recovery { 3 } else { 1 }, 4);
        out
    }

    /// Objects are copied from others. No draw of its own: seeds without it run as before.
    pub fn copies(&self) -> bool {
        self.classes && self.objects.is_multiple_of(2)
    }

    /// Some clients work by maps that are far behind.
    pub fn is_lagging(&self) -> bool {
        self.lag > 60
    }
}
