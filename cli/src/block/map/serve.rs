//! The process behind a mapped image: opens it, makes it a device, and stays until it is unmapped.
//!
//! It leaves only when nobody uses the device, or when it is forced to: a disk must not go away under a file system. So
//! SIGTERM makes it wait for the last user; a second one ends it at once, as kill -9 does. Then what was flushed is durable,
//! and `nacre block map` brings the image back: under the same device, whose users have only waited, if that is one of the
//! kernel's NBD driver; while what uses a loop device gets errors from then on.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use nacre_block::{Image, Use, export};
use nacre_client::{Cluster, SessionId, Settings};
use nacre_map::disk::{self, Mounted};
use nacre_map::nbd::{self, Connected};
use nacre_map::ways::{self, Way};
use nacre_map::{loops, users};
use nacre_net::daemon::admin::{self, Verbs};
use nacre_net::daemon::logs;
use nacre_net::daemon::shutdown::Shutdown;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, spawn_blocking};

use super::slot::{Claimed, Record, Slot, Slots};
use crate::block::Spot;
use crate::block::open::{self, MetricsArg};
use crate::local::{ConfigArg, log_of, monitors_of, run_folder_of};
use crate::output::Out;

/// Who only looks at a device, as a daemon that looks for new ones does, is gone after this.
const GLANCE: Duration = Duration::from_secs(2);
/// How long a forced end waits for the cluster.
const FORCED: Duration = Duration::from_secs(10);
/// Between two looks whether the last user is gone.
const LOOK: Duration = Duration::from_millis(500);

/// What is to be mapped, and how.
pub(super) struct Wanted {
    pub(super) config: ConfigArg,
    pub(super) image: Spot,
    pub(super) usage: Use,
    pub(super) write_back: u64,
    pub(super) patience: Duration,
    /// None: the best there is.
    pub(super) way: Option<Way>,
    /// How long what uses an NBD device waits when this process dies.
    pub(super) grace: Duration,
    /// Left behind by the verb: says that it is ready, and goes on without a terminal.
    pub(super) detached: bool,
    pub(super) metrics: MetricsArg,
}

impl Wanted {
    fn record(&self, way: Way) -> Record {
        let read_only = self.usage == Use::Read || self.image.snapshot.is_some();
        Record::new(&self.image.to_string(), &way.to_string(), read_only)
    }

    /// Opens the image. `dead` is a session whose process is known to be gone: it need not be asked.
    async fn open(&self, dead: Option<u64>) -> anyhow::Result<Image> {
        let (folder, monitors) = monitors_of(&self.config)?;
        let mut settings = Settings::of_folder(&folder, monitors)?;
        // A disk waits for its cluster: an error would break what is on it.
        settings.patience = None;
        let opening = async {
            let cluster = Cluster::connect(settings).await?;
            let pool = self.image.room.open(&cluster).await?;
            let name = &self.image.image;
            let image = match &self.image.snapshot {
                Some(snapshot) => Image::open_snapshot(&pool, name, snapshot).await?,
                None => {
                    if let (Some(dead), Use::Write) = (dead, self.usage) {
                        Image::open(&pool, name).await?.fence_session(SessionId(dead)).await?;
                    }
                    Image::open_for(&pool, name, self.usage).await?
                }
            };
            match (&self.image.snapshot, self.usage) {
                (Some(_), _) => {}
                (None, Use::Read) => drop(image.listen().await?),
                (None, _) => image.write_back(self.write_back),
            }
            anyhow::Ok(image)
        };
        let opened = tokio::time::timeout(self.patience, opening).await;
        opened.with_context(|| format!("the cluster has not answered for {} s", self.patience.as_secs()))?
    }

    /// Maps, and serves until the mapping is to end.
    pub(super) async fn serve(self, out: &mut Out) -> anyhow::Result<()> {
        let way = ways::choose(self.way)?;
        let mut record = self.record(way);
        let shutdown = Shutdown::on_signals()?;
        let (registry, metrics) = self.metrics.start("map", &shutdown).await?;
        let Claimed { slot, before, tag, _held } = Slots::of(&self.config)?.claim(&record)?;
        record.tag = tag;
        // Memory that is short must not be won by writing to this very device.
        let _ = rustix::process::configure_io_flusher_behavior(true);
        let prepared = async {
            let old = before.as_ref().and_then(|before| before.device.clone());
            may_follow(&record, way)?;
            let image = self.open(before.as_ref().and_then(|before| before.session)).await?;
            if let Err(error) = nacre_map::driver::fits(image.size()) {
                image.close().await?;
                return Err(error.into());
            }
            let made = match way {
                Way::Loop => Mapping::on_loop(&slot, image.clone(), &record, old).await,
                Way::Nbd => Mapping::on_nbd(&slot, image.clone(), &record, old, self.grace).await,
            };
            match made {
                Ok(mapping) => Ok(mapping),
                Err(error) => {
                    image.close().await?;
                    Err(error)
                }
            }
        };
        let mapping = match prepared.await {
            Ok(mapping) => mapping,
            Err(error) => {
                // What was not there before is not there after.
                if before.is_none() {
                    slot.forget()?;
                }
                return Err(error);
            }
        };
        record.device = Some(mapping.device.clone());
        record.ready = true;
        record.session = (!record.read_only).then(|| mapping.image.pool().cluster().session());
        slot.write(&record)?;
        open::measure(&registry, &record.image, &mapping.image);
        let (ask, asked) = mpsc::channel(1);
        let answers = self.answer(&slot, &record, &mapping.image, ask)?;
        writeln!(out, "{}", mapping.device.display())?;
        out.flush()?;
        if self.detached {
            // Whoever started it reads no more.
            let path = log_of(&self.config, &slot.daemon())?;
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            let log = OpenOptions::new().create(true).append(true).open(&path);
            let log = log.with_context(|| format!("opening {}", path.display()))?;
            rustix::stdio::dup2_stdout(&log)?;
            rustix::stdio::dup2_stderr(&log)?;
        }
        logs::start("info", logs::Format::Text)?;
        tracing::info!(image = record.image, device = %mapping.device.display(), ?metrics, "mapped");
        let done = mapping.stay(&shutdown, asked).await;
        answers.abort();
        done?;
        slot.forget()
    }

    /// Takes requests of `unmap`, `mapped` and `top`.
    fn answer(
        &self,
        slot: &Slot,
        record: &Record,
        image: &Image,
        ask: mpsc::Sender<Ask>,
    ) -> anyhow::Result<JoinHandle<()>> {
        let verbs = Verbs::default();
        let (name, weak) = (record.image.clone(), image.clone());
        verbs.add("images", "the image that is mapped, and what was done with it", move |_| {
            let said = open::said(&name, &weak, 1);
            async move { Ok(Value::Array(vec![said])) }
        });
        verbs.add("unmap", "takes the device away and ends: force", move |args| {
            let ask = ask.clone();
            async move {
                let force = args["force"].as_bool().unwrap_or(false);
                let (answer, answered) = oneshot::channel();
                let gone = || "it is ending already".to_owned();
                ask.send(Ask { force, answer }).await.map_err(|_| gone())?;
                answered.await.map_err(|_| gone())?.map(|()| json!({}))
            }
        });
        let folder = run_folder_of(&self.config)?;
        let socket = admin::bind(&folder.join(format!("{}.admin", slot.daemon())))?;
        Ok(tokio::spawn(admin::serve(socket, Arc::new(verbs))))
    }
}

/// May a mapping follow the one whose process is gone? Not if it would take an NBD device away from those who wait for it.
fn may_follow(record: &Record, way: Way) -> anyhow::Result<()> {
    let Some(device) = nbd::find(&record.tag) else { return Ok(()) };
    let as_before = way == Way::Nbd && nbd::is_read_only(&device) == record.read_only;
    let users = users::users(&device);
    if !as_before && !users.is_empty() {
        let mode = if nbd::is_read_only(&device) { " --read-only" } else { "" };
        bail!(
            "{} is in use ({}) and waits for the image: map it as it was, with --way nbd{mode}, or take the device away \
             with nacre block unmap --force; nothing was changed",
            device.display(),
            named(&users)
        );
    }
    Ok(())
}

/// Takes away what a process that is gone left behind: its device, if it is still this mapping's, and its mount.
pub(super) async fn put_away(slot: &Slot, tag: &str, device: Option<PathBuf>) -> anyhow::Result<()> {
    let (disk, tag) = (slot.disk(), tag.to_owned());
    spawn_blocking(move || {
        nbd::clear(&tag)?;
        let file = disk.join(disk::FILE);
        if let Some(device) = device
            && loops::backing(&device).as_deref() == Some(&*file)
        {
            loops::detach(&device)?;
            if loops::backing(&device).as_deref() == Some(&*file) {
                let users = named(&users::users(&device));
                crate::output::aside(&format!(
                    "{} of the mapping that broke goes away when it is used no more: {users}",
                    device.display()
                ));
            }
        }
        disk::clear(&disk)?;
        anyhow::Ok(())
    })
    .await?
}

/// Users of a device in words.
pub(super) fn named(users: &[users::User]) -> String {
    users.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Someone wants the device away.
struct Ask {
    force: bool,
    answer: oneshot::Sender<Result<(), String>>,
}

/// What makes an image a device.
enum Behind {
    /// A file, and a loop device on it.
    Loop(Mounted),
    /// The kernel's NBD driver.
    Nbd(Connected),
}

impl Behind {
    /// Ends when it is taken away by another.
    async fn ended(&mut self) -> anyhow::Result<()> {
        match self {
            Behind::Loop(mounted) => bail!("its file system was unmounted ({:?})", mounted.ended().await),
            Behind::Nbd(connected) => Ok(connected.ended().await?),
        }
    }

    fn hold(&self) -> Hold {
        match self {
            Behind::Loop(mounted) => Hold::Loop(mounted.file().to_owned()),
            Behind::Nbd(connected) => Hold::Nbd(connected.handle()),
        }
    }
}

/// How a device is reached from a thread that may wait.
#[derive(Clone)]
enum Hold {
    Loop(PathBuf),
    Nbd(nbd::Handle),
}

impl Hold {
    fn is_mine(&self, device: &Path) -> bool {
        match self {
            Hold::Loop(file) => loops::backing(device).as_deref() == Some(file),
            Hold::Nbd(handle) => handle.is_mine(),
        }
    }

    fn resize(&self, device: &Path, size: u64) -> Result<(), nacre_map::Error> {
        match self {
            Hold::Loop(file) => loops::refresh(device, file),
            Hold::Nbd(handle) => handle.resize(size),
        }
    }

    /// Takes the device away unless it is used; who uses it.
    fn detach(&self, device: &Path, force: bool) -> anyhow::Result<Vec<users::User>> {
        if !self.is_mine(device) {
            return Ok(Vec::new());
        }
        let users = users::users(device);
        if !users.is_empty() && !force {
            return Ok(users);
        }
        match self {
            Hold::Loop(_) => loops::detach(device)?,
            Hold::Nbd(handle) => {
                if let Err(error) = handle.disconnect(force) {
                    // Somebody came right now.
                    let users = users::users(device);
                    return if users.is_empty() { Err(error.into()) } else { Ok(users) };
                }
            }
        }
        Ok(if !force && self.is_mine(device) { users::users(device) } else { Vec::new() })
    }
}

/// An image that is a device.
struct Mapping {
    image: Image,
    behind: Behind,
    device: PathBuf,
}

impl Mapping {
    async fn on_loop(slot: &Slot, image: Image, record: &Record, old: Option<PathBuf>) -> anyhow::Result<Mapping> {
        // The device of before is given up as late as can be, so that it is not another's when it is taken again.
        let _turn = spawn_blocking(loops::turn).await??;
        put_away(slot, &record.tag, old.clone()).await?;
        let (folder, read_only) = (slot.disk(), record.read_only);
        std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let mounted = disk::mount(&folder, export::volume(image.clone()), image.sizes())?;
        let file = mounted.file().to_owned();
        let attached = spawn_blocking(move || loops::attach(&file, read_only, old.as_deref())).await?;
        match attached {
            Ok(device) => Ok(Mapping { image, behind: Behind::Loop(mounted), device }),
            Err(error) => {
                mounted.unmount()?;
                Err(error.into())
            }
        }
    }

    async fn on_nbd(
        slot: &Slot,
        image: Image,
        record: &Record,
        old: Option<PathBuf>,
        grace: Duration,
    ) -> anyhow::Result<Mapping> {
        let tag = record.tag.clone();
        let kept = nbd::find(&tag).filter(|device| nbd::is_read_only(device) == record.read_only);
        if kept.is_none() {
            put_away(slot, &record.tag, old).await?;
        }
        let connected = nbd::connect(nbd::Wanted { tag, grace, volume: export::volume(image.clone()) }).await?;
        let device = connected.device();
        Ok(Mapping { image, behind: Behind::Nbd(connected), device })
    }

    async fn stay(mut self, shutdown: &Shutdown, mut asked: mpsc::Receiver<Ask>) -> anyhow::Result<()> {
        let mut sizes = self.image.sizes();
        let mut told = false;
        loop {
            let leaving = shutdown.has_begun();
            tokio::select! {
                ended = self.behind.ended() => {
                    ended.with_context(|| format!("{} is not this mapping's any more", self.device.display()))?;
                    bail!("{} was disconnected", self.device.display());
                }
                Ok(()) = sizes.changed() => {
                    let size = *sizes.borrow_and_update();
                    let (device, hold) = (self.device.clone(), self.behind.hold());
                    match spawn_blocking(move || hold.resize(&device, size)).await? {
                        Ok(()) => tracing::info!(size, "the device has the size of the image again"),
                        Err(error) => tracing::error!(size, %error, "the device keeps its old size"),
                    }
                }
                Some(ask) = asked.recv() => {
                    if let Err(error) = self.detach(ask.force).await {
                        let _ = ask.answer.send(Err(format!("{error:#}")));
                        continue;
                    }
                    let done = self.close(ask.force).await;
                    let _ = ask.answer.send(done.as_ref().map_err(|error| format!("{error:#}")).copied());
                    return done;
                }
                _why = shutdown.begun(), if !leaving => {}
                () = tokio::time::sleep(if told { LOOK } else { Duration::ZERO }), if leaving => {
                    match self.detach(false).await {
                        Ok(()) => return self.close(false).await,
                        Err(error) if !told => {
                            tracing::warn!(error = format!("{error:#}"), "waits until the device is used no more");
                            told = true;
                        }
                        Err(_) => {}
                    }
                }
            }
        }
    }

    /// Takes the device away, unless it is used.
    async fn detach(&self, force: bool) -> anyhow::Result<()> {
        let look = || {
            let (device, hold) = (self.device.clone(), self.behind.hold());
            spawn_blocking(move || hold.detach(&device, force))
        };
        let began = tokio::time::Instant::now();
        loop {
            let users = look().await??;
            if users.is_empty() {
                return Ok(());
            }
            let glances = users.iter().all(|user| matches!(user, users::User::Process { .. }));
            if !glances || began.elapsed() > GLANCE {
                bail!("{} is in use: {}; nothing was changed", self.device.display(), named(&users));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Lets the image go. The device is away.
    async fn close(self, force: bool) -> anyhow::Result<()> {
        let image = self.image.clone();
        let ending = async move {
            // All that was written to the device, even if nobody asked for it.
            let flushed = image.flush().await;
            image.close().await?;
            anyhow::Ok(flushed?)
        };
        let ended = if force {
            match tokio::time::timeout(FORCED, ending).await {
                Ok(ended) => ended,
                Err(_) => Err(anyhow::anyhow!("the cluster does not answer: what was not flushed is lost")),
            }
        } else {
            ending.await
        };
        if let Behind::Loop(mounted) = self.behind {
            spawn_blocking(move || mounted.unmount()).await??;
        }
        match ended {
            Err(error) if force => {
                tracing::warn!(error = format!("{error:#}"), "the image was not let go in good order");
                Ok(())
            }
            ended => ended,
        }
    }
}
