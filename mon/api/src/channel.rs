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

/// For so long it may take to answer that.
const ANSWER: Duration = Duration::from_secs(2);
/// How often a monitor that says nothing is asked whether it is there, by who has to hear at once what it knows.
pub const ATTENTIVE: Duration = Duration::from_secs(2);
/// How often by who finds out otherwise that it misses something, and asks another then.
pub const AT_EASE: Duration = Duration::from_secs(30);

/// Has the kernel ask the other's kernel whether it is there, which wakes nobody: a connection to a host that is gone ends
/// as soon as one to a monitor that is asked by [`ATTENTIVE`] callers. Only a monitor that hangs while its host lives
/// takes longer to be found out by those who are [`AT_EASE`].
fn have_kernel_ask(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_tcp_keepidle(stream, ATTENTIVE)?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(1))?;
    sockopt::set_tcp_keepcnt(stream, 2)?;
    sockopt::set_socket_keepalive(stream, true)?;
    let limit = ATTENTIVE + ANSWER;
    sockopt::set_tcp_user_timeout(stream, u32::try_from(limit.as_millis()).unwrap_or(u32::MAX))?;
    Ok(())
}

/// A channel to the monitor at `address` (`host:port`) that must be who `expect` says. A connection ends when the monitor
/// is no longer believed: it was revoked, or its authority was replaced.
pub fn channel(tls: &TlsClient, address: &str, expect: Expect) -> Channel {
    channel_asking(tls, address, expect, ATTENTIVE)
}

/// The same, with another time after which a silent monitor is asked whether it is there.
pub fn channel_asking(tls: &TlsClient, address: &str, expect: Expect, silence: Duration) -> Channel {
    let (tls, address) = (tls.clone(), address.to_owned());
    let dial = tower::service_fn(move |_: Uri| {
        let (tls, address, expect) = (tls.clone(), address.clone(), expect.clone());
        async move {
            let connect = async {
                let stream = TcpStream::connect(&address).await?;
                stream.set_nodelay(true)?;
                have_kernel_ask(&stream)?;
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
        .http2_keep_alive_interval(silence)
        .keep_alive_timeout(ANSWER)
        .keep_alive_while_idle(true)
        .connect_with_connector_lazy(dial)
}
