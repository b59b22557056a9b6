//! A process in the network: its identity, whom it trusts, where it listens, whom it dials.
//!
//! - [`address`]: where a process can be reached, over TCP and on its own host.
//! - [`listener`]: connections that come in. - [`link`]: a connection that is kept up, with back-off.
//! - [`memory`]: a network within the process, for tests and simulation: the same messages, the same rules, no sockets.
//! - [`stream`]: the one stream type of all three ways.
//!
//! # The same host
//! A process that listens also does so on a local socket, and its address says on which host and where. A dialer on that
//! host uses it by itself: half the CPU per byte, no TLS. What TLS proves is proven so: the hello carries the
//! certificate, judged as always; and that its sender holds the key is believed of processes of the same user and of
//! root, who could read the key's file anyway. The system names the user at the other end (`SO_PEERCRED`); both ends
//! look. Anyone else on that host uses TCP and TLS, as from afar.

pub mod address;
pub mod link;
pub mod listener;
pub mod memory;
pub mod stream;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use tokio::net::{TcpStream, UnixStream};

use crate::conn::hello::{self, Own, Proof};
use crate::conn::shared::Shared;
use crate::conn::{Budget, Config, Connection, End, NetMetrics, Peer, Via};
use crate::identity::gate::{Audit, Caller, Denied};
use crate::identity::{Identity, Name, Service};
use crate::tls::{ALPN_FRAMES, Accepted, Credentials, Expect, TlsClient, TlsError, TlsServer, Trust};

pub use address::{Address, HostId};
pub use link::Link;
pub use listener::{Incoming, Listener};
pub use stream::Stream;

/// What a process needs to speak to others.
pub struct Setup {
    /// Who it is.
    pub credentials: Arc<Credentials>,
    /// Whom it believes.
    pub trust: Arc<Trust>,
    /// Which run of it this is: greater than that of the run before, for example the time of its start.
    pub incarnation: u64,
    /// Its session as a client, 0 for none.
    pub session: u64,
    /// How connections behave.
    pub config: Config,
    /// Memory for requests in flight on all connections that came in; none for no limit but the windows.
    pub budget: Option<Arc<Budget>>,
    /// What is counted.
    pub metrics: NetMetrics,
    /// Where refused peers are reported.
    pub audit: Arc<dyn Audit>,
    /// The service it offers, for the audit.
    pub service: Service,
    /// A network within the process instead of sockets.
    pub memory: Option<Arc<memory::Network>>,
}

/// Which connection of which session.
type Seat = (Name, u64, u32);

/// A process in the network. One per process, shared by all its listeners and links.
pub struct Node {
    setup: Setup,
    tls_server: TlsServer,
    tls_client: TlsClient,
    host: HostId,
    /// Connections that came in from sessions; a newer one of the same seat replaces the older.
    seats: Mutex<HashMap<Seat, Weak<Shared>>>,
    /// Every connection that came in.
    guests: Mutex<Vec<Weak<Shared>>>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Node({})", self.setup.credentials.identity().name)
    }
}

impl Node {
    /// Puts it together.
    pub fn new(setup: Setup) -> Result<Arc<Node>, TlsError> {
        let tls_server = TlsServer::new(setup.trust.clone(), setup.credentials.clone(), &[ALPN_FRAMES])?;
        let tls_client = TlsClient::new(setup.trust.clone(), setup.credentials.clone(), ALPN_FRAMES)?;
        Ok(Arc::new(Node {
            setup,
            tls_server,
            tls_client,
            host: HostId::of_this_host(),
            seats: Mutex::default(),
            guests: Mutex::default(),
        }))
    }

    /// Who this is.
    #[must_use]
    pub fn identity(&self) -> Arc<Identity> {
        self.setup.credentials.identity()
    }

    /// The host it runs on.
    #[must_use]
    pub fn host(&self) -> HostId {
        self.host
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &NetMetrics {
        &self.setup.metrics
    }

    fn own(&self, lane: u32, last_met: u64, local: bool, serves: bool) -> Own {
        let identity = self.identity();
        Own {
            cluster: identity.cluster,
            name: identity.name.to_string(),
            incarnation: self.setup.incarnation,
            session: self.setup.session,
            lane,
            last_met,
            certificate: if local { Bytes::from(self.setup.credentials.certificate()) } else { Bytes::new() },
            config: self.setup.config.clone(),
            budget: self.setup.budget.clone().filter(|_| serves),
            metrics: self.setup.metrics.clone(),
        }
    }

    /// Connects to a peer: on this host's socket if it is there, in memory if this process has such a network, else over
    /// TCP. `last_met` is the incarnation it had last time, 0 if never.
    pub async fn dial(
        &self,
        to: &Address,
        expect: &Expect,
        lane: u32,
        last_met: u64,
    ) -> Result<Connection<Stream>, End> {
        let dialed = self.dial_any(to, expect, lane, last_met).await;
        if let Err(end) = &dialed {
            self.setup.metrics.ended(end.reason());
        }
        dialed
    }

    async fn dial_any(
        &self,
        to: &Address,
        expect: &Expect,
        lane: u32,
        last_met: u64,
    ) -> Result<Connection<Stream>, End> {
        if let Some(network) = &self.setup.memory {
            let (stream, them) = network.connect(&to.to_string(), self.identity()).await?;
            expect.check(&them)?;
            let own = self.own(lane, last_met, false, false);
            let proof = Proof::Known(them, Some(self.setup.trust.clone()));
            return hello::dial(Stream::Memory(stream), own, proof, Via::Memory, Some(expect)).await;
        }
        let mut failed = None;
        if let Some(path) = to.local_on(self.host) {
            match UnixStream::connect(path).await {
                Ok(stream) => match self.local_via(&stream) {
                    Ok(via) => {
                        let own = self.own(lane, last_met, true, false);
                        let proof = Proof::InHello(self.setup.trust.clone());
                        return hello::dial(Stream::Local(stream), own, proof, via, Some(expect)).await;
                    }
                    Err(end) => failed = Some(end),
                },
                // Another user's socket, another container's path, or a process that does not run: TCP tells.
                Err(source) => failed = Some(End::Connect { to: path.display().to_string(), source }),
            }
        }
        let Some(tcp) = to.tcp() else {
            let nowhere = || End::Connect { to: to.to_string(), source: std::io::ErrorKind::NotFound.into() };
            return Err(failed.unwrap_or_else(nowhere));
        };
        let connect = tokio::time::timeout(crate::tls::HANDSHAKE_TIMEOUT, TcpStream::connect(tcp));
        let connected = connect.await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        let stream = connected.map_err(|source| End::Connect { to: tcp.to_string(), source })?;
        prepare(&stream, &self.setup.config).map_err(End::Io)?;
        let (stream, them) = self.tls_client.connect(stream, expect).await?;
        let own = self.own(lane, last_met, false, false);
        let proof = Proof::Known(them, Some(self.setup.trust.clone()));
        let via = Via::Tls(tcp);
        hello::dial(Stream::Tls(Box::new(stream.into())), own, proof, via, Some(expect)).await
    }

    /// Makes handshake and hello on a connection that came in. What does not become one is counted and audited.
    pub async fn welcome(&self, incoming: Incoming) -> Result<Connection<Stream>, End> {
        let from = incoming.to_string();
        let welcomed = self.welcome_any(incoming).await;
        match &welcomed {
            Ok(connection) => {
                self.take_seat(&connection.peer()).await;
                let mut guests = self.guests.lock().unwrap_or_else(PoisonError::into_inner);
                if guests.len() == guests.capacity() {
                    guests.retain(|shared| shared.strong_count() > 0);
                }
                guests.push(Arc::downgrade(&connection.peer().0));
            }
            Err(end) => {
                self.setup.metrics.ended(end.reason());
                tracing::info!(from, reason = end.reason(), error = %end, "connection refused");
                // What breaks off by itself was not refused: nobody asked for anything.
                let refused = matches!(
                    end,
                    End::Peer(_)
                        | End::Tls(TlsError::Peer(_))
                        | End::LocalUser { .. }
                        | End::Hello(_)
                        | End::Protocol(_)
                        | End::Frame(_)
                );
                if refused {
                    self.setup.audit.denied(&Denied {
                        who: Caller::Stranger(from),
                        service: self.setup.service,
                        what: "connect".into(),
                        why: end.to_string(),
                    });
                }
            }
        }
        welcomed
    }

    async fn welcome_any(&self, incoming: Incoming) -> Result<Connection<Stream>, End> {
        let (stream, proof, via) = match incoming {
            Incoming::Tcp(stream, from) => {
                prepare(&stream, &self.setup.config).map_err(End::Io)?;
                match self.tls_server.accept(stream).await? {
                    Accepted::Member(stream, who) => {
                        let proof = Proof::Known(who, Some(self.setup.trust.clone()));
                        (Stream::Tls(Box::new((*stream).into())), proof, Via::Tls(from))
                    }
                    Accepted::Newcomer(_) => return Err(End::Protocol("newcomers join at the monitors")),
                }
            }
            Incoming::Local(stream) => {
                let via = self.local_via(&stream)?;
                (Stream::Local(stream), Proof::InHello(self.setup.trust.clone()), via)
            }
            Incoming::Memory(stream, who) => {
                let proof = Proof::Known(who, Some(self.setup.trust.clone()));
                (Stream::Memory(stream), proof, Via::Memory)
            }
        };
        let local = matches!(via, Via::Local { .. });
        let own = self.own(0, 0, local, true);
        hello::accept(stream, own, proof, via).await
    }

    /// Puts a connection that came in on its seat. An older one there is ended, and its task done, when this returns;
    /// the new one has not handed anything over yet.
    async fn take_seat(&self, peer: &Peer) {
        let info = peer.info();
        if info.session == 0 {
            return;
        }
        let seat = (info.identity.name.clone(), info.session, info.lane);
        loop {
            let older = {
                let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
                // Now and then, those that are gone.
                if seats.len() >= 64 && seats.len().is_power_of_two() {
                    seats.retain(|_, shared| shared.strong_count() > 0);
                }
                match seats.remove(&seat).and_then(|shared| shared.upgrade()) {
                    Some(older) => older,
                    None => {
                        seats.insert(seat, Arc::downgrade(&peer.0));
                        return;
                    }
                }
            };
            older.close(End::Replaced);
            older.ended().await;
        }
    }

    /// Who is at the other end of a local socket, if it is someone who may be.
    fn local_via(&self, stream: &UnixStream) -> Result<Via, End> {
        let them = stream.peer_cred().map_err(End::Io)?;
        let owner = rustix::process::geteuid().as_raw();
        if them.uid() != owner && them.uid() != 0 {
            return Err(End::LocalUser { uid: them.uid(), owner });
        }
        Ok(Via::Local { uid: them.uid(), pid: them.pid() })
    }

    /// Ends every connection of a session that came in: it was fenced.
    pub fn end_session(&self, session: u64) -> usize {
        let seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        let of_session = seats.iter().filter(|((_, s, _), _)| *s == session);
        of_session.filter_map(|(_, shared)| shared.upgrade()).map(|s| s.close(End::Local("session fenced"))).count()
    }

    /// The peer of each connection that came in.
    #[must_use]
    pub fn guests(&self) -> Vec<Peer> {
        let guests = self.guests.lock().unwrap_or_else(PoisonError::into_inner);
        let peers = guests.iter().filter_map(Weak::upgrade).map(Peer);
        peers.filter(|peer| peer.is_over().is_none()).collect()
    }

    /// The same for `nacre daemon NAME dump state`.
    #[must_use]
    pub fn dump(&self) -> serde_json::Value {
        let dump = |peer: Peer| {
            let info = peer.info();
            serde_json::json!({
                "name": info.identity.name,
                "via": info.via.to_string(),
                "session": info.session,
                "lane": info.lane,
                "incarnation": info.incarnation,
            })
        };
        self.guests().into_iter().map(dump).collect::<Vec<_>>().into()
    }

    /// The orderly end: takes leave of every connection that came in, and waits until their tasks are done. Stop
    /// listening first.
    pub async fn take_leave(&self, why: &'static str) {
        let guests = self.guests();
        guests.iter().for_each(|peer| peer.close(why));
        for peer in guests {
            peer.over_with().await;
        }
    }
}

fn prepare(stream: &TcpStream, config: &Config) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    // Connections carry few packets at a time: each is sent again soon, not ever later, when a cable comes and goes.
    rustix::net::sockopt::set_tcp_thin_linear_timeouts(stream, true)?;
    // The kernel's own limit for unacknowledged bytes: found out also while this process has nothing to read.
    let limit = config.tick * (config.silence + 1);
    rustix::net::sockopt::set_tcp_user_timeout(stream, u32::try_from(limit.as_millis()).unwrap_or(u32::MAX))?;
    Ok(())
}

#[cfg(test)]
#[path = "node_test.rs"]
mod tests;
