//! Where a process can be reached. Text: `10.0.0.1:6801`, `10.0.0.1:6801,local:HOST:/run/nacre/osd.3.sock`, or the
//! latter part alone; `memory:NAME` within a process.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A host, so that two processes know whether they share one: a hash of the machine's id, of this boot's, and of the
/// network they are in. What has a network of its own, as a container, is a host of its own: a way around that network
/// would work where the network says no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub u64);

impl HostId {
    /// This host's.
    #[must_use]
    pub fn of_this_host() -> HostId {
        let mut hasher = blake3::Hasher::new();
        for path in ["/etc/machine-id", "/proc/sys/kernel/random/boot_id"] {
            hasher.update(&std::fs::read(path).unwrap_or_default());
        }
        let hash = hasher.finalize();
        if let Ok(network) = std::fs::read_link("/proc/self/ns/net") {
            hasher.update(network.as_os_str().as_encoded_bytes());
        }
        let mut first = [0u8; 8];
        first.copy_from_slice(&hash.as_bytes()[..8]);
        HostId(u64::from_le_bytes(first))
    }
}

/// An address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// Sockets.
    Net {
        /// From anywhere.
        tcp: Option<SocketAddr>,
        /// From the same host.
        local: Option<(HostId, PathBuf)>,
    },
    /// Within a process.
    Memory(String),
}

impl Address {
    /// An address reached over TCP only.
    #[must_use]
    pub fn of_tcp(tcp: SocketAddr) -> Address {
        Address::Net { tcp: Some(tcp), local: None }
    }

    /// The TCP part.
    #[must_use]
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Address::Net { tcp, .. } => *tcp,
            Address::Memory(_) => None,
        }
    }

    /// The local part, if it is of this host.
    #[must_use]
    pub fn local_on(&self, host: HostId) -> Option<&Path> {
        match self {
            Address::Net { local: Some((there, path)), .. } if *there == host => Some(path),
            _ => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Memory(name) => write!(f, "memory:{name}"),
            Address::Net { tcp, local } => {
                if let Some(tcp) = tcp {
                    write!(f, "{tcp}")?;
                }
                if let Some((host, path)) = local {
                    let comma = if tcp.is_some() { "," } else { "" };
                    write!(f, "{comma}local:{:016x}:{}", host.0, path.display())?;
                }
                Ok(())
            }
        }
    }
}

/// Text that is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address; addresses look like 10.0.0.1:6801 or [::1]:6801")]
pub struct AddressError(String);

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        let bad = || AddressError(text.chars().take(200).collect());
        if let Some(name) = text.strip_prefix("memory:") {
            return Ok(Address::Memory(name.to_owned()));
        }
        // A path may hold commas: only what stands before `local:` is cut there.
        let (tcp, local) = match text.strip_prefix("local:") {
            Some(local) => (None, Some(local)),
            None => match text.split_once(",local:") {
                Some((tcp, local)) => (Some(tcp), Some(local)),
                None => (Some(text), None),
            },
        };
        let tcp = tcp.map(|t| t.parse().map_err(|_| bad())).transpose()?;
        let local = local
            .map(|l| {
                let (host, path) = l.split_once(':').ok_or_else(bad)?;
                let host = u64::from_str_radix(host, 16).map_err(|_| bad())?;
                if path.starts_with('/') { Ok((HostId(host), PathBuf::from(path))) } else { Err(bad()) }
            })
            .transpose()?;
        Ok(Address::Net { tcp, local })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_what_they_print() {
        for text in [
            "10.0.0.1:6801",
            "[::1]:6801",
            "10.0.0.1:6801,local:00000000000000ff:/run/a,b.sock",
            "local:00000000000000ff:/run/a.sock",
            "memory:osd.1",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["", "host", "10.0.0.1", "10.0.0.1:99999", "local:/run/x", "local:zz:/run/x", "local:1:run/x"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
        let address: Address = "local:00000000000000ff:/run/a.sock".parse().unwrap();
        assert!(address.local_on(HostId(255)).is_some() && address.local_on(HostId(1)).is_none());
    }
}
