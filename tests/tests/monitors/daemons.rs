//! What every daemon has around its work, on a real monitor: a fourth one that joins by token, is asked through its
//! admin socket and over HTTP, tells systemd, logs as JSON, and ends in good order.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nacre_mon_api::MonClient;
use nacre_net::tls::files;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::cluster::{Cluster, nacre_bin, until};

/// Killed when the test ends before it.
struct Spawned(Child);

impl Drop for Spawned {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn http(address: &str, path: &str) -> String {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_fourth_monitor_joins_and_behaves_as_a_daemon() {
    let cluster = Cluster::up();
    until("the monitors hold the authority", Duration::from_secs(20), || {
        cluster.nacre(&["cert", "list"]).contains("mon.2")
    });
    let home = cluster.folder.path().join("mon.3");
    std::fs::create_dir(&home).unwrap();
    let monitors: Vec<String> = (0..3).map(|mon| format!("{}:{}", cluster.address, cluster.port + mon)).collect();
    let free = TcpListener::bind((cluster.address.as_str(), 0)).unwrap().local_addr().unwrap().to_string();
    let listen = format!("{}:{}", cluster.address, cluster.port + 3);
    let config = home.join("mon.toml");
    let text = format!(
        "[mon]\nlisten = \"{listen}\"\ndata = {home:?}\nmonitors = \"{}\"\nno_such_thing = 1\n\n[all]\nrun_dir = {:?}\nlog_format = \"json\"\nmetrics_listen = \"{free}\"\n",
        monitors.join(","),
        home.join("run"),
    );
    std::fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();

    // Settings in layers, without starting anything.
    let run = ["mon", "run", "--id", "3", "--config", config];
    let shown = cluster.nacre(&[&run[..], &["--set", "log_level=debug", "--show-config", "--json"]].concat());
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&shown["log_level"]["value"], &shown["log_format"]["value"]), (&"debug".into(), &"json".into()));
    assert_eq!(shown["listen"]["value"], listen.as_str());
    let sources: Vec<_> =
        ["log_level", "log_format", "shutdown_patience"].map(|name| shown[name]["source"].to_string()).into();
    assert!(sources[0] != sources[1] && sources[1] != sources[2], "{sources:?}");

    // Without an identity it says what to do; with a token it gets one.
    let (good, _, err) = cluster.try_nacre(&run);
    assert!(!good && err.contains("holds no identity"), "{err}");
    let token = cluster.nacre(&["cert", "token", "mon.3"]);
    let (tls, list) = (home.join("tls"), monitors.join(","));
    cluster.nacre(&["join", "mon.3", "--folder", tls.to_str().unwrap(), "--monitors", &list, "--token", token.trim()]);

    let systemd = UnixDatagram::bind(home.join("notify")).unwrap();
    systemd.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let told = |what: &str| {
        let mut buffer = [0; 4096];
        loop {
            let length =
                systemd.recv(&mut buffer).unwrap_or_else(|error| panic!("systemd was not told {what}: {error}"));
            if String::from_utf8_lossy(&buffer[..length]).lines().any(|line| line == what) {
                return;
            }
        }
    };
    let log = home.join("log");
    let child = Command::new(nacre_bin())
        .args(run)
        .env("NOTIFY_SOCKET", home.join("notify"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let mut child = Spawned(child);
    told("READY=1");
    until("four monitors vote", Duration::from_secs(30), || {
        cluster.status().members.iter().filter(|member| member.voter).count() == 4
    });
    until("it was given the seal key", Duration::from_secs(20), || home.join("seal.key").exists());
    let key = |folder: &Path| std::fs::read(folder.join("seal.key")).unwrap();
    assert_eq!(key(&home), key(&cluster.data().join("mon.0")));

    // The admin socket.
    let run_dir = home.join("run");
    let ask = |words: &[&str]| {
        let args = [&["daemon", "mon.3", "--json", "--run-dir", run_dir.to_str().unwrap()], words].concat();
        let (good, out, err) = cluster.try_nacre(&args);
        assert!(good, "{words:?}: {out}{err}");
        serde_json::from_str::<Value>(&out).unwrap_or(Value::Null)
    };
    assert_eq!(ask(&["version"])["pid"], child.0.id());
    assert_eq!(ask(&["config", "show"])["log_level"]["value"], "info");
    ask(&["config", "set", "shutdown_patience", "7s"]);
    assert_eq!(ask(&["config", "show"])["shutdown_patience"]["value"], "7s");
    ask(&["config", "unset", "shutdown_patience"]);
    assert_eq!(ask(&["config", "show"])["shutdown_patience"]["value"], "10s");
    let refused = ["daemon", "mon.3", "--run-dir", run_dir.to_str().unwrap(), "config", "set", "listen", "127.0.0.1:1"];
    let (good, _, err) = cluster.try_nacre(&refused);
    assert!(!good && err.contains("listen"), "a setting that needs a restart was set: {err}");
    let state = ask(&["dump", "state"]);
    assert_eq!((&state["mon"], &state["role"]), (&3.into(), &"follower".into()), "{state}");
    assert_eq!(ask(&["cert", "show"])["name"], "mon.3");
    assert!(ask(&["perf"]).as_object().unwrap().keys().any(|name| name.contains("process")));
    ask(&["log", "level", "debug"]);

    // Metrics over HTTP, on loopback.
    assert!(free.starts_with("127."));
    let metrics = http(&free, "/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200") && metrics.contains("# TYPE nacre_mon_"), "{metrics:.300}");
    assert!(http(&free, "/elsewhere").starts_with("HTTP/1.1 404"));

    // In good order.
    let pid = Pid::from_raw(i32::try_from(child.0.id()).unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    told("STOPPING=1");
    let ended = child.0.wait().unwrap();
    assert!(ended.success(), "{ended}");
    assert!(std::fs::read_dir(&run_dir).unwrap().next().is_none(), "socket or pid file is left");
    let text = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let said = |what: &str| lines.iter().any(|line| line.to_string().contains(what));
    assert!(said("unknown setting is ignored") && said("no_such_thing"), "{text:.500}");
    assert!(said("ready") && said("ended") && said("DEBUG"), "{text:.500}");

    // Out of the quorum, then out of the cluster: not the other way round.
    let (good, _, err) = cluster.try_nacre(&["cert", "revoke", "mon.3"]);
    assert!(!good && err.contains("remove it first"), "{err}");
    cluster.nacre(&["mon", "remove", "3"]);
    let audit = cluster.nacre(&["log", "--channel", "audit", "-n", "500"]);
    for line in ["mon.3: mon.3 at ", "client.admin: mon.3 is taken out of the quorum"] {
        assert!(audit.contains(line), "{line} is not in {audit}");
    }
    cluster.nacre(&["cert", "revoke", "mon.3"]);
    let pair = files::load(&tls).unwrap().unwrap();
    assert!(!pair.pair.certificate.is_empty());
    let thief = {
        let _inside = cluster.runtime.enter();
        MonClient::new(&cluster.tls(&tls), [monitors[0].clone()], Duration::from_millis(500))
    };
    until("its certificate is believed no more", Duration::from_secs(20), || {
        cluster.runtime.block_on(thief.status(true)).is_err()
    });
}
