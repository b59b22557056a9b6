//! The byte form of values: varints, length-prefixed records, and the trait every stored type has.
//!
//! A record is its length and then its fields in a fixed order. Fields are only ever appended: an older reader skips
//! what is left over, a newer one takes defaults for what is missing. That costs one byte a record, where tagged fields
//! (protobuf) cost one byte a field.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use nacre_crush::model::Weight;
use nacre_proto::ids::{Epoch, Incarnation, MonId, OsdId, PgId, PoolId, SessionId, SnapId, Stamp, Uuid};

use super::DecodeError;

/// A type with a byte form.
pub trait Wire: Sized {
    /// Appends the byte form.
    fn put(&self, out: &mut Vec<u8>);
    /// Reads it back.
    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError>;
}

/// What is left to read.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether all is read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    /// The next byte.
    pub fn byte(&mut self) -> Result<u8, DecodeError> {
        let (head, rest) = self.rest.split_first().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    /// A number of 7 bits a byte, lowest first.
    pub fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Value { what: "number of more than 64 bits" })
    }

    /// How many values follow. Each takes at least one byte, so a count that the rest cannot hold is refused before
    /// anything is allocated for it.
    pub fn count(&mut self) -> Result<usize, DecodeError> {
        let count = usize::try_from(self.varint()?).map_err(|_| DecodeError::Truncated)?;
        if count > self.rest.len() { Err(DecodeError::Truncated) } else { Ok(count) }
    }

    /// A length-prefixed part.
    pub fn part(&mut self) -> Result<Reader<'a>, DecodeError> {
        let len = self.count()?;
        self.bytes(len).map(Reader::new)
    }

    /// A field of a record: its default if the record was written before the field was there.
    pub fn field<T: Wire + Default>(&mut self) -> Result<T, DecodeError> {
        if self.is_empty() { Ok(T::default()) } else { T::take(self) }
    }
}

/// Appends a number, 7 bits a byte, lowest first.
pub fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends what `body` writes, with its length in front. Nearly all records are shorter than 128 bytes, so one byte is
/// kept for the length and more are made room for when needed.
pub fn put_part(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.push(0);
    body(out);
    let len = out.len() - at - 1;
    if len < 0x80 {
        out[at] = len as u8;
    } else {
        let mut prefix = Vec::with_capacity(10);
        put_varint(len as u64, &mut prefix);
        out.splice(at..=at, prefix);
    }
}

macro_rules! unsigned {
    ($($int:ty),*) => {$(
        impl Wire for $int {
            fn put(&self, out: &mut Vec<u8>) {
                put_varint(u64::from(*self), out);
            }
            fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
                <$int>::try_from(from.varint()?).map_err(|_| DecodeError::Value { what: concat!("number beyond ", stringify!($int)) })
            }
        }
    )*};
}
unsigned!(u8, u16, u32, u64);

macro_rules! signed {
    ($($int:ty),*) => {$(
        impl Wire for $int {
            fn put(&self, out: &mut Vec<u8>) {
                let wide = i64::from(*self);
                put_varint(((wide << 1) ^ (wide >> 63)) as u64, out);
            }
            fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
                let zigzag = from.varint()?;
                let wide = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
                <$int>::try_from(wide).map_err(|_| DecodeError::Value { what: concat!("number beyond ", stringify!($int)) })
            }
        }
    )*};
}
signed!(i32, i64);

macro_rules! newtype {
    ($($name:ident),*) => {$(
        impl Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                self.0.put(out);
            }
            fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
                Wire::take(from).map($name)
            }
        }
    )*};
}
newtype!(Epoch, Incarnation, MonId, OsdId, PoolId, SessionId, SnapId, Stamp, Weight);

impl Wire for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match from.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Value { what: "truth value" }),
        }
    }
}

impl Wire for Uuid {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        from.bytes(16)?.try_into().map(Uuid).map_err(|_| DecodeError::Truncated)
    }
}

impl Wire for PgId {
    fn put(&self, out: &mut Vec<u8>) {
        self.pool.put(out);
        self.seed.put(out);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(PgId { pool: Wire::take(from)?, seed: Wire::take(from)? })
    }
}

impl Wire for String {
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(self.len() as u64, out);
        out.extend_from_slice(self.as_bytes());
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let len = from.count()?;
        let text =
            std::str::from_utf8(from.bytes(len)?).map_err(|_| DecodeError::Value { what: "text that is not UTF-8" })?;
        Ok(text.to_owned())
    }
}

impl Wire for SocketAddr {
    fn put(&self, out: &mut Vec<u8>) {
        match self.ip() {
            IpAddr::V4(ip) => {
                out.push(4);
                out.extend_from_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                out.push(6);
                out.extend_from_slice(&ip.octets());
            }
        }
        out.extend_from_slice(&self.port().to_le_bytes());
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let short = |_| DecodeError::Truncated;
        let ip = match from.byte()? {
            4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(from.bytes(4)?).map_err(short)?)),
            6 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(from.bytes(16)?).map_err(short)?)),
            _ => return Err(DecodeError::Value { what: "address family" }),
        };
        let port = <[u8; 2]>::try_from(from.bytes(2)?).map_err(short)?;
        Ok(SocketAddr::new(ip, u16::from_le_bytes(port)))
    }
}

impl<T: Wire> Wire for Arc<T> {
    fn put(&self, out: &mut Vec<u8>) {
        T::put(self, out);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        T::take(from).map(Arc::new)
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if bool::take(from)? { T::take(from).map(Some) } else { Ok(None) }
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok((A::take(from)?, B::take(from)?))
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(self.len() as u64, out);
        for value in self {
            value.put(out);
        }
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let count = from.count()?;
        // A value may be far larger in memory than its bytes: the vector grows as they are read.
        let mut values = Vec::with_capacity(count.min(64));
        for _ in 0..count {
            values.push(T::take(from)?);
        }
        Ok(values)
    }
}

impl<T: Wire + Ord> Wire for BTreeSet<T> {
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(self.len() as u64, out);
        for value in self {
            value.put(out);
        }
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut values = BTreeSet::new();
        for _ in 0..from.count()? {
            if !values.insert(T::take(from)?) {
                return Err(DecodeError::Value { what: "set that holds a value twice" });
            }
        }
        Ok(values)
    }
}

impl<K: Wire + Ord, V: Wire> Wire for BTreeMap<K, V> {
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(self.len() as u64, out);
        for (key, value) in self {
            key.put(out);
            value.put(out);
        }
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut entries = BTreeMap::new();
        for _ in 0..from.count()? {
            if entries.insert(K::take(from)?, V::take(from)?).is_some() {
                return Err(DecodeError::Value { what: "table that holds a key twice" });
            }
        }
        Ok(entries)
    }
}

/// Gives a struct its byte form: a record of the named fields in order. New fields go to the end.
macro_rules! record {
    ($name:ty { $($field:ident),* $(,)? }) => {
        impl $crate::codec::wire::Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                $crate::codec::wire::put_part(out, |out| {
                    $($crate::codec::wire::Wire::put(&self.$field, out);)*
                });
            }
            fn take(from: &mut $crate::codec::wire::Reader<'_>) -> Result<Self, $crate::codec::DecodeError> {
                let mut from = from.part()?;
                Ok(Self { $($field: from.field()?),* })
            }
        }
    };
}
pub(crate) use record;

/// Gives an enum without data its byte form and its names: one number and one word a variant, never reused.
macro_rules! choice {
    ($name:ident, $what:literal { $($number:literal $variant:ident $word:literal),* $(,)? }) => {
        impl $name {
            /// Every variant.
            pub const ALL: &'static [$name] = &[$($name::$variant),*];

            /// The word for it, the same in commands, listings and metrics.
            pub fn word(self) -> &'static str {
                match self { $($name::$variant => $word),* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }

        impl std::str::FromStr for $name {
            type Err = nacre_proto::ids::ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($word => Ok($name::$variant),)*
                    _ => Err(nacre_proto::ids::ParseIdError {
                        text: text.to_owned(),
                        what: $what,
                        expected: concat!("one of" $(, " `", $word, "`")*),
                    }),
                }
            }
        }

        impl $crate::codec::wire::Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                out.push(match self { $($name::$variant => $number),* });
            }
            fn take(from: &mut $crate::codec::wire::Reader<'_>) -> Result<Self, $crate::codec::DecodeError> {
                match from.byte()? {
                    $($number => Ok($name::$variant),)*
                    _ => Err($crate::codec::DecodeError::Value { what: $what }),
                }
            }
        }
    };
}
pub(crate) use choice;

/// Gives a flag word its byte form. Bits without a name in this version are kept.
macro_rules! flag_word {
    ($name:ty) => {
        impl $crate::codec::wire::Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                $crate::codec::wire::Wire::put(&self.bits(), out);
            }
            fn take(from: &mut $crate::codec::wire::Reader<'_>) -> Result<Self, $crate::codec::DecodeError> {
                $crate::codec::wire::Wire::take(from).map(<$name>::from_bits_retain)
            }
        }
    };
}
pub(crate) use flag_word;

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(value: &impl Wire) -> Vec<u8> {
        let mut out = Vec::new();
        value.put(&mut out);
        out
    }

    #[test]
    fn numbers_at_their_ends_come_back() {
        for value in [0, 1, 127, 128, u64::MAX - 1, u64::MAX] {
            assert_eq!(u64::take(&mut Reader::new(&bytes(&value))), Ok(value));
        }
        for value in [0, -1, 1, i64::MIN, i64::MAX] {
            assert_eq!(i64::take(&mut Reader::new(&bytes(&value))), Ok(value));
        }
    }

    #[test]
    fn a_number_that_does_not_fit_is_refused() {
        assert!(u8::take(&mut Reader::new(&bytes(&256u64))).is_err());
        assert!(u64::take(&mut Reader::new(&[0xff; 10])).is_err());
        assert!(u64::take(&mut Reader::new(&[0xff; 3])).is_err());
    }

    #[test]
    fn a_count_beyond_the_bytes_allocates_nothing() {
        let mut claim = Vec::new();
        put_varint(u64::MAX, &mut claim);
        assert_eq!(Vec::<u64>::take(&mut Reader::new(&claim)), Err(DecodeError::Truncated));
    }

    #[derive(Debug, Default, PartialEq)]
    struct Old {
        a: u32,
    }
    record!(Old { a });

    #[derive(Debug, Default, PartialEq)]
    struct New {
        a: u32,
        b: String,
    }
    record!(New { a, b });

    #[test]
    fn old_and_new_versions_of_a_record_read_each_other() {
        let new = bytes(&New { a: 7, b: "x".repeat(200) });
        assert_eq!(Old::take(&mut Reader::new(&new)), Ok(Old { a: 7 }));
        let old = bytes(&Old { a: 7 });
        assert_eq!(New::take(&mut Reader::new(&old)), Ok(New { a: 7, b: String::new() }));
    }
}
