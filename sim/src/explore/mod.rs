//! Every state that copies of the real replica (`ring_core::raft::Raft`) can get into within some bounds.
//!
//! | file | what it is |
//! |---|---|
//! | `mod.rs` | bounds and report |
//! | `search.rs` | what can happen in a state, and the search |
//! | `member.rs` | one replica with its disk and store, and what a step of it does |
//! | `judge.rs` | what must hold in every state |
//! | `table.rs` | distinct things and their numbers |
//! | `configurations.rs` | the bounds that are searched |
//!
//! At each state anything may happen next: any message on its way arrives, or arrives and stays for another time; a
//! disk stores its oldest batch and says so; a time-out comes; power fails with any part of what was not stored
//! kept; a leader ticks, is given an entry, is asked to read or to hand over. The search is breadth-first, so the
//! way to a broken state is one of the shortest.
//!
//! What makes it small enough to be complete:
//!
//! - *The real code runs once for each distinct pair of a replica's state and an input*; states of the whole are
//!   tuples of numbers of what was seen before.
//! - *Time-outs have no length*: every deadline has always come, and the search says when it is noticed. A replica
//!   then never believes in a leader's life, so a vote or pre-vote that it would have refused for that is looked at;
//!   what it would have refused is covered by the message's loss.
//! - *A loss is a message that stays on its way for ever.* At most [`Bounds::in_flight`] messages are: when a step
//!   would make them more, each way to lose the surplus is a state of its own. Equal messages are one.
//! - A message that does nothing where it would arrive is not delivered, and one that can never do anything again
//!   (an answer in a term that its receiver's disk is past) is dropped: the state without it can do nothing that
//!   the state with it cannot.
//! - Where all replicas begin alike, the first to act is the first: the others are the same under another name.

mod configurations;
mod judge;
mod member;
mod search;
mod table;

use std::fmt;
use std::time::{Duration, Instant};

pub use configurations::{Configuration, configurations};
pub use member::Start;
use search::Search;

/// How far the search goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The replicas, all of them voters, and where they begin.
    pub start: Vec<Start>,
    /// No replica gets into a term beyond this one.
    pub term: u64,
    /// Messages on their way.
    pub in_flight: usize,
    /// Batches that a disk has been given and not stored.
    pub unstored: usize,
    /// Entries in one append.
    pub append_entries: usize,
    /// How often each thing happens on one way through the states.
    pub times: Times,
}

/// How often things happen, on one way through the states; [`Times::ANY`] for any number of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Times {
    /// Time-outs.
    pub timeouts: u8,
    /// Power cuts.
    pub crashes: u8,
    /// Messages that arrive and stay on their way.
    pub repeats: u8,
    /// Ticks of leaders. With none of them and no reads, a new leader's first beats are lost too.
    pub beats: u8,
    /// Entries proposed.
    pub proposals: u8,
    /// Reads asked for.
    pub reads: u8,
    /// Hand-overs of leadership.
    pub transfers: u8,
}

impl Times {
    /// Any number of times.
    pub const ANY: u8 = 15;

    /// Only time-outs, without limit.
    pub const CALM: Self = Self {
        timeouts: Self::ANY,
        crashes: 0,
        repeats: 0,
        beats: 0,
        proposals: 0,
        reads: 0,
        transfers: 0,
    };

    fn pack(self) -> u32 {
        let all = [
            self.timeouts,
            self.crashes,
            self.repeats,
            self.beats,
            self.proposals,
            self.reads,
            self.transfers,
        ];
        all.iter().fold(0, |packed, &times| packed << 4 | u32::from(times.min(Self::ANY)))
    }

    fn unpack(packed: u32) -> Self {
        let nibble = |place: u32| u8::try_from(packed >> (4 * place) & 15).expect("four bits");
        Self {
            timeouts: nibble(6),
            crashes: nibble(5),
            repeats: nibble(4),
            beats: nibble(3),
            proposals: nibble(2),
            reads: nibble(1),
            transfers: nibble(0),
        }
    }
}

/// What a search found.
#[derive(Clone, Debug)]
pub struct Report {
    /// Distinct states.
    pub states: usize,
    /// Steps from one to another, those to states that were known included.
    pub transitions: u64,
    /// Steps to the farthest state.
    pub depth: usize,
    /// Distinct states of a single replica.
    pub members: usize,
    /// Distinct pairs of those and an input: how often the real code ran.
    pub runs: usize,
    /// Wall time.
    pub took: Duration,
    /// Whether every state within the bounds was visited.
    pub complete: bool,
    /// What is wrong with the last state of a way through them, and the way.
    pub broken: Option<Broken>,
}

/// A way to a state that must not be.
#[derive(Clone, Debug)]
pub struct Broken {
    /// What does not hold.
    pub what: String,
    /// What happened before, one line each.
    pub steps: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match (&self.broken, self.complete) {
            (Some(_), _) => "BROKEN",
            (None, true) => "complete: every state within these bounds was visited",
            (None, false) => "incomplete: the limit of states was reached",
        };
        write!(
            f,
            "{} states, {} transitions, depth {}, {} replica states, {} runs of the code, {:.1} s; {verdict}",
            self.states,
            self.transitions,
            self.depth,
            self.members,
            self.runs,
            self.took.as_secs_f64()
        )?;
        let Some(broken) = &self.broken else { return Ok(()) };
        for (number, step) in (1..).zip(&broken.steps) {
            write!(f, "\n{number:>4}  {step}")?;
        }
        write!(f, "\n      {}", broken.what)
    }
}

/// Visits every state within the bounds, or stops after `states_max` of them, or at the first that must not be.
/// `progress` hears of each step of depth: states so far, states to go on from, depth.
#[must_use]
pub fn explore(
    bounds: &Bounds,
    states_max: usize,
    progress: &mut dyn FnMut(usize, usize, usize),
) -> Report {
    let begin = Instant::now();
    let mut search = Search::new(bounds);
    let mut depth = 0;
    let broken = loop {
        if search.next.is_empty() || search.states() >= states_max {
            break None;
        }
        let frontier = std::mem::take(&mut search.next);
        progress(search.states(), frontier.count, depth);
        if let Err(broken) = search.expand(&frontier, states_max) {
            break Some(broken);
        }
        depth += usize::from(!search.next.is_empty());
    };
    Report {
        states: search.states(),
        transitions: search.transitions,
        depth,
        members: search.members(),
        runs: search.runs(),
        took: begin.elapsed(),
        complete: broken.is_none() && search.next.is_empty(),
        broken,
    }
}
