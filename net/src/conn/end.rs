//! Why a connection ended. One connection ends, never its neighbours; the reason is counted and logged once.

use crate::frame::FrameError;
use crate::tls::{PeerError, TlsError};

/// Why.
#[derive(Debug, thiserror::Error)]
pub enum End {
    /// The peer closed it between two frames.
    #[error("the peer closed the connection")]
    Closed,
    /// The peer took its leave.
    #[error("the peer ended the connection: {0}")]
    Bye(String),
    /// This side ended it.
    #[error("ended by this side: {0}")]
    Local(&'static str),
    /// A newer connection of the same session took its place.
    #[error("replaced by a newer connection of the same session")]
    Replaced,
    /// The stream broke.
    #[error("connection lost: {0}")]
    Io(std::io::Error),
    /// What came is no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Nothing came, though asked.
    #[error("the peer has been silent for {0:?}")]
    Silent(std::time::Duration),
    /// A frame began and did not get whole.
    #[error("a frame did not arrive whole within {0:?}")]
    Stalled(std::time::Duration),
    /// The peer does not read.
    #[error("the peer has read nothing for {0:?}")]
    SlowReader(std::time::Duration),
    /// The peer asked for more than it was granted.
    #[error("the peer has more requests in flight than the window of {0} bytes it was granted")]
    WindowExceeded(u64),
    /// The peer broke another rule.
    #[error("the peer broke the protocol: {0}")]
    Protocol(&'static str),
    /// The first frames did not lead to a connection.
    #[error("no agreement in the hello: {0}")]
    Hello(String),
    /// The TLS handshake did not lead to one.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The peer is not (or no longer) believed.
    #[error("peer refused: {0}")]
    Peer(#[from] PeerError),
    /// Nobody listens there, or the way is blocked.
    #[error("cannot connect to {to}: {source}")]
    Connect {
        /// Where to.
        to: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A local socket was opened by a user who may not.
    #[error("user {uid} may not use this socket; it is for user {owner} and root")]
    LocalUser {
        /// Who did.
        uid: u32,
        /// Whose it is.
        owner: u32,
    },
}

impl End {
    /// The word it is counted under: label `reason` of `net_connections_ended_total`.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            End::Closed => "closed",
            End::Bye(_) => "bye",
            End::Local(_) => "local",
            End::Replaced => "replaced",
            End::Io(_) => "io",
            End::Frame(e) => e.reason(),
            End::Silent(_) => "silent",
            End::Stalled(_) => "stalled",
            End::SlowReader(_) => "slow_reader",
            End::WindowExceeded(_) => "window_exceeded",
            End::Protocol(_) => "protocol",
            End::Hello(_) => "hello",
            End::Tls(e) => e.reason(),
            End::Peer(e) => e.reason(),
            End::Connect { .. } => "connect",
            End::LocalUser { .. } => "local_user",
        }
    }

    /// Whether this is how connections usually end: not worth a warning.
    #[must_use]
    pub fn is_orderly(&self) -> bool {
        matches!(self, End::Closed | End::Bye(_) | End::Local(_) | End::Replaced)
    }

    /// Whether nobody listens there: the process is gone, and a failure detector need not wait.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        use std::io::ErrorKind::{ConnectionRefused, NotFound};
        matches!(self, End::Connect { source, .. } if matches!(source.kind(), ConnectionRefused | NotFound))
    }

    /// What a stream reported; a refusal of our certificate comes as the first read after the handshake.
    pub(crate) fn from_io(e: std::io::Error) -> End {
        match TlsError::from_io(e) {
            TlsError::Io(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => End::Closed,
            TlsError::Io(e) => End::Io(e),
            tls => End::Tls(tls),
        }
    }
}
