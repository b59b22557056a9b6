//! What this kernel offers to make a volume a block device.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::driver;
use crate::error::Error;

/// A way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The kernel's NBD driver, with a socket to this process.
    Nbd,
    /// A file of a file system in user space, and a loop device on it.
    Loop,
}

impl Way {
    /// All, the best first: what uses an NBD device does not notice that the process behind it died, if another follows.
    pub const ALL: [Way; 2] = [Way::Nbd, Way::Loop];

    fn name(self) -> &'static str {
        match self {
            Way::Nbd => "nbd",
            Way::Loop => "loop",
        }
    }

    /// What is missing here for it.
    fn missing(self) -> Vec<String> {
        match self {
            Way::Nbd => driver::missing().into_iter().collect(),
            Way::Loop => missing_for_loop(),
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Way {
    type Err = String;

    fn from_str(text: &str) -> Result<Way, String> {
        Way::ALL.into_iter().find(|way| way.name() == text).ok_or_else(|| "there is nbd, and loop".to_owned())
    }
}

/// A program on the search path.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

fn missing_for_loop() -> Vec<String> {
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
    missing
}

/// The way to go here: the one that is asked for, or else the best that lacks nothing; or what each lacks.
pub fn choose(asked: Option<Way>) -> Result<Way, Error> {
    pick(asked, Way::missing)
}

fn pick(asked: Option<Way>, lacks: impl Fn(Way) -> Vec<String>) -> Result<Way, Error> {
    let mut missing = Vec::new();
    for way in Way::ALL.into_iter().filter(|way| asked.is_none_or(|asked| asked == *way)) {
        let these = lacks(way);
        if these.is_empty() {
            return Ok(way);
        }
        missing.push(format!("{way}: {}", these.join(", ")));
    }
    Err(Error::NoWay { missing })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_way_that_lacks_nothing_is_taken_and_what_each_lacks_is_said() {
        let none = |_| Vec::new();
        let no_driver = |way| if way == Way::Nbd { vec!["no driver".to_owned()] } else { Vec::new() };
        let nothing = |way| vec![format!("no {way}"), "no root".to_owned()];
        assert_eq!(pick(None, none).unwrap(), Way::Nbd);
        assert_eq!(pick(Some(Way::Loop), none).unwrap(), Way::Loop);
        assert_eq!(pick(None, no_driver).unwrap(), Way::Loop);
        // What was asked for is not put right by another.
        let error = pick(Some(Way::Nbd), no_driver).unwrap_err().to_string();
        assert!(error.contains("nbd: no driver") && !error.contains("loop"), "{error}");
        let error = pick(None, nothing).unwrap_err().to_string();
        assert!(error.contains("nbd: no nbd, no root; loop: no loop, no root"), "{error}");
        assert!(Way::ALL.iter().all(|way| way.to_string().parse() == Ok(*way)));
        assert!("ublk".parse::<Way>().is_err());
    }
}
