//! `nacre block bench`: how many reads or writes of an image end in a second, and how long one takes.

use std::io::Write;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::{Args, ValueEnum};
use futures_util::stream::{FuturesUnordered, StreamExt};
use nacre_block::{Image, Use};
use serde_json::json;

use super::{At, Spot, bytes, size};
use crate::output::{JsonFlag, Out};
use crate::run::{Run, Verdict};

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Load {
    /// Reads.
    Read,
    /// Writes: what the image held there is lost.
    Write,
}

/// Measure an image. Writing destroys what it holds.
#[derive(Args)]
#[command(
    after_long_help = "--json: {operations, seconds, bytes, p50_us, p99_us, cpu_us}; cpu_us is this process's own."
)]
pub(super) struct Bench {
    #[command(flatten)]
    at: At,
    /// The image.
    image: Spot,
    /// What to do.
    #[arg(value_enum)]
    load: Load,
    /// Bytes at a time.
    #[arg(long, value_parser = size, default_value = "4KiB")]
    block: u64,
    /// Requests at a time.
    #[arg(long, default_value_t = 16)]
    depth: usize,
    /// One after the other instead of anywhere.
    #[arg(long)]
    sequential: bool,
    /// For how many seconds.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    #[command(flatten)]
    json: JsonFlag,
}

fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

impl Run for Bench {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        self.image.whole()?;
        let (json, load) = (self.json.json, self.load);
        let (mut times, spent, used, block) = self.at.with(|cluster| async move {
            let pool = self.image.room.open(&cluster).await?;
            let usage = if load == Load::Write { Use::Write } else { Use::Read };
            let image = Image::open_for(&pool, &self.image.image, usage).await?;
            let blocks = image.size().checked_div(self.block).filter(|blocks| *blocks > 0);
            let Some(blocks) = blocks else {
                image.close().await?;
                anyhow::bail!("the image is smaller than one block");
            };
            let data: Bytes = (0..self.block).map(|at| (at * 31 % 251) as u8).collect::<Vec<_>>().into();
            let mut next = 0;
            let mut issue = || {
                next += 1;
                let at = if self.sequential { next } else { rand::random::<u64>() } % blocks * self.block;
                let (image, data) = (image.clone(), data.clone());
                async move {
                    let began = Instant::now();
                    match load {
                        Load::Write => image.write(at, data).await?,
                        Load::Read => drop(image.read(at, data.len() as u64).await?),
                    }
                    Ok::<_, nacre_block::Error>(began.elapsed())
                }
            };
            let (began, before) = (Instant::now(), cpu());
            let end = began + Duration::from_secs(self.seconds);
            let mut open: FuturesUnordered<_> = (0..self.depth.max(1)).map(|_| issue()).collect();
            let mut times = Vec::new();
            let mut failed = None;
            while let Some(done) = open.next().await {
                match done {
                    Ok(time) => times.push(time),
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                }
                if Instant::now() < end {
                    open.push(issue());
                }
            }
            drop(open);
            let spent = began.elapsed();
            image.close().await?;
            match failed {
                Some(error) => Err(error.into()),
                None => Ok((times, spent, cpu().saturating_sub(before), self.block)),
            }
        })?;
        times.sort_unstable();
        let at = |permille: usize| times.get(times.len() * permille / 1000).map_or(0, |time| time.as_micros());
        let count = times.len();
        let rate = count as f64 / spent.as_secs_f64();
        let (p50, p99, each) = (at(500), at(990), used.as_micros() as f64 / count.max(1) as f64);
        if json {
            out.json(&json!({
                "operations": count, "seconds": spent.as_secs_f64(), "bytes": count as u64 * block,
                "p50_us": p50 as u64, "p99_us": p99 as u64, "cpu_us": each,
            }))?;
        } else {
            let speed = bytes((rate * block as f64) as u64);
            writeln!(
                out,
                "{rate:.0} a second, {speed}/s; half within {p50} us, 99 % within {p99} us; {each:.0} us of CPU here for each"
            )?;
        }
        Ok(Verdict::Good)
    }
}
