//! Bytes of what travels: messages between replicas, requests of clients and their answers. One envelope for all:
//! a version byte, then the fields in order. The frame around them carries length and checksum, so neither is repeated
//! here.
//!
//! A message with a payload of [`crate::format::APART`] bytes or more is a frame's metadata, and its payloads are the frame's data: so the
//! one of a write or of a read is copied neither when it is written nor when it is read, and the receiver finds it at the
//! start of the data, aligned for a device. Every other message is the frame's data as a whole.
//!
//! A version byte that belongs to neither form is refused with both numbers named.

use bytes::Bytes;
use nacre_proto::ids::{Epoch, ObjectId, OsdId, PgId, Version};
use nacre_proto::txn::{Compression, TxnOp, WriteHint};

use crate::format::{Codec, FormatError, Pen, Reader};
use crate::io::Order;
use crate::log::ReqId;
use crate::msg::{Body, Chunk, PeerMsg, ScrubLine};
use crate::op::{ClientOp, Compare, Op, OpId, Reply, SnapContext};
use crate::{codec_enum, codec_struct};

/// Version 2: pieces of objects may name ranges to be taken from a clone, and a scrub that is due is told from an
/// operator's. Nothing of this reaches a disk, so version 1 is no longer read.
pub const VERSION: u8 = 2;
/// The same fields, with payloads apart.
pub const VERSION_APART: u8 = 3;
/// A message with payloads apart is at most so long without them: peers accept no more metadata.
const META_MAX: usize = 1 << 20;

codec_enum!(Compression { 0 => Lz4 {}, 1 => Zstd {} });
codec_struct!(WriteHint { compressible, cold });
codec_enum!(TxnOp {
    0 => Touch { oid: a }, 1 => Write { oid: a, offset: b, data: c, hint: d }, 2 => Zero { oid: a, offset: b, len: c },
    3 => Truncate { oid: a, size: b }, 4 => Remove { oid: a }, 5 => Clone { from: a, to: b },
    6 => CloneRange { from: a, to: b, from_offset: c, len: d, to_offset: e }, 7 => Rename { from: a, to: b },
    8 => SetXattr { oid: a, name: b, value: c }, 9 => RemoveXattr { oid: a, name: b },
    10 => OmapSet { oid: a, entries: b }, 11 => OmapRemove { oid: a, keys: b },
    12 => OmapRemoveRange { oid: a, from: b, to: c }, 13 => OmapClear { oid: a },
    14 => OmapSetHeader { oid: a, header: b }, 15 => LogAppend { version: a, entry: b }, 16 => LogTrim { to: a },
    17 => LogRewind { after: a }, 18 => SetMeta { key: a, value: b }, 19 => CreateCollection {},
    20 => SplitCollection { child: a, pg_num: b, meta: c, log: d }, 21 => RemoveCollection {},
});
codec_struct!(Chunk { at, next, xattrs, header, size, data, omap, shared });
codec_struct!(ScrubLine { oid, info, size, xattrs, data, omap, damaged });
codec_enum!(Body {
    0 => Query { history: a, past: b }, 1 => Info { info: a, past: b, lease: c, holder: d, asked: e },
    2 => QueryLog { since: a }, 3 => Log { part: a, dups: b, stats: c },
    4 => Activate { info: a, past: b, part: c, dups: d, reset: e }, 5 => Activated { info: a, missing: b },
    6 => Rep { 0: a }, 7 => RepAck { durable: a },
    8 => Lease { sent: a, last: b }, 9 => LeaseAck { sent: a }, 10 => Pull { oid: a, need: b, at: c, kin: d },
    11 => Pulled { oid: a, need: b, chunk: c }, 12 => Push { oid: a, version: b, chunk: c },
    13 => Pushed { oid: a, version: b, at: c }, 15 => Scan { from: a, to: b },
    16 => Scanned { from: a, list: b }, 17 => Progress { to: a, remove: b }, 18 => ProgressAck { to: a },
    19 => Reserve { kind: a, priority: b }, 20 => Reserved { kind: a }, 21 => Revoked { kind: a },
    22 => Release { kind: a }, 23 => Clean { history: a, trim_to: b }, 24 => Remove {},
    25 => ScrubRange { round: a, from: b, to: c, deep: d }, 26 => ScrubIs { round: a, lines: b }, 27 => Repair { items: a },
    28 => Repairing { missing: a }, 29 => Counts { stats: a, at: b },
    30 => CopyAsk { 0: a }, 31 => CopyIs { 0: a },
});
codec_struct!(PeerMsg { epoch, interval, body });

codec_enum!(Compare { 0 => Eq {}, 1 => Ne {}, 2 => Gt {}, 3 => Ge {}, 4 => Lt {}, 5 => Le {} });
codec_struct!(SnapContext { seq, snaps });
codec_enum!(Op {
    0 => Stat {}, 1 => Read { offset: a, len: b }, 2 => SparseRead { offset: a, len: b },
    3 => Checksum { offset: a, len: b, chunk: c }, 4 => GetXattr { name: a }, 5 => ListXattrs {},
    6 => OmapRange { after: a, prefix: b, max: c }, 7 => OmapKeys { keys: a }, 8 => OmapHeader {}, 9 => ListSnaps {},
    10 => ListWatchers {}, 11 => AssertVersion { version: a }, 12 => AssertExists {}, 13 => AssertAbsent {},
    14 => CompareXattr { name: a, how: b, value: c }, 15 => CompareOmap { key: a, how: b, value: c },
    16 => CompareExtent { offset: a, data: b }, 17 => Create { exclusive: a }, 18 => Write { offset: a, data: b },
    19 => WriteFull { data: a }, 20 => Append { data: a }, 21 => Zero { offset: a, len: b }, 22 => Truncate { size: a },
    23 => Remove {}, 24 => WriteSame { offset: a, len: b, data: c }, 25 => SetXattr { name: a, value: b },
    26 => RemoveXattr { name: a }, 27 => OmapSet { entries: a }, 28 => OmapRemove { keys: a },
    29 => OmapRemoveRange { from: a, to: b }, 30 => OmapClear {}, 31 => OmapSetHeader { header: a },
    32 => Rollback { snap: a }, 33 => Call { class: a, method: b, input: c },
    34 => Watch { cookie: a, timeout_ms: b }, 35 => Unwatch { cookie: a }, 36 => Notify { payload: a, timeout_ms: b },
    37 => NotifyAck { notify: a, cookie: b, payload: c }, 38 => Hint { size: a, cold: b },
    39 => GetPiece { at: a, bytes: b, keys: c }, 40 => CopyFrom { from: a, version: b },
});
codec_enum!(Reply { 0 => Done { outcome: a, version: b }, 1 => Again { epoch: a } });

/// A request of a client, on its way to the primary of a pg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The pg the client chose by its map.
    pub pg: PgId,
    /// The request's identity.
    pub reqid: ReqId,
    /// All of the session's requests below this were answered.
    pub acked_below: u64,
    /// The client's map.
    pub epoch: Epoch,
    /// The object.
    pub oid: ObjectId,
    /// For writes.
    pub snapc: SnapContext,
    /// The vector.
    pub ops: Vec<Op>,
}
codec_struct!(Ask { pg, reqid, acked_below, epoch, oid, snapc, ops });

impl Ask {
    /// As the core takes it; `id` is the shell's number for where the reply goes.
    pub fn into_op(self, id: OpId) -> (PgId, ClientOp) {
        let Ask { pg, reqid, acked_below, epoch, oid, snapc, ops } = self;
        (pg, ClientOp { id, reqid, acked_below, epoch, oid, snapc, ops })
    }
}

/// Which frame carries what.
pub mod method {
    /// A request of a client: [`super::Ask`] in the data, answered by a [`crate::op::Reply`] in the data.
    pub const ASK: u16 = 1;
    /// A message between replicas, as a notice: [`super::Said`] in the data. What was sent over a connection that stands
    /// has arrived or will; nobody answers for the transport.
    pub const SAY: u16 = 2;
    /// Are you there. Answered at once by the transport's side, so it says nothing about disks.
    pub const PING: u16 = 3;
    /// The objects of a pg: [`super::List`], answered by [`super::Listed`].
    pub const LIST: u16 = 4;
    /// A notice to a client that watches: [`super::Told`].
    pub const TOLD: u16 = 5;
    /// How pgs are here: [`super::Look`], answered by a list of [`super::PgLine`].
    pub const LOOK: u16 = 6;
    /// An operator's order to a pg: [`super::Tell`]; the answer only says that it was taken.
    pub const TELL: u16 = 7;
}

/// Which objects a pg holds: those after one, in the order of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// The pg.
    pub pg: PgId,
    /// The client's map.
    pub epoch: Epoch,
    /// Where to go on.
    pub after: Option<ObjectId>,
    /// At most so many.
    pub max: u32,
}
codec_struct!(List { pg, epoch, after, max });

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listed {
    /// These; `next` says where to go on, if there may be more.
    Objects {
        /// Heads that exist.
        list: Vec<ObjectId>,
        /// Ask again with this.
        next: Option<ObjectId>,
    },
    /// Ask the pg's primary by a map of at least this epoch, in a moment.
    Again {
        /// The epoch.
        epoch: Epoch,
    },
}
codec_enum!(Listed { 0 => Objects { list: a, next: b }, 1 => Again { epoch: a } });

/// A message between the replicas of one pg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Of which pg.
    pub pg: PgId,
    /// What.
    pub msg: PeerMsg,
}
codec_struct!(Said { pg, msg });

/// A message as a frame takes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parcel {
    /// The message, if payloads stand apart from it.
    pub meta: Bytes,
    /// The payloads, or the whole message.
    pub data: Bytes,
}

/// Puts a value into its envelope.
pub fn encode<T: Codec>(value: &T) -> Parcel {
    let mut pen = Pen::sparing();
    pen.push(VERSION_APART);
    value.put(&mut pen);
    let (mut run, mut beside) = pen.done();
    let data = match beside.len() {
        0 => {
            run[0] = VERSION;
            return Parcel { meta: Bytes::new(), data: Bytes::from(run) };
        }
        _ if run.len() > META_MAX => {
            let mut pen = Pen::new();
            pen.push(VERSION);
            value.put(&mut pen);
            return Parcel { meta: Bytes::new(), data: pen.into_bytes() };
        }
        1 => beside.pop().unwrap_or_default(),
        _ => Bytes::from(beside.concat()),
    };
    Parcel { meta: Bytes::from(run), data }
}

/// Takes it out again. Payloads share the frame's data.
pub fn decode<T: Codec>(meta: &Bytes, data: &Bytes) -> Result<T, FormatError> {
    let (mut reader, known) = match meta.is_empty() {
        true => (Reader::shared(data), VERSION),
        false => (Reader::beside(meta, data.clone()), VERSION_APART),
    };
    let found = u8::get(&mut reader)?;
    if found > known {
        return Err(FormatError::TooNew { known, found });
    }
    if found < known {
        return Err(FormatError::TooOld { known, found });
    }
    let value = T::get(&mut reader)?;
    reader.finish()?;
    Ok(value)
}

#[cfg(test)]
#[path = "wire_test.rs"]
mod tests;

/// What a watcher is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The object.
    pub oid: ObjectId,
    /// Its watch.
    pub cookie: u64,
    /// The notify, for the answer.
    pub notify: u64,
    /// What is said.
    pub payload: Bytes,
}
codec_struct!(Told { oid, cookie, notify, payload });

/// How pgs are at an OSD: all it holds, or one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Only this one.
    pub only: Option<PgId>,
}
codec_struct!(Look { only });

/// How one pg is at one OSD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PgLine {
    /// Which.
    pub pg: PgId,
    /// The state's name.
    pub state: String,
    /// Is it the primary, with nothing left to do for any copy.
    pub clean: bool,
    /// Is it being scrubbed.
    pub scrubbing: bool,
    /// One line of cause, if it is not clean.
    pub why: String,
    /// The epoch it has followed to, and the one its interval began in.
    pub epoch: Epoch,
    /// See there.
    pub interval: Epoch,
    /// The newest entry of its log, and the oldest one kept.
    pub last: Version,
    /// See there.
    pub tail: Version,
    /// Heads, clones, bytes.
    pub objects: u64,
    /// See there.
    pub clones: u64,
    /// See there.
    pub bytes: u64,
    /// Objects this copy lacks.
    pub missing: u64,
    /// Objects of which no copy of the needed version is known.
    pub unfound: Vec<ObjectId>,
    /// Objects whose copies differ, with what is wrong on whom.
    pub inconsistent: Vec<(ObjectId, Vec<(OsdId, String)>)>,
}
codec_struct!(PgLine {
    pg,
    state,
    clean,
    scrubbing,
    why,
    epoch,
    interval,
    last,
    tail,
    objects,
    clones,
    bytes,
    missing,
    unfound,
    inconsistent,
});

/// An operator's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tell {
    /// To which pg.
    pub pg: PgId,
    /// What.
    pub order: Order,
}
codec_struct!(Tell { pg, order });
codec_enum!(Order {
    0 => Scrub { deep: a }, 1 => Unfound { revert: a }, 2 => SessionGone { 0: a }, 3 => ScrubDue { deep: a },
});
