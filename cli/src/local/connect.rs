//! The way from an operator's verb to the monitors: as `client.admin` of the data folder.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use nacre_mon_api::MonClient;
use nacre_net::identity::renewal::Due;
use nacre_net::identity::{Renewal, UnixTime};
use nacre_net::metrics::Registry;
use nacre_net::tls::renew::Keeper;
use nacre_net::tls::{self, Credentials, TlsClient, Trust, files};
use tokio::runtime::Runtime;

use super::{ConfigArg, Layout, provision};
use crate::cluster::load;

/// How long a renewal may hold a verb up.
const RENEWAL: Duration = Duration::from_secs(2);

/// A handle on the monitors, and the runtime it lives in.
pub(crate) struct Connected {
    /// Runs its calls.
    pub(crate) runtime: Runtime,
    /// The handle.
    pub(crate) monitors: MonClient,
    /// The name in cluster.toml.
    pub(crate) cluster: String,
    /// The monitors of the file.
    pub(crate) known: Vec<provision::Monitor>,
    tls: TlsClient,
    keeper: Keeper,
}

impl Connected {
    /// Renews the administrator's certificate, and learns which authorities are believed.
    pub(crate) fn renew(&self, patience: Duration) -> anyhow::Result<()> {
        let ask = |ask| self.monitors.renew(ask);
        let renewed = async { tokio::time::timeout(patience, self.keeper.once(ask)).await };
        match self.runtime.block_on(renewed) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => bail!("the certificate was not renewed: {error}"),
            Err(_) => bail!("the certificate was not renewed: no monitor answered within {patience:?}"),
        }
    }

    /// A handle on these monitors alone.
    pub(crate) fn only(&self, address: String, patience: Duration) -> MonClient {
        MonClient::new(&self.tls, [address], patience)
    }
}

/// Connects to the cluster of a file.
pub(crate) fn connect(config: &ConfigArg, patience: Duration) -> anyhow::Result<Connected> {
    let loaded = load(&config.config)?;
    let layout = Layout::of(loaded.cluster.data.value.clone());
    let folder = layout.admin();
    let Some(stored) = files::load(&folder)? else {
        bail!("{} holds no identity: this cluster was never up, start it with `nacre up`", folder.display());
    };
    let authority = stored.authorities.first().cloned().context("no authority beside the identity")?;
    let credentials = Credentials::new(&stored.pair, &authority)?;
    let trust = Trust::new(credentials.identity().cluster, stored.authorities)?;
    let tls = TlsClient::new(trust.clone(), credentials.clone(), tls::ALPN_GRPC)?;
    let known = provision::monitors(&loaded.cluster)?;
    let addresses = known.iter().map(|monitor| monitor.address.to_string());
    let runtime = nacre_net::daemon::current_thread_runtime()?;
    let monitors = {
        // Channels are born in a runtime.
        let _inside = runtime.enter();
        MonClient::new(&tls, addresses, patience)
    };
    let registry = Registry::new("client");
    let keeper =
        Keeper { own: credentials, trust, folder: Some(folder), registry, now: Arc::default(), clock: UnixTime::now };
    let connected = Connected { runtime, monitors, cluster: loaded.cluster.name.value.0.clone(), known, tls, keeper };
    // When it is due, as a daemon does its own: whoever uses it keeps it. What comes in between is tried again by the
    // next verb.
    if Renewal::of(&connected.keeper.own.identity()).due(UnixTime::now()) == Due::Renew {
        let _given_up = connected.renew(RENEWAL);
    }
    Ok(connected)
}
