//! Calling the process at the other end.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use nacre_proto::status::{Code, Status};
use tokio::sync::TryAcquireError;

use super::shared::{Outgoing, Shared, permits};
use super::{End, PeerInfo};
use crate::frame::encode::seal;
use crate::frame::{Header, Kind, Priority};

/// A request to be sent.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// What is asked.
    pub method: u16,
    /// What goes first.
    pub priority: Priority,
    /// The arguments.
    pub meta: Bytes,
    /// The payload.
    pub data: Bytes,
    /// The payload's CRC-32, if it is known already.
    pub data_crc: Option<u32>,
    /// The most data the reply may carry. A reply with more is an error, so a read says how much it wants.
    pub room: u32,
}

impl Request {
    /// A request with arguments and nothing else.
    #[must_use]
    pub fn new(method: u16, meta: Bytes) -> Request {
        Request { method, meta, ..Request::default() }
    }

    /// With a payload.
    #[must_use]
    pub fn with_data(self, data: Bytes) -> Request {
        Request { data, ..self }
    }

    /// With room for a payload in the reply.
    #[must_use]
    pub fn with_room(self, room: u32) -> Request {
        Request { room, ..self }
    }

    /// With another priority.
    #[must_use]
    pub fn at(self, priority: Priority) -> Request {
        Request { priority, ..self }
    }
}

/// The answer to a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// The result.
    pub meta: Bytes,
    /// The payload.
    pub data: Bytes,
    /// The payload's CRC-32: checked when it came from the network.
    pub data_crc: u32,
}

/// How a call fails.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// It never left this process: it may be sent again whatever it was.
    #[error("not sent: {0}")]
    NotSent(Arc<End>),
    /// It left, and no answer came: it may or may not have been done.
    #[error("no answer: {0}")]
    Lost(Arc<End>),
    /// The peer says it failed.
    #[error("{0}")]
    Failed(Status),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The peer takes no more at the moment.
    #[error("the peer's window or queue is full")]
    Full,
    /// Larger than the peer accepts.
    #[error("{what} of {size} bytes is more than the peer accepts ({limit})")]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// Its size.
        size: usize,
        /// The limit.
        limit: u32,
    },
}

impl From<CallError> for Status {
    fn from(e: CallError) -> Status {
        let text = e.to_string();
        match e {
            CallError::Failed(status) => status,
            CallError::NotSent(_) | CallError::Lost(_) => Status::new(Code::Disconnected, text),
            CallError::TimedOut(_) => Status::new(Code::TimedOut, text),
            CallError::Full => Status::new(Code::Busy, text),
            CallError::TooLarge { .. } => Status::new(Code::TooLarge, text),
        }
    }
}

/// A handle to the process at the other end of a connection. Cheap to clone; the connection lives as long as its task.
#[derive(Clone, Debug)]
pub struct Peer(pub(crate) Arc<Shared>);

impl Peer {
    /// Who it is.
    #[must_use]
    pub fn info(&self) -> &PeerInfo {
        &self.0.info
    }

    /// Calls and waits for the reply. Waits for the window first, in the order of callers. A caller that goes away
    /// before the reply does not take the request back.
    pub async fn call(&self, request: Request) -> Result<Reply, CallError> {
        let needs = self.cost(&request)?;
        match self.0.window.try_acquire_many(needs) {
            Ok(permit) => permit.forget(),
            Err(TryAcquireError::Closed) => return Err(self.over()),
            Err(TryAcquireError::NoPermits) => {
                self.0.window.acquire_many(needs).await.map_err(|_| self.over())?.forget();
            }
        }
        self.send(request, needs)?.await
    }

    /// The same, no longer than `limit`.
    pub async fn call_within(&self, request: Request, limit: Duration) -> Result<Reply, CallError> {
        tokio::time::timeout(limit, self.call(request)).await.map_err(|_| CallError::TimedOut(limit))?
    }

    /// Sends at once, in the order of these calls, and gives the reply as a future. Fails with [`CallError::Full`] if
    /// the window has no room.
    pub fn start(&self, request: Request) -> Result<Pending, CallError> {
        let needs = self.cost(&request)?;
        match self.0.window.try_acquire_many(needs) {
            Ok(permit) => permit.forget(),
            Err(TryAcquireError::Closed) => return Err(self.over()),
            Err(TryAcquireError::NoPermits) => return Err(CallError::Full),
        }
        self.send(request, needs)
    }

    /// Tells something that asks for no reply. Fails with [`CallError::Full`] if too much waits for this peer already:
    /// a peer that does not keep up is the caller's to judge.
    pub fn notify(&self, method: u16, priority: Priority, meta: Bytes, data: Bytes) -> Result<(), CallError> {
        self.fits(&meta, &data)?;
        let header = Header { method, priority, ..Header::bare(Kind::Notice, 0) };
        let header = seal(header, &meta, &data, None);
        self.0.send_notice(Outgoing { header, meta, data, frees: 0 })
    }

    /// The same, but waits while too much waits for this peer. Notices of one caller arrive in the order of its calls.
    pub async fn notify_in_turn(
        &self,
        method: u16,
        priority: Priority,
        meta: Bytes,
        data: Bytes,
    ) -> Result<(), CallError> {
        loop {
            let room = self.0.room.notified();
            tokio::pin!(room);
            match self.notify(method, priority, meta.clone(), data.clone()) {
                Err(CallError::Full) => {}
                said => return said,
            }
            // Asked once more after it counts as waiting, so that room made in between is not missed.
            if room.as_mut().enable() {
                continue;
            }
            match self.notify(method, priority, meta.clone(), data.clone()) {
                Err(CallError::Full) => room.await,
                said => return said,
            }
        }
    }

    /// Ends the connection; the peer is told why. Calls that have no answer yet end with an error.
    pub fn close(&self, why: &'static str) {
        self.0.close(End::Local(why));
    }

    /// Why the connection is over, if it is.
    #[must_use]
    pub fn is_over(&self) -> Option<Arc<End>> {
        self.0.lock().ended.clone()
    }

    /// Waits until the connection is over.
    pub async fn over_with(&self) -> Arc<End> {
        self.0.ended().await
    }

    fn over(&self) -> CallError {
        CallError::NotSent(self.is_over().unwrap_or_else(|| Arc::new(End::Closed)))
    }

    fn fits(&self, meta: &Bytes, data: &Bytes) -> Result<(), CallError> {
        for (what, size, limit) in
            [("metadata", meta.len(), self.0.accepts.meta), ("data", data.len(), self.0.accepts.data)]
        {
            if size > limit as usize {
                return Err(CallError::TooLarge { what, size, limit });
            }
        }
        Ok(())
    }

    fn cost(&self, request: &Request) -> Result<u32, CallError> {
        self.fits(&request.meta, &request.data)?;
        let needs = permits(request.meta.len() as u64, request.data.len() as u64, u64::from(request.room));
        // What is larger than the whole window may go when nothing else does.
        Ok(u32::try_from(needs).unwrap_or(u32::MAX).min(self.0.window_size))
    }

    fn send(&self, request: Request, needs: u32) -> Result<Pending, CallError> {
        let Request { method, priority, meta, data, data_crc, room } = request;
        let header = Header { method, priority, room, ..Header::bare(Kind::Request, 0) };
        let header = seal(header, &meta, &data, data_crc);
        let id = self.0.send_request(Outgoing { header, meta, data, frees: 0 }, needs)?;
        Ok(Pending { shared: self.0.clone(), id, done: false })
    }
}

/// A call whose request is on its way.
#[derive(Debug)]
#[must_use = "a reply nobody waits for is thrown away"]
pub struct Pending {
    shared: Arc<Shared>,
    id: u64,
    done: bool,
}

impl Future for Pending {
    type Output = Result<Reply, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = self.shared.poll_reply(self.id, cx.waker());
        self.done = polled.is_ready();
        polled
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.done {
            self.shared.abandon(self.id);
        }
    }
}
