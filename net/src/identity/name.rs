//! Names of processes and users, and the id of the cluster they belong to. No lookups: a name is only text.

use std::fmt;
use std::str::FromStr;

use nacre_proto::ids::{MonId, OsdId};

use super::IdentityError;

/// The longest id part of a name. Long enough for a host name, short enough for a log line.
pub const MAX_ID: usize = 128;

/// What sort of thing bears a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A monitor.
    Mon,
    /// An object store daemon.
    Osd,
    /// A metadata server.
    Mds,
    /// An S3 gateway.
    S3,
    /// A CSI driver.
    Csi,
    /// A program or a person. `client.admin` is the one made with the cluster.
    Client,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 6] = [Kind::Mon, Kind::Osd, Kind::Mds, Kind::S3, Kind::Csi, Kind::Client];

    /// The word in front of the dot.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Kind::Mon => "mon",
            Kind::Osd => "osd",
            Kind::Mds => "mds",
            Kind::S3 => "s3",
            Kind::Csi => "csi",
            Kind::Client => "client",
        }
    }

    /// Whether others connect to it, so that its certificate may also be used as a server's.
    #[must_use]
    pub fn serves(self) -> bool {
        !matches!(self, Kind::Client)
    }
}

/// A name: kind, dot, id. The id of a monitor or OSD is its number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    kind: Kind,
    id: Box<str>,
}

impl Name {
    /// Puts a name together; the id must be one a certificate, a file name and a log line can hold.
    pub fn new(kind: Kind, id: &str) -> Result<Name, IdentityError> {
        let bad = |why| IdentityError::Name { text: format!("{}.{id}", kind.word()), why };
        if id.is_empty() {
            return Err(bad("nothing stands behind the dot"));
        }
        if id.len() > MAX_ID {
            return Err(bad("it is longer than 128 bytes"));
        }
        if !id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
            return Err(bad("only letters, digits, '-', '_' and '.' may stand in it"));
        }
        if id.starts_with('.') {
            return Err(bad("its id starts with a dot"));
        }
        // One spelling per number: osd.03 and osd.3 must not be two identities.
        let canonical = |n: Option<String>| n.as_deref() == Some(id);
        match kind {
            Kind::Osd if !canonical(id.parse::<u32>().ok().map(|n| n.to_string())) => Err(bad("an OSD is a number")),
            Kind::Mon if !canonical(id.parse::<u64>().ok().map(|n| n.to_string())) => Err(bad("a monitor is a number")),
            _ => Ok(Name { kind, id: id.into() }),
        }
    }

    /// The name of an OSD.
    #[must_use]
    pub fn osd(id: OsdId) -> Name {
        Name { kind: Kind::Osd, id: id.0.to_string().into() }
    }

    /// The name of a monitor.
    #[must_use]
    pub fn mon(id: MonId) -> Name {
        Name { kind: Kind::Mon, id: id.0.to_string().into() }
    }

    /// What sort of thing it names.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What stands behind the dot.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The OSD of this name, if it is one.
    #[must_use]
    pub fn as_osd(&self) -> Option<OsdId> {
        (self.kind == Kind::Osd).then(|| self.id.parse().ok().map(OsdId)).flatten()
    }

    /// The monitor of this name, if it is one.
    #[must_use]
    pub fn as_mon(&self) -> Option<MonId> {
        (self.kind == Kind::Mon).then(|| self.id.parse().ok().map(MonId)).flatten()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.kind.word(), self.id)
    }
}

impl FromStr for Name {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Name, IdentityError> {
        let bad = |why| IdentityError::Name { text: text.chars().take(160).collect(), why };
        let (word, id) = text.split_once('.').ok_or_else(|| bad("there is no dot in it"))?;
        let kind = Kind::ALL
            .into_iter()
            .find(|k| k.word() == word)
            .ok_or_else(|| bad("the part before the dot is none of mon, osd, mds, s3, csi, client"))?;
        Name::new(kind, id)
    }
}

impl serde::Serialize for Name {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Name, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The id of a cluster, made once at its birth. Identities of one cluster mean nothing in another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub [u8; 16]);

impl ClusterId {
    /// A new one, random, in the form of a version 4 UUID.
    #[must_use]
    pub fn random() -> ClusterId {
        let mut bytes: [u8; 16] = rand::random();
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        ClusterId(bytes)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ClusterId {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<ClusterId, IdentityError> {
        let bad = || IdentityError::ClusterId(text.chars().take(80).collect());
        let mut bytes = [0u8; 16];
        let mut digits = text.bytes().filter(|b| *b != b'-');
        for byte in &mut bytes {
            let mut digit = || digits.next().and_then(|b| char::from(b).to_digit(16)).ok_or_else(bad);
            let (high, low) = (digit()?, digit()?);
            *byte = u8::try_from(high * 16 + low).map_err(|_| bad())?;
        }
        if digits.next().is_some() { Err(bad()) } else { Ok(ClusterId(bytes)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_what_they_print() {
        for text in ["osd.3", "mon.1", "client.alice", "mds.a-1", "s3.gw_2", "csi.node.example.net"] {
            assert_eq!(text.parse::<Name>().unwrap().to_string(), text);
        }
        assert_eq!("osd.7".parse::<Name>().unwrap(), Name::osd(OsdId(7)));
        assert_eq!("osd.7".parse::<Name>().unwrap().as_osd(), Some(OsdId(7)));
        assert_eq!("mon.7".parse::<Name>().unwrap().as_osd(), None);
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in ["", "osd", "osd.", "osd.x", "osd.03", "osd.+3", "osd.99999999999", "mon.a", "bob.1", "client..a"] {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
        for text in ["client.a b", "client.ä", "client.a/b", "client.a\n"] {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
        assert!(format!("client.{}", "a".repeat(MAX_ID)).parse::<Name>().is_ok());
        assert!(format!("client.{}", "a".repeat(MAX_ID + 1)).parse::<Name>().is_err());
    }

    #[test]
    fn cluster_ids_read_what_they_print() {
        let id = ClusterId::random();
        assert_eq!(id.to_string().parse::<ClusterId>().unwrap(), id);
        assert_eq!(id.to_string().len(), 36);
        for text in ["", "00", "zz000000-0000-0000-0000-000000000000", "00000000-0000-0000-0000-0000000000001"] {
            assert!(text.parse::<ClusterId>().is_err(), "{text}");
        }
    }
}
