//! How a process that has no certificate gets its first one from the monitors, into its folder. Asking again is harmless:
//! the key is made once and kept until the monitors have decided.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use nacre_net::identity::authority::SigningRequest;
use nacre_net::identity::join::{RequestId, Token};
use nacre_net::identity::{Caps, ClusterId, Identity, IdentityError, Keypair, Name, UnixTime};
use nacre_net::tls::client::connect_newcomer;
use nacre_net::tls::{TlsError, Trust, files};
use nacre_proto::status::{Retry, Status};
use tokio::net::TcpStream;
use tonic::transport::{Endpoint, Uri};

use crate::status::from_grpc;
use crate::v1;
use crate::v1::join_client::JoinClient;
use crate::v1::join_reply::Answer;

const ATTEMPT: Duration = Duration::from_secs(10);

/// What a newcomer brings.
#[derive(Clone, Debug)]
pub enum Ticket {
    /// A one-time token, which also says who the cluster is.
    Token(Token),
    /// The fingerprint of the cluster's authority; an operator has to approve.
    Approval([u8; 32]),
}

/// Who wants in.
#[derive(Clone, Debug)]
pub struct Newcomer {
    /// The name it wants.
    pub name: Name,
    /// The capabilities it would like; only an approval of a client looks at them.
    pub caps: Caps,
    /// What it brings.
    pub ticket: Ticket,
    /// `host:port` of monitors.
    pub monitors: Vec<String>,
}

/// What became of it.
#[derive(Clone, Debug)]
pub enum Joined {
    /// It is a member; certificate and key are in the folder.
    Member(Identity),
    /// An operator has to decide on this request, of a key with this fingerprint.
    Waits(RequestId, [u8; 32]),
}

/// Why it came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum JoinFailure {
    /// No monitor named.
    #[error("no monitor is known: name one")]
    Nobody,
    /// A connection.
    #[error("{address}: {source}")]
    Connect {
        /// To whom.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// Who answered is not to be told a secret.
    #[error("{address}: {source}")]
    Tls {
        /// Who.
        address: String,
        /// Why.
        source: TlsError,
    },
    /// The monitors.
    #[error("{0}")]
    Refused(Status),
    /// An operator said no.
    #[error("denied: {0}; to ask anew with another key, remove joining.pem")]
    Denied(String),
    /// The folder.
    #[error(transparent)]
    Files(#[from] files::FilesError),
    /// A certificate or a request.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// What the monitors sent.
    #[error("the monitors sent a certificate that is of no use: {0}")]
    Useless(String),
}

impl JoinFailure {
    /// Whether asking again may help.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            JoinFailure::Connect { .. } => true,
            JoinFailure::Refused(status) => status.code.retry() != Retry::Never,
            _ => false,
        }
    }
}

/// Asks each monitor in turn, until one answers.
pub async fn join(newcomer: &Newcomer, folder: &Path) -> Result<Joined, JoinFailure> {
    let mut last = JoinFailure::Nobody;
    for address in &newcomer.monitors {
        match ask(newcomer, folder, address).await {
            Err(error) if error.may_pass() => last = error,
            done => return done,
        }
    }
    Err(last)
}

async fn ask(newcomer: &Newcomer, folder: &Path, address: &str) -> Result<Joined, JoinFailure> {
    let print = match &newcomer.ticket {
        Ticket::Token(token) => token.authority,
        Ticket::Approval(print) => *print,
    };
    let connect = |source| JoinFailure::Connect { address: address.to_owned(), source };
    let stream = tokio::time::timeout(ATTEMPT, TcpStream::connect(address))
        .await
        .map_err(|_| connect(io::ErrorKind::TimedOut.into()))?
        .map_err(connect)?;
    let (stream, authority, monitor) = connect_newcomer(stream, print)
        .await
        .map_err(|source| JoinFailure::Tls { address: address.to_owned(), source })?;
    let (request, key) = request(newcomer, folder, monitor.cluster)?;
    let read = SigningRequest::read(&request)?;

    // The channel has this one connection; when it is gone, so is the attempt.
    let once = Arc::new(Mutex::new(Some(TokioIo::new(stream))));
    let dial = tower::service_fn(move |_: Uri| {
        let stream = once.lock().unwrap_or_else(PoisonError::into_inner).take();
        async move { stream.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionAborted)) }
    });
    let channel = Endpoint::from_static("http://mon.nacre").connect_with_connector_lazy(dial);
    let token = match &newcomer.ticket {
        Ticket::Token(token) => token.reveal().to_string(),
        Ticket::Approval(_) => String::new(),
    };
    let message = v1::JoinRequest { request: request.into(), token };
    let reply = tokio::time::timeout(ATTEMPT, JoinClient::new(channel).join(message))
        .await
        .map_err(|_| connect(io::ErrorKind::TimedOut.into()))?
        .map_err(|status| JoinFailure::Refused(from_grpc(&status)))?
        .into_inner();
    match reply.answer {
        Some(Answer::Certificate(certificate)) => {
            let useless = |error: &dyn std::fmt::Display| JoinFailure::Useless(error.to_string());
            let pair = Keypair { certificate: certificate.to_vec(), key };
            // While the authority is replaced there are two; ours is among them.
            let mut authorities: Vec<Vec<u8>> = reply.authorities.iter().map(|der| der.to_vec()).collect();
            if !authorities.contains(&authority) {
                authorities = vec![authority];
            }
            let trust = Trust::new(monitor.cluster, authorities.clone()).map_err(|error| useless(&error))?;
            let identity = trust.judge_own(&pair.certificate, UnixTime::now()).map_err(|error| useless(&error))?;
            if identity.name != newcomer.name {
                return Err(JoinFailure::Useless(format!("it is for {}", identity.name)));
            }
            files::store(folder, &pair, &authorities)?;
            files::clear_request(folder)?;
            Ok(Joined::Member(identity))
        }
        Some(Answer::Waits(id)) => Ok(Joined::Waits(RequestId(id), read.fingerprint())),
        Some(Answer::Denied(why)) => Err(JoinFailure::Denied(why)),
        None => Err(JoinFailure::Useless("an answer of a later release".into())),
    }
}

/// The request asked with before, or a new one.
fn request(newcomer: &Newcomer, folder: &Path, cluster: ClusterId) -> Result<files::Waiting, JoinFailure> {
    if let Some(waiting) = files::load_request(folder)? {
        let before = SigningRequest::read(&waiting.0)?;
        if *before.name() == newcomer.name && before.cluster() == cluster && *before.caps() == newcomer.caps {
            return Ok(waiting);
        }
    }
    let (request, key) = SigningRequest::make(cluster, &newcomer.name, &newcomer.caps)?;
    files::store_request(folder, &request, &key)?;
    Ok((request, key))
}
