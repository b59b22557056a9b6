//! The first frame in each direction. The dialer speaks first; the acceptor judges it and answers with its own hello, or
//! with a bye that says why not.
//!
//! Over TLS the name was proven in the handshake, and the hello must bear the same. On a local socket the hello carries
//! the sender's certificate; it is judged like any other, and in place of the proof that the sender has its key stands
//! what the system says about the process at the other end (see [`crate::node`]).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::driver::Start;
use super::shared::Shared;
use super::{Budget, Config, Connection, End, NetMetrics, PeerInfo, Via};
use crate::frame::encode::seal;
use crate::frame::{Decoder, Frame, Header, Kind, Limits};
use crate::identity::{ClusterId, Identity, UnixTime};
use crate::tls::trust::Purpose;
use crate::tls::{Expect, Trust};

/// The hello must come whole within this.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// The versions of the protocol spoken here. 1: the first.
pub const VERSIONS: std::ops::RangeInclusive<u32> = 1..=1;
/// A hello is small.
const HELLO_LIMITS: Limits = Limits { meta: 16 * 1024, data: 0 };

/// What a hello says.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Hello {
    /// The oldest version the sender speaks.
    #[prost(uint32, tag = "1")]
    pub oldest: u32,
    /// The newest.
    #[prost(uint32, tag = "2")]
    pub newest: u32,
    /// The cluster, 16 bytes.
    #[prost(bytes = "bytes", tag = "3")]
    pub cluster: Bytes,
    /// The sender's name.
    #[prost(string, tag = "4")]
    pub name: String,
    /// Which run of its process this is.
    #[prost(uint64, tag = "5")]
    pub incarnation: u64,
    /// Its session as a client, 0 for none.
    #[prost(uint64, tag = "6")]
    pub session: u64,
    /// Which of the session's connections.
    #[prost(uint32, tag = "7")]
    pub lane: u32,
    /// The window it grants, in bytes.
    #[prost(uint64, tag = "8")]
    pub window: u64,
    /// The largest metadata it accepts.
    #[prost(uint32, tag = "9")]
    pub most_meta: u32,
    /// The most data it accepts.
    #[prost(uint32, tag = "10")]
    pub most_data: u32,
    /// The peer's incarnation when the sender last met it, 0 if it never did.
    #[prost(uint64, tag = "11")]
    pub last_met: u64,
    /// On a local socket: the sender's certificate.
    #[prost(bytes = "bytes", tag = "12")]
    pub certificate: Bytes,
}

/// What this side says of itself.
#[derive(Clone, Debug)]
pub struct Own {
    /// The cluster.
    pub cluster: ClusterId,
    /// The own name.
    pub name: String,
    /// Which run of the process this is: greater than that of the run before, for example the time of its start.
    pub incarnation: u64,
    /// The session as a client, 0 for none.
    pub session: u64,
    /// Which of the session's connections.
    pub lane: u32,
    /// The peer's incarnation when last met, 0 if never.
    pub last_met: u64,
    /// The own certificate, on local sockets only.
    pub certificate: Bytes,
    /// How the connection behaves.
    pub config: Config,
    /// The memory all connections share.
    pub budget: Option<Arc<Budget>>,
    /// What is counted.
    pub metrics: NetMetrics,
}

/// How the peer's identity is known.
#[derive(Clone, Debug)]
pub enum Proof {
    /// From the TLS handshake, or because both ends are in this process. With what it is judged again while it lives.
    Known(Arc<Identity>, Option<Arc<Trust>>),
    /// From the certificate in its hello; the system vouches for its process.
    InHello(Arc<Trust>),
}

fn hello_frame(own: &Own) -> (Header, Bytes) {
    let hello = Hello {
        oldest: *VERSIONS.start(),
        newest: *VERSIONS.end(),
        cluster: Bytes::copy_from_slice(&own.cluster.0),
        name: own.name.clone(),
        incarnation: own.incarnation,
        session: own.session,
        lane: own.lane,
        window: own.config.window,
        most_meta: own.config.limits.meta,
        most_data: own.config.limits.data,
        last_met: own.last_met,
        certificate: own.certificate.clone(),
    };
    let meta = Bytes::from(hello.encode_to_vec());
    (seal(Header::bare(Kind::Hello, 0), &meta, &[], None), meta)
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, header: &Header, meta: &[u8]) -> Result<(), End> {
    let mut bytes = header.encode().to_vec();
    bytes.extend_from_slice(meta);
    stream.write_all(&bytes).await.map_err(End::from_io)?;
    stream.flush().await.map_err(End::from_io)
}

async fn receive<S: AsyncRead + Unpin>(stream: &mut S, decoder: &mut Decoder) -> Result<Frame, End> {
    loop {
        if let Some(frame) = decoder.next(&mut |_| true)? {
            return Ok(frame);
        }
        let mut target = decoder.target();
        let read = stream.read_buf(&mut target).await.map_err(End::from_io)?;
        if read == 0 {
            let cut = decoder.within_frame();
            return Err(if cut { crate::frame::FrameError::Truncated.into() } else { End::Closed });
        }
        decoder.filled(read, usize::MAX);
    }
}

fn judge(frame: &Frame, own: &Own, proof: &Proof, purpose: Purpose) -> Result<(Hello, Arc<Identity>), End> {
    if frame.header.kind == Kind::Bye {
        return Err(End::Bye(String::from_utf8_lossy(&frame.meta).chars().take(200).collect()));
    }
    if frame.header.kind != Kind::Hello {
        return Err(End::Protocol("the first frame is no hello"));
    }
    let hello = Hello::decode(frame.meta.clone()).map_err(|e| End::Hello(format!("it cannot be read ({e})")))?;
    if hello.newest < *VERSIONS.start() || hello.oldest > *VERSIONS.end() {
        return Err(End::Hello(format!(
            "the peer speaks versions {} to {}, this side {} to {}; upgrade the older one",
            hello.oldest,
            hello.newest,
            VERSIONS.start(),
            VERSIONS.end()
        )));
    }
    if hello.cluster != own.cluster.0[..] {
        return Err(End::Hello(format!("the peer is of another cluster than {}", own.cluster)));
    }
    let identity = match proof {
        Proof::Known(identity, _) => identity.clone(),
        Proof::InHello(trust) => {
            if hello.certificate.is_empty() {
                return Err(crate::tls::PeerError::NoCertificate.into());
            }
            let chain = [CertificateDer::from(hello.certificate.to_vec())];
            Arc::new(trust.judge(&chain, purpose, UnixTime::now())?)
        }
    };
    if identity.name.to_string() != hello.name {
        return Err(End::Hello(format!(
            "the peer calls itself {:?}, its certificate says {}",
            hello.name, identity.name
        )));
    }
    Ok((hello, identity))
}

/// What was agreed with the peer.
struct Agreed {
    hello: Hello,
    identity: Arc<Identity>,
    resumed: bool,
}

fn build<S>(stream: S, decoder: Decoder, own: Own, agreed: Agreed, via: Via, proof: Proof) -> Connection<S> {
    let Agreed { hello, identity, resumed } = agreed;
    let info =
        PeerInfo { identity, via, incarnation: hello.incarnation, session: hello.session, lane: hello.lane, resumed };
    let accepts = Limits { meta: hello.most_meta, data: hello.most_data };
    let shared = Shared::new(info, accepts, hello.window, own.config.notices);
    let trust = match proof {
        Proof::Known(_, trust) => trust,
        Proof::InHello(trust) => Some(trust),
    };
    let mut decoder = decoder;
    decoder.set_limits(own.config.limits);
    Connection::new(Start {
        stream,
        shared: Arc::new(shared),
        decoder,
        budget: own.budget,
        trust,
        metrics: own.metrics,
        config: own.config,
    })
}

/// The dialer's part.
pub async fn dial<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    own: Own,
    proof: Proof,
    via: Via,
    expect: Option<&Expect>,
) -> Result<Connection<S>, End> {
    let agreed = async {
        let (header, meta) = hello_frame(&own);
        send(&mut stream, &header, &meta).await?;
        let mut decoder = Decoder::new(HELLO_LIMITS);
        let frame = receive(&mut stream, &mut decoder).await?;
        let (hello, identity) = judge(&frame, &own, &proof, Purpose::Server)?;
        if let Some(expect) = expect {
            expect.check(&identity)?;
        }
        Ok::<_, End>((decoder, hello, identity))
    };
    let agreed = tokio::time::timeout(HELLO_TIMEOUT, agreed).await;
    let (decoder, hello, identity) = agreed.map_err(|_| End::Hello("the peer said nothing".into()))??;
    let resumed = own.last_met != 0 && own.last_met == hello.incarnation;
    Ok(build(stream, decoder, own, Agreed { hello, identity, resumed }, via, proof))
}

/// The acceptor's part.
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    own: Own,
    proof: Proof,
    via: Via,
) -> Result<Connection<S>, End> {
    let mut decoder = Decoder::new(HELLO_LIMITS);
    let agreed = async {
        let frame = receive(&mut stream, &mut decoder).await?;
        judge(&frame, &own, &proof, Purpose::Client)
    };
    let agreed = tokio::time::timeout(HELLO_TIMEOUT, agreed).await;
    let (hello, identity) = match agreed.unwrap_or_else(|_| Err(End::Hello("the peer said nothing".into()))) {
        Ok(agreed) => agreed,
        Err(end) => {
            // Why, so that the operator at the other end reads it too. Best effort.
            let text = end.to_string();
            let header = seal(Header::bare(Kind::Bye, 0), text.as_bytes(), &[], None);
            let _ = tokio::time::timeout(Duration::from_secs(1), send(&mut stream, &header, text.as_bytes())).await;
            return Err(end);
        }
    };
    let (header, meta) = hello_frame(&own);
    let said = tokio::time::timeout(HELLO_TIMEOUT, send(&mut stream, &header, &meta)).await;
    said.map_err(|_| End::Hello("the peer does not read".into()))??;
    let resumed = hello.last_met != 0 && hello.last_met == own.incarnation;
    Ok(build(stream, decoder, own, Agreed { hello, identity, resumed }, via, proof))
}
