//! What a newcomer may call: joining. Anything else it tries is not there for it, and is told to the audit.

use std::task::{Context, Poll};

use nacre_net::identity::gate::Caller;
use nacre_net::identity::{Denied, Gate, Service};
use tonic::codegen::{Service as Serve, http};

use super::cert::Stranger;

/// The beginning of the paths that are there.
const JOIN: &str = "/nacre.mon.v1.Join/";

/// A server for newcomers that reports whoever calls something else.
#[derive(Clone)]
pub struct Watched<S> {
    inner: S,
    gate: Gate,
}

impl<S> Watched<S> {
    /// Watches `inner`.
    pub fn new(inner: S, gate: Gate) -> Watched<S> {
        Watched { inner, gate }
    }
}

impl<S: Serve<http::Request<B>>, B> Serve<http::Request<B>> for Watched<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> S::Future {
        let path = request.uri().path();
        if !path.starts_with(JOIN) {
            let from = request.extensions().get::<Stranger>().map(|stranger| stranger.0.to_string());
            // What strangers send ends up in a log that people read.
            let path: String = path.chars().filter(char::is_ascii_graphic).take(80).collect();
            self.gate.refuse(Denied {
                who: Caller::Stranger(from.unwrap_or_default()),
                service: Service::Mon,
                what: format!("call {path}"),
                why: "a newcomer may join and nothing else".into(),
            });
        }
        self.inner.call(request)
    }
}
