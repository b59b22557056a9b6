//! A network within one process: the same frames over pipes instead of sockets. Ways can be cut and healed, so that a
//! test sees what a partition does; together with a paused clock and one thread it runs the same each time.
//!
//! A simulation that brings its own clock and its own network needs no task at all: [`crate::frame::Decoder`] and
//! [`crate::frame::Encoder`] turn its messages into bytes and back.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::{mpsc, watch};

use crate::conn::End;
use crate::identity::{Identity, Name};

/// What a pipe holds: as much as a socket does, roughly.
const PIPE: usize = 256 * 1024;

type Accepting = (Arc<Identity>, mpsc::Sender<(DuplexStream, Arc<Identity>)>);

#[derive(Debug, Default)]
struct State {
    listeners: HashMap<String, Accepting>,
    cut: HashSet<(Name, Name)>,
}

/// The network.
#[derive(Debug)]
pub struct Network {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

fn pair(a: &Name, b: &Name) -> (Name, Name) {
    if a <= b { (a.clone(), b.clone()) } else { (b.clone(), a.clone()) }
}

impl Network {
    /// An empty one.
    #[must_use]
    pub fn new() -> Arc<Network> {
        Arc::new(Network { state: Mutex::default(), changed: watch::Sender::new(()) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts the way between two processes: bytes on their connections stay where they are, new ones are not made.
    pub fn cut(&self, a: &Name, b: &Name) {
        self.lock().cut.insert(pair(a, b));
        self.changed.send_replace(());
    }

    /// Heals it: what stood still moves on.
    pub fn heal(&self, a: &Name, b: &Name) {
        self.lock().cut.remove(&pair(a, b));
        self.changed.send_replace(());
    }

    fn is_cut(&self, a: &Name, b: &Name) -> bool {
        self.lock().cut.contains(&pair(a, b))
    }

    pub(super) fn listen(
        &self,
        address: &str,
        who: Arc<Identity>,
    ) -> Option<mpsc::Receiver<(DuplexStream, Arc<Identity>)>> {
        let mut state = self.lock();
        // A listener that went away leaves its name to the next, as a process that restarts needs it.
        state.listeners.retain(|_, (_, to)| !to.is_closed());
        if state.listeners.contains_key(address) {
            return None;
        }
        let (to, from) = mpsc::channel(64);
        state.listeners.insert(address.to_owned(), (who, to));
        Some(from)
    }

    pub(super) async fn connect(
        self: &Arc<Self>,
        address: &str,
        from: Arc<Identity>,
    ) -> Result<(DuplexStream, Arc<Identity>), End> {
        let fail = |kind: std::io::ErrorKind| End::Connect { to: address.to_owned(), source: kind.into() };
        let there = self.lock().listeners.get(address).cloned();
        let (them, to) = there.ok_or_else(|| fail(std::io::ErrorKind::ConnectionRefused))?;
        if self.is_cut(&from.name, &them.name) {
            tokio::time::sleep(crate::tls::HANDSHAKE_TIMEOUT).await;
            return Err(fail(std::io::ErrorKind::TimedOut));
        }
        let (near, near_pipe) = tokio::io::duplex(PIPE);
        let (far_pipe, far) = tokio::io::duplex(PIPE);
        to.send((far, from.clone())).await.map_err(|_| fail(std::io::ErrorKind::ConnectionRefused))?;
        tokio::spawn(carry(self.clone(), from.name.clone(), them.name.clone(), near_pipe, far_pipe));
        Ok((near, them))
    }
}

/// Carries bytes both ways while the way is not cut.
async fn carry(network: Arc<Network>, a: Name, b: Name, near: DuplexStream, far: DuplexStream) {
    let (near_in, near_out) = tokio::io::split(near);
    let (far_in, far_out) = tokio::io::split(far);
    let there = one_way(&network, &a, &b, near_in, far_out);
    let back = one_way(&network, &a, &b, far_in, near_out);
    // When one side goes away the other must see the end of its stream: both pipes are dropped.
    tokio::select! {
        () = there => {}
        () = back => {}
    }
}

async fn one_way(
    network: &Network,
    a: &Name,
    b: &Name,
    mut from: impl tokio::io::AsyncRead + Unpin,
    mut to: impl tokio::io::AsyncWrite + Unpin,
) {
    let mut changed = network.changed.subscribe();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(read) = from.read(&mut buffer).await else { return };
        while network.is_cut(a, b) {
            if changed.changed().await.is_err() {
                return;
            }
        }
        // The end of a stream does not cross a cut either.
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
