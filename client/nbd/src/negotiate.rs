//! From an accepted stream to a chosen volume: the option haggling of fixed newstyle, TLS included.
//!
//! Refuses everything but a listing's refusal before TLS when TLS is required; after `STARTTLS` all that was agreed
//! before is forgotten, so nobody on the path can have slipped an option in.

use std::io;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::serve::Limits;
use crate::volume::{Catalog, Volume};
use crate::wire::{self, Framing, answer, can, handshake, info, option};

/// Options data longer than this is skipped and refused.
const OPTION_DATA_MAX: u32 = 64 * 1024;
/// More options than any client has reason for end the connection.
const OPTIONS_MAX: usize = 128;

/// Whether a stream must be encrypted.
#[derive(Clone)]
pub enum Encryption {
    /// Only where the transport is private already: a local socket guarded by its folder's rights.
    Plain,
    /// `STARTTLS` before anything else.
    Required(TlsAcceptor),
}

impl std::fmt::Debug for Encryption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Encryption::Plain => "Plain",
            Encryption::Required(_) => "Required",
        })
    }
}

/// Why no volume was chosen.
#[derive(Debug, thiserror::Error)]
pub enum NegotiateError {
    /// The stream failed or ended.
    #[error("nbd negotiation: {0}")]
    Io(#[from] io::Error),
    /// The client does not speak the protocol.
    #[error("nbd negotiation: the client sent {0}")]
    Broken(&'static str),
    /// The client asked to stop; nothing is wrong.
    #[error("nbd negotiation: the client went away")]
    Aborted,
    /// `EXPORT_NAME` has no way to answer but to hang up.
    #[error("nbd negotiation: there is no export named {0:?}")]
    NoExport(String),
}

/// A stream in either state.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// What was agreed.
pub struct Negotiated<S> {
    /// Plain or encrypted, ready for requests.
    pub stream: MaybeTls<S>,
    /// The chosen volume.
    pub volume: Arc<dyn Volume>,
    /// How it frames.
    pub framing: Framing,
    /// The client asked for `base:allocation`.
    pub allocation: bool,
}

/// A stream before or after `STARTTLS`.
pub enum MaybeTls<S> {
    /// As accepted.
    Plain(S),
    /// Boxed: a session is large.
    Tls(Box<TlsStream<S>>),
}

impl<S: Stream> MaybeTls<S> {
    /// Splits into halves that two loops can own.
    pub fn into_halves(self) -> (Box<dyn AsyncRead + Send + Unpin>, Box<dyn AsyncWrite + Send + Unpin>)
    where
        S: 'static,
    {
        match self {
            MaybeTls::Plain(stream) => {
                let (read, write) = tokio::io::split(stream);
                (Box::new(read), Box::new(write))
            }
            MaybeTls::Tls(stream) => {
                let (read, write) = tokio::io::split(*stream);
                (Box::new(read), Box::new(write))
            }
        }
    }
}

/// Haggles until a volume is chosen.
pub async fn negotiate<S: Stream>(
    mut stream: S,
    catalog: &dyn Catalog,
    encryption: &Encryption,
    limits: &Limits,
) -> Result<Negotiated<S>, NegotiateError> {
    let mut hello = BytesMut::with_capacity(18);
    hello.put_u64(wire::MAGIC);
    hello.put_u64(wire::OPTION_MAGIC);
    hello.put_u16(handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES);
    stream.write_all(&hello).await?;
    stream.flush().await?;
    let flags = stream.read_u32().await?;
    if flags & !u32::from(handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES) != 0 {
        return Err(NegotiateError::Broken("handshake flags that do not exist"));
    }
    let no_zeroes = flags & u32::from(handshake::NO_ZEROES) != 0;

    if let Encryption::Required(acceptor) = encryption {
        await_starttls(&mut stream).await?;
        let tls = acceptor.accept(stream).await?;
        let mut tls = Box::new(tls);
        let chosen =
            Haggle { catalog, limits, no_zeroes, framing: Framing::Simple, allocation: None }.run(&mut *tls).await?;
        return Ok(chosen.with(MaybeTls::Tls(tls)));
    }
    let chosen =
        Haggle { catalog, limits, no_zeroes, framing: Framing::Simple, allocation: None }.run(&mut stream).await?;
    Ok(chosen.with(MaybeTls::Plain(stream)))
}

/// An option as it came.
struct Asked {
    option: u32,
    /// `None`: longer than an option may be, and skipped.
    data: Option<Vec<u8>>,
}

async fn read_option<S: Stream>(stream: &mut S) -> Result<Asked, NegotiateError> {
    if stream.read_u64().await? != wire::OPTION_MAGIC {
        return Err(NegotiateError::Broken("something else than an option"));
    }
    let option = stream.read_u32().await?;
    let len = stream.read_u32().await?;
    if len > OPTION_DATA_MAX {
        let skipped = tokio::io::copy(&mut (&mut *stream).take(u64::from(len)), &mut tokio::io::sink()).await?;
        if skipped < u64::from(len) {
            return Err(NegotiateError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        return Ok(Asked { option, data: None });
    }
    let mut data = vec![0; len as usize];
    stream.read_exact(&mut data).await?;
    Ok(Asked { option, data: Some(data) })
}

async fn reply<S: Stream>(stream: &mut S, option: u32, kind: u32, data: &[u8]) -> Result<(), NegotiateError> {
    let mut out = BytesMut::with_capacity(20 + data.len());
    out.put_u64(wire::OPTION_REPLY_MAGIC);
    out.put_u32(option);
    out.put_u32(kind);
    out.put_u32(data.len() as u32);
    out.put_slice(data);
    stream.write_all(&out).await?;
    stream.flush().await?;
    Ok(())
}

/// Before TLS the only things to be had are TLS itself and the way out.
async fn await_starttls<S: Stream>(stream: &mut S) -> Result<(), NegotiateError> {
    for _ in 0..OPTIONS_MAX {
        let asked = read_option(stream).await?;
        match asked.option {
            option::STARTTLS if asked.data.as_ref().is_some_and(Vec::is_empty) => {
                return reply(stream, asked.option, answer::ACK, b"").await;
            }
            option::STARTTLS => reply(stream, asked.option, answer::INVALID, b"STARTTLS carries no data").await?,
            option::ABORT => {
                let _ = reply(stream, asked.option, answer::ACK, b"").await;
                return Err(NegotiateError::Aborted);
            }
            option::EXPORT_NAME => {
                return Err(NegotiateError::Broken("EXPORT_NAME before TLS, which is required here"));
            }
            other => reply(stream, other, answer::TLS_REQUIRED, b"this server wants TLS first").await?,
        }
    }
    Err(NegotiateError::Broken("too many options"))
}

/// What a haggle ends with, the stream apart.
struct Chosen {
    volume: Arc<dyn Volume>,
    framing: Framing,
    allocation: bool,
}

impl Chosen {
    fn with<S>(self, stream: MaybeTls<S>) -> Negotiated<S> {
        Negotiated { stream, volume: self.volume, framing: self.framing, allocation: self.allocation }
    }
}

struct Haggle<'a> {
    catalog: &'a dyn Catalog,
    limits: &'a Limits,
    no_zeroes: bool,
    framing: Framing,
    /// The export that `base:allocation` was set for: it counts only when that same export is chosen.
    allocation: Option<String>,
}

impl Haggle<'_> {
    async fn run<S: Stream>(mut self, stream: &mut S) -> Result<Chosen, NegotiateError> {
        for _ in 0..OPTIONS_MAX {
            let Asked { option, data } = read_option(stream).await?;
            let Some(data) = data else {
                reply(stream, option, answer::TOO_BIG, b"the option's data is too long").await?;
                continue;
            };
            match option {
                option::EXPORT_NAME => return self.export_name(stream, &data).await,
                option::ABORT => {
                    // The client may be gone already, which is what it asked for.
                    let _ = reply(stream, option, answer::ACK, b"").await;
                    return Err(NegotiateError::Aborted);
                }
                option::LIST => self.list(stream, &data).await?,
                option::STARTTLS => reply(stream, option, answer::POLICY, b"no TLS on this connection").await?,
                option::INFO | option::GO => {
                    if let Some(chosen) = self.info(stream, option, &data).await? {
                        return Ok(chosen);
                    }
                }
                option::STRUCTURED_REPLY if !data.is_empty() => {
                    reply(stream, option, answer::INVALID, b"this option carries no data").await?;
                }
                option::STRUCTURED_REPLY => {
                    if self.framing == Framing::Simple {
                        self.framing = Framing::Structured;
                    }
                    reply(stream, option, answer::ACK, b"").await?;
                }
                option::EXTENDED_HEADERS if !data.is_empty() => {
                    reply(stream, option, answer::INVALID, b"this option carries no data").await?;
                }
                option::EXTENDED_HEADERS => {
                    self.framing = Framing::Extended;
                    reply(stream, option, answer::ACK, b"").await?;
                }
                option::LIST_META_CONTEXT | option::SET_META_CONTEXT => {
                    self.contexts(stream, option, &data).await?;
                }
                other => reply(stream, other, answer::UNSUPPORTED, b"unknown option").await?,
            }
        }
        Err(NegotiateError::Broken("too many options"))
    }

    async fn open(&self, name: &str) -> Option<Arc<dyn Volume>> {
        match self.catalog.open(name).await {
            Ok(volume) => volume,
            Err(fault) => {
                tracing::warn!(export = name, %fault, "export could not be opened");
                None
            }
        }
    }

    async fn export_name<S: Stream>(self, stream: &mut S, data: &[u8]) -> Result<Chosen, NegotiateError> {
        let name = wire::text(data).ok_or(NegotiateError::Broken("a name that is not text"))?;
        let Some(volume) = self.open(&name).await else { return Err(NegotiateError::NoExport(name)) };
        let mut out = BytesMut::new();
        out.put_u64(volume.size());
        out.put_u16(transmission_flags(&*volume, self.framing));
        if !self.no_zeroes {
            out.put_bytes(0, 124);
        }
        stream.write_all(&out).await?;
        stream.flush().await?;
        let allocation = self.allocation.as_ref() == Some(&name);
        Ok(Chosen { volume, framing: self.framing, allocation })
    }

    async fn list<S: Stream>(&self, stream: &mut S, data: &[u8]) -> Result<(), NegotiateError> {
        if !data.is_empty() {
            return reply(stream, option::LIST, answer::INVALID, b"LIST carries no data").await;
        }
        let Ok(list) = self.catalog.list().await else {
            return reply(stream, option::LIST, answer::POLICY, b"the list is not to be had now").await;
        };
        for entry in list {
            let mut out = BytesMut::new();
            out.put_u32(entry.name.len() as u32);
            out.put_slice(entry.name.as_bytes());
            out.put_slice(entry.description.as_bytes());
            reply(stream, option::LIST, answer::SERVER, &out).await?;
        }
        reply(stream, option::LIST, answer::ACK, b"").await
    }

    /// `INFO`, and `GO` which ends the haggle.
    async fn info<S: Stream>(
        &self,
        stream: &mut S,
        option: u32,
        data: &[u8],
    ) -> Result<Option<Chosen>, NegotiateError> {
        let Some(wanted) = wire::decode_wanted(data) else {
            reply(stream, option, answer::INVALID, b"the option's data is malformed").await?;
            return Ok(None);
        };
        let Some(volume) = self.open(&wanted.name).await else {
            let text = format!("there is no export named {:?}", wanted.name);
            reply(stream, option, answer::UNKNOWN, text.as_bytes()).await?;
            return Ok(None);
        };
        let mut out = BytesMut::new();
        out.put_u16(info::EXPORT);
        out.put_u64(volume.size());
        out.put_u16(transmission_flags(&*volume, self.framing));
        reply(stream, option, answer::INFO, &out).await?;
        // Any client may take single bytes; what it should take is told to those who ask.
        out.clear();
        out.put_u16(info::BLOCK_SIZE);
        out.put_u32(1);
        out.put_u32(volume.preferred_block());
        out.put_u32(self.limits.request_max);
        reply(stream, option, answer::INFO, &out).await?;
        for kind in wanted.infos {
            out.clear();
            match kind {
                info::NAME => {
                    out.put_u16(info::NAME);
                    out.put_slice(wanted.name.as_bytes());
                }
                info::DESCRIPTION => {
                    let list = self.catalog.list().await.unwrap_or_default();
                    let Some(entry) = list.into_iter().find(|entry| entry.name == wanted.name) else { continue };
                    out.put_u16(info::DESCRIPTION);
                    out.put_slice(entry.description.as_bytes());
                }
                _ => continue,
            }
            reply(stream, option, answer::INFO, &out).await?;
        }
        reply(stream, option, answer::ACK, b"").await?;
        if option == option::INFO {
            return Ok(None);
        }
        let allocation = self.allocation.as_ref() == Some(&wanted.name);
        Ok(Some(Chosen { volume, framing: self.framing, allocation }))
    }

    async fn contexts<S: Stream>(&mut self, stream: &mut S, option: u32, data: &[u8]) -> Result<(), NegotiateError> {
        let set = option == option::SET_META_CONTEXT;
        if set {
            self.allocation = None;
        }
        let Some((name, queries)) = wire::decode_contexts(data) else {
            return reply(stream, option, answer::INVALID, b"the option's data is malformed").await;
        };
        if set && self.framing == Framing::Simple {
            return reply(stream, option, answer::INVALID, b"structured replies come first").await;
        }
        if self.open(&name).await.is_none() {
            return reply(stream, option, answer::UNKNOWN, b"there is no export of that name").await;
        }
        let listed_all = !set && queries.is_empty();
        let named = queries.iter().any(|query| query == wire::META_ALLOCATION || (!set && query == "base:"));
        if listed_all || named {
            let mut out = BytesMut::new();
            out.put_u32(if set { wire::ALLOCATION_ID } else { 0 });
            out.put_slice(wire::META_ALLOCATION.as_bytes());
            reply(stream, option, answer::META_CONTEXT, &out).await?;
            if set {
                self.allocation = Some(name);
            }
        }
        reply(stream, option, answer::ACK, b"").await
    }
}

/// What a volume can do, in the words of the protocol.
#[must_use]
pub fn transmission_flags(volume: &dyn Volume, framing: Framing) -> u16 {
    let mut flags = can::HAS_FLAGS | can::FLUSH | can::FUA | can::MULTI_CONN | can::CACHE;
    if volume.read_only() {
        flags |= can::READ_ONLY;
    } else {
        flags |= can::TRIM | can::WRITE_ZEROES | can::FAST_ZERO;
    }
    if framing != Framing::Simple {
        flags |= can::DONT_FRAGMENT;
    }
    flags
}
