//! What a placement group asks of its store: a transaction is an ordered list of verbs, applied all or not at all.
//!
//! Order holds per collection: of two transactions on one collection the one submitted first is durable first, and a
//! crash keeps a prefix. Reads see what was submitted, durable or not.

use bytes::Bytes;

use crate::ids::{ObjectId, PgId, Version};

/// One change. An object is sparse bytes, xattrs (few, small, read whole) and an ordered omap with a header.
/// A verb that writes creates the object if it is absent; one that removes something absent does nothing. A copy or a
/// rename of an absent object fails the transaction; so does a hash or pool that is not the collection's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnOp {
    /// Makes the object exist.
    Touch { oid: ObjectId },
    /// Writes bytes, growing the object as needed. `hint` is advice only.
    Write { oid: ObjectId, offset: u64, data: Bytes, hint: WriteHint },
    /// Makes a range read as zeros, freeing what it can; grows the object to the end of the range.
    Zero { oid: ObjectId, offset: u64, len: u64 },
    /// Cuts or grows (with zeros).
    Truncate { oid: ObjectId, size: u64 },
    /// Removes the object with all its parts.
    Remove { oid: ObjectId },
    /// Replaces `to` by a copy of `from`: bytes (blocks shared), xattrs, omap.
    Clone { from: ObjectId, to: ObjectId },
    /// Copies a byte range, sharing blocks where alignment allows. The range is cut at the end of `from`.
    CloneRange { from: ObjectId, to: ObjectId, from_offset: u64, len: u64, to_offset: u64 },
    /// Renames; `to` is replaced. Both hashes are of this collection.
    Rename { from: ObjectId, to: ObjectId },
    /// Sets one xattr.
    SetXattr { oid: ObjectId, name: Bytes, value: Bytes },
    /// Removes one xattr.
    RemoveXattr { oid: ObjectId, name: Bytes },
    /// Sets omap entries.
    OmapSet { oid: ObjectId, entries: Vec<(Bytes, Bytes)> },
    /// Removes omap entries.
    OmapRemove { oid: ObjectId, keys: Vec<Bytes> },
    /// Removes omap entries in `[from, to)`; an absent `to` means to the end.
    OmapRemoveRange { oid: ObjectId, from: Bytes, to: Option<Bytes> },
    /// Removes all omap entries and the header.
    OmapClear { oid: ObjectId },
    /// Sets the omap's header.
    OmapSetHeader { oid: ObjectId, header: Bytes },
    /// Appends to the collection's log. Versions rise; an equal version replaces (replay is idempotent).
    LogAppend { version: Version, entry: Bytes },
    /// Drops log entries up to and including a version.
    LogTrim { to: Version },
    /// Drops log entries after a version (divergent ones).
    LogRewind { after: Version },
    /// Sets one of the collection's own small values (its info, its intervals ...); an absent value removes it.
    SetMeta { key: Bytes, value: Option<Bytes> },
    /// Creates the collection.
    CreateCollection,
    /// Moves the objects whose hash falls, under `pg_num`, into `child` to that new collection: metadata only.
    /// `pg_num` is the new count; the collection's own seed keeps the rest. The child's own small values and its log are
    /// made with it, so that no crash leaves a collection that does not know what it is.
    SplitCollection { child: PgId, pg_num: u32, meta: Vec<(Bytes, Bytes)>, log: Vec<(Version, Bytes)> },
    /// Removes the collection with all that is in it.
    RemoveCollection,
}

/// What the writer knows about the data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteHint {
    /// Worth an attempt at compression.
    pub compressible: Option<Compression>,
    /// Will hardly be read soon: do not keep it in the cache.
    pub cold: bool,
}

/// How to compress; kept only where it saves at least an eighth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Fast.
    Lz4,
    /// Dense.
    Zstd,
}

/// Changes of one collection that become durable together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// The collection, one per pg.
    pub pg: PgId,
    /// In order.
    pub ops: Vec<TxnOp>,
}
