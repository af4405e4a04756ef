//! A connection's bytes, and who is at its other end.

use std::net::IpAddr;

use ring_core::genesis::Genesis;
use ring_core::io::Event;
use ring_core::wire::Message;
use tokio_rustls::TlsStream;

use super::socket::Socket;
use crate::security::{Fault, Metered, Role, Subject, Whom};

/// A connection, secured or not.
pub(super) enum Stream {
    Plain(Socket),
    Tls(Box<TlsStream<Metered<Socket>>>),
}

/// The other end.
pub(super) struct Peer {
    /// As it was dialled, or from where it came.
    pub(super) address: String,
    pub(super) ip: Option<IpAddr>,
    pub(super) dialled: bool,
    /// Whom its certificate names; none if there is no TLS.
    pub(super) subject: Option<Subject>,
}

impl Peer {
    pub(super) fn new(socket: &Socket, address: String, dialled: bool) -> Self {
        Self { address, ip: socket.peer_ip(), dialled, subject: None }
    }

    /// What the application is told of a fault of its.
    pub(super) fn fault(&self, what: &'static str) -> Event {
        Event::PeerFault { member: None, address: Some(self.address.clone()), what }
    }

    /// By what it is known in what is said of it.
    pub(super) fn whom(&self) -> Whom {
        match self.dialled {
            true => Whom::At(self.address.clone()),
            false => Whom::From(self.ip),
        }
    }

    /// Whether it may say this: an introduction must be of whom the certificate names.
    pub(super) fn may_say(&self, message: &Message, known: Option<&Genesis>) -> Result<(), Fault> {
        let Some(subject) = &self.subject else {
            return Ok(());
        };
        let (who, told) = if let Message::Hello(hello) = message {
            (&hello.who, None)
        } else if let Message::Welcome(welcome) = message {
            (&welcome.who, welcome.genesis.as_ref())
        } else {
            return Ok(());
        };
        subject.fits(who)?;
        // A member's own list is core's, which checks id and name; a client has only this.
        let genesis = known.or(told);
        let other = genesis
            .and_then(|genesis| genesis.members.iter().find(|founder| founder.id == who.member))
            .filter(|founder| founder.name != who.name);
        match other {
            None => Ok(()),
            Some(founder) => Err(Fault::OtherName {
                certificate: subject.clone(),
                claim: Subject {
                    cluster: who.cluster_name.clone(),
                    role: Role::Member,
                    name: founder.name.clone(),
                },
            }),
        }
    }

    /// Whether the first bytes are TLS, to a node that has no keys: the beginning of a handshake if
    /// it was accepted, an alert as the answer to what was sent if it was dialled (RFC 8446, 5.1:
    /// content type, version 3.x, length). No frame begins like that: it would be longer than any.
    pub(super) fn speaks_tls_to_plain(&self, bytes: &[u8]) -> bool {
        let is_tls = if self.dialled {
            matches!(bytes, [21, 3, 1..=4, 0, 2, ..])
        } else {
            matches!(bytes, [22, 3, 1..=4, ..])
        };
        self.subject.is_none() && is_tls
    }
}
