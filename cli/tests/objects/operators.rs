//! What operators type: usage, questions before maintenance, drains, exchanged disks, planners, diagnosis.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Frozen, Running, nacre};

impl Running {
    /// What a verb answers with `--json`, whatever it ends with.
    fn json(&self, args: &[&str]) -> (Option<i32>, Value) {
        let (code, stdout, stderr) = nacre(self.0.path(), &[args, &["--json"]].concat());
        let value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{args:?}: {error}: {stdout}{stderr}"));
        (code, value)
    }

    /// The line of an OSD in `osd df`.
    fn df(&self, osd: u32) -> Value {
        let (_, df) = self.json(&["osd", "df"]);
        let name = format!("osd.{osd}");
        df["nodes"].as_array().unwrap().iter().find(|node| node["name"] == name.as_str()).unwrap().clone()
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.0.path().join("content"), bytes).unwrap();
        self.good(&["object", "put", "data", name, "content"]);
    }

    fn get(&self, name: &str) -> Vec<u8> {
        self.good(&["object", "get", "data", name, "fetched"]);
        std::fs::read(self.0.path().join("fetched")).unwrap()
    }
}

#[test]
fn an_osd_that_answers_again_is_not_held_to_be_silent() {
    let running = Running::new(49);
    let silent = || running.json(&["health"]).1.to_string().contains("osd_held_up");
    // when the others report it as silent, and it is not marked down
    running.good(&["flag", "set", "nodown"]);
    let frozen = Frozen::new(&running, "osd.2");
    eventually("osd.2 is reported", silent);
    // then it answers again, and nothing is left of that, so that it stays up when the flag goes
    drop(frozen);
    eventually("the reports of osd.2 are taken back", || !silent());
    running.good(&["flag", "clear", "nodown"]);
    running.wait_until_clean();
    let log = running.good(&["log", "-n", "500"]);
    assert!(!log.lines().any(|line| line.contains("osd.2") && line.contains("down")), "{log}");
}

/// Until something holds.
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(90), "not within 90 s: {what}");
    }
}

fn pgs(answer: &Value) -> usize {
    answer["pgs"].as_array().unwrap().len()
}

#[test]
fn attributes_maps_and_usage_are_shown_as_they_are_typed() {
    let running = Running::new(6);
    let good = |args: &[&str]| running.good(args);
    running.wait_until_clean();
    // attributes
    good(&["object", "xattr", "set", "data", "thing", "colour", "green"]);
    good(&["object", "xattr", "set", "data", "thing", "0x00ff", "0x010203"]);
    assert_eq!(good(&["object", "xattr", "get", "data", "thing", "colour"]), "green");
    let listed = serde_json::json!([{ "key": "0x00ff", "value": "0x010203" }, { "key": "colour", "value": "green" }]);
    assert_eq!(running.json(&["object", "xattr", "ls", "data", "thing"]).1, listed);
    good(&["object", "xattr", "rm", "data", "thing", "0x00ff"]);
    assert_eq!(running.json(&["object", "xattr", "ls", "data", "thing"]).1.as_array().unwrap().len(), 1);
    // the map, by prefix
    for n in 0..12 {
        good(&["object", "omap", "set", "data", "thing", &format!("key-{n:02}"), &n.to_string()]);
    }
    assert_eq!(good(&["object", "omap", "get", "data", "thing", "key-07"]), "7");
    let tens = running.json(&["object", "omap", "ls", "data", "thing", "--prefix", "key-1"]).1;
    assert_eq!(tens, serde_json::json!([{ "key": "key-10", "value": "10" }, { "key": "key-11", "value": "11" }]));
    good(&["object", "omap", "rm", "data", "thing", "key-10", "key-11"]);
    assert_eq!(running.json(&["object", "omap", "ls", "data", "thing"]).1.as_array().unwrap().len(), 10);
    let (code, _, stderr) = nacre(running.0.path(), &["object", "omap", "get", "data", "thing", "key-10"]);
    assert_eq!((code, stderr.as_str()), (Some(1), "error: object thing has no key key-10\n"));
    // nothing is made by removing from it
    assert_eq!(nacre(running.0.path(), &["object", "omap", "rm", "data", "nothing", "key"]).0, Some(1));
    assert_eq!(nacre(running.0.path(), &["object", "stat", "data", "nothing"]).0, Some(1));
    // a large object comes back whole, and shows up in the pool's usage
    let large: Vec<u8> = (0..9_500_000u32).map(|at| (at >> 5) as u8).collect();
    running.put("large", &large);
    assert!(running.get("large") == large);
    good(&["pool", "set", "data", "quota_bytes", "19000000B"]);
    eventually("the pool's usage is reported", || {
        let pool = running.json(&["pool", "ls"]).1[0].clone();
        pool["objects"] == 2 && pool["bytes"].as_u64() >= Some(9_500_000)
    });
    let pool = running.json(&["pool", "ls"]).1[0].clone();
    assert_eq!(pool["raw_bytes"].as_u64().unwrap(), pool["bytes"].as_u64().unwrap() * 3);
    assert!((49.0..51.0).contains(&pool["used_percent"].as_f64().unwrap()), "{pool}");
    assert!(good(&["pool", "ls"]).contains("50.0 %"));
    // and live
    let top = std::thread::scope(|scope| {
        let top = scope.spawn(|| running.json(&["top", "--once", "--interval", "1"]).1);
        while !top.is_finished() {
            running.put("again", b"and again");
        }
        top.join().unwrap()
    });
    assert!(top["writes"]["ops_s"].as_f64().unwrap() > 0.0 && top["writes"]["p99_us"].as_u64().unwrap() > 0, "{top}");
    assert_eq!((top["osds"].as_array().unwrap().len(), &top["pg_states"]["active+clean"]), (3, &Value::from(8)));
    assert!(good(&["top", "--once", "--interval", "1"]).contains("osd.2"));
}

#[test]
fn the_disk_of_an_osd_is_exchanged_and_its_number_stays() {
    let running = Running::new(7);
    let (folder, good) = (running.0.path(), |args: &[&str]| running.good(args));
    running.wait_until_clean();
    let content = |n: u8| vec![n; 30_000];
    (0..20).for_each(|n| running.put(&format!("object-{n}"), &content(n)));
    // given a cluster that is well
    // What is used comes with the reports of OSDs, a moment later.
    let began = Instant::now();
    while !good(&["osd", "df"]).contains("[#") {
        assert!(began.elapsed() < Duration::from_secs(30), "{}", good(&["osd", "df"]));
    }
    let before = running.df(1);
    assert_eq!(
        (before["pgs"].as_u64(), before["up"].as_bool(), before["destroyed"].as_bool()),
        (Some(8), Some(true), Some(false))
    );
    let primaries: u64 = (0..3).map(|osd| running.df(osd)["primaries"].as_u64().unwrap()).sum();
    assert_eq!(primaries, 8);
    let (code, doctor) = running.json(&["doctor"]);
    assert_eq!((code, doctor["well"].as_bool()), (Some(0), Some(true)), "{doctor}");
    // then one OSD can stop, two cannot, and none can be destroyed or drained
    let (code, answer) = running.json(&["osd", "ok-to-stop", "1"]);
    assert_eq!((code, answer["ok"].as_bool()), (Some(0), Some(true)), "{answer}");
    let (code, answer) = running.json(&["osd", "ok-to-stop", "0", "1"]);
    assert_eq!((code, answer["ok"].as_bool(), pgs(&answer)), (Some(1), Some(false), 8), "{answer}");
    let (code, answer) = running.json(&["osd", "safe-to-destroy", "1"]);
    assert_eq!((code, pgs(&answer)), (Some(1), 8), "{answer}");
    let (code, stdout, _) = nacre(folder, &["osd", "drain", "1"]);
    assert!(code == Some(1) && stdout.contains("would stay short of copies"), "{stdout}");
    assert_eq!(running.df(1)["in"], true);
    let (_, _, stderr) = nacre(folder, &["osd", "ok-to-stop", "9"]);
    assert_eq!(stderr, "error: there is no OSD osd.9; `nacre osd tree` lists them\n");
    let (code, _, stderr) = nacre(folder, &["osd", "replace", "1"]);
    assert!(code == Some(1) && stderr.contains("nacre down osd.1"), "{stderr}");
    // when it is stopped
    good(&["down", "osd.1"]);
    let (code, answer) = running.json(&["osd", "ok-to-stop", "2"]);
    assert_eq!((code, pgs(&answer)), (Some(1), 8), "{answer}");
    let (code, doctor) = running.json(&["doctor"]);
    assert_eq!(code, Some(1));
    let told = doctor.to_string();
    assert!(
        told.contains("osd.1 is stopped") && told.contains("nacre restart osd.1") && told.contains("osd_down"),
        "{told}"
    );
    // and given up to be replaced
    good(&["osd", "replace", "1", "--no-wait"]);
    let gone = running.df(1);
    assert_eq!((gone["destroyed"].as_bool(), &gone["weight"]), (Some(true), &before["weight"]));
    // then its old disk is not let in
    good(&["restart", "osd.1"]);
    let log = folder.join("var/pearl/log/osd.1.log");
    eventually("the old disk is refused", || std::fs::read_to_string(&log).unwrap().contains("this is its old disk"));
    good(&["down", "osd.1"]);
    assert_eq!(running.df(1)["destroyed"], true);
    // and a new one takes its number and is filled
    std::fs::remove_dir_all(folder.join("var/pearl/osd.1/store")).unwrap();
    good(&["restart", "osd.1"]);
    eventually("the new disk is up", || running.df(1)["up"] == true);
    running.wait_until_clean();
    let after = running.df(1);
    assert_eq!(
        (after["destroyed"].as_bool(), &after["weight"], after["pgs"].as_u64()),
        (Some(false), &before["weight"], Some(8))
    );
    // so that the others are not needed any more
    good(&["down", "osd.0"]);
    (0..20).for_each(|n| assert_eq!(running.get(&format!("object-{n}")), content(n)));
    // and the cluster is started whole
    good(&["up"]);
    eventually("the OSD that was stopped is up", || running.df(0)["up"] == true);
}

#[test]
fn damage_on_a_disk_is_mended_from_the_others_and_the_disk_is_named() {
    let running = Running::new(37);
    running.wait_until_clean();
    // given an object, and one wrong bit of it on the disk of one OSD
    let content: Vec<u8> = (0..200_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    running.put("stone", &content);
    running.good(&["restart", "osd.1"]);
    running.wait_until_clean();
    let block = running.0.path().join("var/pearl/osd.1/store/block");
    let held = std::fs::read(&block).unwrap();
    let piece = &content[400_000..400_512];
    let at = held.windows(piece.len()).position(|window| window == piece).expect("all OSDs hold all");
    let file = std::fs::File::options().write(true).open(&block).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[held[at] ^ 4], at as u64).unwrap();
    file.sync_all().unwrap();
    // when its copies are compared
    let (_, rows) = running.json(&["pg", "ls"]);
    let row = rows.as_array().unwrap().iter().find(|row| row["objects"] == 1).unwrap();
    let pg = row["pg"].as_str().unwrap();
    running.good(&["pg", "scrub", pg, "--deep"]);
    // then operators hear whose disk it is, and what to do
    let raised = || {
        let (_, health) = running.json(&["health"]);
        let checks = health["checks"].as_array().unwrap().clone();
        checks.into_iter().find(|check| check["name"] == "osd_disk_errors").unwrap_or_default()
    };
    eventually("the disk is named", || raised().to_string().contains("osd.1 on "));
    assert!(raised().to_string().contains("nacre osd replace"), "{}", raised());
    // and every copy is whole again: the others can go
    running.wait_until_clean();
    assert!(running.get("stone") == content);
    eventually("the copy is mended", || {
        running.good(&["restart", "osd.1"]);
        let held = std::fs::read(&block).unwrap();
        held.windows(piece.len()).any(|window| window == piece)
    });
}

#[test]
fn a_skewed_cluster_is_balanced_and_left_alone_and_an_osd_is_drained() {
    let running = Running::of(8, 4, "[[osds]]\n[[osds]]\n[[osds]]\n[[osds]]\n");
    let good = |args: &[&str]| running.good(args);
    // given a pool whose pgs lie unevenly
    good(&["config", "set", "balancer.mode", "off"]);
    good(&["pool", "create", "skewed", "--pg-num", "64", "--application", "test"]);
    running.wait_until_clean();
    (0..40u8).for_each(|n| running.put(&format!("object-{n}"), &vec![n; 100_000]));
    let counts = || -> Vec<u64> { (0..4).map(|osd| running.df(osd)["pgs"].as_u64().unwrap()).collect() };
    let status = || running.json(&["balancer", "status"]).1;
    assert_eq!(status()["balancer"], "off");
    assert!(status()["deviation"].as_f64().unwrap() > 1.0, "{}", status());
    // when it is asked what it would do, it does nothing
    let dry = running.json(&["balancer", "run", "--dry-run"]).1;
    assert!(dry["moved"]["copies"].as_u64().unwrap() > 0 && !dry["moves"].as_array().unwrap().is_empty(), "{dry}");
    assert_eq!(status()["moves"], dry["moves"]);
    // and when it is switched on, it moves pgs until there is nothing to gain
    good(&["config", "set", "balancer.mode", "on"]);
    let rests = |status: &Value| status["next"].is_null() && status["waits"].is_null();
    eventually("the balancer has nothing more to do", || rests(&status()));
    assert!(status()["deviation"].as_f64().unwrap() <= 1.0, "{}", status());
    // 8 and 64 pgs of three copies are 54 for each
    assert!(counts().iter().all(|count| (52..=56).contains(count)), "{:?}", counts());
    assert!(good(&["log", "-n", "200"]).contains("hold less than their share"));
    assert!(good(&["balancer", "status"]).contains("nothing to gain"));
    // when an OSD is drained, its data is elsewhere and it can go
    let (code, drained) = running.json(&["osd", "drain", "3"]);
    assert_eq!(
        (code, drained["drained"].as_bool(), drained["copies_left"].as_u64()),
        (Some(0), Some(true), Some(0)),
        "{drained}"
    );
    let (code, answer) = running.json(&["osd", "safe-to-destroy", "3"]);
    assert_eq!((code, answer["ok"].as_bool()), (Some(0), Some(true)), "{answer}");
    good(&["down", "osd.3"]);
    good(&["osd", "rm", "3"]);
    (0..40u8).for_each(|n| assert_eq!(running.get(&format!("object-{n}")), vec![n; 100_000]));
}
