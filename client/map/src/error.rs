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
    /// The kernel's NBD driver.
    #[error("{what} the kernel's NBD driver: {source}{}", hint(source))]
    Driver {
        /// What was wanted, as in "resizing nbd3 of".
        what: String,
        /// What it said.
        source: std::io::Error,
    },
    /// A device of another mapping, or of another program.
    #[error("{device} was disconnected or taken by another")]
    Taken {
        /// Its name.
        device: String,
    },
    /// More than a device can have.
    #[error(
        "the image has {size} bytes, and a block device of Linux {} at most: serve it with nacre nbd to clients that take more",
        crate::driver::LARGEST
    )]
    TooLarge {
        /// Bytes.
        size: u64,
    },
    /// Nothing to make a device with.
    #[error("this machine offers no way to make a volume a block device: {}", missing.join("; "))]
    NoWay {
        /// What each way lacks.
        missing: Vec<String>,
    },
}

/// What to do about an error of the driver, where that can be told.
fn hint(source: &std::io::Error) -> &'static str {
    use rustix::io::Errno;
    match source.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::PERM | Errno::ACCESS) => ": only root of the machine itself may do this (CAP_SYS_ADMIN)",
        Some(Errno::BUSY) => ": the device is used by another program",
        Some(Errno::NOMEM | Errno::NOSPC) => {
            ": there is no free device, and the kernel makes no more (modprobe -r nbd; modprobe nbd nbds_max=64)"
        }
        Some(Errno::INVAL) => ": the kernel's log says why (dmesg)",
        _ => "",
    }
}

impl Error {
    pub(crate) fn system(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::System { what, path, source }
    }
}
