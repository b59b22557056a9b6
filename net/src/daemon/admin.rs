//! The admin socket: `nacre daemon NAME VERB ...` asks a daemon on its own host. A local socket that only the daemon's
//! user and root can use; each line in is a request, each line out its answer, both JSON:
//!
//! ```text
//! {"verb":"config show","args":{}}
//! {"ok":{...}}            or            {"error":"..."}
//! ```
//!
//! Every daemon has `help`, `version`, `config show`, `config set`, `config unset`, `perf`, `log level` and `stop`; what
//! it adds, for example `dump state`, is registered with [`Verbs::add`].

use std::collections::BTreeMap;
use std::future::Future;
use std::io::{BufRead as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::CommonOptions;
use super::config::{self, ConfigError, Options, Settings};
use super::logs::Logs;
use super::shutdown::Shutdown;
use crate::identity::Name;
use crate::metrics::Registry;
use crate::node::listener::{ListenError, bind_local};

/// A request is no longer.
pub const MOST_REQUEST: usize = 1 << 20;
/// An answer is no longer.
const MOST_ANSWER: u64 = 256 << 20;
/// At once.
const MOST_CONNECTIONS: usize = 16;
/// A connection that says nothing is closed after this.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ask {
    /// What to do.
    pub verb: String,
    /// With what.
    #[serde(default)]
    pub args: Value,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// Done.
    Ok(Value),
    /// Not done, and why.
    Error(String),
}

type Work = Pin<Box<dyn Future<Output = Result<Value, String>> + Send>>;
type Verb = Arc<dyn Fn(Value) -> Work + Send + Sync>;

/// The verbs of a daemon.
#[derive(Default)]
pub struct Verbs(Mutex<BTreeMap<String, (&'static str, Verb)>>);

impl std::fmt::Debug for Verbs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.help().keys()).finish()
    }
}

impl Verbs {
    /// Adds a verb, or replaces it.
    pub fn add<F>(&self, name: &str, help: &'static str, verb: impl Fn(Value) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<Value, String>> + Send + 'static,
    {
        let verb: Verb = Arc::new(move |args| Box::pin(verb(args)));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), (help, verb));
    }

    /// The verbs and what they do.
    #[must_use]
    pub fn help(&self) -> BTreeMap<String, &'static str> {
        let verbs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        verbs.iter().map(|(name, (help, _))| (name.clone(), *help)).collect()
    }

    /// Does what a line asks.
    pub async fn answer(&self, line: &[u8]) -> Answer {
        let ask: Ask = match serde_json::from_slice(line) {
            Ok(ask) => ask,
            Err(e) => return Answer::Error(format!("the request cannot be read: {e}")),
        };
        let verb = {
            let verbs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            verbs.get(&ask.verb).map(|(_, verb)| verb.clone())
        };
        match verb {
            Some(verb) => verb(ask.args).await.map_or_else(Answer::Error, Answer::Ok),
            None if ask.verb == "help" => Answer::Ok(json!(self.help())),
            None => {
                let known: Vec<_> = self.help().into_keys().collect();
                Answer::Error(format!("there is no verb {:?}; there are help, {}", ask.verb, known.join(", ")))
            }
        }
    }
}

/// Where the socket of a daemon is.
#[must_use]
pub fn socket_path(run_dir: &Path, name: &Name) -> PathBuf {
    run_dir.join(format!("{name}.admin"))
}

/// The socket, removed when dropped.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Opens the socket.
pub fn bind(path: &Path) -> Result<Socket, ListenError> {
    Ok(Socket { listener: bind_local(path)?, path: path.to_owned() })
}

/// Serves until dropped.
pub async fn serve(socket: Socket, verbs: Arc<Verbs>) {
    let turns = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        let Ok(turn) = turns.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = socket.listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        while tasks.try_join_next().is_some() {}
        let owner = rustix::process::geteuid().as_raw();
        // The file's mode says the same; the system's word on the peer does not depend on who made the folder.
        match stream.peer_cred() {
            Ok(peer) if peer.uid() == owner || peer.uid() == 0 => {}
            other => {
                tracing::warn!(target: "audit", uid = ?other.map(|p| p.uid()), "admin socket refused");
                continue;
            }
        }
        let verbs = verbs.clone();
        tasks.spawn(async move {
            let _ = converse(stream, &verbs).await;
            drop(turn);
        });
    }
}

async fn converse(stream: UnixStream, verbs: &Verbs) -> std::io::Result<()> {
    let (from, mut to) = stream.into_split();
    let mut from = BufReader::new(from);
    loop {
        let mut line = Vec::new();
        let mut bounded = (&mut from).take(MOST_REQUEST as u64 + 1);
        let read = tokio::time::timeout(PATIENCE, bounded.read_until(b'\n', &mut line)).await;
        let read = read.map_err(|_| std::io::ErrorKind::TimedOut)??;
        if read == 0 {
            return Ok(());
        }
        let too_long = line.len() > MOST_REQUEST;
        let answer = if too_long {
            Answer::Error(format!("the request is longer than {MOST_REQUEST} bytes"))
        } else {
            verbs.answer(&line).await
        };
        let mut out = serde_json::to_vec(&answer)?;
        out.push(b'\n');
        to.write_all(&out).await?;
        if too_long {
            return Ok(());
        }
    }
}

/// What goes wrong when a daemon is asked.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Nobody there.
    #[error("cannot reach {}: {source}; is the daemon running on this host, and is this its user?", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It broke.
    #[error("no answer from {}: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not understood.
    #[error("{} answered with something that is not an answer", path.display())]
    Form {
        /// The socket.
        path: PathBuf,
    },
    /// It said no.
    #[error("{0}")]
    Refused(String),
}

/// Asks a daemon, and waits. For the command line: needs no runtime.
pub fn ask(path: &Path, verb: &str, args: Value, patience: Duration) -> Result<Value, AdminError> {
    let io = |source| AdminError::Io { path: path.to_owned(), source };
    let mut stream = std::os::unix::net::UnixStream::connect(path)
        .map_err(|source| AdminError::Connect { path: path.to_owned(), source })?;
    stream.set_read_timeout(Some(patience)).map_err(io)?;
    stream.set_write_timeout(Some(patience)).map_err(io)?;
    let request = Ask { verb: verb.to_owned(), args };
    let mut line = serde_json::to_vec(&request).map_err(|e| io(e.into()))?;
    line.push(b'\n');
    stream.write_all(&line).map_err(io)?;
    let mut answer = Vec::new();
    std::io::BufReader::new(stream.take(MOST_ANSWER)).read_until(b'\n', &mut answer).map_err(io)?;
    match serde_json::from_slice(&answer) {
        Ok(Answer::Ok(value)) => Ok(value),
        Ok(Answer::Error(text)) => Err(AdminError::Refused(text)),
        Err(_) => Err(AdminError::Form { path: path.to_owned() }),
    }
}

fn text<'a>(args: &'a Value, name: &str) -> Result<&'a str, String> {
    args.get(name).and_then(Value::as_str).ok_or_else(|| format!("{name:?} is missing, or not text"))
}

fn set_in<A: Options, B: Options>(
    common: &Settings<A>,
    own: &Settings<B>,
    name: &str,
    value: Option<&str>,
) -> Result<Value, String> {
    match common.set_runtime(name, value) {
        Err(ConfigError::Unknown(_)) => own.set_runtime(name, value),
        done => done,
    }
    .map_err(|e| e.to_string())?;
    tracing::info!(name, value, "setting changed through the admin socket");
    Ok(Value::Null)
}

pub(super) fn builtin<T: Options>(
    verbs: &Verbs,
    name: &Name,
    registry: &Arc<Registry>,
    common: &Arc<Settings<CommonOptions>>,
    own: &Arc<Settings<T>>,
    logs: &Logs,
    shutdown: &Shutdown,
) {
    let version = json!({ "name": name, "version": env!("CARGO_PKG_VERSION"), "pid": std::process::id() });
    verbs.add("version", "name, version and pid", move |_| {
        let version = version.clone();
        async move { Ok(version) }
    });
    let settings = (common.clone(), own.clone());
    verbs.add("config show", "each setting, its value and where it came from", move |_| {
        let shown = [settings.0.show(), settings.1.show()].concat();
        async move { Ok(config::to_json(&shown)) }
    });
    let settings = (common.clone(), own.clone());
    verbs.add("config set", "sets a live setting until the daemon is restarted: name, value", move |args| {
        let done = text(&args, "name").and_then(|name| {
            let value = text(&args, "value")?;
            set_in(&settings.0, &settings.1, name, Some(value))
        });
        async move { done }
    });
    let settings = (common.clone(), own.clone());
    verbs.add("config unset", "takes back what was set by `config set`: name", move |args| {
        let done = text(&args, "name").and_then(|name| set_in(&settings.0, &settings.1, name, None));
        async move { done }
    });
    let registry = registry.clone();
    verbs.add("perf", "every metric", move |_| {
        let now = registry.to_json();
        async move { Ok(now) }
    });
    let logs = logs.clone();
    verbs.add("log level", "logs this much until the level is set otherwise: level", move |args| {
        let done = text(&args, "level").and_then(|l| logs.set_level(l).map_err(|e| e.to_string()));
        async move { done.map(|()| Value::Null) }
    });
    let shutdown = shutdown.clone();
    verbs.add("stop", "ends the daemon in good order", move |_| {
        shutdown.begin("asked through the admin socket");
        async { Ok(Value::Null) }
    });
}
