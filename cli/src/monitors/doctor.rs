//! `nacre doctor`: looks at everything an operator would look at, and says what is wrong, why, and what to type. It changes
//! nothing. Where no quorum answers it goes on with what can be seen without one.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use clap::Args;
use nacre_maps::map::OsdFlags;
use nacre_mon_api::v1;
use nacre_net::identity::UnixTime;
use nacre_proto::v1::Health;
use serde_json::json;

use super::Asking;
use super::recovery::Left;
use super::seen::Seen;
use super::span::now_ms;
use crate::local::{Here, daemons_here};
use crate::output::{Bytes, Out, Span, Tone, count};
use crate::run::{Run, Verdict};

/// How long one monitor may take to answer for itself.
const MONITOR: Duration = Duration::from_secs(3);
/// Clocks that are further apart make logs and expiry times misleading.
const SKEW: i64 = 500;
/// An OSD reports each second; one that was not heard for so long is looked at.
const SILENT: u64 = 5_000;
/// By so many percentage points the fullest device may be above the average before it is worth a word.
const UNEVEN: f64 = 15.0;

/// Say what is wrong, why, and what to type.
///
/// Looks at processes on this machine, monitors, clocks, certificates, versions, health, pgs and devices. Ends with 1 if
/// anything is wrong; hints alone are no reason.
#[derive(Args)]
#[command(after_long_help = "\
--json: {well, findings: [{severity, about, what, why, todo}]}; severity is error, warning or hint, the worst first; todo
is a list of commands and advice.")]
pub(crate) struct Doctor {
    #[command(flatten)]
    asking: Asking,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    Error,
    Warning,
    Hint,
}

impl Severity {
    fn word(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Hint => "hint",
        }
    }

    fn tone(self) -> Tone {
        match self {
            Severity::Error => Tone::Bad,
            Severity::Warning => Tone::Warn,
            Severity::Hint => Tone::Faint,
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    severity: Severity,
    /// What part of the cluster, in a word.
    about: &'static str,
    what: String,
    why: Vec<String>,
    todo: Vec<String>,
}

fn finding(severity: Severity, about: &'static str, what: impl Into<String>) -> Finding {
    Finding { severity, about, what: what.into(), why: Vec::new(), todo: Vec::new() }
}

impl Finding {
    fn why(mut self, why: impl Into<String>) -> Finding {
        let why = why.into();
        if !why.is_empty() {
            self.why.push(why);
        }
        self
    }

    fn todo(mut self, todo: impl Into<String>) -> Finding {
        self.todo.push(todo.into());
        self
    }
}

/// A monitor as it answers for itself.
struct Monitor {
    name: String,
    answer: Result<v1::StatusReply, String>,
    /// How far its clock is ahead of this machine's.
    ahead_ms: i64,
}

fn processes(here: &Here) -> Vec<Finding> {
    let mut found = Vec::new();
    let Some(daemons) = here else {
        return vec![
            finding(Severity::Hint, "processes", "no daemon of this cluster is supervised on this machine")
                .why("nobody runs `nacre up` here, or daemons are run by other means")
                .todo("nacre up"),
        ];
    };
    for (daemon, log) in daemons {
        if daemon.halted {
            found.push(
                finding(Severity::Warning, "processes", format!("{} is stopped", daemon.name))
                    .why("somebody stopped it with `nacre down`")
                    .todo(format!("nacre restart {}", daemon.name)),
            );
        } else if daemon.pid.is_none() {
            found.push(
                finding(Severity::Error, "processes", format!("{} does not stay up", daemon.name))
                    .why(daemon.last_end.clone().unwrap_or_default())
                    .todo(format!("tail {}", log.display())),
            );
        } else if daemon.restarts >= 3 {
            found.push(
                finding(
                    Severity::Hint,
                    "processes",
                    format!("{} was started again {} times", daemon.name, daemon.restarts),
                )
                .why(daemon.last_end.clone().unwrap_or_default())
                .todo(format!("tail {}", log.display())),
            );
        }
    }
    found
}

fn monitors(asked: &[Monitor]) -> Vec<Finding> {
    let mut found = Vec::new();
    let silent: Vec<&Monitor> = asked.iter().filter(|monitor| monitor.answer.is_err()).collect();
    let needed = asked.len() / 2 + 1;
    let lost = asked.len() - silent.len() < needed;
    for monitor in &silent {
        let severity = if lost { Severity::Error } else { Severity::Warning };
        found.push(
            finding(severity, "monitors", format!("{} does not answer", monitor.name))
                .why(monitor.answer.as_ref().err().cloned().unwrap_or_default())
                .todo(format!("nacre restart {0}  (or `systemctl start nacre-mon@N` on its machine)", monitor.name)),
        );
    }
    if lost {
        found.push(
            finding(Severity::Error, "monitors", "no quorum: nothing in the cluster can change")
                .why(format!("{} of {} monitors answer, {needed} are needed", asked.len() - silent.len(), asked.len()))
                .todo("bring monitors back; if they are gone for good: nacre mon restore --help"),
        );
    } else if asked.iter().all(|monitor| monitor.answer.as_ref().is_ok_and(|status| status.leader.is_none())) {
        found.push(
            finding(Severity::Error, "monitors", "monitors answer, but none leads")
                .why("they do not reach each other")
                .todo("nacre mon status"),
        );
    }
    found.extend(clocks(asked));
    found
}

fn clocks(asked: &[Monitor]) -> Vec<Finding> {
    let mut clocks: Vec<(&str, i64)> =
        asked.iter().filter(|monitor| monitor.answer.is_ok()).map(|m| (m.name.as_str(), m.ahead_ms)).collect();
    clocks.sort_by_key(|(_, ahead)| *ahead);
    let Some((_, middle)) = clocks.get(clocks.len() / 2).copied() else { return Vec::new() };
    let mut found = Vec::new();
    // If all agree with each other and not with this machine, it is this machine's clock.
    if middle.abs() > SKEW && clocks.iter().all(|(_, ahead)| (ahead - middle).abs() <= SKEW) {
        found.push(
            finding(
                Severity::Warning,
                "clocks",
                format!("this machine's clock differs from the monitors' by {middle} ms"),
            )
            .why("certificates and expiry times are judged by clocks")
            .todo("run a time service here: systemctl enable --now chrony"),
        );
    }
    for (name, ahead) in clocks.iter().filter(|(_, ahead)| (ahead - middle).abs() > SKEW) {
        found.push(
            finding(
                Severity::Warning,
                "clocks",
                format!("the clock of {name} is {} ms off the others'", ahead - middle),
            )
            .why("logs and expiry times are wrong when it leads")
            .todo("run a time service on its machine: systemctl enable --now chrony"),
        );
    }
    found
}

fn certificates(members: &[v1::Enrolled], now: u64) -> Vec<Finding> {
    let mut found = Vec::new();
    for member in members.iter().filter(|member| member.gone.is_none()) {
        let Some(held) = member.held.iter().max_by_key(|held| held.not_after) else { continue };
        let (life, left) = (held.not_after.saturating_sub(held.at), held.not_after.saturating_sub(now));
        if left == 0 {
            found.push(
                finding(Severity::Error, "certificates", format!("the certificate of {} has ended", member.name))
                    .why("it did not renew it in time: it was off for long, or its clock is wrong")
                    .todo(format!("nacre cert token {0}, then `nacre join` where it runs", member.name)),
            );
        } else if left < life / 6 {
            found.push(
                finding(
                    Severity::Warning,
                    "certificates",
                    format!("the certificate of {} ends in {}", member.name, Span(Duration::from_secs(left))),
                )
                .why("daemons renew theirs after two thirds of its life; this one has not")
                .todo(format!("nacre restart {}", member.name)),
            );
        }
    }
    found
}

fn versions(seen: &Seen, asked: &[Monitor]) -> Vec<Finding> {
    let own = env!("CARGO_PKG_VERSION");
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (osd, info) in seen.map().osd_info.iter().filter(|(osd, _)| seen.map().is_up(*osd)) {
        all.entry(info.version.clone()).or_default().push(osd.to_string());
    }
    for monitor in asked {
        if let Ok(status) = &monitor.answer {
            all.entry(status.version.clone()).or_default().push(monitor.name.clone());
        }
    }
    let others: Vec<String> = all
        .iter()
        .filter(|(version, _)| version.as_str() != own)
        .map(|(version, who)| format!("{}: {}", if version.is_empty() { "unknown" } else { version }, who.join(", ")))
        .collect();
    if others.is_empty() {
        return Vec::new();
    }
    let mut found =
        finding(Severity::Hint, "versions", format!("not everything is of version {own}, as this program is"));
    found.why = others;
    vec![found.todo("finish the upgrade: restart what runs another version, monitors first")]
}

fn health(health: &Health) -> Vec<Finding> {
    let checks = health.checks.iter().filter(|check| !check.muted);
    let severity = |word: &str| if word == "error" { Severity::Error } else { Severity::Warning };
    checks
        .map(|check| Finding {
            severity: severity(&check.severity),
            about: "health",
            what: format!("{}: {}", check.name, check.cause),
            why: std::iter::once(check.effect.clone()).chain(check.details.iter().cloned()).collect(),
            todo: vec![check.todo.clone()],
        })
        .collect()
}

/// What pgs wait for, each cause once.
fn pgs(seen: &Seen) -> Vec<Finding> {
    let mut causes: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (pg, report) in seen.reports.pgs.iter().filter(|(_, report)| !report.is_clean()) {
        causes.entry(report.why.as_str()).or_default().push(pg.to_string());
    }
    if causes.is_empty() {
        return Vec::new();
    }
    let left = Left::of(seen);
    let what = match left.copies {
        0 => format!("{} not as they should be", count(left.pgs as usize, "pg")),
        copies => format!(
            "{} not as they should be: {copies} copies, {} to be made",
            count(left.pgs as usize, "pg"),
            Bytes(left.bytes)
        ),
    };
    // Whether this is bad is for health to say; here is what it waits for.
    let mut found = finding(Severity::Hint, "pgs", what);
    found.why = causes
        .iter()
        .map(|(why, pgs)| match pgs.as_slice() {
            [one] => format!("pg {one}: {why}"),
            [first, ..] => format!("{} pgs, {first} first: {why}", pgs.len()),
            [] => String::new(),
        })
        .collect();
    vec![found.todo("nacre top  (shows how fast it gets better)").todo("nacre pg explain")]
}

fn devices(seen: &Seen) -> Vec<Finding> {
    let map = seen.map();
    let mut found = Vec::new();
    let within: Vec<_> = seen.heard.iter().filter(|(osd, heard)| map.is_in(**osd) && heard.total_bytes > 0).collect();
    let (used, total): (u64, u64) =
        within.iter().fold((0, 0), |(used, total), (_, heard)| (used + heard.used_bytes, total + heard.total_bytes));
    let mean = crate::output::share(used, total) * 100.0;
    for (osd, heard) in &within {
        let full = crate::output::share(heard.used_bytes, heard.total_bytes) * 100.0;
        if full - mean > UNEVEN {
            found.push(
                finding(Severity::Hint, "devices", format!("{osd} is {full:.0} % full, the average is {mean:.0} %"))
                    .why("the fullest device decides when the cluster is full")
                    .todo("nacre balancer status"),
            );
        }
    }
    for (osd, heard) in seen.heard.iter().filter(|(_, heard)| heard.ago_ms > SILENT) {
        found.push(
            finding(
                Severity::Warning,
                "devices",
                format!("{osd} is up, but was last heard {} ago", Span(Duration::from_millis(heard.ago_ms))),
            )
            .why("it reports each second: its host is overloaded, or it does not reach the monitors")
            .todo(format!("nacre daemon {osd} perf")),
        );
    }
    for (osd, _) in map.osds.iter().filter(|(_, state)| state.flags.contains(OsdFlags::DESTROYED)) {
        found.push(
            finding(Severity::Warning, "devices", format!("{osd} waits for a new disk"))
                .why("it was given up with `nacre osd replace`; its pgs keep fewer copies until it is back")
                .todo(format!("nacre osd replace {}  (says how, and waits)", osd.0)),
        );
    }
    found
}

impl Doctor {
    async fn ask_monitors(connected: &crate::local::Connected) -> Vec<Monitor> {
        let mut asked = Vec::new();
        for known in &connected.known {
            let began = (Instant::now(), now_ms());
            let monitor = connected.only(known.address.to_string(), MONITOR);
            let answer = monitor.status(true).await.map_err(|error| error.to_string());
            // What it said is from halfway between question and answer.
            let middle = began.1 + u64::try_from(began.0.elapsed().as_millis() / 2).unwrap_or(0);
            let clock = answer.as_ref().map_or(middle, |status| status.now_ms);
            let ahead_ms = i64::try_from(i128::from(clock) - i128::from(middle)).unwrap_or(i64::MAX);
            asked.push(Monitor { name: known.name.clone(), answer, ahead_ms });
        }
        asked
    }

    fn examine(&self) -> anyhow::Result<Vec<Finding>> {
        let mut found = processes(&daemons_here(&self.asking.config)?);
        let connected = self.asking.connect()?;
        let asked = connected.runtime.block_on(Doctor::ask_monitors(&connected));
        found.extend(monitors(&asked));
        let answering = asked.iter().filter(|monitor| monitor.answer.is_ok()).count();
        if answering <= asked.len() / 2 {
            return Ok(found);
        }
        match self.asking.settled() {
            Ok(seen) => {
                found.extend(health(&seen.health));
                found.extend(pgs(&seen));
                found.extend(devices(&seen));
                found.extend(versions(&seen, &asked));
            }
            Err(error) => found.push(
                finding(Severity::Error, "monitors", "the quorum does not answer")
                    .why(format!("{error:#}"))
                    .todo("nacre mon status"),
            ),
        }
        let listed = connected
            .runtime
            .block_on(connected.monitors.identities(|mut stub| async move { stub.list(v1::CertListRequest {}).await }));
        if let Ok(listed) = listed {
            found.extend(certificates(&listed.members, UnixTime::now().0));
        }
        found.sort_by_key(|finding| finding.severity);
        Ok(found)
    }
}

impl Run for Doctor {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let found = self.examine()?;
        let well = found.iter().all(|finding| finding.severity == Severity::Hint);
        if self.asking.json.json {
            let findings: Vec<_> = found
                .iter()
                .map(|finding| {
                    json!({
                        "severity": finding.severity.word(), "about": finding.about, "what": finding.what,
                        "why": finding.why, "todo": finding.todo,
                    })
                })
                .collect();
            out.json(&json!({ "well": well, "findings": findings }))?;
        } else {
            for finding in &found {
                let head = out.paint(finding.severity.tone(), finding.severity.word());
                writeln!(out, "{head} {}: {}", finding.about, finding.what)?;
                for why in &finding.why {
                    writeln!(out, "  why   {why}")?;
                }
                for todo in &finding.todo {
                    writeln!(out, "  type  {todo}")?;
                }
            }
            match (well, found.len()) {
                (true, 0) => writeln!(out, "nothing is wrong")?,
                (true, hints) => writeln!(out, "\nnothing is wrong; {}", count(hints, "hint"))?,
                (false, all) => writeln!(out, "\n{} found", count(all, "thing"))?,
            }
        }
        Ok(if well { Verdict::Good } else { Verdict::Bad })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn monitor(name: &str, ahead_ms: i64) -> Monitor {
        let answer = v1::StatusReply { leader: Some(1), ..v1::StatusReply::default() };
        Monitor { name: name.into(), answer: Ok(answer), ahead_ms }
    }

    fn dead(name: &str) -> Monitor {
        Monitor { name: name.into(), answer: Err("connection refused".into()), ahead_ms: 0 }
    }

    fn said(found: &[Finding]) -> Vec<(Severity, String)> {
        found.iter().map(|finding| (finding.severity, finding.what.clone())).collect()
    }

    #[test]
    fn a_clock_that_is_off_is_told_from_this_machine_s() {
        assert_eq!(monitors(&[monitor("mon.0", 3), monitor("mon.1", -4), monitor("mon.2", 9)]), []);
        let one = said(&monitors(&[monitor("mon.0", 3), monitor("mon.1", 2_000), monitor("mon.2", 9)]));
        assert_eq!(one, [(Severity::Warning, "the clock of mon.1 is 1991 ms off the others'".into())]);
        let own = said(&monitors(&[monitor("mon.0", 5_003), monitor("mon.1", 5_000), monitor("mon.2", 5_009)]));
        assert_eq!(own, [(Severity::Warning, "this machine's clock differs from the monitors' by 5003 ms".into())]);
    }

    #[test]
    fn one_monitor_is_a_warning_and_two_of_three_an_error() {
        let one = said(&monitors(&[monitor("mon.0", 0), monitor("mon.1", 0), dead("mon.2")]));
        assert_eq!(one, [(Severity::Warning, "mon.2 does not answer".into())]);
        let two = monitors(&[monitor("mon.0", 0), dead("mon.1"), dead("mon.2")]);
        assert!(two.iter().all(|finding| finding.severity == Severity::Error && !finding.todo.is_empty()));
        assert!(two.iter().any(|finding| finding.what.starts_with("no quorum")));
    }

    #[test]
    fn a_certificate_that_was_not_renewed_is_named_before_it_ends() {
        let member = |name: &str, at, not_after| v1::Enrolled {
            name: name.into(),
            held: vec![v1::IssuedRecord { at, not_after, ..v1::IssuedRecord::default() }],
            ..v1::Enrolled::default()
        };
        let members = [member("osd.1", 0, 600), member("osd.2", 500, 1_100), member("osd.3", 0, 510)];
        let found = said(&certificates(&members, 505));
        assert_eq!(
            found,
            [
                (Severity::Warning, "the certificate of osd.1 ends in 2 min".into()),
                (Severity::Warning, "the certificate of osd.3 ends in 5 s".into()),
            ]
        );
        assert_eq!(said(&certificates(&members, 510)).last().unwrap().0, Severity::Error);
    }
}
