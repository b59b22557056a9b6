//! Loop devices, set up and taken down by `losetup` of util-linux: the calls it makes have no safe form here.
//!
//! A loop device that is in use when it is detached goes away when its last user does, and the system says that all went
//! well: whoever must know looks at [`backing`].

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::Error;

/// Where the kernel is asked for loop devices: there is one for all who share them.
const CONTROL: &str = "/dev/loop-control";

fn losetup(args: &[&std::ffi::OsStr]) -> Result<String, Error> {
    let what = || args.iter().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let said = Command::new("losetup").args(args).stdin(Stdio::null()).output();
    let said = said.map_err(|error| Error::Losetup { what: what(), why: format!("it does not start: {error}") })?;
    if !said.status.success() {
        let why = String::from_utf8_lossy(&said.stderr).trim().to_owned();
        let why = if why.is_empty() { said.status.to_string() } else { why };
        return Err(Error::Losetup { what: what(), why });
    }
    Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

/// What the system knows of a device: the folder under `/sys/block`.
fn known(device: &Path) -> PathBuf {
    Path::new("/sys/block").join(device.file_name().unwrap_or_default())
}

/// While it is there, no other mapping on this machine gives up or takes a loop device.
///
/// The kernel cannot put another file under a device that is written: it has to be given up and taken again, and between
/// the two it is anybody's. This keeps mappings apart; who calls `losetup` by hand can still come between.
#[derive(Debug)]
pub struct Turn {
    _locked: File,
}

/// Waits until it is this process's turn.
pub fn turn() -> Result<Turn, Error> {
    let control = Path::new(CONTROL);
    let file = File::open(control).map_err(Error::system("opening", control))?;
    file.lock().map_err(Error::system("locking", control))?;
    Ok(Turn { _locked: file })
}

/// Sets up a loop device on a file, with direct I/O: the given one if that is free, else any that is.
pub fn attach(file: &Path, read_only: bool, wanted: Option<&Path>) -> Result<PathBuf, Error> {
    let mut args: Vec<&std::ffi::OsStr> = vec!["--direct-io=on".as_ref(), "--partscan".as_ref()];
    if read_only {
        args.push("--read-only".as_ref());
    }
    if let Some(wanted) = wanted.filter(|wanted| wanted.exists() && backing(wanted).is_none()) {
        let mut these = args.clone();
        these.extend([wanted.as_os_str(), file.as_os_str()]);
        match losetup(&these) {
            Ok(_) => return Ok(wanted.to_owned()),
            Err(error) => tracing::info!(%error, "the device of before is not free; another is taken"),
        }
    }
    args.extend(["--find".as_ref(), "--show".as_ref(), file.as_os_str()]);
    losetup(&args).map(PathBuf::from)
}

/// The file under a device, if it has one.
#[must_use]
pub fn backing(device: &Path) -> Option<PathBuf> {
    let text = std::fs::read_to_string(known(device).join("loop/backing_file")).ok()?;
    let text = text.trim_end_matches('\n');
    Some(PathBuf::from(text.strip_suffix(" (deleted)").unwrap_or(text)))
}

/// Does it pass requests on without a cache of its own.
#[must_use]
pub fn is_direct(device: &Path) -> bool {
    std::fs::read_to_string(known(device).join("loop/dio")).is_ok_and(|text| text.trim() == "1")
}

/// Takes the file away from under a device; if it is in use, when its last user is gone.
pub fn detach(device: &Path) -> Result<(), Error> {
    losetup(&["--detach".as_ref(), device.as_os_str()]).map(drop)
}

/// Takes over the size the file has now.
pub fn refresh(device: &Path, file: &Path) -> Result<(), Error> {
    // The kernel asks the file system for the size only when somebody wants to know.
    std::fs::metadata(file).map_err(Error::system("looking at", file))?;
    losetup(&["--set-capacity".as_ref(), device.as_os_str()]).map(drop)
}
