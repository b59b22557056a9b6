//! What each operation of a vector does to the object. Its result or refusal; the caller says which operation it was.

use bytes::Bytes;
use nacre_proto::ids::{ObjectId, SnapId};
use nacre_proto::txn::TxnOp;

use super::{Effect, INVALID, Stop, Workspace};
use crate::class;
use crate::object::{ObjectInfo, USER, user_xattr};
use crate::op::{CloneLine, Op, OpError, OpResult};

/// Watches of one object: all are told by one primary.
const WATCHERS_MAX: usize = 1000;

impl Workspace<'_> {
    fn guard(holds: bool) -> Result<OpResult, Stop> {
        if holds { Ok(OpResult::Done) } else { Err(OpError::Guard { at: 0 }.into()) }
    }

    pub(super) fn one(&mut self, op: &Op) -> Result<OpResult, Stop> {
        if op.writes() && self.target.oid.snap != SnapId::HEAD {
            return Err(INVALID.into());
        }
        match op {
            Op::Stat => {
                self.must_exist()?;
                Ok(OpResult::Stat { size: self.info.size, version: self.info.changed })
            }
            Op::Read { offset, len } => {
                self.must_exist()?;
                Ok(OpResult::Data(self.read(*offset, *len)?))
            }
            Op::SparseRead { offset, len } => {
                self.must_exist()?;
                Ok(OpResult::Extents(sparse(*offset, &self.read(*offset, *len)?)))
            }
            Op::Checksum { offset, len, chunk } => {
                self.must_exist()?;
                let chunk = usize::try_from(*chunk).ok().filter(|c| *c > 0).ok_or(INVALID)?;
                let data = self.read(*offset, *len)?;
                Ok(OpResult::Sums(data.chunks(chunk).map(crc32fast::hash).collect()))
            }
            Op::GetXattr { name } => {
                self.must_exist()?;
                Ok(OpResult::Data(self.xattr(name)?.ok_or(OpError::NoAttr { at: 0 })?))
            }
            Op::ListXattrs => {
                self.must_exist()?;
                Ok(OpResult::Pairs { pairs: self.xattrs_under(&[USER])?, more: false })
            }
            Op::OmapRange { after, prefix, max } => {
                self.must_exist()?;
                let (pairs, more) = self.omap_range(after.as_ref(), prefix, *max)?;
                Ok(OpResult::Pairs { pairs, more })
            }
            Op::OmapKeys { keys } => {
                self.must_exist()?;
                let mut pairs = Vec::with_capacity(keys.len());
                for k in keys {
                    if let Some(v) = self.omap_get(k)? {
                        pairs.push((k.clone(), v));
                    }
                }
                Ok(OpResult::Pairs { pairs, more: false })
            }
            Op::OmapHeader => {
                self.must_exist()?;
                Ok(OpResult::Data(self.omap_header()?))
            }
            Op::ListSnaps => {
                let clones = self.info.snaps.clones.iter();
                let clones = clones.map(|c| CloneLine { id: c.id, snaps: c.snaps.clone(), size: c.size }).collect();
                Ok(OpResult::Snaps { clones, head: self.exists })
            }
            Op::ListWatchers => {
                self.must_exist()?;
                Ok(OpResult::Watchers(self.info.watchers.keys().copied().collect()))
            }
            Op::AssertVersion { version } => {
                self.must_exist()?;
                Self::guard(self.target.info.is_some_and(|i| i.changed == *version))
            }
            Op::AssertExists => {
                self.must_exist()?;
                Ok(OpResult::Done)
            }
            Op::AssertAbsent => {
                if self.exists {
                    return Err(OpError::Exists { at: 0 }.into());
                }
                Ok(OpResult::Done)
            }
            Op::CompareXattr { name, how, value } => {
                self.must_exist()?;
                Self::guard(how.holds(&self.xattr(name)?.unwrap_or_default(), value))
            }
            Op::CompareOmap { key, how, value } => {
                self.must_exist()?;
                Self::guard(how.holds(&self.omap_get(key)?.unwrap_or_default(), value))
            }
            Op::CompareExtent { offset, data } => {
                let stored = self.read(*offset, data.len() as u64)?;
                let (head, rest) = data.split_at(stored.len());
                Self::guard(stored == head && rest.iter().all(|b| *b == 0))
            }
            Op::Create { exclusive } => {
                if *exclusive && self.exists {
                    return Err(OpError::Exists { at: 0 }.into());
                }
                self.touch();
                Ok(OpResult::Done)
            }
            Op::Write { offset, data } => self.write(*offset, data.clone()).map(|()| OpResult::Done),
            Op::WriteFull { data } => self.write_full(data.clone()).map(|()| OpResult::Done),
            Op::Append { data } => self.write(self.info.size, data.clone()).map(|()| OpResult::Done),
            Op::Zero { offset, len } => {
                self.must_exist()?;
                self.zero(*offset, *len);
                Ok(OpResult::Done)
            }
            Op::Truncate { size } => {
                self.must_exist()?;
                self.truncate(*size)?;
                Ok(OpResult::Done)
            }
            Op::Remove => {
                self.must_exist()?;
                self.remove();
                Ok(OpResult::Done)
            }
            Op::WriteSame { offset, len, data } => {
                if data.is_empty() || len % data.len() as u64 != 0 || *len > self.target.max_object {
                    return Err(INVALID.into());
                }
                let times = usize::try_from(len / data.len() as u64).map_err(|_| INVALID)?;
                self.write(*offset, Bytes::from(data.repeat(times)))?;
                Ok(OpResult::Done)
            }
            Op::SetXattr { name, value } => {
                if name.is_empty() || name.len() > 255 || value.len() > 1 << 16 {
                    return Err(INVALID.into());
                }
                self.set_stored_xattr(user_xattr(name), Some(value.clone()));
                Ok(OpResult::Done)
            }
            Op::RemoveXattr { name } => {
                self.must_exist()?;
                self.set_stored_xattr(user_xattr(name), None);
                Ok(OpResult::Done)
            }
            Op::OmapSet { entries } => {
                self.omap_set(entries.clone());
                Ok(OpResult::Done)
            }
            Op::OmapRemove { keys } => {
                self.must_exist()?;
                self.omap_remove(keys.clone());
                Ok(OpResult::Done)
            }
            Op::OmapRemoveRange { from, to } => {
                self.must_exist()?;
                self.omap_remove_range(from.clone(), to.clone());
                Ok(OpResult::Done)
            }
            Op::OmapClear => {
                self.must_exist()?;
                self.modified = true;
                self.omap.clear();
                self.omap_gone = true;
                self.header = None;
                self.ops.push(TxnOp::OmapClear { oid: self.oid() });
                Ok(OpResult::Done)
            }
            Op::OmapSetHeader { header } => {
                self.set_header(header.clone());
                Ok(OpResult::Done)
            }
            Op::GetPiece { at, bytes, keys } => {
                self.must_exist()?;
                Ok(OpResult::Piece(Box::new(self.piece(at, *bytes, *keys)?)))
            }
            Op::CopyFrom { .. } => self.copy_from().map(|()| OpResult::Done),
            Op::Rollback { snap } => self.rollback(*snap),
            Op::Call { class, method, input } => class::call(self, class, method, input).map(OpResult::Data),
            Op::Watch { cookie, timeout_ms } => {
                self.must_exist()?;
                let session = self.target.session;
                if self.info.watchers.insert((session, *cookie), *timeout_ms) != Some(*timeout_ms) {
                    self.watched = true;
                }
                if self.info.watchers.len() > WATCHERS_MAX {
                    return Err(INVALID.into());
                }
                self.effects.push(Effect::Watch { session, cookie: *cookie, timeout_ms: *timeout_ms });
                Ok(OpResult::Done)
            }
            Op::Unwatch { cookie } => {
                let session = self.target.session;
                if self.info.watchers.remove(&(session, *cookie)).is_some() {
                    self.watched = true;
                }
                self.effects.push(Effect::Unwatch { session, cookie: *cookie });
                Ok(OpResult::Done)
            }
            Op::Notify { payload, timeout_ms } => {
                self.must_exist()?;
                let again = self.effects.iter().any(|e| matches!(e, Effect::Notify { .. }));
                if again || self.target.oid.snap != SnapId::HEAD {
                    return Err(INVALID.into());
                }
                self.effects.push(Effect::Notify { payload: payload.clone(), timeout_ms: *timeout_ms });
                // Its own answer takes this place when the notify is over.
                Ok(OpResult::Done)
            }
            // Only by itself: see `pg/watch.rs`.
            Op::NotifyAck { .. } => Err(INVALID.into()),
            Op::Hint { cold, .. } => {
                self.hint.cold = *cold;
                Ok(OpResult::Done)
            }
        }
    }

    fn rollback(&mut self, snap: SnapId) -> Result<OpResult, Stop> {
        let state = self.info.snaps.resolve(snap);
        match state {
            Some(SnapId::HEAD) => {
                self.must_exist()?;
                Ok(OpResult::Done)
            }
            None => {
                // It did not exist then.
                if self.exists {
                    self.remove();
                }
                Ok(OpResult::Done)
            }
            Some(id) => {
                let size = self.info.snaps.clones.iter().find(|c| c.id == id).map_or(0, |c| c.size);
                let from = ObjectId { snap: id, ..self.oid() };
                let snaps = self.info.snaps.clone();
                let watchers = self.info.watchers.clone();
                let dirty = self.info.size.max(size);
                self.remove();
                self.dirty.push((0, dirty));
                self.exists = true;
                self.base_gone = false;
                self.omap_gone = false;
                self.rolled = true;
                self.base_len = size;
                self.info = ObjectInfo { snaps, watchers, size, ..ObjectInfo::default() };
                self.ops.clear();
                self.ops.push(TxnOp::Clone { from, to: self.oid() });
                Ok(OpResult::Done)
            }
        }
    }
}

/// Runs of bytes that are not zero, in pieces of 512.
fn sparse(offset: u64, data: &Bytes) -> Vec<(u64, Bytes)> {
    const PIECE: usize = 512;
    let mut out: Vec<(usize, usize)> = Vec::new();
    for start in (0..data.len()).step_by(PIECE) {
        let end = (start + PIECE).min(data.len());
        if data[start..end].iter().all(|b| *b == 0) {
            continue;
        }
        match out.last_mut() {
            Some((_, to)) if *to == start => *to = end,
            _ => out.push((start, end)),
        }
    }
    out.into_iter().map(|(a, b)| (offset + a as u64, data.slice(a..b))).collect()
}
