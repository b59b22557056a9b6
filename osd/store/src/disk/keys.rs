//! Keys of the metadata database: one ordered space, the first byte names the table. No values here.
//!
//! `S` store-wide, `C` collections, `O` objects, `L` leaves (1 MiB of an object's mapping), `M` omap entries and
//! collections' own values, `G` log chunks, `A` allocator bitmaps, `R` extra references of shared blocks.

use bytes::Bytes;
use nacre_proto::ids::{ObjectId, PoolId, SnapId};

use super::codec::Malformed;

pub(crate) const TABLES: &[u8] = b"ACGLMORS";
pub(crate) const APPLIED: &[u8] = b"Sapplied";
pub(crate) const IDENTITY: &[u8] = b"Sidentity";

/// The key of an object's header: `O`, space, bit-reversed hash, namespace, name, snap. Byte order is store order.
///
/// Namespace and name end with `00 01`; a zero byte inside is written `00 ff`, so that no name is a prefix of another
/// and order is kept.
pub(crate) fn object(space: u64, oid: &ObjectId) -> Bytes {
    let mut key = Vec::with_capacity(25 + oid.namespace.len() + oid.name.len());
    key.push(b'O');
    key.extend_from_slice(&space.to_be_bytes());
    key.extend_from_slice(&oid.sort_hash().to_be_bytes());
    for part in [&oid.namespace, &oid.name] {
        if part.contains(&0) {
            for byte in part.iter() {
                key.push(*byte);
                if *byte == 0 {
                    key.push(0xff);
                }
            }
        } else {
            key.extend_from_slice(part);
        }
        key.extend_from_slice(&[0, 1]);
    }
    key.extend_from_slice(&oid.snap.0.to_be_bytes());
    key.into()
}

/// The lowest key of a space's objects from a bit-reversed hash on.
pub(crate) fn object_from(space: u64, sort_hash: u32) -> Bytes {
    let mut key = vec![b'O'];
    key.extend_from_slice(&space.to_be_bytes());
    key.extend_from_slice(&sort_hash.to_be_bytes());
    key.into()
}

/// Space and object of a header's key.
pub(crate) fn parse_object(key: &[u8], pool: PoolId) -> Result<(u64, ObjectId), Malformed> {
    let rest = key.strip_prefix(b"O").ok_or(Malformed)?;
    let (space, rest) = rest.split_first_chunk::<8>().ok_or(Malformed)?;
    let (hash, rest) = rest.split_first_chunk::<4>().ok_or(Malformed)?;
    let (rest, snap) = rest.split_last_chunk::<8>().ok_or(Malformed)?;
    let (namespace, rest) = unescape(rest)?;
    let (name, rest) = unescape(rest)?;
    if !rest.is_empty() {
        return Err(Malformed);
    }
    let hash = u32::from_be_bytes(*hash).reverse_bits();
    let snap = SnapId(u64::from_be_bytes(*snap));
    Ok((u64::from_be_bytes(*space), ObjectId { pool, hash, namespace, name, snap }))
}

fn unescape(bytes: &[u8]) -> Result<(Bytes, &[u8]), Malformed> {
    let mut out = Vec::new();
    let mut rest = bytes;
    loop {
        match rest {
            [0, 1, tail @ ..] => return Ok((out.into(), tail)),
            [0, 0xff, tail @ ..] => {
                out.push(0);
                rest = tail;
            }
            [0, ..] | [] => return Err(Malformed),
            [byte, tail @ ..] => {
                out.push(*byte);
                rest = tail;
            }
        }
    }
}

/// The key of a leaf: as its object's with `L` in front and the leaf's number behind.
pub(crate) fn leaf(object: &Bytes, index: u32) -> Bytes {
    let mut key = Vec::with_capacity(object.len() + 4);
    key.push(b'L');
    key.extend_from_slice(object.get(1..).unwrap_or_default());
    key.extend_from_slice(&index.to_be_bytes());
    key.into()
}

/// The object's key and the number in a leaf's key.
pub(crate) fn parse_leaf(key: &[u8]) -> Result<(Bytes, u32), Malformed> {
    let (object, index) = key.strip_prefix(b"L").ok_or(Malformed)?.split_last_chunk::<4>().ok_or(Malformed)?;
    Ok(([b"O", object].concat().into(), u32::from_be_bytes(*index)))
}

fn numbered(table: u8, number: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(24);
    key.push(table);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

pub(crate) fn collection(id: u64) -> Bytes {
    numbered(b'C', id).into()
}

pub(crate) fn refs(group: u64) -> Bytes {
    numbered(b'R', group).into()
}

pub(crate) fn bitmap(chunk: u64) -> Bytes {
    numbered(b'A', chunk).into()
}

pub(crate) fn log_chunk(collection: u64, seq: u64) -> Bytes {
    let mut key = numbered(b'G', collection);
    key.extend_from_slice(&seq.to_be_bytes());
    key.into()
}

pub(crate) fn omap(id: u64, key: &[u8]) -> Bytes {
    let mut full = numbered(b'M', id);
    full.extend_from_slice(key);
    full.into()
}

/// The keys of one number in a table: from here ...
pub(crate) fn first(table: u8, number: u64) -> Bytes {
    numbered(table, number).into()
}

/// ... to before here.
pub(crate) fn past(table: u8, number: u64) -> Bytes {
    match number.checked_add(1) {
        Some(next) => numbered(table, next).into(),
        None => vec![table.saturating_add(1)].into(),
    }
}

/// The number behind the table's byte.
pub(crate) fn number(key: &[u8]) -> Result<u64, Malformed> {
    key.get(1..).and_then(|rest| rest.first_chunk::<8>()).map(|bytes| u64::from_be_bytes(*bytes)).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    prop_compose! {
        fn oid()(hash in 0..4u32, namespace in "[\0\u{1}ab]{0,3}", name in "[\0\u{1}ab]{1,3}", snap in 0..3u64) -> ObjectId {
            let snap = if snap == 0 { SnapId::HEAD } else { SnapId(snap) };
            ObjectId { pool: PoolId(1), hash, namespace: namespace.into(), name: name.into(), snap }
        }
    }

    proptest! {
        #[test]
        fn keys_sort_as_objects_do_and_give_them_back(a in oid(), b in oid()) {
            let (key_a, key_b) = (object(7, &a), object(7, &b));
            prop_assert_eq!(key_a.cmp(&key_b), a.cmp(&b));
            prop_assert_eq!(parse_object(&key_a, PoolId(1)), Ok((7, a)));
            prop_assert_eq!(parse_leaf(&leaf(&key_b, 9)), Ok((key_b, 9)));
        }

        #[test]
        fn any_bytes_parse_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse_object(&bytes, PoolId(1));
            let _ = parse_leaf(&bytes);
        }
    }
}
