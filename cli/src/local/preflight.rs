//! What must be so before anything is started: a data folder that can be written, and ports that are free. Leaves
//! nothing behind but the folder.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use crate::cluster::schema::Cluster;

/// Why nothing can be started.
#[derive(Debug, thiserror::Error)]
pub(super) enum PreflightError {
    /// No data folder.
    #[error(
        "the data folder {} cannot be made: {source}; choose another with `data`, or have its parent made writable",
        path.display()
    )]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A data folder that takes no files.
    #[error("the data folder {} takes no files: {source}; make it writable, or choose another with `data`", path.display())]
    ReadOnly {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Someone else listens.
    #[error(
        "{} taken by another program; end that program, or move `base_port` or the `port` of these daemons (`ss -ltnp` \
         shows who listens)",
        list(taken)
    )]
    Taken {
        /// Daemon and place.
        taken: Vec<(String, SocketAddr)>,
    },
    /// The kernel does not let us listen.
    #[error("{daemon} cannot listen at {place}: {source}; choose another `port` or `address`")]
    Refused {
        /// The daemon.
        daemon: String,
        /// Where.
        place: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

fn list(taken: &[(String, SocketAddr)]) -> String {
    let places: Vec<String> = taken.iter().map(|(daemon, place)| format!("{place} ({daemon})")).collect();
    format!("{} {}", places.join(", "), if taken.len() == 1 { "is" } else { "are" })
}

/// Makes the data folder, if it is not there, and proves that it takes files.
pub(super) fn data_folder(path: &Path) -> Result<(), PreflightError> {
    std::fs::create_dir_all(path).map_err(|source| PreflightError::Folder { path: path.to_owned(), source })?;
    let read_only = |source| PreflightError::ReadOnly { path: path.to_owned(), source };
    let probe = path.join(format!(".probe.{}", std::process::id()));
    std::fs::write(&probe, b"").map_err(read_only)?;
    std::fs::remove_file(&probe).map_err(read_only)
}

/// Proves that every daemon whose address is this machine's could listen.
pub(super) fn ports(cluster: &Cluster) -> Result<(), PreflightError> {
    let mut taken = Vec::new();
    for (daemon, _, place) in cluster.daemons() {
        match TcpListener::bind(place) {
            Ok(_) => {}
            // Not an address of this machine: some other one's matter.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => taken.push((daemon, place)),
            Err(source) => return Err(PreflightError::Refused { daemon, place, source }),
        }
    }
    if taken.is_empty() { Ok(()) } else { Err(PreflightError::Taken { taken }) }
}
