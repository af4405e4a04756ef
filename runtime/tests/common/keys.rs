//! Keys that tests make: good ones and all kinds of others.

use std::time::{Duration, SystemTime};

use libring::Keys;
use libring::security::datagram;
use libring::security::{Role, Subject};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};

/// A cluster's authority.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    datagram: String,
}

/// A certificate and its key, in PEM.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "authority of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer, datagram: datagram::new_file().unwrap() }
    }

    /// The authority's certificate.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate that is valid from an hour ago until then.
    pub(crate) fn issue(&self, subject: &Subject, until: SystemTime) -> Pair {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.not_before = (SystemTime::now() - Duration::from_secs(3600)).into();
        params.not_after = until.into();
        params.subject_alt_names = vec![SanType::URI(subject.to_uri().try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if subject.role == Role::Member {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// Keys for an hour.
    pub(crate) fn keys(&self, role: Role, name: &str) -> Keys {
        self.keys_until(role, name, SystemTime::now() + Duration::from_secs(3600))
    }

    /// Keys until then.
    pub(crate) fn keys_until(&self, role: Role, name: &str, until: SystemTime) -> Keys {
        let pair = self.issue(&subject(role, name), until);
        let datagram = (role == Role::Member).then_some(&*self.datagram);
        let (certificate, key) = (pair.certificate.as_bytes(), pair.key.as_bytes());
        Keys::from_pem(self.pem().as_bytes(), certificate, key, datagram).unwrap()
    }

    /// Keys whose owner believes also this authority, and whose certificate is the other's.
    pub(crate) fn foreign_keys(&self, other: &Self, role: Role, name: &str) -> Keys {
        let until = SystemTime::now() + Duration::from_secs(3600);
        let pair = other.issue(&subject(role, name), until);
        let both = self.pem() + &other.pem();
        let (certificate, key) = (pair.certificate.as_bytes(), pair.key.as_bytes());
        Keys::from_pem(both.as_bytes(), certificate, key, None).unwrap()
    }
}

/// Somebody of the cluster of the tests.
pub(crate) fn subject(role: Role, name: &str) -> Subject {
    Subject { cluster: "ring".into(), role, name: name.into() }
}
