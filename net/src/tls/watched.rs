//! A stream that ends when the peer is no longer believed, also in the middle of a message: for connections whose owner
//! (gRPC on either side) does not ask again by itself. Frames ask on their own, in the connection's driver.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{PeerError, Trust};
use crate::identity::Identity;

/// See the module. Whoever owns it reads all the time, so belief is looked at all the time.
pub struct Watched<S> {
    stream: S,
    identity: Arc<Identity>,
    doubted: Pin<Box<dyn Future<Output = PeerError> + Send>>,
    over: bool,
}

impl<S> Watched<S> {
    /// The peer `identity` as long as `trust` believes it; `said` is told why no longer, once.
    pub fn new(
        stream: S,
        identity: Arc<Identity>,
        trust: Arc<Trust>,
        said: impl FnOnce(&PeerError) + Send + 'static,
    ) -> Watched<S> {
        let who = identity.clone();
        let doubted = Box::pin(async move {
            let error = trust.until_doubted(&who).await;
            said(&error);
            error
        });
        Watched { stream, identity, doubted, over: false }
    }

    /// The peer.
    #[must_use]
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// Whether the peer is still believed. Registers the task that polls, so the end of belief wakes it.
    fn believed(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.over {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        match self.doubted.as_mut().poll(cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(error) => {
                self.over = true;
                Err(io::Error::new(io::ErrorKind::PermissionDenied, error))
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.believed(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
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
