//! `nacre osd run`: the OSD daemon.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use nacre_net::daemon::config::{Layers, Settings};
use nacre_net::daemon::{Daemon, current_thread_runtime};
use nacre_net::identity::Name;
use nacre_osd::daemon::{OsdOptions, run};
use nacre_proto::ids::OsdId;

use crate::output::Out;
use crate::run::{Run, Verdict};

/// Run an OSD in the foreground until SIGTERM.
#[derive(Args)]
pub(crate) struct RunOsd {
    /// Its number: 1 for `osd.1`.
    #[arg(long, value_name = "N")]
    id: u32,
    /// Its configuration.
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    /// Also stop when standard input ends, as a supervisor's does when it is gone.
    #[arg(long)]
    until_stdin_ends: bool,
    /// A setting that overrides the file.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    set: Vec<String>,
}

impl Run for RunOsd {
    fn run(self, _out: &mut Out) -> anyhow::Result<Verdict> {
        let me = OsdId(self.id);
        let name = Name::osd(me);
        let mut layers = Layers::of(&name.to_string(), Some(&self.config))?;
        for flag in &self.set {
            layers.flag(flag)?;
        }
        let own = Arc::new(Settings::<OsdOptions>::new(layers.clone())?);
        let options = own.now();
        current_thread_runtime()?.block_on(async {
            let around = Daemon::start(name, layers, own).await?;
            if self.until_stdin_ends {
                let shutdown = around.shutdown.clone();
                std::thread::spawn(move || {
                    let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
                    shutdown.begin("the supervisor is gone");
                });
            }
            let ended = run(me, &options, &around).await;
            if let Err(error) = &ended {
                tracing::error!(%error, "the OSD cannot go on");
            }
            around.finish().await;
            ended.map_err(anyhow::Error::from)
        })?;
        Ok(Verdict::Good)
    }
}
