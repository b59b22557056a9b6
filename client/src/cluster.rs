//! The handle on a cluster: identity, the map it follows, a link to each OSD it has spoken to.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nacre_maps::map::OsdInfo;
use nacre_maps::placement::Placement;
use nacre_maps::{ClusterMap, Increment};
use nacre_mon_api::client::Maps;
use nacre_mon_api::keys::believe;
use nacre_mon_api::status::from_grpc;
use nacre_mon_api::{MonClient, v1};
use nacre_net::conn::{Config, NetMetrics};
use nacre_net::identity::gate::LogAudit;
use nacre_net::identity::{Name, Service, UnixTime};
use nacre_net::metrics::Registry;
use nacre_net::node::link::{Backoff, Link};
use nacre_net::node::{Address, Node, Setup};
use nacre_net::tls::renew::Keeper;
use nacre_net::tls::{self, Credentials, Expect, TlsClient, Trust, files};
use nacre_proto::ids::{Epoch, OsdId, PgId, PoolId, SessionId};
use nacre_proto::status::Status;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::error::Error;
use crate::object::{Object, Pool};
use crate::operate::Place;
use crate::watch::{Ears, Watches};

/// How a cluster is reached, and how patient this client is.
#[derive(Debug)]
pub struct Settings {
    /// Certificate, key and authorities.
    identity: files::Stored,
    /// Where that is kept, and its successors.
    folder: PathBuf,
    /// Where the monitors are.
    monitors: Vec<String>,
    /// How long a call may wait for the cluster to be able to answer; none: for ever.
    pub patience: Option<Duration>,
}

impl Settings {
    /// With the identity a folder holds. Patience is 60 seconds.
    pub fn of_folder(folder: &Path, monitors: impl IntoIterator<Item = String>) -> Result<Settings, Error> {
        let identity = files::load(folder)?.ok_or_else(|| Error::NoIdentity(folder.display().to_string()))?;
        let monitors = monitors.into_iter().collect();
        Ok(Settings { identity, folder: folder.to_owned(), monitors, patience: Some(Duration::from_secs(60)) })
    }
}

/// The map, and where it places things.
#[derive(Debug)]
pub(crate) struct Chart {
    pub(crate) map: Arc<ClusterMap>,
    placement: Placement,
}

impl Chart {
    fn first(map: ClusterMap) -> Result<Chart, Error> {
        let map = Arc::new(map);
        let placement = Placement::build(Arc::clone(&map)).map_err(|error| Error::Map(error.to_string()))?;
        Ok(Chart { map, placement })
    }

    fn next(&self, map: ClusterMap) -> Result<Chart, Error> {
        let map = Arc::new(map);
        let placement = self.placement.next(Arc::clone(&map)).map_err(|error| Error::Map(error.to_string()))?;
        Ok(Chart { map, placement })
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.map.epoch
    }

    /// The pg of a hash, and who orders its operations.
    pub(crate) fn of(&self, pool: PoolId, hash: u32) -> Option<(PgId, Option<OsdId>)> {
        let pg = self.placement.pg_of(pool, hash)?;
        Some((pg, self.primary(pg)))
    }

    pub(crate) fn primary(&self, pg: PgId) -> Option<OsdId> {
        self.placement.pg(pg)?.acting_primary
    }

    pub(crate) fn places(&self) -> Vec<(PgId, Place)> {
        let place = |pg: PgId| {
            let found = self.placement.pg(pg)?;
            Some((pg, Place { up: found.up, acting: found.acting, primary: found.acting_primary }))
        };
        self.placement.pgs().filter_map(place).collect()
    }
}

/// Between two questions to another monitor whether there are newer maps.
const APART: Duration = Duration::from_secs(2);

/// How connections to OSDs are kept. A request that waits is told by the map when its OSD is gone, so an idle one is
/// looked at seldom; as long as it takes to be given up, it takes with the usual clock as well.
fn at_ease() -> Config {
    Config { tick: Duration::from_secs(10), silence: 1, stall: 6, ..Config::default() }
}

/// A cluster. Cheap to clone; its connections end with the last clone.
#[derive(Clone, Debug)]
pub struct Cluster(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) node: Arc<Node>,
    pub(crate) session: SessionId,
    pub(crate) patience: Option<Duration>,
    pub(crate) chart: watch::Receiver<Option<Arc<Chart>>>,
    links: Mutex<BTreeMap<OsdId, Link>>,
    next_tid: AtomicU64,
    /// Requests without an answer yet.
    open: Mutex<BTreeSet<u64>>,
    tasks: Mutex<JoinSet<()>>,
    watches: Watches,
    pub(crate) monitors: Arc<MonClient>,
    hurry: Arc<Notify>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cluster({:?}, session {})", self.node, self.session)
    }
}

/// Where clients reach an OSD.
fn address(info: &OsdInfo) -> Option<Address> {
    let tcp = info.public.first()?;
    let whole = if info.local_socket.is_empty() { tcp.to_string() } else { format!("{tcp},{}", info.local_socket) };
    whole.parse().ok()
}

impl Cluster {
    /// Connects, and waits for the first map.
    pub async fn connect(settings: Settings) -> Result<Cluster, Error> {
        let Settings { identity, folder, monitors, patience } = settings;
        let authority = identity.authorities.first().cloned().unwrap_or_default();
        let credentials = Credentials::new(&identity.pair, &authority)?;
        let trust = Trust::new(credentials.identity().cluster, identity.authorities)?;
        let grpc = TlsClient::new(trust.clone(), credentials.clone(), tls::ALPN_GRPC)?;
        // Zero is nobody's session.
        let session = SessionId(rand::random::<u64>().max(1));
        let registry = Registry::new("client");
        let node = Node::new(Setup {
            credentials: Arc::clone(&credentials),
            trust: trust.clone(),
            incarnation: session.0,
            session: session.0,
            config: at_ease(),
            budget: None,
            metrics: NetMetrics::new(&registry),
            audit: Arc::new(LogAudit),
            service: Service::Osd,
            memory: None,
        })?;
        let wait = patience.unwrap_or(Duration::from_secs(10));
        let monitors = Arc::new(MonClient::at_ease(&grpc, monitors, wait));
        let (to, mut chart) = watch::channel(None);
        let mut tasks = JoinSet::new();
        // The first answer says plainly why there is none.
        monitors.status(false).await?;
        let hurry = Arc::<Notify>::default();
        tasks.spawn(follow(Arc::clone(&monitors), Arc::clone(&trust), to, Arc::clone(&hurry)));
        // Whoever holds this handle for long outlives its certificate.
        let clock = UnixTime::now;
        let renewing = Arc::clone(&monitors);
        let keeper = Keeper { own: credentials, trust, folder: Some(folder), registry, now: Arc::default(), clock };
        tasks.spawn(keeper.run(move |ask| {
            let monitors = Arc::clone(&renewing);
            async move { monitors.renew(ask).await }
        }));
        let first = chart.wait_for(Option::is_some);
        let waited = tokio::time::timeout(wait, first).await.map(|seen| seen.is_ok());
        if waited != Ok(true) {
            let last = "the monitors gave no cluster map".to_owned();
            return Err(Error::TimedOut { what: "connecting".into(), patience: wait, last });
        }
        Ok(Cluster(Arc::new(Inner {
            node,
            session,
            patience,
            chart,
            links: Mutex::default(),
            next_tid: AtomicU64::new(1),
            open: Mutex::default(),
            tasks: Mutex::new(tasks),
            watches: Watches::default(),
            monitors,
            hurry,
        })))
    }

    /// A pool by name. One that was made a moment ago is waited for.
    pub async fn pool(&self, name: &str) -> Result<Pool, Error> {
        let mut chart = self.0.chart.clone();
        let found = |chart: &Option<Arc<Chart>>| chart.as_ref()?.map.pool_named(name).map(|(id, _)| id);
        if found(&chart.borrow()).is_none() {
            self.0.ask_for_maps();
        }
        let wait = chart.wait_for(|chart| found(chart).is_some());
        let seen = tokio::time::timeout(Duration::from_secs(1), wait).await;
        let id = seen.ok().and_then(Result::ok).and_then(|chart| found(&chart));
        let id = id.ok_or_else(|| Error::NoPool { name: name.to_owned() })?;
        Ok(Pool::new(self.clone(), id, name))
    }

    /// The epoch of the newest map it has.
    pub fn epoch(&self) -> u64 {
        self.0.chart().map_or(0, |chart| chart.epoch().0)
    }

    /// A pool by number, if there is one.
    pub fn pool_by_id(&self, id: PoolId) -> Option<Pool> {
        let chart = self.0.chart()?;
        let name = chart.map.pools.get(&id)?.name.clone();
        Some(Pool::new(self.clone(), id, &name))
    }

    /// The pools of the newest map, by name.
    pub fn pools(&self) -> Vec<Pool> {
        let chart = self.0.chart();
        let pools = chart.iter().flat_map(|chart| chart.map.pools.iter());
        pools.map(|(id, pool)| Pool::new(self.clone(), *id, &pool.name)).collect()
    }

    /// The session by which OSDs know this client; what fencing names.
    pub fn session(&self) -> u64 {
        self.0.session.0
    }
}

impl Inner {
    /// The newest map. There is one since connecting.
    pub(crate) fn chart(&self) -> Option<Arc<Chart>> {
        self.chart.borrow().clone()
    }

    /// Something waits that a newer map might help: the monitor that gives them may be hung, and nothing else asks after
    /// that for long.
    pub(crate) fn ask_for_maps(&self) {
        self.hurry.notify_one();
    }

    /// The link to an OSD that is up in this map.
    pub(crate) fn link(&self, chart: &Chart, osd: OsdId) -> Option<Link> {
        let to = chart.map.osd_info.get(osd).and_then(|info| address(info))?;
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = links.get(&osd) {
            link.move_to(to);
            return Some(link.clone());
        }
        let backoff = Backoff { longest: Duration::from_millis(500), ..Backoff::default() };
        let expect = Expect::Name(Name::osd(osd));
        let watches = Arc::clone(&self.watches);
        let ears = move || Ears(Arc::clone(&watches));
        let (link, task) = Link::new(Arc::clone(&self.node), to, expect, 0, backoff, ears);
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).spawn(task.run());
        links.insert(osd, link.clone());
        Some(link)
    }

    /// Where what watches are told goes.
    pub(crate) fn watches(&self) -> &Watches {
        &self.watches
    }

    /// Until the object has another primary, or the connection to its primary is another one.
    pub(crate) async fn disturbed(&self, object: &Object) {
        let found = self.chart().and_then(|chart| {
            let (pg, primary) = object.placed(&chart)?;
            Some((pg, primary?, self.link(&chart, primary?)?))
        });
        let Some((pg, primary, link)) = found else {
            let mut news = self.chart.clone();
            news.mark_unchanged();
            let _ = news.changed().await;
            return;
        };
        let mut state = link.watch();
        state.mark_unchanged();
        tokio::select! {
            () = self.moved(pg, primary) => {}
            _changed = state.changed() => {}
        }
    }

    /// A number for a request, and that below which every request was answered.
    pub(crate) fn begin(&self) -> u64 {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let tid = self.next_tid.fetch_add(1, Ordering::Relaxed);
        open.insert(tid);
        tid
    }

    pub(crate) fn acked_below(&self) -> u64 {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.first().copied().unwrap_or_else(|| self.next_tid.load(Ordering::Relaxed))
    }

    pub(crate) fn end(&self, tid: u64) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&tid);
    }
}

/// Keeps the newest map in `to`, until nobody looks. Who is in a `hurry` suspects that there are newer ones: then another
/// monitor is asked, and what comes first is taken.
async fn follow(
    monitors: Arc<MonClient>,
    trust: Arc<Trust>,
    to: watch::Sender<Option<Arc<Chart>>>,
    hurry: Arc<Notify>,
) {
    let mut newest: Option<Arc<Chart>> = None;
    let mut looked: Option<Instant> = None;
    loop {
        let have = newest.as_ref().map(|chart| chart.epoch().0).unwrap_or_default();
        let mut updates = match monitors.subscribe(have).await {
            Ok(updates) => updates,
            Err(error) => {
                tracing::warn!(%error, "no monitor gives maps");
                if to.is_closed() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Another monitor is waited for as well, while this one is still heard.
        let mut other: Option<Asking> = None;
        loop {
            let update = tokio::select! {
                update = updates.message() => update,
                asked = answered(&mut other) => {
                    other = None;
                    let Ok((maps, first)) = asked else { continue };
                    updates = maps;
                    Ok(first)
                }
                () = hurry.notified(), if other.is_none() => {
                    if looked.is_none_or(|looked| looked.elapsed() >= APART) {
                        looked = Some(Instant::now());
                        let have = newest.as_ref().map(|chart| chart.epoch().0).unwrap_or_default();
                        let monitors = Arc::clone(&monitors);
                        other = Some(Box::pin(async move {
                            let mut maps = monitors.subscribe_elsewhere(have).await?;
                            let first = maps.message().await.map_err(|error| from_grpc(&error))?;
                            Ok((maps, first))
                        }));
                    }
                    continue;
                }
            };
            let Ok(Some(update)) = update else { break };
            match taken(newest.as_deref(), update) {
                Ok(Some(chart)) => {
                    other = None;
                    let chart = Arc::new(chart);
                    newest = Some(Arc::clone(&chart));
                    believe(&chart.map, &trust);
                    if to.send(Some(chart)).is_err() {
                        return;
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "an update of the map does not fit; the whole map is fetched");
                    newest = None;
                    break;
                }
            }
        }
        if to.is_closed() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A question to another monitor, answered once that has something newer: one that is behind or alone is no better.
type Asking = Pin<Box<dyn Future<Output = Result<(Maps, Option<v1::MapUpdate>), Status>> + Send>>;

/// What came of it; never, if there is none.
async fn answered(asking: &mut Option<Asking>) -> Result<(Maps, Option<v1::MapUpdate>), Status> {
    match asking {
        Some(asking) => asking.await,
        None => std::future::pending().await,
    }
}

fn taken(newest: Option<&Chart>, update: v1::MapUpdate) -> Result<Option<Chart>, Error> {
    let bad = |error: &dyn std::fmt::Display| Error::Map(error.to_string());
    match (update.update, newest) {
        (Some(v1::map_update::Update::Full(bytes)), newest) => {
            let map = ClusterMap::decode(&bytes).map_err(|error| bad(&error))?;
            if newest.is_some_and(|newest| map.epoch <= newest.epoch()) {
                return Ok(None);
            }
            Chart::first(map).map(Some)
        }
        (Some(v1::map_update::Update::Increment(bytes)), Some(newest)) => {
            let increment = Increment::decode(&bytes).map_err(|error| bad(&error))?;
            if increment.epoch <= newest.epoch() {
                return Ok(None);
            }
            newest.next(newest.map.apply(&increment).map_err(|error| bad(&error))?).map(Some)
        }
        (Some(v1::map_update::Update::Increment(_)), None) => Err(Error::Map("a change came before a map".into())),
        (None, _) => Ok(None),
    }
}
