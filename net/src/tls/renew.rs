//! A process renews its own certificate: the shell around [`Renewal`]. Each renewal makes a new key; the new certificate
//! is used for handshakes at once and is on disk before the old one is forgotten. Connections that stand are not touched;
//! they end with the certificate they were made with and come back with the new one.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Credentials, Trust, files};
use crate::identity::authority::SigningRequest;
use crate::identity::join::authority_fingerprint;
use crate::identity::renewal::Due;
use crate::identity::{Keypair, Renewal, UnixTime};
use crate::metrics::Registry;

/// A sleep is no longer than this: the machine's clock may be set, and its sleep is not counted as time.
const LONGEST_SLEEP: Duration = Duration::from_secs(600);

/// What is asked of the monitors.
#[derive(Clone, Debug)]
pub struct Ask {
    /// A signing request in DER.
    pub request: Vec<u8>,
    /// Fingerprints of the authorities that are believed.
    pub trusts: Vec<[u8; 32]>,
}

/// What they answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The certificate.
    pub certificate: Vec<u8>,
    /// The authorities that are to be believed, the one that signs first.
    pub authorities: Vec<Vec<u8>>,
}

/// What the renewal works on.
pub struct Keeper {
    /// The certificate in use.
    pub own: Arc<Credentials>,
    /// Who signs.
    pub trust: Arc<Trust>,
    /// Where it is kept, if on disk.
    pub folder: Option<PathBuf>,
    /// What is counted.
    pub registry: Arc<Registry>,
    /// Renews at once when told.
    pub now: Arc<tokio::sync::Notify>,
    /// The time.
    pub clock: fn() -> UnixTime,
}

impl Keeper {
    /// Renews for ever, and also when other authorities are believed, so that the monitors hear of it and a new one
    /// signs. `ask` sends a signing request to the monitors and gives what they answer. Returns only if the certificate
    /// has expired: then the process must join anew.
    pub async fn run<F, E>(self, mut ask: impl FnMut(Ask) -> F)
    where
        F: Future<Output = Result<Answer, E>>,
        E: std::fmt::Display,
    {
        let count = |outcome| {
            let help = "Renewals of the own certificate, by outcome.";
            self.registry.counter("tls_renewals_total", help, &[("outcome", outcome)])
        };
        let (done, failed) = (count("done"), count("failed"));
        let mut plan = Renewal::of(&self.own.identity());
        let mut told = self.trust.news();
        let mut said = self.trust.authorities();
        loop {
            let now = (self.clock)();
            let mut due = plan.due(now);
            if let Due::Wait(until) = due {
                tokio::select! {
                    () = tokio::time::sleep(until.since(now).min(LONGEST_SLEEP)) => continue,
                    () = self.now.notified() => due = Due::Renew,
                    _ = told.changed() => {
                        let believed = self.trust.authorities();
                        if believed == said {
                            continue;
                        }
                        said = believed;
                        due = Due::Renew;
                    }
                }
            }
            match due {
                Due::Wait(_) => {}
                Due::Renew => match self.renew(&mut ask).await {
                    Ok(()) => {
                        done.inc();
                        let identity = self.own.identity();
                        tracing::info!(name = %identity.name, not_after = identity.not_after.0, "certificate renewed");
                        plan = Renewal::of(&identity);
                    }
                    Err(e) => {
                        failed.inc();
                        plan.failed((self.clock)());
                        let left = self.own.identity().not_after.since((self.clock)());
                        tracing::warn!(error = %e, failures = plan.failures(), ?left, "certificate was not renewed");
                    }
                },
                Due::Expired => {
                    let name = &self.own.identity().name;
                    tracing::error!(%name, "the certificate has expired; let this process join anew (`nacre cert token {name}`)");
                    return;
                }
            }
        }
    }

    /// Renews once, now: for a process that does not live long.
    pub async fn once<F, E>(&self, mut ask: impl FnMut(Ask) -> F) -> Result<(), String>
    where
        F: Future<Output = Result<Answer, E>>,
        E: std::fmt::Display,
    {
        self.renew(&mut ask).await
    }

    /// Once, and once more if the answer names other authorities: so that the monitors know that they are believed.
    async fn renew<F, E>(&self, ask: &mut impl FnMut(Ask) -> F) -> Result<(), String>
    where
        F: Future<Output = Result<Answer, E>>,
        E: std::fmt::Display,
    {
        let before = self.trust.authorities();
        self.step(ask).await?;
        if self.trust.authorities() != before { self.step(ask).await } else { Ok(()) }
    }

    async fn step<F, E>(&self, ask: &mut impl FnMut(Ask) -> F) -> Result<(), String>
    where
        F: Future<Output = Result<Answer, E>>,
        E: std::fmt::Display,
    {
        let now = self.own.identity();
        let (request, key) = SigningRequest::make(now.cluster, &now.name, &now.caps).map_err(|e| e.to_string())?;
        let trusts = self.trust.authorities().iter().map(|der| authority_fingerprint(der)).collect();
        let Answer { certificate, authorities } = ask(Ask { request, trusts }).await.map_err(|e| e.to_string())?;
        let pair = Keypair { certificate, key };
        // The monitor that says so is believed: it has proven who it is.
        self.trust.set_authorities(authorities).map_err(|e| e.to_string())?;
        let authorities = self.trust.authorities();
        // What peers would refuse must not replace what they believe.
        self.trust.judge_own(&pair.certificate, (self.clock)()).map_err(|e| e.to_string())?;
        let authority = authorities.first().map(Vec::as_slice).unwrap_or_default();
        self.own.install(&pair, authority).map_err(|e| e.to_string())?;
        if let Some(folder) = &self.folder {
            files::store(folder, &pair, &authorities).map_err(|e| e.to_string())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::identity::{Authority, Caps, ClusterId, Grant};

    const DAY: Duration = Duration::from_secs(86_400);
    static NOW: AtomicU64 = AtomicU64::new(0);

    #[tokio::test(start_paused = true)]
    async fn a_certificate_is_renewed_in_time_and_tried_again_after_failures() {
        let start = UnixTime::now();
        let began = tokio::time::Instant::now();
        NOW.store(start.0, Ordering::SeqCst);
        let authority = Arc::new(Authority::create(ClusterId::random(), start, DAY * 365).unwrap());
        let foreign = Authority::create(authority.cluster(), start, DAY * 365).unwrap();
        let grant = Grant { name: "osd.3".parse().unwrap(), caps: Caps::all(), generation: 0 };
        let first = authority.issue(&grant, start, DAY).unwrap();
        let own = Credentials::new(&first, authority.certificate()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::new("osd");
        let keeper = Keeper {
            own: own.clone(),
            trust: Trust::new(authority.cluster(), vec![authority.certificate().to_vec()]).unwrap(),
            folder: Some(folder.path().to_owned()),
            registry: registry.clone(),
            now: Arc::default(),
            clock: || UnixTime(NOW.load(Ordering::SeqCst)),
        };
        let (mut asked, signer) = (0, authority.clone());
        let task = tokio::spawn(keeper.run(move |ask| {
            // The paused clock of the runtime is the clock of the world.
            asked += 1;
            let now = UnixTime(NOW.load(Ordering::SeqCst));
            let request = SigningRequest::read(&ask.request).unwrap();
            let answer = match asked {
                1 => Err("no monitor answers"),
                2 => Ok(foreign.sign(&request, &grant, now, DAY).unwrap()),
                _ => Ok(signer.sign(&request, &grant, now, DAY).unwrap()),
            };
            async move { answer.map(|certificate| Answer { certificate, authorities: Vec::new() }) }
        }));
        let before = own.identity();
        while own.identity().serial == before.serial {
            tokio::time::sleep(Duration::from_secs(60)).await;
            NOW.store(start.0 + began.elapsed().as_secs(), Ordering::SeqCst);
        }
        let at = began.elapsed();
        assert!((DAY / 2..DAY * 3 / 4).contains(&at), "{at:?}");
        let count = |outcome| registry.counter("tls_renewals_total", "", &[("outcome", outcome)]).get();
        assert_eq!((count("failed"), count("done")), (2, 1), "one answer missing, one from a foreign authority");
        let stored = files::load(folder.path()).unwrap().unwrap();
        assert_eq!(stored.pair.certificate, own.certificate());
        assert!(!task.is_finished());
        NOW.store(start.0 + 10 * 86_400, Ordering::SeqCst);
        tokio::time::timeout(DAY, task).await.unwrap().unwrap();
    }
}
