//! What every daemon has around its work: settings, logs, metrics, an admin socket, an orderly start and end.
//!
//! - [`config`]: settings in layers, each value with its source. - [`logs`]: structured logs, as text or JSON.
//! - [`http`]: `/metrics` and `/health`. - [`admin`]: the socket behind `nacre daemon NAME ...`.
//! - [`shutdown`]: signals, and work that is let finish. - [`notify`]: systemd. - [`pidfile`]: one daemon per folder.
//! - [`process`]: what the process itself uses.
//!
//! A daemon's `main` is: [`Daemon::start`], its own work, [`Daemon::finish`]. Nothing here is global but the logs.

pub mod admin;
pub mod config;
pub mod http;
pub mod logs;
pub mod notify;
pub mod pidfile;
pub mod process;
pub mod shutdown;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use config::{Layers, Options, Settings};

use crate::identity::Name;
use crate::metrics::Registry;

crate::options! {
    /// What every daemon can be told.
    pub struct CommonOptions {
        /// Folder for sockets and the pid file.
        run_dir: PathBuf = "/run/nacre".into(), restart;
        /// What is logged: error, warn, info, debug or trace, also per part: info,nacre_osd=debug.
        log_level: String = "info".into(), live;
        /// How it is logged: text or json.
        log_format: logs::Format = logs::Format::Text, restart;
        /// Where metrics are served over HTTP; empty for nowhere. Anyone who can connect can read them.
        metrics_listen: Option<SocketAddr> = Some(SocketAddr::from(([127, 0, 0, 1], 0))), restart;
        /// How long work under way may take to finish when the daemon ends.
        shutdown_patience: Duration = Duration::from_secs(10), live;
    }
}

/// What goes wrong when a daemon starts.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Settings.
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    /// Logs.
    #[error(transparent)]
    Logs(#[from] logs::LogError),
    /// The pid file.
    #[error(transparent)]
    PidFile(#[from] pidfile::PidFileError),
    /// A socket.
    #[error(transparent)]
    Listen(#[from] crate::node::listener::ListenError),
    /// The folder for sockets.
    #[error("cannot make {}: {source}; set run_dir to a folder this user may write", path.display())]
    RunDir {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Signals.
    #[error("cannot watch for signals: {0}")]
    Signals(std::io::Error),
}

/// A runtime with one thread, as a daemon's shards use it.
pub fn current_thread_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// A running daemon's surroundings.
#[derive(Debug)]
pub struct Daemon {
    /// Its name.
    pub name: Name,
    /// The settings all daemons have.
    pub common: Arc<Settings<CommonOptions>>,
    /// What is counted.
    pub registry: Arc<Registry>,
    /// Verbs of the admin socket; the daemon adds its own.
    pub admin: Arc<admin::Verbs>,
    /// When to end.
    pub shutdown: shutdown::Shutdown,
    /// Where `/metrics` is, if anywhere.
    pub metrics_address: Option<SocketAddr>,
    notify: notify::Notify,
    _pidfile: pidfile::PidFile,
    tasks: tokio::task::JoinSet<()>,
}

impl Daemon {
    /// Sets everything up: logs, pid file, metrics, admin socket, signals. `layers` are shared with the daemon's own
    /// options, which `own` holds; both can be shown and set through the admin socket. Call it within the runtime.
    pub async fn start<T: Options>(name: Name, layers: Layers, own: Arc<Settings<T>>) -> Result<Daemon, DaemonError> {
        let unknown = layers.unknown(&[CommonOptions::specs(), T::specs()].concat());
        let common = Arc::new(Settings::<CommonOptions>::new(layers)?);
        let now = common.now();
        let logs = logs::start(&now.log_level, now.log_format)?;
        for name in unknown {
            tracing::warn!(name, "unknown setting is ignored");
        }
        std::fs::create_dir_all(&now.run_dir)
            .map_err(|source| DaemonError::RunDir { path: now.run_dir.clone(), source })?;
        let pidfile = pidfile::PidFile::take(&now.run_dir.join(format!("{name}.pid")))?;
        let registry = Registry::new(name.kind().word());
        process::register(&registry);
        let shutdown = shutdown::Shutdown::on_signals().map_err(DaemonError::Signals)?;
        let admin = Arc::new(admin::Verbs::default());
        admin::builtin(&admin, &name, &registry, &common, &own, &logs, &shutdown);

        let mut tasks = tokio::task::JoinSet::new();
        let socket = admin::socket_path(&now.run_dir, &name);
        tasks.spawn(admin::serve(admin::bind(&socket)?, admin.clone()));
        let mut metrics_address = None;
        if let Some(at) = now.metrics_listen {
            let server = http::Server::bind(at).await?;
            metrics_address = Some(server.address());
            tasks.spawn(server.serve(registry.clone(), shutdown.clone()));
        }
        tasks.spawn(follow_log_level(common.clone(), logs));
        let notify = notify::Notify::from_environment();
        tasks.spawn(notify.clone().watchdog());
        tracing::info!(
            daemon = %name,
            pid = std::process::id(),
            version = env!("CARGO_PKG_VERSION"),
            metrics = ?metrics_address,
            "starting"
        );
        Ok(Daemon { name, common, registry, admin, shutdown, metrics_address, notify, _pidfile: pidfile, tasks })
    }

    /// The daemon serves now: systemd and the supervisor are told.
    pub fn ready(&self, status: &str) {
        tracing::info!(daemon = %self.name, status, "ready");
        self.notify.ready(status);
    }

    /// What it does at the moment, for `systemctl status`.
    pub fn status(&self, status: &str) {
        self.notify.status(status);
    }

    /// The orderly end: says so, waits for work under way, and takes sockets and pid file away. Gives whether all work
    /// was done in time.
    pub async fn finish(mut self) -> bool {
        self.notify.stopping();
        self.shutdown.begin("the daemon ended by itself");
        let patience = self.common.now().shutdown_patience;
        let done = tokio::time::timeout(patience, self.shutdown.drained()).await.is_ok();
        if !done {
            tracing::warn!(daemon = %self.name, ?patience, "work under way was not done in time");
        }
        self.tasks.shutdown().await;
        tracing::info!(daemon = %self.name, "ended");
        done
    }
}

async fn follow_log_level(common: Arc<Settings<CommonOptions>>, logs: logs::Logs) {
    let mut watch = common.watch();
    while watch.changed().await.is_ok() {
        let level = watch.borrow_and_update().log_level.clone();
        if let Err(e) = logs.set_level(&level) {
            tracing::warn!(level, error = %e, "log level stays as it was");
        }
    }
}

#[cfg(test)]
#[path = "daemon_test.rs"]
mod tests;
