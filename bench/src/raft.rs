//! Raft without anything around it: what one core can commit when network and disk cost nothing.

use std::time::{Duration, Instant as Clock};

use bytes::Bytes;
use ring_core::ids::{Epoch, GroupId, LogIndex, LogSeq, MemberId, ReplicaId, Term};
use ring_core::raft::message::{Membership, Replica};
use ring_core::raft::{Durable, Effects, Raft, Settings};
use ring_core::rng::Rng;
use ring_core::store::StoreState;
use ring_core::time::Instant;
use ring_core::wire::message::Message;
use ring_core::wire::{Decoder, Encoder};

const GROUP: GroupId = GroupId(1);
const REPLICAS: u64 = 3;

/// One measurement.
pub(crate) struct Measured {
    pub(crate) in_flight: usize,
    /// Committed proposals a second: least, median and most of five runs.
    pub(crate) per_second: [f64; 3],
}

impl Measured {
    pub(crate) fn json(&self) -> serde_json::Value {
        let [least, median, most] = self.per_second;
        serde_json::json!({
            "bench": "raft", "in_flight": self.in_flight,
            "per_second": median, "least": least, "most": most,
        })
    }
}

/// Commits `proposals` with so many in flight, five times.
pub(crate) fn measure(in_flight: usize, bytes: usize, proposals: u64) -> Measured {
    let mut rates: Vec<f64> = (0..5)
        .map(|_| {
            let mut group = Group::new();
            group.elect();
            let begin = Clock::now();
            group.commit(in_flight, &Bytes::from(vec![7; bytes]), proposals);
            let seconds = begin.elapsed().as_secs_f64();
            let proposals = u32::try_from(proposals).expect("fewer than 2^32 proposals");
            f64::from(proposals) / seconds
        })
        .collect();
    rates.sort_by(f64::total_cmp);
    Measured { in_flight, per_second: [rates[0], rates[2], rates[4]] }
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

    fn commit(&mut self, in_flight: usize, data: &Bytes, proposals: u64) {
        let begin = self.replicas[0].commit().0;
        let end = begin + proposals;
        while self.replicas[0].commit().0 < end {
            let last = self.replicas[0].log().last_index().0;
            let waiting = usize::try_from(last - self.replicas[0].commit().0).unwrap_or(usize::MAX);
            let room = in_flight.saturating_sub(waiting);
            for _ in 0..room.min(usize::try_from(end - last).unwrap_or(usize::MAX)) {
                let taken = self.replicas[0].propose(data.clone(), &mut self.fx);
                taken.expect("the first replica leads");
            }
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
