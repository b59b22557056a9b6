//! `nacre mon run`: the monitor daemon.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use nacre_mon::daemon::{self, Config, MonOptions};
use nacre_net::daemon::config::{self, Layers, Settings};
use nacre_net::daemon::{CommonOptions, Daemon, current_thread_runtime};
use nacre_net::identity::Name;
use nacre_proto::ids::MonId;

use crate::output::{Align, Out, Table};
use crate::run::{Run, Verdict};

/// Run a monitor in the foreground until SIGTERM.
#[derive(Args)]
pub(super) struct Verb {
    /// Its number: 1 for `mon.1`.
    #[arg(long, value_name = "N")]
    id: u64,
    /// Its configuration.
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    /// Also stop when standard input ends, as a supervisor's does when it is gone.
    #[arg(long)]
    until_stdin_ends: bool,
    /// Show each setting, its value and where it came from, and do nothing else.
    #[arg(long)]
    show_config: bool,
    /// With --show-config: as JSON, {NAME: {value, source, live}}.
    #[arg(long, requires = "show_config")]
    json: bool,
    /// A setting that overrides the file.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    set: Vec<String>,
}

impl Run for Verb {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let name = Name::mon(MonId(self.id));
        let mut layers = Layers::of(&name.to_string(), Some(&self.config))?;
        for flag in &self.set {
            layers.flag(flag)?;
        }
        let own = Arc::new(Settings::<MonOptions>::new(layers.clone())?);
        if self.show_config {
            let shown = [Settings::<CommonOptions>::new(layers)?.show(), own.show()].concat();
            if self.json {
                out.json(&config::to_json(&shown))?;
                return Ok(Verdict::Good);
            }
            let mut table = Table::new(&[("NAME", Align::Left), ("VALUE", Align::Left), ("FROM", Align::Left)]);
            for one in shown {
                table.row([one.name.to_owned(), one.value, one.source.to_string()]);
            }
            table.print(out)?;
            return Ok(Verdict::Good);
        }
        let config = Config::of(self.id, &own.now())?;
        current_thread_runtime()?.block_on(async {
            let around = Daemon::start(name, layers, own).await?;
            if self.until_stdin_ends {
                let shutdown = around.shutdown.clone();
                std::thread::spawn(move || {
                    let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
                    shutdown.begin("the supervisor is gone");
                });
            }
            let ended = daemon::run(config, &around).await;
            if let Err(error) = &ended {
                tracing::error!(%error, "the monitor cannot go on");
            }
            around.finish().await;
            ended.map_err(anyhow::Error::from)
        })?;
        Ok(Verdict::Good)
    }
}
