//! What this kernel offers to make a volume a block device.

use std::path::{Path, PathBuf};

use crate::error::Error;

/// A way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A file of a file system in user space, and a loop device on it.
    Loop,
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Way::Loop => f.write_str("loop"),
        }
    }
}

/// A program on the search path.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// The way to go here, or what is missing for each.
pub fn choose() -> Result<Way, Error> {
    let mut missing = Vec::new();
    for device in ["/dev/fuse", "/dev/loop-control"] {
        if !Path::new(device).exists() {
            missing.push(format!(
                "{device} is not there (a module of the kernel to load, or a device to give to the container)"
            ));
        }
    }
    if program("losetup").is_none() {
        missing.push("there is no program losetup (package util-linux or mount)".to_owned());
    }
    if !rustix::process::geteuid().is_root() {
        missing.push("only root may mount and set up loop devices".to_owned());
    }
    if missing.is_empty() { Ok(Way::Loop) } else { Err(Error::NoWay { missing }) }
}
