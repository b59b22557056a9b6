//! `nacre cert`: who belongs to the cluster, and who may.

use std::future::Future;
use std::io::Write;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use nacre_mon_api::v1;
use nacre_mon_api::v1::cert_client::CertClient;
use nacre_net::identity::Name;
use nacre_net::identity::join::{RequestId, TokenId, Whom, authority_fingerprint, hex};
use nacre_net::identity::{Caps, UnixTime};
use tonic::transport::Channel;

use super::{Asking, PATIENCE};
use crate::output::{Align, Out, Table};
use crate::run::{Run, Verdict};

/// Let daemons and clients into the cluster, and take them out again.
#[derive(Args)]
pub(crate) struct Noun {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    List(List),
    Show(Show),
    Token(Token),
    DropToken(DropToken),
    Approve(Approve),
    Deny(Deny),
    Caps(SetCaps),
    Revoke(Revoke),
    Renew(Renew),
    Rotate(Rotate),
}

impl Run for Noun {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        match self.verb {
            Verb::List(verb) => verb.run(out),
            Verb::Show(verb) => verb.run(out),
            Verb::Token(verb) => verb.run(out),
            Verb::DropToken(verb) => verb.run(out),
            Verb::Approve(verb) => verb.run(out),
            Verb::Deny(verb) => verb.run(out),
            Verb::Caps(verb) => verb.run(out),
            Verb::Revoke(verb) => verb.run(out),
            Verb::Renew(verb) => verb.run(out),
            Verb::Rotate(verb) => verb.run(out),
        }
    }
}

fn listed(asking: &Asking) -> anyhow::Result<v1::CertListReply> {
    let connected = asking.connect()?;
    let reply = connected
        .runtime
        .block_on(connected.monitors.identities(|mut stub| async move { stub.list(v1::CertListRequest {}).await }))?;
    Ok(reply)
}

/// Makes a call that is answered with a sentence, and says it.
fn say<F>(asking: &Asking, call: impl Fn(CertClient<Channel>) -> F, out: &mut Out) -> anyhow::Result<Verdict>
where
    F: Future<Output = Result<tonic::Response<v1::CertReply>, tonic::Status>>,
{
    let connected = asking.connect()?;
    let reply = connected.runtime.block_on(connected.monitors.identities(call))?;
    if asking.json.json {
        out.json(&serde_json::json!({ "text": reply.text }))?;
    } else {
        writeln!(out, "{}", reply.text)?;
    }
    Ok(Verdict::Good)
}

/// How long until a moment, in words.
fn left(until: u64) -> String {
    let now = UnixTime::now().0;
    let Some(seconds) = until.checked_sub(now).filter(|left| *left > 0) else { return "over".into() };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn state(member: &v1::Enrolled) -> &'static str {
    match (&member.gone, member.held.is_empty()) {
        (Some(_), _) => "revoked",
        (None, true) => "expired",
        (None, false) => "member",
    }
}

fn request_state(request: &v1::SigningRecord) -> &'static str {
    match (&request.approved, &request.denied) {
        (Some(_), _) => "approved",
        (None, Some(_)) => "denied",
        (None, None) => "waits",
    }
}

/// List members, signing requests that wait, and join tokens.
#[derive(Args)]
#[command(after_long_help = "\
--json: {authority, members: [{name, state, caps, generation, not_after, certificates}],
requests: [{id, name, state, caps, fingerprint, at}], tokens: [{id, whom, caps, expires, used}]}")]
struct List {
    #[command(flatten)]
    asking: Asking,
}

impl Run for List {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let reply = listed(&self.asking)?;
        let authority = reply.authorities.first().map(|der| hex(&authority_fingerprint(der)));
        let not_after = |member: &v1::Enrolled| member.held.iter().map(|held| held.not_after).max();
        if self.asking.json.json {
            let members: Vec<_> = reply
                .members
                .iter()
                .map(|member| {
                    serde_json::json!({
                        "name": member.name, "state": state(member), "caps": member.caps,
                        "generation": member.generation, "not_after": not_after(member),
                        "certificates": member.held.iter().map(|held| hex(&held.serial)).collect::<Vec<_>>(),
                    })
                })
                .collect();
            let requests: Vec<_> = reply
                .requests
                .iter()
                .map(|request| {
                    serde_json::json!({
                        "id": RequestId(request.id).to_string(), "name": request.name, "caps": request.caps,
                        "state": request_state(request), "fingerprint": hex(&request.fingerprint), "at": request.at,
                    })
                })
                .collect();
            let tokens: Vec<_> = reply
                .tokens
                .iter()
                .map(|token| {
                    serde_json::json!({
                        "id": TokenId(token.id).to_string(), "whom": token.whom, "caps": token.caps,
                        "expires": token.expires, "used": token.used.is_some(),
                    })
                })
                .collect();
            out.json(&serde_json::json!({
                "authority": authority, "members": members, "requests": requests, "tokens": tokens,
            }))?;
            return Ok(Verdict::Good);
        }
        writeln!(out, "authority {}", authority.as_deref().unwrap_or("not made yet"))?;
        let mut table = Table::new(&[
            ("NAME", Align::Left),
            ("STATE", Align::Left),
            ("ENDS IN", Align::Right),
            ("CAPABILITIES", Align::Left),
        ]);
        for member in &reply.members {
            let ends = not_after(member).map_or_else(|| "-".into(), left);
            table.row([member.name.clone(), state(member).into(), ends, member.caps.clone()]);
        }
        table.print(out)?;
        if !reply.requests.is_empty() {
            let mut table = Table::new(&[
                ("REQUEST", Align::Left),
                ("NAME", Align::Left),
                ("STATE", Align::Left),
                ("CAPABILITIES", Align::Left),
            ]);
            for request in &reply.requests {
                let id = RequestId(request.id).to_string();
                table.row([id, request.name.clone(), request_state(request).into(), request.caps.clone()]);
            }
            writeln!(out)?;
            table.print(out)?;
        }
        if !reply.tokens.is_empty() {
            let mut table = Table::new(&[
                ("TOKEN", Align::Left),
                ("FOR", Align::Left),
                ("STATE", Align::Left),
                ("CAPABILITIES", Align::Left),
            ]);
            for token in &reply.tokens {
                let state = match token.used {
                    Some(_) => "used".into(),
                    None => format!("good for {}", left(token.expires)),
                };
                table.row([TokenId(token.id).to_string(), token.whom.clone(), state, token.caps.clone()]);
            }
            writeln!(out)?;
            table.print(out)?;
        }
        Ok(Verdict::Good)
    }
}

/// Show all that is known of a member, or of a signing request by its id.
#[derive(Args)]
#[command(after_long_help = "--json: the entry as `nacre cert list --json` has it, and fingerprints of its keys.")]
struct Show {
    /// A name as in osd.3, or the id of a signing request.
    what: String,
    #[command(flatten)]
    asking: Asking,
}

impl Run for Show {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let reply = listed(&self.asking)?;
        let member = reply.members.iter().find(|member| member.name == self.what);
        let request = reply.requests.iter().find(|request| RequestId(request.id).to_string() == self.what);
        let shown = match (member, request) {
            (Some(member), _) => serde_json::json!({
                "name": member.name, "state": state(member), "caps": member.caps, "generation": member.generation,
                "revoked": member.gone.as_ref().map(|gone| {
                    serde_json::json!({ "by": gone.by, "why": gone.why, "at": gone.at })
                }),
                "certificates": member.held.iter().map(|held| serde_json::json!({
                    "serial": hex(&held.serial), "at": held.at, "not_after": held.not_after,
                    "fingerprint": hex(&held.fingerprint),
                })).collect::<Vec<_>>(),
            }),
            (None, Some(request)) => serde_json::json!({
                "id": self.what, "name": request.name, "state": request_state(request), "caps": request.caps,
                "fingerprint": hex(&request.fingerprint), "at": request.at,
                "denied": request.denied.as_ref().map(|denied| {
                    serde_json::json!({ "by": denied.by, "why": denied.why, "at": denied.at })
                }),
            }),
            (None, None) => {
                anyhow::bail!("there is no member and no signing request {}; `nacre cert list` shows them", self.what)
            }
        };
        if self.asking.json.json {
            out.json(&shown)?;
        } else {
            writeln!(out, "{}", serde_json::to_string_pretty(&shown)?)?;
        }
        Ok(Verdict::Good)
    }
}

/// Make a one-time token with which a newcomer joins at once (`nacre join`). It is a secret.
#[derive(Args)]
#[command(after_long_help = "--json: {token, id, whom, caps, expires}")]
struct Token {
    /// The name it is for, or a kind as in 'osd.*'.
    #[arg(value_name = "NAME")]
    whom: Whom,
    /// What the newcomer may do; by default what a daemon of its kind needs. Clients need it.
    #[arg(long)]
    caps: Option<Caps>,
    /// How long it is good, in minutes.
    #[arg(long, value_name = "MINUTES", default_value_t = 60)]
    minutes: u64,
    #[command(flatten)]
    asking: Asking,
}

impl Run for Token {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let connected = self.asking.connect()?;
        let request = v1::TokenRequest {
            whom: self.whom.to_string(),
            caps: self.caps.map(|caps| caps.to_string()).unwrap_or_default(),
            life_seconds: Duration::from_secs(self.minutes.saturating_mul(60).max(1)).as_secs(),
        };
        let reply = connected.runtime.block_on(connected.monitors.identities(|mut stub| {
            let request = request.clone();
            async move { stub.make_token(request).await }
        }))?;
        if self.asking.json.json {
            out.json(&serde_json::json!({
                "token": reply.token, "id": TokenId(reply.id).to_string(), "whom": self.whom.to_string(),
                "caps": reply.caps, "expires": reply.expires,
            }))?;
        } else {
            writeln!(out, "{}", reply.token)?;
        }
        Ok(Verdict::Good)
    }
}

/// Take a join token back.
#[derive(Args)]
#[command(after_long_help = "--json: {text}")]
struct DropToken {
    /// Its id, from `nacre cert list`.
    id: TokenId,
    #[command(flatten)]
    asking: Asking,
}

impl Run for DropToken {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let request = v1::DropTokenRequest { id: self.id.0 };
        say(&self.asking, |mut stub| async move { stub.drop_token(request).await }, out)
    }
}

fn decide(asking: &Asking, request: &v1::DecideRequest, out: &mut Out) -> anyhow::Result<Verdict> {
    let call = |mut stub: CertClient<Channel>| {
        let request = request.clone();
        async move { stub.decide(request).await }
    };
    say(asking, call, out)
}

/// Grant a signing request. Compare the fingerprint of its key with what the newcomer shows first.
#[derive(Args)]
#[command(after_long_help = "--json: {text}")]
struct Approve {
    /// The request, from `nacre cert list`.
    id: RequestId,
    /// Other capabilities than a daemon of its kind needs, or a client asks for.
    #[arg(long)]
    caps: Option<Caps>,
    #[command(flatten)]
    asking: Asking,
}

impl Run for Approve {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let caps = self.caps.map(|caps| caps.to_string()).unwrap_or_default();
        let request = v1::DecideRequest { request: self.id.0, approve: true, caps, why: String::new() };
        decide(&self.asking, &request, out)
    }
}

/// Refuse a signing request.
#[derive(Args)]
#[command(after_long_help = "--json: {text}")]
struct Deny {
    /// The request, from `nacre cert list`.
    id: RequestId,
    /// What the newcomer is told.
    #[arg(long, default_value = "")]
    why: String,
    #[command(flatten)]
    asking: Asking,
}

impl Run for Deny {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let request = v1::DecideRequest { request: self.id.0, approve: false, caps: String::new(), why: self.why };
        decide(&self.asking, &request, out)
    }
}

/// Change what a member may do, from its next certificate on.
#[derive(Args)]
#[command(after_long_help = "--json: {text}")]
struct SetCaps {
    /// The member.
    name: Name,
    /// Its capabilities, as in "mon r; osd rw pool=vms".
    caps: Caps,
    /// At once: its certificates are void, and it has to join anew. To take something away.
    #[arg(long)]
    now: bool,
    #[command(flatten)]
    asking: Asking,
}

impl Run for SetCaps {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let request = v1::SetCapsRequest { name: self.name.to_string(), caps: self.caps.to_string(), now: self.now };
        let call = |mut stub: CertClient<Channel>| {
            let request = request.clone();
            async move { stub.set_caps(request).await }
        };
        say(&self.asking, call, out)
    }
}

/// Believe no certificate of a name any more. Its connections end at once; only joining anew lets it back in.
#[derive(Args)]
#[command(after_long_help = "--json: {text}")]
struct Revoke {
    /// The member.
    name: Name,
    /// For the audit.
    #[arg(long, default_value = "")]
    why: String,
    #[command(flatten)]
    asking: Asking,
}

impl Run for Revoke {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let request = v1::RevokeNameRequest { name: self.name.to_string(), why: self.why };
        let call = |mut stub: CertClient<Channel>| {
            let request = request.clone();
            async move { stub.revoke(request).await }
        };
        say(&self.asking, call, out)
    }
}

/// Renew the administrator's own certificate now. Every verb does so by itself when it is due.
#[derive(Args)]
#[command(after_long_help = "--json: {text}")]
struct Renew {
    #[command(flatten)]
    asking: Asking,
}

impl Run for Renew {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        self.asking.connect()?.renew(PATIENCE)?;
        let text = "the certificate is renewed";
        if self.asking.json.json {
            out.json(&serde_json::json!({ "text": text }))?;
        } else {
            writeln!(out, "{text}")?;
        }
        Ok(Verdict::Good)
    }
}

/// How often members are looked at again that are not ready for the next step.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Replace the authority that signs certificates by a new one, without anybody having to join anew.
///
/// Three steps: the new one is believed by every member; it signs; the old one is believed no more. Daemons and clients
/// that run follow by themselves within seconds. Ends early, and goes on where it was when called again, if a member is
/// away: start it, or revoke it.
#[derive(Args)]
#[command(after_long_help = "\
--json: {step, text, waiting: [NAME]}; step is done, abandoned or waits. Exit code 1 while it waits.")]
struct Rotate {
    /// Do not wait for members that are not ready: they have to join anew.
    #[arg(long, conflicts_with = "abandon")]
    anyway: bool,
    /// Give up a new authority that does not sign yet.
    #[arg(long)]
    abandon: bool,
    /// How long to wait for members, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    wait: u64,
    #[command(flatten)]
    asking: Asking,
}

impl Run for Rotate {
    #[expect(clippy::disallowed_methods, reason = "a pause between two looks at members that get ready by themselves")]
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        let connected = self.asking.connect()?;
        let started = Instant::now();
        // Whoever asks is a member, and is not to be waited for.
        connected.renew(PATIENCE)?;
        let ask = |going_on: bool| {
            let request = v1::RotateRequest { anyway: self.anyway, abandon: self.abandon, going_on };
            connected
                .runtime
                .block_on(connected.monitors.identities(|mut stub| async move { stub.rotate(request).await }))
        };
        let listed = connected.runtime.block_on(
            connected.monitors.identities(|mut stub| async move { stub.list(v1::CertListRequest {}).await }),
        )?;
        let mut under_way = listed.authorities.len() > 1;
        let ended = loop {
            let reply = ask(under_way)?;
            match reply.step.as_str() {
                "waits" if started.elapsed().as_secs() >= self.wait => break reply,
                "waits" => std::thread::sleep(LOOK_AGAIN),
                "begun" | "switched" => {
                    if !self.asking.json.json {
                        writeln!(out, "{}", reply.text)?;
                        out.flush()?;
                    }
                    connected.renew(PATIENCE)?;
                    under_way = true;
                }
                _ => break reply,
            }
        };
        if self.asking.json.json {
            out.json(&serde_json::json!({ "step": ended.step, "text": ended.text, "waiting": ended.waiting }))?;
        } else {
            writeln!(out, "{}", ended.text)?;
            for name in &ended.waiting {
                writeln!(out, "  {name}")?;
            }
            if ended.step == "waits" {
                writeln!(out, "start them (a client: `nacre cert renew`), or revoke them, then call this verb again")?;
            }
        }
        Ok(if ended.step == "waits" { Verdict::Bad } else { Verdict::Good })
    }
}
