//! A connection that is kept up: dialed, driven, and dialed again with growing, scattered pauses. Callers ask it for the
//! peer and wait while there is none. What was asked on a connection that ended is not asked again behind their backs,
//! see the rules in [`crate::conn`].

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::{Address, Node};
use crate::conn::{CallError, End, Handler, Peer, Reply, Request};
use crate::tls::Expect;

/// Pauses between attempts.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// The first.
    pub first: Duration,
    /// The longest.
    pub longest: Duration,
    /// A connection that stood this long starts again from the first.
    pub good_after: Duration,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff {
            first: Duration::from_millis(20),
            longest: Duration::from_secs(5),
            good_after: Duration::from_secs(10),
        }
    }
}

impl Backoff {
    /// The pause after this many failures in a row: between half of it and all of it, so that those who lost the same
    /// peer do not come back as one.
    #[must_use]
    pub fn pause(&self, failures: u32, scatter: f64) -> Duration {
        let full = self.first.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(self.longest);
        full.mul_f64(0.5 + scatter.clamp(0.0, 1.0) / 2.0)
    }
}

/// How a link stands.
#[derive(Clone, Debug)]
pub enum State {
    /// No connection; the last attempt, if there was one, ended so.
    Down {
        /// Attempts in a row that came to nothing.
        failures: u32,
        /// How the last connection or attempt ended.
        last: Option<Arc<End>>,
    },
    /// Connected.
    Up(Peer),
    /// Given up: the link's task has ended.
    Closed,
}

/// A handle to a link. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Link {
    state: watch::Receiver<State>,
    to: watch::Sender<Address>,
}

/// The task of a link: to be spawned.
pub struct LinkTask<F> {
    node: Arc<Node>,
    expect: Expect,
    lane: u32,
    backoff: Backoff,
    handler: F,
    state: watch::Sender<State>,
    to: watch::Receiver<Address>,
}

impl Link {
    /// A link to `expect` at `to`, and the task that keeps it up. `handler` makes a handler for each connection; `lane`
    /// tells several links to one peer apart.
    pub fn new<H, F>(
        node: Arc<Node>,
        to: Address,
        expect: Expect,
        lane: u32,
        backoff: Backoff,
        handler: F,
    ) -> (Link, LinkTask<F>)
    where
        H: Handler,
        F: FnMut() -> H,
    {
        let (state, seen) = watch::channel(State::Down { failures: 0, last: None });
        let (address, moved) = watch::channel(to);
        let task = LinkTask { node, expect, lane, backoff, handler, state, to: moved };
        (Link { state: seen, to: address }, task)
    }

    /// How it stands now.
    #[must_use]
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// To watch how it stands: a refused connection is seen at once.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// The peer has moved: the next attempt goes there, at once.
    pub fn move_to(&self, to: Address) {
        self.to.send_if_modified(|now| {
            let moved = *now != to;
            *now = to;
            moved
        });
    }

    /// The peer, as soon as it is connected. An error only if the link is closed.
    pub async fn peer(&self) -> Result<Peer, CallError> {
        let mut state = self.state.clone();
        loop {
            match &*state.borrow_and_update() {
                State::Up(peer) if peer.is_over().is_none() => return Ok(peer.clone()),
                State::Closed => return Err(closed()),
                _ => {}
            }
            if state.changed().await.is_err() {
                return Err(closed());
            }
        }
    }

    /// Calls when connected. What was not sent because a connection ended just then is sent on the next one; what may
    /// have been sent is the caller's to judge ([`CallError::Lost`]).
    pub async fn call(&self, request: Request) -> Result<Reply, CallError> {
        loop {
            let peer = self.peer().await?;
            match peer.call(request.clone()).await {
                Err(CallError::NotSent(_)) => {
                    // Wait until the link has noticed, too.
                    peer.over_with().await;
                }
                other => return other,
            }
        }
    }

    /// The same, no longer than `limit`, waiting for a connection included.
    pub async fn call_within(&self, request: Request, limit: Duration) -> Result<Reply, CallError> {
        tokio::time::timeout(limit, self.call(request)).await.map_err(|_| CallError::TimedOut(limit))?
    }
}

fn closed() -> CallError {
    CallError::NotSent(Arc::new(End::Local("the link is closed")))
}

impl<H: Handler, F: FnMut() -> H> LinkTask<F> {
    /// Keeps the link up until every handle to it is gone.
    pub async fn run(mut self) {
        let (mut failures, mut last_met) = (0u32, 0u64);
        while self.to.has_changed().is_ok() {
            let to = self.to.borrow_and_update().clone();
            let end = match self.node.dial(&to, &self.expect, self.lane, last_met).await {
                Ok(connection) => {
                    let began = Instant::now();
                    let peer = connection.peer();
                    last_met = peer.info().incarnation;
                    self.state.send_replace(State::Up(peer));
                    let run = connection.run((self.handler)());
                    tokio::pin!(run);
                    let end = loop {
                        tokio::select! {
                            end = &mut run => break end,
                            moved = self.to.changed() => {
                                // Moved, or nobody holds the link any more: take leave; the task sees the end.
                                let why = if moved.is_ok() { "the peer has moved" } else { "no longer needed" };
                                if let State::Up(peer) = &*self.state.borrow() {
                                    peer.close(why);
                                }
                                if moved.is_err() {
                                    run.await;
                                    return;
                                }
                            }
                        }
                    };
                    failures = if began.elapsed() >= self.backoff.good_after { 0 } else { failures.min(8) };
                    end
                }
                Err(end) => Arc::new(end),
            };
            failures = failures.saturating_add(1);
            let pause = self.backoff.pause(failures, rand::random());
            tracing::debug!(peer = ?self.expect, %to, failures, ?pause, error = %end, "connecting again");
            self.state.send_replace(State::Down { failures, last: Some(end) });
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = self.to.changed() => {}
            }
        }
    }
}

impl<F> Drop for LinkTask<F> {
    fn drop(&mut self) {
        self.state.send_replace(State::Closed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_scattered() {
        let backoff = Backoff::default();
        let full: Vec<_> = (1..=10).map(|n| backoff.pause(n, 1.0).as_millis()).collect();
        assert_eq!(full, [20, 40, 80, 160, 320, 640, 1280, 2560, 5000, 5000]);
        assert_eq!(backoff.pause(3, 0.0).as_millis(), 40);
        assert_eq!(backoff.pause(u32::MAX, 1.0), backoff.longest);
    }
}
