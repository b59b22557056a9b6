//! The smallest HTTP server that serves `/metrics` and `/health`. Each answer ends its connection. Not for anything that
//! matters: it has no TLS, so it listens on the loopback address unless told otherwise, and it changes nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::shutdown::Shutdown;
use crate::metrics::Registry;
use crate::node::listener::ListenError;

/// A request's head is no longer.
const MOST_HEAD: usize = 8 * 1024;
/// A connection lasts no longer.
const PATIENCE: Duration = Duration::from_secs(5);
/// At once.
const MOST_CONNECTIONS: usize = 32;

/// The server.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

/// What is asked for, out of a request's head. Public for the fuzzer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// More bytes are needed.
    More,
    /// This path, with a body in the answer or without.
    Path(Page, bool),
    /// Something that is not understood.
    Bad,
    /// A verb that is not served.
    Verb,
}

/// The pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// `/metrics`
    Metrics,
    /// `/health`
    Health,
    /// Any other.
    None,
}

/// Reads the head of a request.
#[must_use]
pub fn asked(head: &[u8]) -> Asked {
    if !head.windows(4).any(|w| w == b"\r\n\r\n") {
        return if head.len() >= MOST_HEAD { Asked::Bad } else { Asked::More };
    }
    let line = head.split(|b| *b == b'\r').next().unwrap_or_default();
    let Ok(line) = std::str::from_utf8(line) else { return Asked::Bad };
    let mut words = line.split(' ');
    let (Some(verb), Some(path), Some(version), None) = (words.next(), words.next(), words.next(), words.next()) else {
        return Asked::Bad;
    };
    if !version.starts_with("HTTP/1.") {
        return Asked::Bad;
    }
    let page = match path.split('?').next().unwrap_or_default() {
        "/metrics" => Page::Metrics,
        "/health" => Page::Health,
        _ => Page::None,
    };
    match verb {
        "GET" => Asked::Path(page, true),
        "HEAD" => Asked::Path(page, false),
        _ => Asked::Verb,
    }
}

impl Server {
    /// Listens.
    pub async fn bind(address: SocketAddr) -> Result<Server, ListenError> {
        let tcp = |source| ListenError::Tcp { address, source };
        let listener = TcpListener::bind(address).await.map_err(tcp)?;
        Ok(Server { address: listener.local_addr().map_err(tcp)?, listener })
    }

    /// Where.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until dropped.
    pub async fn serve(self, registry: Arc<Registry>, shutdown: Shutdown) {
        let turns = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        let mut tasks = tokio::task::JoinSet::new();
        loop {
            let Ok(turn) = turns.clone().acquire_owned().await else { return };
            let Ok((stream, _)) = self.listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            while tasks.try_join_next().is_some() {}
            let (registry, shutdown) = (registry.clone(), shutdown.clone());
            tasks.spawn(async move {
                let _ = tokio::time::timeout(PATIENCE, answer(stream, &registry, &shutdown)).await;
                drop(turn);
            });
        }
    }
}

async fn answer(mut stream: TcpStream, registry: &Registry, shutdown: &Shutdown) -> std::io::Result<()> {
    let mut head = Vec::with_capacity(1024);
    let asked = loop {
        match asked(&head) {
            Asked::More if (&mut stream).take(MOST_HEAD as u64).read_buf(&mut head).await? == 0 => return Ok(()),
            Asked::More => {}
            asked => break asked,
        }
    };
    let (status, kind, body) = match asked {
        Asked::Path(Page::Metrics, _) => ("200 OK", "text/plain; version=0.0.4", registry.render()),
        Asked::Path(Page::Health, _) if shutdown.has_begun() => {
            ("503 Service Unavailable", "text/plain", "shutting down\n".to_owned())
        }
        Asked::Path(Page::Health, _) => ("200 OK", "text/plain", "ok\n".to_owned()),
        Asked::Path(Page::None, _) => ("404 Not Found", "text/plain", "/metrics and /health are here\n".to_owned()),
        Asked::Verb => ("405 Method Not Allowed", "text/plain", "only GET and HEAD\n".to_owned()),
        Asked::Bad | Asked::More => ("400 Bad Request", "text/plain", "not understood\n".to_owned()),
    };
    let mut out = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    if !matches!(asked, Asked::Path(_, false)) {
        out.push_str(&body);
    }
    stream.write_all(out.as_bytes()).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn get(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut out = String::new();
        stream.read_to_string(&mut out).await.unwrap();
        out
    }

    #[tokio::test]
    async fn serves_metrics_and_health_and_nothing_else() {
        let registry = Registry::new("osd");
        registry.counter("ops_total", "Operations.", &[]).add(5);
        let server = Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let at = server.address();
        let shutdown = Shutdown::by_hand();
        tokio::spawn(server.serve(registry, shutdown.clone()));
        let page = get(at, "GET /metrics?x=1 HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.ends_with("nacre_osd_ops_total 5\n"), "{page}");
        assert!(get(at, "HEAD /metrics HTTP/1.0\r\n\r\n").await.ends_with("\r\n\r\n"));
        assert!(get(at, "GET /health HTTP/1.1\r\n\r\n").await.ends_with("ok\n"));
        shutdown.begin("test");
        assert!(get(at, "GET /health HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 503"));
        assert!(get(at, "GET /secrets HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 404"));
        assert!(get(at, "POST /metrics HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 405"));
        assert!(get(at, "\x16\x03\x01\r\n\r\n").await.starts_with("HTTP/1.1 400"));
        assert_eq!(asked(&vec![b'a'; MOST_HEAD]), Asked::Bad);
        let taken = Server::bind(at).await.unwrap_err().to_string();
        assert!(taken.contains("another process has this port"), "{taken}");
    }
}
