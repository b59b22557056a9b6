//! Real monitors on a real network that is cut: each in a network namespace of its own, on one bridge.
//!
//! Needs root and `ip`. Where namespaces cannot be made, the test says so in its output and shows nothing.

use std::fs::File;
use std::process::{Child, Stdio};
use std::time::Duration;

use nacre_tests::netns::{Network, ip};
use tempfile::TempDir;

use crate::cluster::{nacre_bin, report, until};

/// Monitors that end with the test, however it ends.
struct Monitors(Vec<Child>);

impl Drop for Monitors {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn a_leader_cut_off_by_the_network_refuses_writes_and_comes_back_equal() {
    let network = match Network::new(3) {
        Ok(network) => network,
        Err(why) => {
            report(&format!("NOT RUN: partition by network namespaces: {why}"));
            return;
        }
    };
    let folder = TempDir::new().unwrap();
    let text = format!("name = \"pearl\"\naddress = \"{}\"\nosds = 0\nmds = 0\ns3 = 0\n", network.address(0));
    let hosts: String = (0..3)
        .map(|mon| format!("[[hosts]]\nname = \"box{mon}\"\naddress = \"{}\"\n", network.address(mon)))
        .chain((0..3).map(|mon| format!("[[monitors]]\nid = {mon}\nhost = \"box{mon}\"\nport = 6100\n")))
        .collect();
    std::fs::write(folder.path().join("cluster.toml"), text + &hosts).unwrap();
    let run = |of: &str, args: &[&str]| {
        let output = network.inside(of, &nacre_bin()).args(args).current_dir(folder.path()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout), text(&output.stderr))
    };
    // Keys and the first quorum are made where all three addresses are at home.
    let base = network.space("b");
    for mon in 0..3 {
        ip(&format!("-n {base} addr add {}/32 dev lo", network.address(mon))).unwrap();
    }
    let (good, stdout, stderr) = run("b", &["up"]);
    assert!(good, "{stdout}{stderr}");
    assert!(run("b", &["down"]).0);
    for mon in 0..3 {
        ip(&format!("-n {base} addr del {}/32 dev lo", network.address(mon))).unwrap();
    }
    let data = folder.path().join("var/pearl");
    let monitors = (0..3).map(|mon| {
        let log = File::options().append(true).create(true).open(data.join(format!("log/mon.{mon}.log"))).unwrap();
        network
            .inside(mon, &nacre_bin())
            .args(["mon", "run", "--until-stdin-ends", "--id", &mon.to_string(), "--config"])
            .arg(data.join(format!("mon.{mon}/mon.toml")))
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    });
    let _monitors = Monitors(monitors.collect());
    let set = |of: &str, value: &str| run(of, &["config", "set", "mon.pg.per_osd_target", value]);
    until("the monitors have a quorum", Duration::from_secs(60), || set("b", "70").0);

    // when the leader's cable is pulled
    let quorum: serde_json::Value = serde_json::from_str(&run("b", &["mon", "quorum", "--json"]).1).unwrap();
    let leader: u32 = quorum["leader"].as_str().unwrap().strip_prefix("mon.").unwrap().parse().unwrap();
    network.cable(leader, false);
    // then the others go on under another leader, and it refuses
    until("the others go on", Duration::from_secs(60), || set("b", "77").0);
    let now: serde_json::Value = serde_json::from_str(&run("b", &["mon", "quorum", "--json"]).1).unwrap();
    assert_ne!(now["leader"], quorum["leader"]);
    let (done, stdout, stderr) = set(&leader.to_string(), "66");
    assert!(!done, "a minority took a write: {stdout}");
    assert!(stderr.contains("majority") || stderr.contains("too few monitors"), "{stderr}");

    // and when it is plugged in again, all three hold the same
    network.cable(leader, true);
    until("all three are equal", Duration::from_secs(60), || {
        let seen: serde_json::Value = serde_json::from_str(&run("b", &["mon", "status", "--json"]).1).unwrap();
        let seen = seen.as_array().unwrap();
        let first = &seen[0];
        seen.iter().all(|one| {
            one["epoch"].is_u64()
                && one["epoch"] == first["epoch"]
                && one["term"] == first["term"]
                && one["applied"] == first["applied"]
        })
    });
    for of in ["0", "1", "2"] {
        assert!(run(of, &["config", "get", "mon.pg.per_osd_target"]).1.contains("77"));
    }
}
