//! `nacre cluster` and `nacre up | down | status` as an operator types them.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// A folder with a cluster.toml.
fn folder(text: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("cluster.toml"), text).unwrap();
    folder
}

/// Exit code, standard output, standard error.
fn nacre(folder: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_nacre")).args(args).current_dir(folder).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A loopback address of this test process alone, so that its ports are nobody else's.
fn own_address() -> String {
    let [_, a, b, c] = std::process::id().to_be_bytes();
    format!("127.{}.{b}.{c}", a.wrapping_add(77))
}

fn small() -> String {
    let address = own_address();
    format!(
        "name = \"pearl\"\naddress = \"{address}\"\nmonitors = 1\nosds = 3\nmds = 0\ns3 = 0\n\
             [osd_defaults]\nsize = \"1GiB\"\nmemory = \"64MiB\"\n[[hosts]]\nname = \"h1\"\n[[hosts]]\nname = \"h2\"\n[[hosts]]\nname = \"h3\"\n[[pools]]\nname = \"data\"\napplication = \"test\"\n"
    )
}

#[test]
fn the_file_at_the_root_of_the_repository_is_good() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (code, stdout, stderr) = nacre(&root, &["cluster", "check"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert_eq!(stdout, "cluster.toml: ok: cluster pearl, 3 monitors, 4 OSDs, 4 pools\n");
}

#[test]
fn check_shows_all_problems_and_exits_with_1() {
    let folder = folder("name = \"pearl\"\nport_base = 7000\nmonitors = 0\n");
    let (code, stdout, stderr) = nacre(folder.path(), &["cluster", "check"]);
    assert_eq!((code, stderr.as_str()), (Some(1), ""));
    assert!(stdout.starts_with("cluster.toml:2:1: unknown key `port_base` in the top level\n 2 | port_base = 7000\n"));
    assert!(stdout.contains("a cluster needs a monitor"), "{stdout}");
    assert!(stdout.ends_with("cluster.toml: 2 errors, 0 warnings\n"), "{stdout}");

    let (code, stdout, _) = nacre(folder.path(), &["cluster", "check", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(code, Some(1));
    assert_eq!(report["ok"], false);
    assert_eq!(report["problems"][0]["line"], 2);
    assert_eq!(report["problems"][1]["line"], serde_json::Value::Null);
}

#[test]
fn a_file_that_is_not_there_is_named_with_what_to_do() {
    let folder = TempDir::new().unwrap();
    for verb in [["cluster", "check"], ["cluster", "tree"], ["status", "--color=never"]] {
        let (code, stdout, stderr) = nacre(folder.path(), &verb);
        assert_eq!((code, stdout.as_str()), (Some(1), ""));
        assert!(stderr.starts_with("error: cluster.toml: No such file or directory"), "{stderr}");
        assert!(stderr.contains("name another file"), "{stderr}");
    }
}

#[test]
fn show_says_where_each_value_came_from() {
    let folder = folder("name = \"pearl\"\nosds = 1\n[[hosts]]\nname = \"h1\"\n");
    let (code, stdout, _) = nacre(folder.path(), &["cluster", "show"]);
    assert_eq!(code, Some(0));
    assert!(
        stdout.starts_with("name = \"pearl\"         # line 1\ndata = \"var/pearl\"     # follows the name\n"),
        "{stdout}"
    );
    // and what it prints is TOML that means the same cluster
    std::fs::write(folder.path().join("again.toml"), &stdout).unwrap();
    let (code, _, stderr) = nacre(folder.path(), &["cluster", "check", "again.toml"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));

    let (_, stdout, _) = nacre(folder.path(), &["cluster", "show", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(shown["cluster"]["name"]["from"], "line 1");
    assert_eq!(shown["osds"][0]["size"]["value"], 10_u64 << 30);
    assert_eq!(shown["pools"], serde_json::json!([]));
}

#[test]
fn tree_draws_hosts_and_daemons() {
    let folder = folder(
        "name = \"pearl\"\nmonitors = 1\nosds = 2\nmds = 0\ns3 = 0\n[[hosts]]\nname = \"h1\"\n[[hosts]]\nname = \"h2\"\n",
    );
    let (code, stdout, _) = nacre(folder.path(), &["cluster", "tree"]);
    assert_eq!(code, Some(0));
    let expected = "\
cluster pearl, data in var/pearl

TYPE   SIZE  CLASS  LISTENS         NAME
root                                default
host                                ├─ h1
mon                 127.0.0.1:7400  │  ├─ mon.0
osd   10GiB  ssd    127.0.0.1:7500  │  └─ osd.0
host                                └─ h2
osd   10GiB  ssd    127.0.0.1:7501     └─ osd.1
";
    assert_eq!(stdout, expected);
}

#[test]
fn the_derived_crush_map_compiles_and_places_the_pool() {
    let folder = folder(&small());
    let (code, text, _) = nacre(folder.path(), &["cluster", "crush"]);
    assert_eq!(code, Some(0));
    let map = nacre_crush::text::parse(&text).unwrap();
    // then the rule the pool needs is there, and finds three hosts for each input
    let rule = map.rule_id("replicated_host").unwrap();
    let mapper = nacre_crush::map::Mapper::new(&map).unwrap();
    let weights = [nacre_crush::model::Weight::ONE; 3];
    let mut workspace = nacre_crush::map::Workspace::default();
    for x in 0..100 {
        let mut osds = mapper.map_rule(rule, x, 3, &weights, None, &mut workspace).unwrap().to_vec();
        osds.sort_unstable();
        assert_eq!(osds, [0, 1, 2]);
    }
}

/// Stops the cluster also when a test fails.
struct Running(TempDir);

impl Drop for Running {
    fn drop(&mut self) {
        nacre(self.0.path(), &["down"]);
    }
}

#[test]
fn up_starts_a_cluster_and_may_be_repeated() {
    // given a cluster that never was up
    let running = Running(folder(&small()));
    let folder = &running.0;
    let (code, _, stderr) = nacre(folder.path(), &["status"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("start it with `nacre up`"), "{stderr}");
    // when it is brought up
    let (code, stdout, stderr) = nacre(folder.path(), &["up"]);
    // then the map is there, and the monitor runs
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(stdout.contains("crush.txt (written)"), "{stdout}");
    let map = folder.path().join("var/pearl/crush.txt");
    let text = std::fs::read_to_string(&map).unwrap();
    nacre_crush::text::parse(&text).unwrap();
    let (code, stdout, _) = nacre(folder.path(), &["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &status["leader"]), (Some(0), &"mon.0".into()));
    // when an operator has changed the map, and comes again
    std::fs::write(&map, format!("# mine\n{text}")).unwrap();
    let (code, stdout, _) = nacre(folder.path(), &["up", "--json"]);
    // then it is kept, and nothing is started twice
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &report["crush"]["state"], &report["started"]), (Some(0), &"kept".into(), &0.into()));
    assert!(std::fs::read_to_string(&map).unwrap().starts_with("# mine\n"));
    // and a daemon can be restarted, one that is not there cannot
    assert_eq!(nacre(folder.path(), &["restart", "mon.0"]).0, Some(0));
    let (code, _, stderr) = nacre(folder.path(), &["restart", "mon.7"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("there is no mon.7 here, only mon.0, osd.0, osd.1, osd.2"), "{stderr}");
    // and down stops it and leaves the data where it is
    let (code, stdout, _) = nacre(folder.path(), &["down"]);
    assert_eq!(code, Some(0));
    assert!(stdout.contains("4 daemons stopped"), "{stdout}");
    let (_, stdout, _) = nacre(folder.path(), &["down"]);
    assert!(stdout.contains("nothing to stop"), "{stdout}");
    assert!(map.is_file());
}

#[test]
fn up_says_what_became_of_a_supervisor_that_was_killed() {
    let running = Running(folder(&small()));
    let folder = running.0.path();
    assert_eq!(nacre(folder, &["up"]).0, Some(0));
    let lock = folder.join("var/pearl/supervisor.lock");
    let pid = std::fs::read_to_string(&lock).unwrap().trim().to_owned();
    assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
    let (code, stdout, stderr) = nacre(folder, &["up", "--json"]);
    assert_eq!(code, Some(0), "{stderr}");
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let note = format!("the last supervisor (process {pid}) ended without being told to");
    assert!(report["notes"][0].as_str().is_some_and(|said| said.starts_with(&note)), "{stdout}");
    assert_eq!(report["started"], 4, "{stdout}");
    // Which is told once: this one was not killed.
    let (_, stdout, _) = nacre(folder, &["up", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&report["notes"], &report["started"]), (&serde_json::json!([]), &0.into()));
}

#[test]
fn up_names_the_port_that_is_taken_and_whose_it_would_be() {
    let taken = TcpListener::bind((own_address(), 0)).unwrap();
    let place = taken.local_addr().unwrap();
    let (ip, port) = (place.ip(), place.port());
    let text =
        format!("name = \"pearl\"\naddress = \"{ip}\"\nmonitors = [{{ port = {port} }}]\nosds = 0\nmds = 0\ns3 = 0\n");
    let (code, stdout, stderr) = nacre(folder(&text).path(), &["up"]);
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert!(stderr.starts_with(&format!("error: {place} (mon.0) is taken by another program")), "{stderr}");
}

#[test]
fn up_explains_a_data_folder_that_cannot_be() {
    let folder = folder("name = \"pearl\"\ndata = \"cluster.toml/data\"\n");
    let (code, _, stderr) = nacre(folder.path(), &["up"]);
    assert_eq!(code, Some(1));
    assert!(stderr.starts_with("error: the data folder cluster.toml/data cannot be made: Not a directory"), "{stderr}");
}

#[test]
fn keys_lists_what_a_file_may_hold() {
    let folder = TempDir::new().unwrap();
    let (code, stdout, _) = nacre(folder.path(), &["cluster", "keys", "min_size"]);
    assert_eq!(code, Some(0));
    assert!(stdout.starts_with("[[pools]]\n  min_size: number; left out:"), "{stdout}");
    assert_eq!(nacre(folder.path(), &["cluster", "keys", "shellfish"]).0, Some(1));
}
