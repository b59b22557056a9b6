//! Object maps as operators meet them: what they save, what they say after a kill, when they are damaged, and made anew.

use std::time::{Duration, Instant};

use super::block::refused;
use super::tools::{Server, Started, run};
use super::{Running, nacre};

/// What a check of an object map says, of each snapshot and of the image last.
fn checked(running: &Running, image: &str) -> Vec<serde_json::Value> {
    serde_json::from_str(&running.good(&["block", "object-map", "check", image, "--json"])).unwrap()
}

#[test]
fn what_goes_over_a_huge_image_looks_at_those_objects_alone_that_it_has() {
    let running = Running::new(42);
    let good = |args: &[&str]| running.good(args);
    // given an image of 67 million objects, of which two exist: a look at each would take hours
    good(&["block", "create", "data/huge", "--size", "256TiB"]);
    let server = Server::start(&running, "nbd.sock", &[]);
    run("qemu-io", &["-f", "raw", "-c", "write -P 1 100T 64k", &server.uri("huge")]);
    good(&["block", "snap", "create", "data/huge@one"]);
    run("qemu-io", &["-f", "raw", "-c", "write -P 2 200T 64k", "-c", "discard 150T 1G", &server.uri("huge")]);
    drop(server);
    // The server was killed: nobody could say that it holds still.
    good(&["block", "fence", "data/huge"]);
    // then all verbs come to an end
    let used = || -> u64 {
        let du: serde_json::Value = serde_json::from_str(&good(&["block", "du", "data/huge", "--json"])).unwrap();
        du[0]["used"].as_u64().unwrap()
    };
    assert_eq!(used(), 2 * 65536);
    good(&["block", "export", "data/huge", "whole"]);
    good(&["block", "snap", "create", "data/huge@two"]);
    good(&["block", "export", "data/huge@two", "more", "--from", "one"]);
    for (file, least) in [("whole", 2 * 65536), ("more", 65536)] {
        let len = std::fs::metadata(running.0.path().join(file)).unwrap().len();
        assert!((least..least + 8192).contains(&len), "{file}: {len}");
    }
    good(&["block", "snap", "rollback", "data/huge@one"]);
    assert_eq!(used(), 65536);
    let error = refused(&running, &["block", "resize", "data/huge", "--size", "50TiB"]);
    assert!(error.contains("holds data past"), "{error}");
    good(&["block", "resize", "data/huge", "--size", "50TiB", "--lose-data"]);
    assert_eq!(used(), 0);
    good(&["block", "snap", "purge", "data/huge"]);
    good(&["block", "rm", "data/huge"]);
    let left = good(&["object", "ls", "data"]);
    assert!(left.lines().all(|name| name == "block.directory" || name == "block.trash"), "{left}");
}

#[test]
fn an_object_map_misses_nothing_after_its_writer_was_killed_and_is_made_anew() {
    let running = Running::new(43);
    let good = |args: &[&str]| running.good(args);
    good(&["pool", "create", "apart", "--pg-num", "8"]);
    let create = ["block", "create", "data/a", "--size", "16MiB", "--object-size", "16KiB", "--data-pool", "apart"];
    good(&[&create[..], &["--stripe-unit", "4KiB", "--stripe-count", "4"]].concat());
    for round in 0..4 {
        let snap = format!("data/a@s{round}");
        let log = running.0.path().join("block.log");
        let mut writer = Started::nacre(
            running.0.path(),
            &["block", "bench", "data/a", "write", "--seconds", "600", "--depth", "16", "--block", "4KiB"],
        );
        // In the middle of it, when it has written.
        let before = checked(&running, "data/a").pop().unwrap()["objects"].as_u64().unwrap();
        let began = Instant::now();
        loop {
            let objects = checked(&running, "data/a").pop().unwrap()["objects"].as_u64().unwrap();
            if objects > before || objects == 1024 {
                break;
            }
            let said = std::fs::read_to_string(&log).unwrap();
            assert!(began.elapsed() < Duration::from_secs(60), "the writer does not write: {said}");
        }
        if round % 2 == 0 {
            good(&["block", "snap", "create", &snap]);
        }
        writer.0.kill().unwrap();
        writer.0.wait().unwrap();
        let found = checked(&running, "data/a");
        assert_eq!(found.len() as u64, 2 + round / 2, "{found:?}");
        assert!(found.iter().all(|one| one["asked"] == true && one["missed"] == 0), "{found:?}");
    }
    // Who comes next finds it as it is, and what is discarded is out of it at once.
    let server = Server::start(&running, "nbd.sock", &[]);
    run("qemu-io", &["-f", "raw", "-c", "discard 0 16M", "-c", "write -P 7 1M 4k", &server.uri("a")]);
    drop(server);
    let head = checked(&running, "data/a").pop().unwrap();
    assert_eq!((&head["objects"], &head["maybe"]), (&1.into(), &0.into()), "{head}");
    // Without a map all goes on; made anew, it is as good as before, but not for what was there before it.
    good(&["block", "object-map", "rm", "data/a"]);
    assert!(checked(&running, "data/a").iter().all(|one| one["used"] == false));
    good(&["block", "object-map", "rebuild", "data/a"]);
    good(&["block", "snap", "create", "data/a@new"]);
    let asked: Vec<bool> = checked(&running, "data/a").iter().map(|one| one["asked"] == true).collect();
    assert_eq!(asked, [false, false, true, true]);
    // An entry that is no entry is taken for "maybe", one that says nothing of an object for what it is: wrong.
    let list = good(&["object", "ls", "apart"]);
    let map = list.lines().find(|name| name.starts_with("block.map.")).unwrap();
    let len = 1024 * 8;
    let file = running.0.path().join("map");
    for (byte, missed) in [(0xa5, 0), (0, 1)] {
        std::fs::write(&file, vec![byte; len]).unwrap();
        good(&["object", "put", "apart", map, "map"]);
        let (code, stdout, _) = nacre(running.0.path(), &["block", "object-map", "check", "data/a", "--json"]);
        let found: Vec<serde_json::Value> = serde_json::from_str(&stdout).unwrap();
        assert_eq!(found.last().unwrap()["missed"], missed, "{found:?}");
        assert_eq!(code, Some(i32::from(missed > 0)));
    }
    // From then on it is not asked, until it is made anew.
    assert_eq!(checked(&running, "data/a").last().unwrap()["asked"], false);
    good(&["block", "object-map", "rebuild", "data/a"]);
    let head = checked(&running, "data/a").pop().unwrap();
    assert_eq!((&head["asked"], &head["objects"]), (&true.into(), &1.into()), "{head}");
    let error = refused(&running, &["block", "create", "data/b", "--size", "1MiB", "--data-pool", "none"]);
    assert!(error.contains("none"), "{error}");
    let odd = ["block", "create", "data/b", "--size", "1MiB", "--stripe-unit", "3KiB", "--stripe-count", "4"];
    assert!(refused(&running, &odd).contains("divides"));
}
