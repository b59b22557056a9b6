//! Real monitors on a real network that is cut: each in a network namespace of its own, on one bridge.
//!
//! Needs root and `ip`. Where namespaces cannot be made, the test says so in its output and shows nothing.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::cluster::{nacre_bin, report, until};

/// Namespaces of one test: `PREFIX-b` with the bridge and the operator, `PREFIX-0` to `-2` with a monitor each.
struct Network {
    prefix: String,
}

fn ip(args: &str) -> Result<(), String> {
    let output = Command::new("ip").args(args.split(' ')).output().map_err(|error| format!("ip: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(format!("ip {args}: {text}")) }
}

/// Takes away what a test left behind that was killed before it could.
fn sweep() {
    let listed = Command::new("ip").args(["netns", "list"]).output().map(|output| output.stdout).unwrap_or_default();
    for name in String::from_utf8_lossy(&listed).lines().filter_map(|line| line.split(' ').next()) {
        let pid = name.strip_prefix("nacre").and_then(|rest| rest.split_once('-')).map(|(pid, _)| pid);
        if pid.is_some_and(|pid| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists()) {
            let _ = ip(&format!("netns del {name}"));
        }
    }
}

impl Network {
    fn new() -> Result<Network, String> {
        sweep();
        let network = Network { prefix: format!("nacre{}", std::process::id()) };
        let base = network.space("b");
        ip(&format!("netns add {base}"))?;
        ip(&format!("-n {base} link set lo up"))?;
        ip(&format!("-n {base} link add name sw0 type bridge"))?;
        ip(&format!("-n {base} addr add 10.77.0.100/24 dev sw0"))?;
        ip(&format!("-n {base} link set sw0 up"))?;
        for mon in 0..3 {
            let own = network.space(mon);
            ip(&format!("netns add {own}"))?;
            ip(&format!("-n {own} link set lo up"))?;
            ip(&format!("-n {base} link add name v{mon} type veth peer name eth0 netns {own}"))?;
            ip(&format!("-n {base} link set v{mon} master sw0"))?;
            ip(&format!("-n {base} link set v{mon} up"))?;
            ip(&format!("-n {own} addr add 10.77.0.{}/24 dev eth0", mon + 1))?;
            ip(&format!("-n {own} link set eth0 up"))?;
        }
        Ok(network)
    }

    fn space(&self, of: impl std::fmt::Display) -> String {
        format!("{}-{of}", self.prefix)
    }

    /// A command inside a namespace.
    fn inside(&self, of: impl std::fmt::Display) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.space(of)]).arg(nacre_bin());
        command
    }

    fn cable(&self, mon: u64, state: &str) {
        ip(&format!("-n {} link set v{mon} {state}", self.space("b"))).unwrap();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for of in ["b", "0", "1", "2"] {
            let _ = ip(&format!("netns del {}", self.space(of)));
        }
    }
}

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
    let network = match Network::new() {
        Ok(network) => network,
        Err(why) => {
            report(&format!("NOT RUN: partition by network namespaces: {why}"));
            return;
        }
    };
    let folder = TempDir::new().unwrap();
    let text = "name = \"pearl\"\naddress = \"10.77.0.1\"\nosds = 0\nmds = 0\ns3 = 0\n";
    let hosts: String = (0..3)
        .map(|mon| format!("[[hosts]]\nname = \"box{mon}\"\naddress = \"10.77.0.{}\"\n", mon + 1))
        .chain((0..3).map(|mon| format!("[[monitors]]\nid = {mon}\nhost = \"box{mon}\"\nport = 6100\n")))
        .collect();
    std::fs::write(folder.path().join("cluster.toml"), text.to_owned() + &hosts).unwrap();
    let run = |of: &str, args: &[&str]| {
        let output = network.inside(of).args(args).current_dir(folder.path()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout), text(&output.stderr))
    };
    // Keys and the first quorum are made where all three addresses are at home.
    let base = network.space("b");
    for mon in 1..=3 {
        ip(&format!("-n {base} addr add 10.77.0.{mon}/32 dev lo")).unwrap();
    }
    let (good, stdout, stderr) = run("b", &["up"]);
    assert!(good, "{stdout}{stderr}");
    assert!(run("b", &["down"]).0);
    for mon in 1..=3 {
        ip(&format!("-n {base} addr del 10.77.0.{mon}/32 dev lo")).unwrap();
    }
    let data = folder.path().join("var/pearl");
    let monitors = (0..3).map(|mon| {
        let log = File::options().append(true).create(true).open(data.join(format!("log/mon.{mon}.log"))).unwrap();
        network
            .inside(mon)
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
    let leader: u64 = quorum["leader"].as_str().unwrap().strip_prefix("mon.").unwrap().parse().unwrap();
    network.cable(leader, "down");
    // then the others go on under another leader, and it refuses
    until("the others go on", Duration::from_secs(60), || set("b", "77").0);
    let now: serde_json::Value = serde_json::from_str(&run("b", &["mon", "quorum", "--json"]).1).unwrap();
    assert_ne!(now["leader"], quorum["leader"]);
    let (done, stdout, stderr) = set(&leader.to_string(), "66");
    assert!(!done, "a minority took a write: {stdout}");
    assert!(stderr.contains("majority") || stderr.contains("too few monitors"), "{stderr}");

    // and when it is plugged in again, all three hold the same
    network.cable(leader, "up");
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
