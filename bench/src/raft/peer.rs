//! The same with raft-rs.

use protobuf::Message as _;
use raft::eraftpb::{Entry, Message, MessageType};
use raft::storage::MemStorage;
use raft::{Config, RawNode, StateRole};
use slog::{Discard, Logger, o};

use super::{Commits, REPLICAS};

pub(super) struct Group {
    nodes: Vec<RawNode<MemStorage>>,
    /// Encoded, by sender and receiver.
    wires: Vec<Vec<Vec<Vec<u8>>>>,
}

impl Commits for Group {
    fn elected() -> Self {
        let voters: Vec<u64> = (1..=REPLICAS).collect();
        let node = |id: &u64| {
            let config = Config {
                id: *id,
                election_tick: 10,
                heartbeat_tick: 1,
                max_size_per_msg: 1 << 20,
                max_inflight_msgs: 64,
                check_quorum: true,
                pre_vote: true,
                skip_bcast_commit: true,
                batch_append: true,
                ..Config::default()
            };
            let store = MemStorage::new_with_conf_state((voters.clone(), Vec::new()));
            RawNode::new(&config, store, &Logger::root(Discard, o!()))
                .expect("a good configuration")
        };
        let row = || voters.iter().map(|_| Vec::new()).collect();
        let mut group = Self {
            nodes: voters.iter().map(node).collect(),
            wires: voters.iter().map(|_| row()).collect(),
        };
        group.nodes[0].campaign().expect("a voter may");
        while group.nodes[0].raft.state != StateRole::Leader || group.committed() == 0 {
            group.turn();
        }
        group
    }

    fn commit(&mut self, in_flight: usize, data: &[u8], proposals: u64) {
        let end = self.committed() + proposals;
        while self.committed() < end {
            let last = self.nodes[0].raft.raft_log.last_index();
            let waiting = usize::try_from(last - self.committed()).unwrap_or(usize::MAX);
            let room = in_flight.saturating_sub(waiting);
            let count = room.min(usize::try_from(end - last).unwrap_or(usize::MAX));
            if count > 0 {
                self.propose(count, data);
            }
            self.turn();
        }
    }
}

impl Group {
    fn committed(&self) -> u64 {
        self.nodes[0].raft.raft_log.committed
    }

    /// All at once, which costs it less than one by one.
    fn propose(&mut self, count: usize, data: &[u8]) {
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = 1;
        let entry = || Entry { data: data.to_vec().into(), ..Entry::default() };
        message.entries = (0..count).map(|_| entry()).collect();
        self.nodes[0].step(message).expect("the first node leads");
    }

    /// Everyone ends a turn, then everything that was sent arrives.
    fn turn(&mut self) {
        for from in 0..self.nodes.len() {
            self.carry_out(from);
        }
        for from in 0..self.nodes.len() {
            for to in 0..self.nodes.len() {
                self.deliver(from, to);
            }
        }
        for node in &mut self.nodes {
            // What is applied is cut now and then, as a store that keeps up would have it.
            let applied = node.raft.raft_log.applied;
            if applied.is_multiple_of(64) {
                node.mut_store().wl().compact(applied).expect("applied entries may go");
            }
        }
    }

    /// What a node asks for; it is durable at once.
    fn carry_out(&mut self, from: usize) {
        let wires = &mut self.wires[from];
        let mut send = |messages: Vec<Message>| {
            for message in messages {
                let to = usize::try_from(message.to - 1).expect("three nodes");
                wires[to].push(message.write_to_bytes().expect("small messages"));
            }
        };
        let node = &mut self.nodes[from];
        while node.has_ready() {
            let mut ready = node.ready();
            send(ready.take_messages());
            drop(ready.take_committed_entries());
            {
                let mut store = node.mut_store().wl();
                store.append(&ready.take_entries()).expect("contiguous entries");
                if let Some(state) = ready.hs() {
                    store.set_hardstate(state.clone());
                }
            }
            send(ready.take_persisted_messages());
            let mut light = node.advance(ready);
            if let Some(commit) = light.commit_index() {
                node.mut_store().wl().mut_hard_state().commit = commit;
            }
            send(light.take_messages());
            drop(light.take_committed_entries());
            node.advance_apply();
        }
    }

    fn deliver(&mut self, from: usize, to: usize) {
        let mut sent = std::mem::take(&mut self.wires[from][to]);
        if sent.is_empty() {
            return;
        }
        for bytes in sent.drain(..) {
            let message = Message::parse_from_bytes(&bytes).expect("what was encoded");
            self.nodes[to].step(message).expect("three nodes that know each other");
        }
        self.wires[from][to] = sent;
        self.carry_out(to);
    }
}
