//! The search itself: states as tuples of numbers, breadth first.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use ring_core::ids::{LogIndex, ReplicaId, Term};
use ring_core::raft::message::{Body, Message};

use super::judge::{Past, Seen, check_match};
use super::member::{self, Held, Input, Member};
use super::table::{QuickBuilder, Table, fingerprint, place};
use super::{Bounds, Broken, Times};

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
pub(super) struct Frontier {
    words: Vec<u32>,
    pub(super) count: usize,
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
type Run = Result<Option<Rc<Outcome>>, String>;

/// A search under way.
pub(super) struct Search<'a> {
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
    pub(super) next: Frontier,
    pub(super) transitions: u64,
}

impl<'a> Search<'a> {
    /// At the first state.
    pub(super) fn new(bounds: &'a Bounds) -> Self {
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

    /// Distinct states so far.
    pub(super) fn states(&self) -> usize {
        self.ways.len()
    }

    /// Distinct states of a single replica.
    pub(super) fn members(&self) -> usize {
        self.members.len()
    }

    /// How often the real code ran.
    pub(super) fn runs(&self) -> usize {
        self.runs.len()
    }

    /// Everything that can happen in these states.
    pub(super) fn expand(&mut self, frontier: &Frontier, states_max: usize) -> Result<(), Broken> {
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
                Rc::new(Outcome { member, messages, reads: sent.reads })
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
            .map(|&face| Rc::clone(self.faces.thing(face)))
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
            other @ (Input::Timeout
            | Input::Beat
            | Input::Stored
            | Input::Crash { .. }
            | Input::Propose(_)
            | Input::Read(_)
            | Input::Transfer(_)) => format!("r{}: {other:?}", at + 1),
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
    pub(super) fn is_empty(&self) -> bool {
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
