//! One run: build the cluster of a seed, let faults happen, heal, wait for quiet, and judge.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use nacre_pg::op::Op;
use nacre_pg::state::Config;
use nacre_pg::view::PoolRules;
use nacre_proto::ids::{OsdId, SnapId};

use crate::client::Client;
use crate::map::{Map, Maps};
use crate::node::Node;
use crate::oracle;
use crate::oracle::alive::{STORM, settle};
use crate::scenario::{File, Scenario};
use crate::world::{Event, MS, World};

/// How to run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Keep the trace.
    pub trace: bool,
    /// What is not left to the seed.
    pub file: Option<Arc<File>>,
    /// Which deliberate fault the cores have.
    #[cfg(feature = "mutants")]
    pub mutant: Option<nacre_pg::mutant::Mutant>,
}

impl Options {
    /// The same, with or without a trace.
    #[must_use]
    pub fn traced(&self, trace: bool) -> Options {
        let mut out = self.clone();
        out.trace = trace;
        out
    }
}

/// What a run showed.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What was violated; empty is good.
    pub violations: Vec<String>,
    /// Operations of clients.
    pub operations: u64,
    /// Simulated time, nanoseconds.
    pub simulated: u64,
    /// Events done.
    pub events: u64,
    /// Of the whole run.
    pub hash: u64,
    /// Moves of state seen.
    pub moves: BTreeMap<(&'static str, &'static str), u64>,
    /// Faults done and things seen.
    pub sights: BTreeMap<&'static str, u64>,
    /// Objects whose history was too long to check.
    pub too_hard: u64,
    /// If wanted.
    pub trace: Vec<String>,
}

fn config(s: &Scenario, options: &Options) -> Config {
    let _ = options;
    Config {
        log_keep: s.log_keep,
        log_slack: 2,
        chunk_bytes: 40,
        chunk_keys: 2,
        recover_active: 2,
        window: 3,
        scrub_objects: 2,
        contexts: 2,
        check: true,
        #[cfg(feature = "mutants")]
        mutant: options.mutant,
        ..Config::default()
    }
}

/// Builds the cluster of a seed.
fn build(seed: u64, options: &Options) -> World {
    let drawn = options.file.as_ref().map_or_else(|| Ok(Scenario::draw(seed)), |f| f.draw(seed));
    #[expect(clippy::expect_used, reason = "a file was tried with many seeds when it was read")]
    let s = drawn.expect("a scenario file that was read");
    let pool = PoolRules { size: s.size, min_size: s.min_size, pg_num: s.pg_num, ..PoolRules::default() };
    let maps = Maps::new(Map::first(s.osds, pool));
    let cfg = Arc::new(config(&s, options));
    let mut r = crate::rng::Rng::new(seed ^ 0x636c_6f63);
    let nodes = (0..s.osds)
        .map(|i| {
            let rate = 1_000_000 - s.drift / 2 + r.below(s.drift + 1);
            Node::new(OsdId(i), Arc::clone(&cfg), (r.below(1 << 40), rate))
        })
        .collect();
    let clients = (0..s.clients).map(|id| Client::new(id, seed)).collect();
    let mut w = World::new(seed, s, maps, nodes, clients);
    if options.trace {
        w.trace = Some(Vec::new());
    }
    w.publish();
    for client in 0..w.clients.len() as u32 {
        w.after(MS, Event::Work { client });
        w.after(300 * MS, Event::Overdue { client });
        w.after(150 * MS, Event::Keep { client });
    }
    w.after(50 * MS, Event::Watch);
    let first = w.scenario.calm;
    w.after(first / 2, Event::Fault);
    if w.scenario.snapshots {
        w.after(w.scenario.span / 4, Event::Unsnap);
    }
    if w.scenario.grows {
        w.after(w.scenario.span / 5, Event::Grow);
    }
    if w.scenario.hunts {
        w.after(w.scenario.span / 8, Event::Plot);
    }
    w.after(500 * MS, Event::Sample);
    w.after(500 * MS, Event::Scrub);
    w
}

/// Runs a seed up to the moment its cluster is at rest, before the last judgement.
pub(crate) fn rest(seed: u64, options: &Options) -> World {
    let mut w = build(seed, options);
    let span = w.scenario.span;
    while w.step(span) {
        if w.events > STORM {
            w.violations.push(format!("{STORM} events and no end: something goes round in circles"));
        }
    }
    heal(&mut w);
    settle(&mut w);
    if w.violations.is_empty() && !w.given_up {
        if w.scenario.rot {
            w.rots();
        }
        // What is there is read once more, through the front door.
        let names: Vec<Bytes> = w.history.objects.keys().cloned().collect();
        if let Some(c) = w.clients.iter().position(|c| c.alive) {
            for name in names {
                for op in [
                    Op::Read { offset: 0, len: 1 << 20 },
                    Op::OmapRange { after: None, prefix: Bytes::from_static(b"key"), max: 1000 },
                    Op::GetXattr { name: Bytes::from_static(b"owner") },
                ] {
                    w.ask_op(c as u32, &name, vec![op], SnapId::HEAD);
                }
                if w.scenario.watches {
                    let payload = Bytes::from_static(b"last");
                    w.ask_op(c as u32, &name, vec![Op::Notify { payload, timeout_ms: 5000 }], SnapId::HEAD);
                }
                if w.scenario.classes {
                    for op in crate::client::calls::last_look() {
                        w.ask_op(c as u32, &name, vec![op], SnapId::HEAD);
                    }
                }
                for s in w.maps.last().snaps.clone() {
                    w.ask_op(c as u32, &name, vec![Op::Read { offset: 0, len: 1 << 20 }], s);
                }
            }
        }
        settle(&mut w);
        if w.scenario.watches && w.violations.is_empty() {
            // The watches of the dead run out.
            let end = w.now + 7000 * MS;
            while w.step(end) {}
            settle(&mut w);
        }
        if (w.scenario.scrubs || w.scenario.rot) && w.violations.is_empty() {
            // A process may die of a last fault just then, and the order with it: each at most once.
            for _ in 0..=w.nodes.len() {
                w.scrub_all();
                if w.scenario.hunts {
                    w.exchange_members();
                }
                settle(&mut w);
                if !w.violations.is_empty() || w.unscrubbed().is_empty() {
                    break;
                }
            }
        }
    }
    w
}

/// Runs a seed.
pub fn run(seed: u64, options: &Options) -> Outcome {
    let mut w = rest(seed, options);
    if w.violations.is_empty() && !w.given_up {
        oracle::at_rest(&mut w);
    }
    Outcome {
        seed,
        violations: std::mem::take(&mut w.violations),
        operations: w.history.len() as u64,
        simulated: w.now,
        events: w.events,
        hash: w.hash,
        moves: std::mem::take(&mut w.moves),
        sights: std::mem::take(&mut w.sights),
        too_hard: w.too_hard,
        trace: w.trace.take().unwrap_or_default(),
    }
}

fn heal(w: &mut World) {
    if !w.violations.is_empty() {
        return;
    }
    w.note(|| "heal".to_owned());
    w.faulty = false;
    w.healed = w.now;
    w.heal_all();
    for i in 0..w.nodes.len() as u32 {
        w.after(MS, Event::Restart { osd: OsdId(i) });
    }
    let map = w.maps.last();
    if w.scenario.keeps_map && map.is_whole() {
        return;
    }
    let (size, min_size) = (w.scenario.size, w.scenario.min_size);
    w.change(|m| {
        m.inside = m.osds.keys().copied().collect();
        m.weight.values_mut().for_each(|w| *w = 100);
        m.upmap.clear();
        m.reluctant.clear();
        m.pool.size = size;
        m.pool.min_size = min_size;
    });
}
