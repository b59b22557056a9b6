//! The smaller things a map holds: monitors, daemons, fenced sessions, revoked certificates, settings, flags, mutes.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use nacre_proto::ids::{Epoch, Incarnation, OsdId, Stamp};

use crate::codec::DecodeError;
use crate::codec::wire::{Reader, Wire, choice, put_part, record};

/// A monitor as clients and daemons find it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mon {
    /// Its name, `a` or the host's.
    pub name: String,
    /// Where it is reached.
    pub addrs: Vec<SocketAddr>,
    /// The machine it runs on.
    pub host: String,
    /// Takes part in the log but does not vote.
    pub learner: bool,
    /// Version of the program.
    pub version: String,
}
record!(Mon { name, addrs, host, learner, version });

/// What kind of daemon or front end it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DaemonKind {
    /// Monitor.
    Mon,
    /// OSD.
    Osd,
    /// Metadata server.
    #[default]
    Mds,
    /// S3 gateway.
    S3,
    /// Network block device server.
    Nbd,
    /// Mounts on a node.
    Fs,
    /// Volume plugin.
    Csi,
    /// Any other program that uses the client library.
    Client,
}
choice!(DaemonKind, "kind of daemon" {
    0 Mon "mon", 1 Osd "osd", 2 Mds "mds", 3 S3 "s3", 4 Nbd "nbd", 5 Fs "fs", 6 Csi "csi", 7 Client "client",
});

/// A daemon by kind and name: `mds.a`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DaemonId {
    /// Its kind.
    pub kind: DaemonKind,
    /// Its name within the kind.
    pub name: String,
}

impl std::fmt::Display for DaemonId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.kind, self.name)
    }
}

impl std::str::FromStr for DaemonId {
    type Err = nacre_proto::ids::ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || nacre_proto::ids::ParseIdError {
            text: text.to_owned(),
            what: "daemon",
            expected: "kind and name, as in `mds.a`",
        };
        let (kind, name) = text.split_once('.').ok_or_else(wrong)?;
        if name.is_empty() {
            return Err(wrong());
        }
        Ok(Self { kind: kind.parse()?, name: name.to_owned() })
    }
}

impl Wire for DaemonId {
    fn put(&self, out: &mut Vec<u8>) {
        self.kind.put(out);
        self.name.put(out);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { kind: Wire::take(from)?, name: Wire::take(from)? })
    }
}

/// What a metadata server or gateway does now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DaemonState {
    /// Ready to take over.
    #[default]
    Standby,
    /// Follows an active one closely.
    Replay,
    /// Serves.
    Active,
    /// Not heard of for too long.
    Lost,
}
choice!(DaemonState, "state of a daemon" { 0 Standby "standby", 1 Replay "replay", 2 Active "active", 3 Lost "lost" });

/// A metadata server or gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Daemon {
    /// Its run.
    pub incarnation: Incarnation,
    /// Where it is reached.
    pub addrs: Vec<SocketAddr>,
    /// The machine it runs on.
    pub host: String,
    /// What it does.
    pub state: DaemonState,
    /// Which of several it is (the rank of a metadata server).
    pub rank: Option<u32>,
    /// Since when it does so.
    pub since: Stamp,
    /// Version of the program.
    pub version: String,
    /// Facts its own kind understands.
    pub notes: BTreeMap<String, String>,
}
record!(Daemon { incarnation, addrs, host, state, rank, since, version, notes });

/// A session whose operations every OSD refuses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fence {
    /// The epoch that fenced it: an OSD that has this epoch refuses the session. Fencing is done when all up have it.
    pub epoch: Epoch,
    /// When it may be forgotten; sessions are leased, so one that old is dead anyway. Absent = never.
    pub until: Option<Stamp>,
    /// Who fenced it and why.
    pub why: String,
}
record!(Fence { epoch, until, why });

/// A certificate that is refused although it has not expired.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revocation {
    /// The certificate's own end: afterwards the entry is of no use.
    pub until: Stamp,
    /// Who it belonged to and why it was revoked.
    pub why: String,
}
record!(Revocation { until, why });

/// An authority that is believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Anchor {
    /// Its certificate in DER.
    pub certificate: Vec<u8>,
    /// Whether it signs; of several one does.
    pub signs: bool,
}
record!(Anchor { certificate, signs });

/// For whom a setting holds. A later variant wins over an earlier one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// All daemons.
    Global,
    /// All daemons of a kind.
    Kind(DaemonKind),
    /// OSDs of a device class.
    Class(String),
    /// One daemon.
    Daemon(DaemonId),
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Scope::Global => f.write_str("global"),
            Scope::Kind(kind) => kind.fmt(f),
            Scope::Class(class) => write!(f, "class:{class}"),
            Scope::Daemon(daemon) => daemon.fmt(f),
        }
    }
}

impl std::str::FromStr for Scope {
    type Err = nacre_proto::ids::ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "global" {
            return Ok(Scope::Global);
        }
        match text.split_once(':') {
            Some(("class", class)) if !class.is_empty() => return Ok(Scope::Class(class.to_owned())),
            _ => {}
        }
        let parsed = if text.contains('.') { text.parse().map(Scope::Daemon) } else { text.parse().map(Scope::Kind) };
        parsed.map_err(|_| nacre_proto::ids::ParseIdError {
            text: text.to_owned(),
            what: "scope of a setting",
            expected: "`global`, a kind of daemon as in `osd`, a device class as in `class:ssd`, or a daemon as in `osd.7`",
        })
    }
}

impl Wire for Scope {
    fn put(&self, out: &mut Vec<u8>) {
        put_part(out, |out| match self {
            Scope::Global => out.push(0),
            Scope::Kind(kind) => {
                out.push(1);
                kind.put(out);
            }
            Scope::Class(class) => {
                out.push(2);
                class.put(out);
            }
            Scope::Daemon(daemon) => {
                out.push(3);
                daemon.put(out);
            }
        });
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut from = from.part()?;
        match from.byte()? {
            0 => Ok(Scope::Global),
            1 => Wire::take(&mut from).map(Scope::Kind),
            2 => Wire::take(&mut from).map(Scope::Class),
            3 => Wire::take(&mut from).map(Scope::Daemon),
            _ => Err(DecodeError::Value { what: "scope of a setting" }),
        }
    }
}

/// A value an operator gave to a setting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettingValue {
    /// In the text form of the setting's type.
    pub value: String,
    /// When it was set.
    pub since: Stamp,
    /// Who set it.
    pub by: String,
}
record!(SettingValue { value, since, by });

/// Something operators hold back for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flag {
    /// Clients' operations wait.
    Pause,
    /// OSDs that boot are not marked up.
    NoUp,
    /// OSDs are not marked down.
    NoDown,
    /// OSDs that are down stay in.
    NoOut,
    /// OSDs that boot are not marked in.
    NoIn,
    /// No backfill starts.
    NoBackfill,
    /// No backfill starts that only moves healthy data.
    NoRebalance,
    /// No recovery starts.
    NoRecover,
    /// No light scrub starts.
    NoScrub,
    /// No deep scrub starts.
    NoDeepScrub,
    /// No snapshot is trimmed.
    NoSnapTrim,
    /// The balancer and the automatic pg count rest.
    NoPlan,
}
choice!(Flag, "flag" {
    0 Pause "pause", 1 NoUp "noup", 2 NoDown "nodown", 3 NoOut "noout", 4 NoIn "noin", 5 NoBackfill "nobackfill",
    6 NoRebalance "norebalance", 7 NoRecover "norecover", 8 NoScrub "noscrub", 9 NoDeepScrub "nodeepscrub",
    10 NoSnapTrim "nosnaptrim", 11 NoPlan "noplan",
});

/// To what a flag applies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FlagTarget {
    /// Everything.
    Cluster,
    /// One OSD.
    Osd(OsdId),
    /// All OSDs below a bucket of the crush map, by its name.
    Bucket(String),
    /// All OSDs of a device class.
    Class(String),
}

impl std::fmt::Display for FlagTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            FlagTarget::Cluster => f.write_str("cluster"),
            FlagTarget::Osd(osd) => osd.fmt(f),
            FlagTarget::Bucket(name) => write!(f, "bucket:{name}"),
            FlagTarget::Class(name) => write!(f, "class:{name}"),
        }
    }
}

impl std::str::FromStr for FlagTarget {
    type Err = nacre_proto::ids::ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            _ if text == "cluster" => return Ok(FlagTarget::Cluster),
            Some(("bucket", name)) if !name.is_empty() => return Ok(FlagTarget::Bucket(name.to_owned())),
            Some(("class", name)) if !name.is_empty() => return Ok(FlagTarget::Class(name.to_owned())),
            _ => {}
        }
        text.parse().map(FlagTarget::Osd).map_err(|_| nacre_proto::ids::ParseIdError {
            text: text.to_owned(),
            what: "target of a flag",
            expected: "`cluster`, an OSD as in `osd.7`, a bucket as in `bucket:rack2`, or a class as in `class:ssd`",
        })
    }
}

impl Wire for FlagTarget {
    fn put(&self, out: &mut Vec<u8>) {
        put_part(out, |out| match self {
            FlagTarget::Cluster => out.push(0),
            FlagTarget::Osd(osd) => {
                out.push(1);
                osd.put(out);
            }
            FlagTarget::Bucket(name) => {
                out.push(2);
                name.put(out);
            }
            FlagTarget::Class(name) => {
                out.push(3);
                name.put(out);
            }
        });
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut from = from.part()?;
        match from.byte()? {
            0 => Ok(FlagTarget::Cluster),
            1 => Wire::take(&mut from).map(FlagTarget::Osd),
            2 => Wire::take(&mut from).map(FlagTarget::Bucket),
            3 => Wire::take(&mut from).map(FlagTarget::Class),
            _ => Err(DecodeError::Value { what: "target of a flag" }),
        }
    }
}

/// Why a flag is set and for how long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlagState {
    /// When it goes away by itself; absent = when somebody clears it.
    pub until: Option<Stamp>,
    /// When it was set.
    pub since: Stamp,
    /// Who set it.
    pub by: String,
    /// Why.
    pub why: String,
}
record!(FlagState { until, since, by, why });

/// A health check that is not to be shown for a while.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mute {
    /// When it shows again; absent = when somebody unmutes it.
    pub until: Option<Stamp>,
    /// Stays muted also when the check goes away and comes back, or gets worse.
    pub sticky: bool,
    /// How many things it was about when it was muted: one more unmutes it, unless it is sticky.
    pub count: u32,
    /// Who muted it.
    pub by: String,
}
record!(Mute { until, sticky, count, by });
