//! Connections and sessions: calls, replies and notices over any stream of bytes.
//!
//! One task drives a connection ([`Connection::run`]): it reads, hands requests to the [`Handler`] inline, delivers
//! replies, and writes everything that waits in one vectored write. [`Peer`] is the handle others hold to it.
//!
//! - [`hello`]: the first frames: who speaks, for which session, and what each side accepts.
//! - [`peer`]: calling. - [`serve`]: being called. - [`driver`]: the task. - `shared`: what they share.
//! - [`budget`]: memory that many connections share. - [`end`]: why a connection ended, and under what word it counts.
//!
//! # Back-pressure
//! Each side grants the other a *window* in its hello: bytes of requests in flight, each counted with its data and with
//! the [`crate::frame::Header::room`] it leaves for the reply, until the reply is written. A caller beyond the window
//! waits; a peer that ignores it is ended. So the memory a connection can pin is bounded whatever the peer does or leaves:
//! a slow reader holds its own window and nothing else. All connections of a daemon draw from one [`budget::Budget`];
//! when it is used up, requests stay in the socket and TCP holds their senders.
//!
//! # Sessions, and what survives a connection
//! 1. A connection is one stream. A *session* is one incarnation of a process as a client; it outlives connections and
//!    ends when it is fenced or its lease runs out, which is the monitors' business. A session may hold several
//!    connections to one peer, one per *lane*.
//! 2. Frame ids pair replies with requests on one connection and mean nothing on another. What makes a retry harmless is
//!    the operation's own id in its metadata (session and counter), known to the service.
//! 3. When a connection ends, each unanswered call ends: [`CallError::NotSent`] if its frame never left, then it may be
//!    sent again whatever it was; [`CallError::Lost`] otherwise, then the caller must be ready for both and sends it again
//!    with the same operation id, under its newest map. Nothing is sent again behind the caller's back.
//! 4. Order holds within one priority of one connection. After a reconnect the caller's order of sending anew counts.
//! 5. A newer connection of the same name, session and lane replaces the older one: the older is ended, and its task is
//!    done, before the first request of the newer is handled. So a request from before a network fault is never handled
//!    after one from behind it.
//! 6. Each hello names the sender's incarnation. A dialer that meets another incarnation than last time learns
//!    [`PeerInfo::resumed`] is false: what it had registered there (watches, subscriptions) is gone and is registered anew.
//! 7. A certificate ends its connections when it expires or is revoked; the dialer comes back with its renewed one.

pub mod budget;
pub mod driver;
pub mod end;
pub mod hello;
pub mod peer;
pub mod serve;
pub(crate) mod shared;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use budget::Budget;
pub use driver::Connection;
pub use end::End;
pub use peer::{CallError, Peer, Pending, Reply, Request};
pub use serve::{Call, Handler, NoService, Notice, Responder};

use crate::frame::Limits;
use crate::identity::Identity;
use crate::metrics::{Counter, Gauge, Registry};

/// How connections behave. The same for all of a process.
#[derive(Clone, Debug)]
pub struct Config {
    /// The largest frames we accept.
    pub limits: Limits,
    /// The window we grant each peer, in bytes.
    pub window: u64,
    /// Bytes of notices that may wait for a peer before [`Peer::notify`] says it is full.
    pub notices: usize,
    /// The clock of a connection: a peer that said nothing for one tick is asked, see [`Config::silence`].
    pub tick: Duration,
    /// After this many ticks of silence the connection is ended.
    pub silence: u32,
    /// After this many ticks in which a frame does not get whole, or nothing of ours gets written, it is ended too.
    pub stall: u32,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            limits: Limits::default(),
            window: 64 << 20,
            notices: 4 << 20,
            tick: Duration::from_secs(5),
            silence: 3,
            stall: 12,
        }
    }
}

/// How the bytes travel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// TCP with mutual TLS.
    Tls(SocketAddr),
    /// A socket of this host; the system says which user and process is at its other end.
    Local {
        /// The user.
        uid: u32,
        /// The process, if known.
        pid: Option<i32>,
    },
    /// Within this process.
    Memory,
}

impl std::fmt::Display for Via {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Via::Tls(address) => write!(f, "{address}"),
            Via::Local { uid, pid: Some(pid) } => write!(f, "local socket (uid {uid}, pid {pid})"),
            Via::Local { uid, pid: None } => write!(f, "local socket (uid {uid})"),
            Via::Memory => f.write_str("memory"),
        }
    }
}

/// Who is at the other end.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// Who it is and what it may do.
    pub identity: Arc<Identity>,
    /// How it is connected.
    pub via: Via,
    /// Which run of its process it is.
    pub incarnation: u64,
    /// Its session as a client; 0 if it has none.
    pub session: u64,
    /// Which of the session's connections.
    pub lane: u32,
    /// Whether the peer is the same incarnation as the last time we met it.
    pub resumed: bool,
}

/// What connections count.
#[derive(Clone, Debug)]
pub struct NetMetrics {
    registry: Arc<Registry>,
    pub(crate) open: Gauge,
    pub(crate) frames_in: Counter,
    pub(crate) frames_out: Counter,
    pub(crate) bytes_in: Counter,
    pub(crate) bytes_out: Counter,
    pub(crate) paused: Counter,
    pub(crate) late_replies: Counter,
}

impl NetMetrics {
    /// In this registry.
    #[must_use]
    pub fn new(registry: &Arc<Registry>) -> NetMetrics {
        let count = |name, help| registry.counter(name, help, &[]);
        NetMetrics {
            open: registry.gauge("net_connections", "Connections that are open.", &[]),
            frames_in: count("net_received_frames_total", "Frames that were received."),
            frames_out: count("net_sent_frames_total", "Frames that were sent."),
            bytes_in: count("net_received_bytes_total", "Bytes of frames that were received."),
            bytes_out: count("net_sent_bytes_total", "Bytes of frames that were sent."),
            paused: count("net_paused_total", "Times a connection waited for memory of the daemon's budget."),
            late_replies: count("net_late_replies_total", "Replies nobody waited for any more."),
            registry: registry.clone(),
        }
    }

    /// A connection ended, or was refused before it began.
    pub fn ended(&self, reason: &str) {
        let help = "Connections that ended or were refused, by reason.";
        self.registry.counter("net_connections_ended_total", help, &[("reason", reason)]).inc();
    }

    /// How many ended for a reason.
    #[must_use]
    pub fn ended_total(&self, reason: &str) -> u64 {
        let help = "Connections that ended or were refused, by reason.";
        self.registry.counter("net_connections_ended_total", help, &[("reason", reason)]).get()
    }
}

#[cfg(test)]
#[path = "conn_test.rs"]
mod tests;
