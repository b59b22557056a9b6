//! Being called.

use std::sync::Arc;

use bytes::Bytes;
use nacre_proto::status::{Code, Status};

use super::shared::{Outgoing, Shared};
use super::{End, Peer, PeerInfo};
use crate::frame::encode::seal;
use crate::frame::{Frame, Header, Kind, Priority};

/// What a service does with what comes. Called inline in the connection's task: it must not block, and what takes time
/// is handed on together with the [`Call`], which is answered later from anywhere.
pub trait Handler {
    /// A request. Answer it with one of [`Call`]'s verbs, now or later; a call that is dropped is answered with
    /// [`Code::Internal`].
    fn request(&mut self, call: Call);

    /// A notice.
    fn notice(&mut self, peer: &Peer, notice: Notice) {
        let _ = (peer, notice);
    }

    /// Every frame that had arrived was handed over. A service that gathers work in [`Handler::request`] starts it
    /// here, all of it at once.
    fn batch(&mut self, peer: &Peer) {
        let _ = peer;
    }

    /// The connection is up; nothing was handed over yet.
    fn opened(&mut self, peer: &Peer) {
        let _ = peer;
    }

    /// The connection is over; nothing will be handed over any more.
    fn closed(&mut self, peer: &Peer, why: &End) {
        let _ = (peer, why);
    }
}

/// A handler for those who only call: every request is answered with [`Code::Unsupported`].
#[derive(Clone, Copy, Debug, Default)]
pub struct NoService;

impl Handler for NoService {
    fn request(&mut self, call: Call) {
        call.fail(&Status::new(Code::Unsupported, "this process serves no calls"));
    }
}

/// A notice that came.
#[derive(Clone, Debug)]
pub struct Notice {
    /// What it is about.
    pub method: u16,
    /// What it says.
    pub meta: Bytes,
    /// Its payload.
    pub data: Bytes,
}

/// A request that came.
#[derive(Debug)]
pub struct Call {
    /// What is asked.
    pub method: u16,
    /// What goes first.
    pub priority: Priority,
    /// The arguments. They share a buffer with their neighbours, see [`crate::frame::ALIGNED_FROM`].
    pub meta: Bytes,
    /// The payload.
    pub data: Bytes,
    /// The payload's CRC-32, checked.
    pub data_crc: u32,
    /// The most data the reply may carry.
    pub room: u32,
    responder: Responder,
}

impl Call {
    pub(super) fn new(frame: Frame, shared: &Arc<Shared>, frees: u64) -> Call {
        let Frame { header, meta, data } = frame;
        Call {
            method: header.method,
            priority: header.priority,
            meta,
            data,
            data_crc: header.data_crc,
            room: header.room,
            responder: Responder {
                shared: Some(shared.clone()),
                id: header.id,
                priority: header.priority,
                room: header.room,
                frees,
            },
        }
    }

    /// Who asks.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.responder.peer()
    }

    /// Who asks, without holding on to it.
    #[must_use]
    pub fn who(&self) -> Option<&PeerInfo> {
        self.responder.shared.as_deref().map(|s| &s.info)
    }

    /// Answers.
    pub fn ok(self, meta: Bytes, data: Bytes) {
        self.responder.ok(meta, data, None);
    }

    /// Answers that it failed.
    pub fn fail(self, status: &Status) {
        self.responder.fail(status);
    }

    /// The part that answers, for a service that takes the call apart.
    pub fn into_responder(self) -> Responder {
        self.responder
    }

    /// Arguments, payload and the part that answers.
    pub fn into_parts(self) -> (Bytes, Bytes, Responder) {
        (self.meta, self.data, self.responder)
    }
}

/// Answers one request, once.
#[derive(Debug)]
#[must_use = "a request that is not answered fails"]
pub struct Responder {
    shared: Option<Arc<Shared>>,
    id: u64,
    priority: Priority,
    room: u32,
    frees: u64,
}

impl Responder {
    /// Who asks.
    #[must_use]
    pub fn peer(&self) -> Peer {
        match &self.shared {
            Some(shared) => Peer(shared.clone()),
            // It is taken only by the verbs that consume the responder.
            None => unreachable!("a responder without a connection"),
        }
    }

    /// Answers. `data_crc` is the CRC-32 of `data` if it is known already, for example from the store.
    pub fn ok(mut self, meta: Bytes, data: Bytes, data_crc: Option<u32>) {
        let Some(shared) = self.shared.take() else { return };
        if data.len() > self.room as usize {
            let text = format!("the answer has {} bytes of data, the call leaves room for {}", data.len(), self.room);
            return self.send(&shared, Code::TooLarge.number(), text.into(), Bytes::new(), None);
        }
        let accepts = shared.accepts;
        if meta.len() > accepts.meta as usize || data.len() > accepts.data as usize {
            let text = format!("the answer has {} bytes, more than the caller accepts", meta.len() + data.len());
            return self.send(&shared, Code::TooLarge.number(), text.into(), Bytes::new(), None);
        }
        self.send(&shared, 0, meta, data, data_crc);
    }

    /// Answers that it failed.
    pub fn fail(mut self, status: &Status) {
        let Some(shared) = self.shared.take() else { return };
        self.refuse(&shared, status);
    }

    fn refuse(&self, shared: &Shared, status: &Status) {
        let mut end = status.text.len().min(4096).min(shared.accepts.meta as usize);
        while !status.text.is_char_boundary(end) {
            end -= 1;
        }
        let text = Bytes::copy_from_slice(&status.text.as_bytes()[..end]);
        self.send(shared, status.code.number(), text, Bytes::new(), None);
    }

    fn send(&self, shared: &Shared, code: u16, meta: Bytes, data: Bytes, data_crc: Option<u32>) {
        let header = Header { priority: self.priority, code, ..Header::bare(Kind::Reply, self.id) };
        let header = seal(header, &meta, &data, data_crc);
        shared.send_reply(Outgoing { header, meta, data, frees: self.frees });
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            self.refuse(&shared, &Status::new(Code::Internal, "the service dropped the call without an answer"));
        }
    }
}
