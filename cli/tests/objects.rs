//! A cluster that keeps objects, through the command line and through the library, as its users meet it.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

#[path = "objects/block.rs"]
mod block;
#[path = "objects/mapped.rs"]
mod mapped;
#[path = "objects/object_map.rs"]
mod object_map;
#[path = "objects/operators.rs"]
mod operators;
#[path = "objects/powercut.rs"]
mod powercut;
#[path = "objects/served.rs"]
mod served;
#[path = "objects/shards.rs"]
mod shards;
#[path = "objects/together.rs"]
mod together;
#[path = "objects/tools.rs"]
mod tools;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nacre_client::{Cluster, Compare, Error, Op, OpError, Settings};
use tempfile::TempDir;

/// Exit code, standard output, standard error.
fn nacre(folder: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_nacre")).args(args).current_dir(folder).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A cluster with a monitor and three OSDs and the pool `data`, stopped also when a test fails.
struct Running(TempDir);

impl Running {
    /// `apart` tells the clusters of this test process from each other.
    fn new(apart: u8) -> Running {
        Running::of(apart, 3, "[[osds]]\n[[osds]]\nweight = 0.002\n[[osds]]\n")
    }

    /// With so many hosts, and OSDs as `cluster.toml` lists them.
    fn of(apart: u8, hosts: u32, list: &str) -> Running {
        Running::made(apart, 1, hosts, list)
    }

    /// With so many monitors.
    fn with_monitors(apart: u8, monitors: u32) -> Running {
        Running::made(apart, monitors, 3, "[[osds]]\n[[osds]]\n[[osds]]\n")
    }

    fn made(apart: u8, monitors: u32, hosts: u32, list: &str) -> Running {
        let [_, a, b, c] = std::process::id().to_be_bytes();
        let address = format!("127.{}.{b}.{c}", a.wrapping_add(77 + apart));
        let hosts: String = (1..=hosts).map(|n| format!("[[hosts]]\nname = \"h{n}\"\n")).collect();
        let text = format!(
            "name = \"pearl\"\naddress = \"{address}\"\nmonitors = {monitors}\nmds = 0\ns3 = 0\n\
             [osd_defaults]\nsize = \"512MiB\"\nmemory = \"64MiB\"\n\
             {list}{hosts}[[pools]]\nname = \"data\"\napplication = \"test\"\npg_num = 8\n"
        );
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("cluster.toml"), text).unwrap();
        let running = Running(folder);
        running.good(&["up"]);
        running
    }

    /// A verb that succeeds and has nothing to complain about.
    fn good(&self, args: &[&str]) -> String {
        let (code, stdout, stderr) = nacre(self.0.path(), args);
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{args:?}");
        stdout
    }

    /// Ends an OSD without a warning.
    fn kill(&self, osd: u32) {
        self.kill_daemon(&format!("osd.{osd}"));
    }

    fn kill_daemon(&self, name: &str) {
        self.signal(name, "-KILL");
    }

    fn signal(&self, name: &str, signal: &str) {
        let pid = std::fs::read_to_string(self.0.path().join(format!("var/pearl/run/{name}.pid"))).unwrap();
        let sent = Command::new("kill").args([signal, pid.trim()]).status().unwrap();
        assert!(sent.success());
    }

    async fn client(&self) -> Cluster {
        Cluster::connect(self.settings()).await.unwrap()
    }

    fn settings(&self) -> Settings {
        let ports = std::fs::read_to_string(self.0.path().join("var/pearl/ports.json")).unwrap();
        let ports: Vec<serde_json::Value> = serde_json::from_str(&ports).unwrap();
        let monitors = ports.iter().filter(|daemon| daemon["name"].as_str().unwrap().starts_with("mon."));
        let monitors: Vec<String> = monitors.map(|daemon| daemon["listens"].as_str().unwrap().to_owned()).collect();
        Settings::of_folder(&self.0.path().join("var/pearl/admin"), monitors).unwrap()
    }

    /// Until every pg is clean.
    fn wait_until_clean(&self) {
        let began = Instant::now();
        loop {
            let (code, stdout, _) = nacre(self.0.path(), &["pg", "explain"]);
            if code == Some(0) {
                return;
            }
            if began.elapsed() > Duration::from_secs(60) {
                let (_, tree, _) = nacre(self.0.path(), &["osd", "tree"]);
                let (_, log, _) = nacre(self.0.path(), &["log"]);
                panic!("not clean yet:\n{stdout}{tree}{log}");
            }
        }
    }
}

/// A daemon that is stopped, until this is dropped.
struct Frozen<'a>(&'a Running, &'static str);

impl<'a> Frozen<'a> {
    fn new(running: &'a Running, name: &'static str) -> Frozen<'a> {
        running.signal(name, "-STOP");
        Frozen(running, name)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        self.0.signal(self.1, "-CONT");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        nacre(self.0.path(), &["down"]);
    }
}

#[test]
fn objects_outlive_the_death_of_an_osd_and_of_the_whole_cluster() {
    // given a cluster with objects
    let running = Running::new(1);
    let folder = running.0.path();
    let good = |args: &[&str]| running.good(args);
    let name = |n: u32| format!("object-{n}");
    let content = |n: u32| (0..50_000u32).map(|at| (at.wrapping_mul(n + 1) >> 3) as u8).collect::<Vec<u8>>();
    let file = folder.join("content");
    let put = |n: u32| {
        std::fs::write(&file, content(n)).unwrap();
        good(&["object", "put", "data", &name(n), "content"]);
    };
    let check = |all: u32| {
        let fetched = folder.join("fetched");
        for n in 0..all {
            good(&["object", "get", "data", &name(n), "fetched"]);
            assert!(std::fs::read(&fetched).unwrap() == content(n), "object {n} came back otherwise");
            std::fs::remove_file(&fetched).unwrap();
        }
        let listed: Vec<String> = serde_json::from_str(&good(&["object", "ls", "data", "--json"])).unwrap();
        let mut listed: Vec<_> = listed.iter().map(String::as_str).collect();
        listed.sort_unstable();
        let mut expected: Vec<String> = (0..all).map(name).collect();
        expected.sort_unstable();
        assert_eq!(listed, expected);
    };
    (0..4).for_each(put);
    // when an OSD is killed
    running.kill(1);
    // then the others go on, and it comes back by itself
    (4..8).for_each(put);
    check(8);
    // and when all end and start again, everything is still there
    good(&["down"]);
    good(&["up"]);
    check(8);
    // and what is removed is gone
    good(&["object", "rm", "data", "object-7"]);
    assert_eq!(nacre(folder, &["object", "stat", "data", "object-7"]).0, Some(1));
    check(7);
}

#[tokio::test]
async fn a_vector_takes_effect_whole_or_not_at_all() {
    let running = Running::new(2);
    let cluster = running.client().await;
    let object = cluster.pool("data").await.unwrap().object("thing");
    // given an object with an attribute and entries
    let entries = (0..10).map(|n| (Bytes::from(format!("key-{n}")), Bytes::from(format!("value-{n}")))).collect();
    object
        .execute(vec![
            Op::Create { exclusive: true },
            Op::Write { offset: 100, data: "hello".into() },
            Op::SetXattr { name: "colour".into(), value: "green".into() },
            Op::OmapSet { entries },
        ])
        .await
        .unwrap();
    assert_eq!(object.read(98, 20).await.unwrap(), Bytes::from_static(b"\0\0hello"));
    // when a guard in the middle does not hold
    let refused = object
        .execute(vec![
            Op::Append { data: " again".into() },
            Op::CompareXattr { name: "colour".into(), how: Compare::Eq, value: "red".into() },
            Op::OmapClear,
        ])
        .await;
    // then nothing of the vector happened
    assert!(matches!(refused, Err(Error::Object { source: OpError::Guard { at: 1 }, .. })), "{refused:?}");
    assert_eq!(object.stat().await.unwrap().size, 105);
    let (page, more) = object.omap(Some("key-3".into()), 4).await.unwrap();
    let keys: Vec<&[u8]> = page.iter().map(|(key, _)| &key[..]).collect();
    assert_eq!((keys, more), (vec![&b"key-4"[..], b"key-5", b"key-6", b"key-7"], true));
    // and what is not there is said not to be
    let absent = cluster.pool("data").await.unwrap().object("nothing").stat().await;
    assert!(matches!(absent, Err(Error::Object { source: OpError::NotFound { .. }, .. })), "{absent:?}");
    assert!(matches!(cluster.pool("nowhere").await, Err(Error::NoPool { .. })));
}

#[tokio::test]
async fn watchers_are_told_also_after_the_primary_died() {
    let running = Running::new(3);
    let (one, two) = (running.client().await, running.client().await);
    let watched = one.pool("data").await.unwrap().object("bell");
    watched.write_full("ding").await.unwrap();
    let mut watch = watched.watch(Duration::from_secs(30)).await.unwrap();
    let bell = two.pool("data").await.unwrap().object("bell");
    let ring = |what: &'static str| {
        let bell = bell.clone();
        tokio::spawn(async move { bell.notify(what, Duration::from_secs(20)).await.unwrap() })
    };
    let rung = ring("first");
    let heard = watch.next().await.unwrap();
    assert_eq!(heard.payload, "first");
    heard.answer("here").await.unwrap();
    let rung = rung.await.unwrap();
    assert_eq!((rung.answers.len(), rung.missed.len()), (1, 0));
    assert_eq!((rung.answers[0].0.0.0, &rung.answers[0].1[..]), (one.session(), &b"here"[..]));
    // when the primary dies
    let places = two.places();
    let holder = running.good(&["pg", "ls", "--json"]);
    let rows: Vec<serde_json::Value> = serde_json::from_str(&holder).unwrap();
    let row = rows.iter().find(|row| row["objects"] == 1).unwrap();
    assert!(places.iter().any(|(pg, _)| pg.to_string() == row["pg"].as_str().unwrap()));
    running.kill(u32::try_from(row["primary"].as_u64().unwrap()).unwrap());
    // then the next notify is heard all the same
    let rung = ring("second");
    loop {
        let heard = watch.next().await.unwrap();
        let last = heard.payload == "second";
        heard.answer("still here").await.unwrap();
        if last {
            break;
        }
    }
    assert_eq!(rung.await.unwrap().answers.len(), 1);
    // and a watch that was ended is told nothing
    watch.end().await.unwrap();
    assert_eq!(ring("third").await.unwrap().answers, []);
}

#[tokio::test]
async fn a_hung_monitor_keeps_no_client_from_newer_maps() {
    let running = Running::with_monitors(48, 3);
    // Longer than it takes to find a newer map elsewhere, shorter than until the silent monitor is found out by itself.
    let mut settings = running.settings();
    settings.patience = Some(Duration::from_secs(28));
    let cluster = Cluster::connect(settings).await.unwrap();
    let data = cluster.pool("data").await.unwrap();
    let objects: Vec<_> = (0..16).map(|n| data.object(format!("object-{n}"))).collect();
    for object in &objects {
        object.write_full("first").await.unwrap();
    }
    // when the first of its monitors, which gives it maps, says nothing any more, and an OSD dies
    let _frozen = Frozen::new(&running, "mon.0");
    running.kill(1);
    // then what that one led is written where it is led now
    for object in &objects {
        object.write_full("second").await.unwrap();
        assert_eq!(object.read(0, 100).await.unwrap(), "second");
    }
}

#[test]
fn pgs_say_how_they_are() {
    let running = Running::new(4);
    let (folder, good) = (running.0.path(), |args: &[&str]| running.good(args));
    running.wait_until_clean();
    let rows: Vec<serde_json::Value> = serde_json::from_str(&good(&["pg", "ls", "--json"])).unwrap();
    assert_eq!(rows.len(), 8);
    assert!(rows.iter().all(|row| row["state"] == "active+clean" && row["acting"].as_array().unwrap().len() == 3));
    assert!(good(&["pg", "ls"]).lines().count() == 9);
    let seen: serde_json::Value = serde_json::from_str(&good(&["pg", "query", "1.3", "--json"])).unwrap();
    assert_eq!(seen["copies"].as_array().unwrap().len(), 3);
    assert!(good(&["pg", "explain"]).contains("all 8 pgs are active and clean"));
    assert!(good(&["pg", "scrub", "1.3", "--deep"]).starts_with("ordered"));
    // What cluster.toml says an OSD weighs, it weighs; the others weigh what they hold.
    let tree: Vec<serde_json::Value> = serde_json::from_str(&good(&["osd", "tree", "--json"])).unwrap();
    let weighs = |name: &str| tree.iter().find(|row| row["name"] == name).unwrap()["weight"].as_f64().unwrap();
    assert!((weighs("osd.1") - 0.002).abs() < 1e-5 && weighs("osd.0") < 0.0015, "{tree:?}");
    let (code, _, stderr) = nacre(folder, &["pg", "query", "1.ff"]);
    assert_eq!((code, stderr.as_str()), (Some(1), "error: there is no pg 1.ff; `nacre pg ls` lists them\n"));
    assert_eq!(nacre(folder, &["pg", "query", "nonsense"]).0, Some(2));
}

#[test]
fn the_tour_of_the_library_goes_as_written() {
    let running = Running::new(6);
    let folder = running.0.path();
    let ports: Vec<serde_json::Value> =
        serde_json::from_str(&std::fs::read_to_string(folder.join("var/pearl/ports.json")).unwrap()).unwrap();
    let monitor = ports.iter().find(|daemon| daemon["name"] == "mon.0").unwrap()["listens"].as_str().unwrap();
    let tour = Path::new(env!("CARGO_BIN_EXE_nacre")).with_file_name("examples").join("tour");
    assert!(tour.exists(), "{} is missing: cargo build -p nacre-client --examples", tour.display());
    let output = Command::new(tour).args(["var/pearl/admin", "data", monitor]).current_dir(folder).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let expected = "read      a PEARL grows around a grain\nguarded   operation 0 said no to ben\ncounted   80\n\
                    heard     dinner\nanswers   1\nlisted    bell counter page\n";
    assert_eq!(said, expected);
    assert_eq!(running.good(&["object", "ls", "data"]), "");
}

#[test]
fn an_operation_says_what_it_waits_for() {
    let running = Running::new(5);
    let folder = running.0.path();
    running.wait_until_clean();
    let signal = |osd: u32, signal: &str| {
        let pid = std::fs::read_to_string(folder.join(format!("var/pearl/run/osd.{osd}.pid"))).unwrap();
        assert!(Command::new("kill").args(["-s", signal, pid.trim()]).status().unwrap().success());
    };
    // The primary of an object's pg, and another that holds it.
    running.good(&["object", "put", "data", "stone", "cluster.toml"]);
    let rows: Vec<serde_json::Value> = serde_json::from_str(&running.good(&["pg", "ls", "--json"])).unwrap();
    let row = rows.iter().find(|row| row["objects"] == 1).unwrap();
    let acting: Vec<u32> = row["acting"].as_array().unwrap().iter().map(|osd| osd.as_u64().unwrap() as u32).collect();
    let primary = format!("osd.{}", acting[0]);
    let ops = || -> serde_json::Value {
        serde_json::from_str(&running.good(&["daemon", &primary, "ops", "--json"])).unwrap()
    };
    signal(acting[1], "STOP");
    std::thread::scope(|scope| {
        let put = scope.spawn(|| nacre(folder, &["object", "put", "data", "stone", "cluster.toml"]));
        let began = Instant::now();
        let open = loop {
            let open = ops()["in_flight"].clone();
            let late = format!("osd.{} has not said", acting[1]);
            let why = open[0]["why"].as_str();
            if open[0]["stage"] == "replicated" && why.is_some_and(|why| why.contains(&late)) {
                break open;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "{open}");
        };
        signal(acting[1], "CONT");
        assert_eq!((&open[0]["object"], &open[0]["pg"]), (&"stone".into(), &row["pg"]));
        assert_eq!(put.join().unwrap().0, Some(0));
    });
    let all = ops();
    assert!(all["in_flight"].as_array().unwrap().is_empty());
    let over = all["recent"].as_array().unwrap().iter().chain(all["slow"].as_array().unwrap());
    let over: Vec<&serde_json::Value> = over.filter(|op| op["object"] == "stone").collect();
    assert!(over.iter().any(|op| op["replicated_us"].as_u64() > Some(0)), "{over:?}");
    assert!(running.good(&["daemon", &primary, "ops"]).contains("answered"));
}

#[test]
fn a_full_cluster_refuses_what_grows_and_takes_removals() {
    let running = Running::new(5);
    let (folder, good) = (running.0.path(), |args: &[&str]| running.good(args));
    // given that the cluster counts as full soon
    good(&["config", "set", "osd.nearfull.ratio", "0.5"]);
    good(&["config", "set", "osd.backfillfull.ratio", "0.5"]);
    good(&["config", "set", "osd.full.ratio", "0.5"]);
    let file = folder.join("content");
    std::fs::write(&file, vec![7; 4 << 20]).unwrap();
    // when it is filled
    let mut count = 0;
    let refused = loop {
        let (code, _, stderr) = nacre(folder, &["object", "put", "data", &format!("filler-{count}"), "content"]);
        if code != Some(0) {
            break stderr;
        }
        count += 1;
        assert!(count < 128, "more than the device holds was taken");
    };
    // then it says so, everything is still readable, nobody died
    assert!(refused.contains("no room"), "{refused}");
    assert!(count >= 40, "{count} objects of 4 MiB are not half of 512 MiB");
    assert!(good(&["status"]).contains("osd_full"));
    good(&["object", "get", "data", "filler-0", "fetched"]);
    assert_eq!(std::fs::read(folder.join("fetched")).unwrap().len(), 4 << 20);
    // and when something is removed, there is room again
    for n in 0..count / 2 {
        good(&["object", "rm", "data", &format!("filler-{n}")]);
    }
    let began = Instant::now();
    while nacre(folder, &["object", "put", "data", "after", "content"]).0 != Some(0) {
        assert!(began.elapsed() < Duration::from_secs(30), "no room though half was removed");
    }
    let listed: serde_json::Value = serde_json::from_str(&good(&["up", "--json"])).unwrap();
    assert_eq!(listed["started"], 0);
}
