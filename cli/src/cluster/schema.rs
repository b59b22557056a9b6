//! What `cluster.toml` describes, with every default filled in and the origin of each value kept.
//!
//! Invariants of a [`Cluster`] that `load` hands out: names, ids and listening places are unique; each daemon's host is
//! in `hosts`; at least one monitor; each pool can be placed on the OSDs there are.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use toml::de::DeValue;

use super::file::{FromToml, Given, Size};
use super::keys::LEVELS;

/// A whole cluster.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) name: Given<Name>,
    pub(crate) data: Given<PathBuf>,
    pub(crate) address: Given<IpAddr>,
    pub(crate) base_port: Given<Port>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) monitors: Vec<Daemon>,
    pub(crate) osds: Vec<Osd>,
    pub(crate) mds: Vec<Daemon>,
    pub(crate) s3: Vec<Daemon>,
    pub(crate) dashboard: Dashboard,
    pub(crate) pools: Vec<Pool>,
}

/// A machine, or what plays one.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) name: Given<Name>,
    pub(crate) address: Given<IpAddr>,
    pub(crate) location: Given<Location>,
}

/// A daemon without a device.
#[derive(Clone, Debug)]
pub(crate) struct Daemon {
    /// What is after the dot: a number for monitors.
    pub(crate) id: Given<Name>,
    pub(crate) host: Given<Name>,
    pub(crate) port: Given<Port>,
}

/// A daemon with a device.
#[derive(Clone, Debug)]
pub(crate) struct Osd {
    pub(crate) id: Given<u32>,
    pub(crate) host: Given<Name>,
    pub(crate) port: Given<Port>,
    pub(crate) path: Given<PathBuf>,
    pub(crate) device: Option<Given<PathBuf>>,
    /// None: all of the device.
    pub(crate) size: Option<Given<Size>>,
    pub(crate) class: Given<Name>,
    pub(crate) weight: Given<Share>,
    pub(crate) memory: Given<Size>,
    pub(crate) shards: Given<Shards>,
    pub(crate) location: Given<Location>,
}

/// The web page.
#[derive(Clone, Debug)]
pub(crate) struct Dashboard {
    pub(crate) enabled: Given<bool>,
    pub(crate) port: Given<Port>,
}

/// A pool.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    pub(crate) name: Given<Name>,
    pub(crate) size: Given<Copies>,
    pub(crate) min_size: Given<Copies>,
    pub(crate) failure_domain: Given<Level>,
    pub(crate) class: Option<Given<Name>>,
    pub(crate) pg_num: Given<PgNum>,
    pub(crate) application: Option<Given<Name>>,
    pub(crate) quota_bytes: Option<Given<Size>>,
    pub(crate) quota_objects: Option<Given<u64>>,
}

impl Cluster {
    /// The address of a host.
    pub(crate) fn address_of(&self, host: &Name) -> IpAddr {
        let found = self.hosts.iter().find(|known| known.name.value == *host);
        found.map_or(self.address.value, |host| host.address.value)
    }

    /// Every daemon by its full name (`osd.3`), with its host and where it listens.
    pub(crate) fn daemons(&self) -> Vec<(String, &Name, SocketAddr)> {
        let mut list = Vec::new();
        for daemon in &self.monitors {
            list.push((format!("mon.{}", daemon.id.value), &daemon.host.value, daemon.port.value.0));
        }
        for osd in &self.osds {
            list.push((format!("osd.{}", osd.id.value), &osd.host.value, osd.port.value.0));
        }
        for daemon in &self.mds {
            list.push((format!("mds.{}", daemon.id.value), &daemon.host.value, daemon.port.value.0));
        }
        for daemon in &self.s3 {
            list.push((format!("s3.{}", daemon.id.value), &daemon.host.value, daemon.port.value.0));
        }
        list.into_iter().map(|(name, host, port)| (name, host, SocketAddr::new(self.address_of(host), port))).collect()
    }
}

/// A name that crush text, file names and certificates all take.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name(pub(crate) String);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromToml for Name {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let fits = |text: &&str| {
            let letters = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
            letters && text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.len() <= 64
        };
        let name = value.as_str().filter(fits).map(|text| Name(text.to_owned()));
        name.ok_or_else(|| "a name of letters, digits, `_`, `-` and `.`, a letter or digit first".to_owned())
    }
}

macro_rules! bounded {
    ($(#[$doc:meta])* $name:ident($inner:ty), $low:literal..=$high:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) struct $name(pub(crate) $inner);

        impl FromToml for $name {
            fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
                let number = super::file::integer(value, $low, $high, $what)?;
                <$inner>::try_from(number).map($name).map_err(|_| $what.to_owned())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

bounded!(
    /// Where a daemon listens.
    Port(u16), 1..=65535, "a port"
);
bounded!(
    /// How many copies.
    Copies(u32), 1..=10, "a number of copies"
);
bounded!(
    /// The number of a monitor.
    MonNumber(u32), 0..=9, "a monitor's number"
);
bounded!(
    /// The number of an OSD.
    OsdNumber(u32), 0..=99999, "an OSD's number"
);
bounded!(
    /// Threads of an OSD that have placement groups.
    Shards(u32), 0..=64, "a number of threads, at most 64"
);
bounded!(
    /// How many objects.
    Objects(u64), 1..=1000000000000000, "a number of objects"
);

/// A crush weight as the file gives it: 1.0 stands for a TiB by custom.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Share(pub(crate) f64);

impl Share {
    /// The share of a size: its TiB.
    pub(crate) fn of(size: Size) -> Share {
        Share(size.0 as f64 / (1_u64 << 40) as f64)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.5}", self.0)
    }
}

impl FromToml for Share {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let number = match value {
            DeValue::Float(number) => number.as_str().parse::<f64>().ok(),
            DeValue::Integer(number) => number.to_string().parse::<f64>().ok(),
            _ => None,
        };
        let fits = number.filter(|share| (0.0..=10000.0).contains(share));
        fits.map(Share).ok_or_else(|| "a weight from 0 to 10000".to_owned())
    }
}

/// `osd` or one of [`LEVELS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level(pub(crate) &'static str);

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl FromToml for Level {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let known = || std::iter::once("osd").chain(LEVELS);
        let found = value.as_str().and_then(|text| known().find(|level| *level == text));
        found.map(Level).ok_or_else(|| format!("one of {}", known().collect::<Vec<_>>().join(", ")))
    }
}

/// How many pgs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PgNum {
    /// The monitors decide.
    Auto,
    /// That many.
    Fixed(u32),
}

impl fmt::Display for PgNum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PgNum::Auto => f.write_str("auto"),
            PgNum::Fixed(number) => write!(f, "{number}"),
        }
    }
}

impl FromToml for PgNum {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        if value.as_str() == Some("auto") {
            return Ok(PgNum::Auto);
        }
        let number = super::file::integer(value, 1, 65536, "\"auto\" or a number")?;
        u32::try_from(number).map(PgNum::Fixed).map_err(|_| "a smaller number".to_owned())
    }
}

/// Where something stands in the crush tree: type and bucket, from the root down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Location(pub(crate) Vec<(&'static str, Name)>);

impl Location {
    /// The bucket of a type.
    pub(crate) fn at(&self, level: &str) -> Option<&Name> {
        self.0.iter().find(|(known, _)| *known == level).map(|(_, name)| name)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs: Vec<String> = self.0.iter().map(|(level, name)| format!("{level} = \"{name}\"")).collect();
        write!(f, "{{ {} }}", pairs.join(", "))
    }
}
