//! Each request and notice that an OSD knows, by whom it must not serve: refused, audited, and no group hears of it.
//! (Who gets no connection at all is the transport's business, and tested there with each kind of frame.)

use std::sync::OnceLock;
use std::time::Duration;

use nacre_maps::ClusterMap;
use nacre_maps::rules::{self, Asker};
use nacre_net::conn::{Budget, CallError, Config, NetMetrics, NoService, Request};
use nacre_net::identity::{Audit, Authority, Caps, ClusterId, Grant, UnixTime};
use nacre_net::metrics::Registry;
use nacre_net::node::memory::Network;
use nacre_net::node::{Address, Listener, Node, Setup};
use nacre_net::tls::{Credentials, Expect, Trust};
use nacre_pg::io::Order;
use nacre_pg::log::ReqId;
use nacre_pg::op::SnapContext;
use nacre_proto::ids::{Epoch, ObjectId, PoolId, SnapId, Stamp, Uuid};
use nacre_proto::v1::map_command::Verb;
use nacre_proto::v1::{Fence, MapCommand, OsdBoot, PoolCreate};
use tokio::sync::mpsc::UnboundedReceiver;

use super::*;

/// The session of the callers, and one that is fenced.
const OWN: u64 = 7;
const FENCED: u64 = 666;

#[derive(Default)]
struct Heard(Mutex<Vec<Denied>>);

impl Audit for Heard {
    fn denied(&self, denied: &Denied) {
        self.0.lock().unwrap().push(denied.clone());
    }
}

/// Two pools, "vms" and "other", and a session that is fenced.
fn map() -> ClusterMap {
    let mut map = ClusterMap::empty(Uuid([3; 16]));
    let boot = |osd: u32| {
        Verb::OsdBoot(OsdBoot {
            osd,
            incarnation: 1,
            uuid: vec![osd as u8 + 1; 16].into(),
            public: vec![format!("10.0.0.{osd}:6800")],
            cluster: vec![format!("10.0.0.{osd}:6801")],
            host: format!("h{osd}"),
            capacity_bytes: 1 << 40,
            ..OsdBoot::default()
        })
    };
    let pool = |name: &str| Verb::PoolCreate(PoolCreate { name: name.into(), ..PoolCreate::default() });
    let fence = Verb::Fence(Fence { sessions: vec![FENCED], until_ms: None, why: "gone".into() });
    for verb in [boot(0), boot(1), boot(2), pool("vms"), pool("other"), fence] {
        let command = rules::Command::try_from(MapCommand { verb: Some(verb) }).unwrap();
        let asker = Asker { now: Stamp(1), who: "client.admin".into() };
        for increment in rules::execute(&map, &command, &asker).unwrap().increments {
            map = map.apply(&increment).unwrap();
        }
    }
    map
}

struct Stage {
    network: Arc<Network>,
    authority: Authority,
    heard: Arc<Heard>,
    shard: UnboundedReceiver<Event>,
    desk: Arc<Desk>,
    pools: [PoolId; 2],
}

impl Stage {
    async fn new() -> Stage {
        let network = Network::new();
        let authority = Authority::create(ClusterId([3; 16]), UnixTime::now(), Duration::from_secs(1 << 20)).unwrap();
        let (shards, mut queues) = Shards::new(1);
        let shard = queues.remove(0);
        let heard = Arc::new(Heard::default());
        let gate = Gate::new(Service::Osd, heard.clone());
        let desk = Arc::new(Desk { shards, gate, sight: RwLock::default(), sessions: Mutex::default() });
        let map = map();
        let id = |name: &str| *map.pools.iter().find(|(_, pool)| pool.name == name).unwrap().0;
        let pools = [id("vms"), id("other")];
        *desk.sight.write().unwrap() = Some(Arc::new(Sight::first(map).unwrap()));
        let stage = Stage { network, authority, heard, shard, desk, pools };
        let node = stage.node("osd.1", "*", 0);
        let listener = Listener::bind_memory(&node, "osd.1").unwrap();
        let desk = stage.desk.clone();
        tokio::spawn(listener.serve(node, move || Guest::new(desk.clone())));
        stage
    }

    fn node(&self, name: &str, caps: &str, session: u64) -> Arc<Node> {
        let caps: Caps = if caps == "*" { Caps::all() } else { caps.parse().unwrap() };
        let grant = Grant { name: name.parse().unwrap(), caps, generation: 0 };
        let pair = self.authority.issue(&grant, UnixTime::now(), Duration::from_secs(3600)).unwrap();
        Node::new(Setup {
            credentials: Credentials::new(&pair, self.authority.certificate()).unwrap(),
            trust: Trust::new(self.authority.cluster(), vec![self.authority.certificate().to_vec()]).unwrap(),
            incarnation: 1,
            session,
            config: Config::default(),
            budget: None::<Arc<Budget>>,
            metrics: NetMetrics::new(&Registry::new("test")),
            audit: self.heard.clone(),
            service: Service::Osd,
            memory: Some(self.network.clone()),
        })
        .unwrap()
    }

    /// Somebody who is connected.
    async fn caller(&self, name: &str, caps: &str, session: u64) -> Peer {
        // A newer connection of a session replaces the older, so each caller is at a lane of its own.
        static LANE: OnceLock<std::sync::atomic::AtomicU32> = OnceLock::new();
        let lane = LANE.get_or_init(Default::default).fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let node = self.node(name, caps, session);
        let expect = Expect::Name("osd.1".parse().unwrap());
        let connection = node.dial(&Address::Memory("osd.1".into()), &expect, lane, 0).await.unwrap();
        let peer = connection.peer();
        tokio::spawn(connection.run(NoService));
        peer
    }

    /// What was refused since the last look.
    fn audited(&self) -> Vec<String> {
        self.heard.0.lock().unwrap().drain(..).map(|denied| denied.to_string()).collect()
    }

    fn object(&self, pool: usize) -> ObjectId {
        let name = Bytes::from_static(b"disk");
        ObjectId { pool: self.pools[pool], hash: 1, namespace: Bytes::from_static(b"bob"), name, snap: SnapId::HEAD }
    }

    fn ask(&self, session: u64, ops: Vec<Op>) -> Request {
        let ask = Ask {
            pg: PgId { pool: self.pools[0], seed: 0 },
            reqid: ReqId { session: SessionId(session), tid: 1 },
            acked_below: 0,
            epoch: Epoch(1),
            oid: self.object(0),
            snapc: SnapContext::default(),
            ops,
        };
        asking(method::ASK, wire::encode(&ask))
    }

    /// Each sort of request: its name, what suffices for it, what is just too little, and the request.
    fn requests(&self) -> Vec<(&'static str, &'static str, &'static str, Request)> {
        let pg = PgId { pool: self.pools[0], seed: 0 };
        let call = Op::Call { class: "lock".into(), method: "get".into(), input: Bytes::new() };
        let copy = Op::CopyFrom { from: self.object(1), version: None };
        let list = List { pg, epoch: Epoch(1), after: None, max: 1 };
        let tell = Tell { pg, order: Order::Scrub { deep: false } };
        vec![
            ("read", "osd r pool=vms", "osd wx pool=vms", self.ask(OWN, vec![Op::Stat])),
            ("write", "osd w pool=vms namespace=bob", "osd rx pool=vms", self.ask(OWN, vec![Op::Remove])),
            ("read and write", "osd rw pool=vms", "osd w pool=vms", self.ask(OWN, vec![Op::Stat, Op::Remove])),
            ("call a class", "osd x pool=v*", "osd rw pool=vms", self.ask(OWN, vec![call])),
            ("copy", "osd w pool=vms; osd r pool=other", "osd rw pool=vms", self.ask(OWN, vec![copy])),
            ("list", "osd r pool=vms", "osd r pool=vms namespace=bob", asking(method::LIST, wire::encode(&list))),
            ("look", "osd r", "osd r pool=vms", asking(method::LOOK, wire::encode(&Look { only: None }))),
            ("order", "osd a", "osd rwx", asking(method::TELL, wire::encode(&tell))),
        ]
    }
}

fn asking(method: u16, Parcel { meta, data }: Parcel) -> Request {
    Request::new(method, meta).with_data(data)
}

fn code(reply: Result<nacre_net::conn::Reply, CallError>) -> Code {
    match reply {
        Err(CallError::Failed(status)) => status.code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn with_too_few_capabilities_each_request_is_refused_and_audited() {
    let mut stage = Stage::new().await;
    for (what, suffices, too_little, request) in stage.requests() {
        for caps in [too_little, "", "mon *", "osd rwx pool=oth", "osd rwx pool=vms namespace=alice"] {
            let eve = stage.caller("client.eve", caps, OWN).await;
            assert_eq!(code(eve.call(request.clone()).await), Code::Denied, "{what} with {caps:?}");
            let audited = stage.audited();
            assert!(matches!(&audited[..], [one] if one.starts_with("client.eve may not")), "{what}: {audited:?}");
            assert!(stage.shard.try_recv().is_err(), "{what} with {caps:?} reached the groups");
        }
        let alice = stage.caller("client.alice", suffices, OWN).await;
        let reply = tokio::spawn(async move { alice.call(request).await });
        let event = tokio::time::timeout(Duration::from_secs(20), stage.shard.recv()).await;
        assert!(event.is_ok_and(|event| event.is_some()), "{what} with {suffices:?} does not reach the groups");
        let _dropped_with_its_responder = reply.await.unwrap();
        assert!(stage.audited().is_empty(), "{what} with {suffices:?}");
    }
}

#[tokio::test]
async fn whoever_speaks_for_others_was_fenced_or_is_no_osd_is_refused_with_all_capabilities() {
    let mut stage = Stage::new().await;
    let one = |stage: &Stage, why: &str| {
        let audited = stage.audited();
        assert!(matches!(&audited[..], [one] if one.contains(why)), "{audited:?}");
    };
    let eve = stage.caller("client.eve", "*", OWN).await;
    assert_eq!(code(eve.call(stage.ask(8, vec![Op::Stat])).await), Code::Denied);
    one(&stage, "speaks for another session");
    let old = stage.caller("client.eve", "*", FENCED).await;
    assert_eq!(code(old.call(stage.ask(FENCED, vec![Op::Remove])).await), Code::Fenced);
    one(&stage, "was fenced");
    // What no release knows, and what is no message, is told apart from what is refused.
    for (method, expected) in [
        (999, Code::Unsupported),
        (method::ASK, Code::Invalid),
        (method::LIST, Code::Invalid),
        (method::LOOK, Code::Invalid),
        (method::TELL, Code::Invalid),
    ] {
        let noise = Request::new(method, Bytes::new()).with_data(Bytes::from_static(b"\x01noise"));
        assert_eq!(code(eve.call(noise).await), expected, "method {method}");
    }
    // Only OSDs speak to groups: the connection ends.
    eve.notify(method::SAY, Priority::High, Bytes::new(), Bytes::from_static(b"anything")).unwrap();
    let over = async {
        while eve.is_over().is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), over).await.unwrap();
    one(&stage, "only OSDs speak to placement groups");
    assert!(stage.shard.try_recv().is_err(), "something reached the groups");
}

#[tokio::test]
async fn an_osd_without_a_map_lets_nobody_at_objects() {
    let mut stage = Stage::new().await;
    *stage.desk.sight.write().unwrap() = None;
    let alice = stage.caller("client.alice", "*", OWN).await;
    assert_eq!(code(alice.call(stage.ask(OWN, vec![Op::Stat])).await), Code::Unavailable);
    assert!(stage.shard.try_recv().is_err());
}
