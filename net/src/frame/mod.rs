//! Frames: how one message looks on a stream. No sockets, no clock: bytes in, frames out, and back.
//!
//! ```text
//! at  size  field        little-endian
//!  0     4  magic        "NCRF"
//!  4     1  version      1
//!  5     1  kind         hello, request, reply, notice, ping, pong, bye
//!  6     1  priority     0 high, 1 normal, 2 low
//!  7     1  zero
//!  8     2  method       what is asked; numbered by the service, 0 in frames that ask nothing
//! 10     2  code         replies: 0 or the number of a status code
//! 12     4  meta length
//! 16     4  data length
//! 20     8  id           pairs a reply with its request, on this connection
//! 28     4  room         requests: the most data the reply may carry
//! 32     4  meta crc     CRC-32 of the metadata, 0 if there is none
//! 36     4  data crc     CRC-32 of the data, 0 if there is none
//! 40     4  header crc   CRC-32 of the 40 bytes before
//! 44        metadata, then data
//! ```
//!
//! The header has a checksum of its own, so that a length is believed before its bytes are waited for. The data's
//! checksum is handed on with the data: a store can keep it, and a reply can carry one computed long ago.
//!
//! - [`header`]: the fixed part. - [`decode`]: a stream of bytes into frames. - [`encode`]: frames into batches of
//!   slices for vectored writes.

pub mod decode;
pub mod encode;
pub mod header;

use bytes::Bytes;

pub use decode::Decoder;
pub use encode::Encoder;
pub use header::{HEADER, Header, Kind, Priority};

/// Data of this size and more is put at an address that is a multiple of [`ALIGNMENT`], in a buffer of its own: it can
/// be written to a device directly. Smaller data shares a buffer with its neighbours; who keeps a little of it for long
/// keeps the whole buffer, and does better to copy.
pub const ALIGNED_FROM: usize = 32 * 1024;
/// What large data is aligned to.
pub const ALIGNMENT: usize = 4096;

/// The largest frames a peer may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Metadata.
    pub meta: u32,
    /// Data.
    pub data: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { meta: 1 << 20, data: 16 << 20 }
    }
}

/// Bytes that are no frame. The connection they came from is ended; no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Something else speaks there.
    #[error("the stream holds no frames (starts with {0:#010x}); is this a Nacre port, and the right one?")]
    Magic(u32),
    /// A version of frames we do not know.
    #[error("frames of version {0} are not known here; upgrade this side first")]
    Version(u8),
    /// The header was damaged.
    #[error("the checksum of a frame's header is wrong")]
    HeaderChecksum,
    /// A kind we do not know.
    #[error("a frame of kind {0} is not known here")]
    Kind(u8),
    /// A priority there is not, or a spare byte that is not zero.
    #[error("a field of a frame's header has the impossible value {0}")]
    Field(u8),
    /// Larger metadata than allowed.
    #[error("a frame's metadata of {size} bytes is over the limit of {limit}")]
    MetaTooLarge {
        /// Its size.
        size: u32,
        /// The limit.
        limit: u32,
    },
    /// More data than allowed.
    #[error("a frame's data of {size} bytes is over the limit of {limit}")]
    DataTooLarge {
        /// Its size.
        size: u32,
        /// The limit.
        limit: u32,
    },
    /// The metadata was damaged.
    #[error("the checksum of a frame's metadata is wrong")]
    MetaChecksum,
    /// The data was damaged.
    #[error("the checksum of a frame's data is wrong")]
    DataChecksum,
    /// The stream ended inside a frame.
    #[error("the stream ended within a frame")]
    Truncated,
}

impl FrameError {
    /// The word this is counted under.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            FrameError::Magic(_) => "frame_magic",
            FrameError::Version(_) => "frame_version",
            FrameError::HeaderChecksum => "frame_header_checksum",
            FrameError::Kind(_) => "frame_kind",
            FrameError::Field(_) => "frame_field",
            FrameError::MetaTooLarge { .. } => "frame_meta_too_large",
            FrameError::DataTooLarge { .. } => "frame_data_too_large",
            FrameError::MetaChecksum => "frame_meta_checksum",
            FrameError::DataChecksum => "frame_data_checksum",
            FrameError::Truncated => "frame_truncated",
        }
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The fixed part; its lengths and checksums are those of `meta` and `data`.
    pub header: Header,
    /// Metadata: a protobuf message, or the text of a failed call.
    pub meta: Bytes,
    /// Raw payload.
    pub data: Bytes,
}

/// The checksum of metadata or data as frames carry it.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u32 {
    if bytes.is_empty() { 0 } else { crc32fast::hash(bytes) }
}

#[cfg(test)]
#[path = "frame_test.rs"]
mod tests;
