//! Connections: calls, windows, damage, silence. Each case that ends a connection checks the counted reason.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use nacre_proto::status::{Code, Status};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::hello::{Own, Proof, accept, dial};
use super::serve::{NoService, Notice};
use super::*;
use crate::frame::encode::seal;
use crate::frame::{Decoder, Frame, HEADER, Header, Kind, Priority};
use crate::identity::certificate::Serial;
use crate::identity::{Caps, ClusterId, Name, Revocations, UnixTime};

fn identity(name: &str) -> Arc<Identity> {
    Arc::new(Identity {
        cluster: ClusterId([1; 16]),
        name: name.parse().unwrap(),
        caps: Caps::all(),
        generation: 0,
        serial: Serial(Box::new([1])),
        not_before: UnixTime(0),
        not_after: UnixTime(u64::MAX),
        signer: None,
    })
}

fn metrics() -> NetMetrics {
    NetMetrics::new(&Registry::new("test"))
}

fn own(name: &str, config: &Config, metrics: &NetMetrics) -> Own {
    Own {
        cluster: ClusterId([1; 16]),
        name: name.into(),
        incarnation: 7,
        session: 0,
        lane: 0,
        last_met: 0,
        certificate: Bytes::new(),
        config: config.clone(),
        budget: None,
        metrics: metrics.clone(),
    }
}

/// Hands everything to the test.
struct Desk {
    calls: mpsc::UnboundedSender<Call>,
    notices: mpsc::UnboundedSender<Notice>,
}

impl Handler for Desk {
    fn request(&mut self, call: Call) {
        let _ = self.calls.send(call);
    }

    fn notice(&mut self, _peer: &Peer, notice: Notice) {
        let _ = self.notices.send(notice);
    }
}

struct Side {
    peer: Peer,
    calls: mpsc::UnboundedReceiver<Call>,
    notices: mpsc::UnboundedReceiver<Notice>,
    task: JoinHandle<Arc<End>>,
}

fn spawn(connection: Connection<DuplexStream>) -> Side {
    let (calls, from_calls) = mpsc::unbounded_channel();
    let (notices, from_notices) = mpsc::unbounded_channel();
    let peer = connection.peer();
    let task = tokio::spawn(connection.run(Desk { calls, notices }));
    Side { peer, calls: from_calls, notices: from_notices, task }
}

async fn connections(dialer: Own, acceptor: Own, pipe: usize) -> (Connection<DuplexStream>, Connection<DuplexStream>) {
    let (a, b) = tokio::io::duplex(pipe);
    let (osd, alice) = (Proof::Known(identity("osd.1"), None), Proof::Known(identity("client.alice"), None));
    let (dialed, accepted) =
        tokio::join!(dial(a, dialer, osd, Via::Memory, None), accept(b, acceptor, alice, Via::Memory));
    (dialed.unwrap(), accepted.unwrap())
}

async fn pair(config: &Config, metrics: &NetMetrics) -> (Side, Side) {
    let (a, b) = connections(own("client.alice", config, metrics), own("osd.1", config, metrics), 1 << 16).await;
    (spawn(a), spawn(b))
}

/// A peer that speaks frames by hand, after an honest hello.
struct Raw {
    stream: DuplexStream,
    decoder: Decoder,
}

impl Raw {
    async fn meet(config: &Config, metrics: &NetMetrics, pipe: usize) -> (Raw, Side) {
        let (mut a, b) = tokio::io::duplex(pipe);
        let proof = Proof::Known(identity("client.alice"), None);
        let server = accept(b, own("osd.1", config, metrics), proof, Via::Memory);
        let raw = async {
            let hello = hello::Hello {
                oldest: 1,
                newest: 1,
                cluster: Bytes::from_static(&[1; 16]),
                name: "client.alice".into(),
                window: 1 << 20,
                most_meta: 1 << 16,
                most_data: 1 << 20,
                ..hello::Hello::default()
            };
            let meta = prost::Message::encode_to_vec(&hello);
            a.write_all(&bytes(Header::bare(Kind::Hello, 0), &meta, &[])).await.unwrap();
            let mut raw = Raw { stream: a, decoder: Decoder::new(Limits::default()) };
            assert_eq!(raw.frame().await.header.kind, Kind::Hello);
            raw
        };
        let (server, raw) = tokio::join!(server, raw);
        (raw, spawn(server.unwrap()))
    }

    async fn frame(&mut self) -> Frame {
        loop {
            if let Some(frame) = self.decoder.next(&mut |_| true).unwrap() {
                return frame;
            }
            let mut some = BytesMut::with_capacity(1 << 16);
            assert_ne!(self.stream.read_buf(&mut some).await.unwrap(), 0, "closed");
            self.decoder.feed(&some);
        }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }
}

fn bytes(header: Header, meta: &[u8], data: &[u8]) -> Vec<u8> {
    let header = seal(header, meta, data, None);
    [&header.encode()[..], meta, data].concat()
}

fn request(id: u64, room: u32) -> Header {
    Header { room, method: 1, ..Header::bare(Kind::Request, id) }
}

#[tokio::test]
async fn calls_are_answered_in_any_order_with_large_data_aligned() {
    let (client, mut server) = pair(&Config::default(), &metrics()).await;
    assert_eq!(client.peer.info().identity.name.to_string(), "osd.1");
    assert_eq!(client.peer.info().incarnation, 7);
    let big = Bytes::from(vec![3u8; 3 << 20]);
    let first = client.peer.start(Request::new(1, Bytes::from_static(b"one")).with_data(big.clone())).unwrap();
    let second = client.peer.start(Request::new(2, Bytes::from_static(b"two")).with_room(4 << 20)).unwrap();
    let one = server.calls.recv().await.unwrap();
    let two = server.calls.recv().await.unwrap();
    assert_eq!((one.method, &one.meta[..], one.data.len()), (1, &b"one"[..], 3 << 20));
    assert_eq!(one.data.as_ptr().align_offset(crate::frame::ALIGNMENT), 0);
    assert_eq!(one.data_crc, crate::frame::checksum(&big));
    assert_eq!(one.who().unwrap().identity.name.to_string(), "client.alice");
    two.ok(Bytes::from_static(b"2"), big.clone());
    let reply = second.await.unwrap();
    assert_eq!((&reply.meta[..], reply.data), (&b"2"[..], big));
    one.fail(&Status::new(Code::NotFound, "no such object"));
    let failed = first.await.unwrap_err();
    assert!(matches!(&failed, CallError::Failed(s) if s.code == Code::NotFound && s.text == "no such object"));
}

#[tokio::test]
async fn every_call_gets_an_answer_also_from_a_careless_service() {
    let (client, mut server) = pair(&Config::default(), &metrics()).await;
    let dropped = client.peer.start(Request::new(1, Bytes::new())).unwrap();
    drop(server.calls.recv().await.unwrap());
    assert!(matches!(dropped.await, Err(CallError::Failed(s)) if s.code == Code::Internal));
    let roomy = client.peer.start(Request::new(1, Bytes::new()).with_room(10)).unwrap();
    server.calls.recv().await.unwrap().ok(Bytes::new(), Bytes::from_static(b"eleven bytes"));
    assert!(matches!(roomy.await, Err(CallError::Failed(s)) if s.code == Code::TooLarge));
    let huge = Bytes::from(vec![0; (16 << 20) + 1]);
    let refused = client.peer.call(Request::new(1, Bytes::new()).with_data(huge)).await;
    assert!(matches!(refused, Err(CallError::TooLarge { what: "data", .. })));
    // Both may call: the server asks the client, which has no service of its own here.
    let (a, b) = connections(
        own("client.alice", &Config::default(), &metrics()),
        own("osd.1", &Config::default(), &metrics()),
        4096,
    )
    .await;
    let caller = spawn(b);
    tokio::spawn(a.run(NoService));
    let refused = caller.peer.call(Request::new(1, Bytes::new())).await;
    assert!(matches!(refused, Err(CallError::Failed(s)) if s.code == Code::Unsupported));
}

#[tokio::test]
async fn a_caller_waits_for_the_window_and_a_full_one_says_so() {
    let config = Config { window: 3 * 4096, ..Config::default() };
    let (client, mut server) = pair(&config, &metrics()).await;
    let held: Vec<_> = (0..3).map(|_| client.peer.start(Request::new(1, Bytes::new())).unwrap()).collect();
    assert!(matches!(client.peer.start(Request::new(1, Bytes::new())), Err(CallError::Full)));
    let peer = client.peer.clone();
    let waiting = tokio::spawn(async move { peer.call(Request::new(2, Bytes::new())).await });
    let first = server.calls.recv().await.unwrap();
    let _second = server.calls.recv().await.unwrap();
    let _third = server.calls.recv().await.unwrap();
    assert!(server.calls.try_recv().is_err(), "the fourth waits on its own side");
    first.ok(Bytes::new(), Bytes::new());
    let fourth = server.calls.recv().await.unwrap();
    assert_eq!(fourth.method, 2);
    fourth.ok(Bytes::new(), Bytes::new());
    waiting.await.unwrap().unwrap();
    drop(held);
}

#[tokio::test]
async fn a_call_given_up_keeps_its_place_in_the_window_until_the_reply_came() {
    let config = Config { window: 4096, ..Config::default() };
    let counted = metrics();
    let (client, mut server) = pair(&config, &counted).await;
    drop(client.peer.start(Request::new(1, Bytes::new())).unwrap());
    let call = server.calls.recv().await.unwrap();
    assert!(matches!(client.peer.start(Request::new(1, Bytes::new())), Err(CallError::Full)));
    call.ok(Bytes::new(), Bytes::new());
    let next = client.peer.call(Request::new(1, Bytes::new()));
    let (next, ()) = tokio::join!(next, async { server.calls.recv().await.unwrap().ok(Bytes::new(), Bytes::new()) });
    next.unwrap();
    assert_eq!(counted.late_replies.get(), 1);
}

/// A payload that counts how many bytes of its kind are alive.
struct Counted(Vec<u8>, Arc<AtomicUsize>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(self.0.len(), Ordering::SeqCst);
    }
}

fn counted(len: usize, alive: &Arc<AtomicUsize>) -> Bytes {
    alive.fetch_add(len, Ordering::SeqCst);
    Bytes::from_owner(Counted(vec![1; len], alive.clone()))
}

#[tokio::test]
async fn a_slow_reader_pins_no_more_than_its_window() {
    let config = Config { window: 1 << 20, ..Config::default() };
    let counted_metrics = metrics();
    let (mut raw, mut server) = Raw::meet(&config, &counted_metrics, 1 << 14).await;
    let alive = Arc::new(AtomicUsize::new(0));
    // It asks for 100 KiB again and again, as its window allows, and reads nothing.
    let allowed = (1u64 << 20) / (102_400 + 4096);
    for id in 0..allowed {
        raw.send(&bytes(request(id, 102_400), b"", b"")).await;
        server.calls.recv().await.unwrap().ok(Bytes::new(), counted(102_400, &alive));
    }
    assert!(alive.load(Ordering::SeqCst) <= 1 << 20);
    // It reads them, and may ask again: the window is free when the replies are written.
    for id in 0..allowed {
        assert_eq!(raw.frame().await.header.id, id);
    }
    raw.send(&bytes(request(99, 102_400), b"", b"")).await;
    drop(server.calls.recv().await.unwrap());
    assert_eq!(raw.frame().await.header.id, 99);
    assert_eq!(alive.load(Ordering::SeqCst), 0, "what was written is freed");
    // It asks for more than its window: that is the end, and nothing of it was handed over.
    for id in 100..100 + allowed + 1 {
        raw.send(&bytes(request(id, 102_400), b"", b"")).await;
    }
    let end = server.task.await.unwrap();
    assert_eq!(end.reason(), "window_exceeded");
    assert_eq!(counted_metrics.ended_total("window_exceeded"), 1);
    let mut handed = 0;
    while server.calls.try_recv().is_ok() {
        handed += 1;
    }
    assert!(handed <= allowed, "{handed}");
}

#[tokio::test]
async fn connections_share_a_budget_and_wait_for_it() {
    let counted = metrics();
    let budget = Budget::new(1 << 20);
    let config = Config::default();
    let mut sides = Vec::new();
    for _ in 0..2 {
        let server = Own { budget: Some(budget.clone()), ..own("osd.1", &config, &counted) };
        let (a, b) = connections(own("client.alice", &config, &counted), server, 1 << 16).await;
        sides.push((spawn(a), spawn(b)));
    }
    let big = Bytes::from(vec![1; 700 << 10]);
    let write = || Request::new(1, Bytes::new()).with_data(big.clone());
    let first = sides[0].0.peer.start(write()).unwrap();
    let held = sides[0].1.calls.recv().await.unwrap();
    let second = sides[1].0.peer.start(write()).unwrap();
    while counted.paused.get() == 0 {
        tokio::task::yield_now().await;
    }
    assert!(sides[1].1.calls.try_recv().is_err(), "no memory for it yet");
    assert!(budget.used() <= 1 << 20);
    held.ok(Bytes::new(), Bytes::new());
    first.await.unwrap();
    sides[1].1.calls.recv().await.unwrap().ok(Bytes::new(), Bytes::new());
    second.await.unwrap();
    // A connection that ends gives back what its unanswered calls hold.
    let _third = sides[0].0.peer.start(write()).unwrap();
    let _held = sides[0].1.calls.recv().await.unwrap();
    sides[0].0.peer.close("done");
    sides[0].1.peer.over_with().await;
    (&mut sides[0].1.task).await.unwrap();
    while budget.used() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn damage_ends_that_connection_alone_with_a_counted_reason() {
    let counted = metrics();
    let config = Config::default();
    let (bystander, mut bystander_server) = pair(&config, &counted).await;
    let good = bytes(request(1, 0), b"meta", b"data");
    let change = |at: usize, to: u8| {
        let mut bytes = good.clone();
        bytes[at] ^= to;
        bytes
    };
    let over = Header { data_len: u32::MAX, ..Header::bare(Kind::Request, 1) };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("frame_magic", b"GET /index.html HTTP/1.1\r\nHost: somewhere\r\n\r\n".to_vec()),
        ("frame_version", change(4, 2)),
        ("frame_header_checksum", change(9, 1)),
        ("frame_meta_checksum", change(HEADER, 1)),
        ("frame_data_checksum", change(HEADER + 4, 1)),
        ("frame_data_too_large", over.encode().to_vec()),
        ("frame_truncated", good[..good.len() - 1].to_vec()),
        ("protocol", bytes(Header::bare(Kind::Hello, 0), b"", b"")),
        ("protocol", bytes(Header::bare(Kind::Reply, 77), b"", b"")),
        ("bye", bytes(Header::bare(Kind::Bye, 0), b"I am leaving", b"")),
        ("closed", Vec::new()),
    ];
    let mut told = std::collections::BTreeMap::new();
    for (reason, bytes) in cases {
        let (mut raw, mut server) = Raw::meet(&config, &counted, 1 << 16).await;
        raw.send(&bytes).await;
        drop(raw);
        assert_eq!(server.task.await.unwrap().reason(), reason);
        assert!(server.calls.try_recv().is_err(), "{reason}: nothing of it was handed over");
        *told.entry(reason).or_insert(0) += 1;
        assert_eq!(counted.ended_total(reason), told[reason]);
    }
    let call = bystander.peer.call(Request::new(1, Bytes::new()));
    let answer = async { bystander_server.calls.recv().await.unwrap().ok(Bytes::new(), Bytes::new()) };
    tokio::join!(call, answer).0.unwrap();
}

#[tokio::test]
async fn a_reply_larger_than_its_room_ends_the_connection() {
    let config = Config::default();
    let (mut raw, server) = Raw::meet(&config, &metrics(), 1 << 16).await;
    let call = server.peer.start(Request::new(1, Bytes::new()).with_room(3)).unwrap();
    let id = raw.frame().await.header.id;
    raw.send(&bytes(Header::bare(Kind::Reply, id), b"", b"four")).await;
    assert!(matches!(call.await, Err(CallError::Lost(_))));
    assert_eq!(server.task.await.unwrap().reason(), "protocol");
}

#[tokio::test]
async fn a_good_reply_counts_also_when_a_bad_one_follows() {
    let (mut raw, server) = Raw::meet(&Config::default(), &metrics(), 1 << 16).await;
    let good = server.peer.start(Request::new(1, Bytes::new())).unwrap();
    let bad = server.peer.start(Request::new(2, Bytes::new())).unwrap();
    let (good, bad) = (tokio::spawn(good), tokio::spawn(bad));
    let (first, second) = (raw.frame().await.header.id, raw.frame().await.header.id);
    // Both callers sleep by now; both replies come in one read.
    tokio::task::yield_now().await;
    let replies = [
        bytes(Header::bare(Kind::Reply, first), b"well", b""),
        bytes(Header::bare(Kind::Reply, second), b"", b"too much"),
    ];
    raw.send(&replies.concat()).await;
    assert_eq!(good.await.unwrap().unwrap().meta, "well");
    assert!(matches!(bad.await.unwrap(), Err(CallError::Lost(_))));
}

#[tokio::test(start_paused = true)]
async fn a_half_open_peer_is_found_out_by_its_silence() {
    let counted = metrics();
    let config = Config::default();
    let (mut raw, server) = Raw::meet(&config, &counted, 1 << 16).await;
    let began = tokio::time::Instant::now();
    assert_eq!(raw.frame().await.header.kind, Kind::Ping, "it is asked first");
    raw.send(&bytes(Header::bare(Kind::Pong, 1), b"", b"")).await;
    assert_eq!(raw.frame().await.header.kind, Kind::Ping, "it answered, so it lives, and is asked again later");
    let call = server.peer.start(Request::new(1, Bytes::new())).unwrap();
    assert!(matches!(call.await, Err(CallError::Lost(end)) if end.reason() == "silent"));
    assert_eq!(server.task.await.unwrap().reason(), "silent");
    assert!(began.elapsed() < config.tick * 7, "{:?}", began.elapsed());
    assert_eq!(counted.ended_total("silent"), 1);
}

#[tokio::test(start_paused = true)]
async fn two_idle_sides_keep_each_other_alive() {
    let (client, server) = pair(&Config::default(), &metrics()).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(client.peer.is_over().is_none() && server.peer.is_over().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_drips_is_cut_off() {
    let config = Config::default();
    let (mut raw, server) = Raw::meet(&config, &metrics(), 1 << 16).await;
    let frame = bytes(request(1, 0), b"", &[1; 1000]);
    let drip = async {
        for byte in &frame {
            if raw.stream.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(config.tick / 2).await;
        }
    };
    let (end, ()) = tokio::join!(server.task, drip);
    assert_eq!(end.unwrap().reason(), "stalled");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_talks_but_does_not_read_is_cut_off() {
    let config = Config::default();
    let (mut raw, server) = Raw::meet(&config, &metrics(), 1 << 10).await;
    for _ in 0..4 {
        server.peer.notify(1, Priority::Normal, Bytes::new(), Bytes::from(vec![0; 1000])).unwrap();
    }
    let talk = async {
        while raw.stream.write_all(&bytes(Header::bare(Kind::Pong, 1), b"", b"")).await.is_ok() {
            tokio::time::sleep(config.tick / 2).await;
        }
    };
    let (end, ()) = tokio::join!(server.task, talk);
    assert_eq!(end.unwrap().reason(), "slow_reader");
}

#[tokio::test]
async fn notices_wait_up_to_a_limit() {
    let config = Config { notices: 10_000, ..Config::default() };
    let (mut raw, server) = Raw::meet(&config, &metrics(), 1 << 10).await;
    let notify = || server.peer.notify(5, Priority::Normal, Bytes::from_static(b"n"), Bytes::from(vec![0; 1000]));
    let fit = std::iter::from_fn(|| notify().ok()).take(100).count();
    assert!((1..=10).contains(&fit), "{fit}");
    assert!(matches!(notify(), Err(CallError::Full)));
    for _ in 0..fit {
        let frame = raw.frame().await;
        assert_eq!((frame.header.kind, frame.header.method), (Kind::Notice, 5));
    }
    while notify().is_err() {
        tokio::task::yield_now().await;
    }
    let (client, mut server) = pair(&config, &metrics()).await;
    client.peer.notify(6, Priority::High, Bytes::new(), Bytes::from_static(b"seen")).unwrap();
    assert_eq!(server.notices.recv().await.unwrap().data, "seen");
}

#[tokio::test]
async fn notices_in_turn_wait_for_room_and_keep_their_order() {
    let config = Config { notices: 10_000, ..Config::default() };
    let (mut raw, server) = Raw::meet(&config, &metrics(), 1 << 10).await;
    let peer = server.peer.clone();
    let sender: JoinHandle<Result<(), CallError>> = tokio::spawn(async move {
        for n in 0..200u16 {
            peer.notify_in_turn(n, Priority::Normal, Bytes::new(), Bytes::from(vec![0; 1000])).await.unwrap();
        }
        // Nobody reads any more: it waits until the connection ends, and hears of that.
        loop {
            peer.notify_in_turn(0, Priority::Normal, Bytes::new(), Bytes::from(vec![0; 1000])).await?;
        }
    });
    for n in 0..200 {
        let frame = raw.frame().await;
        assert_eq!((frame.header.kind, frame.header.method), (Kind::Notice, n));
    }
    while !matches!(
        server.peer.notify(1, Priority::Low, Bytes::new(), Bytes::from(vec![0; 1000])),
        Err(CallError::Full)
    ) {
        tokio::task::yield_now().await;
    }
    assert!(!sender.is_finished());
    drop(raw);
    assert!(matches!(sender.await.unwrap(), Err(CallError::NotSent(_))));
}

#[tokio::test]
async fn urgent_frames_overtake_and_low_ones_get_their_share() {
    let (mut raw, server) = Raw::meet(&Config::default(), &metrics(), 1 << 20).await;
    let send = |method, priority| server.peer.notify(method, priority, Bytes::new(), Bytes::new()).unwrap();
    // Queued before the task gets its turn.
    for n in 0..40 {
        send(200 + n, Priority::Low);
        send(100 + n, Priority::Normal);
    }
    send(1, Priority::High);
    let mut order = Vec::new();
    for _ in 0..81 {
        order.push(raw.frame().await.header.method);
    }
    assert_eq!(order[0], 1);
    let normal: Vec<_> = order.iter().copied().filter(|m| (100..200).contains(m)).collect();
    let low: Vec<_> = order.iter().copied().filter(|m| *m >= 200).collect();
    assert!(normal.is_sorted() && low.is_sorted(), "order holds within a priority");
    let before_last_normal = order.iter().position(|m| *m == 139).unwrap();
    let low_meanwhile = order[..before_last_normal].iter().filter(|m| **m >= 200).count();
    assert!((4..=5).contains(&low_meanwhile), "{low_meanwhile}");
}

#[tokio::test]
async fn what_was_not_sent_is_told_from_what_may_have_been_done() {
    let (client, mut server) = pair(&Config::default(), &metrics()).await;
    let sent = client.peer.start(Request::new(1, Bytes::new())).unwrap();
    let held = server.calls.recv().await.unwrap();
    server.task.abort();
    assert!(matches!(sent.await, Err(CallError::Lost(_))));
    drop(held);
    assert!(matches!(client.peer.call(Request::new(1, Bytes::new())).await, Err(CallError::NotSent(_))));
    assert!(client.peer.is_over().is_some());

    // A request that is still in the queue when the connection ends never left.
    let (client, server) = pair(&Config::default(), &metrics()).await;
    client.peer.close("enough");
    let queued = client.peer.start(Request::new(1, Bytes::new())).unwrap();
    assert!(matches!(queued.await, Err(CallError::NotSent(_))));
    assert_eq!(server.task.await.unwrap().to_string(), "the peer ended the connection: enough");
}

#[tokio::test]
async fn hellos_that_do_not_fit_are_refused_with_a_reason_both_sides_hear() {
    let config = Config::default();
    let m = metrics();
    let mut other_cluster = own("client.alice", &config, &m);
    other_cluster.cluster = ClusterId([2; 16]);
    for (dialer, why) in [(other_cluster, "another cluster"), (own("client.bob", &config, &m), "calls itself")] {
        let (a, b) = tokio::io::duplex(1 << 16);
        let (osd, alice) = (Proof::Known(identity("osd.1"), None), Proof::Known(identity("client.alice"), None));
        let (dialed, accepted) = tokio::join!(
            dial(a, dialer, osd, Via::Memory, None),
            accept(b, own("osd.1", &config, &m), alice, Via::Memory)
        );
        assert_eq!(accepted.unwrap_err().reason(), "hello");
        let told = dialed.unwrap_err();
        assert_eq!(told.reason(), "bye");
        assert!(told.to_string().contains(why), "{told}");
    }
    let (a, b) = tokio::io::duplex(1 << 16);
    let (osd, alice) = (Proof::Known(identity("osd.1"), None), Proof::Known(identity("client.alice"), None));
    let expect = crate::tls::Expect::Name("osd.2".parse().unwrap());
    let (dialed, _) = tokio::join!(
        dial(a, own("client.alice", &config, &m), osd, Via::Memory, Some(&expect)),
        accept(b, own("osd.1", &config, &m), alice, Via::Memory)
    );
    assert_eq!(dialed.unwrap_err().reason(), "unexpected_peer");
}

#[tokio::test]
async fn a_peer_revoked_while_connected_is_not_heard_any_more() {
    let authority = crate::identity::Authority::create(ClusterId([1; 16]), UnixTime::now(), Duration::from_secs(1000));
    let authority = authority.unwrap();
    let trust = crate::tls::Trust::new(ClusterId([1; 16]), vec![authority.certificate().to_vec()]).unwrap();
    let (config, counted) = (Config::default(), metrics());
    let (a, b) = tokio::io::duplex(1 << 16);
    let (osd, alice) = (Proof::Known(identity("osd.1"), None), identity("client.alice"));
    let (dialed, accepted) = tokio::join!(
        dial(a, own("client.alice", &config, &counted), osd, Via::Memory, None),
        accept(b, own("osd.1", &config, &counted), Proof::Known(alice.clone(), Some(trust.clone())), Via::Memory)
    );
    let (client, mut server) = (spawn(dialed.unwrap()), spawn(accepted.unwrap()));
    let heard = client.peer.start(Request::new(1, Bytes::new())).unwrap();
    server.calls.recv().await.unwrap().ok(Bytes::new(), Bytes::new());
    heard.await.unwrap();
    let mut list = Revocations::default();
    list.revoke_name("client.alice".parse::<Name>().unwrap(), 1);
    trust.set_revocations(Arc::new(list));
    let unheard = client.peer.call(Request::new(2, Bytes::new())).await;
    assert!(matches!(unheard, Err(CallError::Lost(_))));
    assert!(server.calls.recv().await.is_none(), "nothing was handed over");
    assert_eq!(server.task.await.unwrap().reason(), "certificate_revoked");
    assert_eq!(counted.ended_total("certificate_revoked"), 1);
}
