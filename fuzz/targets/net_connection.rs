//! A peer that says anything after an honest hello, with checksums that hold: the connection goes on or ends; it does
//! not panic, and what it holds of the budget is given back.

#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use nacre_net::conn::hello::{self, Hello, Own, Proof};
use nacre_net::conn::serve::Notice;
use nacre_net::conn::{Budget, Call, Config, Handler, NetMetrics, Peer, Request, Via};
use nacre_net::frame::encode::seal;
use nacre_net::frame::{Header, Kind, Limits, Priority};
use nacre_net::identity::certificate::Serial;
use nacre_net::identity::{Caps, ClusterId, Identity, UnixTime};
use nacre_net::metrics::Registry;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
});

/// Answers some at once, some late, some never.
struct Service(Vec<Call>);

impl Handler for Service {
    fn request(&mut self, call: Call) {
        match call.method % 4 {
            0 => call.ok(Bytes::new(), Bytes::new()),
            1 => {
                let room = call.room.min(100_000) as usize;
                call.ok(Bytes::new(), vec![7; room].into());
            }
            2 => self.0.push(call),
            _ => {}
        }
    }

    fn notice(&mut self, peer: &Peer, _notice: Notice) {
        let _ = peer.notify(1, Priority::Low, Bytes::new(), Bytes::new());
        self.0.clear();
    }
}

/// The input as frames: 12 bytes each, and what is left as it is.
fn script(input: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut chunks = input.chunks_exact(12);
    for c in &mut chunks {
        let kind = match c[0] % 8 {
            0 => Kind::Hello,
            1..=3 => Kind::Request,
            4 => Kind::Reply,
            5 => Kind::Notice,
            6 => Kind::Ping,
            _ => Kind::Bye,
        };
        let priority = [Priority::High, Priority::Normal, Priority::Low][usize::from(c[1] % 3)];
        let id = u64::from(c[2]) << 32 | u64::from(c[3] % 4);
        let room = u32::from_le_bytes([c[4], c[5], c[6] % 4, 0]);
        let header = Header { priority, method: u16::from(c[7]), code: u16::from(c[8]), room, ..Header::bare(kind, id) };
        let meta = vec![c[9]; usize::from(c[9])];
        let data = vec![c[10]; usize::from(c[10]) * usize::from(c[11])];
        let header = seal(header, &meta, &data, None);
        out.extend_from_slice(&header.encode());
        out.extend_from_slice(&meta);
        out.extend_from_slice(&data);
    }
    out.extend_from_slice(chunks.remainder());
    out
}

fuzz_target!(|input: &[u8]| {
    let bytes = script(input);
    RUNTIME.block_on(async {
        let identity = |name: &str| {
            Arc::new(Identity {
                cluster: ClusterId([1; 16]),
                name: name.parse().expect("a name"),
                caps: Caps::all(),
                generation: 0,
                serial: Serial(Box::new([1])),
                not_before: UnixTime(0),
                not_after: UnixTime(u64::MAX),
                signer: None,
            })
        };
        let budget = Budget::new(1 << 20);
        let config = Config {
            limits: Limits { meta: 4096, data: 1 << 18 },
            window: 1 << 20,
            tick: Duration::from_secs(1),
            ..Config::default()
        };
        let own = Own {
            cluster: ClusterId([1; 16]),
            name: "osd.1".into(),
            incarnation: 1,
            session: 0,
            lane: 0,
            last_met: 0,
            certificate: Bytes::new(),
            config,
            budget: Some(budget.clone()),
            metrics: NetMetrics::new(&Registry::new("fuzz")),
        };
        let (mut raw, stream) = tokio::io::duplex(1 << 14);
        let greeting = Hello {
            oldest: 1,
            newest: 1,
            cluster: Bytes::from_static(&[1; 16]),
            name: "client.a".into(),
            window: 1 << 20,
            most_meta: 4096,
            most_data: 1 << 18,
            ..Hello::default()
        };
        let meta = prost::Message::encode_to_vec(&greeting);
        let header = seal(Header::bare(Kind::Hello, 0), &meta, &[], None);
        raw.write_all(&[&header.encode()[..], &meta].concat()).await.expect("room in the pipe");
        let proof = Proof::Known(identity("client.a"), None);
        let connection = hello::accept(stream, own, proof, Via::Memory).await.expect("an honest hello");
        let peer = connection.peer();
        let calls = async {
            let call = || peer.call(Request::new(1, Bytes::new()).with_room(10));
            let _ = tokio::join!(call(), call(), call());
        };
        let (mut from, mut to) = tokio::io::split(raw);
        let talk = async {
            let _ = to.write_all(&bytes).await;
            // The end of the stream, so that every run ends.
            let _ = to.shutdown().await;
        };
        let listen = async {
            let mut sink = vec![0; 1 << 14];
            while from.read(&mut sink).await.is_ok_and(|n| n > 0) {}
        };
        let run = async {
            let (_, ()) = tokio::join!(connection.run(Service(Vec::new())), calls);
        };
        tokio::join!(run, talk, async {
            let _ = tokio::time::timeout(Duration::from_secs(5), listen).await;
        });
        assert_eq!(budget.used(), 0);
    });
});
