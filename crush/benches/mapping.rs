//! Mappings per second, in CPU time of the thread (wall time says little on a busy machine).
//!
//! `tree444` is root / 4 racks / 4 hosts / 4 OSDs, all straw2: once with equal weights, once with unequal
//! ones. `osds10000` is root / 25 racks / 20 hosts / 20 OSDs.
//!
//! Where Ceph's `crushtool` is installed, the run ends with what it needs for the same mappings.

#![expect(clippy::unwrap_used, reason = "a bench that cannot run has nothing to report")]
#![expect(clippy::print_stdout, reason = "the report")]

use criterion::measurement::{Measurement, ValueFormatter};
use criterion::{BenchmarkId, Criterion, Throughput};
use nacre_crush::binary;
use nacre_crush::map::{Kernel, Mapper, Mappings, Workspace};
use nacre_crush::model::{Bucket, BucketAlg, CrushMap, ItemId, Mode, Rule, RuleKind, Step, Tunables, TypeId, Weight};
use nacre_crush::pg::Pgs;
use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;
use std::process::Command;
use std::time::Duration;

/// CPU time of the calling thread.
struct CpuTime(criterion::measurement::WallTime);

fn cpu_now() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        cpu_now()
    }
    fn end(&self, start: Duration) -> Duration {
        cpu_now() - start
    }
    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }
    fn zero(&self) -> Duration {
        Duration::ZERO
    }
    fn to_f64(&self, value: &Duration) -> f64 {
        self.0.to_f64(value)
    }
    fn formatter(&self) -> &dyn ValueFormatter {
        self.0.formatter()
    }
}

/// A root over as many levels as `fanout` has, devices last, and two rules: 0 puts replicas on different buckets of the
/// lowest level, 1 shards.
fn tree(fanout: &[usize], weight: impl Fn(usize) -> u32) -> CrushMap {
    let mut map = CrushMap { tunables: Tunables::JEWEL, ..CrushMap::default() };
    let devices: usize = fanout.iter().product();
    map.max_devices = devices as u32;
    let mut below: Vec<(ItemId, Weight)> = (0..devices).map(|n| (n as ItemId, Weight(weight(n)))).collect();
    for (level, &count) in fanout.iter().rev().enumerate() {
        let mut buckets = Vec::new();
        for children in below.chunks(count) {
            let id = -1 - map.buckets.len() as ItemId;
            let (items, weights): (Vec<_>, Vec<_>) = children.iter().copied().unzip();
            let weight = Weight(weights.iter().map(|weight| weight.0).sum());
            let (name, kind, alg) = (format!("b{id}"), level as TypeId + 1, BucketAlg::Straw2);
            map.buckets.insert(id, Bucket { id, name, kind, alg, hash: 0, items, weights, weight, straws: None });
            buckets.push((id, weight));
        }
        below = buckets;
    }
    for (id, mode) in [(0, Mode::Firstn), (1, Mode::Indep)] {
        let steps = vec![Step::Take(below[0].0), Step::ChooseLeaf { mode, num: 0, kind: 1 }, Step::Emit];
        let (name, kind) = (format!("{mode:?}"), RuleKind::Replicated);
        map.rules.insert(id, Rule { name, kind, ruleset: 0, min_size: 1, max_size: 10, steps });
    }
    map
}

fn maps() -> Vec<(&'static str, CrushMap)> {
    vec![
        ("tree444", tree(&[4, 4, 4], |_| 0x10000)),
        ("tree444-weights", tree(&[4, 4, 4], |n| 0x8000 + 0x4567 * (n as u32 * 7 % 11))),
        ("osds10000", tree(&[25, 20, 20], |n| 0x10000 * (1 + n as u32 % 3))),
    ]
}

fn mapping(criterion: &mut Criterion<CpuTime>) {
    for (name, map) in maps() {
        let reweights = vec![Weight::ONE; map.max_devices as usize];
        let mut workspace = Workspace::default();
        for (what, rule, positions) in [("firstn3", 0, 3), ("indep6", 1, 6)] {
            let mut group = criterion.benchmark_group(format!("{name}/{what}"));
            for kernel in Kernel::all() {
                let mapper = Mapper::new(&map).unwrap().with_kernel(kernel);
                let plan = mapper.plan(rule, positions, None).unwrap();
                group.throughput(Throughput::Elements(1));
                let mut x = 0_u32;
                group.bench_function(BenchmarkId::new("one", kernel.name()), |bencher| {
                    bencher.iter(|| {
                        x = x.wrapping_add(1);
                        black_box(plan.map(x, &reweights, &mut workspace).len())
                    });
                });
                const RANGE: u32 = 4096;
                group.throughput(Throughput::Elements(RANGE.into()));
                let mut mappings = Mappings::default();
                group.bench_function(BenchmarkId::new("range", kernel.name()), |bencher| {
                    bencher.iter(|| plan.map_all(0..RANGE, &reweights, &mut workspace, black_box(&mut mappings)));
                });
            }
            group.finish();
        }
    }
}

/// What a monitor or client computes when a map of a large cluster changes.
fn full_table(criterion: &mut Criterion<CpuTime>) {
    let map = tree(&[25, 20, 20], |n| 0x10000 * (1 + n as u32 % 3));
    let reweights = vec![Weight::ONE; map.max_devices as usize];
    let pgs = Pgs { pool: 1, pg_num: 1 << 20, pgp_num: 1 << 20, hashed: true };
    let mapper = Mapper::new(&map).unwrap();
    let plan = mapper.plan(0, 3, None).unwrap();
    let (mut workspace, mut table) = (Workspace::default(), Mappings::default());
    let mut group = criterion.benchmark_group("full-table");
    group.sample_size(10).throughput(Throughput::Elements(pgs.pg_num.into()));
    group.bench_function("osds10000/2^20 pgs", |bencher| {
        bencher.iter(|| plan.map_all((0..pgs.pg_num).map(|pg| pgs.seed(pg)), &reweights, &mut workspace, &mut table));
    });
    group.finish();
}

/// CPU time of `crushtool --test` per mapping, the time of a run over one input taken off.
fn crushtool(name: &str, map: &CrushMap) -> Option<Duration> {
    const INPUTS: u32 = 200_000;
    let path = std::env::temp_dir().join(format!("nacre-bench-{}-{name}", std::process::id()));
    std::fs::write(&path, binary::encode(map)).ok()?;
    let run = |inputs: u32| {
        // The shell's `times` prints its own times and then those of its children: user, system.
        let script = "crushtool -i \"$0\" --test --rule 0 --num-rep 3 --min-x 0 --max-x $1 >/dev/null || exit 1; times";
        let shell = Command::new("bash").args(["-c", script]).arg(&path).arg((inputs - 1).to_string()).output().ok()?;
        let text = String::from_utf8(shell.stdout).ok()?;
        let mut total = Duration::ZERO;
        for time in text.lines().nth(1)?.split_whitespace() {
            let (minutes, seconds) = time.trim_end_matches('s').split_once('m')?;
            total += Duration::from_secs_f64(minutes.parse::<f64>().ok()? * 60.0 + seconds.parse::<f64>().ok()?);
        }
        shell.status.success().then_some(total)
    };
    let total = run(INPUTS).zip(run(1)).map(|(many, one)| many.saturating_sub(one) / INPUTS);
    std::fs::remove_file(&path).ok()?;
    total
}

fn report_crushtool() {
    for (name, map) in maps() {
        match crushtool(name, &map) {
            Some(time) => println!("{name}/firstn3/crushtool   {time:?} a mapping"),
            None => println!("{name}/firstn3/crushtool   not measured: install the package ceph-base to compare"),
        }
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .with_measurement(CpuTime(criterion::measurement::WallTime))
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20)
        .configure_from_args();
    mapping(&mut criterion);
    full_table(&mut criterion);
    criterion.final_summary();
    report_crushtool();
}
