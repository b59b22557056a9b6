//! Accepts connections: TLS first, each handshake in a task of its own so that a slow stranger delays nobody.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use nacre_net::identity::gate::Caller;
use nacre_net::identity::{Denied, Gate, Identity, Service};
use nacre_net::tls::{Accepted, TlsServer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

/// Handshakes under way at once; more strangers than that wait in the kernel's queue.
const HANDSHAKES: usize = 64;

/// A connection of a member.
pub struct MemberStream {
    stream: Box<dyn Duplex>,
    identity: Arc<Identity>,
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

impl Connected for MemberStream {
    type ConnectInfo = Arc<Identity>;

    fn connect_info(&self) -> Arc<Identity> {
        self.identity.clone()
    }
}

impl AsyncRead for MemberStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for MemberStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Members that connect, as tonic takes them. Ends when its reader does.
pub fn members(listener: TcpListener, tls: TlsServer, gate: Gate) -> ReceiverStream<io::Result<MemberStream>> {
    let (to, accepted) = mpsc::channel(16);
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
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (tls, to, gate) = (tls.clone(), to.clone(), gate.clone());
            tokio::spawn(async move {
                let _ = stream.set_nodelay(true);
                match tls.accept(stream).await {
                    Ok(Accepted::Member(stream, identity)) => {
                        drop(permit);
                        let _ = to.send(Ok(MemberStream { stream, identity })).await;
                    }
                    Ok(Accepted::Newcomer(_)) => {
                        tracing::debug!(%from, "newcomers are not served on this port");
                    }
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
    ReceiverStream::new(accepted)
}
