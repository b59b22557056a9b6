//! The process behind `nacre up`: starts the daemons of this machine, starts those again that end (after a pause that
//! grows while they keep ending), and stops them in order.
//!
//! One lives per data folder: it holds a lock on a file that carries its process id. A daemon's standard input is a
//! pipe that only the supervisor holds; when the supervisor is gone, however it went, the daemons see its end and stop.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::fs::FlockOperation;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use super::layout::Layout;

/// The first pause before a daemon is started again, and the longest.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A daemon that ran this long has recovered: its next pause is the first again.
const STEADY: Duration = Duration::from_secs(3);
/// How long a daemon may take to stop before it is killed.
const PATIENCE: Duration = Duration::from_secs(10);
/// A log larger than this is set aside when its daemon starts.
const LARGEST_LOG: u64 = 16 << 20;

/// What can be asked of a supervisor: one line of JSON, answered by another.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "lowercase")]
pub(crate) enum Ask {
    /// Its daemons.
    List,
    /// Stop one daemon and start it again.
    Restart {
        /// Its name.
        daemon: String,
    },
    /// Stop one daemon, and leave it stopped until it is started again.
    Halt {
        /// Its name.
        daemon: String,
    },
    /// Stop all and end.
    Stop,
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// What went wrong.
    pub(crate) error: Option<String>,
    /// The daemons.
    pub(crate) daemons: Vec<Seen>,
}

/// A daemon as its supervisor sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Its name.
    pub(crate) name: String,
    /// Its process, while it runs.
    pub(crate) pid: Option<u32>,
    /// How often it has been started again.
    pub(crate) restarts: u32,
    /// How it ended last.
    pub(crate) last_end: Option<String>,
    /// It was stopped on purpose.
    #[serde(default)]
    pub(crate) halted: bool,
}

/// What to run.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    /// The daemon.
    pub(crate) name: String,
    /// What this program is started with.
    pub(crate) args: Vec<String>,
    /// Where its output goes.
    pub(crate) log: PathBuf,
}

struct Running {
    pid: Pid,
    _until_we_end: ChildStdin,
}

struct Child {
    spec: Spec,
    running: Option<Running>,
    started: Instant,
    start_at: Option<Instant>,
    pause: Duration,
    restarts: u32,
    last_end: Option<String>,
    /// Wait for it to start.
    waiting: Vec<oneshot::Sender<()>>,
    /// Wait for it to end.
    ending: Vec<oneshot::Sender<()>>,
    /// Not to be started by itself.
    halted: bool,
}

enum Event {
    Ended(usize, ExitStatus),
    Asked(Ask, oneshot::Sender<Answer>),
}

/// The process that supervises a data folder, if one lives.
pub(crate) fn holder(layout: &Layout) -> anyhow::Result<Option<u32>> {
    let path = layout.lock();
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("opening {}", path.display())),
    };
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
        return Ok(None);
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text.trim().parse().ok())
}

/// The process id a dead supervisor has left behind.
pub(crate) fn stale(layout: &Layout) -> Option<u32> {
    std::fs::read_to_string(layout.lock()).ok()?.trim().parse().ok()
}

fn lock(path: &Path) -> anyhow::Result<File> {
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!("another supervisor holds {}", path.display());
    }
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())?;
    file.sync_all()?;
    Ok(file)
}

/// Supervises the daemons of a data folder until it is told to stop.
pub(crate) async fn supervise(layout: Layout, specs: Vec<Spec>) -> anyhow::Result<()> {
    let held = lock(&layout.lock())?;
    let socket = layout.socket();
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).with_context(|| {
        format!(
            "listening at {} (a path over 107 bytes is too long for a socket: choose a shorter `data`)",
            socket.display()
        )
    })?;
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600))?;
    let (events, mut incoming) = mpsc::unbounded_channel();
    let children = specs
        .into_iter()
        .map(|spec| Child {
            spec,
            running: None,
            started: Instant::now(),
            start_at: Some(Instant::now()),
            pause: PAUSE,
            restarts: 0,
            last_end: None,
            waiting: Vec::new(),
            ending: Vec::new(),
            halted: false,
        })
        .collect();
    let mut supervisor = Supervisor { children, events: events.clone(), stopping: None };
    tokio::spawn(listen(listener, events));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut told: Vec<oneshot::Sender<Answer>> = Vec::new();
    loop {
        supervisor.start_due();
        if supervisor.stopping.is_some() && supervisor.children.iter().all(|child| child.running.is_none()) {
            break;
        }
        let next = supervisor.next_due().unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        tokio::select! {
            event = incoming.recv() => match event {
                Some(Event::Ended(index, status)) => supervisor.ended(index, status),
                Some(Event::Asked(Ask::Stop, answer)) => { supervisor.stop(); told.push(answer); }
                Some(Event::Asked(ask, answer)) => supervisor.answer(ask, answer),
                None => break,
            },
            _ = terminate.recv() => supervisor.stop(),
            _ = interrupt.recv() => supervisor.stop(),
            () = tokio::time::sleep_until(next.into()) => supervisor.kill_late(),
        }
    }
    let _ = std::fs::remove_file(&socket);
    held.set_len(0)?;
    drop(held);
    for answer in told {
        let _ = answer.send(Answer { error: None, daemons: supervisor.seen() });
    }
    // The last answers have a moment to leave.
    tokio::time::sleep(Duration::from_millis(20)).await;
    Ok(())
}

struct Supervisor {
    children: Vec<Child>,
    events: mpsc::UnboundedSender<Event>,
    stopping: Option<Instant>,
}

impl Supervisor {
    fn start_due(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        let now = Instant::now();
        for index in 0..self.children.len() {
            let Some(child) = self.children.get_mut(index) else { continue };
            if child.running.is_some() || child.start_at.is_none_or(|at| at > now) {
                continue;
            }
            child.start_at = None;
            child.started = now;
            match start(&child.spec) {
                Ok(mut process) => {
                    let Some(stdin) = process.stdin.take() else { continue };
                    let Some(pid) = i32::try_from(process.id()).ok().and_then(Pid::from_raw) else { continue };
                    tracing::info!(daemon = %child.spec.name, pid = process.id(), "started");
                    child.running = Some(Running { pid, _until_we_end: stdin });
                    for waiting in child.waiting.drain(..) {
                        let _ = waiting.send(());
                    }
                    let events = self.events.clone();
                    std::thread::spawn(move || {
                        if let Ok(status) = process.wait() {
                            let _ = events.send(Event::Ended(index, status));
                        }
                    });
                }
                Err(error) => {
                    tracing::error!(daemon = %child.spec.name, %error, "cannot be started");
                    child.last_end = Some(error.to_string());
                    child.start_at = Some(now + child.pause);
                    child.pause = (child.pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    fn next_due(&self) -> Option<Instant> {
        match self.stopping {
            Some(at) => Some(at + PATIENCE),
            None => self.children.iter().filter_map(|child| child.start_at).min(),
        }
    }

    fn ended(&mut self, index: usize, status: ExitStatus) {
        let Some(child) = self.children.get_mut(index) else { return };
        let end = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "no known reason".into(),
        };
        if child.started.elapsed() >= STEADY {
            child.pause = PAUSE;
        }
        let wanted = !child.waiting.is_empty();
        let pause = if wanted { Duration::ZERO } else { child.pause };
        tracing::warn!(daemon = %child.spec.name, end, again_in_ms = pause.as_millis(), "ended");
        child.last_end = Some(end);
        child.running = None;
        for ending in child.ending.drain(..) {
            let _ = ending.send(());
        }
        if child.halted {
            child.start_at = None;
            return;
        }
        child.restarts += 1;
        child.start_at = Some(Instant::now() + pause);
        if !wanted {
            child.pause = (child.pause * 2).min(LONGEST_PAUSE);
        }
        if self.stopping.is_some() {
            self.monitors_last();
        }
    }

    fn stop(&mut self) {
        if self.stopping.is_none() {
            self.stopping = Some(Instant::now());
            self.terminate(false);
            self.monitors_last();
        }
    }

    /// Monitors end when the others have said goodbye to them.
    fn monitors_last(&self) {
        let is_other = |child: &Child| !child.spec.name.starts_with("mon.");
        if !self.children.iter().any(|child| is_other(child) && child.running.is_some()) {
            self.terminate(true);
        }
    }

    fn terminate(&self, monitors: bool) {
        let meant = self.children.iter().filter(|child| child.spec.name.starts_with("mon.") == monitors);
        for running in meant.filter_map(|child| child.running.as_ref()) {
            let _ = kill_process(running.pid, Signal::TERM);
        }
    }

    fn kill_late(&mut self) {
        if self.stopping.is_some_and(|at| at.elapsed() >= PATIENCE) {
            for child in &self.children {
                if let Some(running) = &child.running {
                    tracing::error!(daemon = %child.spec.name, "does not stop and is killed");
                    let _ = kill_process(running.pid, Signal::KILL);
                }
            }
            self.stopping = Some(Instant::now());
        }
    }

    fn seen(&self) -> Vec<Seen> {
        self.children
            .iter()
            .map(|child| Seen {
                name: child.spec.name.clone(),
                pid: child.running.as_ref().and_then(|running| u32::try_from(running.pid.as_raw_nonzero().get()).ok()),
                restarts: child.restarts,
                last_end: child.last_end.clone(),
                halted: child.halted,
            })
            .collect()
    }

    fn answer(&mut self, ask: Ask, answer: oneshot::Sender<Answer>) {
        match ask {
            Ask::List | Ask::Stop => {
                let _ = answer.send(Answer { error: None, daemons: self.seen() });
            }
            Ask::Halt { .. } | Ask::Restart { .. } => {
                let (daemon, again) = match ask {
                    Ask::Halt { daemon } => (daemon, false),
                    Ask::Restart { daemon } => (daemon, true),
                    Ask::List | Ask::Stop => return,
                };
                let names: Vec<String> = self.children.iter().map(|child| child.spec.name.clone()).collect();
                let Some(child) = self.children.iter_mut().find(|child| child.spec.name == daemon) else {
                    let error = format!("there is no {daemon} here, only {}", names.join(", "));
                    let _ = answer.send(Answer { error: Some(error), daemons: self.seen() });
                    return;
                };
                child.halted = !again;
                let (done, wait) = oneshot::channel();
                match (&child.running, again) {
                    (Some(running), _) => {
                        // One that has just ended is what was wanted.
                        let _ = kill_process(running.pid, Signal::TERM);
                        if again { child.waiting.push(done) } else { child.ending.push(done) }
                    }
                    (None, true) => {
                        child.start_at = Some(Instant::now());
                        child.waiting.push(done);
                    }
                    (None, false) => {
                        child.start_at = None;
                        let _ = done.send(());
                    }
                }
                let events = self.events.clone();
                tokio::spawn(async move {
                    if tokio::time::timeout(PATIENCE * 2, wait).await.is_err() {
                        let what = if again { "come back" } else { "stopped" };
                        let error = format!("{daemon} has not {what} within {} s", 2 * PATIENCE.as_secs());
                        let _ = answer.send(Answer { error: Some(error), daemons: Vec::new() });
                    } else {
                        let _ = events.send(Event::Asked(Ask::List, answer));
                    }
                });
            }
        }
    }
}

fn start(spec: &Spec) -> anyhow::Result<std::process::Child> {
    if let Some(folder) = spec.log.parent() {
        std::fs::create_dir_all(folder)?;
    }
    if std::fs::metadata(&spec.log).is_ok_and(|meta| meta.len() > LARGEST_LOG) {
        std::fs::rename(&spec.log, spec.log.with_extension("log.1"))?;
    }
    let log = OpenOptions::new().create(true).append(true).open(&spec.log)?;
    let program = std::env::current_exe().context("finding the program itself")?;
    let child = Command::new(program)
        .args(&spec.args)
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("starting {}", spec.name))?;
    Ok(child)
}

async fn listen(listener: UnixListener, events: mpsc::UnboundedSender<Event>) {
    while let Ok((stream, _)) = listener.accept().await {
        let events = events.clone();
        tokio::spawn(async move {
            let _ = serve(stream, events).await;
        });
    }
}

async fn serve(stream: UnixStream, events: mpsc::UnboundedSender<Event>) -> anyhow::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(tokio::io::AsyncReadExt::take(read, 4096)).read_line(&mut line).await?;
    let (to, answer) = oneshot::channel();
    let answer = match serde_json::from_str(&line) {
        Ok(ask) => {
            events.send(Event::Asked(ask, to)).ok().context("the supervisor is ending")?;
            answer.await?
        }
        Err(error) => Answer { error: Some(format!("not a request: {error}")), daemons: Vec::new() },
    };
    write.write_all(format!("{}\n", serde_json::to_string(&answer)?).as_bytes()).await?;
    Ok(())
}

/// Asks the supervisor of a data folder.
pub(crate) fn ask(layout: &Layout, ask: &Ask) -> anyhow::Result<Answer> {
    use std::io::{BufRead, BufReader};
    let path = layout.socket();
    let mut stream = std::os::unix::net::UnixStream::connect(&path)
        .with_context(|| format!("reaching the supervisor at {}", path.display()))?;
    stream.set_read_timeout(Some(PATIENCE * 3))?;
    writeln!(stream, "{}", serde_json::to_string(ask)?)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let answer: Answer = serde_json::from_str(&line).context("reading the supervisor's answer")?;
    match answer.error {
        Some(error) => bail!(error),
        None => Ok(answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_ending_is_started_again_after_longer_and_longer() {
        let (events, _incoming) = mpsc::unbounded_channel();
        let child = Child {
            spec: Spec { name: "mon.0".into(), args: Vec::new(), log: PathBuf::new() },
            running: None,
            started: Instant::now(),
            start_at: None,
            pause: PAUSE,
            restarts: 0,
            last_end: None,
            waiting: Vec::new(),
            ending: Vec::new(),
            halted: false,
        };
        let mut supervisor = Supervisor { children: vec![child], events, stopping: None };
        // Gives the pause it has earned for the next time.
        let end = |supervisor: &mut Supervisor, steady: bool, pause: u64| {
            let now = Instant::now();
            supervisor.children[0].started = if steady { now - STEADY } else { now + STEADY };
            supervisor.ended(0, ExitStatus::from_raw(9));
            assert!(supervisor.next_due().unwrap() >= now + Duration::from_millis(pause));
            supervisor.children[0].pause.as_millis()
        };
        let earned: Vec<u128> = [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]
            .map(|pause| end(&mut supervisor, false, pause))
            .into();
        assert_eq!(earned, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000]);
        assert_eq!(end(&mut supervisor, true, 100), 200, "it had recovered");
        assert_eq!(end(&mut supervisor, false, 200), 400);
        let seen = &supervisor.seen()[0];
        assert_eq!((seen.restarts, seen.last_end.as_deref()), (11, Some("signal 9")));
        // One that was stopped on purpose stays so.
        supervisor.children[0].halted = true;
        supervisor.ended(0, ExitStatus::from_raw(0));
        assert_eq!(supervisor.next_due(), None);
    }
}
