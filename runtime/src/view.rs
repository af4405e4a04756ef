//! Who is there, as one node sees it.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use ring_core::directory::{Registered, Standing, Table};
use ring_core::ids::MemberId;
use ring_core::membership::State as MemberState;

use crate::node::Node;

/// A registered member of the cluster, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: MemberId,
    /// Its name; no two members have the same.
    pub name: String,
    /// Where it listens.
    pub address: String,
    /// Its share of the shards, beside the others'.
    pub weight: u16,
    /// Whether it is to hold replicas.
    pub standing: Standing,
    /// What is thought of it; none if nothing was heard of it. A client, and a member that does not gossip, takes
    /// for alive who it is connected to.
    pub state: Option<MemberState>,
    /// The application's own data ([`Options::tags`](crate::Options::tags)), as far as it was heard of.
    pub tags: Vec<(String, String)>,
    /// Whether it is this node, or connected to it.
    pub connected: bool,
}

/// What a node sees of its cluster at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The node that sees it.
    pub me: MemberId,
    /// The version of the directory that it knows; 0: none, `members` are the founders.
    pub version: u64,
    /// Who is registered, as [`Node::members`] says.
    pub members: Vec<Member>,
    /// The clients that are connected to this node, sorted. Other members have clients of their own.
    pub clients: Vec<MemberId>,
    /// Whether a majority of the registered members is connected, this one included: without, what needs one waits.
    pub is_ready: bool,
}

impl Node {
    /// All registered members of the cluster, sorted by id, as far as this node has been told.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        let connected = self.inner.shared.connected.lock().clone();
        self.members_of(self.directory().as_deref(), &connected)
    }

    /// What this node sees of its cluster now.
    #[must_use]
    pub fn view(&self) -> View {
        let shared = &self.inner.shared;
        let table = self.directory();
        let connected = shared.connected.lock().clone();
        View {
            me: self.whoami(),
            version: table.as_deref().map_or(0, |table| table.version),
            members: self.members_of(table.as_deref(), &connected),
            clients: connected.iter().copied().filter(|member| member.is_client()).collect(),
            is_ready: shared.is_ready.load(Ordering::Relaxed),
        }
    }

    /// The members that this directory has registered; without one, the founders.
    fn members_of(&self, table: Option<&Table>, connected: &BTreeSet<MemberId>) -> Vec<Member> {
        let shared = &self.inner.shared;
        let registered = match table {
            Some(table) => table.members.clone(),
            None => {
                let genesis = shared.genesis.get();
                genesis.into_iter().flat_map(Registered::founders).collect()
            }
        };
        let peers = shared.peers.lock();
        let member = |listed: Registered| {
            let Registered { id, name, address, birth: _, weight, standing } = listed;
            let (state, tags) = match peers.get(&id) {
                _ if id == self.whoami() => (Some(MemberState::Alive), shared.options.tags.clone()),
                Some(peer) => (Some(peer.state), peer.tags.clone()),
                None => (None, Vec::new()),
            };
            let connected = id == self.whoami() || connected.contains(&id);
            Member { id, name, address, weight, standing, state, tags, connected }
        };
        registered.into_iter().map(member).collect()
    }
}
