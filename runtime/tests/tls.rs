//! Members and clients that prove who they are, and those who cannot.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime};

use common::keys::{Authority, subject};
use common::proxy::Proxy;
use common::{client, members, open_all};
use libring::security::{Fault, Role};
use libring::{Data, Event, Events, Keys, Node, OpenError, Options, Refusal};

/// Three members with keys of one authority, and whoever looks at the first one's events.
struct Cluster {
    authority: Authority,
    options: Vec<Options>,
    nodes: Vec<Node>,
    events: Events,
}

impl Cluster {
    async fn open() -> Self {
        let authority = Authority::new();
        let options = with_keys(members(3, None), &authority);
        let nodes = open_all(&options).await;
        let events = nodes[0].events();
        Self { authority, options, nodes, events }
    }

    /// A client that knows the first member only.
    fn client(&self, keys: Option<Keys>) -> Options {
        let join = vec![self.nodes[0].address().unwrap().to_string()];
        Options { join, keys, deadline: Duration::from_secs(2), ..client(&self.options) }
    }

    /// Waits until the first member tells of a peer that did this.
    async fn told(&mut self, fault: &str) {
        tells(&mut self.events, fault).await;
    }

    /// Whatever happened, it must not have hurt anyone.
    async fn prove_unharmed(self) {
        for (n, node) in self.nodes.iter().enumerate() {
            let partition = node.partition("p");
            partition.put(n.to_string(), "v").await.unwrap();
            assert_eq!(partition.get(n.to_string()).await.unwrap().unwrap().value, "v");
        }
        for node in self.nodes {
            node.close().await.unwrap();
        }
    }
}

/// Waits until a member tells of a peer that did this.
async fn tells(events: &mut Events, fault: &str) {
    let told = async {
        loop {
            let event = events.next().await.expect("the member is up");
            if matches!(event, Event::PeerFault { what, .. } if what == fault) {
                return;
            }
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(10), told).await;
    told.unwrap_or_else(|_| panic!("nobody told: {fault}"));
}

fn with_keys(options: Vec<Options>, authority: &Authority) -> Vec<Options> {
    let keys = |o: &Options| Some(authority.keys(Role::Member, &o.name));
    options.into_iter().map(|o| Options { keys: keys(&o), ..o }).collect()
}

/// Why a client was not let in.
async fn why_not(options: Options) -> String {
    match Node::open(options).await {
        Err(error @ OpenError::Unreachable { .. }) => error.to_string(),
        other => panic!("let in, or another error: {other:?}"),
    }
}

#[tokio::test]
async fn members_and_clients_with_keys_talk() {
    let cluster = Cluster::open().await;
    let keys = cluster.authority.keys(Role::Client, "ops");
    let caller = Node::open(client(&cluster.options)).await;
    assert!(caller.is_err(), "without keys nobody is let in");
    let caller = Node::open(Options { keys: Some(keys), ..client(&cluster.options) });
    let caller = caller.await.unwrap();
    let p = caller.partition("p");
    // Long ones too: many records, and more than a socket's buffer holds.
    for bytes in [1, 1 << 14, 1 << 20, 6 << 20] {
        let value = vec![7; bytes];
        p.put("k", value.clone()).await.unwrap();
        assert_eq!(p.get("k").await.unwrap().unwrap().value, value);
    }
    let mut puts = Vec::new();
    for n in 0..200 {
        let p = p.clone();
        puts.push(tokio::spawn(async move { p.put(format!("k{n}"), vec![1; 10_000]).await }));
    }
    for put in puts {
        put.await.unwrap().unwrap();
    }
    drop(p);
    caller.close().await.unwrap();
    cluster.prove_unharmed().await;
}

#[tokio::test]
async fn a_member_that_was_lost_comes_back() {
    let authority = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    let options = with_keys(members(3, Some(dir.path())), &authority);
    let mut nodes = open_all(&options).await;
    nodes[0].partition("p").put("k", "1").await.unwrap();
    drop(nodes.pop());
    nodes[0].partition("p").put("k", "2").await.unwrap();
    let back = Node::open(options[2].clone()).await.unwrap();
    assert_eq!(back.partition("p").get("k").await.unwrap().unwrap().value, "2");
    for node in nodes {
        node.close().await.unwrap();
    }
    back.close().await.unwrap();
}

#[tokio::test]
async fn a_client_without_keys_is_told_to_bring_some() {
    let mut cluster = Cluster::open().await;
    let why = why_not(cluster.client(None)).await;
    assert!(why.contains("it speaks TLS and this node has no keys"), "{why}");
    cluster.told(Fault::NotTls.what()).await;
    assert!(cluster.nodes[0].connections().unsecured > 0);
    cluster.prove_unharmed().await;
}

/// The other way round: the cluster has no keys, and whoever calls has.
#[tokio::test]
async fn a_client_with_keys_does_not_talk_to_members_without() {
    let authority = Authority::new();
    let options = members(3, None);
    let nodes = open_all(&options).await;
    let mut events = nodes[0].events();
    let keys = Some(authority.keys(Role::Client, "ops"));
    let deadline = Duration::from_secs(2);
    let why = why_not(Options { keys, deadline, ..client(&options) }).await;
    assert!(why.contains("closed the connection in the TLS handshake"), "{why}");
    assert!(nodes[0].connections().unsecured > 0);
    let told = async {
        while !matches!(events.next().await, Some(Event::PeerFault { what: "speaks TLS", .. })) {}
    };
    tokio::time::timeout(Duration::from_secs(10), told).await.expect("the member says so too");
    for node in &nodes {
        node.partition("p").put("k", "v").await.unwrap();
    }
    for node in nodes {
        node.close().await.unwrap();
    }
}

/// Well-formed pieces of a handshake that does not end.
#[tokio::test]
async fn a_stranger_may_not_send_more_than_a_handshake_needs() {
    let mut cluster = Cluster::open().await;
    let address = cluster.nodes[0].address().unwrap();
    let sending = tokio::task::spawn_blocking(move || {
        let mut stranger = TcpStream::connect(address).unwrap();
        for n in 0..1000 {
            let mut record = vec![0; 5 + (1 << 14)];
            record[..5].copy_from_slice(&[22, 3, 1, 0x40, 0]);
            if n == 0 {
                record[5..9].copy_from_slice(&[1, 0, 0xf0, 0]); // a ClientHello of 61,440 bytes
            }
            if stranger.write_all(&record).is_err() {
                return;
            }
        }
        panic!("16 MiB were taken");
    });
    cluster.told(Fault::TooMuch.what()).await;
    sending.await.unwrap();
    cluster.prove_unharmed().await;
}

/// As one that can speak TLS and has nothing to show.
#[tokio::test]
async fn a_client_without_certificate_is_refused() {
    let mut cluster = Cluster::open().await;
    let address = cluster.nodes[0].address().unwrap();
    let alert = bare_handshake(address, &cluster.authority).await;
    assert!(alert.contains("CertificateRequired"), "{alert}");
    cluster.told(Fault::NoCertificate.what()).await;
    assert_eq!(cluster.nodes[0].connections().refused, 1);
    cluster.prove_unharmed().await;
}

/// A TLS client that checks its server and shows no certificate; what it hears in the end.
async fn bare_handshake(address: std::net::SocketAddr, authority: &Authority) -> String {
    use rustls_pki_types::pem::PemObject;
    use tokio::io::AsyncReadExt;
    let mut roots = rustls::RootCertStore::empty();
    let root = rustls_pki_types::CertificateDer::from_pem_slice(authority.pem().as_bytes());
    roots.add(root.unwrap()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone());
    let config = builder
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(std::sync::Arc::new(Believer(provider)))
        .with_no_client_auth();
    let socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("n1").unwrap();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let mut stream = match connector.connect(name, socket).await {
        Ok(stream) => stream,
        Err(error) => return error.to_string(),
    };
    match stream.read(&mut [0; 16]).await {
        Ok(read) => panic!("let in: {read} bytes"),
        Err(error) => error.to_string(),
    }
}

/// Believes every server.
#[derive(Debug)]
struct Believer(std::sync::Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Believer {
    fn verify_server_cert(
        &self,
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &[rustls_pki_types::CertificateDer<'_>],
        _: &rustls_pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        panic!("TLS 1.2 is not spoken")
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Its certificate is good when its node reads it, and expires: from then on it is refused, and not
/// before.
#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let mut cluster = Cluster::open().await;
    let until = SystemTime::now() + Duration::from_secs(3);
    let keys = cluster.authority.keys_until(Role::Client, "ops", until);
    let started = Instant::now();
    let why = loop {
        match Node::open(cluster.client(Some(keys.clone()))).await {
            Ok(node) => node.close().await.unwrap(),
            Err(error) => break error.to_string(),
        }
        assert!(started.elapsed() < Duration::from_secs(20), "let in for ever");
    };
    assert!(SystemTime::now() > until, "refused too early");
    assert!(why.contains("refused this node's certificate, which has expired"), "{why}");
    cluster.told(Fault::Expired.what()).await;
    cluster.prove_unharmed().await;
}

/// A member's certificate expires while the member runs. It is refused by whom it dials and by who dials it, when they
/// next connect; it and they tell why, the others go on, and with a new certificate it is one of them again.
#[tokio::test]
async fn a_member_whose_certificate_has_expired_is_refused() {
    let (authority, dir) = (Authority::new(), tempfile::tempdir().unwrap());
    let mut options = with_keys(members(3, Some(dir.path())), &authority);
    let until = SystemTime::now() + Duration::from_secs(4);
    options[1].keys = Some(authority.keys_until(Role::Member, "n2", until));
    let proxies = common::behind_proxies(&mut options).await;
    let mut nodes = open_all(&options).await;
    nodes[1].partition("p").put("k", "1").await.unwrap();
    let mut events: Vec<Events> = nodes.iter().map(Node::events).collect();
    // A certificate is good to the end of its last second.
    let over = until + Duration::from_secs(1);
    tokio::time::sleep(over.duration_since(SystemTime::now()).unwrap_or_default()).await;
    let refused = |nodes: &[Node]| nodes[2].connections().refused;
    assert_eq!(refused(&nodes), 0, "it was good");

    // Of two members the one with the lower id dials: the first dials it, and it dials the third.
    proxies.iter().for_each(Proxy::cut);
    for (events, fault) in
        events.iter_mut().zip([Fault::Expired, Fault::RefusedExpired, Fault::Expired])
    {
        tells(events, fault.what()).await;
    }
    assert!(refused(&nodes) > 0, "counted where it was refused");
    nodes[0].partition("p").put("k", "2").await.unwrap();
    let cut_off = nodes[1].partition("p").with_deadline(Duration::from_millis(500));
    cut_off.put("k", "3").await.expect_err("nobody talks to it");

    nodes.remove(1).close().await.unwrap();
    options[1].keys = Some(authority.keys(Role::Member, "n2"));
    let back = Node::open(options[1].clone()).await.unwrap();
    assert_eq!(back.partition("p").get("k").await.unwrap().unwrap().value, "2");
    for node in nodes.into_iter().chain([back]) {
        node.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_foreign_certificate_is_refused() {
    let mut cluster = Cluster::open().await;
    let other = Authority::new();
    // It believes the cluster, which does not believe it.
    let keys = cluster.authority.foreign_keys(&other, Role::Client, "ops");
    let why = why_not(cluster.client(Some(keys))).await;
    assert!(why.contains("certificate, which is of another authority"), "{why}");
    cluster.told(Fault::Foreign.what()).await;

    // Neither believes the other.
    let why = why_not(cluster.client(Some(other.keys(Role::Client, "ops")))).await;
    assert!(why.contains("its certificate is of another authority"), "{why}");
    cluster.told(Fault::RefusedForeign.what()).await;
    cluster.prove_unharmed().await;
}

/// The same authority, another cluster.
#[tokio::test]
async fn a_certificate_for_another_cluster_is_refused() {
    let mut cluster = Cluster::open().await;
    let until = SystemTime::now() + Duration::from_secs(3600);
    let of_other =
        |role| libring::security::Subject { cluster: "other".into(), ..subject(role, "x") };
    let pair = cluster.authority.issue(&of_other(Role::Client), until);
    let (certificate, key) = (pair.certificate.as_bytes(), pair.key.as_bytes());
    let authority = cluster.authority.pem();
    let keys = Keys::from_pem(authority.as_bytes(), certificate, key, None).unwrap();
    let stray = Options { cluster: "other".into(), ..cluster.client(Some(keys)) };
    let why = why_not(stray).await;
    assert!(why.contains("its certificate is for another cluster"), "{why}");
    cluster.told(Fault::RefusedOther { alert: String::new() }.what()).await;
    cluster.prove_unharmed().await;
}

/// Keys that do not fit are found before anything is started, and the text says what to do.
#[tokio::test]
async fn a_node_does_not_start_with_the_keys_of_another() {
    let authority = Authority::new();
    let all = members(3, None);
    let cases = [
        (Role::Member, "n2", false, "give each member its own"),
        (Role::Client, "n1", false, "--member n1"),
        (Role::Member, "n1", true, "--client NAME"),
    ];
    for (role, name, as_client, way_out) in cases {
        let keys = Some(authority.keys(role, name));
        let options = if as_client { client(&all) } else { all[0].clone() };
        let error = Node::open(Options { keys, ..options }).await.unwrap_err();
        assert!(matches!(error, OpenError::Config(_)), "{error:?}");
        assert!(error.to_string().contains(way_out), "{error}");
    }
}

/// A program that does not check itself: it has the certificate of the member n1 and introduces
/// itself as a client, and as the member n2.
#[tokio::test]
async fn nobody_is_believed_to_be_whom_the_certificate_does_not_name() {
    use ring_core::ids::{Boot, MemberId};
    use ring_core::wire::message::{Hello, Identity, VERSION_MAX, VERSION_MIN};
    use ring_core::wire::{Decoder, Encoder, Message};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let mut cluster = Cluster::open().await;
    let until = SystemTime::now() + Duration::from_secs(3600);
    let n2 = cluster.nodes[1].whoami();
    let cases = [
        (Role::Member, "n3", n2, "n2"),
        (Role::Member, "n3", MemberId::client(5), "n3"),
        (Role::Client, "n2", n2, "n2"),
    ];
    for (role, certified, member, name) in cases {
        let pair = cluster.authority.issue(&subject(role, certified), until);
        let mut stream = shake_hands(cluster.nodes[0].address().unwrap(), &pair).await;
        let who = Identity {
            cluster_name: "ring".into(),
            cluster: None,
            member,
            name: name.into(),
            boot: Boot(9),
            earlier: Vec::new(),
            birth: 1,
            agreement: 1,
            ring: ring_core::ring::parameters(),
        };
        let hello = Hello { version_min: VERSION_MIN, version_max: VERSION_MAX, who };
        let (mut encoder, mut bytes) = (Encoder::new(), Vec::new());
        encoder.push(&Message::Hello(Box::new(hello))).unwrap();
        while encoder.frame(&mut bytes) {}
        stream.write_all(&bytes).await.unwrap();
        stream.flush().await.unwrap();

        let (mut decoder, mut heard) = (Decoder::dialled(), Vec::new());
        while matches!(stream.read_buf(decoder.buffer()).await, Ok(1..)) {
            while let Some(message) = decoder.next().unwrap() {
                heard.push(message);
            }
        }
        assert_eq!(heard, [Message::Refuse(Refusal::Certificate)], "{role:?} as {name}");
    }
    let claim = Fault::OtherName {
        certificate: subject(Role::Member, "n3"),
        claim: subject(Role::Member, "n2"),
    };
    cluster.told(claim.what()).await;
    assert_eq!(cluster.nodes[0].connections().refused, 3);
    cluster.prove_unharmed().await;
}

type TlsStream = tokio_rustls::client::TlsStream<tokio::net::TcpStream>;

async fn shake_hands(address: std::net::SocketAddr, pair: &common::keys::Pair) -> TlsStream {
    use rustls_pki_types::pem::PemObject;
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let certificate = rustls_pki_types::CertificateDer::from_pem_slice(pair.certificate.as_bytes());
    let key = rustls_pki_types::PrivateKeyDer::from_pem_slice(pair.key.as_bytes());
    let config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(std::sync::Arc::new(Believer(provider)))
        .with_client_auth_cert(vec![certificate.unwrap()], key.unwrap())
        .unwrap();
    let socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("n1").unwrap();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    connector.connect(name, socket).await.unwrap()
}

/// A thousand connections that say nothing, or half a handshake: few are held, all are closed in
/// time, and members and clients go on.
#[tokio::test]
async fn a_thousand_silent_strangers_are_bounded() {
    let authority = Authority::new();
    let mut options = with_keys(members(3, None), &authority);
    for options in &mut options {
        options.limits.strangers = 16;
        options.limits.clients = 64;
    }
    let nodes = open_all(&options).await;
    let address = nodes[0].address().unwrap();
    let before = nodes[0].connections().accepted;
    let started = Instant::now();
    let (nodes, held) = tokio::task::spawn_blocking(move || {
        let mut held = Vec::new();
        for n in 0..1000 {
            let mut stranger = TcpStream::connect(address).unwrap();
            if n % 2 == 0 {
                // The beginning of a ClientHello of 65,535 bytes. Who was turned away may see it.
                drop(stranger.write_all(&[22, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff]));
            }
            held.push(stranger);
        }
        (nodes, held)
    })
    .await
    .unwrap();
    nodes[0].partition("p").put("k", "v").await.unwrap();
    let closed = tokio::task::spawn_blocking(move || {
        for mut stranger in held {
            stranger.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let read = stranger.read_to_end(&mut Vec::new());
            let timed_out = read.as_ref().is_err_and(|error| {
                matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                )
            });
            assert!(!timed_out, "still open: {read:?}");
        }
    });
    closed.await.unwrap();
    let counted = nodes[0].connections();
    let (accepted, turned_away) = (counted.accepted - before, counted.turned_away);
    assert!(accepted + turned_away >= 1000, "{counted:?}");
    // A place is free again when its time of one second is over, and another one takes it.
    let places = 16 * (started.elapsed().as_secs() + 1) + 8;
    assert!(accepted <= places, "more than {places}: {counted:?}");
    let keys = Some(authority.keys(Role::Client, "ops"));
    let caller = Node::open(Options { keys, ..client(&options) }).await.unwrap();
    assert_eq!(caller.partition("p").get("k").await.unwrap().unwrap().value, "v");
    caller.close().await.unwrap();
    for node in nodes {
        node.close().await.unwrap();
    }
}

/// A member that refuses another says so once and not each time that the other dials.
#[tokio::test]
async fn the_same_fault_is_told_once() {
    let mut cluster = Cluster::open().await;
    let other = Authority::new();
    let keys = cluster.authority.foreign_keys(&other, Role::Client, "ops");
    for _ in 0..2 {
        why_not(cluster.client(Some(keys.clone()))).await;
    }
    assert!(cluster.nodes[0].connections().refused > 2, "it dialled again and again");
    cluster.told(Fault::Foreign.what()).await;
    let mut events = std::mem::replace(&mut cluster.events, cluster.nodes[1].events());
    cluster.prove_unharmed().await;
    while let Some(event) = events.next().await {
        assert!(!matches!(event, Event::PeerFault { .. }), "{event:?}");
    }
}

/// Beyond loopback only with keys, or if that was said aloud.
#[tokio::test]
async fn keys_allow_to_listen_beyond_this_machine() {
    let authority = Authority::new();
    let alone = |keys, insecure| Options {
        name: "n1".into(),
        listen: Some("0.0.0.0:0".into()),
        data: Data::Memory,
        keys,
        insecure,
        ..common::quick()
    };
    let refused = Node::open(alone(None, false)).await.unwrap_err();
    assert!(matches!(refused, OpenError::NotLoopback { .. }), "{refused:?}");
    assert!(refused.to_string().contains("ring keys new"), "{refused}");
    for (keys, insecure) in [(Some(authority.keys(Role::Member, "n1")), false), (None, true)] {
        let node = Node::open(alone(keys, insecure)).await.unwrap();
        node.close().await.unwrap();
    }
}

/// Neither `Debug` nor an error shows anything of a key, nor of what was read in its place.
#[tokio::test]
async fn no_secret_is_shown() {
    let authority = Authority::new();
    let until = SystemTime::now() + Duration::from_secs(3600);
    let pair = authority.issue(&subject(Role::Member, "n1"), until);
    let secret: String = pair.key.lines().nth(1).unwrap().into();
    let datagram = libring::security::datagram::new_file().unwrap();
    let hex: String = datagram.lines().last().unwrap().split(' ').nth(2).unwrap().into();
    let (ca, certificate) = (authority.pem(), pair.certificate.as_bytes());
    let read = |key: &str, datagram: &str| {
        Keys::from_pem(ca.as_bytes(), certificate, key.as_bytes(), Some(datagram))
    };
    let keys = read(&pair.key, &datagram).unwrap();
    let options = Options { keys: Some(keys.clone()), ..Options::default() };
    let mut shown = format!("{options:?} {options:#?} {:?}", keys.datagram());
    let broken_key = pair.key.replacen("PRIVATE", "PRIVAT", 1);
    let broken_datagram = datagram.replace("seal 1 ", "seal ");
    for (key, datagram) in [(&broken_key, &datagram), (&pair.key, &broken_datagram)] {
        let error = read(key, datagram).unwrap_err();
        shown.push_str(&format!("{error} {error:?}"));
    }
    assert!(shown.contains("n1"), "{shown}");
    for secret in [&*secret, &secret[..20], &*hex, &hex[..12]] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
