//! What a client may ask of one object: a vector of operations, executed all or not at all, and its results.

use bytes::Bytes;
use nacre_proto::ids::{Epoch, ObjectId, SessionId, SnapId, Version};

use crate::log::{Outcome, ReqId};
use crate::msg::{Chunk, CopyCursor};
use crate::{codec_enum, codec_struct};

/// How a guard compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// The stored value is greater.
    Gt,
    /// The stored value is greater or equal.
    Ge,
    /// The stored value is less.
    Lt,
    /// The stored value is less or equal.
    Le,
}

impl Compare {
    /// Does `stored` stand so to `given`.
    pub fn holds(self, stored: &[u8], given: &[u8]) -> bool {
        match self {
            Compare::Eq => stored == given,
            Compare::Ne => stored != given,
            Compare::Gt => stored > given,
            Compare::Ge => stored >= given,
            Compare::Lt => stored < given,
            Compare::Le => stored <= given,
        }
    }
}

/// One operation of a vector. A later one sees what an earlier one wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    // Reads.
    /// Size, version, time.
    Stat,
    /// Bytes; shorter at the end of the object.
    Read { offset: u64, len: u64 },
    /// Extents that hold data other than zeros, at the granularity of the store's answer.
    SparseRead { offset: u64, len: u64 },
    /// CRC-32 of each chunk of a range.
    Checksum { offset: u64, len: u64, chunk: u64 },
    /// One xattr.
    GetXattr { name: Bytes },
    /// All xattrs.
    ListXattrs,
    /// Entries after a key, under a prefix.
    OmapRange { after: Option<Bytes>, prefix: Bytes, max: u32 },
    /// Entries of given keys; the absent are left out.
    OmapKeys { keys: Vec<Bytes> },
    /// The header.
    OmapHeader,
    /// A bounded piece of all that the object is: bytes, then omap, with everything else in the first.
    GetPiece { at: CopyCursor, bytes: u64, keys: u32 },
    /// Clones and their snapshots.
    ListSnaps,
    /// Who watches.
    ListWatchers,
    // Guards: if one does not hold, the vector stops and nothing of it takes effect.
    /// The object has just this version.
    AssertVersion { version: Version },
    /// It exists.
    AssertExists,
    /// It does not.
    AssertAbsent,
    /// An xattr compares so; an absent one is empty.
    CompareXattr { name: Bytes, how: Compare, value: Bytes },
    /// An omap value compares so; an absent one is empty.
    CompareOmap { key: Bytes, how: Compare, value: Bytes },
    /// A range holds just these bytes (past the end: zeros).
    CompareExtent { offset: u64, data: Bytes },
    // Writes.
    /// Makes it exist; exclusive: and it must not have.
    Create { exclusive: bool },
    /// Writes bytes.
    Write { offset: u64, data: Bytes },
    /// Replaces all bytes.
    WriteFull { data: Bytes },
    /// Writes at the end.
    Append { data: Bytes },
    /// Zeros a range inside the object.
    Zero { offset: u64, len: u64 },
    /// Sets the size.
    Truncate { size: u64 },
    /// Removes it.
    Remove,
    /// Repeats a pattern over a range.
    WriteSame { offset: u64, len: u64, data: Bytes },
    /// Sets an xattr.
    SetXattr { name: Bytes, value: Bytes },
    /// Removes one.
    RemoveXattr { name: Bytes },
    /// Sets entries.
    OmapSet { entries: Vec<(Bytes, Bytes)> },
    /// Removes entries.
    OmapRemove { keys: Vec<Bytes> },
    /// Removes `[from, to)`.
    OmapRemoveRange { from: Bytes, to: Option<Bytes> },
    /// Removes all entries and the header.
    OmapClear,
    /// Sets the header.
    OmapSetHeader { header: Bytes },
    /// Makes the head what the snapshot saw.
    Rollback { snap: SnapId },
    /// Takes over the bytes, attributes and omap of another object, or of a snapshot of it, wherever it lies: as it is at
    /// some moment while this request is under way (and at just this version, if one is given). One of a vector at most.
    /// The vector takes its place in the order of its own object when the content has come.
    CopyFrom { from: ObjectId, version: Option<Version> },
    /// Calls a method of a server-side class.
    Call { class: String, method: String, input: Bytes },
    /// Watches it under a cookie; the watch ends if its owner is silent for so long.
    Watch { cookie: u64, timeout_ms: u64 },
    /// Ends a watch.
    Unwatch { cookie: u64 },
    /// Tells all watchers and waits for their answers. One of a vector at most, and of one that only reads: it may be
    /// repeated after a failover, and a watcher may hear it twice.
    Notify { payload: Bytes, timeout_ms: u64 },
    /// Answers a notify.
    NotifyAck { notify: u64, cookie: u64, payload: Bytes },
    /// Advice for the store on what the vector writes after it: cold bytes are not kept in its cache. It changes nothing
    /// that can be read; `size` is what the object will grow to, if that is known.
    Hint { size: u64, cold: bool },
}

impl Op {
    /// Does it need room. What takes data away does not, and so works when everything is full.
    pub fn grows(&self) -> bool {
        self.writes()
            && !matches!(
                self,
                Op::Remove
                    | Op::Truncate { .. }
                    | Op::Zero { .. }
                    | Op::RemoveXattr { .. }
                    | Op::OmapRemove { .. }
                    | Op::OmapRemoveRange { .. }
                    | Op::OmapClear
                    | Op::Watch { .. }
                    | Op::Unwatch { .. }
            )
    }

    /// Does it change the object.
    pub fn writes(&self) -> bool {
        if let Op::Call { class, method, .. } = self {
            return crate::class::writes(class, method);
        }
        matches!(
            self,
            Op::Create { .. }
                | Op::Write { .. }
                | Op::WriteFull { .. }
                | Op::Append { .. }
                | Op::Zero { .. }
                | Op::Truncate { .. }
                | Op::Remove
                | Op::WriteSame { .. }
                | Op::SetXattr { .. }
                | Op::RemoveXattr { .. }
                | Op::OmapSet { .. }
                | Op::OmapRemove { .. }
                | Op::OmapRemoveRange { .. }
                | Op::OmapClear
                | Op::OmapSetHeader { .. }
                | Op::Rollback { .. }
                | Op::CopyFrom { .. }
                | Op::Watch { .. }
                | Op::Unwatch { .. }
        )
    }
}

/// The answer to one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpResult {
    /// Done.
    Done,
    /// Bytes.
    Data(Bytes),
    /// Size and version.
    Stat { size: u64, version: Version },
    /// Extents of data.
    Extents(Vec<(u64, Bytes)>),
    /// Checksums.
    Sums(Vec<u32>),
    /// Pairs, and whether more follow.
    Pairs { pairs: Vec<(Bytes, Bytes)>, more: bool },
    /// Clones: id, snapshots, size; then whether the head exists.
    Snaps { clones: Vec<CloneLine>, head: bool },
    /// Watchers: session and cookie.
    Watchers(Vec<(SessionId, u64)>),
    /// A piece of an object.
    Piece(Box<Chunk>),
    /// A notify is over: its number, who answered with what, and who did not.
    Notified { notify: u64, acks: Vec<((SessionId, u64), Bytes)>, missed: Vec<(SessionId, u64)> },
}
codec_enum!(OpResult {
    0 => Done {}, 1 => Data { 0: a }, 2 => Stat { size: s, version: v }, 3 => Extents { 0: a }, 4 => Sums { 0: a },
    5 => Pairs { pairs: p, more: m }, 6 => Snaps { clones: c, head: h }, 7 => Watchers { 0: a },
    8 => Notified { notify: n, acks: a, missed: m }, 9 => Piece { 0: a },
});

/// One clone as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloneLine {
    /// Its id.
    pub id: SnapId,
    /// The snapshots it stands for.
    pub snaps: Vec<SnapId>,
    /// Its size.
    pub size: u64,
}
codec_struct!(CloneLine { id, snaps, size });

/// Why a vector was refused. `at` is the index of the operation that stopped it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// There is no such object (or snapshot of it).
    #[error("no such object")]
    NotFound { at: u32 },
    /// It exists already.
    #[error("the object exists already")]
    Exists { at: u32 },
    /// A guard did not hold.
    #[error("guard {at} does not hold")]
    Guard { at: u32 },
    /// No such xattr.
    #[error("no such attribute")]
    NoAttr { at: u32 },
    /// The operation makes no sense as given.
    #[error("operation {at} is not valid: sizes, offsets or arguments are out of bounds")]
    Invalid { at: u32 },
    /// The object would exceed the size limit.
    #[error("the object would grow past the size limit")]
    TooBig { at: u32 },
    /// No class or method of the name.
    #[error("no such class or method")]
    NoClass { at: u32 },
    /// A class refused, with its own code.
    #[error("the class refused with code {code}")]
    Class { at: u32, code: u32 },
    /// The stored copy cannot be read and no other was found.
    #[error("the object's stored copy cannot be read; a scrub of the pg will name the damage")]
    Damaged { at: u32 },
    /// There is no room for it.
    #[error(
        "no room: the pool or a device that holds the object is full; delete objects, add OSDs, or raise the quota"
    )]
    Full { at: u32 },
}
codec_enum!(OpError {
    0 => NotFound { at: a }, 1 => Exists { at: a }, 2 => Guard { at: a }, 3 => NoAttr { at: a }, 4 => Invalid { at: a },
    5 => TooBig { at: a }, 6 => NoClass { at: a }, 7 => Class { at: a, code: c }, 8 => Damaged { at: a },
    9 => Full { at: a },
});

impl OpError {
    /// The same, stopped at another operation.
    #[must_use]
    pub fn at(mut self, i: u32) -> OpError {
        match &mut self {
            OpError::NotFound { at }
            | OpError::Exists { at }
            | OpError::Guard { at }
            | OpError::NoAttr { at }
            | OpError::Invalid { at }
            | OpError::TooBig { at }
            | OpError::NoClass { at }
            | OpError::Class { at, .. }
            | OpError::Damaged { at }
            | OpError::Full { at } => *at = i,
        }
        self
    }
}

/// The snapshots a write must preserve the object for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapContext {
    /// The newest snapshot the writer knows.
    pub seq: SnapId,
    /// All that live, newest first.
    pub snaps: Vec<SnapId>,
}

impl SnapContext {
    /// Newest first, none above `seq`.
    pub fn is_valid(&self) -> bool {
        self.snaps.windows(2).all(|w| w[0] > w[1]) && self.snaps.first().is_none_or(|&s| s <= self.seq)
    }
}

/// A request as the shell hands it in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOp {
    /// The shell's own number for where the reply goes.
    pub id: OpId,
    /// The request's identity.
    pub reqid: ReqId,
    /// All of the session's requests below this were answered.
    pub acked_below: u64,
    /// The map epoch by which the client chose this pg and osd.
    pub epoch: Epoch,
    /// The object; its `snap` is [`SnapId::HEAD`] except for reads of a snapshot.
    pub oid: ObjectId,
    /// For writes.
    pub snapc: SnapContext,
    /// The vector.
    pub ops: Vec<Op>,
}

/// The shell's number of a request: where its reply goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpId(pub u64);

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Carried out or refused; final.
    Done { outcome: Outcome, version: Version },
    /// Send it again under the same identity, with a map of at least this epoch: this osd does not (or no longer)
    /// serve it in the interval it was sent in.
    Again { epoch: Epoch },
}
