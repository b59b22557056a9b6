//! What lies where in the data folder of a local cluster.

use std::path::{Path, PathBuf};

/// The data folder, and whose daemons of it are meant: all, or one host's.
#[derive(Clone, Debug)]
pub(crate) struct Layout(pub(crate) PathBuf, pub(crate) Option<String>);

impl Layout {
    /// With all daemons.
    pub(crate) fn of(data: impl Into<PathBuf>) -> Layout {
        Layout(data.into(), None)
    }

    /// A file of the supervisor: each host's has its own.
    fn of_supervisor(&self, what: &str) -> PathBuf {
        match &self.1 {
            None => self.0.join(format!("supervisor.{what}")),
            Some(host) => self.0.join(format!("supervisor.{host}.{what}")),
        }
    }

    /// The supervisor's log.
    pub(crate) fn supervisor_log(&self) -> PathBuf {
        self.log(&self.1.as_ref().map_or_else(|| "supervisor".to_owned(), |host| format!("supervisor.{host}")))
    }

    /// Keys of `client.admin`.
    pub(crate) fn admin(&self) -> PathBuf {
        self.0.join("admin")
    }

    /// The id of the cluster.
    pub(crate) fn fsid(&self) -> PathBuf {
        self.0.join("fsid")
    }

    /// A daemon's own folder.
    pub(crate) fn daemon(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A monitor's configuration.
    pub(crate) fn monitor_config(&self, name: &str) -> PathBuf {
        self.daemon(name).join("mon.toml")
    }

    /// An OSD's configuration.
    pub(crate) fn osd_config(&self, name: &str) -> PathBuf {
        self.daemon(name).join("osd.toml")
    }

    /// A daemon's log.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.0.join("log").join(format!("{name}.log"))
    }

    /// Where each daemon listens, written down by `nacre up`.
    pub(crate) fn ports(&self) -> PathBuf {
        self.0.join("ports.json")
    }

    /// Held, and holding its process id, while a supervisor lives.
    pub(crate) fn lock(&self) -> PathBuf {
        self.of_supervisor("lock")
    }

    /// Where a supervisor takes requests.
    pub(crate) fn socket(&self) -> PathBuf {
        self.of_supervisor("sock")
    }

    /// Held while identities and first configuration are written.
    pub(crate) fn provisioning(&self) -> PathBuf {
        self.0.join("provisioning.lock")
    }

    /// Marks that identities and first configuration were written whole.
    pub(crate) fn provisioned(&self) -> PathBuf {
        self.0.join("provisioned")
    }

    /// Marks that the pools of the file were made.
    pub(crate) fn founded(&self) -> PathBuf {
        self.0.join("founded")
    }
}

/// Writes a file that is whole or not there.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let draft = path.with_extension(format!("draft.{}", std::process::id()));
    let written = std::fs::File::create(&draft).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    if let Err(error) = written.and_then(|()| std::fs::rename(&draft, path)) {
        let _ = std::fs::remove_file(&draft);
        return Err(error);
    }
    Ok(())
}
