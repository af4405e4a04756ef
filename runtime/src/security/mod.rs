//! Who may talk to this node: mutual TLS for connections, keys for datagrams.
//!
//! A cluster has a certificate authority of its own. It gives each member a certificate that binds
//! the member's name and the cluster's, and each client one that says that it is a client
//! ([`Subject`]). A node with [`Keys`] speaks TLS 1.3 only. Both sides of a connection show a
//! certificate; both check, each at the place named here:
//!
//! 1. The certificate is the authority's, it is valid today, and it may be used for this side of a
//!    connection (`tls`: chain, time, purpose).
//! 2. It is for this cluster, and whoever is dialled is a member (`tls`).
//! 3. Who speaks on the connection is who the certificate names: the handshake of the protocol
//!    (`Hello`, `Welcome`) says cluster, name and id, and none of them may be another's (the reader
//!    of a connection, by `Subject::fits`). So a member's certificate is of use to nobody but that
//!    member, and a client's makes no member.
//!
//! Until then a connection is a stranger's: strangers are counted (`Limits::strangers`), have as
//! much time as a handshake may take (`Timers::handshake`, once for TLS and once for the protocol's
//! own), and as many bytes as a handshake needs.
//!
//! Sessions are never resumed: a certificate is checked each time, also one that has expired since.
//! No part of a key appears in a log, in an error, or in `Debug`.
//!
//! # Limits
//!
//! - There is no revocation: certificates end with their time, or when the cluster gets a new
//!   authority.
//! - A connection that is up stays up when its certificates expire; the next one is refused.
//! - Keys are read at the start of a node.

pub mod datagram;
mod fault;
mod keys;
mod notices;
mod subject;
mod tls;

pub use fault::Fault;
pub use keys::{Keys, KeysError};
pub use subject::{Role, Subject, SubjectError};

pub(crate) use notices::{Notices, Whom};
pub(crate) use tls::Metered;
