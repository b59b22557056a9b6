//! The pulse: says that this OSD lives, and asks the others whether they do, on a thread and connections of its own.
//!
//! The thread of the shard may stand for a while in which nothing is wrong, as when the store makes room. Were it to
//! answer for its life, a busy OSD would be marked down, its groups would move, and all would be busier still. So the
//! pulse answers, but not for ever: it notes when each of the other threads last turned, and falls silent when that is
//! too long ago. A process that is frozen or dead has no pulse either.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nacre_net::conn::{Call, Handler};
use nacre_net::identity::gate::Caller;
use nacre_net::identity::{Denied, Gate, Service};
use nacre_net::node::listener::ListenError;
use nacre_net::node::{Listener, Node};
use nacre_pg::wire::method;
use nacre_proto::status::{Code, Status};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// For so long another thread may stand still before this process counts as dead.
const STANDS: Duration = Duration::from_secs(8);
/// It is asked to turn when it was not seen to for this long.
const LOOK: Duration = Duration::from_secs(2);

/// When a thread of connections and shards last turned.
#[derive(Debug)]
struct Turns {
    began: Instant,
    last_ms: AtomicU64,
    asked: AtomicBool,
    thread: Handle,
}

/// Those that are watched.
type Watched = Arc<RwLock<Vec<Arc<Turns>>>>;

impl Turns {
    fn of(thread: Handle) -> Arc<Turns> {
        let (last_ms, asked) = (AtomicU64::new(0), AtomicBool::new(false));
        Arc::new(Turns { began: Instant::now(), last_ms, asked, thread })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether it still turns. Asks it to show that, if it has not lately.
    fn go_on(self: &Arc<Turns>) -> bool {
        let still = Duration::from_millis(self.now().saturating_sub(self.last_ms.load(Ordering::Relaxed)));
        if still > LOOK && !self.asked.swap(true, Ordering::Relaxed) {
            let turns = Arc::clone(self);
            self.thread.spawn(async move {
                turns.last_ms.store(turns.now(), Ordering::Relaxed);
                turns.asked.store(false, Ordering::Relaxed);
            });
        }
        still <= STANDS
    }
}

/// Answers.
struct Heart(Watched, Gate);

impl Heart {
    /// All of them, so that each that has not turned lately is asked to.
    fn beats(&self) -> bool {
        let watched = self.0.read().unwrap_or_else(PoisonError::into_inner);
        watched.iter().filter(|turns| !turns.go_on()).count() == 0
    }
}

impl Handler for Heart {
    fn request(&mut self, call: Call) {
        let who = call.peer().info().identity.name.clone();
        match call.method {
            _ if who.as_osd().is_none() => {
                let denied = self.1.refuse(Denied {
                    who: Caller::Member(who),
                    service: Service::Osd,
                    what: "ask whether it lives".into(),
                    why: "only OSDs ask each other that".into(),
                });
                call.fail(&Status::new(Code::Denied, denied.to_string()));
            }
            method::PING if self.beats() => call.ok(Bytes::new(), Bytes::new()),
            method::PING => call.fail(&Status::new(Code::Unavailable, "a thread of this OSD stands still")),
            other => call.fail(&Status::new(Code::Unsupported, format!("method {other} is not a pulse's"))),
        }
    }
}

/// The thread. It ends with this value.
#[derive(Debug)]
pub struct Pulse {
    runtime: Handle,
    address: SocketAddr,
    watched: Watched,
    _end: oneshot::Sender<()>,
}

impl Pulse {
    /// Starts it, listening at a free port. To be called on the first thread whose turning it watches.
    pub async fn start(node: &Arc<Node>, at: IpAddr, gate: Gate) -> Result<Pulse, ListenError> {
        let watched = Watched::new(RwLock::new(vec![Turns::of(Handle::current())]));
        let turns = Arc::clone(&watched);
        let (end, ended) = oneshot::channel();
        let (started, starts) = oneshot::channel();
        let node = Arc::clone(node);
        let wanted = SocketAddr::new(at, 0);
        let failed = move |source| ListenError::Tcp { address: wanted, source };
        let body = move || {
            let runtime = match nacre_net::daemon::current_thread_runtime() {
                Ok(runtime) => runtime,
                Err(error) => return drop(started.send(Err(failed(error)))),
            };
            runtime.block_on(async move {
                let listener = match Listener::bind(&node, Some(wanted), None).await {
                    Ok(listener) => listener,
                    Err(error) => return drop(started.send(Err(error))),
                };
                let address = listener.address().tcp().unwrap_or(wanted);
                let _ = started.send(Ok((Handle::current(), address)));
                tokio::select! {
                    () = listener.serve(node, move || Heart(Arc::clone(&turns), gate.clone())) => {}
                    _dropped = ended => {}
                }
            });
        };
        thread::Builder::new().name("pulse".into()).spawn(body).map_err(failed)?;
        let gone = |_| failed(std::io::Error::other("the thread of the pulse has ended"));
        let (runtime, address) = starts.await.map_err(gone)??;
        Ok(Pulse { runtime, address, watched, _end: end })
    }

    /// Watches another thread as well.
    pub fn watch(&self, thread: Handle) {
        self.watched.write().unwrap_or_else(PoisonError::into_inner).push(Turns::of(thread));
    }

    /// Where the others feel it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where tasks that ask others have to run.
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns() -> Arc<Turns> {
        Arc::new(Turns {
            began: Instant::now().checked_sub(2 * STANDS).unwrap(),
            last_ms: AtomicU64::new(0),
            asked: AtomicBool::new(false),
            thread: Handle::current(),
        })
    }

    #[tokio::test]
    async fn a_thread_that_stands_has_no_pulse_until_it_turns_again() {
        let turns = turns();
        assert!(!turns.go_on(), "it has not turned since before the bound");
        // What it was asked to show is done as soon as it turns.
        tokio::task::yield_now().await;
        assert!(turns.go_on());
        assert!(!turns.asked.load(Ordering::Relaxed), "it was seen just now and is not asked again");
    }
}
