//! Whom a certificate names.

use std::fmt;

use ring_core::wire::message::Identity;

use super::fault::Fault;

/// Whom a certificate names: a URI among its alternative names, `ring://CLUSTER/member/NAME` or
/// `ring://CLUSTER/client/NAME`. In both names each byte that is not one of `A-Z a-z 0-9 - . _ ~`
/// is written as `%XX` (RFC 3986, 2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Name of the cluster.
    pub cluster: String,
    /// What it may be there.
    pub role: Role,
    /// Its name.
    pub name: String,
}

/// What the owner of a certificate may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The member of that name, and no other.
    Member,
    /// A client, under any name.
    Client,
}

/// A certificate does not name one member or client of one cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubjectError {
    /// It is no certificate.
    Malformed,
    /// It names none.
    None,
    /// It names several.
    Several,
}

impl Role {
    /// As it is written in a subject.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Client => "client",
        }
    }
}

impl Subject {
    /// Whom a certificate (DER) names. Says nothing about whether it can be believed.
    ///
    /// # Errors
    /// See [`SubjectError`].
    pub fn of_certificate(der: &[u8]) -> Result<Self, SubjectError> {
        let der = rustls_pki_types::CertificateDer::from(der);
        let certificate =
            webpki::EndEntityCert::try_from(&der).map_err(|_| SubjectError::Malformed)?;
        let mut subjects = certificate.valid_uri_names().filter_map(Self::parse);
        match (subjects.next(), subjects.next()) {
            (Some(subject), None) => Ok(subject),
            (None, _) => Err(SubjectError::None),
            (Some(_), Some(_)) => Err(SubjectError::Several),
        }
    }

    /// Reads the URI; none if it is another kind of URI.
    #[must_use]
    pub fn parse(uri: &str) -> Option<Self> {
        let mut parts = uri.strip_prefix(SCHEME)?.split('/');
        let (cluster, role, name) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let role = [Role::Member, Role::Client].into_iter().find(|r| r.as_str() == role)?;
        let (cluster, name) = (decode(cluster)?, decode(name)?);
        if cluster.is_empty() || name.is_empty() {
            return None;
        }
        Some(Self { cluster, role, name })
    }

    /// The URI.
    #[must_use]
    pub fn to_uri(&self) -> String {
        let (cluster, name) = (encode(&self.cluster), encode(&self.name));
        format!("{SCHEME}{cluster}/{}/{name}", self.role.as_str())
    }

    /// Whether the owner of the certificate may introduce itself like this. Looks at cluster, role
    /// and name. Which id belongs to a member's name is in the genesis: core checks that on a member
    /// (`Judge`), the reader of a connection on a client.
    ///
    /// # Errors
    /// What does not fit.
    pub(crate) fn fits(&self, who: &Identity) -> Result<(), Fault> {
        let role = if who.member.is_client() { Role::Client } else { Role::Member };
        let name_fits = role == Role::Client || self.name == who.name;
        if self.cluster == who.cluster_name && self.role == role && name_fits {
            return Ok(());
        }
        let claim = Self { cluster: who.cluster_name.clone(), role, name: who.name.clone() };
        Err(Fault::OtherName { certificate: self.clone(), claim })
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, role, name } = self;
        write!(f, "{} {name:?} of cluster {cluster:?}", role.as_str())
    }
}

impl fmt::Display for SubjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "it is no certificate",
            Self::None => "it names no member and no client",
            Self::Several => "it names several members or clients",
        })
    }
}

impl std::error::Error for SubjectError {}

fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let byte = digit()? * 16 + digit()?;
        out.push(u8::try_from(byte).ok()?);
    }
    String::from_utf8(out).ok()
}

const SCHEME: &str = "ring://";
