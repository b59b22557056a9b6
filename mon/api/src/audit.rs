//! What a daemon refused goes into the cluster log, where an operator looks (`nacre log --channel audit`), and not only
//! into the log on the daemon's own machine.
//!
//! Invariant: whoever makes a daemon refuse a lot makes it write a line a second at most; the line says how many more
//! there were, and the daemon's own log has all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nacre_net::identity::gate::ChannelAudit;
use nacre_net::identity::{Audit, Denied};
use nacre_proto::status::Status;
use tokio::sync::mpsc;

use crate::{MonClient, v1};

/// Refusals that wait to be written.
const WAITING: usize = 16;
/// Between two lines.
const PAUSE: Duration = Duration::from_secs(1);
/// What the monitors keep of a line of their log.
const CHANNEL: &str = "audit";

/// An audit that writes into the cluster log for as long as somebody holds it. Call it within the runtime.
pub fn to_cluster_log(monitors: Arc<MonClient>) -> Arc<dyn Audit> {
    let (audit, refusals, more) = ChannelAudit::new(WAITING);
    tokio::spawn(write(refusals, more, move |text| {
        let monitors = monitors.clone();
        async move {
            let note = v1::Note { level: "warn".into(), text, channel: CHANNEL.into() };
            monitors.execute(v1::command::Verb::Note(note), false).await.map(drop)
        }
    }));
    Arc::new(audit)
}

async fn write<F: Future<Output = Result<(), Status>>>(
    mut refusals: mpsc::Receiver<Denied>,
    more: Arc<AtomicU64>,
    note: impl Fn(String) -> F,
) {
    while let Some(denied) = refusals.recv().await {
        let more = match more.swap(0, Ordering::Relaxed) {
            0 => String::new(),
            more => format!(" ({more} more were not written)"),
        };
        if let Err(error) = note(format!("denied: {denied}{more}")).await {
            tracing::warn!(%error, "a refusal did not reach the cluster log");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use nacre_net::identity::Service;
    use nacre_net::identity::gate::Caller;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_refusals_is_a_line_a_second_and_a_count() {
        let (audit, refusals, more) = ChannelAudit::new(WAITING);
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = lines.clone();
        let began = tokio::time::Instant::now();
        let written = tokio::spawn(write(refusals, more, move |text| {
            kept.lock().unwrap().push((began.elapsed(), text));
            async { Ok(()) }
        }));
        for _ in 0..1000 {
            audit.denied(&Denied {
                who: Caller::Stranger("10.0.0.7:4711".into()),
                service: Service::Osd,
                what: "connect".into(),
                why: "no certificate".into(),
            });
        }
        drop(audit);
        written.await.unwrap();
        let lines = lines.lock().unwrap();
        assert_eq!(lines.len(), WAITING);
        assert!(lines[0].1.contains("a stranger (10.0.0.7:4711) may not connect"), "{lines:?}");
        assert!(lines[0].1.ends_with("(984 more were not written)"), "{lines:?}");
        assert!(lines.windows(2).all(|two| two[1].0 - two[0].0 >= PAUSE), "{lines:?}");
    }
}
