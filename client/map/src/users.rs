//! Who uses a block device: file systems mounted from it, in any mount namespace that can be seen, swap, devices built on
//! it, processes that have it open. Of the device itself and of its partitions.

use std::collections::BTreeSet;
use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// One user.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum User {
    /// A file system.
    Mount {
        /// Where it is mounted.
        at: PathBuf,
    },
    /// Swap.
    Swap,
    /// Another device, as of the device mapper.
    Device {
        /// Its name.
        name: String,
    },
    /// A process that has it open.
    Process {
        /// Its number.
        pid: u32,
        /// Its name.
        name: String,
    },
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            User::Mount { at } => write!(f, "mounted at {}", at.display()),
            User::Swap => f.write_str("in use as swap"),
            User::Device { name } => write!(f, "under the device {name}"),
            User::Process { pid, name } => write!(f, "open in process {pid} ({name})"),
        }
    }
}

/// A device and its partitions.
struct Family {
    /// As in `/dev`.
    names: Vec<String>,
    /// As mount tables write them, `7:0`.
    numbers: Vec<String>,
    /// As `stat` has them.
    devices: Vec<u64>,
}

fn family(device: &Path) -> Family {
    let name = device.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let folder = Path::new("/sys/block").join(&name);
    let parts = entries(&folder).into_iter().filter(|part| part.starts_with(&name));
    let names: Vec<String> = std::iter::once(name.clone()).chain(parts).collect();
    let number = |one: &String| {
        let path = if *one == name { folder.join("dev") } else { folder.join(one).join("dev") };
        std::fs::read_to_string(path).map(|text| text.trim().to_owned()).ok()
    };
    let numbers = names.iter().filter_map(number).collect();
    let rdev = |one: &String| std::fs::metadata(Path::new("/dev").join(one)).map(|meta| meta.rdev()).ok();
    let devices = names.iter().filter_map(rdev).collect();
    Family { names, numbers, devices }
}

fn entries(folder: &Path) -> Vec<String> {
    let Ok(list) = std::fs::read_dir(folder) else { return Vec::new() };
    list.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect()
}

/// Spaces and the like stand in mount tables as three octal digits.
fn unescape(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt as _;
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail.get(..3).filter(|_| *first == b'\\');
        let code = code.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match code {
            Some(byte) => {
                out.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    std::ffi::OsString::from_vec(out).into()
}

/// Where a mount table says that one of these devices is mounted.
fn mounts(table: &str, numbers: &[String]) -> Vec<PathBuf> {
    let mount = |line: &str| {
        let mut words = line.split(' ');
        let (number, at) = (words.nth(2)?, words.nth(1)?);
        numbers.iter().any(|one| one == number).then(|| unescape(at))
    };
    table.lines().filter_map(mount).collect()
}

/// Who uses a device now.
#[must_use]
pub fn users(device: &Path) -> Vec<User> {
    let family = family(device);
    let mut found = BTreeSet::new();
    let folder = Path::new("/sys/block").join(family.names.first().map_or("", |name| name));
    for name in entries(&folder.join("holders")) {
        found.insert(User::Device { name });
    }
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    let is_swap = |line: &str| {
        let path = line.split_whitespace().next().unwrap_or_default();
        family.names.iter().any(|name| path == format!("/dev/{name}"))
    };
    if swaps.lines().any(is_swap) {
        found.insert(User::Swap);
    }
    let mut seen = BTreeSet::new();
    for pid in entries(Path::new("/proc")).iter().filter_map(|name| name.parse::<u32>().ok()) {
        let process = PathBuf::from(format!("/proc/{pid}"));
        // One look for each mount namespace.
        if let Ok(namespace) = std::fs::read_link(process.join("ns/mnt"))
            && seen.insert(namespace)
        {
            let table = std::fs::read_to_string(process.join("mountinfo")).unwrap_or_default();
            found.extend(mounts(&table, &family.numbers).into_iter().map(|at| User::Mount { at }));
        }
        let opened = process.join("fd");
        let ours = |fd: &String| {
            let path = opened.join(fd);
            // Only what looks like a device is looked at: another file could be on a server that does not answer.
            std::fs::read_link(&path).is_ok_and(|to| to.starts_with("/dev"))
                && std::fs::metadata(&path).is_ok_and(|meta| family.devices.contains(&meta.rdev()))
        };
        if entries(&opened).iter().any(ours) {
            let name = std::fs::read_to_string(process.join("comm")).unwrap_or_default().trim().to_owned();
            found.insert(User::Process { pid, name });
        }
    }
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_a_device_are_found_in_a_table() {
        let table = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw
90 22 7:3 / /srv/my\\040disk rw,relatime shared:40 master:2 - xfs /dev/loop3 rw
91 22 7:30 / /srv/other rw - ext4 /dev/loop30 rw
broken
";
        assert_eq!(mounts(table, &["7:3".into()]), [PathBuf::from("/srv/my disk")]);
        assert!(mounts(table, &["7:4".into()]).is_empty());
        assert_eq!(unescape("a\\134b\\09"), PathBuf::from("a\\b\\09"));
    }

    #[test]
    fn what_nobody_has_open_has_no_users() {
        assert_eq!(users(Path::new("/dev/no-such-device")), []);
    }
}
