//! TLS of a connection: both sides show a certificate, or there is no connection.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    ServerConfig, SignatureScheme, SupportedProtocolVersion,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::fault::Fault;
use super::subject::{Role, Subject};

/// Both sides of TLS for one node.
pub(super) struct Tls {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

/// A connection whose other side has shown whom its certificate names.
pub(crate) struct Secured<S> {
    pub(crate) stream: TlsStream<Metered<S>>,
    pub(crate) subject: Subject,
}

/// A handshake that failed, with the socket: the alert that tells the other side why may not have
/// been read yet.
pub(crate) struct Failed<S> {
    /// None: the socket failed.
    pub(crate) fault: Option<Fault>,
    /// Whether the other side had sent anything.
    pub(crate) heard: bool,
    pub(crate) error: io::Error,
    pub(crate) socket: Option<S>,
}

impl Tls {
    /// # Errors
    /// The authority, the certificate or the key cannot be used, or do not belong together.
    pub(super) fn new(
        authority: &RootCertStore,
        chain: &[CertificateDer<'static>],
        key: &PrivateKeyDer<'static>,
        cluster: &str,
    ) -> Result<Self, Error> {
        let provider = provider();
        let algorithms = provider.signature_verification_algorithms;
        let authority = Arc::new(authority.clone());
        let peers = MembersOnly {
            authority: Arc::clone(&authority),
            algorithms,
            cluster: cluster.to_owned(),
        };
        let callers =
            Callers { chain: client_verifier(&authority, &provider)?, cluster: cluster.to_owned() };

        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(VERSIONS)?
            .with_client_cert_verifier(Arc::new(callers))
            .with_single_cert(chain.to_vec(), key.clone_key())?;
        // A resumed session would not look at the certificate again.
        server.send_tls13_tickets = 0;

        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(VERSIONS)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(peers))
            .with_client_auth_cert(chain.to_vec(), key.clone_key())?;
        client.resumption = Resumption::disabled();
        // Members are known by the name of the cluster and their own, not by that of a host.
        client.enable_sni = false;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(server)),
            connector: TlsConnector::from(Arc::new(client)),
        })
    }

    pub(super) async fn accept<S>(&self, socket: S) -> Result<Secured<S>, Failed<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let accepting = self.acceptor.accept(Metered::new(socket)).into_fallible();
        finish(accepting.await.map(TlsStream::from))
    }

    pub(super) async fn dial<S>(&self, socket: S) -> Result<Secured<S>, Failed<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        // Never sent, and not looked at: see `MembersOnly`.
        let name = ServerName::IpAddress(IpAddr::from([0; 16]).into());
        let dialling = self.connector.connect(name, Metered::new(socket)).into_fallible();
        finish(dialling.await.map(TlsStream::from))
    }
}

fn finish<S>(
    result: Result<TlsStream<Metered<S>>, (io::Error, Metered<S>)>,
) -> Result<Secured<S>, Failed<S>> {
    let failed = |error: io::Error, heard, socket| {
        let cut = matches!(
            error.kind(),
            // A socket that is closed with bytes unread says no more than that.
            io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
        );
        let fault = Fault::of_io(&error).or(cut.then_some(Fault::Cut));
        Err(Failed { fault, heard, error, socket })
    };
    match result {
        Err((error, metered)) => failed(error, metered.heard(), Some(metered.socket)),
        Ok(mut stream) => {
            let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let subject = match certificates.first() {
                None => Err(Fault::NoCertificate),
                Some(first) => Subject::of_certificate(first).map_err(Fault::of_subject),
            };
            match subject {
                Ok(subject) => {
                    stream.get_mut().0.left = None;
                    Ok(Secured { stream, subject })
                }
                Err(fault) => failed(io::Error::other(fault), true, None),
            }
        }
    }
}

/// A socket that gives up after so many bytes, until the other side is known.
pub(crate) struct Metered<S> {
    socket: S,
    left: Option<usize>,
}

impl<S> Metered<S> {
    fn new(socket: S) -> Self {
        Self { socket, left: Some(HANDSHAKE_BYTES_MAX) }
    }

    fn heard(&self) -> bool {
        self.left != Some(HANDSHAKE_BYTES_MAX)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        if let Some(left) = &mut self.left {
            match left.checked_sub(read) {
                Some(rest) => *left = rest,
                None => return Poll::Ready(Err(io::Error::other(Fault::TooMuch))),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// What a dialler accepts: a certificate of the authority for a member of this cluster. Which
/// member it is, the `Welcome` says, and [`Subject::fits`] checks.
#[derive(Debug)]
struct MembersOnly {
    authority: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
    cluster: String,
}

impl ServerCertVerifier for MembersOnly {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let subject = subject(certificate, &self.cluster)?;
        let parsed = ParsedCertificate::try_from(certificate)?;
        let (authority, algorithms) = (&self.authority, self.algorithms.all);
        let chain = intermediates;
        verify_server_cert_signed_by_trust_anchor(&parsed, authority, chain, now, algorithms)
            .map_err(|error| match (subject.role, &error) {
                // It may not be used by a server: true, and not the whole truth.
                (Role::Client, Error::InvalidCertificate(problem)) if is_purpose(problem) => {
                    Fault::NotAMember { certificate: subject.clone() }.into_certificate_error()
                }
                (Role::Client | Role::Member, _) => error,
            })?;
        if subject.role == Role::Client {
            return Err(Fault::NotAMember { certificate: subject }.into_certificate_error());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// What a member accepts: a certificate of the authority for this cluster. Who it is, the `Hello`
/// says, and [`Subject::fits`] checks.
#[derive(Debug)]
struct Callers {
    chain: Arc<dyn ClientCertVerifier>,
    cluster: String,
}

impl ClientCertVerifier for Callers {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Named authorities would make a foreign caller show no certificate at all, and then nobody
        // could tell it what is wrong.
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(certificate, intermediates, now)?;
        subject(certificate, &self.cluster)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Whom a certificate names, if that is somebody of this cluster.
fn subject(certificate: &CertificateDer<'_>, cluster: &str) -> Result<Subject, Error> {
    let subject = Subject::of_certificate(certificate)
        .map_err(|error| Fault::of_subject(error).into_certificate_error())?;
    if subject.cluster == cluster {
        Ok(subject)
    } else {
        Err(Fault::OtherCluster { certificate: subject }.into_certificate_error())
    }
}

fn is_purpose(problem: &CertificateError) -> bool {
    matches!(
        problem,
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. }
    )
}

fn only_tls13() -> Error {
    Error::General("only TLS 1.3 is spoken".into())
}

/// Checks chains of those who dial; also a node's own.
pub(super) fn client_verifier(
    authority: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    WebPkiClientVerifier::builder_with_provider(Arc::clone(authority), Arc::clone(provider))
        .build()
        .map_err(|error| Error::General(error.to_string()))
}

/// The cryptography: aws-lc-rs, named here and nowhere taken from the process.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

const VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
/// Most bytes of one side of a handshake: keys, a certificate with a chain, a signature, with room.
/// What already follows the handshake in the same read counts too.
const HANDSHAKE_BYTES_MAX: usize = 32 << 10;
