//! Accepts connections: TLS first, each handshake in a task of its own so that a slow stranger delays nobody. A member's
//! connection ends when the member is no longer believed (revoked, or its certificate has ended), also in the middle of
//! a stream; a newcomer's, that may only ask to join, ends soon by itself.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use nacre_net::identity::gate::Caller;
use nacre_net::identity::{Denied, Gate, Identity, Name, Service};
use nacre_net::tls::{Accepted, PeerError, TlsError, TlsServer, Watched};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::cert::Stranger;

/// Handshakes under way at once; more strangers than that wait in the kernel's queue.
const HANDSHAKES: usize = 64;

/// Newcomers served at once.
const NEWCOMERS: usize = 32;
/// How long a newcomer's connection lives. One that waits for an operator comes back.
const NEWCOMER_LIFE: Duration = Duration::from_secs(30);

/// A connection of a member: ends when the member is no longer believed.
pub struct MemberStream(Watched<Box<dyn Duplex>>);

/// A connection of a newcomer.
pub struct NewcomerStream {
    stream: Box<dyn Duplex>,
    from: SocketAddr,
    end: Pin<Box<tokio::time::Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl Connected for NewcomerStream {
    type ConnectInfo = Stranger;

    fn connect_info(&self) -> Stranger {
        Stranger(self.from)
    }
}

impl AsyncRead for NewcomerStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for NewcomerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

impl Connected for MemberStream {
    type ConnectInfo = Arc<Identity>;

    fn connect_info(&self) -> Arc<Identity> {
        self.0.identity().clone()
    }
}

impl AsyncRead for MemberStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for MemberStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}

/// Those who connect, as tonic takes them.
pub type Accepting<T> = ReceiverStream<io::Result<T>>;

/// Members and newcomers that connect. Ends when the reader of the members does.
pub fn accept(
    listener: TcpListener,
    tls: TlsServer,
    gate: Gate,
) -> (Accepting<MemberStream>, Accepting<NewcomerStream>) {
    let (to, accepted) = mpsc::channel(16);
    let (to_newcomers, newcomers) = mpsc::channel(4);
    let places = Arc::new(Semaphore::new(NEWCOMERS));
    tokio::spawn(async move {
        let room = Arc::new(Semaphore::new(HANDSHAKES));
        loop {
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            let connection = tokio::select! {
                connection = listener.accept() => connection,
                () = to.closed() => return,
            };
            let (stream, from) = match connection {
                Ok(connection) => connection,
                Err(error) => {
                    // Out of descriptors, most likely: others may give some back.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (tls, to, gate) = (tls.clone(), to.clone(), gate.clone());
            let (to_newcomers, places) = (to_newcomers.clone(), places.clone());
            tokio::spawn(async move {
                let _ = stream.set_nodelay(true);
                match tls.accept(stream).await {
                    Ok(Accepted::Member(stream, identity)) => {
                        drop(permit);
                        let name = identity.name.clone();
                        let stream: Box<dyn Duplex> = stream;
                        let member = Watched::new(stream, identity, tls.trust().clone(), move |error| {
                            turned_out(&gate, &name, error);
                        });
                        let _ = to.send(Ok(MemberStream(member))).await;
                    }
                    Ok(Accepted::Newcomer(stream)) => {
                        drop(permit);
                        // More than that are turned away at once: they come back.
                        if let Ok(place) = places.try_acquire_owned() {
                            let end = Box::pin(tokio::time::sleep(NEWCOMER_LIFE));
                            let _ = to_newcomers.send(Ok(NewcomerStream { stream, from, end, _place: place })).await;
                        }
                    }
                    // Who broke off by itself was not refused.
                    Err(TlsError::Io(error)) => tracing::debug!(%from, %error, "a handshake was broken off"),
                    Err(error) => {
                        gate.refuse(Denied {
                            who: Caller::Stranger(from.to_string()),
                            service: Service::Mon,
                            what: "connect".into(),
                            why: error.to_string(),
                        });
                    }
                }
            });
        }
    });
    (ReceiverStream::new(accepted), ReceiverStream::new(newcomers))
}

/// Says in the audit that a member has to go. That its certificate of that time has had its day is no misdeed: whoever
/// has none that is newer finds out, and the audit too, when it connects again.
fn turned_out(gate: &Gate, name: &Name, error: &PeerError) {
    if error.is_of_age() {
        tracing::debug!(who = %name, %error, "a connection made with an earlier certificate ends");
        return;
    }
    gate.refuse(Denied {
        who: Caller::Member(name.clone()),
        service: Service::Mon,
        what: "stay connected".into(),
        why: error.to_string(),
    });
}
