//! What is said of connections that do not come about: the first time, and then not each second.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use ring_core::ids::MemberId;

/// Decides what is said. Who is refused comes again every second, and whoever is at the port can
/// make this node refuse: the same of the same is told once in [`QUIET`], and never more than
/// [`NOTICES_MAX`] in that time.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    said: Mutex<BTreeMap<(Whom, Cow<'static, str>), Said>>,
}

/// Of whom something is said.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Whom {
    /// Whoever came from there; none: from nobody knows where.
    From(Option<IpAddr>),
    /// Whoever is at an address that was dialled.
    At(String),
    /// A member, by what it says of itself; none: this one.
    Member(Option<MemberId>),
}

#[derive(Debug)]
struct Said {
    at: Instant,
    since: u64,
}

impl Notices {
    /// Whether to tell of this now: none if not, else how often it was not told since the last time.
    pub(crate) fn tell(
        &self,
        now: Instant,
        whom: Whom,
        what: impl Into<Cow<'static, str>>,
    ) -> Option<u64> {
        let about = (whom, what.into());
        let mut said = self.said.lock();
        if let Some(said) = said.get_mut(&about) {
            if now.duration_since(said.at) < QUIET {
                said.since += 1;
                return None;
            }
            said.at = now;
            return Some(std::mem::take(&mut said.since));
        }
        if said.len() >= NOTICES_MAX {
            said.retain(|_, said| now.duration_since(said.at) < QUIET);
        }
        if said.len() >= NOTICES_MAX {
            return None;
        }
        said.insert(about, Said { at: now, since: 0 });
        Some(0)
    }
}

/// The same is not told again before this has passed.
pub(super) const QUIET: Duration = Duration::from_secs(60);
/// So many different things are told in that time.
pub(super) const NOTICES_MAX: usize = 64;
