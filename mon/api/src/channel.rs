//! gRPC channels over the cluster's mutual TLS. They connect when first used and again whenever they have to.

use std::io;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use nacre_net::tls::{Expect, TlsClient, Watched};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// The largest message either side takes: a map of 10,000 OSDs is a few megabytes.
pub const LARGEST_MESSAGE: usize = 64 << 20;

const CONNECT: Duration = Duration::from_secs(2);

/// A channel to the monitor at `address` (`host:port`) that must be who `expect` says. A connection ends when the monitor
/// is no longer believed: it was revoked, or its authority was replaced.
pub fn channel(tls: &TlsClient, address: &str, expect: Expect) -> Channel {
    let (tls, address) = (tls.clone(), address.to_owned());
    let dial = tower::service_fn(move |_: Uri| {
        let (tls, address, expect) = (tls.clone(), address.clone(), expect.clone());
        async move {
            let connect = async {
                let stream = TcpStream::connect(&address).await?;
                stream.set_nodelay(true)?;
                let (stream, monitor) = tls.connect(stream, &expect).await.map_err(io::Error::other)?;
                let stream = Watched::new(stream, monitor, tls.trust().clone(), |_| {});
                Ok::<_, io::Error>(TokioIo::new(stream))
            };
            tokio::time::timeout(CONNECT, connect)
                .await
                .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("no connection to {address} in time")))?
        }
    });
    // The address is the connector's business: host names mean nothing to our certificates.
    Endpoint::from_static("http://mon.nacre")
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(2))
        .keep_alive_while_idle(true)
        .connect_with_connector_lazy(dial)
}
