//! Reads every key of the file and fills in what is left out. What does not hold between keys is `validate`'s matter.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::file::{Given, Origin, Reader, Section, Size, describe};
use super::keys::{self, LEVELS, Part};
use super::schema::{
    Cluster, Copies, Daemon, Dashboard, Host, Location, MonNumber, Name, Objects, Osd, OsdNumber, Pool, Port, Shards,
    Share,
};

/// The cluster of a file; none if it has not even a name. Problems are left with the reader.
pub(super) fn read<'a>(r: &mut Reader<'a>, table: &'a DeTable<'a>, folder: &Path) -> Option<Cluster> {
    let top = r.section(keys::TOP.title, keys::TOP.keys, table, 0..0);
    let name: Option<Given<Name>> = r.required(top, "name");
    let address: Given<IpAddr> = r.get(top, "address");
    let base_port: Given<Port> = r.get(top, "base_port");

    let data = r.optional::<PathBuf>(top, "data").or_else(|| {
        let name = name.as_ref()?;
        Some(Given::follows(Path::new("var").join(&name.value.0), "follows the name"))
    });
    let data = data.map(|data| Given { value: folder.join(data.value), from: data.from });

    let hosts = read_hosts(r, top, &address);
    let mut ground = Ground { hosts: &hosts, base: base_port.value.0, taken: 0 };

    let monitors = read_monitors(r, top, &mut ground);
    let osds = read_osds(r, top, &mut ground, data.as_ref().map_or(Path::new(""), |data| &data.value));
    let mds = read_named(r, top, &mut ground, &Named { key: "mds", part: &keys::MDS, offset: 20, most: 20 });
    let s3 = read_named(r, top, &mut ground, &Named { key: "s3", part: &keys::S3, offset: 40, most: 60 });
    let part = table_part(r, top, "dashboard", &keys::DASHBOARD);
    let enabled = r.get(part, "enabled");
    let port = r.optional(part, "port").unwrap_or_else(|| ground.port(r, 10, None));
    let pools = tables(r, top, "pools", &keys::POOL).into_iter().filter_map(|part| read_pool(r, part)).collect();

    Some(Cluster {
        name: name?,
        data: data?,
        address,
        base_port,
        monitors,
        osds,
        mds,
        s3,
        dashboard: Dashboard { enabled, port },
        pools,
        hosts,
    })
}

/// What daemons stand on: hosts to take in turn, ports to hand out.
struct Ground<'h> {
    hosts: &'h [Host],
    base: u16,
    /// How many daemons of the current kind took a host in turn.
    taken: usize,
}

impl Ground<'_> {
    fn host(&mut self, r: &mut Reader<'_>, part: Option<Section<'_>>) -> Given<Name> {
        let turn = self.hosts.get(self.taken % self.hosts.len().max(1));
        self.taken += 1;
        let given = part.and_then(|part| r.optional(part, "host"));
        given.unwrap_or_else(|| {
            let name = turn.map_or_else(|| Name("localhost".to_owned()), |host| host.name.value.clone());
            Given::follows(name, "hosts in turn")
        })
    }

    fn port(&self, r: &mut Reader<'_>, offset: u32, part: Option<Section<'_>>) -> Given<Port> {
        let given = part.and_then(|part| r.optional(part, "port"));
        given.unwrap_or_else(|| {
            let port = u16::try_from(u32::from(self.base) + offset).unwrap_or_else(|_| {
                let text = format!("base_port {} + {offset} is no port: the last is 65535", self.base);
                let hint = "lower base_port, or give this daemon a port of its own".to_owned();
                r.problem(part.and_then(|part| part.span()), text, Some(hint));
                u16::MAX
            });
            Given::follows(Port(port), "from base_port")
        })
    }
}

/// Daemons as the file gives them: so many, or one table each.
enum Roster<'a> {
    Count(u32),
    List(Vec<Section<'a>>),
}

fn roster<'a>(r: &mut Reader<'a>, top: Section<'a>, key: &str, part: &'static Part, most: u32) -> Roster<'a> {
    let Some(value) = top.raw(key) else { return Roster::Count(r.get::<Count>(top, key).value.0.min(most)) };
    if let DeValue::Array(_) = value.get_ref() {
        let list = tables(r, top, key, part);
        if list.len() > most as usize {
            r.problem(Some(value.span()), format!("{} {key}, at most {most} are allowed", list.len()), None);
        }
        return Roster::List(list);
    }
    match r.get::<Count>(top, key) {
        count if count.value.0 > most => {
            let text = format!("`{key}` expects a number from 0 to {most} or a list of tables, not {}", count.value.0);
            r.problem(Some(value.span()), text, None);
            Roster::Count(most)
        }
        count => Roster::Count(count.value.0),
    }
}

/// How many daemons; the bounds differ by kind.
struct Count(u32);

impl super::file::FromToml for Count {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let what = "a number, or a list of tables";
        let number = super::file::integer(value, 0, u64::from(u32::MAX), what).map_err(|_| what.to_owned())?;
        u32::try_from(number).map(Count).map_err(|_| what.to_owned())
    }
}

/// The tables of `[[key]]`; what is no table is reported.
fn tables<'a>(r: &mut Reader<'a>, top: Section<'a>, key: &str, part: &'static Part) -> Vec<Section<'a>> {
    let Some(value) = top.raw(key) else { return Vec::new() };
    let DeValue::Array(list) = value.get_ref() else {
        let text = format!("`{key}` expects a list of tables, not {}", describe(value.get_ref()));
        r.problem(Some(value.span()), text, Some(format!("begin each with [[{key}]]")));
        return Vec::new();
    };
    let mut sections = Vec::new();
    for entry in list {
        match entry.get_ref() {
            DeValue::Table(table) => sections.push(r.section(part.title, part.keys, table, entry.span())),
            other => {
                let text = format!("`{key}` expects tables, not {}", describe(other));
                r.problem(Some(entry.span()), text, Some(format!("begin each with [[{key}]]")));
            }
        }
    }
    sections
}

/// The table of `[key]`, or all its defaults.
fn table_part<'a>(r: &mut Reader<'a>, within: Section<'a>, key: &str, part: &'static Part) -> Section<'a> {
    match within.raw(key).map(|value| (value.get_ref(), value.span())) {
        Some((DeValue::Table(table), span)) => r.section(part.title, part.keys, table, span),
        Some((other, span)) => {
            r.problem(Some(span), format!("`{key}` expects a table, not {}", describe(other)), None);
            Section::absent(part.title, part.keys)
        }
        None => Section::absent(part.title, part.keys),
    }
}

fn read_hosts<'a>(r: &mut Reader<'a>, top: Section<'a>, address: &Given<IpAddr>) -> Vec<Host> {
    let mut hosts = Vec::new();
    for part in tables(r, top, "hosts", &keys::HOST) {
        let Some(name) = r.required::<Name>(part, "name") else { continue };
        let address = r.optional(part, "address").unwrap_or_else(|| Given::follows(address.value, "address on top"));
        let location = read_location(r, part, &name.value);
        let location = location.unwrap_or_else(|| Given { value: rooted(&name.value), from: Origin::Default });
        hosts.push(Host { name, address, location });
    }
    if hosts.is_empty() {
        let name = Name("localhost".to_owned());
        let location = Given { value: rooted(&name), from: Origin::Default };
        let address = Given::follows(address.value, "address on top");
        hosts.push(Host { name: Given { value: name, from: Origin::Default }, address, location });
    }
    hosts
}

/// A host right below the default root.
fn rooted(host: &Name) -> Location {
    Location(vec![("root", Name("default".to_owned())), ("host", host.clone())])
}

/// The location a table gives, from the root down; the root and the host are filled in.
fn read_location<'a>(r: &mut Reader<'a>, within: Section<'a>, host: &Name) -> Option<Given<Location>> {
    let value = within.raw("location")?;
    let part = table_part(r, within, "location", &keys::LOCATION);
    let mut pairs = Vec::new();
    for level in LEVELS.iter().rev() {
        let bucket = match *level {
            "root" => Some(r.get::<Name>(part, level).value),
            "host" => Some(r.optional::<Name>(part, level).map_or_else(|| host.clone(), |given| given.value)),
            _ => r.optional::<Name>(part, level).map(|given| given.value),
        };
        pairs.extend(bucket.map(|bucket| (*level, bucket)));
    }
    Some(Given { value: Location(pairs), from: r.origin(value.span()) })
}

fn read_monitors<'a>(r: &mut Reader<'a>, top: Section<'a>, ground: &mut Ground<'_>) -> Vec<Daemon> {
    ground.taken = 0;
    let mut one = |r: &mut Reader<'a>, at: u32, part: Option<Section<'a>>| {
        let id = part.and_then(|part| r.optional::<MonNumber>(part, "id"));
        let id = id.unwrap_or_else(|| Given::follows(MonNumber(at), "counted"));
        let number = id.value.0;
        let host = ground.host(r, part);
        let port = ground.port(r, number, part);
        Daemon { id: Given { value: Name(number.to_string()), from: id.from }, host, port }
    };
    match roster(r, top, "monitors", &keys::MONITOR, 9) {
        Roster::Count(count) => (0..count).map(|at| one(r, at, None)).collect(),
        Roster::List(list) => (0..).zip(list).map(|(at, part)| one(r, at, Some(part))).collect(),
    }
}

/// A kind of daemon that has names and not numbers. The ports of a kind end where those of the next begin.
struct Named {
    key: &'static str,
    part: &'static Part,
    /// Where its ports begin above the base.
    offset: u32,
    most: u32,
}

fn read_named<'a>(r: &mut Reader<'a>, top: Section<'a>, ground: &mut Ground<'_>, kind: &Named) -> Vec<Daemon> {
    ground.taken = 0;
    let mut one = |r: &mut Reader<'a>, at: u32, part: Option<Section<'a>>| {
        let id = part.and_then(|part| r.optional(part, "name"));
        let id = id.unwrap_or_else(|| Given::follows(letters(at), "counted"));
        Daemon { id, host: ground.host(r, part), port: ground.port(r, kind.offset + at, part) }
    };
    match roster(r, top, kind.key, kind.part, kind.most) {
        Roster::Count(count) => (0..count).map(|at| one(r, at, None)).collect(),
        Roster::List(list) => (0..).zip(list).map(|(at, part)| one(r, at, Some(part))).collect(),
    }
}

/// `a` to `z`, then `a1` and so on.
fn letters(at: u32) -> Name {
    let letter = char::from(b'a' + (at % 26) as u8);
    Name(if at < 26 { letter.to_string() } else { format!("{letter}{}", at / 26) })
}

fn read_osds<'a>(r: &mut Reader<'a>, top: Section<'a>, ground: &mut Ground<'_>, data: &Path) -> Vec<Osd> {
    ground.taken = 0;
    let defaults = table_part(r, top, "osd_defaults", &keys::OSD_DEFAULTS);
    let defaults = OsdDefaults {
        size: r.get(defaults, "size"),
        class: r.get(defaults, "class"),
        memory: r.get(defaults, "memory"),
        shards: r.get(defaults, "shards"),
    };
    match roster(r, top, "osds", &keys::OSD, 10000) {
        Roster::Count(count) => (0..count).map(|at| read_osd(r, at, None, &defaults, ground, data)).collect(),
        Roster::List(list) => {
            (0..).zip(list).map(|(at, part)| read_osd(r, at, Some(part), &defaults, ground, data)).collect()
        }
    }
}

struct OsdDefaults {
    size: Given<Size>,
    class: Given<Name>,
    memory: Given<Size>,
    shards: Given<Shards>,
}

fn read_osd<'a>(
    r: &mut Reader<'a>,
    at: u32,
    part: Option<Section<'a>>,
    defaults: &OsdDefaults,
    ground: &mut Ground<'_>,
    data: &Path,
) -> Osd {
    let part = part.unwrap_or(Section::absent(keys::OSD.title, keys::OSD.keys));
    let id = r.optional::<OsdNumber>(part, "id").unwrap_or_else(|| Given::follows(OsdNumber(at), "counted"));
    let id = Given { value: id.value.0, from: id.from };
    let host = ground.host(r, Some(part));
    let port = ground.port(r, 100 + id.value, Some(part));

    let path = r.optional(part, "path");
    let path = path.unwrap_or_else(|| Given::follows(data.join(format!("osd.{}", id.value)), "in the data folder"));
    let device = r.optional(part, "device");
    let size = r.optional(part, "size").or_else(|| device.is_none().then(|| defaults.size.clone()));
    let weight = r.optional(part, "weight").unwrap_or_else(|| match &size {
        Some(size) => Given::follows(Share::of(size.value), "size in TiB"),
        None => {
            let text = format!("osd.{} has a device of unknown size and no weight", id.value);
            let hint = "give `weight` (the device's TiB), or `size` to use a part of it".to_owned();
            r.problem(device.as_ref().and_then(|device| device.from.span()), text, Some(hint));
            Given::follows(Share(1.0), "unknown")
        }
    });
    let location = read_location(r, part, &host.value).unwrap_or_else(|| {
        let of_host = ground.hosts.iter().find(|known| known.name.value == host.value);
        let location = of_host.map_or_else(|| rooted(&host.value), |host| host.location.value.clone());
        Given::follows(location, "that of its host")
    });
    Osd {
        id,
        host,
        port,
        path,
        device,
        size,
        class: r.optional(part, "class").unwrap_or_else(|| defaults.class.clone()),
        weight,
        memory: r.optional(part, "memory").unwrap_or_else(|| defaults.memory.clone()),
        shards: r.optional(part, "shards").unwrap_or_else(|| defaults.shards.clone()),
        location,
    }
}

fn read_pool<'a>(r: &mut Reader<'a>, part: Section<'a>) -> Option<Pool> {
    let name = r.required(part, "name");
    let size: Given<Copies> = r.get(part, "size");
    // As Ceph has it: 2 of 3, 1 of 2.
    let half = || Given::follows(Copies(size.value.0 - size.value.0 / 2), "from size");
    let min_size = r.optional(part, "min_size").unwrap_or_else(half);
    let failure_domain = r.get(part, "failure_domain");
    let class = r.optional(part, "class");
    let pg_num = r.get(part, "pg_num");
    let application = r.optional(part, "application");
    let quota_bytes = r.optional(part, "quota_bytes");
    let quota_objects = r.optional::<Objects>(part, "quota_objects").map(|n| Given { value: n.value.0, from: n.from });
    // The name comes last, so that a pool without one has its other keys read too.
    Some(Pool { name: name?, size, min_size, failure_domain, class, pg_num, application, quota_bytes, quota_objects })
}
