//! Why a connection could not be secured.

use std::fmt;
use std::io;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};

use super::subject::{Role, Subject, SubjectError};

/// Why a connection could not be secured, as the side saw it that tells. Its text says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The other side showed no certificate.
    NoCertificate,
    /// Its certificate has expired.
    Expired,
    /// Its certificate is not valid yet.
    NotYetValid,
    /// Its certificate is of another authority.
    Foreign,
    /// Its certificate is for another purpose, damaged, or names nobody.
    BadCertificate {
        /// What is wrong with it.
        problem: String,
    },
    /// Its certificate is for another cluster.
    OtherCluster {
        /// Whom it names.
        certificate: Subject,
    },
    /// A member was dialled, and its certificate is a client's.
    NotAMember {
        /// Whom it names.
        certificate: Subject,
    },
    /// It introduced itself as somebody whom its certificate does not name.
    OtherName {
        /// Whom it names.
        certificate: Subject,
        /// As whom it introduced itself.
        claim: Subject,
    },
    /// It does not speak TLS.
    NotTls,
    /// It speaks TLS, and this node has no keys.
    WantsTls,
    /// It sent more than a handshake needs.
    TooMuch,
    /// It took too long.
    TooSlow,
    /// It closed the connection in the middle of the handshake.
    Cut,
    /// It refused this node's certificate: it has expired, or is not valid yet.
    RefusedExpired,
    /// It refused this node's certificate: it is of another authority.
    RefusedForeign,
    /// It refused this node, for want of a certificate.
    RefusedMissing,
    /// It refused this node's certificate for another reason.
    RefusedOther {
        /// The alert that it sent.
        alert: String,
    },
    /// Anything else that TLS does not allow.
    Protocol {
        /// What.
        problem: String,
    },
}

impl Fault {
    /// What happened, in few words that are always the same.
    #[must_use]
    pub fn what(&self) -> &'static str {
        match self {
            Self::NoCertificate => "shows no certificate",
            Self::Expired => "its certificate has expired",
            Self::NotYetValid => "its certificate is not valid yet",
            Self::Foreign => "its certificate is of another authority",
            Self::BadCertificate { .. } => "its certificate cannot be used",
            Self::OtherCluster { .. } => "its certificate is for another cluster",
            Self::NotAMember { .. } => "its certificate is no member's",
            Self::OtherName { .. } => "its certificate names somebody else",
            Self::NotTls => "does not speak TLS",
            Self::WantsTls => "speaks TLS",
            Self::TooMuch => "sends too much before it is known",
            Self::TooSlow => "takes too long for the TLS handshake",
            Self::Cut => "closed the connection in the TLS handshake",
            Self::RefusedExpired => "refused this node's certificate as expired",
            Self::RefusedForeign => "refused this node's certificate as another authority's",
            Self::RefusedMissing => "refused this node for want of a certificate",
            Self::RefusedOther { .. } => "refused this node's certificate",
            Self::Protocol { .. } => "breaks the rules of TLS",
        }
    }

    /// Whether this side refused the other's certificate.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::NoCertificate
            | Self::Expired
            | Self::NotYetValid
            | Self::Foreign
            | Self::BadCertificate { .. }
            | Self::OtherCluster { .. }
            | Self::NotAMember { .. }
            | Self::OtherName { .. } => true,
            Self::NotTls
            | Self::WantsTls
            | Self::TooMuch
            | Self::TooSlow
            | Self::Cut
            | Self::RefusedExpired
            | Self::RefusedForeign
            | Self::RefusedMissing
            | Self::RefusedOther { .. }
            | Self::Protocol { .. } => false,
        }
    }

    /// What an error of a TLS stream means; none if the socket failed.
    pub(crate) fn of_io(error: &io::Error) -> Option<Self> {
        let inner = error.get_ref()?;
        if let Some(fault) = inner.downcast_ref::<Self>() {
            return Some(fault.clone());
        }
        inner.downcast_ref::<Error>().map(Self::of_tls)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the enums of rustls may grow")]
    pub(crate) fn of_tls(error: &Error) -> Self {
        match error {
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::InvalidCertificate(error) => Self::of_certificate(error),
            Error::AlertReceived(alert) => Self::of_alert(*alert),
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => Self::NotTls,
            Error::PeerIncompatible(PeerIncompatible::SupportedVersionsExtensionRequired) => {
                Self::Protocol { problem: "it offers no TLS 1.3".into() }
            }
            other => Self::Protocol { problem: other.to_string() },
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the enums of rustls may grow")]
    fn of_certificate(error: &CertificateError) -> Self {
        match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Self::NotYetValid
            }
            // A foreign authority of the same name: its signature is what does not fit.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::Foreign,
            CertificateError::Other(other) if let Some(fault) = other.0.downcast_ref::<Self>() => {
                fault.clone()
            }
            other => Self::BadCertificate { problem: other.to_string() },
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the enums of rustls may grow")]
    fn of_alert(alert: AlertDescription) -> Self {
        match alert {
            AlertDescription::CertificateExpired => Self::RefusedExpired,
            AlertDescription::UnknownCA | AlertDescription::DecryptError => Self::RefusedForeign,
            AlertDescription::CertificateRequired => Self::RefusedMissing,
            // What libring refuses by itself: cluster, role, name.
            AlertDescription::CertificateUnknown => Self::RefusedOther {
                alert: "it is for another cluster, or not for this side of a connection".into(),
            },
            other => Self::RefusedOther { alert: format!("{other:?}") },
        }
    }

    pub(crate) fn of_subject(error: SubjectError) -> Self {
        Self::BadCertificate { problem: error.to_string() }
    }

    /// For rustls, which hands it back in its own error.
    pub(crate) fn into_certificate_error(self) -> Error {
        let other = rustls::OtherError(std::sync::Arc::new(self));
        Error::InvalidCertificate(CertificateError::Other(other))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCertificate => write!(
                f,
                "it shows no certificate: give it keys of this cluster (`ring keys add`, --keys)"
            ),
            Self::Expired => write!(
                f,
                "its certificate has expired: make it a new one (`ring keys add`), or correct the \
                 clock that is wrong"
            ),
            Self::NotYetValid => {
                write!(f, "its certificate is not valid yet: correct the clock that is wrong")
            }
            Self::Foreign => write!(
                f,
                "its certificate is of another authority: make its keys where those of this \
                 cluster were made (`ring keys add`)"
            ),
            Self::BadCertificate { problem } => write!(
                f,
                "its certificate cannot be used: {problem}; make it a new one (`ring keys add`)"
            ),
            Self::OtherCluster { certificate } => write!(
                f,
                "its certificate is for another cluster ({certificate}): correct the address, or \
                 its keys"
            ),
            Self::NotAMember { certificate } => write!(
                f,
                "a member was expected, and its certificate is for {certificate}: correct the \
                 address, or its keys"
            ),
            Self::OtherName { certificate, claim } => write!(
                f,
                "it introduced itself as {claim}, and its certificate is for {certificate}: {}",
                match (claim.role, certificate.role) {
                    (Role::Client, Role::Member) =>
                        "a client needs a client's keys (`ring keys add --client`)",
                    (Role::Client | Role::Member, Role::Client) | (Role::Member, Role::Member) =>
                        "give each member its own keys",
                }
            ),
            Self::NotTls => write!(
                f,
                "it does not speak TLS: give it keys (`ring keys`, --keys), as this node has"
            ),
            Self::WantsTls => write!(
                f,
                "it speaks TLS and this node has no keys: give it those of the cluster (--keys)"
            ),
            Self::TooMuch => write!(f, "it sends more than a TLS handshake needs"),
            Self::TooSlow => {
                write!(f, "it took too long for the TLS handshake: has it keys, as this node has?")
            }
            Self::Cut => write!(
                f,
                "it closed the connection in the TLS handshake: has it keys, as this node has?"
            ),
            Self::RefusedExpired => write!(
                f,
                "it refused this node's certificate, which has expired: make a new one (`ring keys \
                 add`), or correct the clock that is wrong"
            ),
            Self::RefusedForeign => write!(
                f,
                "it refused this node's certificate, which is of another authority: make the keys \
                 where those of the cluster were made (`ring keys add`)"
            ),
            Self::RefusedMissing => write!(
                f,
                "it refused this node, which showed no certificate: give it keys (`ring keys add`, \
                 --keys)"
            ),
            Self::RefusedOther { alert } => write!(
                f,
                "it refused this node's certificate ({alert}): correct the address, or the keys"
            ),
            Self::Protocol { problem } => write!(f, "the TLS handshake failed: {problem}"),
        }
    }
}

impl std::error::Error for Fault {}
