//! The keys of one monitor, kept up to date while it runs: its own certificate, the seal key, what it believes; and the
//! files in its data folder. What the cluster decided about identities is the state's ([`crate::identity`]).
//!
//! `seal.key` is the key under which the authority's key is sealed: made with the cluster, given to a new monitor by the
//! others. `authority.sealed` repeats what the state holds, so that certificates can be made while no quorum stands
//! ([`reissue`]). `birth` carries the authority and the first certificates into the state, and is gone once it has them.

use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use nacre_maps::map::Table;
use nacre_mon_api::MonClient;
use nacre_mon_api::v1;
use nacre_mon_api::v1::raft_client::RaftClient;
use nacre_net::daemon::admin::Verbs;
use nacre_net::identity::join::{authority_fingerprint, hex};
use nacre_net::identity::seal::SealError;
use nacre_net::identity::{Authority, ClusterId, IdentityError, Keypair, SealKey, UnixTime};
use nacre_net::metrics::Registry;
use nacre_net::tls::renew::Keeper;
use nacre_net::tls::{Credentials, TlsClient, Trust};
use prost::Message;

use crate::daemon::Config;
use crate::identity::office::{Office, PURPOSE};
use crate::identity::{AuthorityRecord, Change, member_of};
use crate::store::record::{self, Kind as Record};

const AUTHORITY: &str = "authority.sealed";
const BIRTH: &str = "birth";
/// How often what did not work is tried again.
const AGAIN: Duration = Duration::from_millis(200);

/// What goes wrong with the files.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The system said no.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The seal key, or what is sealed.
    #[error("{path}: {source}")]
    Seal {
        /// Which.
        path: PathBuf,
        /// Why.
        source: SealError,
    },
    /// A file that says nothing sensible.
    #[error("{path}: {problem}")]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Certificates.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

fn file(path: &Path) -> impl Fn(io::Error) -> KeysError {
    let path = path.to_owned();
    move |source| KeysError::File { path: path.clone(), source }
}

fn write(path: &Path, content: &[u8]) -> Result<(), KeysError> {
    use std::io::Write as _;
    let draft = path.with_extension("new");
    let _ = std::fs::remove_file(&draft);
    let mut out =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).map_err(file(&draft))?;
    out.write_all(content).and_then(|()| out.sync_all()).map_err(file(&draft))?;
    std::fs::rename(&draft, path).map_err(file(path))
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, KeysError> {
    match std::fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file(path)(error)),
    }
}

/// The seal key, if the monitor has it.
pub fn load_seal(path: &Path) -> Result<Option<SealKey>, KeysError> {
    let Some(content) = read(path)? else { return Ok(None) };
    let text = zeroize::Zeroizing::new(content);
    SealKey::read(&String::from_utf8_lossy(&text))
        .map(Some)
        .map_err(|source| KeysError::Seal { path: path.to_owned(), source })
}

/// Writes the seal key.
pub fn store_seal(path: &Path, key: &SealKey) -> Result<(), KeysError> {
    write(path, format!("{}\n", *key.reveal()).as_bytes())
}

/// Writes what a monitor of a new cluster carries into the state: the sealed authority and the first certificates.
pub fn store_birth(data: &Path, authority: &Authority, seal: &SealKey, first: &[Vec<u8>]) -> Result<(), KeysError> {
    let path = data.join(BIRTH);
    let sealed = seal
        .seal(PURPOSE, &authority.keypair().key)
        .map_err(|source| KeysError::Seal { path: path.clone(), source })?;
    let record = v1::AuthorityRecord { certificate: authority.certificate().to_vec().into(), sealed: sealed.into() };
    store_authority(data, &record)?;
    let certificate = |der: &Vec<u8>| v1::IssuedRecord { certificate: der.clone().into(), ..Default::default() };
    let members = vec![v1::Enrolled { held: first.iter().map(certificate).collect(), ..Default::default() }];
    let born = v1::Born { authority: Some(record), members };
    write(&path, &record::encode(Record::Birth, BIRTH.as_bytes(), &born.encode_to_vec()))
}

fn load_birth(data: &Path) -> Result<Option<Change>, KeysError> {
    let path = data.join(BIRTH);
    let Some(content) = read(&path)? else { return Ok(None) };
    let bad = |problem: String| KeysError::Content { path: path.clone(), problem };
    let body = record::decode(Record::Birth, BIRTH.as_bytes(), &content).map_err(|error| bad(error.to_string()))?;
    let born = v1::Born::decode(body).map_err(|error| bad(error.to_string()))?;
    let sent = born.authority.ok_or_else(|| bad("it holds no authority".into()))?;
    let authority = AuthorityRecord { certificate: sent.certificate.to_vec(), sealed: sent.sealed.to_vec() };
    let certificates = born.members.into_iter().flat_map(|member| member.held);
    let members = certificates.map(|issued| member_of(&issued.certificate)).collect::<Result<Vec<_>, _>>()?;
    Ok(Some(Change::Born(authority, members)))
}

fn store_authority(data: &Path, record: &v1::AuthorityRecord) -> Result<(), KeysError> {
    let body = record::encode(Record::Authority, AUTHORITY.as_bytes(), &record.encode_to_vec());
    write(&data.join(AUTHORITY), &body)
}

/// The authority, out of the data folder of a monitor: to make certificates while no quorum stands.
pub fn reissue(data: &Path, seal_key: &Path, cluster: ClusterId) -> Result<Option<Authority>, KeysError> {
    let path = data.join(AUTHORITY);
    let (Some(content), Some(seal)) = (read(&path)?, load_seal(seal_key)?) else { return Ok(None) };
    let bad = |problem: String| KeysError::Content { path: path.clone(), problem };
    let body =
        record::decode(Record::Authority, AUTHORITY.as_bytes(), &content).map_err(|error| bad(error.to_string()))?;
    let record = v1::AuthorityRecord::decode(body).map_err(|error| bad(error.to_string()))?;
    let key = seal.open(PURPOSE, &record.sealed).map_err(|source| KeysError::Seal { path: path.clone(), source })?;
    Ok(Some(Authority::open(cluster, Keypair { certificate: record.certificate.to_vec(), key })?))
}

/// What the keeping works on.
pub struct Around {
    /// Of the monitor.
    pub config: Config,
    /// What is decided.
    pub office: Arc<Office>,
    /// What is believed.
    pub trust: Arc<Trust>,
    /// The own certificate.
    pub credentials: Arc<Credentials>,
    /// The way to the others.
    pub client: TlsClient,
    /// What is counted.
    pub registry: Arc<Registry>,
    /// Verbs of the admin socket.
    pub admin: Arc<Verbs>,
}

/// Starts what keeps the keys.
pub fn keep(around: Around) {
    let Around { config, office, trust, credentials, client, registry, admin } = around;
    let now = Arc::new(tokio::sync::Notify::new());
    verbs(&admin, &credentials, &office, &now);
    tokio::spawn(follow(office.clone(), trust.clone(), config.data.clone()));
    tokio::spawn(give_birth(office.clone(), config.data.clone()));
    tokio::spawn(fetch_seal(office.clone(), config.seal_key.clone()));
    tokio::spawn(sweep(office));
    let keeper =
        Keeper { own: credentials, trust, folder: Some(config.data.join("tls")), registry, now, clock: UnixTime::now };
    let addresses = std::iter::once(config.address).chain(config.monitors).map(|at| at.to_string());
    let monitors = Arc::new(MonClient::new(&client, addresses, Duration::from_secs(10)));
    tokio::spawn(keeper.run(move |ask| {
        let monitors = monitors.clone();
        async move { monitors.renew(ask).await }
    }));
}

fn verbs(admin: &Verbs, credentials: &Arc<Credentials>, office: &Arc<Office>, now: &Arc<tokio::sync::Notify>) {
    let (own, held) = (credentials.clone(), office.clone());
    admin.add("cert show", "the daemon's own certificate, and the authority's fingerprint", move |_| {
        let who = own.identity();
        let shown = serde_json::json!({
            "name": who.name, "caps": who.caps, "generation": who.generation, "serial": who.serial.to_string(),
            "not_before": who.not_before, "not_after": who.not_after, "authority": held.fingerprint(),
        });
        async move { Ok(shown) }
    });
    let node = office.node.clone();
    admin.add("dump state", "this monitor's place in the quorum and what its state holds, as it sees it", move |_| {
        let seen = node.status(false);
        let shown = {
            let state = node.shared.read();
            serde_json::json!({
                "mon": seen.mon, "node": format!("{:x}", seen.node), "role": seen.role, "term": seen.term,
                "leader": seen.leader.map(|leader| format!("{leader:x}")), "applied": seen.applied,
                "log_last": seen.log_last, "snapshot": seen.snapshot, "epoch": seen.epoch, "commands": seen.commands,
                "events": seen.newest_event, "members": state.identities.desk.members.len(),
                "tokens": state.identities.desk.tokens.len(), "requests": state.identities.desk.requests.len(),
                "revoked": state.map.revoked.len(),
            })
        };
        async move { Ok(shown) }
    });
    let now = now.clone();
    admin.add("cert renew", "renews the daemon's certificate now, with a new key", move |_| {
        now.notify_one();
        async { Ok(serde_json::Value::Null) }
    });
}

/// Believes what the state and its map say, and keeps the sealed authority on disk.
async fn follow(office: Arc<Office>, trust: Arc<Trust>, data: PathBuf) {
    let (mut epochs, mut events) = (office.node.hub.epochs(), office.node.hub.events());
    let mut seen = None;
    let mut kept = None;
    loop {
        let now = (office.read(|held| held.changes), office.node.hub.map().revoked.digest());
        if seen.replace(now) != Some(now) {
            trust.set_revocations(Arc::new(office.revocations()));
            if let Err(error) = trust.set_authorities(office.trusted()) {
                tracing::error!(%error, "the state names an authority that cannot be believed");
            }
            let held = office.read(|held| held.authority.clone());
            if held != kept
                && let Some(AuthorityRecord { certificate, sealed }) = &held
            {
                let print = hex(&authority_fingerprint(certificate));
                tracing::info!(authority = print, "the state holds the authority");
                let record =
                    v1::AuthorityRecord { certificate: certificate.clone().into(), sealed: sealed.clone().into() };
                if let Err(error) = store_authority(&data, &record) {
                    tracing::warn!(%error, "the sealed authority is not kept beside the store");
                }
                kept = held;
            }
        }
        tokio::select! {
            changed = epochs.changed() => if changed.is_err() { return },
            changed = events.changed() => if changed.is_err() { return },
        }
    }
}

async fn give_birth(office: Arc<Office>, data: PathBuf) {
    let born = match load_birth(&data) {
        Ok(Some(born)) => born,
        Ok(None) => return,
        Err(error) => {
            tracing::error!(%error, "the authority cannot be given to the monitors");
            return;
        }
    };
    while office.read(|held| held.authority.is_none()) {
        // Whoever leads does it; the others wait until they see it done.
        if office.give_birth(born.clone()).await.is_err() {
            tokio::time::sleep(AGAIN).await;
        }
    }
    let path = data.join(BIRTH);
    if let Err(error) = std::fs::remove_file(&path) {
        tracing::warn!(%error, path = %path.display(), "cannot remove the file");
    }
}

/// A monitor that has joined has no seal key yet: the others give it.
async fn fetch_seal(office: Arc<Office>, path: PathBuf) {
    let missing = || office.seal.read().unwrap_or_else(PoisonError::into_inner).is_none();
    let mut pause = AGAIN;
    while missing() {
        let members: Vec<_> = {
            let state = office.node.shared.read();
            state
                .membership
                .nodes()
                .filter(|(node, _)| **node != office.node.identity.node)
                .map(|(_, m)| m.clone())
                .collect()
        };
        for member in members {
            let mut stub = RaftClient::new(office.node.peers.channel(&member));
            let Ok(reply) = stub.seal_key(v1::SealKeyRequest {}).await else { continue };
            let text = zeroize::Zeroizing::new(reply.into_inner().key);
            let Ok(key) = SealKey::read(&text) else { continue };
            match store_seal(&path, &key) {
                Ok(()) => tracing::info!(from = member.mon, "seal key received"),
                Err(error) => {
                    tracing::warn!(%error, "the seal key is not kept: it is asked for again at the next start")
                }
            }
            *office.seal.write().unwrap_or_else(PoisonError::into_inner) = Some(key);
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(10));
    }
}

async fn sweep(office: Arc<Office>) {
    loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        if office.node.raft.is_leader()
            && let Err(error) = office.sweep().await
        {
            tracing::debug!(?error, "what is over is forgotten later");
        }
    }
}
