//! `nacre bench`: what a cluster gives a client, and what that costs.
//!
//! Latency is measured in the client, from the call to its answer. CPU time is what the daemons of this machine's
//! cluster and this process have used, from /proc, over the measured time: on a busy machine the steadier figure.

use std::cell::RefCell;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};
use nacre_client::{Object as Handle, Pool};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use serde::Serialize;

use crate::local::run_folder_of;
use crate::object::Where;
use crate::output::{JsonFlag, Out};
use crate::run::{Run, Verdict};

/// Measure what the cluster gives.
#[derive(Args)]
pub(crate) struct Noun {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Object(Object),
}

impl Run for Noun {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        match self.verb {
            Verb::Object(verb) => verb.run(out),
        }
    }
}

/// What is done again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Write new objects, each whole.
    Write,
    /// Overwrite at random places inside objects that are there.
    Overwrite,
    /// Read at random places.
    Read,
    /// Read one place after the other.
    Sequential,
    /// Seven reads and three overwrites in ten.
    Mixed,
}

/// Measure operations on objects of a pool.
///
/// Makes objects named nacre-bench.N first, and removes them in the end. Every operation is durable on all copies when
/// it counts.
#[derive(Args)]
#[command(after_long_help = "\
--json: {mode, size, depth, seconds, operations, iops, mib_s, p50_us, p99_us, p999_us, longest_gap_ms, cpu_us_per_op,
client_cpu_us_per_op}. longest_gap_ms is the longest time in which nothing was answered, cpu_us_per_op the CPU time of
all daemons on this machine for one operation (null if they run elsewhere), client_cpu_us_per_op that of the client.")]
struct Object {
    #[command(flatten)]
    at: Where,
    /// The pool.
    pool: String,
    /// What to do.
    #[arg(long, value_enum, default_value = "overwrite")]
    mode: Mode,
    /// Bytes of one operation.
    #[arg(long, value_name = "BYTES", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=8 << 20))]
    size: u32,
    /// Operations under way at a time.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    depth: u32,
    /// For how long.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    time: u64,
    /// Objects of 4 MiB to overwrite or read inside of.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=65536))]
    objects: u32,
    /// Leave the objects there.
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    json: JsonFlag,
}

/// The objects that are worked in.
const LARGE: u64 = 4 << 20;

#[derive(Serialize)]
struct Report {
    mode: String,
    size: u32,
    depth: u32,
    seconds: f64,
    operations: u64,
    iops: f64,
    mib_s: f64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    longest_gap_ms: f64,
    cpu_us_per_op: Option<f64>,
    client_cpu_us_per_op: f64,
}

impl Run for Object {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        if u64::from(self.size) > LARGE && self.mode != Mode::Write {
            bail!("--size {}: more than an object of {LARGE} bytes holds; only --mode write takes so much", self.size);
        }
        let daemons = Daemons::of(&run_folder_of(self.at.config())?);
        let report = self.at.with(&self.pool, |pool| self.measure(pool, &daemons))?;
        if self.json.json {
            out.json(&report)?;
            return Ok(Verdict::Good);
        }
        writeln!(out, "{} of {} bytes at depth {}, {:.1} s", report.mode, report.size, report.depth, report.seconds)?;
        writeln!(out, "  rate         {:.0} operations/s, {:.1} MiB/s", report.iops, report.mib_s)?;
        writeln!(
            out,
            "  latency      {:.0} us at the median, {:.0} us p99, {:.0} us p999; longest gap {:.1} ms",
            report.p50_us, report.p99_us, report.p999_us, report.longest_gap_ms
        )?;
        let daemons = report.cpu_us_per_op.map_or_else(|| "unknown".into(), |cpu| format!("{cpu:.1} us"));
        writeln!(out, "  CPU time     {daemons} in daemons, {:.1} us here, for one", report.client_cpu_us_per_op)?;
        Ok(Verdict::Good)
    }
}

/// What the workers share.
struct Course {
    until: Instant,
    random: StdRng,
    /// How often an operation began.
    begun: u64,
    /// Microseconds of each.
    took: Vec<u32>,
    last: Instant,
    gap: Duration,
}

impl Course {
    fn ended(&mut self, began: Instant) {
        let now = Instant::now();
        self.gap = self.gap.max(now - self.last);
        self.last = now;
        self.took.push(u32::try_from((now - began).as_micros()).unwrap_or(u32::MAX));
    }
}

impl Object {
    fn large(&self, pool: &Pool, number: u64) -> Handle {
        pool.object(format!("nacre-bench.{number}"))
    }

    async fn measure(&self, pool: Pool, daemons: &Daemons) -> anyhow::Result<Report> {
        let mut filler = vec![0; LARGE.max(u64::from(self.size)) as usize];
        StdRng::seed_from_u64(u64::from(self.size)).fill_bytes(&mut filler);
        let filler = Bytes::from(filler);
        if self.mode != Mode::Write {
            for number in 0..u64::from(self.objects) {
                self.large(&pool, number).write_full(filler.slice(..LARGE as usize)).await?;
            }
        }
        let began = Instant::now();
        let course = Rc::new(RefCell::new(Course {
            until: began + Duration::from_secs(self.time.max(1)),
            random: StdRng::seed_from_u64(7),
            begun: 0,
            took: Vec::new(),
            last: began,
            gap: Duration::ZERO,
        }));
        let (cpu, own) = (daemons.cpu(), cpu_of(Path::new("/proc/self/stat")).unwrap_or_default());
        let workers = (0..self.depth).map(|_| self.work(&pool, &filler, &course));
        let worked = futures_util::future::try_join_all(workers).await;
        let seconds = began.elapsed().as_secs_f64();
        let used = daemons.cpu().zip(cpu).map(|(after, before)| after.saturating_sub(before));
        let own = cpu_of(Path::new("/proc/self/stat")).unwrap_or_default().saturating_sub(own);

        if !self.keep {
            let made = if self.mode == Mode::Write { course.borrow().begun } else { u64::from(self.objects) };
            for number in 0..made {
                match self.large(&pool, number).remove().await {
                    Ok(()) | Err(nacre_client::Error::Object { .. }) => {}
                    Err(error) => return Err(error).context("removing what was written"),
                }
            }
        }
        worked?;
        let mut course = course.borrow_mut();
        course.took.sort_unstable();
        let operations = course.took.len() as u64;
        if operations == 0 {
            bail!("not one operation ended within {} s", self.time);
        }
        let at = |share: f64| f64::from(course.took[((operations - 1) as f64 * share) as usize]);
        let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / operations as f64;
        Ok(Report {
            mode: self.mode.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default(),
            size: self.size,
            depth: self.depth,
            seconds,
            operations,
            iops: operations as f64 / seconds,
            mib_s: operations as f64 * f64::from(self.size) / f64::from(1 << 20) / seconds,
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            longest_gap_ms: course.gap.as_secs_f64() * 1e3,
            cpu_us_per_op: used.map(each),
            client_cpu_us_per_op: each(own),
        })
    }

    /// One operation after the other, until time is over.
    async fn work(&self, pool: &Pool, filler: &Bytes, course: &RefCell<Course>) -> anyhow::Result<()> {
        let size = u64::from(self.size);
        let places = LARGE / size.min(LARGE);
        let part = |place: u64| filler.slice((place * size) as usize..((place + 1) * size) as usize);
        loop {
            let began = Instant::now();
            let (number, place, writes) = {
                let mut course = course.borrow_mut();
                if began >= course.until {
                    return Ok(());
                }
                let count = course.begun;
                course.begun += 1;
                match self.mode {
                    Mode::Write => (count, 0, true),
                    Mode::Sequential => ((count / places) % u64::from(self.objects), count % places, false),
                    mode => {
                        let (object, place) =
                            (course.random.random_range(0..self.objects), course.random.random_range(0..places));
                        let writes = match mode {
                            Mode::Overwrite => true,
                            Mode::Mixed => course.random.random_ratio(3, 10),
                            _ => false,
                        };
                        (u64::from(object), place, writes)
                    }
                }
            };
            let object = self.large(pool, number);
            match (self.mode, writes) {
                (Mode::Write, _) => object.write_full(filler.slice(..size as usize)).await?,
                // Other bytes than those that are there.
                (_, true) => object.write(place * size, part((place + number + 1) % places)).await?,
                (_, false) => {
                    let read = object.read(place * size, size).await?;
                    if read.len() as u64 != size {
                        bail!("nacre-bench.{number} gave {} bytes at {}, not {size}", read.len(), place * size);
                    }
                }
            }
            course.borrow_mut().ended(began);
        }
    }
}

/// The daemons of this machine.
struct Daemons(Vec<PathBuf>);

impl Daemons {
    fn of(run: &Path) -> Daemons {
        let files = std::fs::read_dir(run).into_iter().flatten().flatten();
        let pids = files
            .filter(|file| file.path().extension().is_some_and(|extension| extension == "pid"))
            .filter_map(|file| std::fs::read_to_string(file.path()).ok()?.trim().parse::<u32>().ok());
        Daemons(pids.map(|pid| PathBuf::from(format!("/proc/{pid}/stat"))).collect())
    }

    /// CPU time of those that live; none if there are none.
    fn cpu(&self) -> Option<Duration> {
        self.0.iter().filter_map(|stat| cpu_of(stat)).reduce(|all, one| all + one)
    }
}

/// User and system time of a process. Linux counts hundredths of a second, whatever the kernel's own tick.
fn cpu_of(stat: &Path) -> Option<Duration> {
    let text = std::fs::read_to_string(stat).ok()?;
    // The name in parentheses may hold anything.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(Duration::from_millis((user + system) * 10))
}
