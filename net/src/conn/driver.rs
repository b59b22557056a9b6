//! The task of a connection: one future that reads, hands over, delivers and writes. It owns the stream and the handler;
//! nothing else touches them.
//!
//! Each round reads what the socket has, hands every request to the handler inline, then writes everything that waits
//! (replies of this round included) in one vectored write. No frame is handed over before the peer was judged under the
//! newest revocation list, and none after the connection was closed.

use std::collections::VecDeque;
use std::future::Future as _;
use std::io::IoSlice;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{BufMut as _, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::time::Sleep;

use super::serve::Notice;
use super::shared::{Outgoing, PERMIT, Shared, permits};
use super::{Budget, Call, Config, End, Handler, NetMetrics, Peer};
use crate::alarm::in_step;
use crate::frame::encode::SLICES;
use crate::frame::{Decoder, Encoder, Frame, HEADER, Header, Kind};
use crate::identity::UnixTime;
use crate::tls::Trust;

/// A batch is written before more is taken from the queues: what is urgent waits for no more than this.
const BATCH: usize = 512 * 1024;
/// Reads in one round, so that writes and other tasks get their turn.
const READS: usize = 4;
/// While normal frames wait, one in this many is a low one.
const LOW_SHARE: u32 = 8;

/// What lets requests in: the window this side granted, and the budget all connections share.
#[derive(Debug)]
struct Admission {
    window: u64,
    /// Permits of requests that were let in and whose reply is not written yet.
    in_flight: u64,
    budget: Option<Arc<Budget>>,
    /// What of the budget is charged for this connection.
    charged: u64,
    exceeded: bool,
    paused: bool,
}

impl Admission {
    fn cost(header: &Header) -> u64 {
        permits(u64::from(header.meta_len), u64::from(header.data_len), u64::from(header.room))
    }

    fn admit(&mut self, header: &Header, waker: &Waker) -> bool {
        if header.kind != Kind::Request {
            return true;
        }
        // A request larger than the window is sent alone and counts as the window.
        let cost = Admission::cost(header).min(self.window);
        if self.in_flight + cost > self.window {
            self.exceeded = true;
            return false;
        }
        let bytes = cost * PERMIT;
        if let Some(budget) = &self.budget
            && !budget.charge_or_wait(bytes, waker)
        {
            self.paused = true;
            return false;
        }
        self.paused = false;
        self.in_flight += cost;
        self.charged += bytes;
        true
    }

    fn free(&mut self, cost: u64) {
        self.in_flight = self.in_flight.saturating_sub(cost);
        let bytes = (cost * PERMIT).min(self.charged);
        self.charged -= bytes;
        if let Some(budget) = &self.budget {
            budget.release(bytes);
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some(budget) = &self.budget {
            budget.release(self.charged);
        }
    }
}

/// What came before the driver: the outcome of the hellos.
pub(super) struct Start<S> {
    pub(super) stream: S,
    pub(super) shared: Arc<Shared>,
    pub(super) decoder: Decoder,
    pub(super) config: Config,
    pub(super) budget: Option<Arc<Budget>>,
    pub(super) trust: Option<Arc<Trust>>,
    pub(super) metrics: NetMetrics,
}

/// A connection that is up. Nothing moves until [`Connection::run`] is polled.
pub struct Connection<S> {
    /// Taken by `run`.
    start: Option<Start<S>>,
    shared: Arc<Shared>,
}

impl<S> std::fmt::Debug for Connection<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connection({})", self.shared.info.identity.name)
    }
}

impl<S> Connection<S> {
    pub(super) fn new(start: Start<S>) -> Connection<S> {
        Connection { shared: start.shared.clone(), start: Some(start) }
    }

    /// The handle to the other end.
    #[must_use]
    pub fn peer(&self) -> Peer {
        Peer(self.shared.clone())
    }
}

impl<S> Drop for Connection<S> {
    fn drop(&mut self) {
        if self.start.is_some() {
            // Never run: whoever waits for its end must not wait for ever.
            self.shared.finish(Arc::new(End::Local("its task was dropped")), std::iter::empty());
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Drives the connection to its end. The future is `Send` if stream and handler are, so it can be spawned on any
    /// runtime; on a current-thread runtime handlers may hold what is not `Send`.
    pub async fn run<H: Handler>(mut self, handler: H) -> Arc<End> {
        let Some(start) = self.start.take() else { return Arc::new(End::Closed) };
        let Start { stream, shared, decoder, config, budget, trust, metrics } = start;
        let seen = trust.as_ref().map_or(0, |t| t.changes());
        let window = (config.window / PERMIT).max(1);
        let mut driver = Driver {
            tick: Box::pin(tokio::time::sleep_until(in_step(config.tick))),
            stream,
            handler,
            shared: shared.clone(),
            decoder,
            encoder: Encoder::default(),
            queues: Default::default(),
            low_turn: 0,
            replies: Vec::new(),
            woken: Vec::new(),
            marks: VecDeque::new(),
            written: 0,
            noticed: 0,
            admission: Admission { window, in_flight: 0, budget, charged: 0, exceeded: false, paused: false },
            pong: None,
            flush: false,
            goodbye: None,
            idle: Idle::default(),
            trust: trust.map(|t| (t, seen)),
            config,
            metrics,
        };
        driver.metrics.open.add(1);
        let peer = Peer(shared);
        driver.handler.opened(&peer);
        // The guard ends the calls also when the task is dropped, for example by a runtime that shuts down.
        let mut guard = Finish { driver, done: false };
        let end = std::future::poll_fn(|cx| guard.driver.poll(cx)).await;
        guard.finish(end)
    }
}

struct Finish<S, H: Handler> {
    driver: Driver<S, H>,
    done: bool,
}

impl<S, H: Handler> Finish<S, H> {
    fn finish(&mut self, end: End) -> Arc<End> {
        self.done = true;
        let driver = &mut self.driver;
        let peer = Peer(driver.shared.clone());
        driver.handler.closed(&peer, &end);
        driver.metrics.open.add(-1);
        driver.metrics.ended(end.reason());
        let info = &driver.shared.info;
        if end.is_orderly() {
            tracing::debug!(peer = %info.identity.name, via = %info.via, reason = end.reason(), "connection ended");
        } else {
            tracing::info!(peer = %info.identity.name, via = %info.via, reason = end.reason(), error = %end, "connection ended");
        }
        let end = Arc::new(end);
        let unsent = std::mem::take(&mut driver.queues);
        driver.shared.finish(end.clone(), unsent.into_iter().flatten());
        end
    }
}

impl<S, H: Handler> Drop for Finish<S, H> {
    fn drop(&mut self) {
        if !self.done {
            self.finish(End::Local("its task was dropped"));
        }
    }
}

/// What the tick compares.
#[derive(Debug, Default)]
struct Idle {
    received: bool,
    silent: u32,
    frames: u64,
    within: u32,
    written: u64,
    unread: u32,
}

/// What follows once the bytes up to `at` are written.
struct Mark {
    at: u64,
    frees: u64,
    notice: usize,
}

struct Driver<S, H> {
    stream: S,
    handler: H,
    shared: Arc<Shared>,
    decoder: Decoder,
    encoder: Encoder,
    /// Taken from the shared queues, not encoded yet.
    queues: [VecDeque<Outgoing>; 3],
    low_turn: u32,
    replies: Vec<Frame>,
    woken: Vec<Waker>,
    marks: VecDeque<Mark>,
    written: u64,
    /// Bytes of notices written since the shared state was told.
    noticed: usize,
    admission: Admission,
    pong: Option<u64>,
    flush: bool,
    /// Why this side ends it, while the last bytes are written.
    goodbye: Option<End>,
    idle: Idle,
    trust: Option<(Arc<Trust>, u64)>,
    tick: Pin<Box<Sleep>>,
    config: Config,
    metrics: NetMetrics,
}

impl<S, H> Unpin for Driver<S, H> {}

impl<S: AsyncRead + AsyncWrite + Unpin, H: Handler> Driver<S, H> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        match self.rounds(cx) {
            Ok(()) => Poll::Pending,
            Err(end) => Poll::Ready(end),
        }
    }

    /// Works until there is nothing to do; then it is parked.
    fn rounds(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        self.take_orders()?;
        while self.tick.as_mut().poll(cx).is_ready() {
            self.ticked()?;
            self.tick.as_mut().reset(in_step(self.config.tick));
        }
        loop {
            let mut worked = self.goodbye.is_none() && self.read(cx)?;
            worked |= self.fill(cx);
            worked |= self.write(cx)?;
            if self.goodbye.is_some() && self.encoder.pending() == 0 {
                return Err(self.goodbye.take().unwrap_or(End::Closed));
            }
            if !worked {
                return Ok(());
            }
        }
    }

    /// The start of each wake-up: what others asked of this task.
    fn take_orders(&mut self) -> Result<(), End> {
        let closing = {
            let mut state = self.shared.lock();
            state.parked = false;
            state.closing.take()
        };
        match closing {
            // The other connection of the session takes over now; the peer knows, it made it.
            Some(End::Replaced) => Err(End::Replaced),
            Some(end) => {
                self.say_bye(&end);
                self.goodbye.get_or_insert(end);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn say_bye(&mut self, why: &End) {
        let text = match why {
            End::Local(why) => Bytes::from_static(why.as_bytes()),
            other => Bytes::from(other.to_string()),
        };
        let header = crate::frame::encode::seal(Header::bare(Kind::Bye, 0), &text, &[], None);
        self.encoder.push(&header, &text, Bytes::new());
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut worked = false;
        for _ in 0..READS {
            if self.admission.paused {
                // The socket is left alone; the budget wakes us.
                worked |= self.hand_over(cx)?;
                if self.admission.paused {
                    break;
                }
            }
            let (read, offered) = {
                let mut target = self.decoder.target();
                let offered = target.remaining_mut();
                match pin!(self.stream.read_buf(&mut target)).poll(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Err(e)) => return Err(End::from_io(e)),
                    Poll::Ready(Ok(0)) if self.decoder.within_frame() => {
                        return Err(crate::frame::FrameError::Truncated.into());
                    }
                    Poll::Ready(Ok(0)) => return Err(End::Closed),
                    Poll::Ready(Ok(read)) => (read, offered),
                }
            };
            worked = true;
            self.idle.received = true;
            self.metrics.bytes_in.add(read as u64);
            self.decoder.filled(read, offered);
            self.hand_over(cx)?;
        }
        Ok(worked)
    }

    /// Takes every whole frame out of the decoder and gives it to whom it concerns.
    fn hand_over(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        self.judge_again()?;
        let before = self.decoder.frames();
        let was_paused = self.admission.paused;
        let (mut requests, mut frames_ok) = (false, Ok(()));
        loop {
            let admission = &mut self.admission;
            let frame = match self.decoder.next(&mut |header| admission.admit(header, cx.waker())) {
                Ok(Some(frame)) => frame,
                Ok(None) if self.admission.exceeded => {
                    frames_ok = Err(End::WindowExceeded(self.config.window));
                    break;
                }
                Ok(None) => break,
                // What came whole before the damage is still valid: replies are delivered first.
                Err(e) => {
                    frames_ok = Err(e.into());
                    break;
                }
            };
            match frame.header.kind {
                Kind::Request => {
                    let cost = Admission::cost(&frame.header).min(self.admission.window);
                    self.handler.request(Call::new(frame, &self.shared, cost));
                    requests = true;
                }
                Kind::Notice => {
                    let notice = Notice { method: frame.header.method, meta: frame.meta, data: frame.data };
                    self.handler.notice(&Peer(self.shared.clone()), notice);
                    requests = true;
                }
                Kind::Reply => self.replies.push(frame),
                Kind::Ping => self.pong = Some(frame.header.id),
                Kind::Pong => {}
                Kind::Bye => {
                    let text = String::from_utf8_lossy(&frame.meta).chars().take(200).collect();
                    frames_ok = Err(End::Bye(text));
                    break;
                }
                Kind::Hello => {
                    frames_ok = Err(End::Protocol("a second hello"));
                    break;
                }
            }
        }
        if self.admission.paused && !was_paused {
            self.metrics.paused.inc();
        }
        let count = self.decoder.frames() - before;
        self.metrics.frames_in.add(count);
        if !self.replies.is_empty() {
            let late = self.shared.deliver(&mut self.replies, &mut self.woken)?;
            self.metrics.late_replies.add(late);
        }
        if requests {
            self.handler.batch(&Peer(self.shared.clone()));
        }
        frames_ok.map(|()| count > 0)
    }

    /// Encodes what waits, until a batch is full. Parks if there is nothing.
    fn fill(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(id) = self.pong.take() {
            self.push_bare(Header::bare(Kind::Pong, id));
        }
        if self.goodbye.is_some() {
            return false;
        }
        {
            let mut state = self.shared.lock();
            state.notices = state.notices.saturating_sub(std::mem::take(&mut self.noticed));
            if state.crowded && state.notices <= self.shared.most_notices / 2 {
                state.crowded = false;
                self.shared.room.notify_waiters();
            }
            if state.is_empty() && self.queues.iter().all(VecDeque::is_empty) || self.encoder.pending() >= BATCH {
                // Parked also with a full batch: the socket wakes us then, and a close must.
                state.park(cx.waker());
                if state.closing.is_some() {
                    state.wake();
                }
                return false;
            }
            for (mine, theirs) in self.queues.iter_mut().zip(&mut state.queues) {
                mine.append(theirs);
            }
        }
        let mut count = 0;
        while self.encoder.pending() < BATCH {
            let Some(frame) = self.next_out() else { break };
            let Outgoing { header, meta, data, frees } = frame;
            let size = HEADER + meta.len() + data.len();
            self.encoder.push(&header, &meta, data);
            count += 1;
            let notice = if header.kind == Kind::Notice { size } else { 0 };
            if frees > 0 || notice > 0 {
                let at = self.written + self.encoder.pending() as u64;
                self.marks.push_back(Mark { at, frees, notice });
            }
        }
        self.metrics.frames_out.add(count);
        count > 0
    }

    /// High first; low ones get their share, so that recovery never stands still.
    fn next_out(&mut self) -> Option<Outgoing> {
        let [high, normal, low] = &mut self.queues;
        if let Some(frame) = high.pop_front() {
            return Some(frame);
        }
        if !low.is_empty() && (normal.is_empty() || self.low_turn >= LOW_SHARE) {
            self.low_turn = 0;
            return low.pop_front();
        }
        self.low_turn += 1;
        normal.pop_front()
    }

    fn push_bare(&mut self, header: Header) {
        self.encoder.push(&header, &[], Bytes::new());
        self.metrics.frames_out.inc();
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut worked = false;
        while self.encoder.pending() > 0 {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let filled = self.encoder.slices(&mut slices);
            match Pin::new(&mut self.stream).poll_write_vectored(cx, &slices[..filled]) {
                Poll::Pending => break,
                Poll::Ready(Err(e)) => return Err(End::from_io(e)),
                Poll::Ready(Ok(0)) => return Err(End::Io(std::io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => {
                    worked = true;
                    self.flush = true;
                    self.wrote(n);
                }
            }
        }
        if self.flush && self.encoder.pending() == 0 {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Pending => {}
                Poll::Ready(Err(e)) => return Err(End::from_io(e)),
                Poll::Ready(Ok(())) => self.flush = false,
            }
        }
        Ok(worked)
    }

    fn wrote(&mut self, n: usize) {
        self.encoder.advance(n);
        self.written += n as u64;
        self.metrics.bytes_out.add(n as u64);
        while let Some(mark) = self.marks.front().filter(|m| m.at <= self.written) {
            self.noticed += mark.notice;
            self.admission.free(mark.frees);
            self.marks.pop_front();
        }
    }

    /// Asks again whether the peer is believed, if the list has changed.
    fn judge_again(&mut self) -> Result<(), End> {
        let Some((trust, seen)) = &mut self.trust else { return Ok(()) };
        let changes = trust.changes();
        if changes != *seen {
            *seen = changes;
            trust.judge_again(&self.shared.info.identity, UnixTime::now())?;
        }
        Ok(())
    }

    fn ticked(&mut self) -> Result<(), End> {
        if let Some((trust, _)) = &self.trust {
            trust.judge_again(&self.shared.info.identity, UnixTime::now())?;
        }
        let idle = &mut self.idle;
        let after = |ticks: u32| self.config.tick * ticks;

        if std::mem::take(&mut idle.received) || self.admission.paused {
            idle.silent = 0;
        } else {
            idle.silent += 1;
            if idle.silent > self.config.silence {
                return Err(End::Silent(after(self.config.silence)));
            }
            self.decoder.relax();
            self.encoder.relax();
            if self.encoder.pending() == 0 {
                let header = Header::bare(Kind::Ping, u64::from(idle.silent));
                self.encoder.push(&header, &[], Bytes::new());
            }
        }
        let idle = &mut self.idle;
        let within = self.decoder.within_frame() && !self.admission.paused;
        idle.within = if within && idle.frames == self.decoder.frames() { idle.within + 1 } else { 0 };
        idle.frames = self.decoder.frames();
        if idle.within > self.config.stall {
            return Err(End::Stalled(after(self.config.stall)));
        }
        idle.unread = if self.encoder.pending() > 0 && idle.written == self.written { idle.unread + 1 } else { 0 };
        idle.written = self.written;
        if idle.unread > self.config.stall {
            return Err(End::SlowReader(after(self.config.stall)));
        }
        Ok(())
    }
}
