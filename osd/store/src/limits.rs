//! Bounds on what one verb may carry, checked before anything is applied. The same for every implementation.

use nacre_proto::ids::{ObjectId, PgId};
use nacre_proto::txn::{Transaction, TxnOp};

use crate::api::{BLOCK, MAX_OBJECT};
use crate::error::StoreError;

/// Namespace and name of an object together.
pub const MAX_NAME: u64 = 4096;
/// One xattr's value. Xattrs are read whole with the object.
pub const MAX_XATTR: u64 = 64 << 10;
/// A key of an omap, an xattr or a collection's own value.
pub const MAX_KEY: u64 = 4096;
/// A value in an omap, an omap header, a collection's own value, a log entry.
pub const MAX_VALUE: u64 = 4 << 20;
/// The bytes of one write.
pub const MAX_WRITE: u64 = 64 << 20;

fn within(what: &'static str, size: u64, limit: u64) -> Result<(), StoreError> {
    if size > limit { Err(StoreError::TooLarge { what, size, limit }) } else { Ok(()) }
}

fn end(offset: u64, len: u64) -> Result<(), StoreError> {
    within("the end of the range", offset.saturating_add(len), MAX_OBJECT)
}

/// Refuses a transaction that no state of the store could take.
pub fn check(txn: &Transaction) -> Result<(), StoreError> {
    let oid = |oid: &ObjectId| {
        if oid.pool != txn.pg.pool {
            return Err(StoreError::WrongCollection { pg: txn.pg, oid: oid.clone() });
        }
        within("the object's name", (oid.namespace.len() + oid.name.len()) as u64, MAX_NAME)
    };
    for op in &txn.ops {
        match op {
            TxnOp::Touch { oid: o } | TxnOp::Remove { oid: o } | TxnOp::OmapClear { oid: o } => oid(o)?,
            TxnOp::Write { oid: o, offset, data, .. } => {
                oid(o)?;
                within("the write", data.len() as u64, MAX_WRITE)?;
                end(*offset, data.len() as u64)?;
            }
            TxnOp::Zero { oid: o, offset, len } => {
                oid(o)?;
                end(*offset, *len)?;
            }
            TxnOp::Truncate { oid: o, size } => {
                oid(o)?;
                end(*size, 0)?;
            }
            TxnOp::Clone { from, to } | TxnOp::Rename { from, to } => {
                oid(from)?;
                oid(to)?;
            }
            TxnOp::CloneRange { from, to, from_offset, len, to_offset } => {
                oid(from)?;
                oid(to)?;
                end(*from_offset, *len)?;
                end(*to_offset, *len)?;
                if from_offset % BLOCK != to_offset % BLOCK {
                    within("a copy between offsets that differ within a block", *len, MAX_WRITE)?;
                }
            }
            TxnOp::SetXattr { oid: o, name, value } => {
                oid(o)?;
                within("the xattr's name", name.len() as u64, MAX_KEY)?;
                within("the xattr's value", value.len() as u64, MAX_XATTR)?;
            }
            TxnOp::RemoveXattr { oid: o, name } => {
                oid(o)?;
                within("the xattr's name", name.len() as u64, MAX_KEY)?;
            }
            TxnOp::OmapSet { oid: o, entries } => {
                oid(o)?;
                for (key, value) in entries {
                    within("the omap key", key.len() as u64, MAX_KEY)?;
                    within("the omap value", value.len() as u64, MAX_VALUE)?;
                }
            }
            TxnOp::OmapRemove { oid: o, keys } => {
                oid(o)?;
                keys.iter().try_for_each(|key| within("the omap key", key.len() as u64, MAX_KEY))?;
            }
            TxnOp::OmapRemoveRange { oid: o, from, to } => {
                oid(o)?;
                within("the omap key", from.len() as u64, MAX_KEY)?;
                within("the omap key", to.as_ref().map_or(0, |to| to.len() as u64), MAX_KEY)?;
            }
            TxnOp::OmapSetHeader { oid: o, header } => {
                oid(o)?;
                within("the omap header", header.len() as u64, MAX_XATTR)?;
            }
            TxnOp::LogAppend { entry, .. } => within("the log entry", entry.len() as u64, MAX_VALUE)?,
            TxnOp::SetMeta { key, value } => {
                within("the collection's key", key.len() as u64, MAX_KEY)?;
                within("the collection's value", value.as_ref().map_or(0, |v| v.len() as u64), MAX_VALUE)?;
            }
            TxnOp::SplitCollection { child, pg_num, meta, log } => {
                check_split(txn.pg, *child, *pg_num)?;
                for (key, value) in meta {
                    within("the collection's key", key.len() as u64, MAX_KEY)?;
                    within("the collection's value", value.len() as u64, MAX_VALUE)?;
                }
                log.iter().try_for_each(|(_, entry)| within("the log entry", entry.len() as u64, MAX_VALUE))?;
            }
            TxnOp::LogTrim { .. } | TxnOp::LogRewind { .. } | TxnOp::CreateCollection | TxnOp::RemoveCollection => {}
        }
    }
    Ok(())
}

fn check_split(parent: PgId, child: PgId, pg_num: u32) -> Result<(), StoreError> {
    if child.pool != parent.pool || child == parent || child.seed >= pg_num || parent.seed >= pg_num {
        return Err(StoreError::BadSplit { pg: child, pg_num });
    }
    Ok(())
}
