//! What the task of a connection and the handles to it share: frames that wait to be sent, calls that wait for a reply.
//!
//! Invariants:
//! 1. A slot is reused only after its reply came or the connection ended; a late reply finds its own slot or none.
//! 2. Permits of the window are held from before a request is queued until its reply came.
//! 3. After `ended` is set, nothing is queued and no slot waits.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use bytes::Bytes;
use nacre_proto::status::{Code, Status};
use tokio::sync::{Notify, Semaphore};

use super::{CallError, End, PeerInfo, Reply};
use crate::frame::{Frame, Header, Kind, Limits};

/// The window is counted in permits of this many bytes.
pub(super) const PERMIT: u64 = 4096;

/// What a request costs of the window and of the budget: itself, and the reply it leaves room for.
pub(super) fn permits(meta: u64, data: u64, room: u64) -> u64 {
    1 + (meta + data + room) / PERMIT
}

#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) header: Header,
    pub(super) meta: Bytes,
    pub(super) data: Bytes,
    /// For a reply: the permits of the request it answers, free again when it is written.
    pub(super) frees: u64,
}

#[derive(Debug)]
enum Slot {
    Vacant,
    Waiting {
        waker: Option<Waker>,
        room: u32,
        permits: u32,
    },
    /// The caller went away; the peer still owes the reply.
    Abandoned {
        room: u32,
        permits: u32,
    },
    Done(Result<Reply, CallError>),
}

#[derive(Debug, Default)]
struct Calls {
    slots: Vec<(u32, Slot)>,
    free: Vec<u32>,
}

impl Calls {
    fn put(&mut self, slot: Slot) -> u64 {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.slots.push((0, Slot::Vacant));
                u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
            }
        };
        let entry = &mut self.slots[index as usize];
        entry.0 = entry.0.wrapping_add(1);
        entry.1 = slot;
        u64::from(entry.0) << 32 | u64::from(index)
    }

    fn get(&mut self, id: u64) -> Option<&mut Slot> {
        let (generation, index) = ((id >> 32) as u32, (id & u64::from(u32::MAX)) as usize);
        self.slots.get_mut(index).filter(|(g, s)| *g == generation && !matches!(s, Slot::Vacant)).map(|(_, s)| s)
    }

    fn vacate(&mut self, id: u64) -> Option<Slot> {
        let slot = std::mem::replace(self.get(id)?, Slot::Vacant);
        self.free.push((id & u64::from(u32::MAX)) as u32);
        Some(slot)
    }
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) queues: [VecDeque<Outgoing>; 3],
    /// Bytes of notices that are queued or being written.
    pub(super) notices: usize,
    /// Someone waits until fewer are.
    pub(super) crowded: bool,
    calls: Calls,
    /// The task sleeps and must be woken when something is queued.
    pub(super) parked: bool,
    waker: Option<Waker>,
    pub(super) closing: Option<End>,
    pub(super) ended: Option<Arc<End>>,
}

impl State {
    pub(super) fn is_empty(&self) -> bool {
        self.queues.iter().all(VecDeque::is_empty)
    }

    pub(super) fn park(&mut self, waker: &Waker) {
        self.parked = true;
        if !self.waker.as_ref().is_some_and(|w| w.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
    }

    pub(super) fn wake(&mut self) {
        if std::mem::take(&mut self.parked)
            && let Some(waker) = &self.waker
        {
            waker.wake_by_ref();
        }
    }
}

#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// What is left of the window the peer granted.
    pub(super) window: Semaphore,
    pub(super) window_size: u32,
    /// What the peer accepts.
    pub(super) accepts: Limits,
    pub(super) most_notices: usize,
    pub(super) info: PeerInfo,
    pub(super) over: Notify,
    /// For those who wait to send a notice.
    pub(super) room: Notify,
}

impl Shared {
    pub(super) fn new(info: PeerInfo, accepts: Limits, window: u64, most_notices: usize) -> Shared {
        let window_size = u32::try_from((window / PERMIT).max(1)).unwrap_or(u32::MAX).min(1 << 28);
        Shared {
            state: Mutex::default(),
            window: Semaphore::new(window_size as usize),
            window_size,
            accepts,
            most_notices,
            info,
            over: Notify::new(),
            room: Notify::new(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a request for which permits were taken. Gives its id.
    pub(super) fn send_request(&self, mut frame: Outgoing, permits: u32) -> Result<u64, CallError> {
        let mut state = self.lock();
        if let Some(end) = &state.ended {
            return Err(CallError::NotSent(end.clone()));
        }
        let room = frame.header.room;
        let id = state.calls.put(Slot::Waiting { waker: None, room, permits });
        frame.header.id = id;
        state.queues[frame.header.priority as usize].push_back(frame);
        state.wake();
        Ok(id)
    }

    /// Queues a reply; dropped if the connection is over.
    pub(super) fn send_reply(&self, frame: Outgoing) {
        let mut state = self.lock();
        if state.ended.is_none() {
            state.queues[frame.header.priority as usize].push_back(frame);
            state.wake();
        }
    }

    /// Queues a notice if there is room.
    pub(super) fn send_notice(&self, frame: Outgoing) -> Result<(), CallError> {
        let size = crate::frame::HEADER + frame.meta.len() + frame.data.len();
        let mut state = self.lock();
        if let Some(end) = &state.ended {
            return Err(CallError::NotSent(end.clone()));
        }
        if state.notices > 0 && state.notices + size > self.most_notices {
            state.crowded = true;
            return Err(CallError::Full);
        }
        state.notices += size;
        state.queues[frame.header.priority as usize].push_back(frame);
        state.wake();
        Ok(())
    }

    /// Has the task end the connection.
    pub(crate) fn close(&self, why: End) {
        let mut state = self.lock();
        if state.ended.is_none() && state.closing.is_none() {
            state.closing = Some(why);
            state.wake();
        }
    }

    /// Waits until the task is done with the connection.
    pub(crate) async fn ended(&self) -> Arc<End> {
        loop {
            let over = self.over.notified();
            tokio::pin!(over);
            over.as_mut().enable();
            if let Some(end) = &self.lock().ended {
                return end.clone();
            }
            over.await;
        }
    }

    pub(super) fn poll_reply(&self, id: u64, waker: &Waker) -> Poll<Result<Reply, CallError>> {
        let mut state = self.lock();
        match state.calls.get(id) {
            Some(Slot::Waiting { waker: waits, .. }) => {
                if !waits.as_ref().is_some_and(|w| w.will_wake(waker)) {
                    *waits = Some(waker.clone());
                }
                Poll::Pending
            }
            Some(Slot::Done(_)) => match state.calls.vacate(id) {
                Some(Slot::Done(result)) => Poll::Ready(result),
                _ => Poll::Pending,
            },
            _ => Poll::Ready(Err(CallError::Failed(Status::new(Code::Internal, "a reply was asked for twice")))),
        }
    }

    /// The caller no longer waits. The peer still owes the reply, so the window stays charged.
    pub(super) fn abandon(&self, id: u64) {
        let mut state = self.lock();
        match state.calls.get(id) {
            Some(slot @ Slot::Waiting { .. }) => {
                if let Slot::Waiting { room, permits, .. } = *slot {
                    *slot = Slot::Abandoned { room, permits };
                }
            }
            Some(Slot::Done(_)) => {
                state.calls.vacate(id);
            }
            _ => {}
        }
    }

    /// Delivers replies. Gives how many nobody waited for.
    pub(super) fn deliver(&self, replies: &mut Vec<Frame>, woken: &mut Vec<Waker>) -> Result<u64, End> {
        let (mut freed, mut late) = (0usize, 0);
        let mut judged = Ok(());
        {
            let mut state = self.lock();
            for frame in replies.drain(..) {
                judged = deliver_one(&mut state.calls, frame, woken).map(|(permits, abandoned)| {
                    freed += permits as usize;
                    late += u64::from(abandoned);
                });
                if judged.is_err() {
                    break;
                }
            }
        }
        // Also behind a bad reply: those before it were good, and their callers wait.
        self.window.add_permits(freed);
        woken.drain(..).for_each(Waker::wake);
        judged.map(|()| late)
    }

    /// The connection is over: every call ends. `unsent` are frames the task had taken from the queues and not written.
    pub(super) fn finish(&self, end: Arc<End>, unsent: impl Iterator<Item = Outgoing>) {
        let mut woken = Vec::new();
        {
            let mut state = self.lock();
            if state.ended.is_some() {
                return;
            }
            state.ended = Some(end.clone());
            let queued = std::mem::take(&mut state.queues);
            for frame in unsent.chain(queued.into_iter().flatten()) {
                if frame.header.kind == Kind::Request {
                    settle(&mut state.calls, frame.header.id, CallError::NotSent(end.clone()), &mut woken);
                }
            }
            let ids: Vec<u64> = (0u64..).zip(&state.calls.slots).map(|(i, (g, _))| u64::from(*g) << 32 | i).collect();
            for id in ids {
                settle(&mut state.calls, id, CallError::Lost(end.clone()), &mut woken);
            }
        }
        self.window.close();
        self.over.notify_waiters();
        self.room.notify_waiters();
        woken.into_iter().for_each(Waker::wake);
    }
}

/// Puts a reply into its slot. Gives the permits that are free again, and whether nobody waited.
fn deliver_one(calls: &mut Calls, frame: Frame, woken: &mut Vec<Waker>) -> Result<(u32, bool), End> {
    let id = frame.header.id;
    let slot = calls.get(id).ok_or(End::Protocol("a reply to nothing that was asked"))?;
    let (room, permits, abandoned) = match slot {
        Slot::Waiting { room, permits, .. } => (*room, *permits, false),
        Slot::Abandoned { room, permits } => (*room, *permits, true),
        _ => return Err(End::Protocol("a second reply to one request")),
    };
    if frame.header.data_len > room {
        return Err(End::Protocol("a reply with more data than was asked for"));
    }
    if abandoned {
        calls.vacate(id);
    } else if let Slot::Waiting { waker: Some(waker), .. } = std::mem::replace(slot, Slot::Done(outcome(frame))) {
        woken.push(waker);
    }
    Ok((permits, abandoned))
}

fn settle(calls: &mut Calls, id: u64, with: CallError, woken: &mut Vec<Waker>) {
    match calls.get(id) {
        Some(Slot::Abandoned { .. }) => {
            calls.vacate(id);
        }
        Some(slot @ Slot::Waiting { .. }) => {
            if let Slot::Waiting { waker: Some(waker), .. } = std::mem::replace(slot, Slot::Done(Err(with))) {
                woken.push(waker);
            }
        }
        _ => {}
    }
}

fn outcome(frame: Frame) -> Result<Reply, CallError> {
    if frame.header.code == 0 {
        return Ok(Reply { meta: frame.meta, data: frame.data, data_crc: frame.header.data_crc });
    }
    let text = String::from_utf8_lossy(&frame.meta).into_owned();
    Err(CallError::Failed(Status::new(Code::from_number(frame.header.code), text)))
}
