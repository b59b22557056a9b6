//! Connections that come in: over TCP, on a local socket, in memory. The listener only takes them; the handshake is made
//! by [`super::Node::welcome`], in the connection's own task, so that a slow one holds nobody up.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::DuplexStream;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};

use super::{Address, Node};
use crate::conn::Handler;
use crate::identity::Identity;

/// Handshakes that may be under way at once; others wait to be taken. A flood of half-made connections ends here.
pub const MOST_HANDSHAKES: usize = 256;

/// What goes wrong when a place to listen is taken.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The port.
    #[error("cannot listen on {address}: {source}{}", hint(source))]
    Tcp {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The local socket.
    #[error("cannot listen on {}: {source}", path.display())]
    Local {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Someone else lives there.
    #[error("{} is in use by a running process; is this daemon running already?", path.display())]
    InUse {
        /// Where.
        path: PathBuf,
    },
    /// The name in memory.
    #[error("memory:{0} is taken")]
    Memory(String),
}

fn hint(e: &std::io::Error) -> &'static str {
    match e.kind() {
        std::io::ErrorKind::AddrInUse => "; another process has this port, `ss -ltnp` shows which",
        std::io::ErrorKind::AddrNotAvailable => "; this host does not have this address",
        std::io::ErrorKind::PermissionDenied => "; ports below 1024 are for root",
        _ => "",
    }
}

/// A connection that was taken, before its handshake.
#[derive(Debug)]
pub enum Incoming {
    /// Over TCP.
    Tcp(TcpStream, SocketAddr),
    /// On the local socket.
    Local(UnixStream),
    /// In memory, from this identity.
    Memory(DuplexStream, Arc<Identity>),
}

impl fmt::Display for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Incoming::Tcp(_, from) => write!(f, "{from}"),
            Incoming::Local(_) => f.write_str("local socket"),
            Incoming::Memory(_, who) => write!(f, "memory ({})", who.name),
        }
    }
}

/// Removes the socket's file when the listener goes away.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Takes connections.
#[derive(Debug)]
pub struct Listener {
    tcp: Option<TcpListener>,
    local: Option<(UnixListener, SocketFile)>,
    memory: Option<mpsc::Receiver<(DuplexStream, Arc<Identity>)>>,
    address: Address,
}

/// Opens a local socket that only its owner (and root) can connect to. A file left behind by a process that was killed
/// is replaced; one that is answered is not.
pub fn bind_local(path: &Path) -> Result<UnixListener, ListenError> {
    use std::os::unix::fs::PermissionsExt as _;
    let io = |source| ListenError::Local { path: path.to_owned(), source };
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => return Err(ListenError::InUse { path: path.to_owned() }),
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => std::fs::remove_file(path).map_err(io)?,
        Err(_) => {}
    }
    // Made under another name and moved into place: nobody can connect before its mode is set.
    let fresh = path.with_extension("new");
    let _ = std::fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh).map_err(io)?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600)).map_err(io)?;
    std::fs::rename(&fresh, path).map_err(io)?;
    Ok(listener)
}

impl Listener {
    /// Listens where it is told to. Port 0 takes a free one; [`Listener::address`] says which.
    pub async fn bind(node: &Node, tcp: Option<SocketAddr>, local: Option<&Path>) -> Result<Listener, ListenError> {
        let tcp = match tcp {
            Some(address) => {
                let tcp = |source| ListenError::Tcp { address, source };
                let listener = TcpListener::bind(address).await.map_err(tcp)?;
                Some((listener.local_addr().map_err(tcp)?, listener))
            }
            None => None,
        };
        let local = local.map(|path| Ok((bind_local(path)?, SocketFile(path.to_owned())))).transpose()?;
        let address = Address::Net {
            tcp: tcp.as_ref().map(|(at, _)| *at),
            local: local.as_ref().map(|(_, file)| (node.host(), file.0.clone())),
        };
        Ok(Listener { tcp: tcp.map(|(_, l)| l), local, memory: None, address })
    }

    /// Listens under a name of the network in memory.
    pub fn bind_memory(node: &Node, name: &str) -> Result<Listener, ListenError> {
        let address = Address::Memory(name.to_owned());
        let taken = || ListenError::Memory(name.to_owned());
        let network = node.setup.memory.as_ref().ok_or_else(taken)?;
        let memory = network.listen(&address.to_string(), node.identity()).ok_or_else(taken)?;
        Ok(Listener { tcp: None, local: None, memory: Some(memory), address })
    }

    /// Where others reach it. A wildcard address is not one: say which interface others use.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The next connection.
    pub async fn next(&mut self) -> Incoming {
        loop {
            let tcp = async {
                match &self.tcp {
                    Some(listener) => listener.accept().await.map(|(stream, from)| Incoming::Tcp(stream, from)),
                    None => std::future::pending().await,
                }
            };
            let local = async {
                match &self.local {
                    Some((listener, _)) => listener.accept().await.map(|(stream, _)| Incoming::Local(stream)),
                    None => std::future::pending().await,
                }
            };
            let memory = async {
                match &mut self.memory {
                    Some(from) => from.recv().await,
                    None => std::future::pending().await,
                }
            };
            let taken = tokio::select! {
                taken = tcp => taken,
                taken = local => taken,
                taken = memory => match taken {
                    Some((stream, who)) => Ok(Incoming::Memory(stream, who)),
                    None => std::future::pending().await,
                },
            };
            match taken {
                Ok(incoming) => return incoming,
                Err(e) => {
                    // Out of file descriptors, most likely: others must end before more can come.
                    tracing::warn!(error = %e, "cannot take a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Serves until dropped: each connection in a task of its own on this runtime, with a handler of its own.
    pub async fn serve<H>(mut self, node: Arc<Node>, mut handler: impl FnMut() -> H)
    where
        H: Handler + Send + 'static,
    {
        let handshakes = Arc::new(Semaphore::new(MOST_HANDSHAKES));
        let mut tasks = tokio::task::JoinSet::new();
        loop {
            let Ok(turn) = handshakes.clone().acquire_owned().await else { return };
            let incoming = self.next().await;
            while tasks.try_join_next().is_some() {}
            let (node, handler) = (node.clone(), handler());
            tasks.spawn(async move {
                let welcomed = node.welcome(incoming).await;
                drop(turn);
                if let Ok(connection) = welcomed {
                    connection.run(handler).await;
                }
            });
        }
    }

    /// The same on a `LocalSet`, for handlers that stay on one thread.
    pub async fn serve_local<H>(mut self, node: Arc<Node>, mut handler: impl FnMut() -> H)
    where
        H: Handler + 'static,
    {
        let handshakes = Arc::new(Semaphore::new(MOST_HANDSHAKES));
        let mut tasks = tokio::task::JoinSet::new();
        loop {
            let Ok(turn) = handshakes.clone().acquire_owned().await else { return };
            let incoming = self.next().await;
            while tasks.try_join_next().is_some() {}
            let (node, handler) = (node.clone(), handler());
            tasks.spawn_local(async move {
                let welcomed = node.welcome(incoming).await;
                drop(turn);
                if let Ok(connection) = welcomed {
                    connection.run(handler).await;
                }
            });
        }
    }
}
