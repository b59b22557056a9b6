//! Any bytes as the first frame: a connection or an error.

#![no_main]

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use nacre_net::conn::hello::{self, Own, Proof};
use nacre_net::conn::{Config, NetMetrics, Via};
use nacre_net::frame::encode::seal;
use nacre_net::frame::{Header, Kind};
use nacre_net::identity::{Authority, ClusterId, UnixTime};
use nacre_net::metrics::Registry;
use nacre_net::tls::Trust;
use tokio::io::AsyncWriteExt as _;

static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
});
static TRUST: LazyLock<Arc<Trust>> = LazyLock::new(|| {
    let life = std::time::Duration::from_secs(86_400);
    let authority = Authority::create(ClusterId([1; 16]), UnixTime::now(), life).expect("an authority");
    Trust::new(authority.cluster(), vec![authority.certificate().to_vec()]).expect("trust")
});

fuzz_target!(|input: &[u8]| {
    // Half of the runs as they are, half with a frame around, so that the inside is reached.
    let Some((first, input)) = input.split_first() else { return };
    let mut bytes = input.to_vec();
    if first % 2 == 0 {
        let header = seal(Header::bare(Kind::Hello, 0), input, &[], None);
        bytes = [&header.encode()[..], input].concat();
    }
    RUNTIME.block_on(async {
        let (mut raw, stream) = tokio::io::duplex(1 << 16);
        let own = Own {
            cluster: ClusterId([1; 16]),
            name: "osd.1".into(),
            incarnation: 1,
            session: 0,
            lane: 0,
            last_met: 0,
            certificate: Bytes::new(),
            config: Config::default(),
            budget: None,
            metrics: NetMetrics::new(&Registry::new("fuzz")),
        };
        bytes.truncate(1 << 15);
        let _ = raw.write_all(&bytes).await;
        let _ = raw.shutdown().await;
        // Nobody has a certificate of this authority: nothing may be accepted.
        let accepted = hello::accept(stream, own, Proof::InHello(TRUST.clone()), Via::Memory).await;
        assert!(accepted.is_err());
    });
});
