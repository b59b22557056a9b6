//! What is kept with each object besides its bytes: version, size, snapshots, watchers, digests.

use std::collections::BTreeMap;

use bytes::Bytes;
use nacre_proto::ids::{ObjectId, SessionId, SnapId, Version};

use crate::codec_struct;

/// The xattr that holds [`ObjectInfo`]. Users' xattrs carry the prefix [`USER`], so the two never meet.
pub const INFO_XATTR: &[u8] = b"_";
/// Prefix of users' xattrs in the store.
pub const USER: u8 = b'u';
/// Prefix of what server-side classes keep as xattrs: `c<class>.<name>`.
pub const CLASS: u8 = b'c';
/// Namespaces that begin with this are the core's own: unfinished copies.
pub const TEMP_PREFIX: &[u8] = b"\0temp";

/// An object's metadata, kept as one xattr.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectInfo {
    /// The log version of its last change.
    pub version: Version,
    /// The version of its last change that a reader could see: watches do not move it.
    pub changed: Version,
    /// Its size.
    pub size: u64,
    /// The head is removed and only keeps its clones' list.
    pub whiteout: bool,
    /// CRC-32 of all bytes, if the last change knew them all.
    pub digest: Option<u32>,
    /// Its clones (heads only).
    pub snaps: SnapSet,
    /// Who watches it (heads only): session and cookie, with the timeout in milliseconds.
    pub watchers: BTreeMap<(SessionId, u64), u64>,
    /// The snapshots this clone stands for (clones only), oldest first.
    pub clone_of: Vec<SnapId>,
}
codec_struct!(ObjectInfo { version, changed, size, whiteout, digest, snaps, watchers, clone_of });

/// The clones of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapSet {
    /// The newest snapshot a write of it has seen.
    pub seq: SnapId,
    /// Oldest first.
    pub clones: Vec<CloneInfo>,
}
codec_struct!(SnapSet { seq, clones });

/// One clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloneInfo {
    /// Its id: the newest snapshot it was made for.
    pub id: SnapId,
    /// The snapshots that read it, oldest first.
    pub snaps: Vec<SnapId>,
    /// Its size.
    pub size: u64,
    /// The ranges still shared with the next newer clone, or with the head.
    pub overlap: Vec<(u64, u64)>,
}
codec_struct!(CloneInfo { id, snaps, size, overlap });

impl SnapSet {
    /// Which state a snapshot reads: a clone's id, or [`SnapId::HEAD`]; none if the object did not exist then.
    pub fn resolve(&self, snap: SnapId) -> Option<SnapId> {
        if snap == SnapId::HEAD || snap > self.seq {
            return Some(SnapId::HEAD);
        }
        let clone = self.clones.iter().find(|c| c.id >= snap)?;
        clone.snaps.contains(&snap).then_some(clone.id)
    }

    /// A clone is no more: what the one before it shared with it, and it with the next, they share now.
    pub fn drop_clone(&mut self, at: usize) {
        if at >= self.clones.len() {
            return;
        }
        let gone = self.clones.remove(at);
        let Some(before) = at.checked_sub(1).and_then(|i| self.clones.get_mut(i)) else { return };
        let mut both = Vec::new();
        for &(a, alen) in &before.overlap {
            for &(b, blen) in &gone.overlap {
                let (from, to) = (a.max(b), (a + alen).min(b + blen));
                if from < to {
                    both.push((from, to - from));
                }
            }
        }
        before.overlap = both;
    }

    /// A range of the head changes: the newest clone no longer shares it.
    pub fn unshare(&mut self, from: u64, to: u64) {
        let Some(clone) = self.clones.last_mut() else { return };
        let mut out = Vec::with_capacity(clone.overlap.len() + 1);
        for &(at, len) in &clone.overlap {
            let end = at + len;
            if end <= from || at >= to {
                out.push((at, len));
                continue;
            }
            if at < from {
                out.push((at, from - at));
            }
            if end > to {
                out.push((to, end - to));
            }
        }
        clone.overlap = out;
    }
}

/// The head of the object `oid` is a state of.
pub fn head_of(oid: &ObjectId) -> ObjectId {
    ObjectId { snap: SnapId::HEAD, ..oid.clone() }
}

/// Where an unfinished copy of `oid` is gathered: same hash, so it is split along with it.
pub fn temp_of(oid: &ObjectId) -> ObjectId {
    let mut namespace = TEMP_PREFIX.to_vec();
    namespace.extend_from_slice(&oid.snap.0.to_be_bytes());
    namespace.extend_from_slice(&oid.namespace);
    ObjectId { namespace: Bytes::from(namespace), snap: SnapId::HEAD, ..oid.clone() }
}

/// The core's own and not to be listed, scrubbed or backfilled.
pub fn is_temp(oid: &ObjectId) -> bool {
    oid.namespace.starts_with(TEMP_PREFIX)
}

/// Store name of a user's xattr.
pub fn user_xattr(name: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(name.len() + 1);
    out.push(USER);
    out.extend_from_slice(name);
    Bytes::from(out)
}
