//! Carries messages to the other OSDs, one link each, and knows who answers.
//!
//! What a group relies on: over one connection everything arrives, in order; when a connection ends, whoever may have
//! lost messages is told before anything later is sent or handed over. So after each connection the courier throws away
//! what a shard has queued until that shard has put an [`Item::Mark`] behind the point at which its groups were told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nacre_maps::map::OsdInfo;
use nacre_net::alarm::{Alarm, until_round};
use nacre_net::conn::{End, NoService, Request};
use nacre_net::frame::Priority;
use nacre_net::identity::Name;
use nacre_net::node::link::{Backoff, Link, State};
use nacre_net::node::{Address, Node};
use nacre_net::tls::Expect;
use nacre_pg::wire::{Parcel, method};
use nacre_proto::ids::{Incarnation, OsdId};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use crate::pulse::Pulse;
use crate::shard::Event;
use crate::shards::Shards;
use crate::sight::Sight;

/// From which silence on a peer is reported. How much it takes to mark one down is the monitors' to judge.
const SILENCE: Duration = Duration::from_millis(1200);

/// What waits for a peer.
enum Item {
    /// A message of a shard.
    Say(usize, Parcel),
    /// A shard's groups were told of the connection with this number: what it says next belongs to that.
    Mark(usize, u64),
}

/// How a peer stands.
#[derive(Clone, Copy, Debug)]
struct Sign {
    run: Incarnation,
    /// When it was last asked something that it answered.
    heard: Instant,
    refused: bool,
    /// The monitors were told that it does not answer.
    told: bool,
}

impl Sign {
    fn of(run: Incarnation) -> Sign {
        Sign { run, heard: Instant::now(), refused: false, told: false }
    }

    fn is_silent(&self, least: Duration) -> bool {
        self.refused || self.heard.elapsed() >= least
    }
}

type Signs = Arc<Mutex<BTreeMap<OsdId, Sign>>>;

/// A peer that does not answer, or answers again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silent {
    /// Who.
    pub osd: OsdId,
    /// Which run of it.
    pub run: Incarnation,
    /// For how long.
    pub silent: Duration,
    /// Its host says that no such process listens.
    pub refused: bool,
    /// It was reported before, and is not silent any more.
    pub alive: bool,
}

struct Way {
    link: Link,
    queue: mpsc::UnboundedSender<Item>,
    _tasks: JoinSet<()>,
}

/// All couriers of a daemon.
pub struct Couriers {
    me: OsdId,
    node: Arc<Node>,
    shards: Shards,
    ways: Mutex<BTreeMap<OsdId, Way>>,
    /// Who asks after which run of a peer. A new run has a new address, and what the old one's says of it is nothing.
    beats: Mutex<BTreeMap<OsdId, (Incarnation, JoinSet<()>)>>,
    signs: Signs,
    alarm: Arc<Notify>,
    pulse: Pulse,
    /// How often each peer is asked whether it lives, in milliseconds.
    every: Arc<AtomicU64>,
    /// Changes when it is time to ask.
    rounds: watch::Receiver<()>,
}

/// Where other OSDs reach this one.
fn address(info: &OsdInfo) -> Option<Address> {
    let tcp: &SocketAddr = info.cluster.first()?;
    let whole = if info.local_socket.is_empty() { tcp.to_string() } else { format!("{tcp},{}", info.local_socket) };
    whole.parse().ok()
}

/// Where others feel its pulse.
fn pulse_of(info: &OsdInfo) -> Option<Address> {
    info.heartbeat.first().map(|at| Address::of_tcp(*at))
}

impl Couriers {
    /// To nobody yet.
    pub fn new(me: OsdId, node: Arc<Node>, shards: Shards, pulse: Pulse) -> Arc<Couriers> {
        let (signs, alarm, every) = (Signs::default(), Arc::<Notify>::default(), Arc::new(AtomicU64::new(300)));
        let (to, rounds) = watch::channel(());
        pulse.runtime().spawn(call_rounds(to, Arc::clone(&every), Arc::clone(&signs), Arc::clone(&alarm)));
        let (ways, beats) = Default::default();
        Arc::new(Couriers { me, node, shards, ways, beats, signs, alarm, pulse, every, rounds })
    }

    /// How often peers are asked whether they live, from the next time on.
    pub fn ask_every(&self, every: Duration) {
        self.every.store(u64::try_from(every.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// A new map: ways to whoever is up in it. Call it within the runtime.
    pub fn follow(&self, sight: &Sight) {
        let mut ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        let mut signs = self.signs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        beats.retain(|osd, _| sight.map.osds.contains(*osd));
        ways.retain(|osd, _| sight.map.osds.contains(*osd));
        for (osd, state) in sight.map.osds.iter().filter(|(osd, _)| *osd != self.me) {
            if !state.is_up() {
                signs.remove(&osd);
                beats.remove(&osd);
                continue;
            }
            let Some(info) = sight.map.osd_info.get(osd) else { continue };
            let Some((to, pulse)) = address(info).zip(pulse_of(info)) else { continue };
            match ways.get(&osd) {
                Some(way) => way.link.move_to(to),
                None => drop(ways.insert(osd, self.open(osd, to))),
            }
            let fresh = Sign::of(state.incarnation);
            let sign = signs.entry(osd).or_insert(fresh);
            if sign.run != state.incarnation {
                *sign = fresh;
            }
            if beats.get(&osd).is_none_or(|(run, _)| *run != state.incarnation) {
                beats.insert(osd, (state.incarnation, self.feel(osd, state.incarnation, pulse)));
            }
        }
    }

    fn open(&self, osd: OsdId, to: Address) -> Way {
        let expect = Expect::Name(Name::osd(osd));
        let backoff = Backoff { longest: Duration::from_millis(500), ..Backoff::default() };
        let (link, task) = Link::new(Arc::clone(&self.node), to, expect, 0, backoff, || NoService);
        let (queue, items) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(task.run());
        tasks.spawn(deliver(osd, link.clone(), items, self.shards.clone()));
        Way { link, queue, _tasks: tasks }
    }

    /// Asks one run of a peer whether it lives, until what this gives is dropped.
    fn feel(&self, osd: OsdId, run: Incarnation, at: Address) -> JoinSet<()> {
        let backoff = Backoff { longest: Duration::from_millis(500), ..Backoff::default() };
        let expect = Expect::Name(Name::osd(osd));
        let (link, task) = Link::new(Arc::clone(&self.node), at, expect, 1, backoff, || NoService);
        let mut tasks = JoinSet::new();
        tasks.spawn_on(task.run(), self.pulse.runtime());
        let (signs, alarm) = (Arc::clone(&self.signs), Arc::clone(&self.alarm));
        let beat = beat(osd, run, link, signs, alarm, self.rounds.clone());
        tasks.spawn_on(beat, self.pulse.runtime());
        tasks
    }

    fn put(&self, to: OsdId, item: Item) {
        let ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(way) = ways.get(&to) {
            // Its task is gone only with the way.
            let _ = way.queue.send(item);
        }
    }

    /// A shard says something to an OSD; it is lost, and the groups are told, if there is no connection.
    pub fn say(&self, shard: usize, to: OsdId, said: Parcel) {
        self.put(to, Item::Say(shard, said));
    }

    /// A shard's groups were told of a connection: what it says now may go over that.
    pub fn mark(&self, shard: usize, to: OsdId, connection: u64) {
        self.put(to, Item::Mark(shard, connection));
    }

    /// Its own pulse, to which the threads of shards are shown.
    pub fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// Until there may be something to report: a peer is silent, its process is known to be gone, or one that was
    /// reported answers again. As long as one is silent, again in each round.
    pub async fn alarmed(&self) {
        self.alarm.notified().await;
    }

    /// What there is to report. Who was reported and answers again is in it once.
    pub fn to_report(&self) -> Vec<Silent> {
        due(&mut self.signs.lock().unwrap_or_else(PoisonError::into_inner), least(&self.every))
    }
}

/// See [`Couriers::to_report`].
fn due(signs: &mut BTreeMap<OsdId, Sign>, least: Duration) -> Vec<Silent> {
    let report = |(osd, sign): (&OsdId, &mut Sign)| {
        let silent = sign.is_silent(least);
        let before = std::mem::replace(&mut sign.told, silent);
        let &mut Sign { run, refused, heard, .. } = sign;
        (before || silent).then(|| Silent { osd: *osd, run, silent: heard.elapsed(), refused, alive: !silent })
    };
    signs.iter_mut().filter_map(report).collect()
}

/// From which silence on a peer is reported: it was asked at least twice.
fn least(every: &AtomicU64) -> Duration {
    SILENCE.max(Duration::from_millis(every.load(Ordering::Relaxed)) * 2)
}

/// Has all peers asked at the same time, until nobody listens any more, and looks who has not answered. All OSDs of a host
/// have these rounds together.
async fn call_rounds(to: watch::Sender<()>, every: Arc<AtomicU64>, signs: Signs, alarm: Arc<Notify>) {
    let clock = Alarm::new();
    while !to.is_closed() {
        clock.set(until_round(Duration::from_millis(every.load(Ordering::Relaxed))));
        clock.rang().await;
        to.send_replace(());
        let least = least(&every);
        let signs = signs.lock().unwrap_or_else(PoisonError::into_inner);
        if signs.values().any(|sign| sign.told || sign.is_silent(least)) {
            alarm.notify_one();
        }
    }
}

/// So many messages are taken at a time.
const BATCH: usize = 64;

async fn deliver(osd: OsdId, link: Link, mut items: mpsc::UnboundedReceiver<Item>, shards: Shards) {
    let mut connection = 0;
    // Of which connection each shard's groups know.
    let mut told = vec![0; shards.count()];
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let Ok(peer) = link.peer().await else { return };
        connection += 1;
        if !shards.all(|| Event::Reset(osd, Some(connection))) {
            return;
        }
        let mut over = std::pin::pin!(peer.over_with());
        'up: loop {
            tokio::select! {
                biased;
                _end = over.as_mut() => break,
                count = items.recv_many(&mut batch, BATCH) => if count == 0 { return },
            }
            for item in batch.drain(..) {
                let said = match item {
                    Item::Mark(shard, now) => {
                        told[shard] = now;
                        continue;
                    }
                    // What was queued before the groups were told belongs to no connection.
                    Item::Say(shard, _) if told[shard] != connection => continue,
                    Item::Say(_, said) => said,
                };
                let Parcel { meta, data } = said;
                if let Err(error) = peer.notify_in_turn(method::SAY, Priority::Normal, meta, data).await {
                    // Whatever the reason, it did not arrive: only a new connection can follow.
                    tracing::debug!(%osd, %error, "a message could not be sent");
                    peer.close("a message could not be sent");
                    break 'up;
                }
            }
        }
        peer.over_with().await;
    }
}

/// Asks a peer in each round, unless it still owes an answer, and whenever its connection changes.
async fn beat(
    osd: OsdId,
    run: Incarnation,
    link: Link,
    signs: Signs,
    alarm: Arc<Notify>,
    mut rounds: watch::Receiver<()>,
) {
    let mut news = link.watch();
    loop {
        news.mark_unchanged();
        rounds.mark_unchanged();
        let asked = Instant::now();
        let (alive, refused) = match link.state() {
            // One that never answers is silent since it was asked; a connection that ends answers too.
            State::Up(peer) => {
                let ping = Request::new(method::PING, Bytes::new()).at(Priority::High);
                (peer.call(ping).await.is_ok(), false)
            }
            State::Down { last, .. } => (false, last.is_some_and(|end| is_refused(&end))),
            State::Closed => return,
        };
        let said = |sign: &&mut Sign| sign.run == run;
        if let Some(sign) = signs.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&osd).filter(said) {
            if alive {
                sign.heard = asked;
            }
            if refused && !sign.refused {
                alarm.notify_one();
            }
            sign.refused = refused;
        }
        tokio::select! {
            changed = rounds.changed() => if changed.is_err() { return },
            // A process that ends is seen at once.
            changed = news.changed() => if changed.is_err() { return },
        }
    }
}

fn is_refused(end: &End) -> bool {
    matches!(end, End::Connect { source, .. } if source.kind() == std::io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_peer_is_reported_until_it_answers_and_that_once() {
        let mut signs = BTreeMap::from([(OsdId(1), Sign::of(Incarnation(7))), (OsdId(2), Sign::of(Incarnation(3)))]);
        let said = |signs: &mut BTreeMap<OsdId, Sign>| -> Vec<(u32, bool, bool)> {
            let said = due(signs, SILENCE);
            said.iter().map(|peer| (peer.osd.0, peer.refused, peer.alive)).collect()
        };
        assert_eq!(said(&mut signs), []);
        let Some(sign) = signs.get_mut(&OsdId(1)) else { panic!() };
        sign.heard = Instant::now().checked_sub(SILENCE * 2).unwrap();
        assert_eq!(said(&mut signs), [(1, false, false)]);
        assert_eq!(said(&mut signs), [(1, false, false)], "the monitors may have changed leaders meanwhile");
        signs.insert(OsdId(1), Sign { heard: Instant::now(), ..signs[&OsdId(1)] });
        signs.insert(OsdId(2), Sign { refused: true, ..signs[&OsdId(2)] });
        assert_eq!(said(&mut signs), [(1, false, true), (2, true, false)]);
        assert_eq!(said(&mut signs), [(2, true, false)]);
    }
}
