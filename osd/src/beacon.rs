//! What the monitors were told last, so that an OSD to which nothing happens need not say it each second.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nacre_proto::v1::OsdBeacon;

/// How often they hear of it even so: a new leader knows nothing of what the one before it was told.
const UNCHANGED: Duration = Duration::from_millis(2500);

/// See the module.
#[derive(Default)]
pub(crate) struct Said {
    last: Option<(Instant, OsdBeacon)>,
    /// Whether it reached them.
    heard: Arc<AtomicBool>,
}

impl Said {
    /// To note whether what was said last has reached them.
    pub(crate) fn heard(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.heard)
    }

    /// Whether there is something new to be said, or it is time to say the same again. It counts as said then.
    pub(crate) fn is_due(&mut self, beacon: &OsdBeacon) -> bool {
        // That time goes on is nothing new.
        let mut news = beacon.clone();
        if let Some(load) = &mut news.load {
            load.up_ms = 0;
        }
        let known = self.heard.load(Ordering::Relaxed);
        if known && self.last.as_ref().is_some_and(|(at, last)| at.elapsed() < UNCHANGED && *last == news) {
            return false;
        }
        self.last = Some((Instant::now(), news));
        true
    }
}

#[cfg(test)]
mod tests {
    use nacre_proto::v1::OsdLoad;

    use super::*;

    #[test]
    fn what_they_know_is_said_again_after_a_while_only() {
        let beacon = |up_ms, used_bytes| {
            let load = Some(OsdLoad { up_ms, ..OsdLoad::default() });
            OsdBeacon { osd: 3, used_bytes, load, ..OsdBeacon::default() }
        };
        let mut said = Said::default();
        assert!(said.is_due(&beacon(1, 7)));
        assert!(said.is_due(&beacon(2, 7)), "the first has not reached them");
        said.heard().store(true, Ordering::Relaxed);
        assert!(!said.is_due(&beacon(3, 7)), "that time goes on is nothing new");
        assert!(said.is_due(&beacon(4, 8)));
        assert!(!said.is_due(&beacon(5, 8)));
        if let Some((at, _)) = &mut said.last {
            *at = at.checked_sub(UNCHANGED).unwrap();
        }
        assert!(said.is_due(&beacon(6, 8)), "a new leader has not heard it");
    }
}
