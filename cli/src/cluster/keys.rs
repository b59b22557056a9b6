//! Every key of `cluster.toml`: its kind, its default, its meaning. The reader takes defaults and suggestions from here,
//! and `docs/reference/cluster-toml.md` is written from it, so the three cannot disagree.

use super::file::Fallback::{Follows, Required, Toml};
use super::file::Key;

/// A table of the file.
pub(super) struct Part {
    /// As messages call it.
    pub(super) title: &'static str,
    /// What it describes.
    pub(super) doc: &'static str,
    /// What it may hold.
    pub(super) keys: &'static [Key],
}

/// All parts, in the order of the reference page.
pub(super) const PARTS: [&Part; 10] =
    [&TOP, &HOST, &MONITOR, &OSD_DEFAULTS, &OSD, &MDS, &S3, &DASHBOARD, &POOL, &LOCATION];

const fn key(name: &'static str, kind: &'static str, default: super::file::Fallback, doc: &'static str) -> Key {
    Key { name, kind, default, doc }
}

pub(super) const TOP: Part = Part {
    title: "the top level",
    doc: "What the cluster is called and where it lives. Daemons are given as a number, or as a list of tables when \
          one of them is special.",
    keys: &[
        key("name", "name", Required, "The cluster's name: letters, digits, `_`, `-` and `.`."),
        key(
            "data",
            "path",
            Follows("`./var/NAME`"),
            "The folder that holds all state; below the folder of this file if it is relative.",
        ),
        key("address", "IP address", Toml("\"127.0.0.1\""), "Where daemons listen on a host that names no address."),
        key(
            "base_port",
            "port",
            Toml("7400"),
            "Where ports are handed out from: monitor N at base + N, the dashboard at + 10, metadata servers from + 20, \
             S3 gateways from + 40, OSD N at + 100 + N.",
        ),
        key(
            "monitors",
            "number or `[[monitors]]`",
            Toml("3"),
            "The daemons that agree on the cluster map: 1 to 9, odd.",
        ),
        key("osds", "number or `[[osds]]`", Toml("4"), "The daemons that store data, 0 to 10000."),
        key("mds", "number or `[[mds]]`", Toml("1"), "The metadata servers of the file system, 0 to 20."),
        key("s3", "number or `[[s3]]`", Toml("1"), "The S3 gateways, 0 to 60."),
        key(
            "osd_defaults",
            "table",
            Follows("its own defaults"),
            "What holds for each OSD that does not say otherwise.",
        ),
        key("dashboard", "table", Follows("its own defaults"), "The web page of the monitors."),
        key(
            "hosts",
            "`[[hosts]]`",
            Follows("one host named `localhost`"),
            "The machines, or what plays a machine here.",
        ),
        key("pools", "`[[pools]]`", Follows("none"), "The pools made when the cluster is first started."),
    ],
};

pub(super) const HOST: Part = Part {
    title: "[[hosts]]",
    doc: "A machine. On one machine several of them play a cluster: copies of data are kept apart by host all the same.",
    keys: &[
        key("name", "name", Required, "Its name, also in the crush tree."),
        key("address", "IP address", Follows("the top level's `address`"), "Where its daemons listen."),
        key("location", "location", Follows("`{ root = \"default\" }`"), "What it stands in."),
    ],
};

pub(super) const MONITOR: Part = Part {
    title: "[[monitors]]",
    doc: "A monitor.",
    keys: &[
        key("id", "number", Follows("its place in the list, from 0"), "Its number, 0 to 9: `mon.N`."),
        key("host", "name", Follows("the hosts in turn"), "The host it runs on."),
        key("port", "port", Follows("`base_port` + id"), "Where it listens."),
    ],
};

pub(super) const OSD_DEFAULTS: Part = Part {
    title: "[osd_defaults]",
    doc: "What holds for each OSD that does not say otherwise.",
    keys: &[
        key(
            "size",
            "size",
            Toml("\"10GiB\""),
            "How much it stores, at least 256MiB. A file takes that much disk at once.",
        ),
        key("class", "name", Toml("\"ssd\""), "The device class, by which pools choose devices."),
        key("memory", "size", Toml("\"256MiB\""), "The memory it may use, at least 64MiB."),
        key(
            "shards",
            "number",
            Toml("0"),
            "Threads that share its placement groups among themselves; 0: one for each four cores of the host, at most 4.",
        ),
    ],
};

pub(super) const OSD: Part = Part {
    title: "[[osds]]",
    doc: "An OSD: one daemon with one device or one file.",
    keys: &[
        key("id", "number", Follows("its place in the list, from 0"), "Its number: `osd.N`."),
        key("host", "name", Follows("the hosts in turn"), "The host it runs on."),
        key("port", "port", Follows("`base_port` + 100 + id"), "Where it listens."),
        key("path", "path", Follows("`osd.N` in the data folder"), "The folder of its journal, metadata and blocks."),
        key("device", "path", Follows("none: blocks are a file in `path`"), "A raw block device for its blocks."),
        key("size", "size", Follows("`[osd_defaults]`; with `device` all of it"), "How much it stores."),
        key("class", "name", Follows("`[osd_defaults]`"), "The device class."),
        key("weight", "number", Follows("the size in TiB"), "Its share of the data against other OSDs, 0 to 10000."),
        key("memory", "size", Follows("`[osd_defaults]`"), "The memory it may use."),
        key("shards", "number", Follows("`[osd_defaults]`"), "Threads that share its placement groups."),
        key("location", "location", Follows("that of its host"), "Where it stands in the crush tree."),
    ],
};

pub(super) const MDS: Part = Part {
    title: "[[mds]]",
    doc: "A metadata server.",
    keys: &[
        key("name", "name", Follows("`a`, `b`, `c` ..."), "Its name: `mds.NAME`."),
        key("host", "name", Follows("the hosts in turn"), "The host it runs on."),
        key("port", "port", Follows("`base_port` + 20 and up"), "Where it listens."),
    ],
};

pub(super) const S3: Part = Part {
    title: "[[s3]]",
    doc: "An S3 gateway.",
    keys: &[
        key("name", "name", Follows("`a`, `b`, `c` ..."), "Its name: `s3.NAME`."),
        key("host", "name", Follows("the hosts in turn"), "The host it runs on."),
        key("port", "port", Follows("`base_port` + 40 and up"), "Where it listens."),
    ],
};

pub(super) const DASHBOARD: Part = Part {
    title: "[dashboard]",
    doc: "The web page that the leading monitor serves.",
    keys: &[
        key("enabled", "true or false", Toml("true"), "Whether it is served."),
        key("port", "port", Follows("`base_port` + 10"), "Where it listens, on each monitor's address."),
    ],
};

pub(super) const POOL: Part = Part {
    title: "[[pools]]",
    doc: "A pool: objects that are kept in the same way.",
    keys: &[
        key("name", "name", Required, "Its name."),
        key("size", "number", Toml("3"), "How many copies are kept, 1 to 10."),
        key(
            "min_size",
            "number",
            Follows("`size` less the half of it: 2 of 3"),
            "How many copies must be there to serve.",
        ),
        key(
            "failure_domain",
            "type",
            Toml("\"host\""),
            "What no two copies may share: `osd`, or a type of [location].",
        ),
        key("class", "name", Follows("any"), "Only devices of this class."),
        key(
            "pg_num",
            "number or \"auto\"",
            Toml("\"auto\""),
            "How many pgs it has, 1 to 65536; auto lets it follow its use.",
        ),
        key("application", "name", Follows("none"), "What uses it: `block`, `fs`, `s3`, or a name of one's own."),
        key("quota_bytes", "size", Follows("no limit"), "How much may be stored."),
        key("quota_objects", "number", Follows("no limit"), "How many objects may be stored."),
    ],
};

/// The types of the crush tree above the device, from the bottom up; their place is their number.
pub(super) const LEVELS: [&str; 11] =
    ["host", "chassis", "rack", "row", "pdu", "pod", "room", "datacenter", "zone", "region", "root"];

pub(super) const LOCATION: Part = Part {
    title: "a location",
    doc: "Names of crush buckets by type, `{ root = \"default\", rack = \"r1\" }`. Types that are left out are not in \
          the tree there.",
    keys: &[
        key("root", "name", Toml("\"default\""), "The tree."),
        key("region", "name", Follows("none"), "A bucket of this type."),
        key("zone", "name", Follows("none"), "A bucket of this type."),
        key("datacenter", "name", Follows("none"), "A bucket of this type."),
        key("room", "name", Follows("none"), "A bucket of this type."),
        key("pod", "name", Follows("none"), "A bucket of this type."),
        key("pdu", "name", Follows("none"), "A bucket of this type."),
        key("row", "name", Follows("none"), "A bucket of this type."),
        key("rack", "name", Follows("none"), "A bucket of this type."),
        key("chassis", "name", Follows("none"), "A bucket of this type."),
        key("host", "name", Follows("the host's name"), "A bucket of this type."),
    ],
};
