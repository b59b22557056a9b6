//! What goes wrong between a volume and the kernel.

use std::path::{Path, PathBuf};

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call of the system.
    #[error("{what} {}: {source}", path.display())]
    System {
        /// What was wanted.
        what: &'static str,
        /// Of what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The program of the system that sets loop devices up.
    #[error("losetup {what}: {why}")]
    Losetup {
        /// What was wanted.
        what: String,
        /// What it said.
        why: String,
    },
    /// Nothing to make a device with.
    #[error("this machine offers no way to make a volume a block device: {}", missing.join("; "))]
    NoWay {
        /// What each way lacks.
        missing: Vec<String>,
    },
}

impl Error {
    pub(crate) fn system(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::System { what, path, source }
    }
}
