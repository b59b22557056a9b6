//! The verbs `map`, `unmap` and `mapped`.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use nacre_block::Use;
use nacre_map::users;
use nacre_map::ways::Way;
use nacre_net::daemon::admin::{self, AdminError};
use serde_json::{Value, json};

use super::serve::{Wanted, named, put_away};
use super::slot::{Record, Slot, Slots};
use crate::block::open::MetricsArg;
use crate::block::{Spot, size};
use crate::local::{ConfigArg, run_folder_of};
use crate::output::{Align, JsonFlag, Out, Table};
use crate::run::{Run, Verdict};

/// How long a process behind a device has to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long it has to take the device away and let the image go.
const LEAVE: Duration = Duration::from_secs(60);

/// Make an image a block device of this machine, and print the device.
///
/// A process of its own stands behind each device and stays until `nacre block unmap`. While it does, nobody else writes
/// the image. The device is one of the kernel's NBD driver, if that is loaded (modprobe nbd; Linux 5.14 or later); else the
/// image is a file of a file system in user space, and a loop device stands on that. Only root can do this.
///
/// If that process dies, what uses an NBD device waits: map the image again, and it goes on as if nothing had been. What
/// uses a loop device gets errors, and all that was flushed is kept: unmount what is mounted from it, map the image again,
/// mount; the device has its old name, unless somebody has that by then. Mapping an image that is mapped prints its device
/// and changes nothing.
#[derive(Args)]
#[command(after_long_help = "--json: {image, device, state: up, process, way, read_only, used_by: [...]}.")]
pub(crate) struct Map {
    #[command(flatten)]
    config: ConfigArg,
    /// The image, or IMAGE@SNAPSHOT.
    image: Spot,
    /// The device cannot be written, and others may write the image meanwhile. A snapshot's never can.
    #[arg(long, conflicts_with_all = ["seize", "write_back"])]
    read_only: bool,
    /// Answer writes before they are durable, up to so many bytes, as in 32MiB; a flush makes all of them durable, as on
    /// any disk. 0B: each write is durable when it is answered.
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "0B")]
    write_back: u64,
    /// Take the image from whoever writes it, without asking.
    #[arg(long)]
    seize: bool,
    /// Give up when the cluster has not answered for so many seconds. Once mapped, the device waits without end.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    patience: u64,
    /// How to make the device: nbd or loop, instead of the best of these that is there.
    #[arg(long, value_name = "WAY")]
    way: Option<Way>,
    /// How long what uses an NBD device waits for the image to be mapped again, should the process behind it die; then it
    /// gets errors.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    grace: u64,
    /// Stay in the foreground and log to standard error, as for a unit of systemd; SIGTERM unmaps.
    #[arg(long)]
    foreground: bool,
    /// Said by `map` to the process it leaves behind.
    #[arg(long, hide = true)]
    detached: bool,
    #[command(flatten)]
    metrics: MetricsArg,
    #[command(flatten)]
    json: JsonFlag,
}

impl Map {
    fn here(&self, out: &mut Out) -> anyhow::Result<()> {
        let _ = rustix::process::setsid();
        let wanted = Wanted {
            config: self.config.clone(),
            image: self.image.clone(),
            usage: match (self.read_only, self.seize) {
                (true, _) => Use::Read,
                (_, true) => Use::Seize,
                _ => Use::Write,
            },
            write_back: self.write_back,
            patience: Duration::from_secs(self.patience),
            way: self.way,
            grace: Duration::from_secs(self.grace),
            detached: self.detached,
            metrics: self.metrics.clone(),
        };
        nacre_net::daemon::current_thread_runtime()?.block_on(wanted.serve(out))
    }

    /// Leaves a process behind, and waits until its device is there.
    fn leave_behind(&self) -> anyhow::Result<bool> {
        let mut child = Command::new(std::env::current_exe()?);
        child.args(["block", "map", "--detached", "--config"]).arg(&self.config.config).arg(self.image.to_string());
        child.args(["--patience", &self.patience.to_string(), "--grace", &self.grace.to_string()]);
        if let Some(way) = self.way {
            child.args(["--way", &way.to_string()]);
        }
        if self.write_back > 0 {
            child.args(["--write-back", &format!("{}B", self.write_back)]);
        }
        child.args(self.read_only.then_some("--read-only")).args(self.seize.then_some("--seize"));
        if let Some(at) = self.metrics.given() {
            child.args(["--metrics", &at.to_string()]);
        }
        // It tells its errors itself.
        let child = child.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).process_group(0);
        let mut child = child.spawn().context("starting the process behind the device")?;
        let mut line = String::new();
        if let Some(said) = child.stdout.take() {
            BufReader::new(said).read_line(&mut line)?;
        }
        if line.is_empty() {
            child.wait()?;
            return Ok(false);
        }
        Ok(true)
    }
}

impl Run for Map {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let slots = Slots::of(&self.config)?;
        let name = self.image.to_string();
        let lives = |found: Option<(Slot, Record)>| found.filter(|(slot, _)| slot.pid().is_some());
        let known = lives(slots.find(&name, None)?);
        if let Some((_, record)) = &known {
            let read_only = self.read_only || self.image.snapshot.is_some();
            if let Some(way) = self.way.filter(|way| way.to_string() != record.way) {
                bail!(
                    "{name} is mapped already, by {} and not by {way}: unmap it first; nothing was changed",
                    record.way
                );
            }
            if record.read_only != read_only {
                let how = if record.read_only { "read-only" } else { "to be written" };
                bail!("{name} is mapped already, {how}: unmap it first; nothing was changed");
            }
        } else if self.foreground || self.detached {
            self.here(out)?;
            return Ok(Verdict::Good);
        } else if !self.leave_behind()? {
            return Ok(Verdict::Bad);
        }
        // Another who maps it may be on the way.
        let began = Instant::now();
        let (slot, record) = loop {
            match lives(slots.find(&name, None)?) {
                Some(found) if found.1.ready => break found,
                Some(_) if began.elapsed() < Duration::from_secs(self.patience) => pause(Duration::from_millis(20)),
                Some((slot, _)) => bail!("process {} has not mapped {name} yet", slot.pid().unwrap_or_default()),
                None => bail!("{name} is not mapped any more: the process behind it ended"),
            }
        };
        let line = Line::of(&self.config, &slot, record)?;
        if self.json.json {
            out.json(&line.json())?;
        } else {
            writeln!(out, "{}", line.device())?;
        }
        Ok(Verdict::Good)
    }
}

/// Take the device of an image away. What it holds is durable then, and others may write the image.
#[derive(Args)]
pub(crate) struct Unmap {
    #[command(flatten)]
    config: ConfigArg,
    /// The image as it was mapped, or its device.
    #[arg(value_name = "IMAGE|DEVICE")]
    what: String,
    /// Also if it is in use: its users get errors from then on.
    #[arg(long)]
    force: bool,
}

impl Unmap {
    fn ask(&self, slot: &Slot) -> anyhow::Result<()> {
        let socket = run_folder_of(&self.config)?.join(format!("{}.admin", slot.daemon()));
        match admin::ask(&socket, "unmap", json!({ "force": self.force }), LEAVE) {
            Ok(_) => {}
            Err(AdminError::Refused(why)) => bail!("{why}"),
            // It ended before it could answer, or another asked first.
            Err(_) if slot.pid().is_none() => {}
            Err(error) => return Err(error.into()),
        }
        let began = Instant::now();
        while slot.pid().is_some() {
            if began.elapsed() > LEAVE {
                bail!("the process behind {} does not end", self.what);
            }
            pause(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Of a mapping whose process is gone.
    fn put_away(&self, slot: &Slot, record: &Record) -> anyhow::Result<()> {
        let file = slot.disk().join(nacre_map::disk::FILE);
        let on_loop = record.device.clone();
        let on_loop = on_loop.filter(|device| nacre_map::loops::backing(device).as_deref() == Some(&*file));
        let on_nbd = nacre_map::nbd::find(&record.tag);
        for device in on_loop.into_iter().chain(on_nbd) {
            let users = users::users(&device);
            if !users.is_empty() && !self.force {
                bail!("{} is in use: {}; nothing was changed", device.display(), named(&users));
            }
        }
        let runtime = nacre_net::daemon::current_thread_runtime()?;
        runtime.block_on(put_away(slot, &record.tag, record.device.clone()))?;
        slot.forget()
    }
}

/// Between two looks at another process.
#[expect(clippy::disallowed_methods, reason = "the condition is looked at again after it, within a deadline")]
fn pause(length: Duration) {
    std::thread::sleep(length);
}

impl Run for Unmap {
    fn run(self, _out: &mut Out) -> anyhow::Result<Verdict> {
        let device = self.what.starts_with('/').then(|| {
            let path = PathBuf::from(&self.what);
            std::fs::canonicalize(&path).unwrap_or(path)
        });
        let image = self.what.parse::<Spot>().map_or_else(|_| self.what.clone(), |spot| spot.to_string());
        let found = Slots::of(&self.config)?.find(&image, device.as_deref())?;
        let Some((slot, record)) = found else { bail!("{} is not mapped here; nothing was changed", self.what) };
        match slot.pid() {
            Some(_) => self.ask(&slot)?,
            None => self.put_away(&slot, &record)?,
        }
        Ok(Verdict::Good)
    }
}

/// List the images that are mapped on this machine.
#[derive(Args)]
#[command(after_long_help = "\
--json: [{image, device, state, process, way, read_only, used_by: [...]}]. state: up; starting; broken: the process behind the
device is gone, map it again or unmap it; lost: another has taken the image, unmap it.")]
pub(crate) struct Mapped {
    #[command(flatten)]
    config: ConfigArg,
    #[command(flatten)]
    json: JsonFlag,
}

/// What is said of a mapping.
struct Line {
    record: Record,
    pid: Option<u32>,
    state: &'static str,
    users: Vec<users::User>,
}

impl Line {
    fn of(config: &ConfigArg, slot: &Slot, record: Record) -> anyhow::Result<Line> {
        let pid = slot.pid();
        let state = match pid {
            None => "broken",
            Some(_) if !record.ready => "starting",
            Some(_) => {
                let socket = run_folder_of(config)?.join(format!("{}.admin", slot.daemon()));
                match admin::ask(&socket, "images", json!({}), PATIENCE) {
                    Ok(said) if said[0]["lost"] == true => "lost",
                    _ => "up",
                }
            }
        };
        let users = record.device.as_deref().map(users::users).unwrap_or_default();
        Ok(Line { record, pid, state, users })
    }

    fn device(&self) -> String {
        self.record.device.as_deref().map_or_else(|| "-".to_owned(), |device| device.display().to_string())
    }

    fn json(&self) -> Value {
        json!({
            "image": self.record.image,
            "device": self.record.device,
            "state": self.state,
            "process": self.pid,
            "way": self.record.way,
            "read_only": self.record.read_only,
            "used_by": self.users.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    }
}

impl Run for Mapped {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let all = Slots::of(&self.config)?.all()?.into_iter();
        let lines: Vec<Line> =
            all.map(|(slot, record)| Line::of(&self.config, &slot, record)).collect::<anyhow::Result<_>>()?;
        if self.json.json {
            out.json(&lines.iter().map(Line::json).collect::<Vec<_>>())?;
            return Ok(Verdict::Good);
        }
        let (left, right) = (Align::Left, Align::Right);
        let mut table = Table::new(&[
            ("IMAGE", left),
            ("DEVICE", left),
            ("WAY", left),
            ("STATE", left),
            ("PROCESS", right),
            ("MODE", left),
            ("USED BY", left),
        ]);
        for line in &lines {
            table.row([
                line.record.image.clone(),
                line.device(),
                line.record.way.clone(),
                line.state.to_owned(),
                line.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
                if line.record.read_only { "read-only" } else { "read-write" }.to_owned(),
                named(&line.users),
            ]);
        }
        table.print(out)?;
        Ok(Verdict::Good)
    }
}
