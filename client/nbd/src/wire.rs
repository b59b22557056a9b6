//! Numbers and layouts of the protocol. No I/O: bytes in, values out, and the other way round.

use bytes::{BufMut, Bytes, BytesMut};

use crate::volume::{Extent, Fault};

/// First word of a server.
pub const MAGIC: u64 = 0x4e42_444d_4147_4943;
/// Second word of a newstyle server, and first of each option.
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// First word of an answer to an option.
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Starts a request.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// Starts a request with extended header.
pub const EXTENDED_REQUEST_MAGIC: u32 = 0x21e4_1c71;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
const CHUNK_MAGIC: u32 = 0x668e_33ef;
const EXTENDED_CHUNK_MAGIC: u32 = 0x6e8a_278c;

/// The longest name, query or text of the protocol.
pub const STRING_MAX: usize = 4096;

/// Handshake flags.
pub mod handshake {
    pub const FIXED_NEWSTYLE: u16 = 1;
    pub const NO_ZEROES: u16 = 2;
}

/// Options of the negotiation.
pub mod option {
    pub const EXPORT_NAME: u32 = 1;
    pub const ABORT: u32 = 2;
    pub const LIST: u32 = 3;
    pub const STARTTLS: u32 = 5;
    pub const INFO: u32 = 6;
    pub const GO: u32 = 7;
    pub const STRUCTURED_REPLY: u32 = 8;
    pub const LIST_META_CONTEXT: u32 = 9;
    pub const SET_META_CONTEXT: u32 = 10;
    pub const EXTENDED_HEADERS: u32 = 11;
}

/// Answers to options.
pub mod answer {
    pub const ACK: u32 = 1;
    pub const SERVER: u32 = 2;
    pub const INFO: u32 = 3;
    pub const META_CONTEXT: u32 = 4;
    pub const UNSUPPORTED: u32 = (1 << 31) | 1;
    pub const POLICY: u32 = (1 << 31) | 2;
    pub const INVALID: u32 = (1 << 31) | 3;
    pub const TLS_REQUIRED: u32 = (1 << 31) | 5;
    pub const UNKNOWN: u32 = (1 << 31) | 6;
    pub const TOO_BIG: u32 = (1 << 31) | 9;
}

/// Kinds of information about an export.
pub mod info {
    pub const EXPORT: u16 = 0;
    pub const NAME: u16 = 1;
    pub const DESCRIPTION: u16 = 2;
    pub const BLOCK_SIZE: u16 = 3;
}

/// Transmission flags: what an export can do.
pub mod can {
    pub const HAS_FLAGS: u16 = 1;
    pub const READ_ONLY: u16 = 1 << 1;
    pub const FLUSH: u16 = 1 << 2;
    pub const FUA: u16 = 1 << 3;
    pub const TRIM: u16 = 1 << 5;
    pub const WRITE_ZEROES: u16 = 1 << 6;
    pub const DONT_FRAGMENT: u16 = 1 << 7;
    pub const MULTI_CONN: u16 = 1 << 8;
    pub const CACHE: u16 = 1 << 10;
    pub const FAST_ZERO: u16 = 1 << 11;
}

/// Commands.
pub mod command {
    pub const READ: u16 = 0;
    pub const WRITE: u16 = 1;
    pub const DISCONNECT: u16 = 2;
    pub const FLUSH: u16 = 3;
    pub const TRIM: u16 = 4;
    pub const CACHE: u16 = 5;
    pub const WRITE_ZEROES: u16 = 6;
    pub const BLOCK_STATUS: u16 = 7;
}

/// Flags of a command.
pub mod flag {
    pub const FUA: u16 = 1;
    pub const NO_HOLE: u16 = 1 << 1;
    pub const DONT_FRAGMENT: u16 = 1 << 2;
    pub const REQUEST_ONE: u16 = 1 << 3;
    pub const FAST_ZERO: u16 = 1 << 4;
    pub const PAYLOAD_LEN: u16 = 1 << 5;
}

/// Types of chunks of a structured reply.
mod chunk {
    pub(super) const NONE: u16 = 0;
    pub(super) const OFFSET_DATA: u16 = 1;
    pub(super) const BLOCK_STATUS: u16 = 5;
    pub(super) const BLOCK_STATUS_EXT: u16 = 6;
    pub(super) const ERROR: u16 = (1 << 15) | 1;
    pub(super) const DONE: u16 = 1;
}

/// The number of [`META_ALLOCATION`] on this server: there is one context only.
pub const ALLOCATION_ID: u32 = 1;
/// The context that tells holes from data.
pub const META_ALLOCATION: &str = "base:allocation";
const STATE_HOLE: u32 = 1;
const STATE_ZERO: u32 = 2;

/// The number of a fault on the wire.
pub fn errno(fault: Fault) -> u32 {
    match fault {
        Fault::NotPermitted => 1,
        Fault::Io => 5,
        Fault::NoMemory => 12,
        Fault::Invalid => 22,
        Fault::NoSpace => 28,
        Fault::NotSupported => 95,
        Fault::ShuttingDown => 108,
    }
}

/// How requests and replies are framed on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// A reply is one header, and data only for a read.
    Simple,
    /// A reply is chunks with types.
    Structured,
    /// The same with 64-bit lengths, also in requests.
    Extended,
}

impl Framing {
    /// Bytes of a request header.
    pub fn request_len(self) -> usize {
        match self {
            Framing::Simple | Framing::Structured => 28,
            Framing::Extended => 32,
        }
    }
}

/// A request header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// [`flag`]s.
    pub flags: u16,
    /// One of [`command`]; any number, as the client sent it.
    pub command: u16,
    /// Chosen by the client, comes back in the reply.
    pub cookie: u64,
    /// First byte.
    pub offset: u64,
    /// Bytes of the range, or of the payload.
    pub len: u64,
}

/// Reads fixed-size integers off the front of bytes whose length was checked.
fn be<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// Decodes a request header. `None`: this is no request, and nothing after it can be trusted.
pub fn decode_request(framing: Framing, bytes: &[u8]) -> Option<Request> {
    if bytes.len() != framing.request_len() {
        return None;
    }
    let magic = u32::from_be_bytes(be(bytes, 0)?);
    let len = match framing {
        Framing::Extended => (magic == EXTENDED_REQUEST_MAGIC).then_some(u64::from_be_bytes(be(bytes, 24)?))?,
        _ => (magic == REQUEST_MAGIC).then_some(u64::from(u32::from_be_bytes(be(bytes, 24)?)))?,
    };
    Some(Request {
        flags: u16::from_be_bytes(be(bytes, 4)?),
        command: u16::from_be_bytes(be(bytes, 6)?),
        cookie: u64::from_be_bytes(be(bytes, 8)?),
        offset: u64::from_be_bytes(be(bytes, 16)?),
        len,
    })
}

/// What a request came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done, nothing to tell.
    Done,
    /// The bytes of a read.
    Data(Bytes),
    /// The runs of a range.
    Extents(Vec<Extent>),
    /// Not done.
    Failed(Fault),
    /// Not done: it reaches past the end of the disk, which is here.
    Past(Fault, u64),
}

impl From<Fault> for Outcome {
    fn from(fault: Fault) -> Outcome {
        Outcome::Failed(fault)
    }
}

/// Encodes a reply: its head, and the data that follows it (not copied).
pub fn encode_reply(framing: Framing, request: &Request, outcome: Outcome) -> (Bytes, Option<Bytes>) {
    let mut head = BytesMut::with_capacity(64);
    match (framing, outcome) {
        (Framing::Simple, outcome) => {
            let (error, data) = match outcome {
                Outcome::Data(data) => (0, Some(data)),
                Outcome::Failed(fault) | Outcome::Past(fault, _) => (errno(fault), None),
                // Block status is refused before it gets here when replies are simple.
                Outcome::Done | Outcome::Extents(_) => (0, None),
            };
            head.put_u32(SIMPLE_REPLY_MAGIC);
            head.put_u32(error);
            head.put_u64(request.cookie);
            (head.freeze(), data)
        }
        (_, Outcome::Done) => {
            chunk_head(&mut head, framing, request, chunk::NONE, 0);
            (head.freeze(), None)
        }
        (_, Outcome::Data(data)) => {
            chunk_head(&mut head, framing, request, chunk::OFFSET_DATA, 8 + data.len() as u64);
            head.put_u64(request.offset);
            (head.freeze(), Some(data))
        }
        (_, Outcome::Failed(fault)) => {
            error_chunk(&mut head, framing, request, fault, &fault.to_string());
            (head.freeze(), None)
        }
        (_, Outcome::Past(fault, size)) => {
            error_chunk(&mut head, framing, request, fault, &format!("{fault}: the disk ends at {size}"));
            (head.freeze(), None)
        }
        (Framing::Extended, Outcome::Extents(extents)) => {
            chunk_head(&mut head, framing, request, chunk::BLOCK_STATUS_EXT, 8 + 16 * extents.len() as u64);
            head.put_u32(ALLOCATION_ID);
            head.put_u32(extents.len() as u32);
            for extent in extents {
                head.put_u64(extent.len);
                head.put_u64(u64::from(state(extent)));
            }
            (head.freeze(), None)
        }
        (Framing::Structured, Outcome::Extents(extents)) => {
            chunk_head(&mut head, framing, request, chunk::BLOCK_STATUS, 4 + 8 * extents.len() as u64);
            head.put_u32(ALLOCATION_ID);
            for extent in extents {
                // Runs lie within the range asked for, and that has a 32-bit length in this framing.
                head.put_u32(extent.len as u32);
                head.put_u32(state(extent));
            }
            (head.freeze(), None)
        }
    }
}

fn error_chunk(head: &mut BytesMut, framing: Framing, request: &Request, fault: Fault, text: &str) {
    chunk_head(head, framing, request, chunk::ERROR, 6 + text.len() as u64);
    head.put_u32(errno(fault));
    // Texts of this crate: short.
    head.put_u16(text.len() as u16);
    head.put_slice(text.as_bytes());
}

fn state(extent: Extent) -> u32 {
    if extent.hole { STATE_HOLE | STATE_ZERO } else { 0 }
}

/// Each reply is one chunk, so each chunk is the last of its reply.
fn chunk_head(head: &mut BytesMut, framing: Framing, request: &Request, kind: u16, len: u64) {
    let extended = framing == Framing::Extended;
    head.put_u32(if extended { EXTENDED_CHUNK_MAGIC } else { CHUNK_MAGIC });
    head.put_u16(chunk::DONE);
    head.put_u16(kind);
    head.put_u64(request.cookie);
    if extended {
        head.put_u64(request.offset);
        head.put_u64(len);
    } else {
        // Bounded by the largest request, which is far below 4 GiB.
        head.put_u32(len as u32);
    }
}

/// What `INFO` and `GO` carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The export.
    pub name: String,
    /// Kinds of [`info`] asked for.
    pub infos: Vec<u16>,
}

/// Decodes the data of `INFO` and `GO`.
pub fn decode_wanted(data: &[u8]) -> Option<Wanted> {
    let name_len = u32::from_be_bytes(be(data, 0)?) as usize;
    let name = text(data.get(4..4usize.checked_add(name_len)?)?)?;
    let rest = data.get(4 + name_len..)?;
    let count = u16::from_be_bytes(be(rest, 0)?) as usize;
    let list = rest.get(2..)?;
    if list.len() != count * 2 {
        return None;
    }
    let infos = list.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    Some(Wanted { name, infos })
}

/// Decodes the data of `LIST_META_CONTEXT` and `SET_META_CONTEXT`: the export and the queries.
pub fn decode_contexts(data: &[u8]) -> Option<(String, Vec<String>)> {
    let name_len = u32::from_be_bytes(be(data, 0)?) as usize;
    let name = text(data.get(4..4usize.checked_add(name_len)?)?)?;
    let mut rest = data.get(4 + name_len..)?;
    let count = u32::from_be_bytes(be(rest, 0)?);
    rest = rest.get(4..)?;
    let mut queries = Vec::new();
    for _ in 0..count {
        let len = u32::from_be_bytes(be(rest, 0)?) as usize;
        queries.push(text(rest.get(4..4usize.checked_add(len)?)?)?);
        rest = &rest[4 + len..];
    }
    rest.is_empty().then_some((name, queries))
}

/// A string of the protocol: UTF-8, bounded.
pub fn text(bytes: &[u8]) -> Option<String> {
    (bytes.len() <= STRING_MAX).then_some(())?;
    String::from_utf8(bytes.to_vec()).ok()
}
