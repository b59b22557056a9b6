//! The security table of the handshake: who is refused, on which side, under which word.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::trust::Purpose;
use super::*;
use crate::identity::{Authority, Caps, ClusterId, Grant, Identity, Keypair, Revocations, UnixTime};

const DAY: Duration = Duration::from_secs(86_400);

fn grant(name: &str, generation: u64) -> Grant {
    Grant { name: name.parse().unwrap(), caps: Caps::all(), generation }
}

fn authority(cluster: ClusterId) -> Authority {
    Authority::create(cluster, UnixTime::now(), DAY * 365).unwrap()
}

fn credentials(authority: &Authority, name: &str) -> Arc<Credentials> {
    let pair = authority.issue(&grant(name, 0), UnixTime::now(), DAY).unwrap();
    Credentials::new(&pair, authority.certificate()).unwrap()
}

struct Sides {
    server: TlsServer,
    trust: Arc<Trust>,
    authority: Authority,
}

impl Sides {
    fn new() -> Sides {
        let authority = authority(ClusterId([5; 16]));
        let trust = Trust::new(authority.cluster(), vec![authority.certificate().to_vec()]).unwrap();
        let own = credentials(&authority, "mon.1");
        let server = TlsServer::new(trust.clone(), own.clone(), &[ALPN_FRAMES, ALPN_GRPC]).unwrap();
        Sides { server: server.with_newcomers(own).unwrap(), trust, authority }
    }

    /// A client with this certificate, which trusts the real authority.
    fn client(&self, pair: &Keypair, signer: &Authority) -> TlsClient {
        let own = Credentials::new(pair, signer.certificate()).unwrap();
        let trust = Trust::new(self.trust.cluster(), vec![self.authority.certificate().to_vec()]).unwrap();
        TlsClient::new(trust, own, ALPN_FRAMES).unwrap()
    }

    /// Both sides' outcomes. The client's includes one read, where a refusal by the server shows.
    async fn meet(&self, client: TlsClient, expect: Expect) -> (Result<Arc<Identity>, TlsError>, Result<(), TlsError>) {
        let (a, b) = tokio::io::duplex(1 << 16);
        let server = async {
            match self.server.accept(a).await? {
                Accepted::Member(mut stream, who) => {
                    stream.write_all(b"!").await.map_err(TlsError::from_io)?;
                    stream.flush().await.map_err(TlsError::from_io)?;
                    // Hold the stream until the peer has read.
                    let _ = stream.read_u8().await;
                    Ok(who)
                }
                Accepted::Newcomer(_) => Err(TlsError::Protocol("a newcomer".into())),
            }
        };
        let client = async {
            let (mut stream, _) = client.connect(b, &expect).await?;
            stream.read_u8().await.map_err(TlsError::from_io)?;
            Ok(())
        };
        tokio::join!(server, client)
    }
}

fn mon() -> Expect {
    Expect::Kind(crate::identity::Kind::Mon)
}

#[tokio::test]
async fn members_know_each_other() {
    let sides = Sides::new();
    let pair = sides.authority.issue(&grant("osd.3", 0), UnixTime::now(), DAY).unwrap();
    let (server, client) = sides.meet(sides.client(&pair, &sides.authority), mon()).await;
    assert_eq!(server.unwrap().name.to_string(), "osd.3");
    client.unwrap();
}

#[tokio::test]
async fn the_table_of_refused_clients() {
    let sides = Sides::new();
    let now = UnixTime::now();
    let foreign = authority(ClusterId([5; 16]));
    let revoked = sides.authority.issue(&grant("osd.4", 0), now, DAY).unwrap();
    let mut list = Revocations::default();
    let who = Identity::from_der(&revoked.certificate).unwrap();
    list.revoke(who.serial.clone(), who.not_after);
    list.revoke_name("osd.5".parse().unwrap(), 2);
    sides.trust.set_revocations(Arc::new(list));
    let other_cluster = Authority::open(ClusterId([6; 16]), sides.authority.keypair().clone()).unwrap();

    let table: Vec<(&str, Keypair, &Authority, &str)> = vec![
        ("foreign authority", foreign.issue(&grant("osd.3", 0), now, DAY).unwrap(), &foreign, "foreign_authority"),
        (
            "expired",
            sides.authority.issue(&grant("osd.3", 0), now.before(DAY * 2), DAY).unwrap(),
            &sides.authority,
            "certificate_expired",
        ),
        (
            "from the future",
            sides.authority.issue(&grant("osd.3", 0), now.after(DAY), DAY).unwrap(),
            &sides.authority,
            "certificate_not_yet_valid",
        ),
        ("revoked by serial", revoked, &sides.authority, "certificate_revoked"),
        (
            "revoked by generation",
            sides.authority.issue(&grant("osd.5", 1), now, DAY).unwrap(),
            &sides.authority,
            "certificate_revoked",
        ),
        (
            "another cluster of the same authority",
            other_cluster.issue(&grant("osd.3", 0), now, DAY).unwrap(),
            &sides.authority,
            "wrong_cluster",
        ),
    ];
    for (case, pair, signer, reason) in table {
        let (server, client) = sides.meet(sides.client(&pair, signer), mon()).await;
        assert_eq!(server.expect_err(case).reason(), reason, "{case}");
        assert!(client.is_err(), "{case}");
    }
    let good = sides.authority.issue(&grant("osd.5", 2), now, DAY).unwrap();
    assert!(sides.meet(sides.client(&good, &sides.authority), mon()).await.0.is_ok(), "a newer generation is believed");
}

#[tokio::test]
async fn a_client_without_certificate_is_refused() {
    let sides = Sides::new();
    let config = tokio_rustls::rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&tokio_rustls::rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(trust::TrustVerifier(sides.trust.clone())))
        .with_no_client_auth();
    for protocol in [ALPN_FRAMES, ALPN_GRPC] {
        let mut config = config.clone();
        config.alpn_protocols = vec![protocol.to_vec()];
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let (a, b) = tokio::io::duplex(1 << 16);
        let name = tokio_rustls::rustls::pki_types::ServerName::try_from("nacre").unwrap();
        let (server, client) = tokio::join!(sides.server.accept(a), async {
            let mut stream = connector.connect(name, b).await.map_err(TlsError::from_io)?;
            stream.read_u8().await.map_err(TlsError::from_io)
        });
        assert_eq!(server.unwrap_err().reason(), "no_certificate");
        assert_eq!(client.unwrap_err().reason(), "refused_by_peer");
    }
}

#[tokio::test]
async fn a_dialer_insists_on_whom_it_wanted() {
    let sides = Sides::new();
    let pair = sides.authority.issue(&grant("osd.3", 0), UnixTime::now(), DAY).unwrap();
    let client = sides.client(&pair, &sides.authority);
    let (_, met) = sides.meet(client.clone(), Expect::Name("mon.2".parse().unwrap())).await;
    assert_eq!(met.unwrap_err().reason(), "unexpected_peer");
    let (_, met) = sides.meet(client, Expect::Kind(crate::identity::Kind::Osd)).await;
    assert_eq!(met.unwrap_err().reason(), "unexpected_peer");
}

#[tokio::test]
async fn a_users_certificate_serves_nothing() {
    let sides = Sides::new();
    let user = credentials(&sides.authority, "client.eve");
    let server = TlsServer::new(sides.trust.clone(), user, &[ALPN_FRAMES]).unwrap();
    let pair = sides.authority.issue(&grant("osd.3", 0), UnixTime::now(), DAY).unwrap();
    let client = sides.client(&pair, &sides.authority);
    let (a, b) = tokio::io::duplex(1 << 16);
    let expect = Expect::Name("client.eve".parse().unwrap());
    let (_, met) = tokio::join!(server.accept(a), client.connect(b, &expect));
    assert_eq!(met.unwrap_err().reason(), "wrong_purpose");
}

#[tokio::test]
async fn a_newcomer_knows_the_authority_by_fingerprint_and_gets_nowhere_else() {
    let sides = Sides::new();
    let pin = crate::identity::join::authority_fingerprint(sides.authority.certificate());
    let (a, b) = tokio::io::duplex(1 << 16);
    let (server, client) = tokio::join!(sides.server.accept(a), client::connect_newcomer(b, pin));
    assert!(matches!(server.unwrap(), Accepted::Newcomer(_)));
    assert_eq!(client.unwrap().1, sides.authority.certificate());

    let (a, b) = tokio::io::duplex(1 << 16);
    let (_, client) = tokio::join!(sides.server.accept(a), client::connect_newcomer(b, [0; 32]));
    assert_eq!(client.unwrap_err().reason(), "foreign_authority");

    // A server that takes no newcomers refuses the protocol; an OSD that answers newcomers is not believed.
    let own = credentials(&sides.authority, "osd.9");
    let closed = TlsServer::new(sides.trust.clone(), own.clone(), &[ALPN_FRAMES]).unwrap();
    let (a, b) = tokio::io::duplex(1 << 16);
    let (server, client) = tokio::join!(closed.accept(a), client::connect_newcomer(b, pin));
    assert!(server.is_err() && client.is_err());
    let eager = closed.with_newcomers(own).unwrap();
    let (a, b) = tokio::io::duplex(1 << 16);
    let (_, client) = tokio::join!(eager.accept(a), client::connect_newcomer(b, pin));
    assert_eq!(client.unwrap_err().reason(), "unexpected_peer");
}

#[tokio::test]
async fn a_renewed_certificate_is_used_at_once_and_only_for_the_same_name() {
    let sides = Sides::new();
    let now = UnixTime::now();
    let own = credentials(&sides.authority, "osd.3");
    let trust = sides.trust.clone();
    let client = TlsClient::new(trust, own.clone(), ALPN_FRAMES).unwrap();
    let first = sides.meet(client.clone(), mon()).await.0.unwrap();
    let renewed = sides.authority.issue(&grant("osd.3", 7), now, DAY).unwrap();
    own.install(&renewed, sides.authority.certificate()).unwrap();
    let second = sides.meet(client, mon()).await.0.unwrap();
    assert_ne!(first.serial, second.serial);
    assert_eq!(second.generation, 7);
    let other = sides.authority.issue(&grant("osd.4", 0), now, DAY).unwrap();
    assert!(own.install(&other, sides.authority.certificate()).is_err());
    let mixed = Keypair { certificate: renewed.certificate.clone(), key: other.key.clone() };
    assert!(own.install(&mixed, sides.authority.certificate()).is_err(), "key and certificate must fit");
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_holds_nothing() {
    let sides = Sides::new();
    let (a, _b) = tokio::io::duplex(1 << 16);
    assert_eq!(sides.server.accept(a).await.unwrap_err().reason(), "handshake_timeout");
}

#[tokio::test]
async fn noise_is_no_handshake() {
    let sides = Sides::new();
    let (a, mut b) = tokio::io::duplex(1 << 16);
    b.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(sides.server.accept(a).await.unwrap_err().reason(), "tls_protocol");
}

#[test]
fn a_new_list_is_noticed() {
    let sides = Sides::new();
    let now = UnixTime::now();
    let pair = sides.authority.issue(&grant("osd.3", 0), now, DAY).unwrap();
    let chain = [tokio_rustls::rustls::pki_types::CertificateDer::from(pair.certificate)];
    let who = sides.trust.judge(&chain, Purpose::Client, now).unwrap();
    let before = sides.trust.changes();
    sides.trust.set_revocations(Arc::default());
    assert_eq!(sides.trust.changes(), before, "the same list is no change");
    let mut list = Revocations::default();
    list.revoke_name(who.name.clone(), 1);
    sides.trust.set_revocations(Arc::new(list));
    assert!(sides.trust.changes() > before);
    assert!(matches!(sides.trust.judge_again(&who, now), Err(PeerError::Revoked(_))));
    assert_eq!(sides.trust.judge_again(&who, who.not_after), Err(PeerError::Expired));
}

#[tokio::test]
async fn whom_a_replaced_authority_signed_is_believed_no_more_on_connections_that_stand() {
    let (old, new) = (authority(ClusterId([5; 16])), authority(ClusterId([5; 16])));
    let now = UnixTime::now();
    let both = vec![new.certificate().to_vec(), old.certificate().to_vec()];
    let trust = Trust::new(old.cluster(), both).unwrap();
    let judged = |by: &Authority, purpose| {
        let pair = by.issue(&grant("osd.3", 0), now, DAY).unwrap();
        trust.judge(&[tokio_rustls::rustls::pki_types::CertificateDer::from(pair.certificate)], purpose, now)
    };
    let early: Vec<Identity> = [Purpose::Client, Purpose::Server].map(|purpose| judged(&old, purpose).unwrap()).into();
    let renewed = judged(&new, Purpose::Client).unwrap();
    let (stream, _far) = tokio::io::duplex(64);
    let (told, hears) = tokio::sync::oneshot::channel();
    let mut watched = Watched::new(stream, Arc::new(early[0].clone()), trust.clone(), move |error| {
        told.send(error.clone()).unwrap();
    });
    let cut = tokio::spawn(async move { watched.read_u8().await.unwrap_err().kind() });
    tokio::task::yield_now().await;
    // then its key is worth nothing, neither to those who come nor to those who are there
    trust.set_authorities(vec![new.certificate().to_vec()]).unwrap();
    assert_eq!(judged(&old, Purpose::Client), Err(PeerError::ForeignAuthority));
    for who in &early {
        assert_eq!(trust.judge_again(who, now), Err(PeerError::RetiredAuthority));
    }
    assert_eq!(cut.await.unwrap(), std::io::ErrorKind::PermissionDenied);
    assert_eq!(hears.await.unwrap(), PeerError::RetiredAuthority);
    assert_eq!(trust.judge_again(&renewed, now), Ok(()));
}

#[test]
fn of_two_authorities_the_one_that_signed_says_what_is_wrong() {
    let (old, new) = (authority(ClusterId([5; 16])), authority(ClusterId([5; 16])));
    let now = UnixTime::now();
    for both in [[&old, &new], [&new, &old]] {
        let trust = Trust::new(old.cluster(), both.map(|one| one.certificate().to_vec()).into()).unwrap();
        for by in both {
            let pair = by.issue(&grant("client.al", 0), now.before(DAY * 2), DAY).unwrap();
            let chain = [tokio_rustls::rustls::pki_types::CertificateDer::from(pair.certificate)];
            assert_eq!(trust.judge(&chain, Purpose::Client, now), Err(PeerError::Expired));
            assert_eq!(trust.judge(&chain, Purpose::Server, now.before(DAY * 3 / 2)), Err(PeerError::WrongPurpose));
        }
    }
    assert!(Trust::new(old.cluster(), Vec::new()).is_err(), "nobody could be believed");
}
