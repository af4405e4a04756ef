//! What happened in a run, as one number and as the last few lines of each machine.
//!
//! Two runs of a seed must give the same number: it covers every input, message and output with its time.

use std::collections::VecDeque;
use std::fmt;

use ring_core::ids::{ConnId, GroupId, LogIndex, Term};
use ring_core::membership::SyncMessage;
use ring_core::raft::message::Body;
use ring_core::wire::Message;

use crate::clock::Nanos;

/// A running hash. Not for secrets; quick on long slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash64(u64);

impl Default for Hash64 {
    fn default() -> Self {
        Self(0x51_7c_c1_b7_27_22_0a_95)
    }
}

impl Hash64 {
    /// Mixes a number in.
    pub fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    /// Mixes bytes in, with their length.
    pub fn mix_bytes(&mut self, bytes: &[u8]) {
        self.mix(ring_core::ids::len_u64(bytes.len()));
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.mix(u64::from_le_bytes(last));
    }

    /// The number.
    #[must_use]
    pub fn value(self) -> u64 {
        let mixed = self.0 ^ (self.0 >> 32);
        mixed.wrapping_mul(0xd6e8_feb8_6659_fd93) ^ (mixed >> 29)
    }
}

/// The trace of a run.
#[derive(Debug, Default)]
pub struct Trace {
    hash: Hash64,
    lines: Vec<VecDeque<Line>>,
    aloud: bool,
}

/// One thing that happened on a machine.
#[derive(Clone, Debug)]
pub struct Line {
    /// When.
    pub at: Nanos,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum What {
    /// A message came.
    Received(ConnId, Brief),
    /// A message went out.
    Sent(ConnId, Brief),
    /// Something rarer, in words.
    Said(String),
}

/// The gist of a message, without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Brief {
    kind: &'static str,
    group: GroupId,
    term: Term,
    a: u64,
    b: u64,
}

/// Lines kept for each machine.
const LINES_MAX: usize = 60;

impl Trace {
    /// A trace of so many machines; `aloud` prints each line at once to the error output.
    #[must_use]
    pub fn new(machines: usize, aloud: bool) -> Self {
        Self {
            hash: Hash64::default(),
            lines: vec![VecDeque::with_capacity(LINES_MAX); machines],
            aloud,
        }
    }

    /// Mixes a number into the hash.
    pub fn mix(&mut self, word: u64) {
        self.hash.mix(word);
    }

    /// Mixes bytes into the hash.
    pub fn mix_bytes(&mut self, bytes: &[u8]) {
        self.hash.mix_bytes(bytes);
    }

    /// The hash so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash.value()
    }

    /// Keeps a line of a machine.
    pub fn line(&mut self, machine: usize, at: Nanos, what: What) {
        let line = Line { at, what };
        if self.aloud {
            eprintln!("n{} {line}", machine + 1);
        }
        let lines = &mut self.lines[machine];
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// The last lines of each machine.
    #[must_use]
    pub fn last(&self) -> String {
        use fmt::Write as _;
        let mut text = String::new();
        for (machine, lines) in self.lines.iter().enumerate() {
            let _ = writeln!(text, "--- n{}", machine + 1);
            for line in lines {
                let _ = writeln!(text, "{line}");
            }
        }
        text
    }
}

impl Brief {
    /// The gist of a message.
    #[must_use]
    pub fn of(message: &Message) -> Self {
        let plain = |kind, group, a, b| Self { kind, group, term: Term(0), a, b };
        let none = GroupId::DIRECTORY;
        match message {
            Message::Hello(hello) => plain("hello", none, hello.who.member.0, hello.who.boot.0),
            Message::Welcome(w) => plain("welcome", none, w.who.member.0, w.who.boot.0),
            Message::Refuse(_) => plain("refuse", none, 0, 0),
            Message::Founding(f) => {
                let births = ring_core::ids::len_u64(f.births.len());
                plain("founding", none, births, u64::from(f.founded))
            }
            Message::Gather(said) => plain("gather", none, said.holds.map_or(0, |held| held.0), 0),
            Message::Raft(raft) => Self::of_raft(raft),
            Message::Beats(beats) => plain("beats", none, ring_core::ids::len_u64(beats.len()), 0),
            Message::BeatAnswers(beats) => {
                plain("beat answers", none, ring_core::ids::len_u64(beats.len()), 0)
            }
            Message::Open { group, nonce } => plain("open", *group, *nonce, 0),
            Message::Opened { group, session, .. } => plain("opened", *group, session.0, 0),
            Message::Propose { group, session, commands, .. } => {
                let first = commands.first().map_or(0, |(seq, _)| seq.0);
                plain("propose", *group, session.0, first)
            }
            Message::Proposed { group, session, outcomes } => {
                let first = outcomes.first().map_or(0, |(seq, _)| seq.0);
                plain("proposed", *group, session.0, first)
            }
            Message::NotLeader { group, hint } => {
                plain("not leader", *group, hint.map_or(0, |m| m.0), 0)
            }
            Message::Busy { group } => plain("busy", *group, 0, 0),
            Message::Ask { call, group, .. } => plain("ask", *group, *call, 0),
            Message::Answer { call, result } => {
                plain("answer", none, *call, u64::from(result.is_ok()))
            }
            Message::LocalAnswer { call, .. } => plain("local answer", none, *call, 1),
            Message::AskStatus { call, .. } => plain("ask status", none, *call, 0),
            Message::Status { call, .. } => plain("status", none, *call, 0),
            Message::Ping => plain("ping", none, 0, 0),
            Message::Pong => plain("pong", none, 0, 0),
            Message::Table(table) => plain("table", none, table.version, table.moving()),
            Message::TableVersion(version) => plain("table version", none, *version, 0),
            Message::Register { weight, .. } => plain("register", none, u64::from(*weight), 0),
            Message::Leave { .. } => plain("leave", none, 0, 0),
            Message::Settled { group, order } => plain("settled", *group, *order, 0),
            Message::ChangeRefused(_) => plain("change refused", none, 0, 0),
            Message::Sync(sync) => match sync {
                SyncMessage::Digest { hash } => plain("digest", none, *hash, 0),
                SyncMessage::Buckets { .. } => plain("buckets", none, 0, 0),
                SyncMessage::Records { updates, wanted } => {
                    let len = ring_core::ids::len_u64;
                    plain("records", none, len(updates.len()), len(wanted.len()))
                }
            },
            Message::Request { at, part } => plain("request", none, *at, part.weight()),
            Message::RequestsTaken { upto } => plain("requests taken", none, *upto, 0),
            Message::RequestsSent { upto } => plain("requests sent", none, *upto, 0),
            Message::StreamCredit { of, upto } => plain("stream credit", none, of.number, *upto),
        }
    }

    fn of_raft(message: &ring_core::raft::message::Message) -> Self {
        let (kind, a, b) = match &message.body {
            Body::PreVote { last_index, last_term } => ("pre-vote", last_index.0, last_term.0),
            Body::PreVoteAnswer { granted } => ("pre-vote answer", u64::from(*granted), 0),
            Body::Vote { last_index, last_term, .. } => ("vote", last_index.0, last_term.0),
            Body::VoteAnswer { granted } => ("vote answer", u64::from(*granted), 0),
            Body::Append { prev_index, entries, .. } => {
                ("append", prev_index.0, ring_core::ids::len_u64(entries.len()))
            }
            Body::Accepted { index } => ("accepted", index.0, 0),
            Body::Rejected { prev_index, hint_index, .. } => {
                ("rejected", prev_index.0, hint_index.0)
            }
            Body::Beat(beat) => ("beat", beat.commit.0, beat.round),
            Body::BeatAnswer(answer) => ("beat answer", answer.last_index.0, answer.round),
            Body::Snapshot { index, chunk, .. } => ("snapshot", index.0, *chunk),
            Body::SnapshotNext { chunk, .. } => ("snapshot next", *chunk, 0),
            Body::TimeoutNow => ("time-out now", 0, 0),
            Body::ReadIndex { read } => ("read index", *read, 0),
            Body::ReadIndexAnswer { read, index } => {
                ("read index answer", *read, index.map_or(0, |i: LogIndex| i.0))
            }
        };
        Self { kind, group: message.group, term: message.term, a, b }
    }
}

impl fmt::Display for Brief {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, group, term, a, b } = self;
        write!(f, "{kind} {group} {term} ({a}, {b})")
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (s, us) = (self.at / 1_000_000_000, self.at / 1_000 % 1_000_000);
        write!(f, "{s:>4}.{us:06} ")?;
        match &self.what {
            What::Received(conn, brief) => write!(f, "<- {conn} {brief}"),
            What::Sent(conn, brief) => write!(f, "-> {conn} {brief}"),
            What::Said(words) => f.write_str(words),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_sees_order_and_lengths() {
        let hash = |parts: &[&[u8]]| {
            let mut hash = Hash64::default();
            for part in parts {
                hash.mix_bytes(part);
            }
            hash.value()
        };
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
        assert_ne!(hash(&[b"a", b"b"]), hash(&[b"b", b"a"]));
        assert_ne!(hash(&[b"a"]), hash(&[b"a\0"]));
        assert_eq!(hash(&[b"123456789"]), hash(&[b"123456789"]));
    }

    #[test]
    fn a_machine_keeps_its_last_lines() {
        let mut trace = Trace::new(1, false);
        for n in 0..100_u64 {
            trace.line(0, n, What::Said(format!("line {n};")));
        }
        let text = trace.last();
        assert!(text.contains("line 99;") && text.contains("line 40;"));
        assert!(!text.contains("line 39;"));
    }
}
