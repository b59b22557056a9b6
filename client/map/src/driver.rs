//! The kernel's own NBD driver, spoken to through its family of generic netlink. Knows nothing of what is behind a
//! socket.
//!
//! - [`Control`]: connect a device, give it another socket, another size, disconnect it, ask whether it is connected.
//! - [`backing`], [`find`]: who connected a device. Each is connected with a tag, which the kernel keeps, shows, and wants
//!   to hear again before it gives the device another socket: nobody takes over what is not his.
//!
//! Times: a request that is not answered is waited for without end, since a disk waits for its cluster. When a socket is
//! gone, requests wait for another one for as long as was said when the device was connected; then they fail.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink as sockets};

use crate::error::Error;
use crate::netlink::{Attributes, Said, attribute, attributes, request, said, u16_of, u32_of};

/// The driver's name, as a family and as a module.
const NAME: &str = "nbd";
/// The family that knows the others.
const FAMILIES: u16 = 16;
const FIND_FAMILY: u8 = 3;
const FAMILY_NUMBER: u16 = 1;
const FAMILY_NAME: u16 = 2;

/// What the driver can be told.
mod command {
    pub(super) const CONNECT: u8 = 1;
    pub(super) const DISCONNECT: u8 = 2;
    pub(super) const RECONFIGURE: u8 = 3;
    pub(super) const STATUS: u8 = 5;
}

/// With which words.
mod attr {
    pub(super) const INDEX: u16 = 1;
    pub(super) const SIZE: u16 = 2;
    pub(super) const BLOCK: u16 = 3;
    pub(super) const TIMEOUT: u16 = 4;
    pub(super) const SERVER_FLAGS: u16 = 5;
    pub(super) const CLIENT_FLAGS: u16 = 6;
    pub(super) const SOCKETS: u16 = 7;
    pub(super) const DEAD_CONN_TIMEOUT: u16 = 8;
    pub(super) const DEVICES: u16 = 9;
    pub(super) const BACKEND: u16 = 10;
    /// In `SOCKETS`: one of them; in that: its number.
    pub(super) const SOCKET: u16 = 1;
    pub(super) const SOCKET_FD: u16 = 1;
    /// In `DEVICES`: one of them; in that: its number, and whether it is connected.
    pub(super) const DEVICE: u16 = 1;
    pub(super) const DEVICE_INDEX: u16 = 1;
    pub(super) const DEVICE_CONNECTED: u16 = 2;
}

/// The unit that is addressed: as on a loop device, so that what is on an image does not depend on the way it is mapped.
const BLOCK: u64 = 512;
/// The kernel counts bytes of a device with a sign.
pub const LARGEST: u64 = i64::MAX as u64;
/// How often the kernel looks whether a request that was sent to a socket has to be sent to another one.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// The first release whose driver keeps tags.
const KEEPS_TAGS: (u32, u32) = (5, 14);

/// Where requests to the kernel go, and answers come from.
pub trait Line: Send {
    /// Sends one datagram.
    fn send(&mut self, datagram: &[u8]) -> io::Result<()>;
    /// Waits for one.
    fn receive(&mut self) -> io::Result<Vec<u8>>;
}

/// A socket of generic netlink.
#[derive(Debug)]
pub struct Netlink(OwnedFd);

impl Netlink {
    /// Opens one.
    pub fn open() -> io::Result<Netlink> {
        let (family, flags) = (AddressFamily::NETLINK, SocketFlags::CLOEXEC);
        let socket = rustix::net::socket_with(family, SocketType::RAW, flags, Some(sockets::GENERIC))?;
        rustix::net::bind(&socket, &sockets::SocketAddrNetlink::new(0, 0))?;
        Ok(Netlink(socket))
    }
}

impl Line for Netlink {
    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        let kernel = sockets::SocketAddrNetlink::new(0, 0);
        rustix::net::sendto(&self.0, datagram, SendFlags::empty(), &kernel)?;
        Ok(())
    }

    fn receive(&mut self) -> io::Result<Vec<u8>> {
        // The kernel's answers are a page at most.
        let mut buffer = vec![0; 16 << 10];
        loop {
            let (_, len, from) = rustix::net::recvfrom(&self.0, &mut buffer[..], RecvFlags::TRUNC)?;
            // Any process may send something here; the kernel has number 0.
            let from = from.and_then(|from| sockets::SocketAddrNetlink::try_from(from).ok());
            if from.is_none_or(|from| from.pid() != 0) {
                continue;
            }
            if len > buffer.len() {
                return Err(io::Error::other("the kernel's answer is longer than any should be"));
            }
            buffer.truncate(len);
            return Ok(buffer);
        }
    }
}

/// A device of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Device(pub u32);

impl Device {
    /// Of a path like `/dev/nbd3`.
    #[must_use]
    pub fn of(path: &Path) -> Option<Device> {
        path.to_str()?.strip_prefix("/dev/nbd")?.parse().ok().map(Device)
    }

    /// Where it is.
    #[must_use]
    pub fn path(self) -> PathBuf {
        PathBuf::from(format!("/dev/{self}"))
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{NAME}{}", self.0)
    }
}

/// How a device is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Whose it is.
    pub tag: String,
    /// Bytes.
    pub size: u64,
    /// What the other side can do: transmission flags of the protocol.
    pub flags: u16,
    /// How long requests wait for another socket when theirs is gone.
    pub grace: Duration,
}

/// The driver's ear.
pub struct Control<L> {
    line: L,
    family: u16,
    sequence: u32,
}

impl<L> fmt::Debug for Control<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Control({})", self.family)
    }
}

impl Control<Netlink> {
    /// The driver of this machine.
    pub fn open() -> Result<Control<Netlink>, Error> {
        Control::over(Netlink::open().map_err(|source| Error::Driver { what: "asking for".into(), source })?)
    }
}

impl<L: Line> Control<L> {
    /// The driver at the other end of a line.
    pub fn over(line: L) -> Result<Control<L>, Error> {
        let mut control = Control { line, family: FAMILIES, sequence: 0 };
        let wanted = Attributes::default().text(FAMILY_NAME, NAME);
        let what = || "asking for".to_owned();
        let found = control.ask(what, FIND_FAMILY, &wanted)?;
        let number = found.as_deref().and_then(|found| u16_of(attribute(found, FAMILY_NUMBER)?));
        control.family = number.ok_or_else(|| garbled(what()))?;
        Ok(control)
    }

    /// Asks, and waits until it is done: what was answered, if something was.
    fn ask(&mut self, what: impl Fn() -> String, command: u8, wanted: &Attributes) -> Result<Option<Vec<u8>>, Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let failed = |source| Error::Driver { what: what(), source };
        self.line.send(&request(self.family, self.sequence, command, wanted)).map_err(failed)?;
        let mut answer = None;
        loop {
            let datagram = self.line.receive().map_err(failed)?;
            for one in said(&datagram, self.sequence).ok_or_else(|| garbled(what()))? {
                match one {
                    Said::Answer(attributes) => answer = Some(attributes),
                    Said::Ended(Ok(())) => return Ok(answer),
                    Said::Ended(Err(number)) => return Err(failed(io::Error::from_raw_os_error(number))),
                }
            }
        }
    }

    /// Makes a device of a socket: this one, or any that is free.
    pub fn connect(&mut self, device: Option<Device>, shape: &Shape, socket: BorrowedFd<'_>) -> Result<Device, Error> {
        let mut wanted = Attributes::default();
        if let Some(device) = device {
            wanted = wanted.u32(attr::INDEX, device.0);
        }
        wanted = wanted
            .u64(attr::SIZE, fits(shape.size)?)
            .u64(attr::BLOCK, BLOCK)
            // Zero: a request is waited for without end.
            .u64(attr::TIMEOUT, 0)
            .u64(attr::SERVER_FLAGS, u64::from(shape.flags))
            // It neither goes with its last user nor is removed when it is disconnected.
            .u64(attr::CLIENT_FLAGS, 0)
            .u64(attr::DEAD_CONN_TIMEOUT, shape.grace.as_secs().max(1))
            .text(attr::BACKEND, &shape.tag);
        let what = || match device {
            Some(device) => format!("connecting {device} of"),
            None => "connecting a device of".to_owned(),
        };
        let answer = self.ask(what, command::CONNECT, &sockets_of(wanted, socket))?;
        let index = answer.as_deref().and_then(|answer| u32_of(attribute(answer, attr::INDEX)?));
        index.map(Device).ok_or_else(|| garbled(what()))
    }

    /// Gives a device whose socket is gone another one, and the size there is now. The kernel refuses if it is not of
    /// this tag. If the old socket is still there it says that all went well, and hangs up on the new one.
    pub fn reconnect(&mut self, device: Device, shape: &Shape, socket: BorrowedFd<'_>) -> Result<(), Error> {
        let wanted = Attributes::default()
            .u32(attr::INDEX, device.0)
            .u64(attr::SIZE, fits(shape.size)?)
            .u64(attr::DEAD_CONN_TIMEOUT, shape.grace.as_secs().max(1))
            .text(attr::BACKEND, &shape.tag);
        let what = || format!("taking over {device} of");
        self.ask(what, command::RECONFIGURE, &sockets_of(wanted, socket)).map(drop)
    }

    /// Tells a device its size.
    pub fn resize(&mut self, device: Device, tag: &str, size: u64) -> Result<(), Error> {
        let wanted =
            Attributes::default().u32(attr::INDEX, device.0).u64(attr::SIZE, fits(size)?).text(attr::BACKEND, tag);
        self.ask(|| format!("resizing {device} of"), command::RECONFIGURE, &wanted).map(drop)
    }

    /// Takes the socket away from a device: what uses it gets errors.
    pub fn disconnect(&mut self, device: Device) -> Result<(), Error> {
        let wanted = Attributes::default().u32(attr::INDEX, device.0);
        self.ask(|| format!("disconnecting {device} of"), command::DISCONNECT, &wanted).map(drop)
    }

    /// Is it connected, or waiting for another socket.
    pub fn is_connected(&mut self, device: Device) -> Result<bool, Error> {
        let wanted = Attributes::default().u32(attr::INDEX, device.0);
        let what = || format!("asking for {device} of");
        let answer = self.ask(what, command::STATUS, &wanted)?.unwrap_or_default();
        let devices = attribute(&answer, attr::DEVICES).and_then(attributes).ok_or_else(|| garbled(what()))?;
        let connected = |item: &[u8]| {
            let index = attribute(item, attr::DEVICE_INDEX).and_then(u32_of);
            index == Some(device.0) && attribute(item, attr::DEVICE_CONNECTED).is_some_and(|yes| yes != [0])
        };
        Ok(devices.into_iter().any(|(kind, item)| kind == attr::DEVICE && connected(item)))
    }
}

fn sockets_of(wanted: Attributes, socket: BorrowedFd<'_>) -> Attributes {
    // A descriptor that is open is no negative number.
    let one = Attributes::default().u32(attr::SOCKET_FD, socket.as_raw_fd().unsigned_abs());
    wanted.nested(attr::SOCKETS, &Attributes::default().nested(attr::SOCKET, &one))
}

/// A size that a device can have.
pub fn fits(size: u64) -> Result<u64, Error> {
    if size > LARGEST { Err(Error::TooLarge { size }) } else { Ok(size) }
}

fn garbled(what: String) -> Error {
    Error::Driver { what, source: io::Error::new(io::ErrorKind::InvalidData, "its answer makes no sense") }
}

fn known(device: Device) -> PathBuf {
    Path::new("/sys/block").join(device.to_string())
}

/// The tag a device was connected with, as long as it is.
#[must_use]
pub fn backing(device: Device) -> Option<String> {
    let text = std::fs::read_to_string(known(device).join("backend")).ok()?;
    Some(text.strip_suffix('\n').unwrap_or(&text).to_owned())
}

/// The device that was connected with a tag. No device has none.
#[must_use]
pub fn find(tag: &str) -> Option<Device> {
    if tag.is_empty() {
        return None;
    }
    let all = std::fs::read_dir("/sys/block").ok()?.filter_map(Result::ok);
    let device = |name: std::ffi::OsString| Device::of(&Path::new("/dev").join(name));
    all.filter_map(|entry| device(entry.file_name())).find(|device| backing(*device).as_deref() == Some(tag))
}

/// After a socket is gone and another is there, requests that were under way are sent again when the kernel looks next;
/// it does so every half minute, unless it is told otherwise.
pub fn look_often(device: Device) {
    let file = known(device).join("queue/io_timeout");
    if let Err(error) = std::fs::write(&file, LOOK_AGAIN.as_millis().to_string()) {
        tracing::info!(%error, "requests under way wait for half a minute if this process dies and another follows");
    }
}

/// What is missing here for this driver to be used; none if nothing is.
pub(crate) fn missing() -> Option<String> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let devices = std::fs::read_to_string("/proc/devices").unwrap_or_default();
    let asked = Control::open().map(drop);
    lacks(asked, &release, &devices, rustix::process::geteuid().is_root())
}

fn lacks(asked: Result<(), Error>, release: &str, devices: &str, root: bool) -> Option<String> {
    let loaded = devices.lines().any(|line| line.split_whitespace().nth(1) == Some(NAME));
    let absent = |error: &Error| {
        matches!(error, Error::Driver { source, .. }
            if source.raw_os_error() == Some(rustix::io::Errno::NOENT.raw_os_error()))
    };
    match asked {
        Err(error) if absent(&error) && loaded => Some(
            "the kernel's NBD driver answers only in the network namespace of the machine itself: give the container \
             that one"
                .to_owned(),
        ),
        Err(error) if absent(&error) => Some("the kernel has no NBD driver loaded (modprobe nbd)".to_owned()),
        Err(error) => Some(error.to_string()),
        Ok(()) if !root => Some("only root may connect devices of the kernel's NBD driver".to_owned()),
        Ok(()) if numbers(release).is_some_and(|release| release < KEEPS_TAGS) => {
            let (major, minor) = KEEPS_TAGS;
            let release = release.trim();
            Some(format!("the NBD driver of kernel {release} does not keep whose a device is; {major}.{minor} does"))
        }
        Ok(()) => None,
    }
}

/// The first two numbers of a release, as in `6.1.0-56-amd64`.
fn numbers(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.trim().split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
#[path = "driver_test.rs"]
mod tests;
