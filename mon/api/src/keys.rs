//! The keys of a daemon that follows the map: it renews its own certificate through the monitors, and believes no more
//! what the map revokes. (Monitors look after themselves: they hold the authority.)

use std::path::PathBuf;
use std::sync::Arc;

use nacre_maps::ClusterMap;
use nacre_net::daemon::Daemon;
use nacre_net::identity::certificate::Serial;
use nacre_net::identity::{Revocations, UnixTime};
use nacre_net::tls::renew::Keeper;
use nacre_net::tls::{Credentials, Trust};

use crate::MonClient;

/// What a map revokes. Few, and none past the end of its certificate.
pub fn revocations(map: &ClusterMap) -> Revocations {
    let mut list = Revocations::default();
    for (serial, revocation) in map.revoked.iter() {
        // Rounded up, so that it holds as long as the certificate does.
        list.revoke(Serial(serial.as_slice().into()), UnixTime(revocation.until.0.div_ceil(1000)));
    }
    list
}

/// The authorities a map names, the one that signs first; none until the first one is replaced.
pub fn authorities(map: &ClusterMap) -> Vec<Vec<u8>> {
    let mut named: Vec<_> = map.authorities.values().collect();
    named.sort_by_key(|anchor| !anchor.signs);
    named.into_iter().map(|anchor| anchor.certificate.clone()).collect()
}

/// Believes what a map says, and no more what it revokes.
pub fn believe(map: &ClusterMap, trust: &Trust) {
    trust.set_revocations(Arc::new(revocations(map)));
    if let Err(error) = trust.set_authorities(authorities(map)) {
        tracing::error!(%error, "the map names an authority that cannot be believed");
    }
}

/// Renews the daemon's certificate for as long as it lives, with a new key each time, and lets its admin socket show it
/// and renew it at once. Call it within the runtime.
pub fn keep(around: &Daemon, own: Arc<Credentials>, trust: Arc<Trust>, folder: PathBuf, monitors: Arc<MonClient>) {
    let now = Arc::new(tokio::sync::Notify::new());
    let shown = own.clone();
    around.admin.add("cert show", "the daemon's own certificate", move |_| {
        let who = shown.identity();
        let shown = serde_json::json!({
            "name": who.name, "caps": who.caps, "generation": who.generation, "serial": who.serial.to_string(),
            "not_before": who.not_before, "not_after": who.not_after,
        });
        async move { Ok(shown) }
    });
    let told = now.clone();
    around.admin.add("cert renew", "renews the daemon's certificate now, with a new key", move |_| {
        told.notify_one();
        async { Ok(serde_json::Value::Null) }
    });
    let registry = around.registry.clone();
    let keeper = Keeper { own, trust, folder: Some(folder), registry, now, clock: UnixTime::now };
    tokio::spawn(keeper.run(move |ask| {
        let monitors = monitors.clone();
        async move { monitors.renew(ask).await }
    }));
}
