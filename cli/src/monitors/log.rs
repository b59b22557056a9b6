//! `nacre log` and `nacre watch`: the cluster log, so far and as it grows.

use std::io::Write;

use clap::Args;
use nacre_mon_api::v1;
use nacre_proto::status::Retry;

use super::Asking;
use super::span::moment;
use crate::output::{Out, Tone, aside};
use crate::run::{Run, Verdict};

/// Show the newest lines of the cluster log: all that the quorum had when it was asked.
///
/// Without a quorum: what one monitor has by itself, and stderr says so.
#[derive(Args)]
#[command(after_long_help = "--json: one line each: {number, at_ms, channel, level, who, text}")]
pub(crate) struct Log {
    /// How many lines.
    #[arg(long, short = 'n', default_value_t = 50)]
    lines: u64,
    /// Only this channel: `cluster` or `audit`.
    #[arg(long)]
    channel: Option<String>,
    #[command(flatten)]
    asking: Asking,
}

/// Show the cluster log as it grows, until interrupted.
#[derive(Args)]
#[command(after_long_help = "--json: one line each: {number, at_ms, channel, level, who, text}")]
pub(crate) struct Watch {
    /// Only this channel: `cluster` or `audit`.
    #[arg(long)]
    channel: Option<String>,
    #[command(flatten)]
    asking: Asking,
}

fn follow(asking: &Asking, mut request: v1::LogRequest, out: &mut Out) -> anyhow::Result<Verdict> {
    let connected = asking.connect()?;
    connected.runtime.block_on(async {
        loop {
            let mut lines = match connected.monitors.log(request.clone()).await {
                Err(error) if error.code.retry() != Retry::Never => {
                    aside(&format!(
                        "no quorum ({error}); what one monitor has by itself, which may lack the newest lines:"
                    ));
                    let local = v1::LogRequest { local: true, ..request.clone() };
                    connected.monitors.log(local).await?
                }
                lines => lines?,
            };
            let broken = loop {
                match lines.message().await {
                    Ok(Some(line)) => {
                        print(asking, &line, out)?;
                        out.flush()?;
                        // Whoever is asked next goes on behind it.
                        (request.after, request.last) = (line.number, 0);
                    }
                    Ok(None) if !request.follow => return Ok(Verdict::Good),
                    Ok(None) => break "the monitor ended the stream".to_owned(),
                    Err(error) if !request.follow => return Err(error.into()),
                    Err(error) => break error.message().to_owned(),
                }
            };
            aside(&format!("connection lost ({broken}); another monitor is asked, from the same line on"));
        }
    })
}

fn print(asking: &Asking, line: &v1::Event, out: &mut Out) -> anyhow::Result<()> {
    if asking.json.json {
        let line = serde_json::json!({
            "number": line.number, "at_ms": line.at_ms, "channel": line.channel, "level": line.level,
            "who": line.who, "text": line.text,
        });
        writeln!(out, "{line}")?;
        return Ok(());
    }
    let tone = match line.level.as_str() {
        "error" => Tone::Bad,
        "warn" => Tone::Warn,
        _ => Tone::Plain,
    };
    // Quoted text of strangers must not steer a terminal.
    let text: String = line.text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    let level = out.paint(tone, &line.level);
    writeln!(out, "{} {} {level} {}: {text}", moment(line.at_ms), line.channel, line.who)?;
    Ok(())
}

impl Run for Log {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let channel = self.channel.unwrap_or_default();
        follow(&self.asking, v1::LogRequest { after: 0, last: self.lines, follow: false, channel, local: false }, out)
    }
}

impl Run for Watch {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let channel = self.channel.unwrap_or_default();
        follow(&self.asking, v1::LogRequest { after: 0, last: 10, follow: true, channel, local: false }, out)
    }
}
