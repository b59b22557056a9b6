//! The fixed part of a frame. Lengths are judged here; whether the bytes behind it are whole is the decoder's business.

use super::{FrameError, Limits};

/// Its size.
pub const HEADER: usize = 44;
const MAGIC: [u8; 4] = *b"NCRF";
/// Version 1: the first.
const VERSION: u8 = 1;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// The first frame in each direction: who speaks, and what it accepts.
    Hello = 1,
    /// Asks for a reply.
    Request = 2,
    /// Answers a request.
    Reply = 3,
    /// Asks for nothing.
    Notice = 4,
    /// Are you there?
    Ping = 5,
    /// I am.
    Pong = 6,
    /// This side ends the connection, in good order.
    Bye = 7,
}

/// What goes first when both wait. Frames of one priority keep their order; frames of different ones do not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Priority {
    /// Heartbeats, peering, cluster control.
    High = 0,
    /// What a client waits for.
    #[default]
    Normal = 1,
    /// Recovery, scrub: nobody waits.
    Low = 2,
}

/// The fixed part of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is for.
    pub kind: Kind,
    /// What goes first.
    pub priority: Priority,
    /// What is asked.
    pub method: u16,
    /// How it ended: 0 or the number of a [`nacre_proto::status::Code`].
    pub code: u16,
    /// Length of the metadata.
    pub meta_len: u32,
    /// Length of the data.
    pub data_len: u32,
    /// Pairs a reply with its request.
    pub id: u64,
    /// The most data the reply may carry.
    pub room: u32,
    /// Checksum of the metadata.
    pub meta_crc: u32,
    /// Checksum of the data.
    pub data_crc: u32,
}

fn u16_at(bytes: &[u8; HEADER], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8; HEADER], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

impl Header {
    /// A header of a frame without metadata and data.
    #[must_use]
    pub fn bare(kind: Kind, id: u64) -> Header {
        Header {
            kind,
            priority: Priority::High,
            method: 0,
            code: 0,
            meta_len: 0,
            data_len: 0,
            id,
            room: 0,
            meta_crc: 0,
            data_crc: 0,
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER] {
        let mut out = [0u8; HEADER];
        out[0..4].copy_from_slice(&MAGIC);
        out[4] = VERSION;
        out[5] = self.kind as u8;
        out[6] = self.priority as u8;
        out[8..10].copy_from_slice(&self.method.to_le_bytes());
        out[10..12].copy_from_slice(&self.code.to_le_bytes());
        out[12..16].copy_from_slice(&self.meta_len.to_le_bytes());
        out[16..20].copy_from_slice(&self.data_len.to_le_bytes());
        out[20..28].copy_from_slice(&self.id.to_le_bytes());
        out[28..32].copy_from_slice(&self.room.to_le_bytes());
        out[32..36].copy_from_slice(&self.meta_crc.to_le_bytes());
        out[36..40].copy_from_slice(&self.data_crc.to_le_bytes());
        let crc = crc32fast::hash(&out[..40]);
        out[40..44].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a header, and judges its lengths.
    pub fn decode(bytes: &[u8; HEADER], limits: &Limits) -> Result<Header, FrameError> {
        if bytes[0..4] != MAGIC {
            return Err(FrameError::Magic(u32_at(bytes, 0).swap_bytes()));
        }
        // The version before the checksum: a later version may keep its checksum elsewhere.
        if bytes[4] != VERSION {
            return Err(FrameError::Version(bytes[4]));
        }
        if crc32fast::hash(&bytes[..40]) != u32_at(bytes, 40) {
            return Err(FrameError::HeaderChecksum);
        }
        let kind = match bytes[5] {
            1 => Kind::Hello,
            2 => Kind::Request,
            3 => Kind::Reply,
            4 => Kind::Notice,
            5 => Kind::Ping,
            6 => Kind::Pong,
            7 => Kind::Bye,
            other => return Err(FrameError::Kind(other)),
        };
        let priority = match bytes[6] {
            0 => Priority::High,
            1 => Priority::Normal,
            2 => Priority::Low,
            other => return Err(FrameError::Field(other)),
        };
        if bytes[7] != 0 {
            return Err(FrameError::Field(bytes[7]));
        }
        let header = Header {
            kind,
            priority,
            method: u16_at(bytes, 8),
            code: u16_at(bytes, 10),
            meta_len: u32_at(bytes, 12),
            data_len: u32_at(bytes, 16),
            id: u64::from(u32_at(bytes, 20)) | u64::from(u32_at(bytes, 24)) << 32,
            room: u32_at(bytes, 28),
            meta_crc: u32_at(bytes, 32),
            data_crc: u32_at(bytes, 36),
        };
        if header.meta_len > limits.meta {
            return Err(FrameError::MetaTooLarge { size: header.meta_len, limit: limits.meta });
        }
        if header.data_len > limits.data {
            return Err(FrameError::DataTooLarge { size: header.data_len, limit: limits.data });
        }
        Ok(header)
    }

    /// Length of what follows.
    #[must_use]
    pub fn body(&self) -> usize {
        self.meta_len as usize + self.data_len as usize
    }
}
