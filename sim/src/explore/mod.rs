//! Every state that copies of the real replica (`ring_core::raft::Raft`) can get into within some bounds.
//!
//! | file | what it is |
//! |---|---|
//! | `mod.rs` | bounds, what can happen, the search |
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
mod table;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::{Duration, Instant};

use ring_core::ids::{LogIndex, ReplicaId, Term};
use ring_core::raft::message::{Body, Message};

pub use configurations::{Configuration, configurations};
use judge::{Past, Seen, check_match};
pub use member::Start;
use member::{Held, Input, Member};
use table::{QuickBuilder, Table, fingerprint, place};

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
        if search.next.is_empty() || search.ways.len() >= states_max {
            break None;
        }
        let frontier = std::mem::take(&mut search.next);
        progress(search.ways.len(), frontier.count, depth);
        if let Err(broken) = search.expand(&frontier, states_max) {
            break Some(broken);
        }
        depth += usize::from(!search.next.is_empty());
    };
    Report {
        states: search.ways.len(),
        transitions: search.transitions,
        depth,
        members: search.members.len(),
        runs: search.runs.len(),
        took: begin.elapsed(),
        complete: broken.is_none() && search.next.is_empty(),
        broken,
    }
}

/// A state of the whole, as numbers.
#[derive(Clone, Debug, Default)]
struct State {
    members: Vec<u32>,
    past: u32,
    left: u32,
    /// Messages on their way, sorted.
    messages: Vec<u32>,
}

/// States to go on from, one after the other.
#[derive(Clone, Debug, Default)]
struct Frontier {
    words: Vec<u32>,
    count: usize,
}

/// What happens to one replica.
#[derive(Clone, Copy, Debug)]
struct Action {
    /// The place of the replica.
    at: usize,
    input: u32,
    /// The message that arrives, if one does.
    message: Option<u32>,
    /// Whether it stays on its way.
    repeated: bool,
}

/// How a state was first reached: from which, and by what.
#[derive(Clone, Copy, Debug)]
struct Way {
    from: u32,
    at: u8,
    repeated: bool,
    input: u32,
}

/// What a step of one replica leads to.
#[derive(Clone, Debug)]
struct Outcome {
    member: u32,
    messages: Vec<u32>,
    reads: Vec<(u64, LogIndex)>,
}

/// What is judged of a replica's state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Face {
    id: ReplicaId,
    term: Term,
    leads: bool,
    commit: LogIndex,
    log: u32,
    disk: u32,
}

/// What the search looks up of a replica's state.
#[derive(Clone, Copy, Debug)]
struct Known {
    face: u32,
    leads: bool,
    term: u64,
    disk_term: u64,
    unstored: usize,
    unsynced: usize,
}

/// What the search looks up of a message.
#[derive(Clone, Copy, Debug)]
struct Flying {
    input: u32,
    to: usize,
    /// Nothing, once the receiver's disk is past this term.
    dead_after: Option<u64>,
    /// It asks about a term beyond the bounds, or beats are out of bounds.
    beyond: bool,
}

/// A run of the code that led to something, was impossible, or went wrong.
type Run = Result<Option<std::rc::Rc<Outcome>>, String>;

struct Search<'a> {
    bounds: &'a Bounds,
    members: Table<Member>,
    known: Vec<Known>,
    faces: Table<Face>,
    logs: Table<Held>,
    inputs: Table<Input>,
    messages: Table<Message>,
    flying: Vec<Flying>,
    pasts: Table<Past>,
    runs: HashMap<(u32, u32), Run, QuickBuilder>,
    /// The past that follows: by the replicas' faces, which of them changed, the past before.
    judged: HashMap<Vec<u32>, u32, QuickBuilder>,
    matched: HashSet<(u32, u32), QuickBuilder>,
    visited: HashSet<u128, QuickBuilder>,
    ways: Vec<Way>,
    next: Frontier,
    transitions: u64,
}

impl<'a> Search<'a> {
    fn new(bounds: &'a Bounds) -> Self {
        let mut search = Self {
            bounds,
            members: Table::new(),
            known: Vec::new(),
            faces: Table::new(),
            logs: Table::new(),
            inputs: Table::new(),
            messages: Table::new(),
            flying: Vec::new(),
            pasts: Table::new(),
            runs: HashMap::default(),
            judged: HashMap::default(),
            matched: HashSet::default(),
            visited: HashSet::default(),
            ways: Vec::new(),
            next: Frontier::default(),
            transitions: 0,
        };
        let membership = member::membership(bounds.start.len());
        let mut members = Vec::new();
        for (replica, start) in membership.voters.iter().zip(&bounds.start) {
            members.push(search.member(Member::new(
                replica.id,
                start,
                &membership,
                bounds.append_entries,
            )));
        }
        let past = search.pasts.number(Past::default());
        let (left, messages) = (bounds.times.pack(), Vec::new());
        let first = State { members, past, left, messages };
        search.visit(&first, Way { from: 0, at: 0, repeated: false, input: 0 });
        search
    }

    /// Everything that can happen in these states.
    fn expand(&mut self, frontier: &Frontier, states_max: usize) -> Result<(), Broken> {
        let mut words = frontier.words.iter().copied();
        let mut state = State::default();
        let mut actions = Vec::new();
        while let Some(number) = state.read(&mut words, self.bounds.start.len()) {
            actions.clear();
            self.list(&state, number, &mut actions);
            for (action, left) in &actions {
                self.act(&state, number, action, *left)?;
            }
            if self.ways.len() >= states_max {
                return Ok(());
            }
        }
        Ok(())
    }

    /// What can happen in a state, and how often what may happen afterwards.
    fn list(&mut self, state: &State, number: u32, actions: &mut Vec<(Action, u32)>) {
        let left = Times::unpack(state.left);
        for &message in &state.messages {
            let Flying { input, to, .. } = self.flying[place(message)];
            let action = Action { at: to, input, message: Some(message), repeated: false };
            actions.push((action, state.left));
            if let Some(repeats) = less(left.repeats) {
                let after = Times { repeats, ..left }.pack();
                actions.push((Action { repeated: true, ..action }, after));
            }
        }
        let alike = self.bounds.start.iter().all(|start| *start == self.bounds.start[0]);
        let places = if number == 0 && alike { 1 } else { state.members.len() };
        for at in 0..places {
            let known = self.known[place(state.members[at])];
            let mut offer = |input: Input, after: Times| {
                let input = self.inputs.number(input);
                let action = Action { at, input, message: None, repeated: false };
                actions.push((action, after.pack()));
            };
            if known.unstored > 0 {
                offer(Input::Stored, left);
            }
            if let Some(timeouts) = less(left.timeouts) {
                offer(Input::Timeout, Times { timeouts, ..left });
            }
            if let Some(crashes) = less(left.crashes) {
                for (stored, applied) in
                    (0..=known.unstored).flat_map(|s| (0..=known.unsynced).map(move |a| (s, a)))
                {
                    offer(Input::Crash { stored, applied }, Times { crashes, ..left });
                }
            }
            if let Some(reads) = less(left.reads) {
                offer(Input::Read(left.reads), Times { reads, ..left });
            }
            if !known.leads {
                continue;
            }
            if let Some(beats) = less(left.beats) {
                offer(Input::Beat, Times { beats, ..left });
            }
            if let Some(proposals) = less(left.proposals) {
                offer(Input::Propose(left.proposals), Times { proposals, ..left });
            }
            if let Some(transfers) = less(left.transfers) {
                for to in (1..).map(ReplicaId).take(state.members.len()) {
                    offer(Input::Transfer(to), Times { transfers, ..left });
                }
            }
        }
    }

    fn act(
        &mut self,
        state: &State,
        number: u32,
        action: &Action,
        left: u32,
    ) -> Result<(), Broken> {
        let before = state.members[action.at];
        let outcome = match self.run(before, action.input) {
            Ok(Some(outcome)) => outcome,
            Ok(None) => return Ok(()),
            Err(what) => return Err(self.broken(number, action, what)),
        };
        let idle = outcome.member == before && outcome.messages.is_empty();
        if action.message.is_some() && idle && outcome.reads.is_empty() {
            return Ok(());
        }
        let known = self.known[place(outcome.member)];
        if known.term > self.bounds.term || known.unstored > self.bounds.unstored {
            return Ok(());
        }
        let mut after = state.clone();
        after.left = left;
        after.members[action.at] = outcome.member;
        let past = self.judge(&after, action, before, &outcome.reads);
        after.past = past.map_err(|what| self.broken(number, action, what))?;
        let mut messages = std::mem::take(&mut after.messages);
        if !action.repeated {
            messages.retain(|&message| Some(message) != action.message);
        }
        messages.extend(&outcome.messages);
        messages.retain(|&message| !self.is_dead(message, &after.members));
        messages.sort_unstable();
        messages.dedup();
        let at = u8::try_from(action.at).expect("few replicas");
        let way = Way { from: number, at, repeated: action.repeated, input: action.input };
        self.lose(&messages, &mut after, way);
        Ok(())
    }

    /// Visits the state with these messages, or, if they are too many, each with as many of them as may be.
    fn lose(&mut self, messages: &[u32], after: &mut State, way: Way) {
        let room = self.bounds.in_flight - after.messages.len();
        if messages.len() <= room {
            let kept = after.messages.len();
            after.messages.extend(messages);
            self.transitions += 1;
            self.visit(after, way);
            after.messages.truncate(kept);
            return;
        }
        if room == 0 {
            self.lose(&[], after, way);
            return;
        }
        let (&first, rest) = messages.split_first().expect("more than fit");
        after.messages.push(first);
        self.lose(rest, after, way);
        after.messages.pop();
        self.lose(rest, after, way);
    }

    fn visit(&mut self, state: &State, way: Way) {
        let begin = self.next.words.len();
        state.write(u32::try_from(self.ways.len()).expect("memory ends before"), &mut self.next);
        // The state's own number is no part of what it is.
        if self.visited.insert(fingerprint(&self.next.words[begin + 1..])) {
            self.ways.push(way);
        } else {
            self.next.words.truncate(begin);
            self.next.count -= 1;
        }
    }

    /// A step of a replica, looked up or run.
    fn run(&mut self, member: u32, input: u32) -> Run {
        if let Some(run) = self.runs.get(&(member, input)) {
            return run.clone();
        }
        let (before, happens) = (self.members.thing(member), self.inputs.thing(input));
        let run = before.step(happens).map(|step| {
            step.map(|(member, sent)| {
                let member = self.member(member);
                let messages = sent.messages.into_iter().map(|m| self.message(m)).collect();
                std::rc::Rc::new(Outcome { member, messages, reads: sent.reads })
            })
        });
        self.runs.insert((member, input), run.clone());
        run
    }

    fn member(&mut self, member: Member) -> u32 {
        let disk = member.disk();
        let face = Face {
            id: member.id(),
            term: member.term(),
            leads: member.leads(),
            commit: member.commit(),
            log: self.logs.number(member.log()),
            disk: self.logs.number(disk.log.clone()),
        };
        let known = Known {
            face: self.faces.number(face),
            leads: member.leads(),
            term: member.term().0,
            disk_term: disk.term.0,
            unstored: member.unstored(),
            unsynced: member.unsynced(),
        };
        let number = self.members.number(member);
        if place(number) == self.known.len() {
            self.known.push(known);
        }
        number
    }

    fn message(&mut self, message: Message) -> u32 {
        let number = self.messages.number(message.clone());
        if place(number) == self.flying.len() {
            let flying = Flying {
                to: usize::try_from(message.to.0 - 1).expect("ids are places"),
                dead_after: dead_after(&message),
                beyond: self.is_beyond(&message),
                input: self.inputs.number(Input::Deliver(message)),
            };
            self.flying.push(flying);
        }
        number
    }

    fn is_beyond(&self, message: &Message) -> bool {
        let times = &self.bounds.times;
        match message.body {
            Body::PreVote { .. } => message.term.0 > self.bounds.term,
            Body::Beat(_) => times.beats == 0 && times.reads == 0,
            Body::PreVoteAnswer { .. }
            | Body::Vote { .. }
            | Body::VoteAnswer { .. }
            | Body::Append { .. }
            | Body::Accepted { .. }
            | Body::Rejected { .. }
            | Body::BeatAnswer(_)
            | Body::Snapshot { .. }
            | Body::SnapshotNext { .. }
            | Body::TimeoutNow
            | Body::ReadIndex { .. }
            | Body::ReadIndexAnswer { .. } => false,
        }
    }

    fn is_dead(&self, message: u32, members: &[u32]) -> bool {
        let flying = &self.flying[place(message)];
        let disk_term = self.known[place(members[flying.to])].disk_term;
        flying.beyond || flying.dead_after.is_some_and(|term| disk_term > term)
    }

    /// The past of a state in which one replica is another than before.
    fn judge(
        &mut self,
        state: &State,
        action: &Action,
        before: u32,
        reads: &[(u64, LogIndex)],
    ) -> Result<u32, String> {
        let mut past = state.past;
        let changed = action.at;
        if let Input::Read(read) = &**self.inputs.thing(action.input) {
            let mut next = Past::clone(self.pasts.thing(past));
            next.on_read(u64::from(*read));
            past = self.pasts.number(next);
        }
        for &(read, index) in reads {
            self.pasts.thing(past).on_read_answered(read, index)?;
        }
        let face = |member: u32| self.known[place(member)].face;
        if face(before) == face(state.members[changed]) {
            return Ok(past);
        }
        let mut key: Vec<u32> = state.members.iter().map(|&member| face(member)).collect();
        key.push(past);
        key.push(u32::try_from(changed).expect("few replicas"));
        if let Some(&next) = self.judged.get(&key) {
            return Ok(next);
        }
        let mut next = Past::clone(self.pasts.thing(past));
        let faces: Vec<_> = key[..state.members.len()]
            .iter()
            .map(|&face| std::rc::Rc::clone(self.faces.thing(face)))
            .collect();
        let seen: Vec<Seen<'_>> = faces.iter().map(|face| self.seen(face)).collect();
        next.follow(&seen, changed)?;
        for other in &faces {
            for log in [faces[changed].log, faces[changed].disk] {
                for other in [other.log, other.disk] {
                    if !self.matched.contains(&(log, other)) {
                        check_match(self.logs.thing(log), self.logs.thing(other))?;
                        self.matched.insert((log, other));
                    }
                }
            }
        }
        let next = self.pasts.number(next);
        self.judged.insert(key, next);
        Ok(next)
    }

    fn seen(&self, face: &Face) -> Seen<'_> {
        Seen {
            id: face.id,
            term: face.term,
            leads: face.leads,
            commit: face.commit,
            log: self.logs.thing(face.log),
            disk: self.logs.thing(face.disk),
        }
    }

    /// The way to a state and one step on.
    fn broken(&self, mut number: u32, last: &Action, what: String) -> Broken {
        let mut steps = vec![self.describe(last.at, last.input, last.repeated)];
        while number != 0 {
            let Way { from, at, repeated, input } = self.ways[place(number)];
            steps.push(self.describe(usize::from(at), input, repeated));
            number = from;
        }
        steps.reverse();
        Broken { what, steps }
    }

    fn describe(&self, at: usize, input: u32, repeated: bool) -> String {
        let repeated = if repeated { " (and stays on its way)" } else { "" };
        match &**self.inputs.thing(input) {
            Input::Deliver(Message { from, to, term, body, .. }) => {
                format!("{from} to {to} in {term}: {body:?}{repeated}")
            }
            other => format!("r{}: {other:?}", at + 1),
        }
    }
}

impl State {
    fn write(&self, number: u32, frontier: &mut Frontier) {
        frontier.words.push(number);
        frontier.words.extend(&self.members);
        frontier.words.extend([self.past, self.left]);
        frontier.words.push(u32::try_from(self.messages.len()).expect("few messages"));
        frontier.words.extend(&self.messages);
        frontier.count += 1;
    }

    /// The next state and its number.
    fn read(&mut self, words: &mut impl Iterator<Item = u32>, replicas: usize) -> Option<u32> {
        let number = words.next()?;
        let mut word = || words.next().expect("states are whole");
        self.members.clear();
        self.members.extend((0..replicas).map(|_| word()));
        (self.past, self.left) = (word(), word());
        let messages = word();
        self.messages.clear();
        self.messages.extend((0..messages).map(|_| word()));
        Some(number)
    }
}

impl Frontier {
    fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// How often it may happen after it happened once more; none when it may not.
fn less(times: u8) -> Option<u8> {
    match times {
        Times::ANY => Some(times),
        _ => times.checked_sub(1),
    }
}

/// The term past which a receiver takes no notice of a message, if there is one: see `Raft::answer_lower_term`.
/// A pre-vote's answer is in the term that was asked for, or denies in the receiver's own.
fn dead_after(message: &Message) -> Option<u64> {
    match message.body {
        Body::PreVoteAnswer { .. } => Some(message.term.0.saturating_sub(1)),
        Body::VoteAnswer { .. }
        | Body::Accepted { .. }
        | Body::Rejected { .. }
        | Body::BeatAnswer(_)
        | Body::SnapshotNext { .. }
        | Body::TimeoutNow => Some(message.term.0),
        Body::PreVote { .. }
        | Body::Vote { .. }
        | Body::Append { .. }
        | Body::Beat(_)
        | Body::Snapshot { .. }
        | Body::ReadIndex { .. }
        | Body::ReadIndexAnswer { .. } => None,
    }
}
