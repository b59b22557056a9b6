//! `nacre join`: gets a newcomer its first certificate. Needs no cluster.toml: only where monitors are.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use nacre_mon_api::join::{self, Joined, Newcomer, Ticket};
use nacre_net::identity::join::{Token, hex, unhex};
use nacre_net::identity::{Caps, Name};

use crate::output::{JsonFlag, Out};
use crate::run::{Run, Verdict};

/// How soon a monitor is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// Join a cluster: get a certificate for a daemon or a client from its monitors.
///
/// With a token (`nacre cert token`) at once; without, an operator has to approve the request, and the fingerprint of
/// the cluster's authority (`nacre cert list`) must be given. Running it again goes on where it was.
#[derive(Args)]
#[command(after_long_help = "\
--json: {state: joined, name, caps, not_after, folder} or {state: waits, name, request, fingerprint}.
Exit code 1 while the request waits.")]
pub(crate) struct Join {
    /// Who joins, as in osd.3 or client.alice.
    name: Name,
    /// Where certificate and key go: the folder tls in the data folder of a daemon.
    #[arg(long, value_name = "DIR")]
    folder: PathBuf,
    /// Monitors, as ADDRESS:PORT, separated by commas.
    #[arg(long, value_delimiter = ',', required = true)]
    monitors: Vec<String>,
    /// The token.
    #[arg(long, env = "NACRE_JOIN_TOKEN", hide_env_values = true, conflicts_with_all = ["token_file", "authority"])]
    token: Option<String>,
    /// A file that holds the token: command lines can be seen by others.
    #[arg(long, value_name = "FILE", conflicts_with = "authority")]
    token_file: Option<PathBuf>,
    /// The fingerprint of the cluster's authority, to wait for approval.
    #[arg(long, value_name = "HEX")]
    authority: Option<String>,
    /// What is asked for; an operator sees it.
    #[arg(long, default_value = "")]
    caps: Caps,
    /// How long to wait for the monitors and for an operator, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    wait: u64,
    #[command(flatten)]
    json: JsonFlag,
}

impl Join {
    fn ticket(&self) -> anyhow::Result<Ticket> {
        let text = match (&self.token, &self.token_file) {
            (Some(token), _) => Some(token.clone()),
            (None, Some(file)) => {
                Some(std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?)
            }
            (None, None) => None,
        };
        match (text, &self.authority) {
            (Some(text), _) => Ok(Ticket::Token(text.parse::<Token>()?)),
            (None, Some(print)) => unhex(print)
                .map(Ticket::Approval)
                .context("--authority is 64 hexadecimal digits, as `nacre cert list` shows them first"),
            (None, None) => bail!(
                "give a token (--token-file), or the fingerprint of the cluster's authority (--authority) and have an operator approve"
            ),
        }
    }
}

impl Run for Join {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let newcomer = Newcomer {
            name: self.name.clone(),
            caps: self.caps.clone(),
            ticket: self.ticket()?,
            monitors: self.monitors.clone(),
        };
        let until = Instant::now() + Duration::from_secs(self.wait);
        let mut told = false;
        let joined = nacre_net::daemon::current_thread_runtime()?.block_on(async {
            loop {
                match join::join(&newcomer, &self.folder).await {
                    Ok(Joined::Waits(id, print)) if Instant::now() < until => {
                        if !told && !self.json.json {
                            writeln!(out, "waits for approval: nacre cert approve {id}")?;
                            writeln!(out, "fingerprint of the key: {}", hex(&print))?;
                            out.flush()?;
                            told = true;
                        }
                    }
                    Err(error) if error.may_pass() && Instant::now() < until => {}
                    done => return anyhow::Ok(done?),
                }
                tokio::time::sleep(AGAIN.min(until.saturating_duration_since(Instant::now()))).await;
            }
        })?;
        match joined {
            Joined::Member(identity) if self.json.json => out.json(&serde_json::json!({
                "state": "joined", "name": identity.name, "caps": identity.caps,
                "not_after": identity.not_after, "folder": self.folder,
            }))?,
            Joined::Member(identity) => {
                writeln!(out, "{} joined with \"{}\": {}", identity.name, identity.caps, self.folder.display())?;
            }
            Joined::Waits(id, print) => {
                if self.json.json {
                    out.json(&serde_json::json!({
                        "state": "waits", "name": self.name, "request": id.to_string(), "fingerprint": hex(&print),
                    }))?;
                } else {
                    writeln!(out, "{} still waits for approval: nacre cert approve {id}", self.name)?;
                }
                return Ok(Verdict::Bad);
            }
        }
        Ok(Verdict::Good)
    }
}
