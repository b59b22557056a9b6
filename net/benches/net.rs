//! CPU time of calls over plain TCP, TLS and a local socket, both ends on a thread of their own with a current-thread
//! runtime. CPU time, not wall: it hardly moves when the machine is busy. The best of three rounds counts.
//!
//! Plain TCP exists only here, to compare with: the product has no way to speak it.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench reports by print and stops at the first trouble"
)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nacre_net::conn::hello::{self, Own, Proof};
use nacre_net::conn::{Call, Config, Connection, Handler, NetMetrics, Peer, Request, Via};
use nacre_net::frame::checksum;
use nacre_net::identity::{Authority, Caps, ClusterId, Grant, Identity, UnixTime};
use nacre_net::metrics::Registry;
use nacre_net::tls::{ALPN_FRAMES, Accepted, Credentials, Expect, TlsClient, TlsServer, Trust};
use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const WRITE: u16 = 1;
const READ: u16 = 2;
const MIB: usize = 1 << 20;

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Plain,
    Tls,
    Local,
}

struct Store {
    large: Bytes,
    crc: u32,
}

impl Handler for Store {
    fn request(&mut self, call: Call) {
        match call.method {
            READ => call.into_responder().ok(Bytes::new(), self.large.clone(), Some(self.crc)),
            _ => call.ok(Bytes::new(), Bytes::new()),
        }
    }
}

fn cpu(clock: ClockId) -> Duration {
    let t = clock_gettime(clock);
    Duration::new(u64::try_from(t.tv_sec).unwrap(), u32::try_from(t.tv_nsec).unwrap())
}

struct Keys {
    authority: Authority,
    trust: Arc<Trust>,
}

impl Keys {
    fn credentials(&self, name: &str) -> Arc<Credentials> {
        let grant = Grant { name: name.parse().unwrap(), caps: Caps::all(), generation: 0 };
        let pair = self.authority.issue(&grant, UnixTime::now(), Duration::from_secs(86_400)).unwrap();
        Credentials::new(&pair, self.authority.certificate()).unwrap()
    }

    fn own(&self, who: &Identity) -> Own {
        Own {
            cluster: who.cluster,
            name: who.name.to_string(),
            incarnation: 1,
            session: 0,
            lane: 0,
            last_met: 0,
            certificate: Bytes::new(),
            config: Config { window: 256 << 20, ..Config::default() },
            budget: None,
            metrics: NetMetrics::new(&Registry::new("bench")),
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Calls `count` times with `depth` in flight; gives CPU per call of client and server, and calls per second.
fn round(
    way: Way,
    keys: &Arc<Keys>,
    depth: usize,
    count: usize,
    make: fn(&Bytes) -> Request,
    payload: &Bytes,
) -> [f64; 3] {
    let (address_to, address) = std::sync::mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = std::thread::spawn({
        let (keys, large) = (keys.clone(), payload.clone());
        move || {
            runtime().block_on(async move {
                let own_identity = keys.credentials("osd.1");
                let client =
                    Arc::new(Identity { name: "client.a".parse().unwrap(), ..(*own_identity.identity()).clone() });
                let own = keys.own(&own_identity.identity());
                let proof = Proof::Known(client, Some(keys.trust.clone()));
                let store = Store { crc: checksum(&large), large };
                match way {
                    Way::Local => {
                        let folder = std::env::temp_dir().join(format!("nacre-bench-{}", std::process::id()));
                        let _ = std::fs::remove_file(&folder);
                        let listener = UnixListener::bind(&folder).unwrap();
                        address_to.send(folder.display().to_string()).unwrap();
                        let (stream, _) = listener.accept().await.unwrap();
                        std::fs::remove_file(&folder).unwrap();
                        serve(hello::accept(stream, own, proof, Via::Memory).await.unwrap(), store, stopped).await;
                    }
                    _ => {
                        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                        address_to.send(listener.local_addr().unwrap().to_string()).unwrap();
                        let (stream, _) = listener.accept().await.unwrap();
                        stream.set_nodelay(true).unwrap();
                        if way == Way::Plain {
                            let connection = hello::accept(stream, own, proof, Via::Memory).await.unwrap();
                            return serve(connection, store, stopped).await;
                        }
                        let tls = TlsServer::new(keys.trust.clone(), own_identity, &[ALPN_FRAMES]).unwrap();
                        let Accepted::Member(stream, who) = tls.accept(stream).await.unwrap() else {
                            panic!("a member")
                        };
                        let proof = Proof::Known(who, Some(keys.trust.clone()));
                        serve(hello::accept(*stream, own, proof, Via::Memory).await.unwrap(), store, stopped).await;
                    }
                }
            });
        }
    });
    let address = address.recv().unwrap();
    let result = runtime().block_on(async {
        let credentials = keys.credentials("client.a");
        let osd = Arc::new(Identity { name: "osd.1".parse().unwrap(), ..(*credentials.identity()).clone() });
        let own = keys.own(&credentials.identity());
        let proof = Proof::Known(osd, Some(keys.trust.clone()));
        let measure = |peer| measure(peer, depth, count, make, payload.clone());
        match way {
            Way::Local => {
                let stream = UnixStream::connect(&address).await.unwrap();
                drive(hello::dial(stream, own, proof, Via::Memory, None).await.unwrap(), measure).await
            }
            Way::Plain => {
                let stream = TcpStream::connect(&address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                drive(hello::dial(stream, own, proof, Via::Memory, None).await.unwrap(), measure).await
            }
            Way::Tls => {
                let stream = TcpStream::connect(&address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                let tls = TlsClient::new(keys.trust.clone(), credentials, ALPN_FRAMES).unwrap();
                let expect = Expect::Name("osd.1".parse().unwrap());
                let (stream, who) = tls.connect(stream, &expect).await.unwrap();
                let proof = Proof::Known(who, Some(keys.trust.clone()));
                drive(hello::dial(stream, own, proof, Via::Memory, None).await.unwrap(), measure).await
            }
        }
    });
    let _ = stop.send(());
    server.join().unwrap();
    result
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    connection: Connection<S>,
    store: Store,
    stopped: tokio::sync::oneshot::Receiver<()>,
) {
    tokio::select! {
        _ = connection.run(store) => {}
        _ = stopped => {}
    }
}

async fn drive<S, F>(connection: Connection<S>, measure: impl FnOnce(Peer) -> F) -> [f64; 3]
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = [f64; 3]>,
{
    let peer = connection.peer();
    let task = tokio::spawn(connection.run(nacre_net::conn::serve::NoService));
    let result = measure(peer.clone()).await;
    peer.close("done");
    let _ = task.await;
    result
}

async fn measure(peer: Peer, depth: usize, count: usize, make: fn(&Bytes) -> Request, payload: Bytes) -> [f64; 3] {
    calls(&peer, depth, count / 10 + depth, make, &payload).await;
    let (mine, all) = (cpu(ClockId::ThreadCPUTime), cpu(ClockId::ProcessCPUTime));
    let began = std::time::Instant::now();
    let done = calls(&peer, depth, count, make, &payload).await;
    let wall = began.elapsed();
    let mine = cpu(ClockId::ThreadCPUTime) - mine;
    let theirs = (cpu(ClockId::ProcessCPUTime) - all).saturating_sub(mine);
    let per = |d: Duration| d.as_secs_f64() * 1e6 / done as f64;
    [per(mine), per(theirs), done as f64 / wall.as_secs_f64()]
}

async fn calls(peer: &Peer, depth: usize, count: usize, make: fn(&Bytes) -> Request, payload: &Bytes) -> usize {
    let each = count / depth;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..depth {
        let (peer, payload) = (peer.clone(), payload.clone());
        tasks.spawn(async move {
            for _ in 0..each {
                peer.call(make(&payload)).await.unwrap();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    each * depth
}

fn small_write(payload: &Bytes) -> Request {
    // As long as the metadata of an object write: epoch, pool, name, offset.
    Request::new(WRITE, Bytes::from_static(&[7; 56])).with_data(payload.clone())
}

fn large_read(payload: &Bytes) -> Request {
    Request::new(READ, Bytes::from_static(&[7; 56])).with_room(u32::try_from(payload.len()).unwrap())
}

fn best(
    way: Way,
    keys: &Arc<Keys>,
    depth: usize,
    count: usize,
    make: fn(&Bytes) -> Request,
    payload: &Bytes,
) -> [f64; 3] {
    let rounds = (0..3).map(|_| round(way, keys, depth, count, make, payload));
    rounds.min_by(|a, b| (a[0] + a[1]).total_cmp(&(b[0] + b[1]))).unwrap()
}

fn main() {
    // `cargo test --benches` runs this without `--bench`: once, shortly.
    let short = !std::env::args().any(|a| a == "--bench");
    let scale = if short { 100 } else { 1 };
    let authority = Authority::create(ClusterId([1; 16]), UnixTime::now(), Duration::from_secs(86_400)).unwrap();
    let trust = Trust::new(authority.cluster(), vec![authority.certificate().to_vec()]).unwrap();
    let keys = Arc::new(Keys { authority, trust });
    let ways = [(Way::Plain, "plain TCP"), (Way::Tls, "TLS"), (Way::Local, "local socket")];

    println!("4 KiB write, empty reply: CPU us per call, client + server\n");
    println!("| way | depth | both | client | server | calls/s |\n| --- | --- | --- | --- | --- | --- |");
    let small = Bytes::from(vec![0x5a; 4096]);
    for (way, name) in ways {
        for (depth, count) in [(1, 40_000), (16, 400_000), (128, 400_000)] {
            let [client, server, rate] = best(way, &keys, depth, count / scale + depth, small_write, &small);
            println!("| {name} | {depth} | {:.2} | {client:.2} | {server:.2} | {rate:.0} |", client + server);
        }
    }
    println!("\n4 MiB: CPU us per MiB, client + server\n");
    println!("| way | depth | write | read |\n| --- | --- | --- | --- |");
    let large = Bytes::from(vec![0x5a; 4 * MIB]);
    for (way, name) in ways {
        for depth in [1, 16] {
            let per_mib = |make: fn(&Bytes) -> Request| {
                let [client, server, _] = best(way, &keys, depth, 400 / scale + depth, make, &large);
                (client + server) / 4.0
            };
            println!("| {name} | {depth} | {:.0} | {:.0} |", per_mib(small_write), per_mib(large_read));
        }
    }
}
