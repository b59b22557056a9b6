//! What systemd wants to hear, said over its socket: ready, status, stopping, still alive. Silent where there is no
//! systemd. No library: it is one datagram.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug)]
struct To {
    socket: UnixDatagram,
    address: SocketAddr,
    watchdog: Option<Duration>,
}

/// The way to systemd, if there is one.
#[derive(Clone, Debug, Default)]
pub struct Notify(Option<Arc<To>>);

impl Notify {
    /// As `NOTIFY_SOCKET` and `WATCHDOG_USEC` say.
    #[must_use]
    pub fn from_environment() -> Notify {
        let text = |name| std::env::var(name).ok();
        let for_us = text("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let watchdog = text("WATCHDOG_USEC").filter(|_| for_us).and_then(|usec| usec.parse().ok());
        text("NOTIFY_SOCKET")
            .map_or_else(Notify::default, |path| Notify::to(&path, watchdog.map(Duration::from_micros)))
    }

    fn to(path: &str, watchdog: Option<Duration>) -> Notify {
        let address = match path.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(path),
        };
        let open = || Some(To { socket: UnixDatagram::unbound().ok()?, address: address.ok()?, watchdog });
        Notify(open().map(Arc::new))
    }

    fn say(&self, text: &str) {
        if let Some(to) = &self.0
            && let Err(e) = to.socket.send_to_addr(text.as_bytes(), &to.address)
        {
            tracing::debug!(error = %e, "systemd cannot be told");
        }
    }

    /// It serves now.
    pub fn ready(&self, status: &str) {
        self.say(&format!("READY=1\nSTATUS={}", status.replace('\n', " ")));
    }

    /// What it does.
    pub fn status(&self, status: &str) {
        self.say(&format!("STATUS={}", status.replace('\n', " ")));
    }

    /// It ends.
    pub fn stopping(&self) {
        self.say("STOPPING=1");
    }

    /// Says that the runtime still turns, twice as often as asked for. Returns at once if nobody asks.
    pub async fn watchdog(self) {
        let Some(every) = self.0.as_ref().and_then(|to| to.watchdog) else { return };
        loop {
            self.say("WATCHDOG=1");
            tokio::time::sleep(every / 2).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn systemd_hears_each_step() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let abstract_name = format!("nacre-test-{}", std::process::id());
        let pathname = UnixDatagram::bind(&path).unwrap();
        let named = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&abstract_name).unwrap()).unwrap();
        for (systemd, to) in [(pathname, path.display().to_string()), (named, format!("@{abstract_name}"))] {
            systemd.set_nonblocking(true).unwrap();
            let heard = || {
                let mut buffer = [0; 200];
                systemd
                    .recv(&mut buffer)
                    .map(|n| String::from_utf8_lossy(&buffer[..n]).into_owned())
                    .unwrap_or_default()
            };
            let notify = Notify::to(&to, Some(Duration::from_secs(4)));
            notify.ready("3 pgs\nclean");
            assert_eq!(heard(), "READY=1\nSTATUS=3 pgs clean");
            notify.stopping();
            assert_eq!(heard(), "STOPPING=1");
            let task = tokio::spawn(notify.watchdog());
            tokio::time::sleep(Duration::from_secs(5)).await;
            assert_eq!([heard(), heard(), heard(), heard()], ["WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1", ""]);
            task.abort();
        }
        Notify::default().ready("nobody listens");
        Notify::default().watchdog().await;
    }
}
