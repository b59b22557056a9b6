//! Who belongs to a real cluster: joining by token and by approval, being denied, renewed and revoked.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nacre_client::Settings;
use nacre_mon_api::{MonClient, v1};
use nacre_net::identity::{Identity, Name, UnixTime};
use nacre_net::tls::files;
use serde_json::Value;

use crate::cluster::{Cluster, nacre_bin, until};

const SOON: Duration = Duration::from_secs(20);

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn identity(folder: &Path) -> Identity {
    Identity::from_der(&files::load(folder).unwrap().unwrap().pair.certificate).unwrap()
}

impl Cluster {
    fn monitors(&self) -> String {
        (0..3).map(|mon| format!("{}:{}", self.address, self.port + mon)).collect::<Vec<_>>().join(",")
    }

    /// `nacre join` from a fresh folder; gives the exit code's verdict, the JSON (if any) and what was complained.
    fn join(&self, name: &str, how: &[&str]) -> (bool, Value, String) {
        let (folder, monitors) = (self.newcomer(name), self.monitors());
        let mut args = vec!["join", name, "--folder", folder.to_str().unwrap(), "--monitors", &monitors, "--json"];
        args.extend(how);
        let (good, out, err) = self.try_nacre(&args);
        (good, serde_json::from_str(&out).unwrap_or(Value::Null), err)
    }

    fn newcomer(&self, name: &str) -> PathBuf {
        self.folder.path().join("newcomers").join(name).join("tls")
    }

    fn token(&self, args: &[&str]) -> String {
        let made = json(&self.nacre(&[&["cert", "token", "--json"], args].concat()));
        let file = self.folder.path().join("token");
        std::fs::write(&file, made["token"].as_str().unwrap()).unwrap();
        file.to_str().unwrap().to_owned()
    }

    fn listed(&self) -> Value {
        json(&self.nacre(&["cert", "list", "--json"]))
    }

    fn member(&self, name: &str) -> Option<Value> {
        self.listed()["members"].as_array().unwrap().iter().find(|member| member["name"] == name).cloned()
    }

    /// A handle on the monitors as a newcomer that got in.
    fn client_as(&self, name: &str, patience: Duration) -> MonClient {
        let _inside = self.runtime.enter();
        MonClient::new(&self.tls(&self.newcomer(name)), self.monitors().split(',').map(str::to_owned), patience)
    }

    fn audit_says(&self, what: &str) {
        until(&format!("the audit says {what:?}"), SOON, || {
            self.nacre(&["log", "--channel", "audit", "-n", "500"]).contains(what)
        });
    }
}

#[test]
fn newcomers_join_by_token_or_approval_and_leave_by_revocation() {
    let cluster = Cluster::up();
    until("the monitors hold the authority", SOON, || cluster.member("mon.2").is_some());
    let print = cluster.listed()["authority"].as_str().unwrap().to_owned();
    for mon in 0..3 {
        let birth = cluster.data().join(format!("mon.{mon}/birth"));
        until("the birth is over", SOON, || !birth.exists());
    }
    assert!(!cluster.data().join("authority").exists(), "no key of the authority lies about");

    // By token: at once, once, for its name only.
    let token = cluster.token(&["osd.7"]);
    let (good, _, err) = cluster.join("osd.8", &["--token-file", &token]);
    assert!(!good && err.contains("the join token is for osd.7"), "{err}");
    let (good, joined, err) = cluster.join("osd.7", &["--token-file", &token]);
    assert!(good, "{err}");
    assert_eq!((&joined["state"], &joined["caps"]), (&"joined".into(), &"mon rw; osd *".into()));
    assert_eq!(identity(&cluster.newcomer("osd.7")).name.to_string(), "osd.7");
    let (good, _, err) = cluster.join("osd.7", &["--token-file", &token]);
    assert!(!good && err.contains("the join token is not valid"), "{err}");
    cluster.audit_says("osd.7 joined with token");
    cluster.audit_says("may not join");
    // What is granted is least: an OSD speaks for itself, and administers nothing.
    let osd = cluster.client_as("osd.7", Duration::from_secs(5));
    cluster.runtime.block_on(async {
        assert!(osd.status(false).await.is_ok());
        let denied = osd.backup().await.unwrap_err();
        assert_eq!(denied.code, nacre_proto::status::Code::Denied, "{denied}");
        let listed = osd.identities(|mut stub| async move { stub.list(v1::CertListRequest {}).await }).await;
        assert!(listed.is_err(), "an OSD lists identities");
    });

    // A newcomer that is told of another cluster tells it nothing.
    let wrong = "0".repeat(64);
    let (good, _, err) = cluster.join("client.bob", &["--authority", &wrong, "--wait", "0"]);
    assert!(!good && err.contains("authority"), "{err}");

    // By approval, after an operator has looked.
    let ask = ["--authority", &print, "--caps", "mon r", "--wait", "0"];
    let (good, waits, err) = cluster.join("client.bob", &ask);
    assert!(!good, "{err}");
    assert_eq!(waits["state"], "waits", "{err}");
    let id = waits["request"].as_str().unwrap().to_owned();
    let (_, again, _) = cluster.join("client.bob", &ask);
    assert_eq!(again["request"], waits["request"], "asking twice is asking once");
    let shown = json(&cluster.nacre(&["cert", "show", &id, "--json"]));
    assert_eq!((&shown["name"], &shown["fingerprint"]), (&"client.bob".into(), &waits["fingerprint"]));
    cluster.nacre(&["cert", "approve", &id]);
    let (good, joined, err) = cluster.join("client.bob", &ask);
    assert!(good && joined["caps"] == "mon r", "{err}");

    // Denied, with a reason.
    let (_, waits, _) = cluster.join("client.eve", &ask);
    let id = waits["request"].as_str().unwrap().to_owned();
    cluster.nacre(&["cert", "deny", &id, "--why", "who are you?"]);
    let (good, _, err) = cluster.join("client.eve", &ask);
    assert!(!good && err.contains("who are you?"), "{err}");
    assert!(cluster.member("client.eve").is_none());

    // Revoked: also on the connection that stands, in the middle of a stream; what joins anew is believed again.
    let bob = cluster.client_as("client.bob", Duration::from_millis(500));
    cluster.runtime.block_on(async {
        let mut map = bob.subscribe(0).await.unwrap();
        map.message().await.unwrap();
        let revoked = tokio::task::spawn_blocking({
            let (folder, bin) = (cluster.folder.path().to_owned(), nacre_bin());
            move || {
                Command::new(bin)
                    .args(["cert", "revoke", "client.bob", "--why", "lost laptop"])
                    .current_dir(folder)
                    .status()
            }
        });
        assert!(revoked.await.unwrap().unwrap().success());
        let cut = async { while let Ok(Some(_)) = map.message().await {} };
        tokio::time::timeout(SOON, cut).await.expect("the stream of a revoked client ends");
        assert!(bob.status(true).await.is_err(), "a revoked client is heard");
    });
    assert_eq!(cluster.member("client.bob").unwrap()["state"], "revoked");
    cluster.audit_says("client.bob may not");
    cluster.audit_says("client.bob revoked: lost laptop");
    let token = cluster.token(&["client.bob", "--caps", "mon r"]);
    let (good, _, err) = cluster.join("client.bob", &["--token-file", &token]);
    assert!(good, "{err}");
    let bob = cluster.client_as("client.bob", Duration::from_secs(10));
    assert!(cluster.runtime.block_on(bob.status(false)).is_ok());

    // Fewer capabilities, at once.
    cluster.nacre(&["cert", "caps", "osd.7", "mon r", "--now"]);
    let osd = cluster.client_as("osd.7", Duration::from_millis(500));
    until("the old certificate is void", SOON, || cluster.runtime.block_on(osd.status(true)).is_err());
    let (good, _, err) = cluster.try_nacre(&["cert", "revoke", "client.admin"]);
    assert!(!good && err.contains("cannot revoke itself"), "{err}");

    // All of it is the monitors' state.
    let before = cluster.listed();
    cluster.nacre(&["down"]);
    cluster.nacre(&["up"]);
    until("the monitors answer", SOON, || cluster.try_nacre(&["cert", "list"]).0);
    let after = cluster.listed();
    assert_eq!((&after["members"], &after["requests"]), (&before["members"], &before["requests"]));
}

#[test]
fn a_client_that_lives_long_renews_its_certificate() {
    let cluster = Cluster::up();
    until("the monitors hold the authority", SOON, || cluster.member("mon.2").is_some());
    cluster.nacre(&["config", "set", "mon.cert_lifetime", "12s"]);
    let token = cluster.token(&["client.carol", "--caps", "mon r"]);
    let (good, _, err) = cluster.join("client.carol", &["--token-file", &token]);
    assert!(good, "{err}");
    let folder = cluster.newcomer("client.carol");
    let first = identity(&folder);
    assert!(first.not_after.since(first.not_before) < SOON);
    let monitors = cluster.monitors();
    let settings = Settings::of_folder(&folder, monitors.split(',').map(str::to_owned)).unwrap();
    let client = cluster.runtime.block_on(nacre_client::Cluster::connect(settings)).unwrap();
    // Before the first ends it has another, and goes on with it after.
    until("it is renewed", SOON, || identity(&folder).serial != first.serial);
    assert!(UnixTime::now() < first.not_after);
    until("the first has ended", SOON, || UnixTime::now() > first.not_after);
    cluster.nacre(&["config", "set", "mon.cert_lifetime", "1d"]);
    until("a long one is there", SOON, || {
        let now = identity(&folder);
        now.not_after.since(now.not_before) > Duration::from_secs(3600)
    });
    // It follows the map, as only a member may: a pool made now is known to it.
    cluster.nacre(&["config", "set", "mon.pg.per_osd_target", "77"]);
    let newest = cluster.status().epoch;
    until("the client sees the newest map", SOON, || client.epoch() >= newest);
}

#[test]
fn the_authority_is_replaced_while_the_cluster_runs() {
    let cluster = Cluster::up();
    until("the monitors hold the authority", SOON, || cluster.member("mon.2").is_some());
    let (old, stolen) = (cluster.listed()["authority"].clone(), cluster.authority());
    // A client that runs, and one that is away.
    for name in ["client.carol", "client.bob"] {
        let token = cluster.token(&[name, "--caps", "mon r"]);
        let (good, _, err) = cluster.join(name, &["--token-file", &token]);
        assert!(good, "{err}");
    }
    let monitors = cluster.monitors();
    let settings =
        || Settings::of_folder(&cluster.newcomer("client.carol"), monitors.split(',').map(str::to_owned)).unwrap();
    let carol = cluster.runtime.block_on(nacre_client::Cluster::connect(settings())).unwrap();

    // A thief who is in already, as an administrator that he made himself with the key he stole, and listens.
    let forged = |folder: &str| {
        let folder = cluster.folder.path().join(folder);
        let grant = nacre_net::identity::Grant {
            name: "client.admin".parse().unwrap(),
            caps: nacre_net::identity::Caps::all(),
            // He knows which editions are void by now, and makes a later one.
            generation: 1 << 40,
        };
        let pair = stolen.issue(&grant, UnixTime::now(), Duration::from_secs(3600)).unwrap();
        files::store(&folder, &pair, &files::load(&cluster.newcomer("client.carol")).unwrap().unwrap().authorities)
            .unwrap();
        let _inside = cluster.runtime.enter();
        MonClient::new(
            &cluster.tls(&folder),
            cluster.monitors().split(',').map(str::to_owned),
            Duration::from_millis(500),
        )
    };
    let inside = forged("inside");
    let mut listens = cluster.runtime.block_on(async {
        let mut map = inside.subscribe(0).await.unwrap();
        map.message().await.unwrap();
        map
    });

    // Whoever is away holds it up: nobody is locked out by chance.
    let (good, out, _) = cluster.try_nacre(&["cert", "rotate", "--wait", "20", "--json"]);
    let waits = json(&out);
    assert!(!good && waits["step"] == "waits", "{out}");
    assert_eq!(waits["waiting"], serde_json::json!(["client.bob"]), "{out}");
    assert_eq!(cluster.listed()["authority"], old, "the old one signs");
    let (good, _, err) =
        cluster.join("client.dora", &["--token-file", &cluster.token(&["client.dora", "--caps", "mon r"])]);
    assert!(good, "who joins meanwhile believes both: {err}");
    let believed = |folder: &Path| files::load(folder).unwrap().unwrap().authorities;
    assert_eq!(believed(&cluster.newcomer("client.dora")).len(), 2);

    // Dora and Bob renew, as clients do that run again; Bob is revoked instead.
    cluster.nacre(&["cert", "revoke", "client.bob"]);
    let dora = cluster.runtime.block_on(async {
        let folder = cluster.newcomer("client.dora");
        let settings = Settings::of_folder(&folder, monitors.split(',').map(str::to_owned)).unwrap();
        nacre_client::Cluster::connect(settings).await.unwrap()
    });
    let done = json(&cluster.nacre(&["cert", "rotate", "--wait", "60", "--json"]));
    assert_eq!(done["step"], "done", "{done}");
    let new = cluster.listed()["authority"].clone();
    assert_ne!(new, old);

    // All go on, with certificates of the new one alone.
    for mon in 0..3 {
        let folder = cluster.data().join(format!("mon.{mon}/tls"));
        until("a monitor believes the new one alone", SOON, || believed(&folder).len() == 1);
        assert_ne!(believed(&folder)[0], stolen.certificate());
    }
    until("a client believes the new one alone", SOON, || believed(&cluster.newcomer("client.carol")).len() == 1);
    cluster.nacre(&["config", "set", "mon.pg.per_osd_target", "77"]);
    let newest = cluster.status().epoch;
    until("clients see the newest map", SOON, || carol.epoch() >= newest && dora.epoch() >= newest);
    drop((carol, dora));

    // What the old one signed is worth nothing, not even in the name of an administrator: neither on a connection that
    // stands nor on a new one.
    cluster.runtime.block_on(async {
        let cut = async { while let Ok(Some(_)) = listens.message().await {} };
        tokio::time::timeout(SOON, cut).await.expect("the stream of a forged administrator ends");
        assert!(inside.status(true).await.is_err(), "a forged administrator is heard");
    });
    assert!(cluster.runtime.block_on(forged("late").status(true)).is_err(), "a forged administrator is heard");

    // It holds over a restart of everything, a new member, and a second time.
    cluster.nacre(&["down"]);
    cluster.nacre(&["up"]);
    until("the monitors answer", SOON, || cluster.try_nacre(&["cert", "list"]).0);
    assert_eq!(cluster.listed()["authority"], new);
    let (good, _, err) =
        cluster.join("client.emil", &["--token-file", &cluster.token(&["client.emil", "--caps", "mon r"])]);
    assert!(good, "{err}");
    let emil = cluster.client_as("client.emil", Duration::from_secs(10));
    assert!(cluster.runtime.block_on(emil.status(false)).is_ok());
    // Whoever goes on with one that is over (its last answer was lost) begins none.
    let admin = cluster.client(SOON);
    let over = v1::RotateRequest { going_on: true, ..Default::default() };
    let reply = cluster.runtime.block_on(admin.identities(|mut stub| async move { stub.rotate(over).await }));
    assert_eq!(reply.unwrap().step, "done");
    let all =
        cluster.runtime.block_on(admin.identities(|mut stub| async move { stub.list(v1::CertListRequest {}).await }));
    assert_eq!(all.unwrap().authorities.len(), 1);
    let (_, out, _) = cluster.try_nacre(&["cert", "rotate", "--wait", "0", "--json"]);
    assert_eq!(json(&out)["step"], "waits", "{out}");
    let dropped = json(&cluster.nacre(&["cert", "rotate", "--abandon", "--json"]));
    assert_eq!(dropped["step"], "abandoned");
    let (good, _, err) = cluster.try_nacre(&["cert", "rotate", "--abandon"]);
    assert!(!good && err.contains("nothing to abandon"), "{err}");
    cluster.audit_says("is abandoned before it signed");
    assert_eq!(cluster.listed()["authority"], new);
}

#[test]
fn monitors_renew_their_own_certificates_and_go_on() {
    let cluster = Cluster::up();
    until("the monitors hold the authority", SOON, || cluster.member("mon.2").is_some());
    cluster.nacre(&["config", "set", "mon.cert_lifetime", "12s"]);
    let folder = cluster.data().join("mon.1/tls");
    let born = identity(&folder);
    cluster.nacre(&["daemon", "mon.1", "cert", "renew"]);
    until("the certificate is renewed when told", SOON, || identity(&folder).serial != born.serial);
    let first = identity(&folder);
    assert!(first.not_after.since(first.not_before) < Duration::from_secs(20));
    until("and again by itself", Duration::from_secs(30), || identity(&folder).serial != first.serial);
    cluster.nacre(&["config", "set", "mon.cert_lifetime", "1d"]);
    // Connections that were made with a certificate that has ended are made anew.
    until("the first one has ended", Duration::from_secs(30), || UnixTime::now() > first.not_after);
    until("a long one is there", Duration::from_secs(30), || {
        let now = identity(&folder);
        now.not_after.since(now.not_before) > Duration::from_secs(3600)
    });
    let only = cluster.only(1, Duration::from_secs(10));
    until("mon.1 answers for the quorum", SOON, || cluster.runtime.block_on(only.status(false)).is_ok());
    let member = cluster.member("mon.1").unwrap();
    let serial = identity(&folder).serial.to_string();
    assert!(member["certificates"].as_array().unwrap().iter().any(|known| *known == *serial), "{member} {serial}");
    let name: Name = "mon.1".parse().unwrap();
    assert_eq!(identity(&folder).name, name);
}
