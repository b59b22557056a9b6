//! What an identity may do, as text an operator writes and as a value a service checks. No identities here: who holds
//! the capabilities is the caller's business, and the check is made through [`super::gate`].
//!
//! One capability is `SERVICE OPS [pool=P] [namespace=N] [path=/P]`; several are joined by `;`. `SERVICE` is a service
//! or `*`. `OPS` is any of `r` (read), `w` (write), `x` (call server-side classes), `a` (administer), or `*` for all.
//! `pool` and `namespace` may end in `*`, which then means "beginning with". `path` covers itself and all below it.
//!
//! What a capability restricts, a call must state: a capability bound to a pool does not cover a call that names none.

use std::fmt;
use std::str::FromStr;

use super::{IdentityError, Kind};

/// The longest text of capabilities a certificate may carry. It travels in each handshake.
pub const MAX_CAPS_TEXT: usize = 4096;

/// What serves a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// Monitors: maps, commands, certificates.
    Mon,
    /// OSDs: objects of pools.
    Osd,
    /// Metadata servers: paths of file systems.
    Mds,
    /// Gateways for S3.
    S3,
    /// The CSI driver.
    Csi,
}

impl Service {
    /// Every service.
    pub const ALL: [Service; 5] = [Service::Mon, Service::Osd, Service::Mds, Service::S3, Service::Csi];

    /// Its word in capabilities.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Service::Mon => "mon",
            Service::Osd => "osd",
            Service::Mds => "mds",
            Service::S3 => "s3",
            Service::Csi => "csi",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

bitflags::bitflags! {
    /// Classes of operation.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Ops: u8 {
        /// Look, change nothing.
        const READ = 1;
        /// Change data.
        const WRITE = 2;
        /// Call code that runs in the service (object classes).
        const CALL = 4;
        /// Change what belongs to the cluster rather than to a user: daemons' own traffic, pools, settings, identities.
        const ADMIN = 8;
    }
}

const OP_LETTERS: [(char, Ops); 4] = [('r', Ops::READ), ('w', Ops::WRITE), ('x', Ops::CALL), ('a', Ops::ADMIN)];

impl fmt::Display for Ops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_all() {
            return f.write_str("*");
        }
        OP_LETTERS.iter().filter(|(_, op)| self.contains(*op)).try_for_each(|(letter, _)| write!(f, "{letter}"))
    }
}

/// A restriction to one name or to all that begin with something.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Match {
    /// This name only.
    Exact(Box<str>),
    /// Every name beginning so.
    Prefix(Box<str>),
}

impl Match {
    fn parse(text: &str) -> Match {
        match text.strip_suffix('*') {
            Some(prefix) => Match::Prefix(prefix.into()),
            None => Match::Exact(text.into()),
        }
    }

    fn covers(&self, name: &str) -> bool {
        match self {
            Match::Exact(exact) => **exact == *name,
            Match::Prefix(prefix) => name.starts_with(&**prefix),
        }
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Match::Exact(exact) => f.write_str(exact),
            Match::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

/// One capability.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Capability {
    /// The service; none means every one.
    pub service: Option<Service>,
    /// The classes of operation.
    pub ops: Ops,
    /// The pools; none means all, and calls that belong to no pool.
    pub pool: Option<Match>,
    /// The namespaces; none means all.
    pub namespace: Option<Match>,
    /// The directory; none means all. Starts with `/`, has no empty, `.` or `..` part.
    pub path: Option<Box<str>>,
}

/// What a call would do, for the check. Borrowed: it is made for every call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// Who serves it.
    pub service: Service,
    /// Every class it needs.
    pub ops: Ops,
    /// The pool it touches.
    pub pool: Option<&'a str>,
    /// The namespace; the default one is the empty name.
    pub namespace: Option<&'a str>,
    /// The path.
    pub path: Option<&'a str>,
}

impl<'a> Request<'a> {
    /// A call that touches no pool, namespace or path.
    #[must_use]
    pub fn new(service: Service, ops: Ops) -> Request<'a> {
        Request { service, ops, pool: None, namespace: None, path: None }
    }

    /// The same, in a pool and namespace.
    #[must_use]
    pub fn in_pool(self, pool: &'a str, namespace: &'a str) -> Request<'a> {
        Request { pool: Some(pool), namespace: Some(namespace), ..self }
    }

    /// The same, at a path.
    #[must_use]
    pub fn at(self, path: &'a str) -> Request<'a> {
        Request { path: Some(path), ..self }
    }
}

impl fmt::Display for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.service, self.ops)?;
        if let Some(pool) = self.pool {
            write!(f, " pool={pool}")?;
        }
        if let Some(namespace) = self.namespace.filter(|n| !n.is_empty()) {
            write!(f, " namespace={namespace}")?;
        }
        if let Some(path) = self.path {
            write!(f, " path={path}")?;
        }
        Ok(())
    }
}

fn path_covers(dir: &str, path: &str) -> bool {
    // A path with dots in it names something else than it seems to: it is covered by nothing.
    if path.split('/').any(|part| part == "." || part == "..") {
        return false;
    }
    dir == "/" && path.starts_with('/')
        || path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Capability {
    /// Everything.
    #[must_use]
    pub fn all() -> Capability {
        Capability { service: None, ops: Ops::all(), pool: None, namespace: None, path: None }
    }

    /// Unrestricted use of one service.
    #[must_use]
    pub fn on(service: Service, ops: Ops) -> Capability {
        Capability { service: Some(service), ops, pool: None, namespace: None, path: None }
    }

    /// Whether this capability alone allows the call.
    #[must_use]
    pub fn covers(&self, call: &Request<'_>) -> bool {
        let bound = |limit: &Option<Match>, named: Option<&str>| match (limit, named) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(limit), Some(name)) => limit.covers(name),
        };
        self.service.is_none_or(|s| s == call.service)
            && self.ops.contains(call.ops)
            && bound(&self.pool, call.pool)
            && bound(&self.namespace, call.namespace)
            && match (&self.path, call.path) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(dir), Some(path)) => path_covers(dir, path),
            }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.service.map_or("*", Service::word), self.ops)?;
        if let Some(pool) = &self.pool {
            write!(f, " pool={pool}")?;
        }
        if let Some(namespace) = &self.namespace {
            write!(f, " namespace={namespace}")?;
        }
        if let Some(path) = &self.path {
            write!(f, " path={path}")?;
        }
        Ok(())
    }
}

impl FromStr for Capability {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Capability, IdentityError> {
        let bad = |why| IdentityError::Capability { text: text.chars().take(200).collect(), why };
        let mut words = text.split_ascii_whitespace();
        let service = match words.next().ok_or_else(|| bad("it is empty"))? {
            "*" => None,
            word => Some(
                Service::ALL
                    .into_iter()
                    .find(|s| s.word() == word)
                    .ok_or_else(|| bad("it starts with none of mon, osd, mds, s3, csi, *"))?,
            ),
        };
        let ops = match words.next().ok_or_else(|| bad("it says no operations (some of r, w, x, a, or *)"))? {
            "*" => Ops::all(),
            letters => letters.chars().try_fold(Ops::empty(), |ops, letter| {
                let (_, op) = OP_LETTERS.iter().find(|(l, _)| *l == letter).ok_or_else(|| {
                    bad("an operation is none of r (read), w (write), x (call), a (administer), or * for all")
                })?;
                Ok(ops | *op)
            })?,
        };
        let mut cap = Capability { service, ops, pool: None, namespace: None, path: None };
        for word in words {
            let (key, value) = word.split_once('=').ok_or_else(|| bad("a restriction is not KEY=VALUE"))?;
            let again = match key {
                "pool" => cap.pool.replace(Match::parse(value)).is_some(),
                "namespace" => cap.namespace.replace(Match::parse(value)).is_some(),
                "path" => {
                    let dir = if value.len() > 1 { value.trim_end_matches('/') } else { value };
                    if !dir.starts_with('/') {
                        return Err(bad("a path does not start with /"));
                    }
                    if dir.len() > 1 && dir.split('/').skip(1).any(|p| matches!(p, "" | "." | "..")) {
                        return Err(bad("a path has an empty part, '.' or '..' in it"));
                    }
                    cap.path.replace(dir.into()).is_some()
                }
                _ => return Err(bad("a restriction is none of pool=, namespace=, path=")),
            };
            if again {
                return Err(bad("a restriction stands in it twice"));
            }
            if value.is_empty() && key == "pool" {
                return Err(bad("pool= is empty"));
            }
        }
        Ok(cap)
    }
}

/// All an identity may do. A call is allowed if one capability covers it whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Caps(pub Vec<Capability>);

impl Caps {
    /// What a new daemon of this kind needs to do its work; nothing for clients, who are given theirs by name.
    #[must_use]
    pub fn of_daemon(kind: Kind) -> Caps {
        let on = Capability::on;
        Caps(match kind {
            Kind::Mon => vec![Capability::all()],
            Kind::Osd => vec![on(Service::Mon, Ops::READ | Ops::WRITE), on(Service::Osd, Ops::all())],
            Kind::Mds | Kind::S3 | Kind::Csi => vec![
                on(Service::Mon, Ops::READ | Ops::WRITE),
                on(Service::Osd, Ops::READ | Ops::WRITE | Ops::CALL),
                on(Service::Mds, Ops::READ | Ops::WRITE),
            ],
            Kind::Client => Vec::new(),
        })
    }

    /// Everything: `client.admin`.
    #[must_use]
    pub fn all() -> Caps {
        Caps(vec![Capability::all()])
    }

    /// Whether the call is allowed. Services ask through [`super::Gate`], which also audits.
    #[must_use]
    pub fn allow(&self, call: &Request<'_>) -> bool {
        self.0.iter().any(|cap| cap.covers(call))
    }
}

impl fmt::Display for Caps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, cap) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("; ")?;
            }
            fmt::Display::fmt(cap, f)?;
        }
        Ok(())
    }
}

impl FromStr for Caps {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Caps, IdentityError> {
        if text.len() > MAX_CAPS_TEXT {
            return Err(IdentityError::Capability {
                text: text.chars().take(40).collect(),
                why: "all capabilities together are longer than 4096 bytes",
            });
        }
        let clauses = text.split(';').map(str::trim).filter(|clause| !clause.is_empty());
        clauses.map(str::parse).collect::<Result<_, _>>().map(Caps)
    }
}

impl serde::Serialize for Caps {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Caps {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Caps, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
#[path = "caps_test.rs"]
mod tests;
