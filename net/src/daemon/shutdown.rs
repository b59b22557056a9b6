//! The end of a daemon: asked for by SIGTERM, SIGINT or by itself; work under way holds a [`Work`] and is let finish. A
//! second signal ends the process at once.

use std::sync::Arc;

use tokio::sync::watch;

#[derive(Debug)]
struct State {
    begun: watch::Sender<Option<String>>,
    work: watch::Sender<usize>,
}

/// When to end. Cheap to clone; everyone looks at the same one.
#[derive(Clone, Debug)]
pub struct Shutdown(Arc<State>);

/// Work that is let finish.
#[derive(Debug)]
#[must_use = "work is under way as long as this is held"]
pub struct Work(Arc<State>);

impl Drop for Work {
    fn drop(&mut self) {
        self.0.work.send_modify(|n| *n -= 1);
    }
}

impl Shutdown {
    /// One that only the program begins, for tests and for daemons within another process.
    #[must_use]
    pub fn by_hand() -> Shutdown {
        Shutdown(Arc::new(State { begun: watch::Sender::new(None), work: watch::Sender::new(0) }))
    }

    /// One that SIGTERM and SIGINT begin.
    pub fn on_signals() -> std::io::Result<Shutdown> {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let shutdown = Shutdown::by_hand();
        let begun = shutdown.clone();
        tokio::spawn(async move {
            loop {
                let name = tokio::select! {
                    Some(()) = term.recv() => "SIGTERM",
                    Some(()) = int.recv() => "SIGINT",
                    else => return,
                };
                if begun.has_begun() {
                    tracing::warn!(signal = name, "second signal: ending at once");
                    #[expect(
                        clippy::disallowed_methods,
                        reason = "the operator insists; what is left behind is recovered at start"
                    )]
                    std::process::exit(1);
                }
                begun.begin(name);
            }
        });
        Ok(shutdown)
    }

    /// Begins the end; only the first reason counts.
    pub fn begin(&self, why: &str) {
        let first = self.0.begun.send_if_modified(|begun| {
            let first = begun.is_none();
            if first {
                *begun = Some(why.to_owned());
            }
            first
        });
        if first {
            tracing::info!(why, "ending");
        }
    }

    /// Whether it has begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.0.begun.borrow().is_some()
    }

    /// Waits until it begins; gives the reason.
    pub async fn begun(&self) -> String {
        let mut begun = self.0.begun.subscribe();
        match begun.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            Err(_) => String::new(),
        }
    }

    /// Marks work as under way. None once the end has begun.
    pub fn work(&self) -> Option<Work> {
        self.0.work.send_modify(|n| *n += 1);
        let work = Work(self.0.clone());
        // Counted first: an end that begins now either is seen here or waits for this work.
        (!self.has_begun()).then_some(work)
    }

    /// Waits until no work is under way.
    pub async fn drained(&self) {
        let _ = self.0.work.subscribe().wait_for(|n| *n == 0).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_under_way_is_let_finish_and_none_begins() {
        let shutdown = Shutdown::by_hand();
        let work = shutdown.work().unwrap();
        shutdown.begin("first");
        shutdown.begin("second");
        assert_eq!(shutdown.begun().await, "first");
        assert!(shutdown.work().is_none());
        let waits = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.drained().await }
        });
        tokio::task::yield_now().await;
        assert!(!waits.is_finished());
        drop(work);
        waits.await.unwrap();
    }
}
