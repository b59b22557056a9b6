//! `nacre supervise`: what `nacre up` leaves running. Hidden: nobody types it but to look for a fault.

use clap::Args;

use super::{ConfigArg, HostArg, Layout, provision, supervisor};
use crate::cluster::load;
use crate::output::Out;
use crate::run::{Run, Verdict};

/// Run the daemons of a cluster.toml in the foreground until SIGTERM.
#[derive(Args)]
pub(crate) struct Supervise {
    #[command(flatten)]
    config: ConfigArg,
    #[command(flatten)]
    host: HostArg,
}

impl Run for Supervise {
    fn run(self, _out: &mut Out) -> anyhow::Result<Verdict> {
        // A session of its own: what ends the operator's terminal does not end the cluster. Fails for a group leader,
        // who typed it at a terminal and may keep it there.
        let _ = rustix::process::setsid();
        let loaded = load(&self.config.config)?;
        let part = self.host.layout(&loaded.cluster)?;
        let layout = Layout(std::path::absolute(&part.0)?, part.1);
        let specs = provision::specs(&loaded.cluster, &layout)?;
        nacre_net::daemon::logs::start("info", nacre_net::daemon::logs::Format::Text)?;
        let runtime = nacre_net::daemon::current_thread_runtime()?;
        runtime.block_on(supervisor::supervise(layout, specs))?;
        Ok(Verdict::Good)
    }
}
