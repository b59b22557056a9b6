//! One daemon of a name on a host: a file with its pid, locked as long as it runs. The lock decides, not the number: a
//! pid left behind by a crash stops nobody, even if another process has it now.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What goes wrong.
#[derive(Debug, thiserror::Error)]
pub enum PidFileError {
    /// It runs.
    #[error("it is running already, as process {pid} (pid file {})", path.display())]
    Running {
        /// The other's.
        pid: String,
        /// The file.
        path: PathBuf,
    },
    /// The system said no.
    #[error("cannot use the pid file {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
}

/// The locked file; removed when dropped.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    _lock: File,
}

impl PidFile {
    /// Takes it.
    pub fn take(path: &Path) -> Result<PidFile, PidFileError> {
        let io = |source| PidFileError::Io { path: path.to_owned(), source };
        let mut file = loop {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let mut pid = String::new();
                    let _ = file.take(32).read_to_string(&mut pid);
                    return Err(PidFileError::Running { pid: pid.trim().to_owned(), path: path.to_owned() });
                }
                Err(TryLockError::Error(source)) => return Err(io(source)),
            }
            // The one before may have removed the file between our open and our lock: then this is no longer the file.
            let ours = file.metadata().map_err(io)?.ino();
            if std::fs::metadata(path).is_ok_and(|there| there.ino() == ours) {
                break file;
            }
        };
        file.set_len(0).map_err(io)?;
        file.rewind().map_err(io)?;
        writeln!(file, "{}", std::process::id()).map_err(io)?;
        Ok(PidFile { path: path.to_owned(), _lock: file })
    }

    /// The pid of the process that holds the file, if one does.
    #[must_use]
    pub fn holder(path: &Path) -> Option<u32> {
        let mut file = File::open(path).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                (&mut file).take(32).read_to_string(&mut pid).ok()?;
                pid.trim().parse().ok()
            }
            _ => None,
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_decides_and_not_the_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("osd.1.pid");
        std::fs::write(&path, "1\n").unwrap();
        assert_eq!(PidFile::holder(&path), None, "process 1 runs, but does not hold the file");
        let held = PidFile::take(&path).unwrap();
        assert_eq!(PidFile::holder(&path), Some(std::process::id()));
        let second = PidFile::take(&path).unwrap_err().to_string();
        assert!(second.starts_with(&format!("it is running already, as process {}", std::process::id())), "{second}");
        drop(held);
        assert!(!path.exists());
        PidFile::take(&path).unwrap();
    }
}
