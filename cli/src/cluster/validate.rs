//! What must hold between the keys of a file: unique names and places, hosts that exist, pools that can be placed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Range;

use nacre_crush::text::nearest;

use super::file::{Given, Reader, Size};
use super::schema::{Cluster, Name, Osd, Pool};

type Span = Option<Range<usize>>;

/// Reports all that does not hold.
pub(super) fn validate(r: &mut Reader<'_>, cluster: &Cluster) {
    monitors(r, cluster);
    unique(r, "host", cluster.hosts.iter().map(|host| (host.name.value.0.clone(), host.name.from.span())));
    unique(r, "pool", cluster.pools.iter().map(|pool| (pool.name.value.0.clone(), pool.name.from.span())));
    for (kind, daemons) in [("mon", &cluster.monitors), ("mds", &cluster.mds), ("s3", &cluster.s3)] {
        unique(r, kind, daemons.iter().map(|daemon| (daemon.id.value.0.clone(), daemon.id.from.span())));
        for daemon in daemons {
            known_host(r, cluster, &format!("{kind}.{}", daemon.id.value), &daemon.host);
        }
    }
    unique(r, "osd", cluster.osds.iter().map(|osd| (osd.id.value.to_string(), osd.id.from.span())));
    for osd in &cluster.osds {
        known_host(r, cluster, &format!("osd.{}", osd.id.value), &osd.host);
        sizes(r, osd);
    }
    places(r, cluster);
    folders(r, cluster);
    tree(r, cluster);
    let share: f64 = cluster.osds.iter().map(|osd| osd.weight.value.0).sum();
    if share > 65535.0 {
        let text = format!("the OSDs weigh {share:.0} together, and a crush map holds at most 65535");
        r.problem(None, text, Some("weights count against each other only: divide all of them".to_owned()));
    }
    for pool in &cluster.pools {
        placeable(r, cluster, pool);
    }
}

fn monitors(r: &mut Reader<'_>, cluster: &Cluster) {
    let count = cluster.monitors.len();
    if count == 0 {
        let hint = "one is enough to start, three go on when one fails";
        r.problem(None, "a cluster needs a monitor, and `monitors` gives none".to_owned(), Some(hint.to_owned()));
    } else if count.is_multiple_of(2) {
        let span = cluster.monitors.last().and_then(|last| last.id.from.span());
        let text = format!("{count} monitors stand no more failures than {} would", count - 1);
        r.warning(span, text, Some("take an odd number: 1, 3 or 5".to_owned()));
    }
}

/// Each of these once; the second is pointed at.
fn unique(r: &mut Reader<'_>, what: &str, names: impl Iterator<Item = (String, Span)>) {
    let mut seen = BTreeSet::new();
    for (name, span) in names {
        if !seen.insert(name.clone()) {
            let text = match what {
                "host" | "pool" => format!("there is a second {what} named {name}"),
                _ => format!("there is a second {what}.{name}"),
            };
            r.problem(span, text, Some(format!("each {what} needs a name or id of its own")));
        }
    }
}

fn known_host(r: &mut Reader<'_>, cluster: &Cluster, daemon: &str, host: &Given<Name>) {
    let names = || cluster.hosts.iter().map(|known| known.name.value.0.as_str());
    if names().any(|name| name == host.value.0) {
        return;
    }
    let hint = match nearest(&host.value.0, names()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("hosts are {}; add a [[hosts]] table for a new one", names().collect::<Vec<_>>().join(", ")),
    };
    r.problem(host.from.span(), format!("{daemon} runs on host \"{}\", which is not there", host.value), Some(hint));
}

fn sizes(r: &mut Reader<'_>, osd: &Osd) {
    const LEAST_SIZE: Size = Size(256 << 20);
    const LEAST_MEMORY: Size = Size(64 << 20);
    if let Some(size) = &osd.size
        && size.value < LEAST_SIZE
    {
        let text = format!("osd.{} has a size of {}; it needs at least {LEAST_SIZE}", osd.id.value, size.value);
        once(r, size.from.span(), text);
    }
    if osd.memory.value < LEAST_MEMORY {
        let text =
            format!("osd.{} may use {} of memory; it needs at least {LEAST_MEMORY}", osd.id.value, osd.memory.value);
        once(r, osd.memory.from.span(), text);
    }
}

/// Reports, unless the same place has been: a bad default is one mistake, not one for each OSD.
fn once(r: &mut Reader<'_>, span: Span, text: String) {
    if span.is_none() || r.problems.iter().all(|problem| problem.span != span) {
        r.problem(span, text, None);
    }
}

/// No two daemons listen at one place.
fn places(r: &mut Reader<'_>, cluster: &Cluster) {
    let mut spans: Vec<Span> = cluster.monitors.iter().map(|daemon| daemon.port.from.span()).collect();
    spans.extend(cluster.osds.iter().map(|osd| osd.port.from.span()));
    spans.extend(cluster.mds.iter().chain(&cluster.s3).map(|daemon| daemon.port.from.span()));
    let mut all: Vec<(String, SocketAddr, Span)> =
        cluster.daemons().into_iter().zip(spans).map(|((name, _, place), span)| (name, place, span)).collect();
    if cluster.dashboard.enabled.value {
        let addresses: BTreeSet<_> = cluster.monitors.iter().map(|mon| cluster.address_of(&mon.host.value)).collect();
        let port = &cluster.dashboard.port;
        all.extend(
            addresses
                .into_iter()
                .map(|address| ("the dashboard".to_owned(), SocketAddr::new(address, port.value.0), port.from.span())),
        );
    }
    let mut seen: BTreeMap<SocketAddr, (String, Span)> = BTreeMap::new();
    for (name, place, span) in all {
        if let Some((first, first_span)) = seen.get(&place) {
            let text = format!("{first} and {name} would both listen at {place}");
            let hint = "give one of them another `port`, or move `base_port`".to_owned();
            r.problem(span.or_else(|| first_span.clone()), text, Some(hint));
        } else {
            seen.insert(place, (name, span));
        }
    }
}

/// No two OSDs share a folder or a device.
fn folders(r: &mut Reader<'_>, cluster: &Cluster) {
    let mut seen: BTreeMap<_, u32> = BTreeMap::new();
    for osd in &cluster.osds {
        for path in std::iter::once(&osd.path).chain(&osd.device) {
            if let Some(first) = seen.insert((&osd.host.value, &path.value), osd.id.value)
                && first != osd.id.value
            {
                let text = format!("osd.{first} and osd.{} would share {}", osd.id.value, path.value.display());
                r.problem(path.from.span(), text, Some("each OSD needs a folder and a device of its own".to_owned()));
            }
        }
    }
}

/// Each bucket of the crush tree has one type and one parent.
fn tree(r: &mut Reader<'_>, cluster: &Cluster) {
    let mut seen: BTreeMap<&Name, (&str, Option<&Name>)> = BTreeMap::new();
    for osd in &cluster.osds {
        let mut parent = None;
        for (level, bucket) in &osd.location.value.0 {
            let span = osd.location.from.span().or_else(|| {
                let host = cluster.hosts.iter().find(|host| host.name.value == osd.host.value);
                host.and_then(|host| host.location.from.span().or(host.name.from.span()))
            });
            match *seen.entry(bucket).or_insert((level, parent)) {
                (other, _) if other != *level => {
                    let text = format!("\"{bucket}\" is a {other} in one place and a {level} in another");
                    once(r, span, text);
                }
                (_, other) if other != parent => {
                    let name =
                        |parent: Option<&Name>| parent.map_or_else(|| "the top".to_owned(), |p| format!("\"{p}\""));
                    let text = format!("{level} \"{bucket}\" would stand in {} and in {}", name(other), name(parent));
                    once(r, span, text);
                }
                _ => {}
            }
            parent = Some(bucket);
        }
    }
}

/// A pool's copies find enough places that share nothing.
fn placeable(r: &mut Reader<'_>, cluster: &Cluster, pool: &Pool) {
    let name = &pool.name.value;
    let (size, min_size) = (pool.size.value.0, pool.min_size.value.0);
    if min_size > size {
        let span = pool.min_size.from.span().or(pool.size.from.span());
        let text = format!("pool {name} keeps {size} copies and wants {min_size} of them to serve");
        r.problem(span, text, Some("`min_size` is at most `size`".to_owned()));
    }
    if size > 1 && min_size == 1 {
        let text = format!("pool {name} goes on with a single copy, which a second failure would lose");
        r.warning(pool.min_size.from.span().or(pool.name.from.span()), text, None);
    }
    if size == 1 {
        let text = format!("pool {name} keeps a single copy: a broken device loses data");
        r.warning(pool.size.from.span(), text, None);
    }
    if let Some(application) = &pool.application {
        let word = application.value.0.as_str();
        let known = ["block", "fs", "s3"];
        if let Some(near) = nearest(word, known).filter(|near| *near != word) {
            let text = format!("pool {name} is for an application of your own called {word}");
            r.warning(application.from.span(), text, Some(format!("did you mean \"{near}\"?")));
        }
    }
    let level = pool.failure_domain.value.0;
    let of_class = |osd: &&Osd| pool.class.as_ref().is_none_or(|class| class.value == osd.class.value);
    let holds = |osd: &&Osd| of_class(osd) && osd.weight.value.0 > 0.0 && root_of(osd) == main_root(cluster);
    let class = pool.class.as_ref().map(|class| format!(" of class {}", class.value)).unwrap_or_default();
    if let Some(given) = &pool.class
        && !cluster.osds.iter().any(|osd| osd.class.value == given.value)
    {
        let classes: BTreeSet<&str> = cluster.osds.iter().map(|osd| osd.class.value.0.as_str()).collect();
        let hint = match nearest(&given.value.0, classes.iter().copied()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("classes are: {}", classes.into_iter().collect::<Vec<_>>().join(", ")),
        };
        r.problem(
            given.from.span(),
            format!("pool {name} wants devices of class {}, and no OSD is", given.value),
            Some(hint),
        );
        return;
    }
    let domains: BTreeSet<String> = cluster
        .osds
        .iter()
        .filter(holds)
        .filter_map(|osd| match level {
            "osd" => Some(osd.id.value.to_string()),
            level => osd.location.value.at(level).map(|bucket| bucket.0.clone()),
        })
        .collect();
    if domains.len() < size as usize {
        let text = match domains.len() {
            0 => format!("pool {name} keeps {size} copies on different {level}s, and no {level} has an OSD{class}"),
            have => format!(
                "pool {name} keeps {size} copies on different {level}s, and only {have} of them hold an OSD{class}"
            ),
        };
        let span = pool.size.from.span().or(pool.failure_domain.from.span()).or(pool.name.from.span());
        let hint = if level == "osd" {
            "add OSDs, or lower `size`".to_owned()
        } else {
            format!("add {level}s, lower `size`, or choose a smaller `failure_domain` such as \"osd\"")
        };
        r.problem(span, text, Some(hint));
    }
}

fn root_of(osd: &Osd) -> Option<&Name> {
    osd.location.value.at("root")
}

/// The root that pools are placed in: `default` where there is one, else the first OSD's.
pub(super) fn main_root(cluster: &Cluster) -> Option<&Name> {
    let roots = || cluster.osds.iter().filter_map(root_of);
    roots().find(|root| root.0 == "default").or_else(|| roots().next())
}
