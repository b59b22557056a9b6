//! Clients that write, read, append, compare and set, and note down everything they ask and are told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nacre_client::{Cluster, Compare, Error, Op};
use nacre_pg::op::{OpError, SnapContext};
use nacre_proto::ids::SnapId;
use nacre_sim::history::{Call, History};
use nacre_sim::oracle::linear::{self, Verdict};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::cluster::Running;

/// Clients at a time, and the objects they share.
const CLIENTS: u64 = 6;
const OBJECTS: u64 = 12;
/// Calls after which an object is left alone and another takes its place: histories stay short enough to be judged.
const LONGEST: u64 = 100;
/// How long a call may take. One that takes longer may or may not have happened.
const PATIENCE: Duration = Duration::from_secs(60);

struct Shared {
    began: Instant,
    history: Mutex<History>,
    calls: AtomicU64,
    unknown: AtomicU64,
    fault: Mutex<&'static str>,
    longest_us: Mutex<BTreeMap<&'static str, u64>>,
    over: AtomicBool,
}

/// Clients at work.
pub(crate) struct Workload {
    shared: Arc<Shared>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

/// What came of it.
pub(crate) struct Told {
    history: History,
    /// How many calls.
    pub(crate) calls: u64,
    unknown: u64,
    longest: BTreeMap<&'static str, u64>,
}

impl Workload {
    /// Begins.
    pub(crate) async fn start(running: &Running, seed: u64) -> Workload {
        let shared = Arc::new(Shared {
            began: Instant::now(),
            history: Mutex::default(),
            calls: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            fault: Mutex::new("none"),
            longest_us: Mutex::default(),
            over: AtomicBool::new(false),
        });
        let mut clients = Vec::new();
        for client in 0..CLIENTS {
            let cluster = running.client(PATIENCE).await;
            let random = StdRng::seed_from_u64(seed ^ (client + 1) << 32);
            clients.push(tokio::spawn(work(Arc::clone(&shared), cluster, client, random)));
        }
        Workload { shared, clients }
    }

    /// What is being done to the cluster from now on: stalls are put down to it.
    pub(crate) fn under(&self, fault: &'static str) {
        *self.shared.fault.lock().unwrap() = fault;
    }

    /// Ends, and reads every object once more.
    pub(crate) async fn end(self) -> Told {
        self.shared.over.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.await.unwrap();
        }
        let history = self.shared.history.lock().unwrap().clone();
        Told {
            history,
            calls: self.shared.calls.load(Ordering::SeqCst),
            unknown: self.shared.unknown.load(Ordering::SeqCst),
            longest: self.shared.longest_us.lock().unwrap().clone(),
        }
    }
}

async fn work(shared: Arc<Shared>, cluster: Cluster, client: u64, mut random: StdRng) {
    let pool = cluster.pool("data").await.unwrap();
    let mut tid = 0;
    let mut touched = BTreeSet::new();
    while !shared.over.load(Ordering::SeqCst) {
        tid += 1;
        let count = shared.calls.load(Ordering::SeqCst);
        let name = Bytes::from(format!("{}-{}", random.random_range(0..OBJECTS), count / (OBJECTS * LONGEST)));
        let value = || Bytes::from(format!("<{client}.{tid}>"));
        let ops = match random.random_range(0..10) {
            0..3 => vec![Op::Read { offset: 0, len: 1 << 20 }],
            3 | 4 => vec![Op::Append { data: value() }],
            // Long enough to lie in blocks of its own.
            5 => vec![Op::WriteFull { data: Bytes::from(value().repeat(1500)) }],
            6 => vec![
                Op::CompareXattr { name: "owner".into(), how: Compare::Eq, value: Bytes::new() },
                Op::SetXattr { name: "owner".into(), value: value() },
            ],
            7 => vec![
                Op::CompareXattr { name: "owner".into(), how: Compare::Ne, value: Bytes::new() },
                Op::SetXattr { name: "owner".into(), value: Bytes::new() },
            ],
            8 => vec![Op::OmapSet { entries: vec![(Bytes::from(format!("{client}")), value())] }],
            _ => vec![Op::OmapRange { after: None, prefix: Bytes::new(), max: 100 }],
        };
        touched.insert(name.clone());
        call(&shared, &pool.object(name.clone()), name, client, tid, ops).await;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..20))).await;
    }
    // What is there in the end is what the history must explain.
    for name in touched {
        tid += 1;
        let ops = vec![Op::Read { offset: 0, len: 1 << 20 }];
        call(&shared, &pool.object(name.clone()), name, client, tid, ops).await;
    }
}

async fn call(shared: &Shared, object: &nacre_client::Object, name: Bytes, client: u64, tid: u64, ops: Vec<Op>) {
    let now = || u64::try_from(shared.began.elapsed().as_nanos()).unwrap();
    shared.calls.fetch_add(1, Ordering::SeqCst);
    let asked = now();
    let call =
        Call { client, tid, ops: ops.clone(), snap: SnapId::HEAD, snapc: SnapContext::default(), asked, answer: None };
    let place = shared.history.lock().unwrap().ask(&name, call);
    let outcome = match object.execute(ops).await {
        Ok(done) => Some(Ok(done.results)),
        Err(Error::Object { source, .. }) => Some(Err(source)),
        Err(Error::TimedOut { .. }) => None,
        Err(other) => panic!("client {client}: {other}"),
    };
    let at = now();
    let fault = *shared.fault.lock().unwrap();
    let took = (at - asked) / 1000;
    shared.longest_us.lock().unwrap().entry(fault).and_modify(|most| *most = took.max(*most)).or_insert(took);
    match outcome {
        Some(outcome) => shared.history.lock().unwrap().answer(&name, place, at, outcome),
        None => drop(shared.unknown.fetch_add(1, Ordering::SeqCst)),
    }
}

impl Told {
    /// In a line.
    pub(crate) fn summary(&self) -> String {
        let longest = self.longest.iter().map(|(fault, us)| format!("{fault} {:.2} s", *us as f64 / 1e6));
        let longest: Vec<String> = longest.collect();
        format!(
            "{} calls on {} objects, {} refused for lack of room, {} without an answer; longest: {}",
            self.calls,
            self.history.objects.len(),
            self.history.objects.values().flatten().filter(|call| is_refused(call)).count(),
            self.unknown,
            longest.join(", ")
        )
    }

    /// Objects whose history no order of its calls explains.
    pub(crate) fn broken(&self) -> Vec<String> {
        let judge = |(name, calls): (&Bytes, &Vec<Call>)| match linear::check(calls, &BTreeSet::new()) {
            Verdict::Fine => None,
            Verdict::TooHard => Some(format!("{}: {} calls are too many to judge", text(name), calls.len())),
            Verdict::Broken { explained, stuck } => {
                let stuck: Vec<String> = stuck.iter().map(|at| format!("  {:?}", calls[*at])).collect();
                let (name, all) = (text(name), calls.len());
                Some(format!("{name}: {explained} of {all} calls can be explained, then none of\n{}", stuck.join("\n")))
            }
        };
        // What was refused for lack of room has no effect; if it had one all the same, no order explains what others saw.
        let taken = |calls: &Vec<Call>| calls.iter().filter(|call| !is_refused(call)).cloned().collect::<Vec<Call>>();
        let taken: BTreeMap<&Bytes, Vec<Call>> =
            self.history.objects.iter().map(|(name, calls)| (name, taken(calls))).collect();
        taken.iter().filter_map(|(name, calls)| judge((name, calls))).collect()
    }
}

fn is_refused(call: &Call) -> bool {
    matches!(call.answer, Some((_, Err(OpError::Full { .. }))))
}

fn text(name: &Bytes) -> String {
    String::from_utf8_lossy(name).into_owned()
}
