//! What a disk must be able to do to be served, and what it promises. Says nothing of where the bytes are.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

/// A future that a trait object can return.
pub type Reply<'a, T> = Pin<Box<dyn Future<Output = Result<T, Fault>> + Send + 'a>>;

/// Why a volume could not do what was asked. The wire has a short closed list, and so has this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The volume must not be changed, or not by this client.
    #[error("not permitted")]
    NotPermitted,
    /// The bytes could not be read or made durable.
    #[error("input or output failed")]
    Io,
    /// No memory for the request now.
    #[error("out of memory")]
    NoMemory,
    /// The request makes no sense for this volume.
    #[error("invalid request")]
    Invalid,
    /// No space for the write.
    #[error("no space left")]
    NoSpace,
    /// The volume cannot do this, or not fast.
    #[error("not supported")]
    NotSupported,
    /// The volume is going away.
    #[error("shutting down")]
    ShuttingDown,
}

/// A run of bytes of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its length in bytes, never 0.
    pub len: u64,
    /// Nothing is allocated for it; such a run reads as zeros.
    pub hole: bool,
}

/// A disk.
///
/// Ranges given to it lie within [`Volume::size`] and are not empty; the caller checks. Requests may run at the same
/// time; order between overlapping ones in flight is the client's business, as on any disk.
pub trait Volume: Send + Sync + 'static {
    /// Bytes; may change while clients are connected. Each who connects is told what it is then, and each request is judged
    /// by what it is when the request comes; a volume that shrinks meanwhile answers itself.
    fn size(&self) -> u64;

    /// Refuses to change.
    fn read_only(&self) -> bool {
        false
    }

    /// The unit that reads and writes are best made of.
    fn preferred_block(&self) -> u32 {
        4096
    }

    /// Exactly `len` bytes at `offset`.
    fn read(&self, offset: u64, len: u32) -> Reply<'_, Bytes>;

    /// Writes; with `fua`, the bytes survive a crash once this is done.
    fn write(&self, offset: u64, data: Bytes, fua: bool) -> Reply<'_, ()>;

    /// Makes the range read as zeros. `keep` asks to keep it allocated; `fast` asks to fail at once with
    /// [`Fault::NotSupported`] rather than write zeros out.
    fn zero(&self, offset: u64, len: u64, keep: bool, fast: bool, fua: bool) -> Reply<'_, ()>;

    /// The client does not need the range any more.
    fn trim(&self, offset: u64, len: u64, fua: bool) -> Reply<'_, ()>;

    /// Every write finished before this call survives a crash once this is done.
    fn flush(&self) -> Reply<'_, ()>;

    /// Runs that cover a front part of the range and do not reach beyond it: at least one, at most `most`.
    fn extents(&self, offset: u64, len: u64, most: usize) -> Reply<'_, Vec<Extent>>;

    /// The range will be read soon.
    fn prefetch(&self, _offset: u64, _len: u64) -> Reply<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}

/// One line of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// What a client asks for.
    pub name: String,
    /// For people; may be empty.
    pub description: String,
}

/// What can be asked for by name. The empty name is the default export.
pub trait Catalog: Send + Sync + 'static {
    /// What to show to a client that asks for a list.
    fn list(&self) -> Reply<'_, Vec<Listing>>;

    /// Opens a volume; `None` when there is none of that name. Connections of one name share what it refers to.
    fn open<'a>(&'a self, name: &'a str) -> Reply<'a, Option<Arc<dyn Volume>>>;
}
