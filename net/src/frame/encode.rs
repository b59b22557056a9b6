//! Frames into batches of slices for vectored writes. Headers, metadata and small data are laid out one behind the
//! other; large data is referred to and never copied.
//!
//! Invariant: what was put in leaves in order and once, however little each write takes.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::{Header, checksum};

/// Data up to this size is copied next to its header: cheaper than a slice of its own.
pub const COPIED_UP_TO: usize = 8 * 1024;
/// How many slices one write takes at most.
pub const SLICES: usize = 64;

/// The batch that is being written.
#[derive(Debug, Default)]
pub struct Encoder {
    /// Laid out, not yet cut off as a slice.
    open: BytesMut,
    slices: VecDeque<Bytes>,
    pending: usize,
}

/// Fills in lengths and checksums. `data_crc` is the data's checksum if it is known already.
#[must_use]
pub fn seal(mut header: Header, meta: &[u8], data: &[u8], data_crc: Option<u32>) -> Header {
    header.meta_len = u32::try_from(meta.len()).unwrap_or(u32::MAX);
    header.data_len = u32::try_from(data.len()).unwrap_or(u32::MAX);
    header.meta_crc = checksum(meta);
    header.data_crc = if data.is_empty() { 0 } else { data_crc.unwrap_or_else(|| checksum(data)) };
    header
}

impl Encoder {
    /// Puts a sealed frame behind the batch.
    pub fn push(&mut self, header: &Header, meta: &[u8], data: Bytes) {
        let size = super::HEADER + meta.len() + data.len();
        let copied = data.len() <= COPIED_UP_TO;
        self.open.reserve(if copied { size } else { size - data.len() });
        self.open.put_slice(&header.encode());
        self.open.put_slice(meta);
        if copied {
            self.open.put_slice(&data);
        } else {
            self.cut();
            self.slices.push_back(data);
        }
        self.pending += size;
    }

    fn cut(&mut self) {
        if !self.open.is_empty() {
            self.slices.push_back(self.open.split().freeze());
        }
    }

    /// How many bytes wait to be written.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// The next bytes to write, as slices; gives how many of `out` are filled.
    pub fn slices<'a>(&'a mut self, out: &mut [IoSlice<'a>; SLICES]) -> usize {
        self.cut();
        let mut filled = 0;
        for (slot, slice) in out.iter_mut().zip(&self.slices) {
            *slot = IoSlice::new(slice);
            filled += 1;
        }
        filled
    }

    /// `written` bytes are gone.
    pub fn advance(&mut self, mut written: usize) {
        self.pending = self.pending.saturating_sub(written);
        while let Some(front) = self.slices.front_mut() {
            if written < front.len() {
                front.advance(written);
                return;
            }
            written -= front.len();
            self.slices.pop_front();
        }
    }

    /// Nothing was written for a while: gives the layout buffer back.
    pub fn relax(&mut self) {
        if self.pending == 0 {
            self.open = BytesMut::new();
            self.slices.shrink_to(8);
        }
    }
}
