//! `nacre nbd`: the daemon that serves images over NBD, to whoever speaks it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use nacre_block::Use;
use nacre_block::export::{Offer, Shelf};
use nacre_client::{Cluster, Settings};
use nacre_nbd::negotiate::Stream;
use nacre_nbd::{Encryption, Limits, negotiate, serve};
use nacre_net::daemon::admin::{self, Verbs};
use nacre_net::daemon::logs;
use nacre_net::daemon::shutdown::Shutdown;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::block::Room;
use crate::block::open::{MetricsArg, measure, said};
use crate::local::{ConfigArg, monitors_of, run_folder_of};
use crate::output::Out;
use crate::run::{Run, Verdict};

/// How long clients have to leave when the daemon ends.
const LEAVE: Duration = Duration::from_secs(5);

/// Serve images over NBD, until SIGTERM or SIGINT.
///
/// A client asks for IMAGE or IMAGE@SNAPSHOT of the pool given, or for POOL/IMAGE of any. Snapshots are served read-only.
/// Who opens an image for writing is the only one who writes it: an image that is in use elsewhere is not served, unless
/// its writer lets go when asked, or does not answer and is fenced.
#[derive(Args)]
pub(crate) struct Nbd {
    #[command(flatten)]
    config: ConfigArg,
    /// The pool of images that are asked for without one: POOL or POOL/NAMESPACE.
    #[arg(long, value_name = "POOL")]
    pool: Option<Room>,
    /// Serve only these names; may be said more than once.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Listen on a local socket; may be said together with --listen.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Listen on an address, as in 10.0.0.1:10809.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// The folder with ca-cert.pem, server-cert.pem and server-key.pem: clients on an address must speak TLS, with a
    /// certificate of that authority.
    #[arg(long, value_name = "DIR")]
    tls: Option<PathBuf>,
    /// Let anybody who reaches the address in, without TLS.
    #[arg(long, conflicts_with = "tls")]
    insecure: bool,
    /// Serve everything read-only.
    #[arg(long, conflicts_with = "seize")]
    read_only: bool,
    /// Answer writes before they are durable, up to so many bytes of each image, as in 32MiB; a flush makes all of them
    /// durable, as on any disk. 0B: each write is durable when it is answered.
    #[arg(long, value_name = "SIZE", value_parser = crate::block::size, default_value = "0B")]
    write_back: u64,
    /// Take images from whoever writes them, without asking.
    #[arg(long)]
    seize: bool,
    #[command(flatten)]
    metrics: MetricsArg,
}

/// Certificates as qemu and libnbd name their files.
fn acceptor(folder: &std::path::Path) -> anyhow::Result<TlsAcceptor> {
    let certs = |name: &str| -> anyhow::Result<Vec<CertificateDer<'static>>> {
        let path = folder.join(name);
        let all = CertificateDer::pem_file_iter(&path).with_context(|| format!("reading {}", path.display()))?;
        let all: Vec<_> = all.collect::<Result<_, _>>().with_context(|| format!("reading {}", path.display()))?;
        anyhow::ensure!(!all.is_empty(), "{} holds no certificate", path.display());
        Ok(all)
    };
    let mut roots = rustls::RootCertStore::empty();
    for cert in certs("ca-cert.pem")? {
        roots.add(cert).context("ca-cert.pem")?;
    }
    let key = folder.join("server-key.pem");
    let key = PrivateKeyDer::from_pem_file(&key).with_context(|| format!("reading {}", key.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certs("server-cert.pem")?, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn client<S: Stream + 'static>(stream: S, shelf: Arc<Shelf>, encryption: Encryption) {
    let limits = Limits::default();
    match negotiate(stream, &*shelf, &encryption, &limits).await {
        Ok(agreed) => {
            if let Err(error) = serve(agreed, &limits).await {
                tracing::info!(%error, "a client is gone");
            }
        }
        Err(error) => tracing::info!(%error, "a client chose no export"),
    }
}

async fn connect(config: &ConfigArg) -> anyhow::Result<Cluster> {
    let (folder, monitors) = monitors_of(config)?;
    let mut settings = Settings::of_folder(&folder, monitors)?;
    // A disk waits for its cluster: an error would break what is on it.
    settings.patience = None;
    Ok(Cluster::connect(settings).await?)
}

impl Nbd {
    fn encryption(&self) -> anyhow::Result<Encryption> {
        match (&self.tls, self.insecure, &self.listen) {
            (Some(folder), ..) => Ok(Encryption::Required(acceptor(folder)?)),
            (None, false, Some(_)) => {
                anyhow::bail!("an address is open to all who reach it: give --tls DIR, or say --insecure")
            }
            _ => Ok(Encryption::Plain),
        }
    }

    /// Says to `nacre block top` what is open here and how much is done with it.
    fn answer(&self, shelf: &Arc<Shelf>) -> anyhow::Result<impl Future<Output = ()> + use<>> {
        let verbs = Verbs::default();
        let weak = Arc::downgrade(shelf);
        verbs.add("images", "the images that are open here", move |_| {
            let shelf = weak.upgrade();
            async move {
                let open = match shelf {
                    Some(shelf) => shelf.opened().await,
                    None => Vec::new(),
                };
                Ok(open.iter().map(|(name, image, clients)| said(name, image, *clients)).collect::<Vec<_>>().into())
            }
        });
        let folder = run_folder_of(&self.config)?;
        let socket = admin::bind(&folder.join(format!("nbd-{}.admin", std::process::id())))?;
        Ok(admin::serve(socket, Arc::new(verbs)))
    }

    async fn serve(self, out: &mut Out) -> anyhow::Result<()> {
        use std::io::Write;
        anyhow::ensure!(self.socket.is_some() || self.listen.is_some(), "give --socket PATH or --listen ADDRESS");
        let encryption = self.encryption()?;
        let usage = match (self.read_only, self.seize) {
            (true, _) => Use::Read,
            (_, true) => Use::Seize,
            _ => Use::Write,
        };
        let room = self.pool.clone();
        let offer = Offer {
            pool: room.as_ref().map(|room| room.pool.clone()),
            namespace: room.map(|room| room.namespace).unwrap_or_default(),
            only: self.only.clone(),
            usage,
            write_back: self.write_back,
        };
        let shutdown = Shutdown::on_signals()?;
        logs::start("info", logs::Format::Text)?;
        let cluster = connect(&self.config).await?;
        let config = self.config.clone();
        let again = move || {
            let (folder, monitors) = match monitors_of(&config) {
                Ok(found) => found,
                Err(error) => {
                    let why = nacre_client::Error::NoIdentity(error.to_string());
                    return Box::pin(std::future::ready(Err(why))) as _;
                }
            };
            Box::pin(async move {
                let mut settings = Settings::of_folder(&folder, monitors)?;
                settings.patience = None;
                Cluster::connect(settings).await
            }) as _
        };
        let (registry, metrics) = self.metrics.start("nbd", &shutdown).await?;
        let told = move |name: &str, image: &nacre_block::Image| measure(&registry, name, image);
        let shelf = Arc::new(Shelf::new(offer, cluster, Box::new(again), Box::new(told)));
        let unix = match &self.socket {
            Some(path) => {
                // A socket whose daemon is gone is in the way; one that answers is another daemon's.
                if path.exists() {
                    let alive = tokio::net::UnixStream::connect(path).await.is_ok();
                    anyhow::ensure!(!alive, "{} is served by another process", path.display());
                    std::fs::remove_file(path).with_context(|| format!("removing {}", path.display()))?;
                }
                Some(UnixListener::bind(path).with_context(|| format!("listening on {}", path.display()))?)
            }
            None => None,
        };
        let tcp = match &self.listen {
            Some(address) => Some(TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?),
            None => None,
        };
        if let Some(tcp) = &tcp {
            writeln!(out, "listening on {}", tcp.local_addr()?)?;
        }
        if let Some(path) = &self.socket {
            writeln!(out, "listening on {}", path.display())?;
        }
        if let Some(at) = metrics {
            writeln!(out, "metrics on http://{at}/metrics")?;
        }
        out.flush()?;
        let mut clients = JoinSet::new();
        clients.spawn(self.answer(&shelf)?);
        loop {
            tokio::select! {
                accepted = async { match &unix { Some(unix) => unix.accept().await, None => std::future::pending().await } } => {
                    match accepted {
                        Ok((stream, _)) => drop(clients.spawn(client(stream, Arc::clone(&shelf), Encryption::Plain))),
                        Err(error) => paused(&error).await,
                    }
                }
                accepted = async { match &tcp { Some(tcp) => tcp.accept().await, None => std::future::pending().await } } => {
                    match accepted {
                        Ok((stream, _)) => {
                            let _ = stream.set_nodelay(true);
                            clients.spawn(client(stream, Arc::clone(&shelf), encryption.clone()));
                        }
                        Err(error) => paused(&error).await,
                    }
                }
                Some(_ended) = clients.join_next() => {}
                _why = shutdown.begun() => break,
            }
        }
        // Clients see their connection end when what they asked for is done, or time is up.
        let left = async {
            // One of them is who answers `nacre block top`: it never ends by itself.
            while clients.len() > 1 && clients.join_next().await.is_some() {}
        };
        let _ = tokio::time::timeout(LEAVE, left).await;
        clients.shutdown().await;
        shelf.close().await;
        if let Some(path) = &self.socket {
            let _ = std::fs::remove_file(path);
        }
        Ok(())
    }
}

/// No more files, most likely: others end meanwhile.
async fn paused(error: &std::io::Error) {
    tracing::warn!(%error, "a client could not be let in");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

impl Run for Nbd {
    fn run(self, out: &mut Out) -> anyhow::Result<Verdict> {
        nacre_net::daemon::current_thread_runtime()?.block_on(self.serve(out))?;
        Ok(Verdict::Good)
    }
}
