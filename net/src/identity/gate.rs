//! The one place where a service asks whether a caller may do something, and where a refusal is reported. What the call
//! needs is said by the service; nothing here knows messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::caps::Request;
use super::{Identity, Name, Service};

/// Who is calling. Local callers are the daemon itself, for example its own planner.
pub type Access<'a> = Request<'a>;

/// A call that was refused. Owned, because the audit outlives the call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{who} may not {what}: {why}")]
pub struct Denied {
    /// Who asked; nobody if the peer has no identity.
    pub who: Caller,
    /// The service that refused.
    pub service: Service,
    /// The verb and what it would have touched.
    pub what: String,
    /// Why, and what an operator could do about it.
    pub why: String,
}

/// A caller in the audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A member of the cluster.
    Member(Name),
    /// One that showed no identity; its address or what is known of it.
    Stranger(String),
}

impl std::fmt::Display for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Caller::Member(name) => write!(f, "{name}"),
            Caller::Stranger(from) => write!(f, "a stranger ({from})"),
        }
    }
}

/// Where refusals are reported. Must not block: it is called in the path of calls, and an attacker can cause many.
pub trait Audit: Send + Sync + 'static {
    /// A call, a connection or a signing request was refused.
    fn denied(&self, denied: &Denied);
}

/// Writes refusals to the log, target `audit`.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogAudit;

impl Audit for LogAudit {
    fn denied(&self, denied: &Denied) {
        tracing::warn!(
            target: "audit",
            who = %denied.who,
            service = %denied.service,
            what = %denied.what,
            why = %denied.why,
            "denied"
        );
    }
}

/// Hands refusals to whoever carries them to the cluster log, through a bounded channel; what does not fit is counted.
#[derive(Debug)]
pub struct ChannelAudit {
    to: tokio::sync::mpsc::Sender<Denied>,
    lost: Arc<AtomicU64>,
}

impl ChannelAudit {
    /// The audit, the end to read from, and the count of refusals that found the channel full.
    #[must_use]
    pub fn new(room: usize) -> (ChannelAudit, tokio::sync::mpsc::Receiver<Denied>, Arc<AtomicU64>) {
        let (to, from) = tokio::sync::mpsc::channel(room.max(1));
        let lost = Arc::new(AtomicU64::new(0));
        (ChannelAudit { to, lost: lost.clone() }, from, lost)
    }
}

impl Audit for ChannelAudit {
    fn denied(&self, denied: &Denied) {
        LogAudit.denied(denied);
        if self.to.try_send(denied.clone()).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The gate of one service.
#[derive(Clone)]
pub struct Gate {
    service: Service,
    audit: Arc<dyn Audit>,
    denied: Arc<AtomicU64>,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gate of {}", self.service)
    }
}

impl Gate {
    /// A gate that reports to `audit`.
    #[must_use]
    pub fn new(service: Service, audit: Arc<dyn Audit>) -> Gate {
        Gate { service, audit, denied: Arc::new(AtomicU64::new(0)) }
    }

    /// May `who` do this? `verb` is what the audit calls it. A refusal was reported and counted when this returns.
    pub fn check(&self, who: &Identity, verb: &str, call: &Access<'_>) -> Result<(), Denied> {
        if call.service == self.service && who.caps.allow(call) {
            return Ok(());
        }
        Err(self.refuse(Denied {
            who: Caller::Member(who.name.clone()),
            service: self.service,
            what: format!("{verb} ({call})"),
            why: format!(
                "its capabilities are \"{}\"; an administrator can grant more and have its certificate renewed",
                who.caps
            ),
        }))
    }

    /// Reports a refusal that was decided elsewhere: a peer without a certificate, a fenced session.
    pub fn refuse(&self, denied: Denied) -> Denied {
        self.denied.fetch_add(1, Ordering::Relaxed);
        self.audit.denied(&denied);
        denied
    }

    /// How many calls were refused, for the metric.
    #[must_use]
    pub fn denied_total(&self) -> u64 {
        self.denied.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::certificate::Serial;
    use super::super::{ClusterId, Ops, UnixTime};
    use super::*;

    fn alice() -> Identity {
        Identity {
            cluster: ClusterId([0; 16]),
            name: "client.alice".parse().unwrap(),
            caps: "osd rw pool=vms".parse().unwrap(),
            generation: 0,
            serial: Serial(Box::new([1])),
            not_before: UnixTime(0),
            not_after: UnixTime(100),
            signer: None,
        }
    }

    #[test]
    fn a_refusal_is_counted_and_audited_and_a_full_audit_never_blocks() {
        let (audit, mut from, lost) = ChannelAudit::new(1);
        let gate = Gate::new(Service::Osd, Arc::new(audit));
        let write = |pool| Request::new(Service::Osd, Ops::WRITE).in_pool(pool, "");
        assert!(gate.check(&alice(), "write", &write("vms")).is_ok());
        assert_eq!(gate.denied_total(), 0);
        let denied = gate.check(&alice(), "write", &write("other")).unwrap_err();
        assert!(denied.to_string().starts_with("client.alice may not write (osd w pool=other)"), "{denied}");
        assert!(gate.check(&alice(), "write", &write("third")).is_err());
        assert_eq!(gate.denied_total(), 2);
        assert_eq!(from.try_recv().unwrap(), denied);
        assert!(from.try_recv().is_err());
        assert_eq!(lost.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_gate_judges_only_calls_of_its_own_service() {
        let gate = Gate::new(Service::Mon, Arc::new(LogAudit));
        let call = Request::new(Service::Osd, Ops::WRITE).in_pool("vms", "");
        assert!(gate.check(&alice(), "write", &call).is_err());
    }
}
