//! Images over NBD under load, while what is under them dies; and over TLS, on an address.

use std::process::Command;
use std::time::{Duration, Instant};

use super::tools::{Server, Started, moment, run};
use super::{Running, nacre};

const MIB: u64 = 1 << 20;

/// What dies under fio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Osd,
    Monitor,
}

/// fio trims ranges of any size at random, writes them, and verifies them as it goes on, while daemons are killed one by
/// one. Twelve seconds, or as many as NACRE_BLOCK_SECONDS says: from a minute on, one is killed every 15 s.
fn fio_while_daemons_die(running: &Running, victim: Victim, more: &[&str]) {
    running.good(&["block", "create", "data/a", "--size", "8MiB", "--object-size", "256KiB"]);
    let server = Server::start(running, "nbd.sock", more);
    let uri = format!("--uri={}", server.uri("a"));
    running.wait_until_clean();
    let seconds: u64 = std::env::var("NACRE_BLOCK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(12);
    let mut fio = Started(
        Command::new("fio")
            .args(["--name=verify", "--ioengine=nbd", &uri, "--rw=randtrimwrite", "--bsrange=512-64k", "--iodepth=16"])
            .args(["--size=8m", "--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0", "--randseed=7"])
            // Pass by pass, each verified at its end. Verified in between, a range counts as written of which fio has
            // trimmed a part already, and has not written it again yet.
            .args(["--loops=100000", &format!("--runtime={seconds}"), "--fsync=64"])
            // A trim and a write of one range at a time have no order.
            .arg("--serialize_overlap=1")
            .current_dir(running.0.path())
            .stdout(std::fs::File::create(running.0.path().join("fio.log")).unwrap())
            .spawn()
            .unwrap(),
    );
    let (began, mut last, mut kills) = (Instant::now(), Instant::now(), 0);
    let every = Duration::from_secs(if seconds < 60 { 3 } else { 15 });
    let status = loop {
        if let Some(status) = fio.0.try_wait().unwrap() {
            break status;
        }
        // One at a time: two at once would be an outage, not a failure.
        if last.elapsed() > every && nacre(running.0.path(), &["pg", "explain"]).0 == Some(0) {
            match victim {
                Victim::Osd => running.kill(kills % 3),
                Victim::Monitor => running.kill_daemon(&format!("mon.{}", kills % 3)),
            }
            kills += 1;
            last = Instant::now();
        }
        assert!(began.elapsed() < Duration::from_secs(seconds + 120), "fio does not end");
        moment(Duration::from_millis(50));
    };
    let text = std::fs::read_to_string(running.0.path().join("fio.log")).unwrap();
    assert!(status.success() && text.contains("err= 0"), "{text}");
    assert!(kills > 0, "nothing was killed");
}

#[test]
fn fio_finds_every_byte_while_osds_are_killed_under_it() {
    fio_while_daemons_die(&Running::new(15), Victim::Osd, &[]);
}

#[test]
fn fio_finds_every_byte_it_flushed_through_write_back_while_osds_are_killed() {
    fio_while_daemons_die(&Running::new(18), Victim::Osd, &["--write-back", "1MiB"]);
}

#[test]
fn fio_finds_every_byte_while_monitors_are_killed() {
    fio_while_daemons_die(&Running::with_monitors(38, 3), Victim::Monitor, &[]);
}

/// Certificates as libnbd and qemu name their files: an authority, a server of this name, a client.
fn certificates(folder: &std::path::Path, server: &str) {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(vec![]).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    ca.distinguished_name.push(rcgen::DnType::CommonName, "test authority");
    let ca_cert = ca.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    std::fs::create_dir(folder).unwrap();
    let write = |name: &str, text: String| std::fs::write(folder.join(name), text).unwrap();
    write("ca-cert.pem", ca_cert.pem());
    for (role, name) in [("server", server), ("client", "a client")] {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap_or_default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let cert = params.signed_by(&key, &issuer).unwrap();
        write(&format!("{role}-cert.pem"), cert.pem());
        write(&format!("{role}-key.pem"), key.serialize_pem());
    }
}

#[test]
fn images_are_served_on_an_address_to_those_who_have_a_certificate() {
    let running = Running::new(39);
    for image in ["data/a", "data/b"] {
        running.good(&["block", "create", image, "--size", "8MiB"]);
    }
    let path = running.0.path();
    certificates(&path.join("tls"), "127.0.0.1");
    certificates(&path.join("strangers"), "127.0.0.1");
    // Nobody opens an address to all by accident.
    let (code, _, error) = nacre(path, &["nbd", "--pool", "data", "--listen", "127.0.0.1:0"]);
    assert!(code == Some(1) && error.contains("give --tls DIR, or say --insecure"), "{error}");
    let server = |more: &[&str]| Server::on_address(&running, more);
    let tls = server(&["--tls", "tls", "--metrics", "127.0.0.1:0"]);
    let uri = |folder: &str, image: &str| {
        format!("nbds://{}/{image}?tls-certificates={}", tls.address(), path.join(folder).display())
    };
    let text = run("nbdinfo", &[&uri("tls", "a")]);
    assert!(text.contains("protocol: newstyle-fixed with TLS") && text.contains("export-size: 8388608"), "{text}");
    let raw = path.join("raw");
    let data: Vec<u8> = (0..8 * MIB).map(|i| (i * 31 % 251) as u8).collect();
    std::fs::write(&raw, &data).unwrap();
    let out = path.join("out");
    let (raw, out) = (raw.to_str().unwrap(), out.to_str().unwrap());
    run("nbdcopy", &["--connections=4", "--flush", raw, &uri("tls", "a")]);
    run("nbdcopy", &[&uri("tls", "a"), out]);
    assert!(std::fs::read(out).unwrap() == data, "what came back is what was sent");
    run("nbdcopy", &[&uri("tls", "a"), &uri("tls", "b")]);
    run("nbdcopy", &[&uri("tls", "b"), out]);
    assert!(std::fs::read(out).unwrap() == data);
    // What was done is seen where it was asked to be shown.
    let page = tls.metrics();
    let line = page.lines().find(|line| line.starts_with("nacre_nbd_bytes_total{image=\"a\",kind=\"write\"}"));
    let bytes: f64 = line.and_then(|line| line.rsplit(' ').next()).unwrap_or("0").parse().unwrap();
    assert_eq!(bytes, 8.0 * MIB as f64, "{page}");
    // Strangers, and those who speak in the clear, get nothing.
    let plain = format!("nbd://{}/a", tls.address());
    for stranger in [uri("strangers", "a"), plain] {
        let said = Command::new("nbdinfo").arg(&stranger).output().unwrap();
        assert!(!said.status.success(), "{stranger}: {said:?}");
    }
    drop(tls);
    // In the clear where that was said.
    let open = server(&["--insecure"]);
    run("nbdcopy", &[&format!("nbd://{}/a", open.address()), out]);
    run("qemu-img", &["compare", "-f", "raw", "-F", "raw", raw, &format!("nbd://{}/a", open.address())]);
    assert!(std::fs::read(out).unwrap() == data);
}
