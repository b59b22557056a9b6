//! One writer at a time: the right to write is a lock on the header, held by the session of the writer's connections.
//!
//! Who wants it asks the holder through the watch that every writer keeps on the header. A holder that is willing ends
//! what it has under way, lets go, and writes no more with that handle. One that says no keeps it. One that says nothing
//! within [`ASKED`] is dead, stopped or cut off: its session is fenced, which is done when every OSD knows, and only then
//! is its lock broken. So whoever holds the lock is the only one whose writes land, however late the other wakes up.
//!
//! The right to remove what a shrink cut off is another such lock: who resizes an image need not be its writer, and if it
//! sleeps in the middle of it, the image may have grown again when it wakes up.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use nacre_client::class::{code, lock};
use nacre_client::{Notified, SessionId, Watch};
use tokio::sync::{OwnedRwLockWriteGuard, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::error::{Error, refusal};
use crate::image::{Image, Use, WeakImage};
use crate::meter::Told;

/// How long a holder has to answer.
pub const ASKED: Duration = Duration::from_secs(3);
/// How long those who look at an image have to take note of a change.
const TOLD: Duration = Duration::from_secs(10);
/// A watcher that is not heard of for so long is forgotten.
const WATCH: Duration = Duration::from_secs(30);
/// How long every OSD has to take note of a fence.
const FENCED: Duration = Duration::from_secs(20);
/// Holders that may come and go while one waits for its turn.
const TURNS: usize = 20;

const CHANGED: &[u8] = b"\x01changed";
const ASK: &[u8] = b"\x01yield";
/// To one who cuts off an end: are you.
const ASK_CUT: &[u8] = b"\x01cutting";
/// To a writer: hold still until [`RELEASE`], or for as long as [`STILL`].
pub(crate) const HOLD: &[u8] = b"\x01hold";
/// To a writer: go on; did you hold still until now.
pub(crate) const RELEASE: &[u8] = b"\x01release";
/// To all who have it open: what did you do.
const METER: &[u8] = b"\x01meter";
/// A writer does not hold still for longer, whoever asked for it.
const STILL: Duration = Duration::from_secs(8);
pub(crate) const YES: &[u8] = b"yes";

/// A right that one session has at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    /// To write.
    Write,
    /// To remove what lies past the end.
    Cut,
}

impl Right {
    /// What its lock is called.
    fn lock(self) -> Bytes {
        Bytes::from_static(match self {
            Right::Write => b"writer",
            Right::Cut => b"cutter",
        })
    }

    /// What its holder is asked.
    fn question(self) -> &'static [u8] {
        match self {
            Right::Write => ASK,
            Right::Cut => ASK_CUT,
        }
    }
}

/// What a handle may do.
#[derive(Clone, Debug, Default)]
pub(crate) enum Rights {
    /// Read.
    #[default]
    Reader,
    /// Write too.
    Writer(Hold),
    /// It wrote once.
    Lost(String),
}

/// The lock as this handle holds it.
#[derive(Clone, Debug)]
pub(crate) struct Hold {
    cookie: Bytes,
    /// Gives it to whoever asks.
    pub(crate) yields: bool,
}

/// Who holds an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its session: what a fence names.
    pub session: SessionId,
    /// What it says of itself.
    pub note: String,
    cookie: Bytes,
}

/// Host and process, for people.
fn myself() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim().chars().take(100).collect::<String>();
    format!("{host}, process {}", std::process::id())
}

impl Image {
    /// Who has the right to write, if anybody has.
    pub async fn holder(&self) -> Result<Option<Holder>, Error> {
        self.holder_of(Right::Write).await
    }

    async fn holder_of(&self, right: Right) -> Result<Option<Holder>, Error> {
        let state = self.0.header.lock_info(&right.lock()).await?;
        Ok(state.holds.into_iter().next().map(|((session, cookie), info)| Holder {
            session,
            cookie,
            note: String::from_utf8_lossy(&info.note).into_owned(),
        }))
    }

    /// Takes the right to write.
    pub(crate) async fn acquire(&self, usage: Use) -> Result<(), Error> {
        self.listen().await?;
        match self.take(Right::Write, usage == Use::Seize).await {
            Ok(cookie) => {
                let hold = Hold { cookie, yields: false };
                *self.0.rights.lock().unwrap_or_else(PoisonError::into_inner) = Rights::Writer(hold);
                // What the last holder changed before it let go.
                self.refresh().await
            }
            Err(error) => {
                self.deafen().await;
                Err(error)
            }
        }
    }

    /// Takes a right; from whoever has it without asking, if it is to be seized. Gives the lock's cookie.
    async fn take(&self, right: Right, seize: bool) -> Result<Bytes, Error> {
        let tag = Bytes::from(format!("{:016x}", rand::random::<u64>()));
        let want = lock::Lock {
            name: right.lock(),
            kind: lock::Kind::Exclusive,
            cookie: tag.clone(),
            tag: tag.clone(),
            note: Bytes::from(myself()),
            ..lock::Lock::default()
        };
        for _ in 0..TURNS {
            match self.0.header.lock(&want).await {
                Ok(_) => return Ok(tag),
                Err(Error::Cluster(error)) if refusal(&error) == Some(code::BUSY) => {}
                Err(error) => return Err(error),
            }
            let Some(holder) = self.holder_of(right).await? else { continue };
            let in_use = || Error::InUse { image: self.name(), holder: holder.note.clone() };
            if holder.session.0 == self.0.pool.cluster().session() {
                return Err(in_use());
            }
            if !seize {
                let said = self.0.header.0.notify(right.question(), ASKED).await?;
                let answer =
                    said.answers.iter().filter(|((session, _), said)| *session == holder.session && !said.is_empty());
                match answer.map(|(_, said)| &said[..]).max() {
                    Some(YES) => continue,
                    Some(_) => return Err(in_use()),
                    None => tracing::warn!(
                        image = self.name(),
                        holder = holder.note,
                        session = holder.session.0,
                        ?right,
                        "who has the right to the image does not answer: its session is fenced"
                    ),
                }
            }
            self.shut_out(right, &holder).await?;
        }
        Err(Error::Raced { image: self.name() })
    }

    /// Fences the holder, and breaks its lock when that is done.
    async fn shut_out(&self, right: Right, holder: &Holder) -> Result<(), Error> {
        let why = format!("image {} was taken over by {}", self.name(), myself());
        self.0.pool.cluster().fence(&[holder.session], &why, FENCED).await?;
        let which = lock::Break { name: right.lock(), session: holder.session, cookie: holder.cookie.clone() };
        match self.0.header.break_lock(&which).await {
            // Another took it over meanwhile.
            Err(error) if refusal(&error) == Some(code::ABSENT) => Ok(()),
            done => Ok(done?),
        }
    }

    /// Shuts out whoever writes the image. When this is done, nothing of it lands any more.
    pub async fn fence(&self) -> Result<Option<Holder>, Error> {
        let Some(holder) = self.holder().await? else { return Ok(None) };
        self.shut_out(Right::Write, &holder).await?;
        Ok(Some(holder))
    }

    /// The same, if it is a certain one: for those who know that it is dead, and need not ask it.
    pub async fn fence_session(&self, session: SessionId) -> Result<bool, Error> {
        match self.holder().await? {
            Some(holder) if holder.session == session => self.shut_out(Right::Write, &holder).await.map(|()| true),
            _ => Ok(false),
        }
    }

    /// Asks all who have the image open, on any host, what they did with it. Those who open it for a verb that only reads
    /// are not asked, nor are those who have a snapshot of it.
    pub async fn users(&self) -> Result<Vec<Told>, Error> {
        let said = self.0.header.0.notify(METER, ASKED).await?;
        Ok(said.answers.iter().filter_map(|(_, said)| Told::decode(said)).collect())
    }

    fn told(&self) -> Told {
        let counts = self.meter().all().map(|(_, seen)| seen);
        Told { dirty: self.dirty(), lost: self.is_lost(), counts, who: myself() }
    }

    /// Gives the image to whoever asks for it, or refuses to.
    pub fn set_yields(&self, yields: bool) {
        if let Rights::Writer(hold) = &mut *self.0.rights.lock().unwrap_or_else(PoisonError::into_inner) {
            hold.yields = yields;
        }
    }

    pub(crate) fn lose(&self, why: &str) {
        let mut rights = self.0.rights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Rights::Writer(_) = *rights {
            tracing::warn!(image = self.name(), why, "the right to write the image is gone");
            *rights = Rights::Lost(why.to_owned());
        }
    }

    /// Ends writing: what is under way is finished, and others may write.
    pub async fn close(&self) -> Result<(), Error> {
        self.let_go("it was closed").await?;
        self.deafen().await;
        Ok(())
    }

    async fn let_go(&self, why: &str) -> Result<(), Error> {
        let _alone = self.0.gate.write().await;
        let Some(hold) = self.hold() else { return Ok(()) };
        let settled = self.settle().await;
        *self.0.rights.lock().unwrap_or_else(PoisonError::into_inner) = Rights::Lost(why.to_owned());
        self.unlock(Right::Write, hold.cookie).await?;
        settled
    }

    async fn unlock(&self, right: Right, cookie: Bytes) -> Result<(), Error> {
        match self.0.header.unlock(&lock::Unlock { name: right.lock(), cookie }).await {
            // It was broken meanwhile, or the image is gone with its lock.
            Err(error) if refusal(&error) == Some(code::ABSENT) => Ok(()),
            done => Ok(done?),
        }
    }

    /// Does something as the only one who removes what lies past the image's end.
    pub(crate) async fn as_cutter(&self, what: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
        let began = self.listen().await?;
        // Before the lock is taken, so that nobody who asks its holder hears nothing.
        self.0.cutting.fetch_add(1, Ordering::AcqRel);
        let done = async {
            let cookie = self.take(Right::Cut, false).await.map_err(|error| match error {
                Error::InUse { image, .. } => Error::Raced { image },
                other => other,
            })?;
            let done = what.await;
            done.and(self.unlock(Right::Cut, cookie).await)
        };
        let done = done.await;
        self.0.cutting.fetch_sub(1, Ordering::AcqRel);
        if began {
            self.deafen().await;
        }
        done
    }

    /// Hears of changes from now on; whether it did not before.
    pub async fn listen(&self) -> Result<bool, Error> {
        if self.0.listener.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            return Ok(false);
        }
        let watch = self.0.header.0.watch(WATCH).await?;
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(hear(self.downgrade(), watch, stopped));
        *self.0.listener.lock().unwrap_or_else(PoisonError::into_inner) = Some(Listener { task, stop });
        // What changed before the watch began.
        self.refresh().await?;
        Ok(true)
    }

    /// Ends the watch, so that nobody waits for this handle's answers any more.
    pub(crate) async fn deafen(&self) {
        let listener = self.0.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Listener { task, stop }) = listener {
            let _ = stop.send(());
            let _ = task.await;
        }
    }

    /// Tells all who have the image open that its header changed, and waits until they have taken note.
    pub(crate) async fn announce(&self) -> Result<Notified, Error> {
        let told = self.0.header.0.notify(CHANGED, TOLD).await?;
        if self.0.listener.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
            self.refresh().await?;
        }
        Ok(told)
    }

    /// The same; whether the writer, if there is one, has taken note.
    pub(crate) async fn announce_to_writer(&self) -> Result<bool, Error> {
        let told = self.announce().await?;
        let Some(holder) = self.holder().await? else { return Ok(true) };
        Ok(told.answers.iter().any(|((session, _), said)| *session == holder.session && &said[..] == YES))
    }
}

/// Who hears of changes of the header, and how it is made to end.
pub(crate) struct Listener {
    pub(crate) task: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

async fn hear(image: WeakImage, mut watch: Watch, mut stopped: oneshot::Receiver<()>) {
    // Nothing is written while this is held.
    let mut still: Option<(OwnedRwLockWriteGuard<()>, Instant)> = None;
    loop {
        let end = still.as_ref().map(|(_, end)| *end);
        let told = tokio::select! {
            told = watch.next() => told,
            () = tokio::time::sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => {
                still = None;
                continue;
            }
            _ = &mut stopped => {
                drop(still);
                // An image that is gone has no watchers; any other forgets this one in time.
                let _ = watch.end().await;
                return;
            }
        };
        let Some(image) = image.upgrade() else { return };
        let notification = match told {
            Ok(notification) => notification,
            Err(error) => {
                image.lose(&format!("its watch ended: {error}"));
                return;
            }
        };
        let told;
        let answer: &[u8] = match &notification.payload[..] {
            METER => {
                told = image.told().encode();
                &told
            }
            CHANGED => {
                // Who holds still holds the gate already.
                let done = if still.is_some() { image.refresh_alone().await } else { image.refresh().await };
                said(&image, done)
            }
            ASK => match image.hold() {
                None => b"",
                Some(hold) if hold.yields && still.is_none() => {
                    said(&image, image.let_go("another asked for it").await)
                }
                Some(_) => b"no",
            },
            ASK_CUT if image.0.cutting.load(Ordering::Acquire) > 0 => b"no",
            // It may be told twice.
            HOLD if still.is_some() => YES,
            HOLD if image.hold().is_some() => {
                let guard = Arc::clone(&image.0.gate).write_owned().await;
                let done = image.settle().await;
                still = Some((guard, Instant::now() + STILL));
                said(&image, done)
            }
            RELEASE if image.hold().is_some() => match still.take() {
                Some(_) => YES,
                None => b"late",
            },
            _ => b"",
        };
        if let Err(error) = notification.answer(answer.to_vec()).await {
            tracing::debug!(image = image.name(), %error, "an answer was not heard");
        }
    }
}

/// What is answered to one who waits for it to be done.
fn said(image: &Image, done: Result<(), Error>) -> &'static [u8] {
    match done {
        Ok(()) => YES,
        Err(error) => {
            tracing::warn!(image = image.name(), %error, "what was asked of the image's user could not be done");
            b"failed"
        }
    }
}
