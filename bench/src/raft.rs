//! `bench raft`: what one core can commit when network and disk cost nothing, beside the crate `raft` (raft-rs).
//!
//! Three replicas in one thread. A turn: the leader takes as many proposals as there is room for, every replica ends
//! its turn, then all messages are encoded, decoded and handled. Records are durable at once, logs are in memory
//! and are cut as a store that keeps up would have it. Every proposal is a fresh copy of its bytes.
//!
//! Both are driven alike and set up alike: pre-vote and check-quorum on, appends of up to 1 MiB, 64 of them in
//! flight; for raft-rs also what spares it messages here (`batch_append`, `skip_bcast_commit`, all proposals of a
//! turn in one step, which is faster than one by one), and its own codec (rust-protobuf), while our frames carry a
//! checksum too.
//!
//! What it does not show: a disk, a network, many groups, snapshots, reads.

#[cfg(feature = "peers")]
mod peer;

use std::time::Duration;

use bytes::Bytes;
use ring_core::ids::{Epoch, GroupId, LogIndex, LogSeq, MemberId, ReplicaId, Term};
use ring_core::raft::message::{Membership, Replica};
use ring_core::raft::{Durable, Effects, Raft, Settings};
use ring_core::rng::Rng;
use ring_core::store::StoreState;
use ring_core::time::Instant;
use ring_core::wire::message::Message;
use ring_core::wire::{Decoder, Encoder};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

use crate::report::{Columns, Section, float, median, range, show};

const GROUP: GroupId = GroupId(1);
const REPLICAS: u64 = 3;

/// How it is measured.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Proposals in flight.
    pub(crate) in_flight: Vec<usize>,
    /// Bytes of a proposal.
    pub(crate) bytes: usize,
    /// Proposals to commit in one measurement; a tenth with one in flight.
    pub(crate) proposals: u64,
    pub(crate) rounds: usize,
}

/// An elected group of three that commits.
trait Commits {
    fn elected() -> Self;
    fn commit(&mut self, in_flight: usize, data: &[u8], proposals: u64);
}

/// Committed proposals a second, round by round.
#[derive(Debug, Default)]
struct Rates {
    ours: Vec<f64>,
    peer: Vec<f64>,
}

/// Measures, in turns.
pub(crate) fn run(plan: &Plan) -> Section {
    let header = ["in flight", "proposals/s", "least", "most", "raft-rs", "ratio"];
    let mut table = Columns::new(&header);
    let mut figures = Vec::new();
    for &in_flight in &plan.in_flight {
        let proposals = if in_flight == 1 { plan.proposals / 10 } else { plan.proposals };
        let mut rates = Rates::default();
        for _ in 0..plan.rounds {
            rates.ours.push(measure::<Group>(in_flight, plan.bytes, proposals));
            #[cfg(feature = "peers")]
            rates.peer.push(measure::<peer::Group>(in_flight, plan.bytes, proposals));
        }
        let (least, most) = range(rates.ours.iter().copied());
        let ratio = median(rates.ours.iter().zip(&rates.peer).map(|(ours, peer)| ours / peer));
        table.rows.push(vec![
            in_flight.to_string(),
            show(median(rates.ours.iter().copied())),
            show(least),
            show(most),
            show(median(rates.peer.iter().copied())),
            show(ratio),
        ]);
        figures.push(json!({
            "in_flight": in_flight, "bytes": plan.bytes,
            "per_second": rates.ours, "raft_rs_per_second": rates.peer,
        }));
    }
    let mut notes = Vec::new();
    notes.push(String::from(
        "Goal: 2 000 000 proposals/s with 256 in flight, twice what raft-rs does.",
    ));
    if !cfg!(feature = "peers") {
        notes.push(String::from("Left out: raft-rs: this was built without --features peers"));
    }
    Section {
        name: String::from("raft"),
        title: String::from("Raft alone in one thread, beside raft-rs"),
        about: vec![
            format!(
                "Three replicas, proposals of {} bytes, messages encoded and decoded, logs in \
                 memory.",
                plan.bytes
            ),
            format!(
                "A second is one of the thread's processor time. Medians of {} rounds in turn; the \
                 ratio is the median of the rounds' ratios.",
                plan.rounds
            ),
        ],
        tables: vec![table],
        notes,
        figures: figures.into(),
    }
}

/// Proposals a second of the thread's processor time: it never waits, and others may be at work on
/// the machine.
fn measure<G: Commits>(in_flight: usize, bytes: usize, proposals: u64) -> f64 {
    let mut group = G::elected();
    let data = vec![7; bytes];
    // The first ones grow buffers.
    group.commit(in_flight, &data, proposals / 10);
    let begin = thread_time();
    group.commit(in_flight, &data, proposals);
    float(proposals) / (thread_time() - begin).as_secs_f64()
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("processor time is never negative")
}

struct Group {
    now: Instant,
    replicas: Vec<Raft>,
    /// By sender and receiver.
    wires: Vec<Vec<(Encoder, Decoder)>>,
    seq: LogSeq,
    fx: Effects,
    frame: Vec<u8>,
}

impl Commits for Group {
    fn elected() -> Self {
        let mut group = Self::new();
        group.elect();
        group
    }

    fn commit(&mut self, in_flight: usize, data: &[u8], proposals: u64) {
        let end = self.replicas[0].commit().0 + proposals;
        while self.replicas[0].commit().0 < end {
            let last = self.replicas[0].log().last_index().0;
            let waiting = usize::try_from(last - self.replicas[0].commit().0).unwrap_or(usize::MAX);
            let room = in_flight.saturating_sub(waiting);
            for _ in 0..room.min(usize::try_from(end - last).unwrap_or(usize::MAX)) {
                let data = Bytes::copy_from_slice(data);
                let taken = self.replicas[0].propose(data, &mut self.fx);
                taken.expect("the first replica leads");
            }
            self.turn();
        }
    }
}

impl Group {
    fn new() -> Self {
        let voters: Vec<Replica> =
            (1..=REPLICAS).map(|id| Replica { id: ReplicaId(id), member: MemberId(id) }).collect();
        let membership = Membership { voters: voters.clone(), ..Membership::default() };
        let settings = Settings {
            election_min: Duration::from_millis(500),
            election_max: Duration::from_millis(1000),
            append_bytes: 1 << 20,
            append_entries: 1024,
            appends_in_flight: 64,
            log_bytes_max: 1 << 30,
        };
        let replica = |voter: &Replica| {
            let store = StoreState {
                group: GROUP,
                index: LogIndex(0),
                term: Term(0),
                membership: membership.clone(),
                stamp: 0,
                digest: 0,
                epoch: Epoch(1),
            };
            let durable = Durable {
                term: Term(0),
                vote: None,
                commit: LogIndex(0),
                cut_index: LogIndex(0),
                cut_term: Term(0),
                membership: membership.clone(),
                entries: Vec::new(),
            };
            let (at, rng) = ((GROUP, voter.id), Rng::new(voter.id.0));
            let mut fx = Effects::default();
            Raft::new(at, settings.clone(), durable, &store, rng, Instant(0), &mut fx)
        };
        let wire = || {
            let mut decoder = Decoder::dialled();
            decoder.authenticated();
            (Encoder::new(), decoder)
        };
        let row = || voters.iter().map(|_| wire()).collect();
        Self {
            now: Instant(0),
            replicas: voters.iter().map(replica).collect(),
            wires: voters.iter().map(|_| row()).collect(),
            seq: LogSeq(0),
            fx: Effects::default(),
            frame: Vec::new(),
        }
    }

    /// The first replica becomes the leader.
    fn elect(&mut self) {
        self.now = self.replicas[0].deadline();
        self.replicas[0].on_wakeup(self.now, &mut self.fx);
        self.carry_out(0);
        while !self.replicas[0].is_leader() || self.replicas[0].commit() < LogIndex(1) {
            self.turn();
        }
    }

    /// Everyone ends a turn, then everything that was sent arrives.
    fn turn(&mut self) {
        for from in 0..self.replicas.len() {
            self.replicas[from].flush(&mut self.fx);
            self.carry_out(from);
        }
        for from in 0..self.replicas.len() {
            for to in 0..self.replicas.len() {
                self.deliver(from, to);
            }
        }
        for replica in &mut self.replicas {
            let committed = replica.take_committed(usize::MAX);
            // What is applied is cut now and then, as a store that keeps up would have it.
            if let Some(last) = committed.last()
                && last.index.0.is_multiple_of(64)
            {
                replica.cut(last.index, &mut self.fx);
                self.fx.records.clear();
            }
        }
    }

    /// Records are durable at once; messages are encoded.
    fn carry_out(&mut self, from: usize) {
        if !self.fx.records.is_empty() {
            self.fx.records.clear();
            self.seq = self.seq.next();
            self.replicas[from].on_recorded(self.seq);
            self.replicas[from].on_stored(self.now, self.seq, &mut self.fx);
        }
        let fx = &mut self.fx;
        for (to, message) in fx.promises.drain(..).chain(fx.sends.drain(..)) {
            let to = usize::try_from(to.0 - 1).expect("three replicas");
            let encoder = &mut self.wires[from][to].0;
            encoder.push(&Message::Raft(message)).expect("small messages");
        }
    }

    fn deliver(&mut self, from: usize, to: usize) {
        loop {
            let (encoder, decoder) = &mut self.wires[from][to];
            self.frame.clear();
            if !encoder.frame(&mut self.frame) {
                return;
            }
            decoder.feed(&self.frame);
            let member = MemberId(self.replicas[from].id().0);
            loop {
                let decoder = &mut self.wires[from][to].1;
                let Some(message) = decoder.next().expect("what was encoded") else { break };
                let Message::Raft(message) = message else { continue };
                self.replicas[to].on_message(self.now, member, message, &mut self.fx);
                self.carry_out(to);
            }
        }
    }
}
