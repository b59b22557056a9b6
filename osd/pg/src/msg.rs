//! What the replicas of a pg say to each other. Plain types; the shell gives them bytes and carries them.
//!
//! Contract with the shell: between two OSDs messages arrive in order and at most once over one connection; a new
//! connection ends the old one; whoever may have lost messages is told by `Input::PeerReset`. A message whose `epoch` is
//! newer than the receiver's map waits in the shell until the map has come.

use std::sync::Arc;

use bytes::Bytes;
use nacre_proto::ids::{Epoch, ObjectId, OsdId, PgId, SnapId, Version};
use nacre_proto::txn::TxnOp;

use crate::codec_enum;
use crate::codec_struct;
use crate::io::{Duration, SlotKind, Time};
use crate::log::{Dups, LogEntry, LogPart, Missing, ReqId};
use crate::op::OpError;
use crate::state::{History, Info, Stats};
use crate::view::PastIntervals;

/// One message, stamped with what the sender knew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerMsg {
    /// The sender's map.
    pub epoch: Epoch,
    /// The first epoch of the interval this belongs to: anything else is refused, in one place.
    pub interval: Epoch,
    /// What it says.
    pub body: Body,
}

/// How far a backfill or scan has come: everything up to and including it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cursor {
    /// Nothing.
    #[default]
    Min,
    /// Up to this object.
    At(ObjectId),
    /// Everything.
    Max,
}
codec_enum!(Cursor { 0 => Min {}, 1 => At { 0: o }, 2 => Max {} });

impl Cursor {
    /// Is this object at or before the cursor.
    pub fn covers(&self, oid: &ObjectId) -> bool {
        match self {
            Cursor::Min => false,
            Cursor::At(to) => oid <= to,
            Cursor::Max => true,
        }
    }

    /// Everything.
    pub fn is_max(&self) -> bool {
        *self == Cursor::Max
    }
}

/// Where the copy of one object stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyCursor {
    /// Bytes before this are done.
    pub offset: u64,
    /// Omap keys up to and including this are done.
    pub omap_after: Option<Bytes>,
}

/// A bounded piece of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Where it begins.
    pub at: CopyCursor,
    /// Where the next begins; none if this is the last.
    pub next: Option<CopyCursor>,
    /// All xattrs as stored (first piece only).
    pub xattrs: Vec<(Bytes, Bytes)>,
    /// The omap's header (first piece only).
    pub header: Bytes,
    /// The object's size.
    pub size: u64,
    /// Bytes from `at.offset` on, but for the ranges in `shared`.
    pub data: Bytes,
    /// Omap entries.
    pub omap: Vec<(Bytes, Bytes)>,
    /// What is not sent, since the receiver has it.
    pub shared: Option<Shared>,
}

/// Ranges that an object has in common with one of its clones: whoever receives the piece takes them from there, and the
/// two share their space as they do at the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// Which clone.
    pub with: SnapId,
    /// Offset and length, in order, apart.
    pub ranges: Vec<(u64, u64)>,
}
codec_struct!(Shared { with, ranges });

impl Chunk {
    /// Where its bytes end.
    pub fn end(&self) -> u64 {
        self.next.as_ref().map_or(self.size, |n| n.offset)
    }

    /// Its bytes and its shared ranges cover what it says they do.
    pub fn is_sound(&self) -> bool {
        let Some(shared) = &self.shared else { return true };
        let mut pos = self.at.offset;
        let mut own = 0_u64;
        for &(from, len) in &shared.ranges {
            let Some(to) = from.checked_add(len) else { return false };
            if from < pos || to > self.end() || len == 0 {
                return false;
            }
            own += from - pos;
            pos = to;
        }
        own += self.end().saturating_sub(pos);
        own == self.data.len() as u64
    }
}

/// One copy of one object, as a scrub sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScrubLine {
    /// The object.
    pub oid: ObjectId,
    /// Its metadata record, as stored.
    pub info: Option<Bytes>,
    /// Its size in the store.
    pub size: u64,
    /// CRC-32 of users' xattrs.
    pub xattrs: u32,
    /// CRC-32 of the bytes (deep only).
    pub data: Option<u32>,
    /// CRC-32 of omap and header (deep only).
    pub omap: Option<u32>,
    /// The store could not read it.
    pub damaged: bool,
}

/// A write as it goes to the members. One value for all of them and for the primary, which may have to say it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rep {
    /// The entry before it.
    pub prev: Version,
    /// The entries it adds.
    pub entries: Vec<Arc<LogEntry>>,
    /// What to do in the store.
    pub ops: Vec<TxnOp>,
    /// The log may be cut up to here.
    pub trim_to: Version,
}
codec_struct!(Rep { prev, entries, ops, trim_to });

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Primary to any: tell me your info. Carries the history, since it may create the pg there.
    Query { history: History, past: PastIntervals },
    /// The answer, or unasked from one who holds the pg without being asked to serve it.
    /// `lease`: for so long `holder` may still answer reads by my promise.
    Info { info: Box<Info>, past: PastIntervals, lease: Duration, holder: Option<OsdId>, asked: bool },
    /// Primary to the holder of the authoritative log; mine ends at `since`.
    QueryLog { since: Version },
    /// The answer.
    Log { part: LogPart, dups: Dups, stats: Stats },
    /// Primary to a member: this is the log, take it and make it durable. `reset`: drop yours, a backfill follows.
    Activate { info: Box<Info>, past: PastIntervals, part: LogPart, dups: Dups, reset: bool },
    /// It is durable; this is what I lack now.
    Activated { info: Box<Info>, missing: Missing },
    /// A write, in the primary's order, right after `prev`.
    Rep(Arc<Rep>),
    /// Everything up to here is durable here.
    RepAck { durable: Version },
    /// May I answer reads for so long after I sent this.
    Lease { sent: Time, last: Duration },
    /// You may: I have promised to tell a new primary.
    LeaseAck { sent: Time },
    /// Primary to a source: send me a piece of this version. With `kin`, the asker has all older clones of the object, and
    /// a source whose record of the head is of just that version may leave out what is shared with the last of them.
    Pull { oid: ObjectId, need: Version, at: CopyCursor, kin: Option<Version> },
    /// The piece; or none if I do not hold that version.
    Pulled { oid: ObjectId, need: Version, chunk: Option<Chunk> },
    /// Primary to a member who lacks it.
    Push { oid: ObjectId, version: Version, chunk: Chunk },
    /// Durable; the next piece may come.
    Pushed { oid: ObjectId, version: Version, at: CopyCursor },
    /// Backfill: what do you hold after `from`, up to `to`.
    Scan { from: Cursor, to: Cursor },
    /// This.
    Scanned { from: Cursor, list: Vec<(ObjectId, Version)> },
    /// You are equal up to here now; remove these first.
    Progress { to: Cursor, remove: Vec<ObjectId> },
    /// Durable.
    ProgressAck { to: Cursor },
    /// Please keep a slot for me.
    Reserve { kind: SlotKind, priority: u8 },
    /// It is yours.
    Reserved { kind: SlotKind },
    /// It was taken back: stop.
    Revoked { kind: SlotKind },
    /// I need it no more.
    Release { kind: SlotKind },
    /// The pg is clean: forget the past, and the log up to here.
    Clean { history: History, trim_to: Version },
    /// You are no longer needed: remove your copy.
    Remove,
    /// Scrub: list these objects as you hold them now.
    ScrubRange { round: u64, from: Cursor, to: Cursor, deep: bool },
    /// This; or nothing, if what is held cannot be listed.
    ScrubIs { round: u64, lines: Option<Vec<ScrubLine>> },
    /// A scrub found your copy bad: count it as missing, a good one follows.
    Repair { items: Vec<(ObjectId, Version)> },
    /// Counted.
    Repairing { missing: Missing },
    /// Primary to a member: exactly these counts as of the entry `at`.
    Counts { stats: Stats, at: Version },
    /// Primary to the primary of another pg (or of its own): a piece of an object, to be copied.
    CopyAsk(Box<CopyAsk>),
    /// The answer.
    CopyIs(Box<CopyIs>),
}

/// A piece of an object is asked for on behalf of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyAsk {
    /// Whom to answer: this pg, at the osd that asks.
    pub pg: PgId,
    /// The interval of that pg.
    pub interval: Epoch,
    /// On behalf of this request.
    pub reqid: ReqId,
    /// The object, or a snapshot of it.
    pub from: ObjectId,
    /// It must have this version.
    pub version: Option<Version>,
    /// From here on.
    pub at: CopyCursor,
}
codec_struct!(CopyAsk { pg, interval, reqid, from, version, at });

/// The piece, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyIs {
    /// As asked.
    pub interval: Epoch,
    /// As asked.
    pub reqid: ReqId,
    /// As asked.
    pub at: CopyCursor,
    /// The object's version.
    pub version: Version,
    /// The piece.
    pub piece: Option<Chunk>,
    /// Why there is none.
    pub refused: Option<OpError>,
}
codec_struct!(CopyIs { interval, reqid, at, version, piece, refused });

/// As many of the first pairs as fit into so many bytes, but one at least; whether more follow.
pub(crate) fn cut_pairs(pairs: &[(Bytes, Bytes)], more: bool, bytes: u64) -> (Vec<(Bytes, Bytes)>, bool) {
    let mut room = bytes;
    let fits = pairs.iter().take_while(|(k, v)| {
        let size = (k.len() + v.len()) as u64;
        let fits = size <= room;
        room = room.saturating_sub(size);
        fits
    });
    let n = fits.count().max(1).min(pairs.len());
    (pairs[..n].to_vec(), more || n < pairs.len())
}

impl Body {
    /// A word for traces and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Body::Query { .. } => "query",
            Body::Info { .. } => "info",
            Body::QueryLog { .. } => "query_log",
            Body::Log { .. } => "log",
            Body::Activate { .. } => "activate",
            Body::Activated { .. } => "activated",
            Body::Rep(_) => "rep",
            Body::RepAck { .. } => "rep_ack",
            Body::Lease { .. } => "lease",
            Body::LeaseAck { .. } => "lease_ack",
            Body::Pull { .. } => "pull",
            Body::Pulled { .. } => "pulled",
            Body::Push { .. } => "push",
            Body::Pushed { .. } => "pushed",
            Body::Scan { .. } => "scan",
            Body::Scanned { .. } => "scanned",
            Body::Progress { .. } => "progress",
            Body::ProgressAck { .. } => "progress_ack",
            Body::Reserve { .. } => "reserve",
            Body::Reserved { .. } => "reserved",
            Body::Revoked { .. } => "revoked",
            Body::Release { .. } => "release",
            Body::Clean { .. } => "clean",
            Body::Remove => "remove",
            Body::ScrubRange { .. } => "scrub_range",
            Body::ScrubIs { .. } => "scrub_is",
            Body::Repair { .. } => "repair",
            Body::Repairing { .. } => "repairing",
            Body::Counts { .. } => "counts",
            Body::CopyAsk(_) => "copy_ask",
            Body::CopyIs(_) => "copy_is",
        }
    }

    /// May this message bring a pg into being on an osd that does not hold it: with which history.
    pub fn creates(&self) -> Option<(&History, &PastIntervals)> {
        match self {
            Body::Query { history, past } => Some((history, past)),
            Body::Info { info, past, asked: false, .. } | Body::Activate { info, past, .. } => {
                Some((&info.history, past))
            }
            _ => None,
        }
    }
}
codec_struct!(CopyCursor { offset, omap_after });
