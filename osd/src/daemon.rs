//! The OSD as a process: from a data folder to a member of the cluster, and back down in order.
//!
//! The data folder holds `tls/` (identity and trusted authorities), `store/` (the local store), `maps` and `runs`, the
//! count of its starts. One thread runs the connections, the monitors' desk and the first shard; each further shard has
//! one of its own; another has the pulse.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use nacre_maps::health::PgState;
use nacre_mon_api::{MonClient, v1};
use nacre_net::alarm::{Alarm, until_round};
use nacre_net::conn::NetMetrics;
use nacre_net::daemon::Daemon;
use nacre_net::identity::{Gate, Service};
use nacre_net::node::listener::ListenError;
use nacre_net::node::{Address, Listener, Node, Setup};
use nacre_net::tls::{self, Credentials, TlsClient, Trust};
use nacre_pg::io::{Report, Request};
use nacre_pg::state::Config;
use nacre_pg::view::View;
use nacre_pg::wire::{Parcel, Told};
use nacre_proto::ids::{Epoch, OsdId, PgId, SessionId, Uuid};
use nacre_proto::status::{Retry, Status};
use nacre_proto::v1::map_command::Verb as Map;
use nacre_proto::v1::{
    FailureReport, FailureReports, MapCommand, OsdBeacon, OsdBoot, OsdStopping, PgReport, PgSet, PgTemp, Place, UpThru,
};
use nacre_store::{DiskStore, Fullness, Identity, ObjectStore, StoreConfig, StoreError};
use tokio::sync::mpsc;

use crate::beacon::Said;
use crate::courier::Couriers;
use crate::maplog::MapLog;
use crate::pulse::Pulse;
use crate::service::{Desk, Guest};
use crate::shard::{self, Event, Ground, Late, Outside, Shard};
use crate::shards::{self, MOST, Shards};
use crate::sight::{History, SightError};
use crate::tuning::{self, Tuning};

/// How often this OSD looks whether it has something new for the monitors.
const BEACON: Duration = Duration::from_secs(1);
/// Bytes of requests held at a time, before the map says how many.
const REQUESTS: u64 = 64 << 20;
/// How long the monitors may take to answer before they are asked anew.
const PATIENCE: Duration = Duration::from_secs(10);

nacre_net::options! {
    /// What an OSD is told by its file, the environment or flags.
    pub struct OsdOptions {
        /// Where it listens, and where clients and the others find it.
        listen: Option<SocketAddr> = None, restart;
        /// Its data folder.
        data: PathBuf = "/var/lib/nacre/osd".into(), restart;
        /// Where the monitors are, separated by commas.
        monitors: String = String::new(), restart;
        /// Where it stands in the crush tree, as in `root=default,host=a`; empty: on its host, below `default`.
        location: String = String::new(), restart;
        /// The class of its device, as in `ssd`.
        class: String = String::new(), restart;
        /// How much it holds against its siblings when it is new to the cluster; not said: its size in TiB.
        weight: Option<f64> = None, restart;
        /// Memory for its store, in bytes.
        memory: u64 = 256 << 20, restart, in 33_554_432 => 68_719_476_736;
        /// Threads that share its placement groups among themselves; 0: one for each four cores of its host, at most 4.
        shards: u64 = 0, restart, in 0 => MOST;
    }
}

/// Why an OSD does not start, or does not go on.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// A file of its data folder.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
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
    #[error("{} holds no identity: this OSD has not been given one by `nacre up` or a join", path.display())]
    NoIdentity {
        /// Where they should be.
        path: PathBuf,
    },
    /// Keys of someone else.
    #[error("{} holds the identity of {found}, not of {me}", path.display())]
    OtherIdentity {
        /// Where.
        path: PathBuf,
        /// Whose.
        found: String,
        /// Who this is.
        me: OsdId,
    },
    /// TLS.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// Its store.
    #[error("the store: {0}")]
    Store(#[from] StoreError),
    /// Its groups cannot be loaded.
    #[error("loading the placement groups: {0}")]
    Groups(String),
    /// A shard has no thread.
    #[error("starting the thread of shard {index}: {source}; `shards` says how many there are to be")]
    Thread {
        /// Which.
        index: usize,
        /// Why.
        source: io::Error,
    },
    /// Its place.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The map.
    #[error(transparent)]
    Map(#[from] SightError),
    /// The monitors refuse it.
    #[error("the monitors do not let {me} in: {source}")]
    Refused {
        /// Who.
        me: OsdId,
        /// Why.
        source: Status,
    },
    /// The store broke while it ran.
    #[error("the store failed, so nothing more is promised: {0}")]
    Broken(String),
}

fn file(path: &Path) -> impl Fn(io::Error) -> DaemonError {
    let path = path.to_owned();
    move |source| DaemonError::File { path: path.clone(), source }
}

/// Counts this start. The count is on disk before anybody hears of it.
fn next_run(path: &Path) -> Result<u64, DaemonError> {
    let before: u64 = match std::fs::read_to_string(path) {
        Ok(text) => text.trim().parse().map_err(|_| DaemonError::File {
            path: path.to_owned(),
            source: io::Error::other("holds no number; the cluster map says how often this OSD was started"),
        })?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(file(path)(error)),
    };
    let run = before + 1;
    let fresh = path.with_extension("new");
    let write = || {
        std::fs::write(&fresh, format!("{run}\n"))?;
        std::fs::File::open(&fresh)?.sync_all()?;
        std::fs::rename(&fresh, path)?;
        std::fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(file(path))?;
    Ok(run)
}

/// A shard's way out.
struct Out {
    shard: usize,
    couriers: Arc<Couriers>,
    desk: Arc<Desk>,
    asks: mpsc::UnboundedSender<Ask>,
}

enum Ask {
    Crowded,
    Monitors(PgId, Epoch, Request),
    Broken(String),
}

impl Outside for Out {
    fn say(&self, to: OsdId, said: Parcel) {
        self.couriers.say(self.shard, to, said);
    }
    fn mark(&self, to: OsdId, connection: u64) {
        self.couriers.mark(self.shard, to, connection);
    }
    fn ask(&self, pg: PgId, interval: Epoch, what: Request) {
        let _ = self.asks.send(Ask::Monitors(pg, interval, what));
    }
    fn tell(&self, session: SessionId, told: &Told) {
        self.desk.tell(session, told);
    }
    fn crowded(&self, _now: Fullness) {
        let _ = self.asks.send(Ask::Crowded);
    }
    fn broken(&self, why: String) {
        let _ = self.asks.send(Ask::Broken(why));
    }
}

impl Drop for Out {
    /// In the end nobody listens any more. Before that, a shard that is gone (it can only have panicked) leaves groups
    /// that nobody steps: the process must not look alive.
    fn drop(&mut self) {
        let _ = self.asks.send(Ask::Broken(format!("shard {} has ended", self.shard)));
    }
}

/// What the process is made of, once it stands.
struct Running {
    me: OsdId,
    run: u64,
    monitors: Arc<MonClient>,
    trust: Arc<Trust>,
    couriers: Arc<Couriers>,
    desk: Arc<Desk>,
    history: History,
    log: MapLog,
    ground: Ground,
    late: Vec<Late>,
    said: Said,
    store: Arc<DiskStore>,
    /// For what has been asked and not been answered.
    requests: Arc<nacre_net::conn::Budget>,
    boot: OsdBoot,
    booting: Arc<AtomicBool>,
}

fn millis(since: Duration) -> u64 {
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn places(text: &str) -> Result<Vec<Place>, DaemonError> {
    let place = |part: &str| {
        let (kind, name) = part.split_once('=').ok_or_else(|| DaemonError::Option {
            name: "location",
            problem: format!("{part:?} is no place; places look like root=default,host=a"),
        })?;
        Ok(Place { kind: kind.trim().to_owned(), name: name.trim().to_owned() })
    };
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(place).collect()
}

/// Runs an OSD until its surroundings say that it ends.
pub async fn run(me: OsdId, options: &OsdOptions, around: &Daemon) -> Result<(), DaemonError> {
    nacre_net::daemon::process::take_small_pages();
    let listen = options.listen.ok_or(DaemonError::Option {
        name: "listen",
        problem: "it is not set; write listen = \"ADDRESS:PORT\" into the section [osd]".into(),
    })?;
    let folder = options.data.join("tls");
    let stored = tls::files::load(&folder)?.ok_or(DaemonError::NoIdentity { path: folder.clone() })?;
    let authority = stored.authorities.first().cloned().unwrap_or_default();
    let credentials = Credentials::new(&stored.pair, &authority)?;
    let identity = credentials.identity();
    if identity.name.as_osd() != Some(me) {
        return Err(DaemonError::OtherIdentity { path: folder, found: identity.name.to_string(), me });
    }
    let trust = Trust::new(identity.cluster, stored.authorities)?;
    let cluster = Uuid(identity.cluster.0);
    let grpc = TlsClient::new(trust.clone(), credentials.clone(), tls::ALPN_GRPC)?;

    let maps = options.data.join("maps");
    let kept = MapLog::read(&maps).map_err(file(&maps))?;
    let memory = kept.last().and_then(|sight| tuning::memory(&sight.map, me)).unwrap_or(options.memory);
    let path = options.data.join("store");
    let config = StoreConfig { memory, ..StoreConfig::default() };
    let store = Arc::new(DiskStore::open(&path, Some(Identity { cluster, osd: me }), &config)?);
    crate::gauges::show(&around.registry, &store);
    let run = next_run(&options.data.join("runs"))?;
    tracing::info!(osd = %me, run, address = %listen, "starting");

    let oldest = shard::oldest_epoch(&*store).map_err(DaemonError::Groups)?;
    let (log, history) = MapLog::open(&maps, kept, oldest).map_err(file(&maps))?;
    let addresses = options.monitors.split(',').map(str::trim).filter(|at| !at.is_empty()).map(str::to_owned);
    let monitors = Arc::new(MonClient::new(&grpc, addresses, PATIENCE));

    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(run, millis);
    nacre_mon_api::keys::keep(around, credentials.clone(), trust.clone(), folder, Arc::clone(&monitors));
    let requests = nacre_net::conn::Budget::new(REQUESTS);
    let audit = nacre_mon_api::audit::to_cluster_log(Arc::clone(&monitors));
    let node = Node::new(Setup {
        credentials,
        trust: trust.clone(),
        incarnation: since,
        // An OSD speaks to OSDs under its start's own session, so that a connection of an older run is replaced.
        session: since,
        config: nacre_net::conn::Config::default(),
        budget: Some(Arc::clone(&requests)),
        metrics: NetMetrics::new(&around.registry),
        audit: Arc::clone(&audit),
        service: Service::Osd,
        memory: None,
    })?;
    let socket = around.common.now().run_dir.join(format!("{me}.data"));
    let listener = Listener::bind(&node, Some(listen), Some(&socket)).await?;
    let (tcp, local) = parts(listener.address(), listen);

    let wanted = if options.shards == 0 { shards::by_cores() } else { options.shards };
    let (shards, queues) = Shards::new(wanted);
    let gate = Gate::new(Service::Osd, audit);
    let pulse = Pulse::start(&node, tcp.ip(), gate.clone()).await?;
    let heartbeat = pulse.address();
    let couriers = Couriers::new(me, Arc::clone(&node), shards.clone(), pulse);
    let desk = Arc::new(Desk { shards: shards.clone(), gate, sight: RwLock::new(None), sessions: Mutex::default() });
    let usage = store.usage();
    let boot = OsdBoot {
        osd: me.0,
        incarnation: run,
        epoch: 0,
        uuid: Bytes::copy_from_slice(&store.info().store.0),
        public: vec![tcp.to_string()],
        cluster: vec![tcp.to_string()],
        heartbeat: vec![heartbeat.to_string()],
        host: hostname(),
        local_socket: local,
        version: env!("CARGO_PKG_VERSION").into(),
        capacity_bytes: usage.total,
        location: places(&options.location)?,
        class: options.class.clone(),
        weight_millionths: options.weight.map(|weight| (weight * 1e6).round() as u64),
    };
    let ground = Ground::new(me, shards, store.clone());
    let mut running = Running {
        me,
        run,
        monitors,
        trust,
        couriers,
        desk,
        history,
        log,
        ground,
        late: Vec::new(),
        said: Said::default(),
        store,
        requests,
        boot,
        booting: Arc::default(),
    };

    running.catch_up(around).await?;
    let (asks, asked) = mpsc::unbounded_channel();
    let all = running.shards(&asks)?;
    drop(asks);
    running.late = all.iter().map(Shard::late).collect();
    around.admin.add("ops", "operations: in flight, slow, recent", {
        let shards = running.ground.shards.clone();
        move |_args| {
            let (to, mut shown) = mpsc::unbounded_channel();
            let there = shards.all(move || Event::Ops(to.clone()));
            async move {
                let mut parts = Vec::new();
                while let Some(part) = shown.recv().await {
                    parts.push(part);
                }
                if there { Ok(shard::together(parts)) } else { Err("a shard has ended".to_owned()) }
            }
        }
    });
    let mut all = all.into_iter().zip(queues).enumerate();
    let first = all.next().map(|(_, (shard, queue))| tokio::spawn(shard.run(queue)));
    let mut threads = Vec::new();
    for (index, (shard, queue)) in all {
        let failed = |source| DaemonError::Thread { index, source };
        let runtime = nacre_net::daemon::current_thread_runtime().map_err(failed)?;
        running.couriers.pulse().watch(runtime.handle().clone());
        let thread = std::thread::Builder::new().name(format!("shard-{index}"));
        threads.push(thread.spawn(move || runtime.block_on(shard.run(queue))).map_err(failed)?);
    }
    let serving = tokio::spawn({
        let desk = Arc::clone(&running.desk);
        listener.serve(Arc::clone(&node), move || Guest::new(Arc::clone(&desk)))
    });

    let ended = running.follow(asked, around).await;
    if ended.is_ok() {
        running.say_goodbye().await;
    }
    node.take_leave("the OSD stops").await;
    serving.abort();
    running.ground.shards.all(|| Event::Stop);
    if let Some(first) = first
        && let Err(error) = first.await
    {
        tracing::error!(%error, "the first shard had panicked");
    }
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a shard had panicked");
        }
    }
    let Running { store, ground, .. } = running;
    drop(ground);
    // The shards have let go of it, so this is the last one: what the journal holds needs no replay next time.
    if let (Ok(()), Some(store)) = (&ended, Arc::into_inner(store)) {
        store.close()?;
    }
    ended
}

/// Host and port to tell others, and the local socket in the form of an address.
fn parts(address: &Address, listen: SocketAddr) -> (SocketAddr, String) {
    let local =
        address.to_string().split_once(",local:").map(|(_, local)| format!("local:{local}")).unwrap_or_default();
    (address.tcp().unwrap_or(listen), local)
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| "localhost".into(), |name| name.trim().into())
}

impl Running {
    fn epoch(&self) -> Epoch {
        self.history.last().map(|sight| sight.epoch()).unwrap_or_default()
    }

    /// Every map up to the one the quorum has now.
    async fn catch_up(&mut self, around: &Daemon) -> Result<(), DaemonError> {
        loop {
            let newest = tokio::select! {
                status = self.monitors.status(false) => match status {
                    Ok(status) => Epoch(status.epoch),
                    Err(source) if source.code.retry() == Retry::Never => {
                        return Err(DaemonError::Refused { me: self.me, source });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "no quorum of monitors yet");
                        continue;
                    }
                },
                _ = around.shutdown.begun() => return Ok(()),
            };
            let Ok(mut updates) = self.monitors.subscribe(self.epoch().0).await else { continue };
            while self.epoch() < newest || self.history.last().is_none() {
                let Ok(Some(update)) = updates.message().await else { break };
                self.take(update)?;
            }
            if self.epoch() >= newest && self.history.last().is_some() {
                return Ok(());
            }
        }
    }

    fn take(&mut self, update: v1::MapUpdate) -> Result<bool, SightError> {
        match update.update {
            Some(v1::map_update::Update::Full(bytes)) => self.log.take(&mut self.history, true, &bytes),
            Some(v1::map_update::Update::Increment(bytes)) => self.log.take(&mut self.history, false, &bytes),
            None => Ok(false),
        }
    }

    fn shards(&mut self, asks: &mpsc::UnboundedSender<Ask>) -> Result<Vec<Shard<Out>>, DaemonError> {
        self.spread();
        // Before any shard works: what it makes by itself is not among them.
        let groups = self.store.collections()?;
        let one = |shard: usize| {
            let (couriers, desk) = (Arc::clone(&self.couriers), Arc::clone(&self.desk));
            let out = Out { shard, couriers, desk, asks: asks.clone() };
            Shard::load(shard, &self.ground, Config::default(), self.history.clone(), out, &groups)
        };
        (0..self.ground.shards.count()).map(one).collect::<Result<_, _>>().map_err(DaemonError::Groups)
    }

    /// The newest map, to those on this side of the shard.
    fn spread(&self) {
        if let Some(sight) = self.history.last() {
            // First: whoever is revoked must not act under the map that says so.
            nacre_mon_api::keys::believe(&sight.map, &self.trust);
            *self.desk.sight.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(sight));
            let tuning = Tuning::of(&sight.map, self.me);
            self.requests.resize(tuning.requests);
            self.couriers.ask_every(tuning.heartbeat);
            self.couriers.follow(sight);
        }
    }

    /// Follows the map, says that it lives, reports who does not, until it is told to end.
    async fn follow(&mut self, mut asked: mpsc::UnboundedReceiver<Ask>, around: &Daemon) -> Result<(), DaemonError> {
        let (to, mut updates) = mpsc::channel(64);
        tokio::spawn(subscribe(Arc::clone(&self.monitors), self.epoch(), to));
        let beacon = Alarm::new();
        beacon.set(Duration::ZERO);
        let mut said_up = false;
        let couriers = Arc::clone(&self.couriers);
        self.boot();
        loop {
            tokio::select! {
                _why = around.shutdown.begun() => return Ok(()),
                update = updates.recv() => {
                    let Some(update) = update else { return Ok(()) };
                    if self.take(update)? {
                        self.spread();
                        if let Some(sight) = self.history.last() {
                            self.ground.shards.all(|| Event::Sight(Arc::clone(sight)));
                        }
                        let epoch = self.epoch();
                        self.history.forget_before(Epoch(epoch.0.saturating_sub(1000)));
                        if self.is_up() && !said_up {
                            said_up = true;
                            around.ready(&format!("up in epoch {} at {}", epoch.0, self.boot.public.join(", ")));
                        }
                        if !self.is_up() {
                            self.boot();
                        }
                    }
                }
                ask = asked.recv() => match ask {
                    Some(Ask::Broken(why)) => return Err(DaemonError::Broken(why)),
                    Some(Ask::Monitors(pg, interval, what)) => self.pass_on(pg, interval, what),
                    Some(Ask::Crowded) => self.send_beacon(),
                    None => return Err(DaemonError::Broken("the shard has ended".into())),
                },
                () = beacon.rang() => {
                    beacon.set(until_round(BEACON));
                    self.send_beacon();
                }
                () = couriers.alarmed() => self.report_silent(),
            }
        }
    }

    fn is_up(&self) -> bool {
        self.history
            .last()
            .and_then(|sight| sight.map.osds.get(self.me))
            .is_some_and(|state| state.is_up() && state.incarnation.0 == self.run)
    }

    /// Asks to be let in, until the map says so.
    fn boot(&self) {
        if self.is_up() || self.booting.swap(true, Ordering::SeqCst) {
            return;
        }
        let boot = OsdBoot { epoch: self.epoch().0, ..self.boot.clone() };
        let (monitors, booting) = (Arc::clone(&self.monitors), Arc::clone(&self.booting));
        tokio::spawn(async move {
            if let Err(error) = execute(&monitors, Map::OsdBoot(boot)).await {
                tracing::warn!(%error, "not let in yet");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            booting.store(false, Ordering::SeqCst);
        });
    }

    fn pass_on(&self, pg: PgId, interval: Epoch, what: Request) {
        let verb = match what {
            Request::UpThru => Map::UpThru(UpThru { osd: self.me.0, incarnation: self.run, epoch: interval.0 }),
            Request::PgTemp(osds) => Map::PgTemp(PgTemp {
                from: self.me.0,
                epoch: interval.0,
                wants: vec![PgSet { pg: pg.to_string(), osds: osds.iter().map(|osd| osd.0).collect() }],
            }),
            _ => return,
        };
        let monitors = Arc::clone(&self.monitors);
        tokio::spawn(async move {
            // A request of an interval that is over is refused; in a new one the group asks anew.
            let mut pause = Duration::from_millis(50);
            for _ in 0..8 {
                match execute(&monitors, verb.clone()).await {
                    Ok(()) => return,
                    Err(error) if error.code.retry() == Retry::Never => {
                        return tracing::debug!(%pg, %error, "the monitors refused");
                    }
                    Err(error) => tracing::warn!(%pg, %error, "the monitors did not take it yet"),
                }
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
        });
    }

    fn send_beacon(&mut self) {
        if !self.is_up() {
            return self.boot();
        }
        let usage = self.store.usage();
        let mut late = (0, String::new());
        for of_shard in &self.late {
            let (count, why) = of_shard.lock().unwrap_or_else(PoisonError::into_inner).clone();
            late = (late.0 + count, if late.1.is_empty() { why } else { late.1 });
        }
        let pgs: Vec<PgReport> = {
            let reports = self.ground.reports.lock().unwrap_or_else(PoisonError::into_inner);
            let sight = self.history.last();
            let view = |pg| sight.and_then(|sight| sight.view(pg)).filter(|view| view.primary == Some(self.me));
            reports.values().filter_map(|report| Some(line(report, &*view(report.pg)?))).collect()
        };
        // For the next one.
        self.ground.shards.all(|| Event::Report);
        let beacon = OsdBeacon {
            osd: self.me.0,
            incarnation: self.run,
            epoch: self.epoch().0,
            used_bytes: usage.used,
            total_bytes: usage.total,
            slow_ops: u32::try_from(late.0).unwrap_or(u32::MAX),
            slow_why: late.1,
            disk_errors: self.ground.load.faults(Instant::now()),
            pgs,
            load: Some(self.ground.load.message()),
        };
        if !self.said.is_due(&beacon) {
            return;
        }
        let (monitors, heard) = (Arc::clone(&self.monitors), self.said.heard());
        tokio::spawn(async move {
            let sent = monitors.beacon(beacon).await;
            heard.store(sent.is_ok(), Ordering::Relaxed);
            if let Err(error) = sent {
                tracing::debug!(%error, "a beacon was not heard");
            }
        });
    }

    fn report_silent(&self) {
        if !self.is_up() {
            return;
        }
        let reports: Vec<_> = self
            .couriers
            .to_report()
            .iter()
            .map(|peer| FailureReport {
                target: peer.osd.0,
                incarnation: peer.run.0,
                silent_ms: millis(peer.silent),
                refused: peer.refused,
                alive: peer.alive,
            })
            .collect();
        if reports.is_empty() {
            return;
        }
        let (monitors, reports) = (Arc::clone(&self.monitors), FailureReports { reporter: self.me.0, reports });
        tokio::spawn(async move {
            if let Err(error) = monitors.report_failures(reports).await {
                tracing::debug!(%error, "a failure report was not heard");
            }
        });
    }

    /// So that no client waits for this OSD to be noticed missing.
    async fn say_goodbye(&self) {
        let began = Instant::now();
        let stopping = Map::OsdStopping(OsdStopping { osd: self.me.0, incarnation: self.run });
        let told = tokio::time::timeout(Duration::from_secs(2), execute(&self.monitors, stopping)).await;
        tracing::info!(took_ms = millis(began.elapsed()), told = matches!(told, Ok(Ok(()))), "said goodbye");
    }
}

async fn execute(monitors: &MonClient, verb: Map) -> Result<(), Status> {
    let verb = v1::command::Verb::Map(MapCommand { verb: Some(verb) });
    monitors.execute(verb, false).await.map(drop)
}

/// A group as the monitors hear of it.
fn line(report: &Report, view: &View) -> PgReport {
    let mut state = match report.state {
        "active" if report.clean => PgState::ACTIVE | PgState::CLEAN,
        "active" if report.lacking.degraded > 0 => PgState::ACTIVE | PgState::DEGRADED,
        "active" if report.lacking.misplaced > 0 => PgState::ACTIVE | PgState::BACKFILLING,
        "active" => PgState::ACTIVE,
        "down" | "incomplete" => PgState::DOWN,
        _ => PgState::PEERING,
    };
    state.set(PgState::UNDERSIZED, view.acting.len() < view.pool.size as usize);
    PgReport {
        pg: report.pg.to_string(),
        state: state.bits(),
        epoch: report.epoch.0,
        objects: report.stats.objects,
        bytes: report.stats.bytes,
        degraded: report.lacking.degraded,
        misplaced: report.lacking.misplaced,
        unfound: report.unfound,
        why: report.why.clone(),
        ..PgReport::default()
    }
}

/// Keeps a subscription up.
async fn subscribe(monitors: Arc<MonClient>, mut have: Epoch, to: mpsc::Sender<v1::MapUpdate>) {
    loop {
        match monitors.subscribe(have.0).await {
            Ok(mut updates) => {
                while let Ok(Some(update)) = updates.message().await {
                    have = have.max(Epoch(update.epoch));
                    if to.send(update).await.is_err() {
                        return;
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "no monitor gives maps"),
        }
        if to.is_closed() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
