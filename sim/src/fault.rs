//! What goes wrong, and what operators do meanwhile: each kind by name, drawn by the weights of the scenario, counted.
//!
//! A new kind: a variant here, its function in `fault/`, a weight in `Fault::usual`. A kind that no default run makes
//! fails the test of coverage.

mod disk;
pub mod hunt;
mod net;
mod operator;
mod process;

use nacre_proto::ids::OsdId;

use crate::world::{Event, World};

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// An osd's process ends; what was not synced is lost or torn. It returns soon, or after a while.
    Crash,
    /// Many osds lose power at once.
    PowerCut,
    /// An osd crashes and stays away until everything is healed.
    LongAbsence,
    /// A connection between osds is lost with what is on it.
    Reset,
    /// A connection of a client is lost with what is on it.
    ResetClient,
    /// A connection delivers nothing for a while, then all of it, late.
    Stall,
    /// Nothing passes between two osds: in one direction, or both.
    Cut,
    /// An osd and the map service do not hear each other.
    CutMap,
    /// An osd is cut from the map service and from others, not from clients.
    Isolate,
    /// Two halves do not hear each other.
    Partition,
    /// A disk takes long to sync.
    SlowDisk,
    /// A disk refuses a sync: the osd stops.
    FailingDisk,
    /// A stored block changes by itself.
    BitRot,
    /// An osd returns with an empty disk.
    ReplacedDisk,
    /// An osd is taken out, or in again.
    Out,
    /// An osd's weight changes.
    Reweight,
    /// The pool's number of copies changes.
    Resize,
    /// A pg is placed by hand, or no longer.
    Upmap,
    /// An osd no longer likes to be primary, or does again.
    Affinity,
    /// A snapshot is taken.
    Snapshot,
    /// A client dies with its requests open.
    ClientDies,
}

impl Fault {
    /// All kinds.
    pub const ALL: [Fault; 21] = [
        Fault::Crash,
        Fault::PowerCut,
        Fault::LongAbsence,
        Fault::Reset,
        Fault::ResetClient,
        Fault::Stall,
        Fault::Cut,
        Fault::CutMap,
        Fault::Isolate,
        Fault::Partition,
        Fault::SlowDisk,
        Fault::FailingDisk,
        Fault::BitRot,
        Fault::ReplacedDisk,
        Fault::Out,
        Fault::Reweight,
        Fault::Resize,
        Fault::Upmap,
        Fault::Affinity,
        Fault::Snapshot,
        Fault::ClientDies,
    ];

    /// The name in scenario files and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Fault::Crash => "crash",
            Fault::PowerCut => "power-cut",
            Fault::LongAbsence => "long-absence",
            Fault::Reset => "reset",
            Fault::ResetClient => "reset-client",
            Fault::Stall => "stall",
            Fault::Cut => "cut",
            Fault::CutMap => "cut-map",
            Fault::Isolate => "isolate",
            Fault::Partition => "partition",
            Fault::SlowDisk => "slow-disk",
            Fault::FailingDisk => "failing-disk",
            Fault::BitRot => "bit-rot",
            Fault::ReplacedDisk => "replaced-disk",
            Fault::Out => "out",
            Fault::Reweight => "reweight",
            Fault::Resize => "resize",
            Fault::Upmap => "upmap",
            Fault::Affinity => "affinity",
            Fault::Snapshot => "snapshot",
            Fault::ClientDies => "client-dies",
        }
    }

    /// Its weight in a run of no special kind.
    #[must_use]
    pub const fn usual(self) -> u64 {
        match self {
            Fault::Crash => 5,
            Fault::Reset | Fault::Isolate => 3,
            Fault::Cut | Fault::Stall | Fault::Snapshot | Fault::BitRot | Fault::ReplacedDisk => 2,
            _ => 1,
        }
    }
}

impl World {
    /// One fault, and when the next comes.
    pub(crate) fn fault(&mut self) {
        if !self.faulty {
            return;
        }
        let total: u64 = self.scenario.faults.values().sum();
        let mut at = self.rng.below(total);
        let kind = self.scenario.faults.iter().find_map(|(kind, weight)| {
            let hit = at < *weight;
            at = at.saturating_sub(*weight);
            hit.then_some(*kind)
        });
        if let Some(kind) = kind {
            self.strike(kind);
        }
        let pause = self.scenario.calm;
        let next = self.rng.range(pause / 10, pause);
        self.after(next, Event::Fault);
    }

    /// A fault of this kind, somewhere; it is counted if it could be done.
    pub fn strike(&mut self, kind: Fault) {
        let n = self.nodes.len() as u64;
        let osd = OsdId(self.rng.below(n) as u32);
        let done = match kind {
            Fault::Crash => self.crash_and_return(osd),
            Fault::PowerCut => self.power_cut(),
            Fault::LongAbsence => self.stay_away(osd),
            Fault::Reset => self.lose_connection(osd),
            Fault::ResetClient => self.lose_client_connection(osd),
            Fault::Stall => self.stall(osd),
            Fault::Cut => self.cut_one(osd),
            Fault::CutMap => self.cut_map(osd),
            Fault::Isolate => self.isolate(osd),
            Fault::Partition => self.partition(),
            Fault::SlowDisk => self.slow_disk(osd),
            Fault::FailingDisk => self.failing_disk(osd),
            Fault::BitRot => self.bit_rot(osd),
            Fault::ReplacedDisk => self.replace_disk(osd),
            Fault::Out => self.out_or_in(osd),
            Fault::Reweight => self.reweight(osd),
            Fault::Resize => self.resize(),
            Fault::Upmap => self.upmap(),
            Fault::Affinity => self.affinity(osd),
            Fault::Snapshot => self.snapshot(),
            Fault::ClientDies => self.some_client_dies(),
        };
        if done {
            self.seen(kind.name());
        }
    }
}
