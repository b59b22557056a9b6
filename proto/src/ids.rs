//! Names of things (pool, pg, osd, object) and of moments (epoch, version).

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;

/// A text that is not the name of what it should name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no {what}: expected {expected}")]
pub struct ParseIdError {
    /// What was read.
    pub text: String,
    /// What it should have been.
    pub what: &'static str,
    /// How such a thing is written.
    pub expected: &'static str,
}

impl ParseIdError {
    fn new(text: &str, what: &'static str, expected: &'static str) -> Self {
        Self { text: text.to_owned(), what, expected }
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        /// Reads what `Display` writes, and the bare number.
        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let digits = text.strip_prefix($prefix).unwrap_or(text);
                number_from(digits)
                    .map($name)
                    .map_err(|_| ParseIdError::new(text, $what, concat!("a number, as in `", $prefix, "7`")))
            }
        }
    };
}

number!(
    /// A pool. Never reused, also after the pool is gone.
    PoolId(u64),
    "",
    "pool id"
);
number!(
    /// An OSD: its number in the crush map.
    OsdId(u32),
    "osd.",
    "OSD"
);
number!(
    /// A monitor.
    MonId(u64),
    "mon.",
    "monitor"
);
number!(
    /// The version of the cluster map. 0 is "no map yet".
    Epoch(u64),
    "",
    "epoch"
);
number!(
    /// One incarnation of a client: leased, and what is fenced. Never reused.
    SessionId(u64),
    "session.",
    "session"
);
number!(
    /// A snapshot, numbered per pool in the order of creation. [`SnapId::HEAD`] is the live object.
    SnapId(u64),
    "",
    "snapshot id"
);

number!(
    /// One run of a daemon. The daemon counts its starts in its own store, so a later run has a greater number and a
    /// message from an earlier run is recognised for what it is.
    Incarnation(u64),
    "",
    "incarnation"
);
number!(
    /// A wall-clock moment: milliseconds since 1970. Pure code gets it as an argument and never reads a clock.
    Stamp(u64),
    "",
    "moment in milliseconds since 1970"
);

/// Digits only: `u64::from_str` would take a sign too.
fn number_from<T: FromStr<Err = ParseIntError>>(digits: &str) -> Result<T, ParseIntError> {
    if digits.starts_with('+') { "".parse() } else { digits.parse() }
}

impl Stamp {
    /// This moment and then some; the end of time stays the end of time.
    #[must_use]
    pub fn after(self, span: Duration) -> Stamp {
        Stamp(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; nothing if it is not.
    #[must_use]
    pub fn since(self, earlier: Stamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl SnapId {
    /// The live object rather than a frozen state of it; sorts after every snapshot.
    pub const HEAD: SnapId = SnapId(u64::MAX);
}

impl OsdId {
    /// A position of an erasure-coded pg that no OSD holds. The same number as the placement's own hole.
    pub const NONE: OsdId = OsdId(0x7fff_ffff);

    /// Whether this is an OSD and not a hole.
    pub fn is_some(self) -> bool {
        self != OsdId::NONE
    }
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

impl FromStr for PgId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let wrong = || ParseIdError::new(text, "pg", "pool and hash, the hash in hex, as in `2.1f`");
        let (pool, seed) = text.split_once('.').ok_or_else(wrong)?;
        if seed.starts_with('+') {
            return Err(wrong());
        }
        let seed = u32::from_str_radix(seed, 16).map_err(|_| wrong())?;
        Ok(PgId { pool: pool.parse().map_err(|_| wrong())?, seed })
    }
}

/// A number that no other thing has: of a cluster, of an OSD's disk. Written as 8-4-4-4-12 hex digits.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub [u8; 16]);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Uuid {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let wrong = || ParseIdError::new(text, "uuid", "32 hex digits in groups of 8-4-4-4-12");
        let shaped = text.len() == 36
            && text.bytes().enumerate().all(|(at, byte)| match at {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => byte.is_ascii_hexdigit(),
            });
        if !shaped {
            return Err(wrong());
        }
        let digits: String = text.chars().filter(|digit| *digit != '-').collect();
        u128::from_str_radix(&digits, 16).map(|number| Uuid(number.to_be_bytes())).map_err(|_| wrong())
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
        if self.pool != other.pool {
            return self.pool.cmp(&other.pool);
        }
        // Reversed hashes compare by their highest differing bit: the lowest of the hashes as they are.
        let differ = self.hash ^ other.hash;
        if differ != 0 {
            return (self.hash & (1 << differ.trailing_zeros())).cmp(&(other.hash & (1 << differ.trailing_zeros())));
        }
        (&self.namespace, &self.name, self.snap).cmp(&(&other.namespace, &other.name, other.snap))
    }
}

impl PartialOrd for ObjectId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_what_they_write() {
        assert_eq!("osd.7".parse(), Ok(OsdId(7)));
        assert_eq!("7".parse(), Ok(OsdId(7)));
        assert_eq!("2.1f".parse(), Ok(PgId { pool: PoolId(2), seed: 0x1f }));
        let uuid = Uuid(*b"0123456789abcdef");
        assert_eq!(uuid.to_string(), "30313233-3435-3637-3839-616263646566");
        assert_eq!(uuid.to_string().parse(), Ok(uuid));
    }

    #[test]
    fn what_is_no_id_is_refused_with_the_way_to_write_it() {
        for text in ["", "osd.", "osd.-1", "osd.+1", "osd.4294967296", "mon.1"] {
            let refused = text.parse::<OsdId>().unwrap_err();
            assert!(refused.to_string().contains("as in `osd.7`"), "{refused}");
        }
        for text in ["", "2", "2.", ".1", "2.g", "2.+1", "2.100000000"] {
            assert!(text.parse::<PgId>().is_err(), "{text}");
        }
        for text in ["", "30313233-3435-3637-3839-61626364656", "30313233343536373839616263646566----"] {
            assert!(text.parse::<Uuid>().is_err(), "{text}");
        }
    }

    #[test]
    fn objects_sort_by_reversed_hash_and_then_by_name() {
        let name = |b: u8| Bytes::copy_from_slice(&[b]);
        let mut all = Vec::new();
        for n in 0..200_u32 {
            let hash = n.wrapping_mul(0x9e37_79b9) >> (n % 31);
            let (namespace, name) = (name((n % 2) as u8), name((n % 5) as u8));
            all.push(ObjectId {
                pool: PoolId(u64::from(n % 3)),
                hash,
                namespace,
                name,
                snap: SnapId(u64::from(n % 2)),
            });
        }
        for a in &all {
            for b in &all {
                let by_parts = (a.pool, a.sort_hash(), &a.namespace, &a.name, a.snap).cmp(&(
                    b.pool,
                    b.sort_hash(),
                    &b.namespace,
                    &b.name,
                    b.snap,
                ));
                assert_eq!(a.cmp(b), by_parts, "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn moments_do_not_wrap() {
        assert_eq!(Stamp(u64::MAX).after(Duration::from_secs(1)), Stamp(u64::MAX));
        assert_eq!(Stamp(5).since(Stamp(9)), Duration::ZERO);
    }
}
