//! Programs that people have, against a disk in memory: qemu-img, qemu-io, nbdinfo, nbdcopy and fio.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::disk::{Disk, Server, Shelf};
use nacre_nbd::Encryption;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{self, pki_types::PrivateKeyDer};

const MIB: u64 = 1 << 20;

/// Runs a program to its end and returns what it printed; its failure is the test's.
fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("{program} does not start ({error}); ./x test installs it"));
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {args:?}: {}\n{text}", output.status);
    text
}

fn plain(disks: &[(&str, &Arc<Disk>)]) -> Server {
    let shelf = disks.iter().map(|(name, disk)| ((*name).to_owned(), Arc::clone(disk))).collect::<BTreeMap<_, _>>();
    Server::start(Shelf(shelf), Encryption::Plain)
}

#[test]
fn qemu_io_reads_the_patterns_it_wrote_and_zeros_where_it_discarded() {
    let disk = Disk::new(64 * MIB);
    let server = plain(&[("a", &disk)]);
    let text = run(
        "qemu-io",
        &[
            "-f",
            "raw",
            "-d",
            "unmap",
            "-c",
            "write -P 0xab 1M 3M",
            "-c",
            "write -P 0xcd 1500 9000",
            "-c",
            "read -P 0xcd 1500 9000",
            "-c",
            "read -P 0xab 2M 2M",
            "-c",
            "discard 2M 1M",
            "-c",
            "read -P 0 2M 1M",
            "-c",
            "write -z 3M 512k",
            "-c",
            "read -P 0 3M 512k",
            "-c",
            "read -P 0xab 3584k 512k",
            "-c",
            "write -f -P 7 0 4k",
            "-c",
            "flush",
            &server.uri("a"),
        ],
    );
    assert!(!text.contains("fail"), "{text}");
    assert!(disk.bytes(4096, 6404) == vec![0xcd; 6404], "an unaligned write landed");
    assert!(disk.bytes(0, 4096) == vec![7; 4096], "a write with FUA landed");
    assert!(disk.flushes.load(Ordering::Relaxed) > 0, "the flush reached the disk");
}

#[test]
fn qemu_img_makes_checks_and_compares_an_image_through_the_server() {
    let disk = Disk::new(64 * MIB);
    let server = plain(&[("a", &disk)]);
    let raw = server.folder().join("raw");
    let data: Vec<u8> = (0..8 * MIB).map(|i| (i * 31 % 251) as u8).collect();
    std::fs::write(&raw, &data).unwrap();
    let (raw, uri) = (raw.to_str().unwrap(), server.uri("a"));

    run("qemu-img", &["create", "-f", "qcow2", &uri, "32M"]);
    run("qemu-img", &["convert", "-n", "-f", "raw", "-O", "qcow2", raw, &uri]);
    let check = run("qemu-img", &["check", "-f", "qcow2", &uri]);
    assert!(check.contains("No errors"), "{check}");

    run("qemu-img", &["convert", "-n", "-f", "raw", "-O", "raw", raw, &uri]);
    assert!(disk.bytes(0, data.len()) == data, "the disk holds what was converted");
    let map = run("qemu-img", &["map", "--output=json", "-f", "raw", &uri]);
    assert!(map.contains("\"zero\": true"), "holes are told: {map}");
}

#[test]
fn nbdinfo_lists_exports_and_what_they_can_do() {
    let (one, two) = (Disk::new(MIB), Disk::read_only(5 * MIB + 512));
    let server = plain(&[("one", &one), ("two", &two)]);
    let list = run("nbdinfo", &["--list", &server.uri("")]);
    assert!(list.contains("one") && list.contains("disk two"), "{list}");

    let info = run("nbdinfo", &["--json", &server.uri("two")]);
    for part in
        ["\"export-size\": 5243392", "\"is_read_only\": true", "\"base:allocation\"", "\"can_multi_conn\": true"]
    {
        assert!(info.contains(part), "{part} in {info}");
    }
    let size = run("nbdinfo", &["--size", &server.uri("one")]);
    assert_eq!(size.trim(), "1048576");
}

#[test]
fn nbdcopy_takes_a_sparse_disk_out_and_brings_it_back_over_four_connections() {
    let (from, to) = (Disk::new(48 * MIB), Disk::new(48 * MIB));
    let server = plain(&[("from", &from), ("to", &to)]);
    run("qemu-io", &["-f", "raw", "-c", "write -P 1 1M 7M", "-c", "write -P 2 33M 123k", &server.uri("from")]);
    run("nbdcopy", &["--connections=4", &server.uri("from"), &server.uri("to")]);
    assert!(to.bytes(0, 48 << 20) == from.bytes(0, 48 << 20), "the copy equals its origin");
    let map = run("nbdinfo", &["--map", &server.uri("from")]);
    assert!(map.contains("hole,zero") && map.contains("data"), "{map}");
}

#[test]
fn fio_verifies_what_it_wrote_with_trims_between() {
    let disk = Disk::new(64 * MIB);
    let server = plain(&[("a", &disk)]);
    let uri = format!("--uri={}", server.uri("a"));
    let text = run(
        "fio",
        &[
            "--name=verify",
            "--ioengine=nbd",
            &uri,
            "--rw=randwrite",
            "--bsrange=512-256k",
            "--iodepth=32",
            "--size=32m",
            "--io_size=64m",
            "--verify=crc32c",
            "--verify_fatal=1",
            // Else it leaves a file of its state behind, in the folder of the sources.
            "--verify_state_save=0",
            "--randseed=7",
            "--fsync=64",
        ],
    );
    assert!(text.contains("err= 0"), "{text}");
    assert!(disk.flushes.load(Ordering::Relaxed) > 0);
}

#[test]
fn a_write_to_a_read_only_export_is_refused_and_changes_nothing() {
    let disk = Disk::read_only(MIB);
    let server = plain(&[("a", &disk)]);
    let output =
        Command::new("qemu-io").args(["-f", "raw", "-c", "write -P 1 0 4k", &server.uri("a")]).output().unwrap();
    assert!(!output.status.success(), "{output:?}");
    assert!(disk.bytes(0, 4096) == vec![0; 4096], "nothing changed");
}

#[test]
fn a_client_with_a_certificate_gets_in_and_one_without_tls_does_not() {
    // Given a server that wants TLS with a certificate that the authority signed
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(vec![]).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    ca.distinguished_name.push(rcgen::DnType::CommonName, "test authority");
    let ca_cert = ca.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let leaf = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        (params.signed_by(&key, &issuer).unwrap(), key)
    };
    let (server_cert, server_key) = leaf("localhost");
    let (client_cert, client_key) = leaf("client");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca_cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![server_cert.der().clone()], PrivateKeyDer::try_from(server_key.serialize_der()).unwrap())
        .unwrap();
    let disk = Disk::new(4 * MIB);
    let shelf = Shelf(BTreeMap::from([("a".to_owned(), Arc::clone(&disk))]));
    let server = Server::start(shelf, Encryption::Required(TlsAcceptor::from(Arc::new(config))));
    let certs = server.folder().join("certs");
    std::fs::create_dir(&certs).unwrap();
    std::fs::write(certs.join("ca-cert.pem"), ca_cert.pem()).unwrap();
    std::fs::write(certs.join("client-cert.pem"), client_cert.pem()).unwrap();
    std::fs::write(certs.join("client-key.pem"), client_key.serialize_pem()).unwrap();

    // When qemu comes with a certificate, then it can write and read
    let creds = format!("tls-creds-x509,id=t,endpoint=client,dir={}", certs.display());
    let image = format!(
        "driver=nbd,export=a,server.type=unix,server.path={},tls-creds=t,tls-hostname=localhost",
        server.socket().display()
    );
    let text = run(
        "qemu-io",
        &["--object", &creds, "--image-opts", "-c", "write -P 5 64k 1M", "-c", "read -P 5 64k 1M", &image],
    );
    assert!(!text.contains("fail"), "{text}");
    assert!(disk.bytes(64 << 10, 1 << 20) == vec![5; 1 << 20], "the write came through TLS");

    // When one comes in the clear, then it sees nothing at all
    let output = Command::new("nbdinfo").arg(server.uri("a")).output().unwrap();
    assert!(!output.status.success(), "{output:?}");
    let output = Command::new("nbdinfo").args(["--list", &server.uri("")]).output().unwrap();
    assert!(!output.status.success(), "{output:?}");
}
