//! CPU time and allocations of a replicated 4 KiB write in the core alone: three cores, no disks, no network.
//!
//! `cargo bench --profile dev -p nacre-pg --bench step`
#![expect(clippy::print_stdout, reason = "a bench prints")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use nacre_pg::io::{ReadValue, Time};
use nacre_pg::log::ReqId;
use nacre_pg::op::{ClientOp, Op, OpId, SnapContext};
use nacre_pg::state::Config;
use nacre_pg::view::{OsdSight, PoolRules, View};
use nacre_pg::{Input, Output, PlacementGroup, Step};
use nacre_proto::ids::{Epoch, ObjectId, OsdId, PgId, PoolId, SessionId, SnapId};

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

#[expect(unsafe_code, reason = "counting allocations needs an allocator")]
// SAFETY: hands every call to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Nanoseconds this thread was on a CPU.
fn cpu() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

struct Trio {
    cores: Vec<PlacementGroup>,
    queue: VecDeque<(usize, Input)>,
    replies: u64,
    /// CPU time and allocations by core, batched.
    spent: [(u64, u64); 3],
}

impl Trio {
    fn new() -> Trio {
        let pg = PgId { pool: PoolId(1), seed: 0 };
        let ids: Vec<OsdId> = (0..3).map(OsdId).collect();
        let sight = OsdSight { up: true, up_from: Epoch(1), up_thru: Epoch(1), ..OsdSight::default() };
        let view = Arc::new(View {
            epoch: Epoch(1),
            up: ids.clone(),
            up_primary: Some(OsdId(0)),
            acting: ids.clone(),
            primary: Some(OsdId(0)),
            pool: PoolRules { size: 3, min_size: 2, pg_num: 1, ..PoolRules::default() },
            osds: Arc::new(ids.iter().map(|o| (*o, sight)).collect::<BTreeMap<_, _>>()),
        });
        let cfg = Arc::new(Config::default());
        let cores = ids.iter().map(|o| PlacementGroup::create(pg, *o, Arc::clone(&cfg), Arc::clone(&view), Epoch(1)));
        let mut trio = Trio { cores: cores.collect(), queue: VecDeque::new(), replies: 0, spent: [(0, 0); 3] };
        for i in [1, 2, 0] {
            trio.queue.push_back((i, Input::Map(Arc::clone(&view))));
        }
        trio.settle();
        trio
    }

    fn settle(&mut self) {
        let mut out = Vec::new();
        while let Some((i, input)) = self.queue.pop_front() {
            self.cores[i].step(&mut Step { now: Time(1), wall_ms: 0, out: &mut out }, input);
            let me = OsdId(i as u32);
            for o in out.drain(..) {
                match o {
                    Output::Send { to, msg } => self.queue.push_back((to.0 as usize, Input::Peer { from: me, msg })),
                    Output::Submit { id, .. } => self.queue.push_back((i, Input::Committed(id))),
                    Output::Read { id, .. } => {
                        self.queue.push_back((
                            i,
                            Input::ReadDone { id, result: Ok(vec![ReadValue::Pairs(Vec::new(), false)]) },
                        ));
                    }
                    Output::Reply { .. } => self.replies += 1,
                    _ => {}
                }
            }
        }
    }

    /// One round: the same kind of input to one core at a time, so that each core's share can be told.
    fn round(&mut self, ops: Vec<ClientOp>) {
        let mut inputs: [Vec<Input>; 3] = [ops.into_iter().map(Input::Op).collect(), Vec::new(), Vec::new()];
        while inputs.iter().any(|q| !q.is_empty()) {
            let mut next: [Vec<Input>; 3] = Default::default();
            for (i, list) in inputs.into_iter().enumerate() {
                let mut out = Vec::with_capacity(list.len() * 8);
                let (cpu0, alloc0) = (cpu(), ALLOCATIONS.load(Ordering::Relaxed));
                for input in list {
                    self.cores[i].step(&mut Step { now: Time(1), wall_ms: 0, out: &mut out }, input);
                }
                self.spent[i].0 += cpu() - cpu0;
                self.spent[i].1 += ALLOCATIONS.load(Ordering::Relaxed) - alloc0;
                for o in out {
                    match o {
                        Output::Send { to, msg } => {
                            next[to.0 as usize].push(Input::Peer { from: OsdId(i as u32), msg })
                        }
                        Output::Submit { id, .. } => next[i].push(Input::Committed(id)),
                        Output::Reply { .. } => self.replies += 1,
                        _ => {}
                    }
                }
            }
            inputs = next;
        }
    }
}

fn main() {
    let mut trio = Trio::new();
    let data = Bytes::from(vec![7; 4096]);
    let oid = |n: u64| ObjectId {
        pool: PoolId(1),
        hash: n as u32,
        namespace: Bytes::new(),
        name: Bytes::from(format!("object-{n}")),
        snap: SnapId::HEAD,
    };
    let mut tid = 0;
    let mut op = |n: u64| {
        tid += 1;
        ClientOp {
            id: OpId(tid),
            reqid: ReqId { session: SessionId(1), tid },
            acked_below: tid.saturating_sub(64),
            epoch: Epoch(1),
            oid: oid(n),
            snapc: SnapContext::default(),
            ops: vec![Op::Write { offset: 0, data: data.clone() }],
        }
    };
    for n in 0..64 {
        trio.queue.push_back((0, Input::Op(op(n))));
    }
    trio.settle();
    for n in 0..8000 {
        trio.round(vec![op(n % 64)]);
    }
    trio.spent = [(0, 0); 3];
    let (rounds, batch) = (3000, 16);
    for r in 0..rounds {
        let ops = (0..batch).map(|k| op((r * batch + k) % 64)).collect();
        trio.round(ops);
    }
    let n = (rounds * batch) as f64;
    for (i, who) in ["primary", "replica", "replica"].into_iter().enumerate() {
        println!(
            "{who}: {:.2} us CPU, {:.1} allocations per replicated 4 KiB write",
            trio.spent[i].0 as f64 / n / 1000.0,
            trio.spent[i].1 as f64 / n
        );
    }
    println!("{} replies, state {}", trio.replies, trio.cores[0].state());
}
