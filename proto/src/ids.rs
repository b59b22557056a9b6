//! Names of things (pool, pg, osd, object) and of moments (epoch, version).

use std::fmt;

use bytes::Bytes;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty), $fmt:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $fmt, self.0)
            }
        }
    };
}

number!(
    /// A pool. Never reused, also after the pool is gone.
    PoolId(u64),
    "{}"
);
number!(
    /// An OSD: its number in the crush map.
    OsdId(u32),
    "osd.{}"
);
number!(
    /// A monitor.
    MonId(u64),
    "mon.{}"
);
number!(
    /// The version of the cluster map. 0 is "no map yet".
    Epoch(u64),
    "{}"
);
number!(
    /// One incarnation of a client: leased, and what is fenced. Never reused.
    SessionId(u64),
    "session.{}"
);
number!(
    /// A snapshot, numbered per pool in the order of creation. [`SnapId::HEAD`] is the live object.
    SnapId(u64),
    "{}"
);

impl SnapId {
    /// The live object rather than a frozen state of it; sorts after every snapshot.
    pub const HEAD: SnapId = SnapId(u64::MAX);
}

impl Epoch {
    /// The epoch after this one.
    #[must_use]
    pub fn next(self) -> Epoch {
        Epoch(self.0 + 1)
    }
}

/// A placement group: a pool and the low bits of the object hash. `2.1f` in text, the hash in hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PgId {
    /// The pool.
    pub pool: PoolId,
    /// Which of the pool's pgs: `0..pg_num`.
    pub seed: u32,
}

impl fmt::Display for PgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:x}", self.pool, self.seed)
    }
}

/// The order of a pg's log: the epoch of the primary's interval, then a counter. `12'345` in text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The epoch in which the write was ordered.
    pub epoch: Epoch,
    /// Counts writes of the pg; never reset, so it alone orders what one history holds.
    pub counter: u64,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}'{}", self.epoch, self.counter)
    }
}

/// An object of a pool as every layer names it.
///
/// The order is the store's order: bit-reversed hash first, so that a pg is one contiguous range and a split only cuts
/// that range; then namespace, name, snap (snapshots before [`SnapId::HEAD`]).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectId {
    /// The pool.
    pub pool: PoolId,
    /// The placement hash of namespace and name. Carried, not recomputed: the client that named the object chose it.
    pub hash: u32,
    /// Empty for the default namespace.
    pub namespace: Bytes,
    /// Any bytes but empty.
    pub name: Bytes,
    /// Which state of it.
    pub snap: SnapId,
}

impl ObjectId {
    /// The hash in store order.
    pub fn sort_hash(&self) -> u32 {
        self.hash.reverse_bits()
    }
}

impl Ord for ObjectId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.pool, self.sort_hash(), &self.namespace, &self.name, self.snap).cmp(&(
            other.pool,
            other.sort_hash(),
            &other.namespace,
            &other.name,
            other.snap,
        ))
    }
}

impl PartialOrd for ObjectId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
