//! Broken files and what is said about them.

use std::path::Path;

use super::file::Severity;
use super::load::parse;
use super::schema::Cluster;

fn cluster(text: &str) -> Cluster {
    parse("c.toml", Path::new("/srv"), text).unwrap_or_else(|problems| panic!("{problems}")).cluster
}

/// Each problem as a person sees it.
fn problems(text: &str) -> Vec<String> {
    let problems = parse("c.toml", Path::new("/srv"), text).expect_err("the file is broken");
    problems.iter().map(|problem| problems.show(problem)).collect()
}

/// The first line of each error.
fn heads(text: &str) -> Vec<String> {
    problems(text)
        .iter()
        .filter(|text| !text.contains(": warning: "))
        .map(|text| text.lines().next().unwrap().to_owned())
        .collect()
}

#[test]
fn a_name_is_enough() {
    let cluster = cluster("name = \"pearl\"\n");
    assert_eq!(cluster.data.value, Path::new("/srv/var/pearl"));
    assert_eq!((cluster.monitors.len(), cluster.osds.len(), cluster.mds.len(), cluster.s3.len()), (3, 4, 1, 1));
    let listens: Vec<String> = cluster.daemons().iter().map(|(name, _, at)| format!("{name} {at}")).collect();
    assert_eq!(listens[0], "mon.0 127.0.0.1:7400");
    assert_eq!(listens[6], "osd.3 127.0.0.1:7503");
    assert_eq!(listens[8], "s3.a 127.0.0.1:7440");
}

#[test]
fn an_unknown_key_is_shown_with_the_nearest_known_one() {
    let text = "name = \"pearl\"\n\n[osd_defaults]\nsiez = \"1GiB\"\n";
    let expected =
        "c.toml:4:1: unknown key `siez` in [osd_defaults]\n 4 | siez = \"1GiB\"\n   | ^^^^\n   = did you mean `size`?";
    assert_eq!(problems(text), [expected]);
}

#[test]
fn a_key_like_no_other_gets_the_list() {
    let text = problems("name = \"pearl\"\nshellfish = 1\n").remove(0);
    assert!(text.contains("the top level knows: name, data, address"), "{text}");
}

#[test]
fn every_problem_is_told_at_once_in_the_order_of_the_file() {
    let text = "name = \"pearl\"\nbase_port = 70000\nmonitors = \"three\"\nosds = -1\naddress = \"here\"\n\
                [[hosts]]\nadress = \"::1\"\n[[pools]]\nname = \"a/b\"\nsize = 11\nfailure_domain = \"hots\"\n";
    assert_eq!(
        heads(text),
        [
            "c.toml:2:13: `base_port` expects a port from 1 to 65535, not 70000",
            "c.toml:3:12: `monitors` expects a number, or a list of tables, not \"three\"",
            "c.toml:4:8: `osds` expects a number, or a list of tables, not -1",
            "c.toml:5:11: `address` expects an IP address such as \"127.0.0.1\", not \"here\"",
            "c.toml:6:1: [[hosts]] lacks `name`",
            "c.toml:7:1: unknown key `adress` in [[hosts]]",
            "c.toml:9:8: `name` expects a name of letters, digits, `_`, `-` and `.`, a letter or digit first, not \"a/b\"",
            "c.toml:10:8: `size` expects a number of copies from 1 to 10, not 11",
            "c.toml:11:18: `failure_domain` expects one of osd, host, chassis, rack, row, pdu, pod, room, datacenter, \
             zone, region, root, not \"hots\"",
        ]
    );
}

#[test]
fn text_that_is_no_toml_is_told_with_its_place_alone() {
    let found = heads("name = \"pearl\"\nosds = = 4\n");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("c.toml:2:"), "{found:?}");
}

#[test]
fn no_monitor_is_an_error_and_an_even_number_a_warning() {
    assert_eq!(heads("name = \"p\"\nmonitors = 0\n"), ["c.toml: a cluster needs a monitor, and `monitors` gives none"]);
    let loaded = parse("c.toml", Path::new(""), "name = \"p\"\nmonitors = 4\n").unwrap();
    assert_eq!(loaded.warnings.count(Severity::Warning), 1);
}

#[test]
fn ids_names_ports_and_folders_are_not_shared() {
    let text = "name = \"p\"\nmonitors = [{ id = 0, port = 7500 }, { id = 0 }, { id = 2 }]\n\
                osds = [{ id = 0 }, { id = 1, path = \"/d\" }, { id = 2, path = \"/d\" }]\n\
                hosts = [{ name = \"h\" }, { name = \"h\" }]\n";
    assert_eq!(
        heads(text),
        [
            "c.toml:2:30: mon.0 and osd.0 would both listen at 127.0.0.1:7500",
            "c.toml:2:45: there is a second mon.0",
            "c.toml:3:63: osd.1 and osd.2 would share /d",
            "c.toml:4:35: there is a second host named h",
        ]
    );
}

#[test]
fn a_host_that_is_not_there_gets_a_suggestion() {
    let text = problems("name = \"p\"\nhosts = [{ name = \"reef1\" }]\nosds = [{ host = \"ref1\" }]\n").remove(0);
    assert!(text.starts_with("c.toml:3:18: osd.0 runs on host \"ref1\", which is not there\n"), "{text}");
    assert!(text.ends_with("= did you mean \"reef1\"?"), "{text}");
}

#[test]
fn a_pool_that_cannot_be_placed_is_refused() {
    let hosts = "hosts = [{ name = \"h1\" }, { name = \"h2\" }]\n";
    let pool = |keys: &str| heads(&format!("name = \"p\"\n{hosts}[[pools]]\nname = \"data\"\n{keys}"));
    assert_eq!(pool(""), ["c.toml:4:8: pool data keeps 3 copies on different hosts, and only 2 of them hold an OSD"]);
    assert_eq!(
        pool("size = 2\nmin_size = 3\n"),
        ["c.toml:6:12: pool data keeps 2 copies and wants 3 of them to serve"]
    );
    assert_eq!(
        pool("size = 2\nclass = \"sdd\"\n"),
        ["c.toml:6:9: pool data wants devices of class sdd, and no OSD is"]
    );
    assert_eq!(
        pool("size = 2\nfailure_domain = \"rack\"\n"),
        ["c.toml:5:8: pool data keeps 2 copies on different racks, and no rack has an OSD"]
    );
    assert_eq!(pool("size = 5\nfailure_domain = \"osd\"\n").len(), 1);
}

#[test]
fn a_bucket_has_one_type_and_one_parent() {
    let text = "name = \"p\"\n\
                [[hosts]]\nname = \"h1\"\nlocation = { rack = \"r1\", row = \"a\" }\n\
                [[hosts]]\nname = \"h2\"\nlocation = { rack = \"r1\", row = \"b\" }\n\
                [[hosts]]\nname = \"h3\"\nlocation = { rack = \"h1\" }\n";
    assert_eq!(
        heads(text),
        [
            "c.toml:7:12: rack \"r1\" would stand in \"a\" and in \"b\"",
            "c.toml:10:12: \"h1\" is a host in one place and a rack in another"
        ]
    );
}

#[test]
fn a_device_of_unknown_size_needs_a_weight() {
    let found = heads("name = \"p\"\nosds = [{ device = \"/dev/sdb\" }]\n");
    assert_eq!(found, ["c.toml:2:20: osd.0 has a device of unknown size and no weight"]);
    let with = cluster("name = \"p\"\nosds = [{ device = \"/dev/sdb\", weight = 3.5 }]\n");
    assert_eq!(with.osds[0].size, None);
    assert_eq!(with.osds[0].weight.value.0, 3.5);
}

#[test]
fn ports_past_the_end_are_told() {
    let found = heads("name = \"p\"\nbase_port = 65500\nmds = 0\ns3 = 0\nosds = [{}]\n");
    assert_eq!(found, ["c.toml:5:9: base_port 65500 + 100 is no port: the last is 65535"]);
}

#[test]
fn a_slip_in_the_application_of_a_pool_is_a_warning() {
    let text = "name = \"p\"\n[[pools]]\nname = \"a\"\nsize = 2\nfailure_domain = \"osd\"\napplication = \"blokc\"\n";
    let loaded = parse("c.toml", Path::new(""), text).unwrap();
    let warnings: Vec<&str> = loaded.warnings.iter().filter_map(|warning| warning.hint.as_deref()).collect();
    assert_eq!(warnings, ["did you mean \"block\"?"]);
}

/// Pieces of which a wild file is put together: what the reader knows, what it does not, and what breaks TOML.
const PIECES: [&str; 34] = [
    "name",
    "data",
    "monitors",
    "osds",
    "osd_defaults",
    "hosts",
    "pools",
    "location",
    "size",
    "port",
    "host",
    "id",
    "min_size",
    "shellfish",
    " = ",
    "=",
    "\n",
    "[",
    "]",
    "[[",
    "]]",
    "{ ",
    " }",
    ", ",
    "\"a\"",
    "\"1GiB\"",
    "3",
    "0",
    "99999999999999999999",
    "-1",
    "1e400",
    "true",
    "\u{1f41a}",
    "\"",
];

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(400))]

    #[test]
    fn no_text_makes_the_reader_panic(pieces in proptest::collection::vec(proptest::sample::select(&PIECES[..]), 0..40)) {
        if let Err(problems) = parse("c.toml", Path::new(""), &pieces.concat()) {
            // and each problem can be shown
            proptest::prop_assert!(problems.iter().all(|problem| !problems.show(problem).is_empty()));
        }
    }

    #[test]
    fn no_change_of_a_good_file_makes_the_reader_panic(
        at in proptest::prelude::any::<proptest::sample::Index>(),
        cut in 0_usize..30,
        piece in proptest::sample::select(&PIECES[..]),
    ) {
        let good = include_str!("../../../cluster.toml");
        let start = (0..=at.index(good.len())).rev().find(|at| good.is_char_boundary(*at)).unwrap();
        let end = (start + cut..=good.len()).find(|at| good.is_char_boundary(*at)).unwrap_or(good.len());
        let text = format!("{}{piece}{}", &good[..start], &good[end..]);
        match parse("c.toml", Path::new(""), &text) {
            Ok(loaded) => { super::placement::crush_map(&loaded.cluster).unwrap(); }
            Err(problems) => proptest::prop_assert!(problems.iter().all(|problem| !problems.show(problem).is_empty())),
        }
    }
}
