//! Watching an object: who watches hears every notify at least once, for as long as the watch lasts.
//!
//! A watch is kept by asking for it again: before its time is over, and at once when the pg has another primary or the
//! connection was lost. What was told meanwhile and not answered is then told again; so one notification may come twice.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use nacre_net::alarm::in_step;
use nacre_net::conn::{Call, Handler, Notice, Peer};
use nacre_pg::op::{Op, OpResult};
use nacre_pg::wire::{self, Told, method};
use nacre_proto::ids::SessionId;
use nacre_proto::status::{Code, Status};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::cluster::Cluster;
use crate::error::Error;
use crate::object::Object;

/// Notifications that wait to be looked at. What comes on top is told again later.
const INBOX: usize = 256;

/// Where what is told goes, by the watch's number.
pub(crate) type Watches = Arc<Mutex<std::collections::HashMap<u64, mpsc::Sender<Told>>>>;

/// A client's side of a connection: it serves no calls, and hears what watches are told.
pub(crate) struct Ears(pub(crate) Watches);

impl Handler for Ears {
    fn request(&mut self, call: Call) {
        call.fail(&Status::new(Code::Unsupported, "a client serves no calls"));
    }

    fn notice(&mut self, _peer: &Peer, notice: Notice) {
        if notice.method != method::TOLD {
            return;
        }
        let Ok(told) = wire::decode::<Told>(&notice.meta, &notice.data) else { return };
        let watches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(inbox) = watches.get(&told.cookie) {
            let _ = inbox.try_send(told);
        }
    }
}

/// A watch on an object. It ends when this is dropped; then the object forgets it when its time is over, or at once with
/// [`Watch::end`].
#[derive(Debug)]
pub struct Watch {
    object: Object,
    cookie: u64,
    inbox: mpsc::Receiver<Told>,
    keeper: JoinHandle<Error>,
    cluster: Cluster,
}

/// What a watcher was told.
#[derive(Debug)]
pub struct Notification {
    /// What was said.
    pub payload: Bytes,
    object: Object,
    notify: u64,
    cookie: u64,
}

/// Who answered a notify, and who did not in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notified {
    /// Session and watch of those that answered, with what they said.
    pub answers: Vec<((SessionId, u64), Bytes)>,
    /// Of those that did not.
    pub missed: Vec<(SessionId, u64)>,
}

impl Object {
    /// Watches this object, which must exist. A watcher that is not heard of for `lasts` is forgotten.
    pub async fn watch(&self, lasts: Duration) -> Result<Watch, Error> {
        let cookie = rand::random::<u64>();
        let (to, inbox) = mpsc::channel(INBOX);
        let cluster = self.cluster().clone();
        cluster.0.watches().lock().unwrap_or_else(PoisonError::into_inner).insert(cookie, to);
        let ask = Op::Watch { cookie, timeout_ms: u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX) };
        // Made first, so that its end is seen to whatever happens next.
        let mut watch =
            Watch { object: self.clone(), cookie, inbox, keeper: tokio::spawn(std::future::pending()), cluster };
        self.execute(vec![ask.clone()]).await?;
        watch.keeper.abort();
        watch.keeper = tokio::spawn(keep(self.clone(), ask, lasts / 3));
        Ok(watch)
    }

    /// Tells all who watch this object, and waits until they have answered, or for as long as `within`.
    pub async fn notify(&self, payload: impl Into<Bytes>, within: Duration) -> Result<Notified, Error> {
        let timeout_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        let done = self.execute(vec![Op::Notify { payload: payload.into(), timeout_ms }]).await?;
        match done.results.into_iter().next() {
            Some(OpResult::Notified { acks, missed, .. }) => Ok(Notified { answers: acks, missed }),
            _ => Err(self.shape()),
        }
    }
}

/// Asks for the watch again and again; ends with the reason why it cannot be had any more.
async fn keep(object: Object, ask: Op, every: Duration) -> Error {
    loop {
        let cluster = object.cluster().clone();
        tokio::select! {
            () = tokio::time::sleep_until(in_step(every)) => {}
            () = cluster.0.disturbed(&object) => {}
        }
        if let Err(error) = object.execute(vec![ask.clone()]).await
            && !matches!(error, Error::TimedOut { .. })
        {
            return error;
        }
    }
}

impl Watch {
    /// The next notification. An error says why there will be none any more: the object is gone, or this session is
    /// fenced.
    pub async fn next(&mut self) -> Result<Notification, Error> {
        tokio::select! {
            biased;
            told = self.inbox.recv() => match told {
                Some(Told { notify, payload, .. }) => {
                    Ok(Notification { payload, object: self.object.clone(), notify, cookie: self.cookie })
                }
                None => Err(self.object.shape()),
            },
            ended = &mut self.keeper => Err(ended.unwrap_or_else(|_| self.object.shape())),
        }
    }

    /// Ends it.
    pub async fn end(self) -> Result<(), Error> {
        self.keeper.abort();
        self.object.execute(vec![Op::Unwatch { cookie: self.cookie }]).await.map(drop)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.keeper.abort();
        self.cluster.0.watches().lock().unwrap_or_else(PoisonError::into_inner).remove(&self.cookie);
    }
}

impl Notification {
    /// Answers, so that who notified need not wait for this watcher any longer.
    pub async fn answer(self, payload: impl Into<Bytes>) -> Result<(), Error> {
        let answer = Op::NotifyAck { notify: self.notify, cookie: self.cookie, payload: payload.into() };
        self.object.execute(vec![answer]).await.map(drop)
    }
}
