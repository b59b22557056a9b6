//! Processes that meet over real sockets, over a local socket and in memory.

use std::sync::Mutex as StdMutex;
use std::time::Duration;

use nacre_proto::ids::OsdId;
use tokio::task::JoinHandle;

use super::link::{Backoff, State};
use super::memory::Network;
use super::*;
use crate::conn::serve::{NoService, Notice};
use crate::conn::{Call, CallError, Handler, Request};
use crate::identity::{Authority, Caps, ClusterId, Grant, Keypair, Revocations, UnixTime};
use crate::metrics::Registry;

const DAY: Duration = Duration::from_secs(86_400);

struct Cluster {
    authority: Authority,
}

#[derive(Default)]
struct Heard(StdMutex<Vec<Denied>>);

impl Audit for Heard {
    fn denied(&self, denied: &Denied) {
        self.0.lock().unwrap().push(denied.clone());
    }
}

struct Member {
    node: Arc<Node>,
    trust: Arc<Trust>,
    heard: Arc<Heard>,
}

impl Cluster {
    fn new() -> Cluster {
        Cluster { authority: Authority::create(ClusterId([3; 16]), UnixTime::now(), DAY * 365).unwrap() }
    }

    fn pair(&self, name: &str, now: UnixTime) -> Keypair {
        let grant = Grant { name: name.parse().unwrap(), caps: Caps::all(), generation: 0 };
        self.authority.issue(&grant, now, DAY).unwrap()
    }

    fn member(&self, name: &str, session: u64, memory: Option<&Arc<Network>>) -> Member {
        self.member_with(&self.pair(name, UnixTime::now()), &self.authority, session, memory, 1)
    }

    fn member_with(
        &self,
        pair: &Keypair,
        signer: &Authority,
        session: u64,
        memory: Option<&Arc<Network>>,
        incarnation: u64,
    ) -> Member {
        let trust = Trust::new(self.authority.cluster(), vec![self.authority.certificate().to_vec()]).unwrap();
        let heard = Arc::new(Heard::default());
        let node = Node::new(Setup {
            credentials: Credentials::new(pair, signer.certificate()).unwrap(),
            trust: trust.clone(),
            incarnation,
            session,
            config: Config::default(),
            budget: None,
            metrics: NetMetrics::new(&Registry::new("test")),
            audit: heard.clone(),
            service: Service::Osd,
            memory: memory.cloned(),
        });
        Member { node: node.unwrap(), trust, heard }
    }
}

/// Answers with the name and the way of the caller.
#[derive(Clone)]
struct WhoAmI;

impl Handler for WhoAmI {
    fn request(&mut self, call: Call) {
        let who = call.who().map(|i| format!("{} via {} resumed={}", i.identity.name, i.via, i.resumed));
        call.ok(Bytes::from(who.unwrap_or_default()), Bytes::new());
    }
}

fn osd(n: u32) -> Expect {
    Expect::Name(Name::osd(OsdId(n)))
}

async fn serve(member: &Member, local: Option<&std::path::Path>) -> (Address, JoinHandle<()>) {
    let listener = Listener::bind(&member.node, Some("127.0.0.1:0".parse().unwrap()), local).await.unwrap();
    let address = listener.address().clone();
    (address, tokio::spawn(listener.serve(member.node.clone(), || WhoAmI)))
}

async fn ask(node: &Node, to: &Address, expect: &Expect) -> Result<String, End> {
    let connection = node.dial(to, expect, 0, 0).await?;
    let peer = connection.peer();
    let task = tokio::spawn(connection.run(NoService));
    let reply = peer.call(Request::new(1, Bytes::new())).await;
    peer.close("done");
    let end = task.await.unwrap();
    match reply {
        Ok(reply) => Ok(String::from_utf8(reply.meta.to_vec()).unwrap()),
        Err(_) => Err(Arc::try_unwrap(end).unwrap_or(End::Closed)),
    }
}

#[tokio::test]
async fn afar_over_tls_and_near_over_the_local_socket_by_themselves() {
    let cluster = Cluster::new();
    let (server, client) = (cluster.member("osd.1", 0, None), cluster.member("client.alice", 9, None));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("osd.1.sock");
    let (address, task) = serve(&server, Some(&path)).await;

    let near = ask(&client.node, &address, &osd(1)).await.unwrap();
    let (uid, pid) = (rustix::process::geteuid().as_raw(), std::process::id());
    assert_eq!(near, format!("client.alice via local socket (uid {uid}, pid {pid}) resumed=false"));
    let far = Address::of_tcp(address.tcp().unwrap());
    let over_tls = ask(&client.node, &far, &osd(1)).await.unwrap();
    assert!(over_tls.starts_with("client.alice via 127.0.0.1:"), "{over_tls}");
    // A path that is not there: TCP by itself.
    let gone = Address::Net { tcp: address.tcp(), local: Some((client.node.host(), folder.path().join("gone"))) };
    assert!(ask(&client.node, &gone, &osd(1)).await.unwrap().contains("127.0.0.1"));
    for to in [&address, &far] {
        assert_eq!(ask(&client.node, to, &osd(2)).await.unwrap_err().reason(), "unexpected_peer");
    }
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    assert!(matches!(listener::bind_local(&path), Err(listener::ListenError::InUse { .. })));
    task.abort();
    let _ = task.await;
    assert!(!path.exists(), "the socket's file goes with its listener");
}

#[tokio::test]
async fn the_security_table_holds_on_both_ways() {
    let cluster = Cluster::new();
    let server = cluster.member("osd.1", 0, None);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("osd.1.sock");
    let (address, _task) = serve(&server, Some(&path)).await;
    let far = Address::of_tcp(address.tcp().unwrap());

    let now = UnixTime::now();
    let foreign = Authority::create(ClusterId([3; 16]), now, DAY * 365).unwrap();
    let grant = Grant { name: "osd.7".parse().unwrap(), caps: Caps::all(), generation: 0 };
    let expired = cluster.pair("osd.7", now.before(DAY * 2));
    let revoked = cluster.pair("osd.8", now);
    let mut list = Revocations::default();
    list.revoke_name("osd.8".parse().unwrap(), 1);
    server.trust.set_revocations(Arc::new(list));
    let table = [
        ("foreign_authority", cluster.member_with(&foreign.issue(&grant, now, DAY).unwrap(), &foreign, 1, None, 1)),
        ("certificate_expired", cluster.member_with(&expired, &cluster.authority, 1, None, 1)),
        ("certificate_revoked", cluster.member_with(&revoked, &cluster.authority, 1, None, 1)),
    ];
    let mut refused = 0;
    for (reason, client) in &table {
        for (n, to) in [&address, &far].into_iter().enumerate() {
            assert!(ask(&client.node, to, &osd(1)).await.is_err(), "{reason} via {to}");
            // The server counts before the client hears of it on a local socket, and after it over TLS.
            while server.node.metrics().ended_total(reason) != n as u64 + 1 {
                tokio::task::yield_now().await;
            }
            refused += 1;
        }
    }
    // Without any certificate, by hand, on the local socket.
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let hello = hello::Hello {
        oldest: 1,
        newest: 1,
        cluster: Bytes::from_static(&[3; 16]),
        name: "osd.7".into(),
        ..hello::Hello::default()
    };
    let meta = prost::Message::encode_to_vec(&hello);
    let header = crate::frame::Header::bare(crate::frame::Kind::Hello, 0);
    let header = crate::frame::encode::seal(header, &meta, &[], None);
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(&[&header.encode()[..], &meta].concat()).await.unwrap();
    let mut told = Vec::new();
    stream.read_to_end(&mut told).await.unwrap();
    assert!(String::from_utf8_lossy(&told).contains("showed no certificate"));
    assert_eq!(server.node.metrics().ended_total("no_certificate"), 1);
    refused += 1;
    let heard = server.heard.0.lock().unwrap();
    assert_eq!(heard.len(), refused, "each refusal is audited: {heard:?}");
    assert!(heard.iter().all(|d| d.what == "connect" && matches!(d.who, Caller::Stranger(_))));
}

/// What a service would keep: changed by requests and notices its gate lets through.
#[derive(Clone)]
struct Counter {
    done: Arc<std::sync::atomic::AtomicU64>,
    gate: crate::identity::Gate,
}

impl Counter {
    fn change(&self, who: Option<&Identity>) -> Result<(), Denied> {
        let need = crate::identity::Access::new(Service::Osd, crate::identity::Ops::WRITE).in_pool("vms", "");
        self.gate.check(who.expect("a peer has an identity before its first frame is handed over"), "write", &need)?;
        self.done.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Ok(())
    }
}

impl Handler for Counter {
    fn request(&mut self, call: Call) {
        let changed = self.change(call.who().map(|info| &*info.identity));
        match changed {
            Ok(()) => call.ok(Bytes::new(), Bytes::new()),
            Err(denied) => {
                call.fail(&nacre_proto::status::Status::new(nacre_proto::status::Code::Denied, denied.to_string()));
            }
        }
    }

    fn notice(&mut self, peer: &Peer, _notice: Notice) {
        let _refused_and_audited = self.change(Some(&peer.info().identity));
    }
}

#[tokio::test]
async fn no_frame_of_any_type_gets_through_without_identity_or_capability() {
    use std::sync::atomic::Ordering;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use crate::frame::{Header, Kind};
    let cluster = Cluster::new();
    let server = cluster.member("osd.1", 0, None);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("osd.1.sock");
    let heard = Arc::new(Heard::default());
    let gate = crate::identity::Gate::new(Service::Osd, heard.clone());
    let done = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counter = Counter { done: done.clone(), gate };
    let tcp = Some("127.0.0.1:0".parse().unwrap());
    let listener = Listener::bind(&server.node, tcp, Some(&path)).await.unwrap();
    let address = listener.address().clone();
    let _task = tokio::spawn(listener.serve(server.node.clone(), move || counter.clone()));

    let now = UnixTime::now();
    let foreign = Authority::create(ClusterId([3; 16]), now, DAY * 365).unwrap();
    let grant = Grant { name: "osd.7".parse().unwrap(), caps: Caps::all(), generation: 0 };
    let mut list = Revocations::default();
    list.revoke_name("osd.8".parse().unwrap(), 1);
    server.trust.set_revocations(Arc::new(list));
    let bad = [
        ("no hello", None),
        ("no certificate", Some(("osd.7", Bytes::new()))),
        ("foreign", Some(("osd.7", foreign.issue(&grant, now, DAY).unwrap().certificate.into()))),
        ("expired", Some(("osd.7", cluster.pair("osd.7", now.before(DAY * 2)).certificate.into()))),
        ("revoked", Some(("osd.8", cluster.pair("osd.8", now).certificate.into()))),
    ];
    let mut refused = 0;
    for (what, shows) in &bad {
        for kind in [Kind::Hello, Kind::Request, Kind::Reply, Kind::Notice, Kind::Ping, Kind::Pong, Kind::Bye] {
            let mut bytes = Vec::new();
            if let Some((name, certificate)) = shows {
                let hello = hello::Hello {
                    oldest: 1,
                    newest: 1,
                    cluster: Bytes::from_static(&[3; 16]),
                    name: (*name).into(),
                    window: 1 << 20,
                    most_meta: 1 << 16,
                    most_data: 1 << 20,
                    certificate: certificate.clone(),
                    ..hello::Hello::default()
                };
                let meta = prost::Message::encode_to_vec(&hello);
                let header = crate::frame::encode::seal(Header::bare(Kind::Hello, 0), &meta, &[], None);
                bytes.extend_from_slice(&header.encode());
                bytes.extend_from_slice(&meta);
            }
            let header = crate::frame::encode::seal(Header::bare(kind, 1), &[], &[], None);
            bytes.extend_from_slice(&header.encode());
            let mut stream = UnixStream::connect(&path).await.unwrap();
            // The server may be done with it before all is written.
            let _ = stream.write_all(&bytes).await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
            // Who takes leave before anything else has asked for nothing.
            refused += usize::from(shows.is_some() || kind != Kind::Bye);
            let audited = || server.heard.0.lock().unwrap().len();
            let heard = async {
                while audited() < refused {
                    tokio::task::yield_now().await;
                }
            };
            let heard = tokio::time::timeout(Duration::from_secs(20), heard).await;
            assert!(heard.is_ok(), "{what}, then {kind:?}: not audited");
            assert_eq!((audited(), done.load(Ordering::SeqCst)), (refused, 0), "{what}, then {kind:?}");
        }
    }

    // With an identity, but too few capabilities: the connection stands, each call is refused and audited.
    let grant =
        Grant { name: "client.eve".parse().unwrap(), caps: "osd rw pool=other".parse().unwrap(), generation: 0 };
    let weak = cluster.authority.issue(&grant, now, DAY).unwrap();
    for (pair, allowed) in [(weak, false), (cluster.pair("client.alice", now), true)] {
        let client = cluster.member_with(&pair, &cluster.authority, 1, None, 1);
        for to in [&address, &Address::of_tcp(address.tcp().unwrap())] {
            let before = (done.load(Ordering::SeqCst), heard.0.lock().unwrap().len());
            let connection = client.node.dial(to, &osd(1), 0, 0).await.unwrap();
            let peer = connection.peer();
            let task = tokio::spawn(connection.run(NoService));
            peer.notify(1, crate::frame::Priority::Normal, Bytes::new(), Bytes::new()).unwrap();
            let reply = peer.call(Request::new(1, Bytes::new())).await;
            let counts = (done.load(Ordering::SeqCst) - before.0, heard.0.lock().unwrap().len() - before.1);
            if allowed {
                assert!(reply.is_ok());
                assert_eq!(counts, (2, 0));
            } else {
                let Err(CallError::Failed(status)) = reply else { panic!("{reply:?}") };
                assert_eq!(status.code, nacre_proto::status::Code::Denied);
                assert_eq!(counts, (0, 2), "one notice and one request, each refused and audited");
            }
            peer.close("done");
            task.await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_newer_connection_of_a_session_replaces_the_older() {
    let cluster = Cluster::new();
    let server = cluster.member("osd.1", 0, None);
    let (address, _task) = serve(&server, None).await;
    let client = cluster.member("client.alice", 9, None);
    let first = client.node.dial(&address, &osd(1), 0, 0).await.unwrap();
    let lane = client.node.dial(&address, &osd(1), 1, 0).await.unwrap();
    let (peer, lane_peer) = (first.peer(), lane.peer());
    let first = tokio::spawn(first.run(NoService));
    tokio::spawn(lane.run(NoService));
    peer.call(Request::new(1, Bytes::new())).await.unwrap();
    let second = client.node.dial(&address, &osd(1), 0, 0).await.unwrap();
    let second_peer = second.peer();
    tokio::spawn(second.run(NoService));
    second_peer.call(Request::new(1, Bytes::new())).await.unwrap();
    // By the time the newer one was answered the older one was done.
    assert_eq!(server.node.metrics().ended_total("replaced"), 1);
    first.await.unwrap();
    lane_peer.call(Request::new(1, Bytes::new())).await.unwrap();
    let dump = server.node.dump();
    assert_eq!(dump.as_array().unwrap().len(), 2, "{dump}");
    assert_eq!((&dump[0]["name"], &dump[0]["session"]), (&"client.alice".into(), &9.into()));
    assert_eq!(server.node.end_session(9), 2);
    assert!(matches!(lane_peer.over_with().await.as_ref(), End::Bye(why) if why == "session fenced"));
    let third = client.node.dial(&address, &osd(1), 0, 0).await.unwrap();
    let third = tokio::spawn(third.run(NoService));
    while server.node.guests().is_empty() {
        tokio::task::yield_now().await;
    }
    server.node.take_leave("stopping").await;
    assert!(server.node.guests().is_empty());
    assert!(matches!(third.await.unwrap().as_ref(), End::Bye(why) if why == "stopping"));
}

#[tokio::test]
async fn a_link_comes_back_and_says_whether_it_met_the_same_process() {
    let cluster = Cluster::new();
    let server = cluster.member("osd.1", 0, None);
    let (address, task) = serve(&server, None).await;
    let client = cluster.member("client.alice", 9, None);
    let fast = Backoff { first: Duration::from_millis(1), ..Backoff::default() };
    let (link, keeper) = Link::new(client.node.clone(), address.clone(), osd(1), 0, fast, || NoService);
    let keeper = tokio::spawn(keeper.run());
    link.call(Request::new(1, Bytes::new())).await.unwrap();

    // The connection breaks, the process stays.
    let before = link.peer().await.unwrap();
    assert_eq!(server.node.end_session(9), 1);
    before.over_with().await;
    let same = link.call(Request::new(1, Bytes::new())).await.unwrap();
    assert!(String::from_utf8_lossy(&same.meta).ends_with("resumed=true"));
    assert!(link.peer().await.unwrap().info().resumed);

    // The process ends: refused at once; another incarnation comes up elsewhere.
    task.abort();
    let _ = task.await;
    let mut watch = link.watch();
    let refused = watch.wait_for(|s| matches!(s, State::Down { last: Some(end), .. } if end.is_refused())).await;
    drop(refused.unwrap());
    let again = cluster.member_with(&cluster.pair("osd.1", UnixTime::now()), &cluster.authority, 0, None, 2);
    let (address, _task) = serve(&again, None).await;
    link.move_to(address);
    let other = link.call(Request::new(1, Bytes::new())).await.unwrap();
    assert!(String::from_utf8_lossy(&other.meta).ends_with("resumed=false"));
    assert!(!link.peer().await.unwrap().info().resumed);

    let mut state = link.watch();
    drop(link);
    state.wait_for(|s| matches!(s, State::Closed)).await.unwrap();
    keeper.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn in_memory_a_partition_is_found_out_and_heals() {
    let cluster = Cluster::new();
    let network = Network::new();
    let server = cluster.member("osd.1", 0, Some(&network));
    let client = cluster.member("osd.2", 5, Some(&network));
    let listener = Listener::bind_memory(&server.node, "osd.1").unwrap();
    assert!(Listener::bind_memory(&server.node, "osd.1").is_err(), "taken");
    let address = listener.address().clone();
    tokio::spawn(listener.serve(server.node.clone(), || WhoAmI));
    let (link, keeper) = Link::new(client.node.clone(), address, osd(1), 0, Backoff::default(), || NoService);
    tokio::spawn(keeper.run());
    let reply = link.call(Request::new(1, Bytes::new())).await.unwrap();
    assert_eq!(&reply.meta[..], b"osd.2 via memory resumed=false");

    let (a, b) = (server.node.identity().name.clone(), client.node.identity().name.clone());
    network.cut(&a, &b);
    let lost = link.call(Request::new(1, Bytes::new())).await;
    assert!(matches!(lost, Err(CallError::Lost(end)) if end.reason() == "silent"));
    let waited = link.call_within(Request::new(1, Bytes::new()), Duration::from_secs(60)).await;
    assert!(matches!(waited, Err(CallError::TimedOut(_))));
    network.heal(&a, &b);
    let healed = link.call(Request::new(1, Bytes::new())).await.unwrap();
    assert_eq!(&healed.meta[..], b"osd.2 via memory resumed=true");

    let nobody = Address::Memory("osd.9".into());
    assert!(client.node.dial(&nobody, &osd(9), 0, 0).await.unwrap_err().is_refused());
}
