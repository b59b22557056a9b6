//! What an operator types, against real monitors: OSDs from their boot to their removal, dry runs, flags that end by
//! themselves, fences with their barrier, health and mutes. OSDs are played by the test, so that each step is its own.

use std::io::BufRead;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nacre_mon_api::{MonClient, v1};
use nacre_proto::v1 as map;
use nacre_proto::v1::map_command::Verb as Map;
use serde_json::Value;

use crate::cluster::{Cluster, nacre_bin, note, until};

const SOON: Duration = Duration::from_secs(20);

fn execute(cluster: &Cluster, client: &MonClient, verb: Map) -> v1::ExecuteReply {
    let verb = v1::command::Verb::Map(map::MapCommand { verb: Some(verb) });
    cluster.runtime.block_on(client.execute(verb, false)).unwrap()
}

/// An OSD that only says that it is there. Size in TiB.
fn boot(osd: u32, host: &str, size: u64) -> Map {
    Map::OsdBoot(map::OsdBoot {
        osd,
        incarnation: 1,
        uuid: vec![osd as u8 + 1; 16].into(),
        public: vec![format!("127.0.0.1:{}", 9000 + osd)],
        cluster: vec![format!("127.0.0.1:{}", 9000 + osd)],
        heartbeat: vec![format!("127.0.0.1:{}", 9000 + osd)],
        host: host.into(),
        version: "test".into(),
        capacity_bytes: size << 40,
        class: "ssd".into(),
        ..map::OsdBoot::default()
    })
}

fn json(cluster: &Cluster, args: &[&str]) -> Value {
    serde_json::from_str(&cluster.nacre(&[args, &["--json"]].concat())).unwrap()
}

#[test]
fn an_osd_from_its_boot_to_its_removal() {
    let cluster = Cluster::up();
    let client = cluster.client(SOON);
    let (good, _, err) = cluster.try_nacre(&["pool", "create", "data"]);
    assert!(!good && err.contains("no OSD has joined the cluster yet"), "{err}");

    // Each places itself: its host below the root, by its size.
    for (osd, host, size) in [(0, "a", 1), (1, "b", 1), (2, "c", 2), (3, "d", 4)] {
        execute(&cluster, &client, boot(osd, host, size));
    }
    let tree = json(&cluster, &["osd", "tree"]);
    let line = |name: &str| tree.as_array().unwrap().iter().find(|line| line["name"] == name).cloned().unwrap();
    assert_eq!((&line("default")["kind"], &line("default")["weight"]), (&"root".into(), &8.0.into()));
    assert_eq!((&line("c")["kind"], &line("c")["depth"]), (&"host".into(), &1.into()));
    assert_eq!((&line("osd.3")["weight"], &line("osd.3")["up"]), (&4.0.into(), &true.into()));

    // Pools can be made from then on; a dry run makes none.
    let made = json(&cluster, &["pool", "create", "data", "--size", "3", "--application", "block", "--dry-run"]);
    assert_eq!(made["dry_run"], true);
    assert!(json(&cluster, &["pool", "ls"]).as_array().unwrap().is_empty());
    cluster.nacre(&["pool", "create", "data", "--size", "3", "--application", "block"]);
    cluster.nacre(&["pool", "rename", "data", "vms"]);
    cluster.nacre(&["pool", "application", "vms", "s3"]);
    let pools = json(&cluster, &["pool", "ls"]);
    assert_eq!((&pools[0]["name"], &pools[0]["applications"]), (&"vms".into(), &serde_json::json!(["block", "s3"])));

    // What moves data can be tried: it says how much, and nothing is done.
    let epoch = cluster.status().epoch;
    for trial in [
        &["osd", "out", "3"][..],
        &["osd", "reweight", "osd.3", "0.5"],
        &["osd", "weight", "3", "0.5"],
        &["osd", "move", "3", "host=a"],
    ] {
        let would = json(&cluster, &[trial, &["--dry-run"]].concat());
        assert!(would["moved"]["copies"].as_u64().unwrap() > 0, "{trial:?}: {would}");
    }
    for (trial, moves) in [
        (&["osd", "in", "3"][..], false),
        (&["osd", "down", "3"], false),
        (&["osd", "affinity", "3", "0.5"], false),
        (&["osd", "class", "3", "hdd"], false),
        (&["osd", "lost", "3", "--yes-i-lose-data"], false),
        (&["pool", "set", "vms", "size", "2"], false),
        (&["pool", "set", "vms", "size", "4"], true),
        (&["pool", "set", "vms", "pg_num", "64"], false),
        (&["pool", "rm", "vms", "--confirm", "vms"], false),
        (&["flag", "set", "noout"], false),
        (&["flag", "clear", "noout"], false),
        (&["config", "set", "osd.memory", "512MiB"], false),
        (&["config", "unset", "osd.memory"], false),
    ] {
        let (good, out, err) = cluster.try_nacre(&[trial, &["--dry-run", "--json"]].concat());
        // What would be refused is refused, too.
        let Ok(would) = serde_json::from_str::<Value>(&out) else {
            assert!(
                !good && !moves && err.starts_with("error: ") && !err.contains("--dry-run"),
                "{trial:?}: {out}{err}"
            );
            continue;
        };
        assert_eq!(would["dry_run"], true, "{trial:?}: {would}");
        assert!(would["moved"]["copies"].as_u64().unwrap() > 0 || !moves, "{trial:?}: {would}");
    }
    assert_eq!(cluster.status().epoch, epoch, "a dry run changes nothing");

    // Removed only when nothing depends on it; what the client says about that is not believed.
    let (good, said, err) = cluster.try_nacre(&["osd", "safe-to-destroy", "3"]);
    assert!(!good && said.contains("mapped to osd.3"), "{said}{err}");
    cluster.nacre(&["osd", "down", "3"]);
    let lie = v1::command::Verb::Map(map::MapCommand {
        verb: Some(Map::OsdRemove(map::OsdRemove { osd: 3, safe: true, force: false })),
    });
    let refused = cluster.runtime.block_on(client.execute(lie, false)).unwrap_err();
    assert!(refused.text.contains("32 pgs are unknown"), "{refused}");
    cluster.nacre(&["osd", "out", "3"]);
    let (good, _, err) = cluster.try_nacre(&["osd", "rm", "3"]);
    assert!(!good && err.contains("pgs are unknown"), "{err}");
    cluster.nacre(&["osd", "rm", "3", "--force"]);
    assert!(json(&cluster, &["osd", "tree"]).as_array().unwrap().iter().all(|line| line["name"] != "osd.3"));
    until("the audit tells of it", SOON, || {
        cluster.nacre(&["log", "--channel", "audit", "-n", "200"]).contains("osd.3 removed")
    });
}

#[test]
fn flags_end_fences_wait_and_mutes_hide() {
    let cluster = Cluster::up();
    let client = cluster.client(SOON);
    for (osd, host) in [(0, "a"), (1, "b")] {
        execute(&cluster, &client, boot(osd, host, 1));
    }

    // A flag for two seconds is cleared by nobody.
    cluster.nacre(&["flag", "set", "noout", "--for", "2s", "--why", "cables"]);
    let flags = json(&cluster, &["flag", "ls"]);
    assert_eq!((&flags[0]["flag"], &flags[0]["why"]), (&"noout".into(), &"cables".into()));
    assert_eq!(json(&cluster, &["status"])["flags"][0]["flag"], "noout");
    until("the flag ends by itself", SOON, || json(&cluster, &["flag", "ls"]).as_array().unwrap().is_empty());
    cluster.nacre(&["flag", "set", "noout", "--on", "osd.1"]);
    cluster.nacre(&["flag", "clear", "noout", "--on", "osd.1"]);
    assert!(json(&cluster, &["flag", "ls"]).as_array().unwrap().is_empty());
    let (good, _, err) = cluster.try_nacre(&["flag", "set", "nonsense"]);
    assert!(!good && err.contains("noout"), "{err}");

    // A fence has happened when every OSD that is up knows of it.
    let (good, out, _) = cluster.try_nacre(&["fence", "add", "77", "--for", "1h", "--wait", "100ms", "--json"]);
    let fenced: Value = serde_json::from_str(&out).unwrap();
    assert!(!good && fenced["behind"] == serde_json::json!([0, 1]), "{fenced}");
    let epoch = fenced["epoch"].as_u64().unwrap();
    let beacon = |osd| map::OsdBeacon { osd, incarnation: 1, epoch, total_bytes: 1 << 40, ..map::OsdBeacon::default() };
    let told = cluster.runtime.block_on(async {
        client.beacon(beacon(0)).await.unwrap();
        let waiting = cluster.client(SOON);
        let barrier = tokio::spawn(async move { waiting.barrier(epoch, SOON).await });
        client.beacon(beacon(1)).await.unwrap();
        barrier.await.unwrap().unwrap()
    });
    assert!(told.is_empty(), "{told:?}");
    assert_eq!(json(&cluster, &["fence", "ls"])[0]["session"], 77);
    cluster.nacre(&["fence", "rm", "77"]);
    assert!(json(&cluster, &["fence", "ls"]).as_array().unwrap().is_empty());

    // Health says what, why and what to do; what is muted is not counted.
    cluster.nacre(&["osd", "down", "1"]);
    let checks = |health: &Value| health["checks"].as_array().unwrap().clone();
    let raised = |health: &Value| {
        let down = checks(health).into_iter().find(|check| check["details"].to_string().contains("osd.1"));
        down.unwrap_or_else(|| panic!("{health}"))
    };
    let down = raised(&json(&cluster, &["health"]));
    assert!(down["todo"].as_str().is_some_and(|todo| !todo.is_empty()), "{down}");
    let name = down["name"].as_str().unwrap();
    cluster.nacre(&["health", "mute", name, "--for", "1h"]);
    assert_eq!(raised(&json(&cluster, &["health"]))["muted"], true);
    cluster.nacre(&["health", "unmute", name]);
    assert_eq!(raised(&json(&cluster, &["health"]))["muted"], false);

    // Settings know their scope, type, range and whether they take effect at once.
    let (good, _, err) = cluster.try_nacre(&["config", "set", "mon.pg.per_osd_target", "many"]);
    assert!(!good && err.contains("number from"), "{err}");
    let (good, _, err) = cluster.try_nacre(&["config", "set", "mon.pg.per_osd_targe", "70"]);
    assert!(!good && err.contains("mon.pg.per_osd_target"), "{err}");
    let explained = json(&cluster, &["config", "explain", "mon.pg.per_osd_target"]);
    assert!(explained["live"] == true && explained["expects"].to_string().contains("number from"), "{explained}");
    cluster.nacre(&["config", "set", "osd.memory", "512MiB", "--scope", "class:ssd"]);
    let got = json(&cluster, &["config", "get", "osd.memory", "--for", "osd.0"]);
    assert_eq!((&got[0]["value"], &got[0]["from"]), (&"512MiB".into(), &"class:ssd".into()));
}

/// Killed when the test ends before it.
struct Watching(Child);

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_log_is_shown_through_changes_of_leader_and_without_a_quorum() {
    let cluster = Cluster::up();
    let client = cluster.client(Duration::from_secs(120));
    let say = |text: &str| cluster.runtime.block_on(client.execute(note(text.into()), false)).unwrap();
    say("one");
    // `nacre watch` goes on with another monitor where the one it listened to fell silent: each line once.
    let mut watch = Command::new(nacre_bin())
        .args(["watch", "--channel", "cluster", "--json"])
        .current_dir(cluster.folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = std::io::BufReader::new(watch.stdout.take().unwrap()).lines();
    let _watching = Watching(watch);
    let mut notes = lines.map_while(Result::ok).filter_map(|line| {
        let line: Value = serde_json::from_str(&line).unwrap();
        (line["who"] == "client.admin").then(|| line["text"].as_str().unwrap().to_owned())
    });
    assert_eq!(notes.next().as_deref(), Some("one"));
    say("two");
    assert_eq!(notes.next().as_deref(), Some("two"));
    for (mon, text) in [(0, "three"), (1, "four"), (2, "five")] {
        cluster.nacre(&["restart", &format!("mon.{mon}")]);
        say(text);
        assert_eq!(notes.next().as_deref(), Some(text));
    }

    // Without a quorum one monitor says what it has, and that this may not be all; what needs the quorum says what is
    // missing, and what to look at.
    let said = cluster.nacre(&["down", "mon.0", "mon.2"]);
    assert!(said.contains("mon.0, mon.2 stopped"), "{said}");
    let (good, out, err) = cluster.try_nacre(&["log", "--channel", "cluster", "-n", "500"]);
    assert!(good && err.contains("no quorum") && err.contains("may lack the newest lines"), "{err}");
    assert!(out.contains(": one") && out.contains(": five"), "{out}");
    let (good, out, _) = cluster.try_nacre(&["mon", "status", "--json"]);
    let seen: Value = serde_json::from_str(&out).unwrap();
    assert!(!good && seen[0]["error"].is_string() && seen[1]["error"].is_null(), "{seen}");
    for verb in [&["status"][..], &["osd", "tree"], &["config", "set", "mon.pg.per_osd_target", "77"]] {
        let (good, _, err) = cluster.try_nacre(verb);
        assert!(!good && err.contains("majority") && err.contains("nacre mon status"), "{verb:?}: {err}");
    }
    let table = cluster.try_nacre(&["mon", "status"]).1;
    assert!(table.contains("not reached") && table.contains("mon.2: monitor at"), "{table}");
    cluster.nacre(&["down", "mon.1"]);
    let (good, _, err) = cluster.try_nacre(&["status"]);
    assert!(!good && err.contains("none of 3 monitors answers") && err.contains("nacre mon status"), "{err}");
    let up = json(&cluster, &["up"]);
    assert!(up["started"] == 3 && up["notes"].to_string().contains("mon.0, mon.1, mon.2"), "{up}");
    say("six");
    let log = || cluster.nacre(&["log", "-n", "500"]);
    assert!(log().contains(": six"), "{}", log());
    // Each leader says that it leads as soon as it can, and once.
    let status = || -> Value { serde_json::from_str(&cluster.try_nacre(&["mon", "status", "--json"]).1).unwrap() };
    for mon in [0, 1, 2] {
        until("it leads", SOON, || {
            cluster.try_nacre(&["mon", "lead", &mon.to_string()]);
            status()[mon]["role"] == "leader"
        });
        let mut line = String::new();
        until("who leads has said so", SOON, || {
            let status = status();
            let leader = status.as_array().unwrap().iter().find(|mon| mon["role"] == "leader");
            line = leader.map_or_else(String::new, |leader| {
                format!("{} leads in term {}", leader["name"].as_str().unwrap(), leader["term"])
            });
            !line.is_empty() && log().contains(&line)
        });
        assert_eq!(log().lines().filter(|said| said.ends_with(&line)).count(), 1, "{}", log());
    }
}
