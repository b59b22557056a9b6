//! The monitor as a process: from a data folder to a member of the quorum, and back down in order.
//!
//! The data folder holds `tls/` (identity and trusted authorities), `store/` and two markers: `bootstrap.toml`, written
//! by whoever makes a cluster, names the first quorum and goes away once it stands; `joining` says that the store is
//! new and its monitor has yet to be let in. Further `seal.key`, the key to the authority's key, and `authority.sealed`,
//! a copy of what the state holds; `birth`, the authority and the first certificates, until the state has them. Without either, what the store says is all that counts: a store that is
//! missing or damaged never leads to a second first quorum, its monitor asks the others for a new incarnation.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nacre_maps::ClusterMap;
use nacre_mon_api::channel::LARGEST_MESSAGE;
use nacre_mon_api::v1::cert_server::CertServer;
use nacre_mon_api::v1::change_quorum_request::Change;
use nacre_mon_api::v1::join_server::JoinServer;
use nacre_mon_api::v1::mon_server::MonServer;
use nacre_mon_api::v1::raft_server::RaftServer;
use nacre_mon_api::{MonClient, v1};
use nacre_net::daemon::Daemon;
use nacre_net::identity::gate::ChannelAudit;
use nacre_net::identity::{ClusterId, Gate, Service};
use nacre_net::tls::{self, Credentials, TlsClient, TlsServer, Trust};
use nacre_proto::ids::Uuid;
use nacre_proto::status::Status;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::identity::office::Office;
use crate::keys;
use crate::metrics;
use crate::node::{Elsewhere, Node, now_ms};
use crate::raft::network::Peers;
use crate::raft::{Member, NodeId};
use crate::service::cert::{CertService, JoinService};
use crate::service::listen::accept;
use crate::service::mon::MonService;
use crate::service::newcomer::Watched;
use crate::service::raft::RaftService;
use crate::service::{Door, ON_BEHALF_OF};
use crate::state::State;
use crate::state::events::AUDIT;
use crate::state::hub::Hub;
use crate::state::machine::Machine;
use crate::store::{Identity, Store, StoreError, committer_thread};

/// The largest message a newcomer may send: a signing request and a token.
const LARGEST_JOIN: usize = 64 << 10;

/// A caller that has asked nothing for so long is asked whether it is there: only what is kept for it hangs on that.
const GUESTS: Duration = Duration::from_secs(30);

/// Refusals that may wait to be written into the cluster log.
const REFUSALS: usize = 256;
/// Refusals written into the cluster log per second; the rest is counted in one line.
const REFUSALS_PER_SECOND: u32 = 10;

nacre_net::options! {
    /// What a monitor is told by its file, the environment or flags.
    pub struct MonOptions {
        /// Where it listens, and where the others find it.
        listen: Option<SocketAddr> = None, restart;
        /// Its data folder.
        data: PathBuf = "/var/lib/nacre/mon".into(), restart;
        /// Where the monitors are, separated by commas; itself may be among them.
        monitors: String = String::new(), restart;
        /// Where the key to the authority's key is kept, if not in the data folder: for example where systemd puts
        /// credentials.
        seal_key: Option<PathBuf> = None, restart;
    }
}

/// What a monitor needs to find its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Its number.
    pub mon: u64,
    /// Where it listens, and where the others find it.
    pub address: SocketAddr,
    /// Its data folder.
    pub data: PathBuf,
    /// Where the monitors are; itself may be among them.
    pub monitors: Vec<SocketAddr>,
    /// Where the key to the authority's key is.
    pub seal_key: PathBuf,
}

/// The first quorum of a new cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bootstrap {
    /// Its monitors.
    pub members: Vec<BootstrapMember>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootstrapMember {
    /// Its number.
    pub mon: u64,
    /// Where it listens.
    pub address: SocketAddr,
}

/// The incarnation of a monitor in the first quorum.
pub fn first_node(mon: u64) -> NodeId {
    (1 << 16) | mon
}

/// Why a monitor does not start.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// A file of its data folder.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that says nothing sensible.
    #[error("{path}: {problem}")]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A setting.
    #[error("setting {name}: {problem}")]
    Option {
        /// Which.
        name: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// Its keys.
    #[error(transparent)]
    Keys(#[from] tls::files::FilesError),
    /// No keys.
    #[error("{path} holds no identity: this monitor has not been given one by `nacre up` or a join")]
    NoIdentity {
        /// Where they should be.
        path: PathBuf,
    },
    /// The seal key.
    #[error(transparent)]
    Seal(#[from] keys::KeysError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// Its store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its place.
    #[error("cannot listen at {address}: {source}; `ss -ltnp` shows who does")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Consensus.
    #[error("{0}")]
    Consensus(Status),
    /// The gRPC server.
    #[error("serving: {0}")]
    Serve(#[from] tonic::transport::Error),
    /// Nobody let it in.
    #[error(
        "no quorum lets mon.{mon} in: {source}; start the other monitors, or restore a backup (`nacre mon restore`)"
    )]
    Join {
        /// Who wants in.
        mon: u64,
        /// Why not.
        source: Status,
    },
}

fn file(path: &Path) -> impl Fn(io::Error) -> DaemonError {
    let path = path.to_owned();
    move |source| DaemonError::File { path: path.clone(), source }
}

impl Config {
    /// Of monitor `mon`, out of its options.
    pub fn of(mon: u64, options: &MonOptions) -> Result<Config, DaemonError> {
        let address = options.listen.ok_or(DaemonError::Option {
            name: "listen",
            problem: "it is not set; write listen = \"ADDRESS:PORT\" into the section [mon]".into(),
        })?;
        let monitors: Result<Vec<SocketAddr>, _> =
            options.monitors.split(',').map(str::trim).filter(|text| !text.is_empty()).map(str::parse).collect();
        let monitors =
            monitors.map_err(|error| DaemonError::Option { name: "monitors", problem: format!("{error}") })?;
        let seal_key = options.seal_key.clone().unwrap_or_else(|| options.data.join("seal.key"));
        Ok(Config { mon, address, data: options.data.clone(), monitors, seal_key })
    }
}

impl Bootstrap {
    fn load(path: &Path) -> Result<Option<Bootstrap>, DaemonError> {
        match std::fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(file(path)(error)),
            Ok(text) => toml::from_str(&text)
                .map(Some)
                .map_err(|error| DaemonError::Content { path: path.to_owned(), problem: error.to_string() }),
        }
    }
}

/// What the data folder leads to.
struct Opened {
    store: Store,
    identity: Identity,
    bootstrap: Option<BTreeMap<NodeId, Member>>,
    joining: bool,
}

/// Runs a monitor until its surroundings say that it ends.
pub async fn run(config: Config, around: &Daemon) -> Result<(), DaemonError> {
    nacre_net::daemon::process::take_small_pages();
    let folder = config.data.join("tls");
    let stored = tls::files::load(&folder)?.ok_or(DaemonError::NoIdentity { path: folder.clone() })?;
    let authority = stored.authorities.first().cloned().unwrap_or_default();
    let credentials = Credentials::new(&stored.pair, &authority)?;
    let cluster = credentials.identity().cluster;
    let trust = Trust::new(cluster, stored.authorities)?;
    let seal = keys::load_seal(&config.seal_key)?;
    let client = TlsClient::new(trust.clone(), credentials.clone(), tls::ALPN_GRPC)?;
    let server =
        TlsServer::new(trust.clone(), credentials.clone(), &[tls::ALPN_GRPC])?.with_newcomers(credentials.clone())?;

    // Before anything else is touched: a second monitor on this folder or place must not get far.
    let listener = TcpListener::bind(config.address)
        .await
        .map_err(|source| DaemonError::Listen { address: config.address, source })?;

    let opened = open(&config, cluster, &client).await?;
    let identity = opened.identity.clone();
    tracing::info!(mon = identity.mon, node = format_args!("{:x}", identity.node), address = %config.address, "starting");

    let hub = Arc::new(Hub::default());
    let observer = {
        let hub = hub.clone();
        Arc::new(move |state: &State, increments: &[_]| {
            hub.publish(&state.map, increments, &state.past);
            hub.note(state.events.newest());
        })
    };
    let fresh = State { map: Arc::new(ClusterMap::empty(Uuid(cluster.0))), ..State::default() };
    let machine = Machine::open(opened.store.clone(), fresh, observer)?;
    let peers = Peers::new(client.clone());
    let node = Node::start(opened.store, machine, hub, peers, identity.clone(), metrics::commits(&around.registry))
        .await
        .map_err(DaemonError::Consensus)?;
    let node = Arc::new(node);

    let (audit, refusals, lost) = ChannelAudit::new(REFUSALS);
    let gate = Gate::new(Service::Mon, Arc::new(audit));
    metrics::register(&around.registry, &node, &gate);
    let door = Door { gate: gate.clone(), trust: trust.clone() };
    let office = Arc::new(Office::new(node.clone(), cluster, seal));
    let cert = CertServer::new(CertService { office: office.clone(), door: door.clone() });
    let join_members = JoinServer::new(JoinService { office: office.clone(), door: door.clone() });
    let join_newcomers = join_members.clone().max_decoding_message_size(LARGEST_JOIN);
    let mon = MonServer::new(MonService { node: node.clone(), door: door.clone() })
        .max_decoding_message_size(LARGEST_MESSAGE)
        .max_encoding_message_size(LARGEST_MESSAGE);
    let raft = RaftServer::new(RaftService { node: node.clone(), door, office: office.clone() })
        .max_decoding_message_size(LARGEST_MESSAGE)
        .max_encoding_message_size(LARGEST_MESSAGE);
    tokio::spawn(crate::leader::plan(node.clone()));
    tokio::spawn({
        let node = node.clone();
        async move { node.clock.keep(&node.raft).await }
    });
    tokio::spawn(write_refusals(node.clone(), refusals, lost));
    keys::keep(keys::Around {
        config: config.clone(),
        office,
        trust,
        credentials,
        client: client.clone(),
        registry: around.registry.clone(),
        admin: around.admin.clone(),
    });

    if let Some(quorum) = opened.bootstrap {
        node.bootstrap(quorum).await.map_err(DaemonError::Consensus)?;
        let marker = config.data.join("bootstrap.toml");
        std::fs::remove_file(&marker).map_err(file(&marker))?;
    }
    if opened.joining {
        tokio::spawn(join(config.clone(), client, identity.clone()));
    }
    around.ready(&format!("node {:x} at {}", identity.node, config.address));
    let (ended, mut ending) = tokio::sync::watch::channel(false);
    let (members, newcomers) = accept(listener, server, gate.clone());
    let serving = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(GUESTS))
        .add_service(mon)
        .add_service(raft)
        .add_service(cert)
        .add_service(join_members)
        .serve_with_incoming_shutdown(members, async move {
            let _ = ending.wait_for(|ended| *ended).await;
        });
    tokio::spawn(
        tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(GUESTS))
            .max_concurrent_streams(4)
            .layer(tower::layer::layer_fn(move |inner| Watched::new(inner, gate.clone())))
            .add_service(join_newcomers)
            .serve_with_incoming(newcomers),
    );
    tokio::pin!(serving);
    tokio::select! {
        served = &mut serving => served?,
        // A monitor that takes no part any more must not look alive: whoever watches it starts it again.
        status = node.broken() => return Err(DaemonError::Consensus(status)),
        _why = around.shutdown.begun() => {
            node.stop().await;
            let _ = ended.send(true);
            // Subscribers never end their streams: they get a moment and are then cut off.
            let _ = tokio::time::timeout(Duration::from_millis(200), &mut serving).await;
        }
    }
    Ok(())
}

/// Opens the store; decides what a missing or damaged one means.
async fn open(config: &Config, cluster: ClusterId, client: &TlsClient) -> Result<Opened, DaemonError> {
    let path = config.data.join("store");
    let joining = config.data.join("joining");
    let bootstrap = Bootstrap::load(&config.data.join("bootstrap.toml"))?;
    let fsid = cluster.to_string();
    if let Some(bootstrap) = bootstrap {
        let identity = Identity { fsid, mon: config.mon, node: first_node(config.mon) };
        let store = Store::open(&path, &identity, true, committer_thread())?;
        let quorum = bootstrap
            .members
            .into_iter()
            .map(|member| (first_node(member.mon), Member { mon: member.mon, address: member.address.to_string() }))
            .collect();
        return Ok(Opened { store, identity, bootstrap: Some(quorum), joining: false });
    }
    if path.join("db").is_dir() {
        match reopen(&path, config.mon, &fsid) {
            Ok(Some((store, identity))) => {
                let joining = joining.exists();
                return Ok(Opened { store, identity, bootstrap: None, joining });
            }
            Ok(None) => {}
            Err(error) if error.is_damage() => {
                let aside = config.data.join(format!("store.damaged-{}", now_ms()));
                tracing::error!(
                    error = %error,
                    kept = %aside.display(),
                    "the store is damaged: this monitor comes back under a new incarnation, from a snapshot of the others"
                );
                std::fs::rename(&path, &aside).map_err(file(&path))?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    // Nothing to go by: the others say under which incarnation.
    std::fs::write(&joining, b"").map_err(file(&joining))?;
    let others: Vec<String> =
        config.monitors.iter().filter(|at| **at != config.address).map(SocketAddr::to_string).collect();
    let others = MonClient::new(client, others, Duration::from_secs(30));
    let ask = v1::JoinQuorum { mon: config.mon, address: config.address.to_string(), node: 0 };
    let node = loop {
        match others.change_quorum(Change::Join(ask.clone())).await {
            Ok(reply) => break reply.node,
            Err(source) if source.code.retry() == nacre_proto::status::Retry::Never => {
                return Err(DaemonError::Join { mon: config.mon, source });
            }
            Err(error) => tracing::warn!(%error, "no quorum to join yet"),
        }
    };
    let identity = Identity { fsid, mon: config.mon, node };
    let store = Store::open(&path, &identity, true, committer_thread())?;
    Ok(Opened { store, identity, bootstrap: None, joining: true })
}

/// An existing store; none if it was never finished.
fn reopen(path: &Path, mon: u64, fsid: &str) -> Result<Option<(Store, Identity)>, StoreError> {
    let store = Store::open_any(path, true, committer_thread())?;
    let Some(identity) = store.identity()? else { return Ok(None) };
    if identity.mon != mon || identity.fsid != fsid {
        return Err(StoreError::Foreign {
            path: path.to_owned(),
            found: identity.to_string(),
            wanted: format!("mon.{mon} of cluster {fsid}"),
        });
    }
    store.verify()?;
    Ok(Some((store, identity)))
}

/// Asks to be let in until it is.
async fn join(config: Config, client: TlsClient, identity: Identity) {
    let monitors = MonClient::new(&client, config.monitors.iter().map(SocketAddr::to_string), Duration::from_secs(30));
    let ask = v1::JoinQuorum { mon: identity.mon, address: config.address.to_string(), node: identity.node };
    loop {
        match monitors.change_quorum(Change::Join(ask.clone())).await {
            Ok(reply) => {
                tracing::info!(%reply.text, "joined the quorum");
                let marker = config.data.join("joining");
                if let Err(error) = std::fs::remove_file(&marker) {
                    tracing::warn!(%error, marker = %marker.display(), "cannot remove the marker");
                }
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "not let into the quorum yet");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }
}

/// Writes refused calls into the cluster log, at a bounded rate: an attacker must not fill it.
async fn write_refusals(
    node: Arc<Node>,
    mut refusals: tokio::sync::mpsc::Receiver<nacre_net::identity::Denied>,
    lost: Arc<std::sync::atomic::AtomicU64>,
) {
    use std::sync::atomic::Ordering;
    let pause = Duration::from_secs(1) / REFUSALS_PER_SECOND;
    let session = now_ms() ^ (node.identity.node << 20);
    let mut sequence = 0;
    while let Some(denied) = refusals.recv().await {
        let uncounted = lost.swap(0, Ordering::Relaxed);
        let more = if uncounted > 0 { format!(" ({uncounted} more were not written)") } else { String::new() };
        sequence += 1;
        let note = v1::Note { level: "warn".into(), text: format!("denied: {denied}{more}"), channel: AUDIT.into() };
        let request = v1::ExecuteRequest {
            session,
            sequence,
            command: Some(v1::Command { verb: Some(v1::command::Verb::Note(note)) }),
            dry_run: false,
        };
        let who = format!("mon.{}", node.identity.mon);
        if let Err(Elsewhere::Leader(_, leader)) = node.execute(who.clone(), &request).await {
            let mut request = tonic::Request::new(request);
            if let Ok(who) = who.parse() {
                request.metadata_mut().insert(ON_BEHALF_OF, who);
            }
            let mut stub = v1::mon_client::MonClient::new(node.peers.channel(&leader));
            if let Err(error) = stub.execute(request).await {
                tracing::warn!(%error, "a refusal did not reach the cluster log");
            }
        }
        tokio::time::sleep(pause).await;
    }
}
