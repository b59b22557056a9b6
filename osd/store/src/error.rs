//! What can go wrong in a store, named for the operator. No recovery here.

use std::io;
use std::sync::Arc;

use nacre_proto::ids::{ObjectId, PgId};

/// Why a store refused or failed. Cheap to clone: one failed flush fails many transactions.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The collection is not there.
    #[error("no collection for pg {pg} in this store")]
    NoCollection { pg: PgId },
    /// The collection is there already.
    #[error("pg {pg} already has a collection in this store")]
    CollectionExists { pg: PgId },
    /// The object is not there.
    #[error("no object {} in pg {pg}", name(.oid))]
    NoObject { pg: PgId, oid: ObjectId },
    /// The object's pool or hash belongs to another collection.
    #[error("object {} does not belong to pg {pg}: its pool or hash falls elsewhere", name(.oid))]
    WrongCollection { pg: PgId, oid: ObjectId },
    /// A name, value, offset or transaction beyond what the store takes.
    #[error("{what} is {size} bytes, more than the {limit} the store takes")]
    TooLarge { what: &'static str, size: u64, limit: u64 },
    /// A split that asks for what the pg count does not give.
    #[error("pg {pg} cannot be split off by a count of {pg_num}")]
    BadSplit { pg: PgId, pg_num: u32 },
    /// No space. Nothing was changed.
    #[error("store full: {needed} bytes needed, {available} available; delete objects or add OSDs")]
    Full { needed: u64, available: u64 },
    /// Bytes on disk do not match their checksum.
    #[error(
        "object {} in pg {pg} is corrupt at byte {offset}: stored data fails its checksum; repair it from another copy",
        name(.oid)
    )]
    Corrupt { pg: PgId, oid: ObjectId, offset: u64 },
    /// Metadata that cannot be what was written.
    #[error("store metadata is corrupt: {what}; run `nacre store check`")]
    CorruptMetadata { what: String },
    /// The journal has a hole before its end.
    #[error(
        "journal group {group} is damaged but later groups are whole, so acknowledged writes would be lost; \
         `nacre store repair --cut-journal` opens the store without them"
    )]
    JournalDamaged { group: u64 },
    /// An earlier write or flush failed; what the disk holds is unknown until the store is opened again.
    #[error("store refuses work since a write failed: {cause}; check the disk, then restart the OSD")]
    Poisoned { cause: Arc<str> },
    /// The disk or file system failed.
    #[error("{what}: {source}")]
    Io { what: String, source: Arc<io::Error> },
    /// RocksDB failed.
    #[error("metadata database: {what}")]
    Kv { what: String },
    /// Someone else has it open.
    #[error("store {path} is in use by another process")]
    Locked { path: String },
    /// The disk belongs to someone else.
    #[error("store {path} belongs to {found}, not to {expected}")]
    WrongIdentity { path: String, found: String, expected: String },
    /// Not a store, or not one this program knows.
    #[error("{path} is no store this version can open: {why}")]
    Format { path: String, why: String },
}

impl StoreError {
    /// Wraps an I/O error with what was being done.
    pub fn io(what: impl Into<String>, source: io::Error) -> Self {
        StoreError::Io { what: what.into(), source: Arc::new(source) }
    }
}

/// An object's name as an operator would type it: printable bytes as they are, others as `\xNN`.
#[must_use]
pub fn name(oid: &ObjectId) -> String {
    let mut text = String::new();
    if !oid.namespace.is_empty() {
        text.push_str(&oid.namespace.escape_ascii().to_string());
        text.push('/');
    }
    text.push_str(&oid.name.escape_ascii().to_string());
    if oid.snap != nacre_proto::ids::SnapId::HEAD {
        text.push_str(&format!("@{}", oid.snap));
    }
    text
}
