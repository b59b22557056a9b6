//! Requests and replies of one connection: many at a time, memory bounded, replies batched.
//!
//! One loop reads requests and starts them; one writes what is finished, in the order of finishing. What a connection
//! may hold at once is bounded in number and in bytes; past that the reader waits, and the client with it.
//!
//! Invariants:
//! 1. Each request that was read gets exactly one reply, unless the connection ends first.
//! 2. A payload is allocated only after its length was checked and its bytes were reserved.
//! 3. When the client leaves, what it had in flight is finished, not torn off: a write that was started is whole.

use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::negotiate::{Negotiated, Stream};
use crate::volume::{Fault, Volume};
use crate::wire::{Framing, Outcome, Request, command, decode_request, encode_reply, flag};

/// What one connection may take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The largest read or write in bytes. Stock clients split at 32 MiB.
    pub request_max: u32,
    /// Requests in flight.
    pub requests: usize,
    /// Bytes of reads and writes in flight.
    pub bytes: u32,
    /// Runs in one answer to block status.
    pub extents: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { request_max: 32 << 20, requests: 128, bytes: 64 << 20, extents: 1024 }
    }
}

/// Why a connection ended otherwise than by the client's leave.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The stream failed, or ended in the middle of something.
    #[error("nbd connection: {0}")]
    Io(#[from] io::Error),
    /// No request starts here, so nothing that follows can be trusted.
    #[error("nbd connection: the client sent something that is no request")]
    Broken,
    /// A payload that cannot be skipped in reason.
    #[error("nbd connection: the client sent a payload of {0} bytes; the limit is {1}")]
    TooLong(u64, u32),
}

/// A finished request on its way out; the permits give back what it held once it is written.
struct Finished {
    head: Bytes,
    data: Option<Bytes>,
    _slot: OwnedSemaphorePermit,
    _bytes: Option<OwnedSemaphorePermit>,
}

/// Serves until the client leaves and all it asked for has ended: who serves the same client on another connection after
/// that has nothing of the old one under way.
pub async fn serve<S: Stream + 'static>(agreed: Negotiated<S>, limits: &Limits) -> Result<(), ServeError> {
    let Negotiated { stream, volume, framing, allocation } = agreed;
    let (read, write) = stream.into_halves();
    let (finished, queue) = mpsc::channel(limits.requests.max(1));
    let reader = Reader {
        framing,
        allocation,
        volume,
        limits: limits.clone(),
        slots: Arc::new(Semaphore::new(limits.requests.max(1))),
        // Never less than one largest request, or that request would wait for ever.
        bytes: Arc::new(Semaphore::new(limits.bytes.max(limits.request_max) as usize)),
        finished,
    };
    let (slots, all) = (Arc::clone(&reader.slots), limits.requests.max(1));
    let writing = write_replies(write, queue);
    tokio::pin!(writing);
    let ended = tokio::select! {
        // The reader took its sender along, and each request holds one until its reply is queued: the writer ends
        // once all of them are answered.
        result = reader.run(read) => result.and(writing.await),
        // Only a failed stream ends the writer first. What was started finishes in its own task, unheard.
        written = &mut writing => written,
    };
    // A request gives its slot back when it has ended. More slots than a count holds are not given out either.
    let _ = slots.acquire_many(u32::try_from(all).unwrap_or(u32::MAX)).await;
    ended
}

struct Reader {
    framing: Framing,
    allocation: bool,
    volume: Arc<dyn Volume>,
    limits: Limits,
    slots: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    finished: mpsc::Sender<Finished>,
}

/// What a request asks of a volume, checked.
enum Action {
    Read { offset: u64, len: u32 },
    Write { offset: u64, data: Bytes, fua: bool },
    Zero { offset: u64, len: u64, keep: bool, fast: bool, fua: bool },
    Trim { offset: u64, len: u64, fua: bool },
    Prefetch { offset: u64, len: u64 },
    Extents { offset: u64, len: u64, most: usize },
    Flush,
    Nothing,
}

impl Reader {
    async fn run(self, stream: Box<dyn AsyncRead + Send + Unpin>) -> Result<(), ServeError> {
        let mut stream = tokio::io::BufReader::with_capacity(64 << 10, stream);
        let mut header = [0u8; 32];
        loop {
            let header = &mut header[..self.framing.request_len()];
            // A client may just close between requests; many do.
            let first = stream.read(&mut header[..1]).await?;
            if first == 0 {
                return Ok(());
            }
            stream.read_exact(&mut header[1..]).await?;
            let request = decode_request(self.framing, header).ok_or(ServeError::Broken)?;
            if request.command == command::DISCONNECT {
                return Ok(());
            }
            let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(|_| ServeError::Broken)?;
            let (payload, bytes) = self.payload(&mut stream, &request).await?;
            let action = self.check(&request, payload);
            let (volume, finished, framing) = (Arc::clone(&self.volume), self.finished.clone(), self.framing);
            tokio::spawn(async move {
                let outcome = match action {
                    Ok(action) => perform(&*volume, action).await,
                    Err(refusal) => refusal,
                };
                let (head, data) = encode_reply(framing, &request, outcome);
                // A closed queue: the connection is gone, and nobody waits for this reply.
                let _ = finished.send(Finished { head, data, _slot: slot, _bytes: bytes }).await;
            });
        }
    }

    /// Takes the bytes that follow a write, and reserves what a read will need.
    async fn payload(
        &self,
        stream: &mut (impl AsyncRead + Unpin),
        request: &Request,
    ) -> Result<(Bytes, Option<OwnedSemaphorePermit>), ServeError> {
        let extended_payload = self.framing == Framing::Extended && request.flags & flag::PAYLOAD_LEN != 0;
        let carries = request.command == command::WRITE || extended_payload;
        if carries && request.len > u64::from(self.limits.request_max) {
            return Err(ServeError::TooLong(request.len, self.limits.request_max));
        }
        let holds = carries || request.command == command::READ;
        let Ok(len) = u32::try_from(request.len) else { return Ok((Bytes::new(), None)) };
        if !holds || len > self.limits.request_max {
            return Ok((Bytes::new(), None));
        }
        let bytes = Arc::clone(&self.bytes).acquire_many_owned(len).await.map_err(|_| ServeError::Broken)?;
        if !carries {
            return Ok((Bytes::new(), Some(bytes)));
        }
        let mut data = BytesMut::with_capacity(len as usize);
        let mut take = stream.take(u64::from(len));
        while data.len() < len as usize {
            if take.read_buf(&mut data).await? == 0 {
                return Err(ServeError::Io(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Ok((data.freeze(), Some(bytes)))
    }

    /// Turns a request into something the volume can be asked, or the fault to answer with.
    fn check(&self, request: &Request, payload: Bytes) -> Result<Action, Outcome> {
        let &Request { flags, command, offset, len, .. } = request;
        let allowed = match command {
            command::READ => flag::DONT_FRAGMENT | flag::FUA,
            command::WRITE => flag::FUA | if self.framing == Framing::Extended { flag::PAYLOAD_LEN } else { 0 },
            command::WRITE_ZEROES => flag::FUA | flag::NO_HOLE | flag::FAST_ZERO,
            command::TRIM | command::FLUSH | command::CACHE => flag::FUA,
            command::BLOCK_STATUS => flag::REQUEST_ONE | flag::FUA,
            _ => return Err(Fault::Invalid.into()),
        };
        if flags & !allowed != 0 {
            return Err(Fault::Invalid.into());
        }
        let changes = matches!(command, command::WRITE | command::WRITE_ZEROES | command::TRIM);
        if changes && self.volume.read_only() {
            return Err(Fault::NotPermitted.into());
        }
        if command == command::FLUSH {
            return Ok(Action::Flush);
        }
        let end = offset.checked_add(len).ok_or(Fault::Invalid)?;
        // Where it ends now: that may have changed since the client was told.
        let size = self.volume.size();
        if end > size {
            // To write past the end is a full disk to most programs; anything else past it is a mistake.
            let stores = matches!(command, command::WRITE | command::WRITE_ZEROES);
            return Err(Outcome::Past(if stores { Fault::NoSpace } else { Fault::Invalid }, size));
        }
        let fua = flags & flag::FUA != 0;
        if len == 0 {
            // The protocol leaves it open; nothing is done, but it is not an error to ask for nothing.
            return if command == command::BLOCK_STATUS { Err(Fault::Invalid.into()) } else { Ok(Action::Nothing) };
        }
        Ok(match command {
            command::READ => {
                let len = u32::try_from(len).ok().filter(|len| *len <= self.limits.request_max);
                Action::Read { offset, len: len.ok_or(Fault::Invalid)? }
            }
            command::WRITE => Action::Write { offset, data: payload, fua },
            command::WRITE_ZEROES => {
                let (keep, fast) = (flags & flag::NO_HOLE != 0, flags & flag::FAST_ZERO != 0);
                Action::Zero { offset, len, keep, fast, fua }
            }
            command::TRIM => Action::Trim { offset, len, fua },
            command::CACHE => Action::Prefetch { offset, len },
            _ if !self.allocation => return Err(Fault::Invalid.into()),
            _ => {
                let one = flags & flag::REQUEST_ONE != 0;
                Action::Extents { offset, len, most: if one { 1 } else { self.limits.extents.max(1) } }
            }
        })
    }
}

async fn perform(volume: &dyn Volume, action: Action) -> Outcome {
    let done = match action {
        Action::Nothing => Ok(()),
        Action::Flush => volume.flush().await,
        Action::Write { offset, data, fua } => volume.write(offset, data, fua).await,
        Action::Zero { offset, len, keep, fast, fua } => volume.zero(offset, len, keep, fast, fua).await,
        Action::Trim { offset, len, fua } => volume.trim(offset, len, fua).await,
        Action::Prefetch { offset, len } => volume.prefetch(offset, len).await,
        Action::Read { offset, len } => {
            return match volume.read(offset, len).await {
                Ok(data) if data.len() == len as usize => Outcome::Data(data),
                // A short read would shift every later byte of the connection.
                Ok(_) => Outcome::Failed(Fault::Io),
                Err(fault) => Outcome::Failed(fault),
            };
        }
        Action::Extents { offset, len, most } => {
            return match volume.extents(offset, len, most).await {
                Ok(runs) => fit(runs, len, most),
                Err(fault) => Outcome::Failed(fault),
            };
        }
    };
    match done {
        Ok(()) => Outcome::Done,
        Err(fault) => Outcome::Failed(fault),
    }
}

/// Holds a volume's answer to what the protocol allows: within the range, no empty runs, at least one.
fn fit(runs: Vec<crate::volume::Extent>, mut left: u64, most: usize) -> Outcome {
    let mut fitted = Vec::with_capacity(runs.len().min(most));
    for mut run in runs.into_iter().take(most) {
        run.len = run.len.min(left);
        if run.len == 0 {
            break;
        }
        left -= run.len;
        fitted.push(run);
    }
    if fitted.is_empty() { Outcome::Failed(Fault::Io) } else { Outcome::Extents(fitted) }
}

/// Writes what is finished, as much as there is in one call.
async fn write_replies(
    mut stream: Box<dyn AsyncWrite + Send + Unpin>,
    mut queue: mpsc::Receiver<Finished>,
) -> Result<(), ServeError> {
    const BATCH: usize = 32;
    let mut batch = Vec::with_capacity(BATCH);
    while queue.recv_many(&mut batch, BATCH).await > 0 {
        let mut parts: Vec<Bytes> = Vec::with_capacity(batch.len() * 2);
        for reply in &batch {
            parts.push(reply.head.clone());
            parts.extend(reply.data.clone());
        }
        write_all(&mut stream, &mut parts).await?;
        stream.flush().await?;
        batch.clear();
    }
    stream.shutdown().await?;
    Ok(())
}

async fn write_all(stream: &mut (impl AsyncWrite + Unpin), parts: &mut [Bytes]) -> io::Result<()> {
    let mut first = 0;
    while first < parts.len() {
        let slices: Vec<IoSlice<'_>> = parts[first..].iter().map(|part| IoSlice::new(part)).collect();
        let mut written = stream.write_vectored(&slices).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while first < parts.len() && written >= parts[first].len() {
            written -= parts[first].len();
            first += 1;
        }
        if written > 0 {
            parts[first].advance(written);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::sync::Notify;

    use super::*;
    use crate::negotiate::MaybeTls;
    use crate::volume::{Extent, Reply};

    /// A volume that reads and writes when it is let.
    #[derive(Default)]
    struct Slow {
        began: Notify,
        read: Notify,
        write: Notify,
        written: AtomicBool,
    }

    impl Volume for Slow {
        fn size(&self) -> u64 {
            1 << 20
        }

        fn read(&self, _: u64, len: u32) -> Reply<'_, Bytes> {
            Box::pin(async move {
                self.began.notify_one();
                self.read.notified().await;
                Ok(Bytes::from(vec![0; len as usize]))
            })
        }

        fn write(&self, _: u64, _: Bytes, _: bool) -> Reply<'_, ()> {
            Box::pin(async {
                self.began.notify_one();
                self.write.notified().await;
                self.written.store(true, Ordering::SeqCst);
                Ok(())
            })
        }

        fn zero(&self, _: u64, _: u64, _: bool, _: bool, _: bool) -> Reply<'_, ()> {
            Box::pin(async { Ok(()) })
        }

        fn trim(&self, _: u64, _: u64, _: bool) -> Reply<'_, ()> {
            Box::pin(async { Ok(()) })
        }

        fn flush(&self) -> Reply<'_, ()> {
            Box::pin(async { Ok(()) })
        }

        fn extents(&self, _: u64, len: u64, _: usize) -> Reply<'_, Vec<Extent>> {
            Box::pin(async move { Ok(vec![Extent { len, hole: false }]) })
        }
    }

    #[tokio::test]
    async fn a_connection_that_breaks_ends_when_nothing_of_it_is_under_way() {
        let (mut client, server) = tokio::io::duplex(4096);
        let volume = Arc::new(Slow::default());
        let agreed = Negotiated {
            stream: MaybeTls::Plain(server),
            volume: Arc::<Slow>::clone(&volume),
            framing: Framing::Simple,
            allocation: false,
        };
        let limits = Limits { requests: 2, ..Limits::default() };
        let serving = tokio::spawn(async move { serve(agreed, &limits).await });
        // A write and a read of four bytes, which are all that may be under way; a third waits.
        for command in [1, 0, 0] {
            let mut request = crate::wire::REQUEST_MAGIC.to_be_bytes().to_vec();
            request.extend([0, 0, 0, command]);
            request.extend([0; 16]);
            request.extend(4u32.to_be_bytes());
            request.extend([7; 4].iter().take(if command == 1 { 4 } else { 0 }));
            client.write_all(&request).await.unwrap();
            if request.len() > 28 {
                volume.began.notified().await;
            }
        }
        volume.began.notified().await;
        drop(client);
        // The answer to the read finds nobody. The write is still under way.
        volume.read.notify_one();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!serving.is_finished());
        volume.read.notify_one();
        volume.write.notify_one();
        assert!(serving.await.unwrap().is_err());
        assert!(volume.written.load(Ordering::SeqCst));
    }
}
