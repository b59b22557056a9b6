//! What a daemon that has images open says of them: on its admin socket, for `nacre block top` and `mapped`, and as
//! metrics.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use nacre_block::Image;
use nacre_block::meter::Seen;
use nacre_net::daemon::http::Server;
use nacre_net::daemon::process;
use nacre_net::daemon::shutdown::Shutdown;
use nacre_net::metrics::Registry;
use serde_json::json;

/// Is it the name of a daemon that has images open.
pub(crate) fn serves(daemon: &str) -> bool {
    daemon.starts_with("nbd-") || daemon.starts_with("map-")
}

/// One image that is open.
pub(crate) fn said(name: &str, image: &Image, clients: usize) -> serde_json::Value {
    let mut line = json!({ "image": name, "clients": clients, "dirty": image.dirty(), "lost": image.is_lost() });
    for (kind, seen) in image.meter().all() {
        line[kind] = json!({ "done": seen.done, "failed": seen.failed, "bytes": seen.bytes, "micros": seen.micros });
    }
    line
}

/// Where metrics are served.
#[derive(Args, Clone, Debug)]
pub(crate) struct MetricsArg {
    /// Serve metrics over HTTP on this address, as in 127.0.0.1:9810, under /metrics. Anyone who can connect can read them.
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
}

impl MetricsArg {
    /// A registry, and what serves it; nothing where nobody asked for it.
    pub(crate) async fn start(
        &self,
        daemon: &str,
        shutdown: &Shutdown,
    ) -> anyhow::Result<(Arc<Registry>, Option<SocketAddr>)> {
        let registry = Registry::new(daemon);
        let Some(at) = self.metrics else { return Ok((registry, None)) };
        process::register(&registry);
        let server = Server::bind(at).await.with_context(|| format!("serving metrics on {at}"))?;
        let address = server.address();
        tokio::spawn(server.serve(Arc::clone(&registry), shutdown.clone()));
        Ok((registry, Some(address)))
    }

    pub(crate) fn given(&self) -> Option<SocketAddr> {
        self.metrics
    }
}

/// Shows what is done with an image from now on.
pub(crate) fn measure(registry: &Registry, name: &str, image: &Image) {
    type Value = fn(Seen) -> f64;
    let what: [(&str, &str, Value); 4] = [
        ("requests_total", "requests that succeeded", |seen| seen.done as f64),
        ("failed_requests_total", "requests that failed", |seen| seen.failed as f64),
        ("bytes_total", "bytes of requests that succeeded", |seen| seen.bytes as f64),
        ("request_seconds_total", "time from the beginning of each request to its end, summed", |seen| {
            seen.micros as f64 / 1e6
        }),
    ];
    for (at, (kind, _)) in image.meter().all().into_iter().enumerate() {
        for (metric, help, value) in what {
            let meter = Arc::clone(image.meter());
            let read = move || meter.all().get(at).map_or(0.0, |(_, seen)| value(*seen));
            registry.read_labelled((metric, help, "counter"), &[("image", name), ("kind", kind)], read);
        }
    }
    let weak = image.downgrade();
    let dirty = move || weak.upgrade().map_or(0.0, |image| image.dirty() as f64);
    let help = "bytes that were answered and are not durable yet";
    registry.read_labelled(("dirty_bytes", help, "gauge"), &[("image", name)], dirty);
    let weak = image.downgrade();
    let lost = move || f64::from(u8::from(weak.upgrade().is_some_and(|image| image.is_lost())));
    let help = "1: another has taken the image, and nothing is written here any more";
    registry.read_labelled(("lost", help, "gauge"), &[("image", name)], lost);
}
