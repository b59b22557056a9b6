//! `nacre up`: checks, makes what a cluster is born with, leaves a supervisor running, and waits until it serves.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;

use super::connect::Connected;
use super::layout::write_whole;
use super::supervisor::{self, Ask, Seen};
use super::{CRUSH_FILE, ConfigArg, HostArg, Layout, connect, found, preflight, provision};
use crate::cluster::{load, placement, warn};
use crate::output::{Align, JsonFlag, Out, Table, Tone};
use crate::run::{Run, Verdict};

/// How long the cluster may take to become healthy.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the daemons of a supervisor that was killed may take to end: longer than they are given to do it in order.
const LEFTOVERS: Duration = Duration::from_secs(15);

/// How long a port may still be held by what has just ended.
const LATE: Duration = Duration::from_secs(2);

/// How long a quorum is looked for by a host whose others may not be up yet.
const ALONE: Duration = Duration::from_secs(3);

/// How long its first reports may take after that; what is not well by then is told.
const SETTLES: Duration = Duration::from_secs(5);

/// Start the cluster of a cluster.toml on this machine.
///
/// Checks the file, the data folder and the ports, makes keys and first configuration, starts the daemons under a
/// supervisor that starts them again when they end, waits until the monitors have a quorum and all OSDs are up, and
/// makes the pools of the file if the cluster is new. Running it again is harmless: what is there is kept, what runs
/// goes on.
///
/// With --host, each host runs its own part of the same file. The host of the first monitor founds the cluster; the
/// others are given a copy of its data folder before they come up. Quorum and OSDs of other hosts are not waited for;
/// whichever host completes the cluster makes the pools.
#[derive(Args)]
#[command(after_long_help = "\
--json: {cluster, data, crush: {file, state: written|kept}, daemons: [{name, host, listens, pid}], started, supervisor,
pools, health, notes}; started counts the daemons this call has started, pools those it has made; supervisor is the
process that watches them.")]
pub(crate) struct Up {
    #[command(flatten)]
    config: ConfigArg,
    #[command(flatten)]
    host: HostArg,
    #[command(flatten)]
    json: JsonFlag,
}

#[derive(Serialize)]
struct Report {
    cluster: String,
    data: PathBuf,
    crush: Crush,
    daemons: Vec<Daemon>,
    started: usize,
    pools: usize,
    health: String,
    supervisor: u32,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct Crush {
    file: PathBuf,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Written,
    Kept,
}

#[derive(Serialize)]
struct Daemon {
    name: String,
    host: String,
    listens: String,
    pid: Option<u32>,
}

impl Run for Up {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let loaded = load(&self.config.config)?;
        warn(&loaded);
        let cluster = &loaded.cluster;
        let map = nacre_crush::text::print(&placement::crush_map(cluster)?);
        let data = &cluster.data.value;
        let layout = self.host.layout(cluster)?;
        let mut notes = Vec::new();

        preflight::data_folder(data)?;
        let running = supervisor::holder(&layout)?;
        if running.is_none() {
            let stale = supervisor::stale(&layout);
            if let Some(pid) = stale {
                notes.push(format!(
                    "the last supervisor (process {pid}) ended without being told to: its daemons ended with it, all is started anew"
                ));
            }
            wait_for_leftovers(cluster, if stale.is_some() { LEFTOVERS } else { LATE })?;
        }
        let file = data.join(CRUSH_FILE);
        let state = write_once(&file, &map).with_context(|| format!("writing {}", file.display()))?;
        let listed = cluster.daemons();
        let ports: Vec<_> = listed
            .iter()
            .map(|(name, host, at)| serde_json::json!({ "name": name, "host": host.0, "listens": at }))
            .collect();
        write_whole(&layout.ports(), serde_json::to_string_pretty(&ports)?.as_bytes())?;
        let mut again = Vec::new();
        if running.is_none() {
            provision::provision(cluster, &layout)?;
            self.start(&layout)?;
        } else {
            // What was stopped by itself is part of the cluster too.
            provision::missing_stores(cluster, &layout)?;
            for seen in supervisor::ask(&layout, &Ask::List)?.daemons.into_iter().filter(|seen| seen.halted) {
                supervisor::ask(&layout, &Ask::Restart { daemon: seen.name.clone() })?;
                again.push(seen.name);
            }
            if !again.is_empty() {
                notes.push(format!("started again, having been stopped by themselves: {}", again.join(", ")));
            }
        }
        let connected = connect(&self.config, if layout.1.is_some() { ALONE } else { PATIENCE })?;
        let seen = self.wait(&layout, &connected)?;
        let (pools, health) = match &layout.1 {
            Some(host) if !found::is_whole(cluster, host, &layout, &connected, PATIENCE)? => {
                notes.push(format!(
                    "the daemons of {host} run; the cluster is not whole before those of the other hosts do"
                ));
                (0, "waiting for other hosts".to_owned())
            }
            _ => {
                let connected = connect(&self.config, PATIENCE)?;
                found::wait_for_osds(cluster, &layout, &connected, PATIENCE)?;
                let pools = found::found(cluster, &layout, &connected, PATIENCE)?;
                (pools, found::settled(&connected, SETTLES)?.status)
            }
        };
        let supervisor = supervisor::holder(&layout)?.context("the supervisor has ended again")?;

        let mine = |host: &str| layout.1.as_ref().is_none_or(|only| only == host);
        let daemons = listed.into_iter().filter(|(_, host, _)| mine(&host.0)).map(|(name, host, at)| Daemon {
            pid: seen.iter().find(|seen| seen.name == name).and_then(|seen| seen.pid),
            name,
            host: host.0.clone(),
            listens: at.to_string(),
        });
        let report = Report {
            cluster: cluster.name.value.0.clone(),
            data: data.clone(),
            crush: Crush { file, state },
            daemons: daemons.collect(),
            started: if running.is_none() { seen.len() } else { again.len() },
            pools,
            health,
            supervisor,
            notes,
        };
        if self.json.json {
            out.json(&report)?;
        } else {
            print(out, &report)?;
        }
        Ok(Verdict::Good)
    }
}

impl Up {
    /// Waits until every daemon runs and the quorum answers.
    fn wait(&self, layout: &Layout, connected: &Connected) -> anyhow::Result<Vec<Seen>> {
        let started = Instant::now();
        loop {
            let listed = supervisor::ask(layout, &Ask::List)?;
            let failing = listed.daemons.iter().find(|seen| seen.pid.is_none() && seen.restarts >= 3);
            if let Some(seen) = failing {
                bail!(
                    "{} does not stay up ({}); its log is {}",
                    seen.name,
                    seen.last_end.as_deref().unwrap_or("no reason known"),
                    layout.log(&seen.name).display()
                );
            }
            if listed.daemons.iter().all(|seen| seen.pid.is_some()) && layout.1.is_some() {
                return Ok(listed.daemons);
            }
            if listed.daemons.iter().all(|seen| seen.pid.is_some())
                && connected.runtime.block_on(connected.monitors.status(false)).is_ok()
            {
                return Ok(listed.daemons);
            }
            if started.elapsed() > PATIENCE {
                bail!("no quorum within {} s; the logs are in {}", PATIENCE.as_secs(), layout.log("mon.0").display());
            }
            super::pause(Duration::from_millis(20));
        }
    }

    /// Leaves a supervisor running, and waits until it takes requests.
    fn start(&self, layout: &Layout) -> anyhow::Result<()> {
        let log = layout.supervisor_log();
        if let Some(folder) = log.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let to = OpenOptions::new().create(true).append(true).open(&log)?;
        let mut child = Command::new(std::env::current_exe()?)
            .arg("supervise")
            .arg("--config")
            .arg(&self.config.config)
            .args(layout.1.iter().flat_map(|host| ["--host", host]))
            .stdin(Stdio::null())
            .stdout(to.try_clone()?)
            .stderr(to)
            .process_group(0)
            .spawn()
            .context("starting the supervisor")?;
        let started = Instant::now();
        while supervisor::ask(layout, &Ask::List).is_err() {
            if let Some(status) = child.try_wait()? {
                bail!("the supervisor ended at once ({status}); its log is {}", log.display());
            }
            if started.elapsed() > PATIENCE {
                bail!("the supervisor does not answer; its log is {}", log.display());
            }
            super::pause(Duration::from_millis(10));
        }
        Ok(())
    }
}

/// Daemons of a supervisor that was killed stop by themselves; they get a while to let go of their ports.
fn wait_for_leftovers(cluster: &crate::cluster::schema::Cluster, patience: Duration) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        match preflight::ports(cluster) {
            Ok(()) => return Ok(()),
            Err(error) if started.elapsed() > patience => return Err(error.into()),
            Err(_) => super::pause(Duration::from_millis(50)),
        }
    }
}

/// Writes a file that is whole or not there, and leaves one alone that is: a cluster's map is its own once it lives.
fn write_once(file: &Path, text: &str) -> io::Result<State> {
    if file.try_exists()? {
        return Ok(State::Kept);
    }
    write_whole(file, text.as_bytes()).map(|()| State::Written)
}

fn print(out: &mut Out, report: &Report) -> anyhow::Result<()> {
    let state = match report.crush.state {
        State::Written => "written",
        State::Kept => "already there, kept as it is",
    };
    writeln!(out, "cluster {}", out.paint(Tone::Strong, &report.cluster))?;
    writeln!(out, "  data folder  {}", report.data.display())?;
    writeln!(out, "  crush map    {} ({state})", report.crush.file.display())?;
    writeln!(out, "  supervisor   process {}", report.supervisor)?;
    for note in &report.notes {
        writeln!(out, "  note         {note}")?;
    }
    let done = match report.started {
        0 => "It was running already; nothing was changed.".to_owned(),
        1 => format!("1 daemon was started, {} pools made; health is {}.", report.pools, report.health),
        count => format!("{count} daemons were started, {} pools made; health is {}.", report.pools, report.health),
    };
    writeln!(out, "\n{done}\n")?;
    if report.daemons.iter().any(|daemon| daemon.pid.is_none()) {
        writeln!(out, "Daemons without a process are not part of this version yet.\n")?;
    }
    let mut table = Table::new(&[
        ("DAEMON", Align::Left),
        ("HOST", Align::Left),
        ("LISTENS", Align::Left),
        ("PROCESS", Align::Right),
    ]);
    for daemon in &report.daemons {
        let pid = daemon.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        table.row([daemon.name.as_str(), daemon.host.as_str(), daemon.listens.as_str(), pid.as_str()]);
    }
    table.print(out)?;
    writeln!(out, "\nLook at it:       nacre status")?;
    if report.daemons.iter().any(|daemon| daemon.name.starts_with("osd.")) {
        writeln!(out, "Keep something:   echo hello | nacre object put POOL greeting -")?;
    }
    writeln!(out, "And stop it:      nacre down")?;
    Ok(())
}
