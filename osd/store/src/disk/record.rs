//! What the journal says of a transaction: its effects in an order, with every choice already made (which blocks, which
//! numbers), so that replay decides nothing and reads no data block.
//!
//! A record is `length u32, seq u64, ops`. Blocks of data are whole: a write of part of a block carries the merged
//! block, so that replay does not depend on what the block holds, be it torn by the crash.

use bytes::Bytes;
use nacre_proto::ids::Version;

use super::alloc::Run;
use super::codec::{Malformed, Put, Take};
use super::leaf::Packing;

/// One effect. Keys are those of [`super::keys`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Sets the object's header, or removes it.
    Header {
        key: Bytes,
        header: Option<Bytes>,
    },
    /// Writes whole blocks from `block` on, later laid down: in place where the object alone holds the block, else to
    /// `runs`, in order.
    Put {
        key: Bytes,
        block: u64,
        runs: Vec<Run>,
        data: Bytes,
    },
    /// Maps blocks that were written before the record was.
    Place {
        key: Bytes,
        block: u64,
        pieces: Vec<Piece>,
    },
    /// Makes `low..high` a hole.
    Cut {
        key: Bytes,
        low: u64,
        high: u64,
    },
    /// Lets `to` share `len` blocks of `from`; holes become holes.
    Share {
        from: Bytes,
        block: u64,
        to: Bytes,
        to_block: u64,
        len: u64,
    },
    /// Gives header and blocks of `from` to `to`, which is absent.
    Move {
        from: Bytes,
        to: Bytes,
    },
    /// Sets or removes entries of an omap.
    Omap {
        id: u64,
        entries: Vec<(Bytes, Option<Bytes>)>,
    },
    /// Drops an omap.
    OmapDrop {
        id: u64,
    },
    /// Copies all entries of one omap to another, empty one.
    OmapCopy {
        from: u64,
        to: u64,
    },
    LogAppend {
        coll: u64,
        version: Version,
        entry: Bytes,
    },
    LogTrim {
        coll: u64,
        to: Version,
    },
    LogRewind {
        coll: u64,
        after: Version,
    },
    /// Drops a collection's log.
    LogDrop {
        coll: u64,
    },
    /// Sets a collection's record, or removes it.
    Coll {
        id: u64,
        coll: Option<Bytes>,
    },
    /// Numbers below this one are taken.
    NextId(u64),
}

/// A stretch of newly written blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Blocks of the object it maps.
    pub len: u16,
    pub phys: u64,
    /// How it is packed and how many bytes that takes.
    pub packed: Option<(Packing, u32)>,
    /// One for each stored block.
    pub crcs: Vec<u32>,
}

impl Effect {
    pub(crate) fn encode(&self, out: &mut impl Put) {
        match self {
            Effect::Header { key, header } => {
                out.u8(1);
                out.blob(key);
                option(out, header.as_deref());
            }
            Effect::Put { key, block, runs, data } => {
                out.u8(2);
                out.blob(key);
                out.var(*block);
                out.var(runs.len() as u64);
                for run in runs {
                    out.var(run.0);
                    out.var(run.1);
                }
                out.blob(data);
            }
            Effect::Place { key, block, pieces } => {
                out.u8(3);
                out.blob(key);
                out.var(*block);
                out.var(pieces.len() as u64);
                for piece in pieces {
                    out.var(piece.len.into());
                    out.var(piece.phys);
                    out.u8(piece.packed.map_or(0, |(packing, _)| packing as u8));
                    out.var(piece.packed.map_or(0, |(_, bytes)| bytes).into());
                    out.var(piece.crcs.len() as u64);
                    piece.crcs.iter().for_each(|crc| out.u32(*crc));
                }
            }
            Effect::Cut { key, low, high } => {
                out.u8(4);
                out.blob(key);
                out.var(*low);
                out.var(*high);
            }
            Effect::Share { from, block, to, to_block, len } => {
                out.u8(5);
                out.blob(from);
                out.var(*block);
                out.blob(to);
                out.var(*to_block);
                out.var(*len);
            }
            Effect::Move { from, to } => {
                out.u8(6);
                out.blob(from);
                out.blob(to);
            }
            Effect::Omap { id, entries } => {
                out.u8(7);
                out.var(*id);
                out.var(entries.len() as u64);
                for (key, value) in entries {
                    out.blob(key);
                    option(out, value.as_deref());
                }
            }
            Effect::OmapDrop { id } => {
                out.u8(8);
                out.var(*id);
            }
            Effect::OmapCopy { from, to } => {
                out.u8(9);
                out.var(*from);
                out.var(*to);
            }
            Effect::LogAppend { coll, version: at, entry } => {
                out.u8(10);
                out.var(*coll);
                version(out, *at);
                out.blob(entry);
            }
            Effect::LogTrim { coll, to } => {
                out.u8(11);
                out.var(*coll);
                version(out, *to);
            }
            Effect::LogRewind { coll, after } => {
                out.u8(12);
                out.var(*coll);
                version(out, *after);
            }
            Effect::LogDrop { coll } => {
                out.u8(13);
                out.var(*coll);
            }
            Effect::Coll { id, coll } => {
                out.u8(14);
                out.var(*id);
                option(out, coll.as_deref());
            }
            Effect::NextId(next) => {
                out.u8(15);
                out.var(*next);
            }
        }
    }

    pub(crate) fn decode(take: &mut Take) -> Result<Effect, Malformed> {
        Ok(match take.u8()? {
            1 => Effect::Header { key: take.blob()?, header: take_option(take)? },
            2 => {
                let (key, block) = (take.blob()?, take.var()?);
                let count = take.count(2)?;
                let runs = (0..count).map(|_| Ok((take.var()?, take.var()?))).collect::<Result<_, Malformed>>()?;
                let data = take.blob()?;
                if data.is_empty() || !data.len().is_multiple_of(4096) {
                    return Err(Malformed);
                }
                Effect::Put { key, block, runs, data }
            }
            3 => {
                let (key, block) = (take.blob()?, take.var()?);
                let count = take.count(5)?;
                let mut pieces = Vec::with_capacity(count);
                for _ in 0..count {
                    let (len, phys, packing) = (take.var16()?, take.var()?, take.u8()?);
                    let bytes = take.var32()?;
                    let packed = match packing {
                        0 => None,
                        1 => Some((Packing::Lz4, bytes)),
                        2 => Some((Packing::Zstd, bytes)),
                        _ => return Err(Malformed),
                    };
                    let stored = take.count(4)?;
                    let crcs = (0..stored).map(|_| take.u32()).collect::<Result<Vec<_>, _>>()?;
                    if len == 0 || stored == 0 || (packed.is_none() && stored != usize::from(len)) {
                        return Err(Malformed);
                    }
                    pieces.push(Piece { len, phys, packed, crcs });
                }
                Effect::Place { key, block, pieces }
            }
            4 => Effect::Cut { key: take.blob()?, low: take.var()?, high: take.var()? },
            5 => Effect::Share {
                from: take.blob()?,
                block: take.var()?,
                to: take.blob()?,
                to_block: take.var()?,
                len: take.var()?,
            },
            6 => Effect::Move { from: take.blob()?, to: take.blob()? },
            7 => {
                let id = take.var()?;
                let count = take.count(2)?;
                let entries =
                    (0..count).map(|_| Ok((take.blob()?, take_option(take)?))).collect::<Result<_, Malformed>>()?;
                Effect::Omap { id, entries }
            }
            8 => Effect::OmapDrop { id: take.var()? },
            9 => Effect::OmapCopy { from: take.var()?, to: take.var()? },
            10 => Effect::LogAppend { coll: take.var()?, version: take_version(take)?, entry: take.blob()? },
            11 => Effect::LogTrim { coll: take.var()?, to: take_version(take)? },
            12 => Effect::LogRewind { coll: take.var()?, after: take_version(take)? },
            13 => Effect::LogDrop { coll: take.var()? },
            14 => Effect::Coll { id: take.var()?, coll: take_option(take)? },
            15 => Effect::NextId(take.var()?),
            _ => return Err(Malformed),
        })
    }
}

use super::meta::take_version;

fn version(out: &mut impl Put, version: Version) {
    out.var(version.epoch.0);
    out.var(version.counter);
}

fn option(out: &mut impl Put, value: Option<&[u8]>) {
    match value {
        None => out.u8(0),
        Some(value) => {
            out.u8(1);
            out.blob(value);
        }
    }
}

fn take_option(take: &mut Take) -> Result<Option<Bytes>, Malformed> {
    match take.u8()? {
        0 => Ok(None),
        1 => Ok(Some(take.blob()?)),
        _ => Err(Malformed),
    }
}

/// Splits a group's payload into records: each transaction's number and effects.
pub(crate) fn decode_records(payload: Bytes) -> Result<Vec<(u64, Vec<Effect>)>, Malformed> {
    let mut take = Take::new(payload);
    let mut records = Vec::new();
    while take.left() > 0 {
        let len = take.u32()? as usize;
        let mut record = Take::new(take.take(len)?);
        let seq = record.u64()?;
        let mut effects = Vec::new();
        while record.left() > 0 {
            effects.push(Effect::decode(&mut record)?);
        }
        records.push((seq, effects));
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use nacre_proto::ids::Epoch;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_effect_survives() {
        let key = Bytes::from_static(b"Okey");
        let at = Version { epoch: Epoch(3), counter: 900 };
        let piece = Piece { len: 2, phys: 7000, packed: None, crcs: vec![1, u32::MAX] };
        let packed = Piece { len: 32, phys: 7002, packed: Some((Packing::Zstd, 5000)), crcs: vec![1, 2] };
        let effects = vec![
            Effect::Header { key: key.clone(), header: None },
            Effect::Header { key: key.clone(), header: Some(key.clone()) },
            Effect::Put { key: key.clone(), block: 9, runs: vec![(5, 1)], data: vec![7; 8192].into() },
            Effect::Place { key: key.clone(), block: 300, pieces: vec![piece, packed] },
            Effect::Cut { key: key.clone(), low: 1, high: u64::MAX },
            Effect::Share { from: key.clone(), block: 1, to: key.clone(), to_block: 2, len: 3 },
            Effect::Move { from: key.clone(), to: key.clone() },
            Effect::Omap { id: 4, entries: vec![(key.clone(), None), (key.clone(), Some(Bytes::new()))] },
            Effect::OmapDrop { id: 4 },
            Effect::OmapCopy { from: 4, to: 5 },
            Effect::LogAppend { coll: 1, version: at, entry: key.clone() },
            Effect::LogTrim { coll: 1, to: at },
            Effect::LogRewind { coll: 1, after: at },
            Effect::LogDrop { coll: 1 },
            Effect::Coll { id: 1, coll: Some(key) },
            Effect::NextId(77),
        ];
        let mut out = Vec::new();
        out.u64(42);
        effects.iter().for_each(|effect| effect.encode(&mut out));
        let mut payload = Vec::new();
        payload.u32(out.len() as u32);
        payload.extend(out);
        assert_eq!(decode_records(payload.into()), Ok(vec![(42, effects)]));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_are_refused(kind in 0..17u8, bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode_records(bytes.clone().into());
            let _ = Effect::decode(&mut Take::new([vec![kind], bytes].concat().into()));
        }
    }
}
