//! A node's keys, as files in a directory.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::{Error, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};

use super::datagram::DatagramKeys;
use super::fault::Fault;
use super::subject::{Role, Subject};
use super::tls::{Failed, Secured, Tls, client_verifier, provider};

/// What a node proves with who it is. Cheap to clone. `ring keys new` makes the files.
///
/// | file | what it holds |
/// |---|---|
/// | `ca.pem` | the certificate of the cluster's authority |
/// | `certificate.pem` | the node's certificate, and what leads from it to the authority, if anything does |
/// | `key.pem` | the private key to it |
/// | `datagram.keys` | the keys of datagrams; a member has them, a client does not |
#[derive(Clone)]
pub struct Keys {
    inner: Arc<Inner>,
}

struct Inner {
    place: PathBuf,
    subject: Subject,
    tls: Tls,
    datagram: Option<DatagramKeys>,
    expiry: Expiry,
}

/// Whether a node's own certificate can be used now.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Expiry {
    Fine,
    /// It will not be for long.
    Soon,
}

/// Keys cannot be used. Says nothing of what is in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysError {
    /// The file or directory.
    pub path: PathBuf,
    /// What is wrong with it, and what would be right.
    pub problem: String,
}

impl Keys {
    /// Reads the files of a directory, and checks that they belong together and can be used today.
    ///
    /// # Errors
    /// A file is missing or damaged, the key is another certificate's, the certificate is not of
    /// the authority, has expired, or names no member or client.
    pub fn read(dir: impl AsRef<Path>) -> Result<Self, KeysError> {
        let dir = dir.as_ref();
        let authority = read(dir, CA_FILE)?;
        let certificate = read(dir, CERTIFICATE_FILE)?;
        let key = read(dir, KEY_FILE)?;
        let datagram = match fs::read_to_string(dir.join(DATAGRAM_FILE)) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(KeysError::new(dir.join(DATAGRAM_FILE), error.to_string())),
        };
        warn_if_open(&dir.join(KEY_FILE));
        Self::new(dir, &authority, &certificate, &key, datagram.as_deref())
    }

    /// From the same files' contents (PEM).
    ///
    /// # Errors
    /// As [`Keys::read`]; the files have their names and no directory.
    pub fn from_pem(
        authority: &[u8],
        certificate: &[u8],
        key: &[u8],
        datagram: Option<&str>,
    ) -> Result<Self, KeysError> {
        Self::new(Path::new(""), authority, certificate, key, datagram)
    }

    fn new(
        dir: &Path,
        authority: &[u8],
        certificate: &[u8],
        key: &[u8],
        datagram: Option<&str>,
    ) -> Result<Self, KeysError> {
        let wrong = |file: &str, problem: String| KeysError::new(dir.join(file), problem);
        let mut roots = RootCertStore::empty();
        for root in certificates(authority).map_err(|problem| wrong(CA_FILE, problem))? {
            let bad = |error: Error| wrong(CA_FILE, format!("not an authority: {error}"));
            roots.add(root).map_err(bad)?;
        }
        let chain = certificates(certificate).map_err(|p| wrong(CERTIFICATE_FILE, p))?;
        // The parser's error could quote what it read.
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| wrong(KEY_FILE, "holds no private key in PEM".into()))?;
        let subject = Subject::of_certificate(&chain[0])
            .map_err(|error| wrong(CERTIFICATE_FILE, error.to_string()))?;
        let now = UnixTime::now();
        check_own(&roots, &chain, now).map_err(|problem| wrong(CERTIFICATE_FILE, problem))?;
        let soon = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + SOON);
        let expiry = match check_own(&roots, &chain, soon) {
            Ok(()) => Expiry::Fine,
            Err(_) => Expiry::Soon,
        };
        let tls = Tls::new(&roots, &chain, &key, &subject.cluster).map_err(|error| {
            wrong(KEY_FILE, format!("it and {CERTIFICATE_FILE} cannot be used together: {error}"))
        })?;
        let datagram = match datagram {
            Some(text) => {
                Some(DatagramKeys::parse(text).map_err(|e| wrong(DATAGRAM_FILE, e.to_string()))?)
            }
            None => None,
        };
        let inner = Inner { place: dir.to_path_buf(), subject, tls, datagram, expiry };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Whom the certificate names.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.inner.subject
    }

    /// The keys of datagrams, if there are any.
    #[must_use]
    pub fn datagram(&self) -> Option<&DatagramKeys> {
        self.inner.datagram.as_ref()
    }

    /// Whether a node may use these keys: what is wrong if not.
    pub(crate) fn fit(&self, cluster: &str, client: bool, name: &str) -> Result<(), String> {
        let own = &self.inner.subject;
        let place = self.inner.place.display();
        if own.cluster != cluster {
            return Err(format!(
                "the keys in {place} are for {own}, and the cluster is \"{cluster}\": use the keys \
                 of that cluster, or correct its name"
            ));
        }
        match (own.role, client) {
            (Role::Client, true) => Ok(()),
            (Role::Member, false) if own.name == name => Ok(()),
            (Role::Member, false) => Err(format!(
                "the keys in {place} are for {own}, and this member is \"{name}\": give each \
                 member its own"
            )),
            (Role::Client, false) => Err(format!(
                "the keys in {place} are for {own}, and a member needs a member's (`ring keys add \
                 --member {name}`)"
            )),
            (Role::Member, true) => Err(format!(
                "the keys in {place} are for {own}, and a client needs a client's (`ring keys add \
                 --client NAME`)"
            )),
        }
    }

    /// Says so if the certificate will not be valid for long.
    pub(crate) fn warn_if_expiring(&self) {
        if self.inner.expiry == Expiry::Soon {
            tracing::warn!(
                certificate = %self.inner.place.join(CERTIFICATE_FILE).display(),
                days = SOON.as_secs() / 86_400,
                "the certificate expires within so many days: make a new one (`ring keys add`)"
            );
        }
    }

    pub(crate) async fn accept<S>(&self, socket: S) -> Result<Secured<S>, Failed<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.inner.tls.accept(socket).await
    }

    pub(crate) async fn dial<S>(&self, socket: S) -> Result<Secured<S>, Failed<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.inner.tls.dial(socket).await
    }
}

/// Shows where the keys are and whom they name, and nothing of them.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("place", &self.inner.place)
            .field("subject", &self.inner.subject)
            .finish_non_exhaustive()
    }
}

impl KeysError {
    fn new(path: PathBuf, problem: String) -> Self {
        Self { path, problem }
    }
}

impl fmt::Display for KeysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.problem)
    }
}

impl std::error::Error for KeysError {}

fn read(dir: &Path, file: &str) -> Result<Vec<u8>, KeysError> {
    let path = dir.join(file);
    fs::read(&path).map_err(|error| {
        let problem = format!("{error}; `ring keys new` makes it, a directory for each node");
        KeysError::new(path, problem)
    })
}

/// All certificates of a PEM file; at least one.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) | Err(_) => Err("holds no certificate in PEM".into()),
    }
}

/// Whether others would believe this certificate at that time.
fn check_own(
    roots: &RootCertStore,
    chain: &[CertificateDer<'static>],
    at: UnixTime,
) -> Result<(), String> {
    let verifier = client_verifier(&Arc::new(roots.clone()), &provider())
        .map_err(|error| error.to_string())?;
    let checked = verifier.verify_client_cert(&chain[0], &chain[1..], at);
    checked.map(drop).map_err(|error| {
        let fault = Fault::of_tls(&error);
        if fault == Fault::Expired {
            "it has expired: make a new one (`ring keys add`)".into()
        } else if fault == Fault::NotYetValid {
            "it is not valid yet: correct this machine's clock".into()
        } else if fault == Fault::Foreign {
            format!("it is not of the authority in {CA_FILE}: use files of one set")
        } else {
            fault.to_string()
        }
    })
}

#[cfg(unix)]
fn warn_if_open(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if let Ok(about) = fs::metadata(path)
        && about.permissions().mode() & 0o077 != 0
    {
        tracing::warn!(path = %path.display(), "others may read this private key: chmod 600 it");
    }
}

#[cfg(not(unix))]
fn warn_if_open(_: &Path) {}

const CA_FILE: &str = "ca.pem";
const CERTIFICATE_FILE: &str = "certificate.pem";
const KEY_FILE: &str = "key.pem";
const DATAGRAM_FILE: &str = "datagram.keys";
/// A certificate that expires within this is told of.
const SOON: Duration = Duration::from_secs(14 * 86_400);
