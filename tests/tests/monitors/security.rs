//! Each call of a monitor against each kind of caller that must not be served. What they are told is kept as a table in
//! `docs/internals/monitors-refusals.md`; `NACRE_REWRITE=1` writes it anew.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use nacre_mon_api::status::from_grpc;
use nacre_mon_api::v1;
use nacre_mon_api::v1::cert_client::CertClient as Cert;
use nacre_mon_api::v1::join_client::JoinClient as Join;
use nacre_mon_api::v1::mon_client::MonClient as Mon;
use nacre_mon_api::v1::raft_client::RaftClient as Raft;
use nacre_net::identity::{Authority, Caps, Grant, Identity, Kind, Name, UnixTime};
use nacre_net::tls::{self, Credentials, Expect, TlsClient, Trust};
use nacre_proto::v1 as map;
use nacre_proto::v1::map_command::Verb as Map;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::pki_types::{self as rustls_pki_types, CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, DigitallySignedStruct, SignatureScheme};
use tonic::transport::{Channel, Endpoint};

use crate::cluster::{Cluster, note, until};

/// Each call, and what the audit calls it.
const CALLS: [(&str, &str); 28] = [
    ("Mon.Execute, a note", "note"),
    ("Mon.Execute, a setting", "config set"),
    ("Mon.Execute, boot of an OSD", "osd boot"),
    ("Mon.Execute, removal of a pool", "pool rm"),
    ("Mon.Subscribe", "subscribe"),
    ("Mon.Status", "status"),
    ("Mon.Log", "log"),
    ("Mon.ChangeQuorum, join", "change-quorum"),
    ("Mon.ChangeQuorum, remove", "change-quorum"),
    ("Mon.Beacon", "osd beacon"),
    ("Mon.ReportFailures", "report failures"),
    ("Mon.Barrier", "barrier"),
    ("Mon.Backup", "backup"),
    ("Raft.Append", "append"),
    ("Raft.Vote", "vote"),
    ("Raft.PreVote", "pre-vote"),
    ("Raft.Snapshot", "snapshot"),
    ("Raft.TransferLeader", "transfer-leader"),
    ("Raft.SealKey", "seal key"),
    ("Cert.MakeToken", "cert token"),
    ("Cert.DropToken", "cert drop-token"),
    ("Cert.List", "cert list"),
    ("Cert.Decide", "cert approve"),
    ("Cert.Revoke", "cert revoke"),
    ("Cert.SetCaps", "cert caps"),
    ("Cert.Rotate", "cert rotate"),
    ("Cert.Renew", "cert renew"),
    ("Join.Join", "join"),
];

/// What whoever is believed may ask: renewing one's own certificate, and joining.
const NEEDS_NONE: [&str; 2] = ["Cert.Renew", "Join.Join"];

fn execute(verb: v1::command::Verb) -> v1::ExecuteRequest {
    v1::ExecuteRequest { session: 666, sequence: 1, command: Some(v1::Command { verb: Some(verb) }), dry_run: false }
}

fn execute_map(verb: Map) -> v1::ExecuteRequest {
    execute(v1::command::Verb::Map(map::MapCommand { verb: Some(verb) }))
}

/// Makes one call.
async fn make(call: &str, channel: Channel) -> Result<(), tonic::Status> {
    use v1::change_quorum_request::Change;
    let (mut mon, mut raft) = (Mon::new(channel.clone()), Raft::new(channel.clone()));
    let (mut cert, mut join) = (Cert::new(channel.clone()), Join::new(channel));
    let whom = "client.evil".to_owned();
    let change = |change| v1::ChangeQuorumRequest { change: Some(change) };
    let setting =
        || map::SettingSet { scope: "global".into(), name: "mon.pg.per_osd_target".into(), value: "66".into() };
    match call {
        "Mon.Execute, a note" => mon.execute(execute(note("evil".into()))).await.map(drop),
        "Mon.Execute, a setting" => mon.execute(execute_map(Map::SettingSet(setting()))).await.map(drop),
        "Mon.Execute, boot of an OSD" => {
            mon.execute(execute_map(Map::OsdBoot(map::OsdBoot::default()))).await.map(drop)
        }
        "Mon.Execute, removal of a pool" => {
            let remove = map::PoolRemove { pool: "data".into(), confirm: "data".into() };
            mon.execute(execute_map(Map::PoolRemove(remove))).await.map(drop)
        }
        "Mon.Subscribe" => mon.subscribe(v1::SubscribeRequest { have: 0 }).await.map(drop),
        "Mon.Status" => mon.status(v1::StatusRequest { local: true }).await.map(drop),
        "Mon.Log" => mon.log(v1::LogRequest::default()).await.map(drop),
        "Mon.ChangeQuorum, join" => {
            let join = v1::JoinQuorum { mon: 9, address: "127.0.0.1:9".into(), node: 0 };
            mon.change_quorum(change(Change::Join(join))).await.map(drop)
        }
        "Mon.ChangeQuorum, remove" => mon.change_quorum(change(Change::Remove(1))).await.map(drop),
        "Mon.Beacon" => mon.beacon(map::OsdBeacon::default()).await.map(drop),
        "Mon.ReportFailures" => mon.report_failures(map::FailureReports::default()).await.map(drop),
        "Mon.Barrier" => mon.barrier(v1::BarrierRequest::default()).await.map(drop),
        "Mon.Backup" => mon.backup(v1::BackupRequest {}).await.map(drop),
        "Raft.Append" => raft.append(v1::AppendRequest::default()).await.map(drop),
        "Raft.Vote" => raft.vote(v1::VoteRequest::default()).await.map(drop),
        "Raft.PreVote" => raft.pre_vote(v1::VoteRequest::default()).await.map(drop),
        "Raft.Snapshot" => raft.snapshot(tonic::Request::new(Parts)).await.map(drop),
        "Raft.TransferLeader" => raft.transfer_leader(v1::TransferRequest::default()).await.map(drop),
        "Raft.SealKey" => raft.seal_key(v1::SealKeyRequest {}).await.map(drop),
        "Cert.MakeToken" => {
            cert.make_token(v1::TokenRequest { whom, caps: "* *".into(), life_seconds: 0 }).await.map(drop)
        }
        "Cert.DropToken" => cert.drop_token(v1::DropTokenRequest { id: 1 }).await.map(drop),
        "Cert.List" => cert.list(v1::CertListRequest {}).await.map(drop),
        "Cert.Decide" => {
            let decide = v1::DecideRequest { request: 1, approve: true, caps: "* *".into(), why: String::new() };
            cert.decide(decide).await.map(drop)
        }
        "Cert.Revoke" => {
            cert.revoke(v1::RevokeNameRequest { name: "mon.1".into(), why: String::new() }).await.map(drop)
        }
        "Cert.SetCaps" => {
            cert.set_caps(v1::SetCapsRequest { name: whom, caps: "* *".into(), now: false }).await.map(drop)
        }
        "Cert.Rotate" => cert.rotate(v1::RotateRequest { anyway: true, ..Default::default() }).await.map(drop),
        "Cert.Renew" => cert.renew(v1::RenewRequest::default()).await.map(drop),
        "Join.Join" => join.join(v1::JoinRequest::default()).await.map(drop),
        other => panic!("{other} is no call"),
    }
}

/// A snapshot without parts.
struct Parts;

impl tonic::codegen::tokio_stream::Stream for Parts {
    type Item = v1::SnapshotPart;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Ready(None)
    }
}

/// Believes whatever a server shows: the question is whether the server believes us.
#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519, SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ECDSA_NISTP384_SHA384]
    }
}

/// Speaks TLS to a monitor and shows no certificate.
fn nameless(address: String, protocol: &[u8]) -> Channel {
    let config = ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(Gullible));
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let dial = tower::service_fn(move |_: tonic::codegen::http::Uri| {
        let (connector, address) = (connector.clone(), address.clone());
        async move {
            let stream = tokio::net::TcpStream::connect(address).await?;
            let stream = connector.connect("mon.nacre".try_into().unwrap(), stream).await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    Endpoint::from_static("http://mon.nacre").connect_with_connector_lazy(dial)
}

#[test]
fn whoever_must_not_be_served_is_refused_each_call_and_nothing_changes() {
    let cluster = Cluster::up();
    let ours = cluster.authority();
    let id = ours.cluster();
    let now = UnixTime::now();
    let hour = Duration::from_secs(3600);
    let foreign = Authority::create(id, now, hour).unwrap();
    let grant = |name: &str, caps: Caps| Grant { name: Name::new(Kind::Client, name).unwrap(), caps, generation: 1 };
    let address = format!("{}:{}", cluster.address, cluster.port);
    let member = |pair: &nacre_net::identity::Keypair, authority: &[u8]| {
        let _inside = cluster.runtime.enter();
        let credentials = Credentials::new(pair, authority).unwrap();
        // It believes us; the question is whether we believe it.
        let trust = Trust::new(id, vec![ours.certificate().to_vec()]).unwrap();
        let tls = TlsClient::new(trust, credentials, tls::ALPN_GRPC).unwrap();
        nacre_mon_api::channel::channel(&tls, &address, Expect::Kind(Kind::Mon))
    };
    let ask = |call: &str, channel: Channel| {
        let made = async { tokio::time::timeout(Duration::from_secs(20), make(call, channel)).await };
        cluster.runtime.block_on(made).unwrap_or_else(|_| panic!("{call} gets no answer"))
    };

    let mallory = ours.issue(&grant("mallory", Caps::all()), now, hour).unwrap();
    // One that was let in and stays connected, and one that comes later.
    let early = member(&mallory, ours.certificate());
    ask("Mon.Status", early.clone()).unwrap();
    let serial = Identity::from_der(&mallory.certificate).unwrap().serial.0.into_vec();
    let until_ms = now.after(hour).0 * 1000;
    let revoke = map::Revoke { serial: serial.into(), until_ms, why: "stolen".into() };
    let revoke = v1::command::Verb::Map(map::MapCommand { verb: Some(Map::Revoke(revoke)) });
    let admin = cluster.client(Duration::from_secs(10));
    cluster.runtime.block_on(admin.execute(revoke, false)).unwrap();
    until("the revocation reaches mon.0", Duration::from_secs(20), || ask("Mon.Status", early.clone()).is_err());
    let before = cluster.status();

    let plain = {
        let _inside = cluster.runtime.enter();
        Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy()
    };
    let nobody = |protocol| {
        let _inside = cluster.runtime.enter();
        nameless(address.clone(), protocol)
    };
    let stranger = foreign.issue(&grant("eve", Caps::all()), now, hour).unwrap();
    let old = ours.issue(&grant("eve", Caps::all()), now.before(hour * 48), hour).unwrap();
    let weak = ours.issue(&grant("eve", Caps::default()), now, hour).unwrap();
    let strong = ours.issue(&grant("root", Caps::all()), now, hour).unwrap();
    let callers = [
        ("no TLS", plain),
        ("no certificate", nobody(tls::ALPN_GRPC)),
        ("no certificate, joining", nobody(tls::ALPN_JOIN)),
        ("foreign authority", member(&stranger, foreign.certificate())),
        ("expired", member(&old, ours.certificate())),
        ("revoked, connected before", early),
        ("revoked, connecting", member(&mallory, ours.certificate())),
        ("no capabilities", member(&weak, ours.certificate())),
    ];
    let mut table = String::new();
    for (call, _) in CALLS {
        write!(table, "| {call} ").unwrap();
        for (caller, channel) in &callers {
            if *caller == "no capabilities" && NEEDS_NONE.contains(&call) {
                write!(table, "| needs none ").unwrap();
                continue;
            }
            let refused = ask(call, channel.clone()).expect_err(&format!("{call} with {caller}"));
            // A connection that never came about has no status of ours.
            let shown = match std::error::Error::source(&refused) {
                Some(_) => "no connection".to_owned(),
                None => format!("{:?}", from_grpc(&refused).code).to_lowercase(),
            };
            let expected = match *caller {
                "no capabilities" => "denied",
                "no certificate, joining" if call == "Join.Join" => "invalid",
                "no certificate, joining" => "unsupported",
                // Its connection was cut when it was revoked, and it gets no other.
                _ => "no connection",
            };
            assert_eq!(shown, expected, "{call} with {caller}: {refused}");
            write!(table, "| {shown} ").unwrap();
        }
        // Consensus is for monitors, whatever else one may do.
        if call.starts_with("Raft") {
            let refused = ask(call, member(&strong, ours.certificate())).unwrap_err();
            assert_eq!(from_grpc(&refused).code, nacre_proto::status::Code::Denied, "{call}: {refused}");
        }
        writeln!(table, "|").unwrap();
    }

    let after = cluster.status();
    assert_eq!((after.epoch, &after.map, &after.members.len()), (before.epoch, &before.map, &before.members.len()));
    assert!(!cluster.notes().contains_key("evil"));
    // Who went away in the middle of a handshake was refused nothing.
    drop(std::net::TcpStream::connect(&address).unwrap());
    let stays = ["expired", "not signed by this cluster's authority", "revoked", "no certificate"];
    until("refusals are in the audit log", Duration::from_secs(90), || {
        let audit = cluster.nacre(&["log", "-n", "2000", "--channel", "audit"]);
        stays.iter().all(|why| audit.lines().any(|line| line.contains("may not connect") && line.contains(why)))
            && audit.contains("client.mallory may not stay connected")
            && CALLS.iter().filter(|(call, _)| !NEEDS_NONE.contains(call)).all(|(call, what)| {
                let path = call.split(',').next().unwrap().replace('.', "/");
                audit.contains(&format!("client.eve may not {what}"))
                    && (audit.contains(&format!("may not call /nacre.mon.v1.{path}"))
                        || audit.contains("more were not written"))
            })
    });
    let audit = cluster.nacre(&["log", "-n", "2000", "--channel", "audit"]);
    assert!(!audit.contains("connection lost"), "{audit}");

    let mut page = String::from(
        "# What a monitor answers to whom\n\nWritten by a test (`tests/tests/monitors/security.rs`) from the answers \
         of a real monitor. Each of these calls was refused\nand audited, and left the map as it was.\n\n| call ",
    );
    for (caller, _) in &callers {
        write!(page, "| {caller} ").unwrap();
    }
    writeln!(page, "|\n|{}", " --- |".repeat(callers.len() + 1)).unwrap();
    page += &table;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/internals/monitors-refusals.md");
    if std::env::var_os("NACRE_REWRITE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), page, "NACRE_REWRITE=1 writes it anew");
}
