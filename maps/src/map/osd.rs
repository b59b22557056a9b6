//! What the map knows of an OSD. The numbers that change with every boot and failure ([`OsdState`]) are apart from what
//! hardly ever does ([`OsdInfo`]), so that an increment for one failed OSD is some fifty bytes.

use std::net::SocketAddr;

use bitflags::bitflags;
use nacre_crush::model::Weight;
use nacre_proto::ids::{Epoch, Incarnation, Stamp, Uuid};

use crate::codec::wire::{flag_word, record};

bitflags! {
    /// Yes-or-no facts of an OSD.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct OsdFlags: u32 {
        /// Serves.
        const UP = 1;
        /// Has never booted.
        const NEW = 1 << 1;
        /// Was taken out by the monitors after being down too long: its next boot brings it in again.
        const AUTO_OUT = 1 << 2;
        /// Its data is gone for good, its number kept for a replacement.
        const DESTROYED = 1 << 3;
        /// Will stop by itself and says so: judged down at once, and not as a failure.
        const STOPPING = 1 << 4;
        /// Down, and its process is known to be gone: a connection was refused, or a later run has begun. It can answer
        /// no read any more, so nobody need wait for its leases.
        const DEAD = 1 << 5;
        /// Over the near-full line.
        const NEAR_FULL = 1 << 8;
        /// Too full to take backfill.
        const BACKFILL_FULL = 1 << 9;
        /// Too full to take writes.
        const FULL = 1 << 10;
    }
}
flag_word!(OsdFlags);

/// Whether, since when and how much an OSD takes part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OsdState {
    /// See [`OsdFlags`].
    pub flags: OsdFlags,
    /// How much of what is mapped here stays here: 1.0 is all, 0 is out.
    pub weight: Weight,
    /// How willing it is to be primary: 1.0 as any other, 0 only if nobody else can.
    pub affinity: Weight,
    /// The run of the daemon that is up, or was last.
    pub incarnation: Incarnation,
    /// Epoch of the last boot.
    pub up_from: Epoch,
    /// Last epoch in which it is known to have been alive, as far as a primary needed to know.
    pub up_thru: Epoch,
    /// Epoch in which it last went down.
    pub down_at: Epoch,
    /// Epoch in which an operator gave its data up for lost.
    pub lost_at: Epoch,
    /// Last interval that ended in a clean shutdown: boot.
    pub clean_begin: Epoch,
    /// ... and end.
    pub clean_end: Epoch,
    /// When it went up or down.
    pub since: Stamp,
    /// Its weight before it was taken out automatically.
    pub weight_before_out: Weight,
    /// How often it was marked down and came straight back, in 1/256 of a time; halves as time goes by.
    pub flaps: u32,
    /// When `flaps` was counted last.
    pub flapped: Stamp,
    /// How long its failures that proved false lasted on average, in milliseconds: stretches the grace it is given.
    pub laggy_ms: u32,
    /// How probable a false failure is, in 1/65536.
    pub laggy_share: u32,
    /// Epoch in which its present disk was first used: what the number held before is gone.
    pub born: Epoch,
}
record!(OsdState {
    flags,
    weight,
    affinity,
    incarnation,
    up_from,
    up_thru,
    down_at,
    lost_at,
    clean_begin,
    clean_end,
    since,
    weight_before_out,
    flaps,
    flapped,
    laggy_ms,
    laggy_share,
    born,
});

impl OsdState {
    /// An OSD that was just created: not booted yet, in.
    pub fn fresh(now: Stamp) -> Self {
        Self { flags: OsdFlags::NEW, weight: Weight::ONE, affinity: Weight::ONE, since: now, ..Self::default() }
    }

    /// Whether it serves.
    pub fn is_up(&self) -> bool {
        self.flags.contains(OsdFlags::UP)
    }

    /// Whether data is mapped to it.
    pub fn is_in(&self) -> bool {
        self.weight > Weight::ZERO
    }
}

/// Who an OSD is and where it is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OsdInfo {
    /// Of its store: a number cannot be taken over by another disk unseen.
    pub uuid: Uuid,
    /// Where clients reach it.
    pub public: Vec<SocketAddr>,
    /// Where other OSDs reach it.
    pub cluster: Vec<SocketAddr>,
    /// Where heartbeats go.
    pub heartbeat: Vec<SocketAddr>,
    /// The machine it runs on: peers there use `local_socket`.
    pub host: String,
    /// Path of its local socket; empty if it has none.
    pub local_socket: String,
    /// Version of the program.
    pub version: String,
    /// Size of its store.
    pub capacity_bytes: u64,
}
record!(OsdInfo { uuid, public, cluster, heartbeat, host, local_socket, version, capacity_bytes });
