//! A stream of bytes into frames, without a socket: ask [`Decoder::target`] where to read to, say what was read with
//! [`Decoder::filled`], take frames with [`Decoder::next`].
//!
//! Invariants: memory is bounded by one read buffer and one frame within the limits, and by [`KEPT`] for all decoders of a
//! thread together; nothing is allocated for a frame
//! before its header was checked and its admission granted; after an error no frame comes out any more.

use std::cell::RefCell;
use std::collections::VecDeque;

use bytes::buf::Limit;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::{ALIGNED_FROM, ALIGNMENT, Frame, FrameError, HEADER, Header, Limits, checksum};

/// Read buffers start this small, because most connections are idle most of the time,
const SMALLEST: usize = 4 * 1024;
/// and grow to this while reads fill them.
const LARGEST: usize = 256 * 1024;

#[derive(Debug)]
pub(super) enum State {
    /// Between frames, or within a header.
    Header,
    /// A header is there and waits for admission.
    Asking(Header),
    /// A small frame: metadata and data arrive in the read buffer.
    Small(Header),
    /// A large frame: its metadata arrives in the read buffer.
    LargeMeta(Header),
    /// Its data arrives in place.
    Large { header: Header, meta: Bytes, body: BytesMut, crc: crc32fast::Hasher, summed: usize },
    /// The stream is of no use any more.
    Broken(FrameError),
}

/// The decoder of one stream.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    buffer: BytesMut,
    chunk: usize,
    pub(super) state: State,
    frames: u64,
}

/// So many bytes of large data that has come are remembered by a thread, to be used again once nobody has them any more:
/// memory that is fresh to the process costs as much as the copy into it.
const KEPT: usize = 16 << 20;

thread_local! {
    static LARGE: RefCell<VecDeque<Bytes>> = const { RefCell::new(VecDeque::new()) };
}

/// Remembers a buffer; the oldest are forgotten.
fn keep(data: &Bytes) {
    LARGE.with_borrow_mut(|kept| {
        kept.push_back(data.clone());
        while kept.iter().map(Bytes::len).sum::<usize>() > KEPT {
            kept.pop_front();
        }
    });
}

/// One of them that is free and has room for so much, but not for many times as much. Else a new one.
fn large(len: usize) -> BytesMut {
    let again = LARGE.with_borrow_mut(|kept| {
        let fits = |data: &Bytes| data.len() >= len && data.len() / 4 <= len && data.is_unique();
        kept.remove(kept.iter().position(fits)?)?.try_into_mut().ok()
    });
    match again {
        Some(mut buffer) => {
            buffer.clear();
            buffer
        }
        None => aligned(len),
    }
}

/// An empty buffer whose next byte lies at a multiple of [`ALIGNMENT`], with room for `len` bytes.
#[must_use]
pub fn aligned(len: usize) -> BytesMut {
    let mut buffer = BytesMut::with_capacity(len + ALIGNMENT - 1);
    let skip = buffer.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT - 1);
    buffer.resize(skip, 0);
    buffer.advance(skip);
    buffer
}

impl Decoder {
    /// A decoder at the start of a stream.
    #[must_use]
    pub fn new(limits: Limits) -> Decoder {
        Decoder { limits, buffer: BytesMut::new(), chunk: SMALLEST, state: State::Header, frames: 0 }
    }

    /// Other limits from the next frame on: after the hello, for which they are tighter.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Where the next bytes go. Never empty.
    pub fn target(&mut self) -> Limit<&mut BytesMut> {
        let missing = match &mut self.state {
            State::Large { header, body, .. } if body.len() < header.data_len as usize => {
                let missing = header.data_len as usize - body.len();
                return body.limit(missing);
            }
            State::Small(header) => header.body().saturating_sub(self.buffer.len()),
            State::LargeMeta(header) => (header.meta_len as usize).saturating_sub(self.buffer.len()),
            _ => HEADER.saturating_sub(self.buffer.len()),
        };
        // `reserve` moves what is left of a frame to a fresh or a freed buffer: ask for it seldom, and for much.
        let spare = self.buffer.capacity() - self.buffer.len();
        if spare < missing.max(self.chunk / 8) {
            self.buffer.reserve(missing.max(self.chunk));
        }
        let spare = self.buffer.capacity() - self.buffer.len();
        (&mut self.buffer).limit(spare)
    }

    /// `read` bytes were put into the target, of `offered` it had room for.
    pub fn filled(&mut self, read: usize, offered: usize) {
        if let State::Large { body, crc, summed, .. } = &mut self.state {
            // While the bytes are still in the cache.
            crc.update(&body[*summed..]);
            *summed = body.len();
        } else if read == offered && self.chunk < LARGEST {
            self.chunk = (self.chunk * 4).min(LARGEST);
        }
    }

    /// Puts bytes in, for tests and for transports that have them already.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if matches!(self.state, State::Large { .. }) {
                let mut target = self.target();
                let take = target.remaining_mut().min(bytes.len());
                target.put_slice(&bytes[..take]);
                self.filled(take, take + 1);
                bytes = &bytes[take..];
                if matches!(&self.state, State::Large { header, body, .. } if body.len() == header.data_len as usize) {
                    // The frame is whole; the rest waits behind it.
                    self.buffer.extend_from_slice(bytes);
                    return;
                }
            } else {
                self.buffer.extend_from_slice(bytes);
                return;
            }
        }
    }

    /// Whether the stream is within a frame, so that its end would cut one.
    #[must_use]
    pub fn within_frame(&self) -> bool {
        !matches!(self.state, State::Header) || !self.buffer.is_empty()
    }

    /// How many frames came out so far.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Nothing came for a while: gives the read buffer back if it holds nothing.
    pub fn relax(&mut self) {
        if self.buffer.is_empty() && matches!(self.state, State::Header) {
            self.buffer = BytesMut::new();
            self.chunk = SMALLEST;
            LARGE.with_borrow_mut(|kept| *kept = VecDeque::new());
        }
    }

    /// The next whole frame. `admit` is asked once a header is there and before room is made for what follows; if it
    /// refuses, nothing comes out, and it is asked again next time.
    pub fn next(&mut self, admit: &mut dyn FnMut(&Header) -> bool) -> Result<Option<Frame>, FrameError> {
        loop {
            match &mut self.state {
                State::Broken(e) => return Err(*e),
                State::Header => {
                    let Some(bytes) = self.buffer.first_chunk::<HEADER>() else { return Ok(None) };
                    match Header::decode(bytes, &self.limits) {
                        Ok(header) => {
                            self.buffer.advance(HEADER);
                            self.state = State::Asking(header);
                        }
                        Err(e) => return self.broken(e),
                    }
                }
                State::Asking(header) => {
                    let header = *header;
                    if !admit(&header) {
                        return Ok(None);
                    }
                    let large = header.data_len as usize >= ALIGNED_FROM;
                    self.state = if large { State::LargeMeta(header) } else { State::Small(header) };
                }
                State::Small(header) => {
                    let header = *header;
                    if self.buffer.len() < header.body() {
                        return Ok(None);
                    }
                    let meta = self.take(header.meta_len as usize);
                    let data = self.take(header.data_len as usize);
                    if checksum(&data) != header.data_crc {
                        return self.broken(FrameError::DataChecksum);
                    }
                    return self.done(header, meta, data);
                }
                State::LargeMeta(header) => {
                    let header = *header;
                    if self.buffer.len() < header.meta_len as usize {
                        return Ok(None);
                    }
                    let meta = self.take(header.meta_len as usize);
                    if checksum(&meta) != header.meta_crc {
                        return self.broken(FrameError::MetaChecksum);
                    }
                    let mut body = large(header.data_len as usize);
                    let here = self.buffer.len().min(header.data_len as usize);
                    body.extend_from_slice(&self.buffer[..here]);
                    self.buffer.advance(here);
                    let mut crc = crc32fast::Hasher::new();
                    crc.update(&body);
                    self.state = State::Large { header, meta, summed: body.len(), body, crc };
                }
                State::Large { header, body, .. } => {
                    if body.len() < header.data_len as usize {
                        return Ok(None);
                    }
                    let State::Large { header, meta, body, crc, .. } =
                        std::mem::replace(&mut self.state, State::Header)
                    else {
                        return Ok(None);
                    };
                    if crc.finalize() != header.data_crc {
                        return self.broken(FrameError::DataChecksum);
                    }
                    let data = body.freeze();
                    keep(&data);
                    return self.done(header, meta, data);
                }
            }
        }
    }

    fn take(&mut self, len: usize) -> Bytes {
        if len == 0 { Bytes::new() } else { self.buffer.split_to(len).freeze() }
    }

    fn done(&mut self, header: Header, meta: Bytes, data: Bytes) -> Result<Option<Frame>, FrameError> {
        if checksum(&meta) != header.meta_crc {
            return self.broken(FrameError::MetaChecksum);
        }
        self.state = State::Header;
        self.frames += 1;
        Ok(Some(Frame { header, meta, data }))
    }

    fn broken(&mut self, e: FrameError) -> Result<Option<Frame>, FrameError> {
        self.state = State::Broken(e);
        self.buffer = BytesMut::new();
        Err(e)
    }
}
