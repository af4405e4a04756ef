//! Requests: what their callers and their handlers saw must fit together (check REQUEST).
//!
//! 1. What is handled was asked for, and as it was asked; its handler is the one by its own ring or leadership (asked by
//!    the process).
//! 2. What is to be handled once is handled at most once, as is whatever has streams, and whatever a handler sees as one
//!    attempt. Each attempt has the name of the first, and no other request has it; a later one is sent with a higher
//!    number.
//! 3. Who is told that it was certainly not handled is right, then and for ever.
//! 4. An answer is one that a handler of this request has given.
//! 5. Every request ends once, by its deadline (asked by the process), here and where it is handled.
//! 6. When all is well, what a handler answers promptly is answered within half of the time that there is.

use std::collections::BTreeMap;

use ring_core::ids::len_u64;
use ring_core::request::{Kind, RequestName};

use super::{Oracle, name};
use crate::clock::Nanos;

/// All requests of a run, by the number that they carry.
#[derive(Debug, Default)]
pub(super) struct Requests {
    all: BTreeMap<u64, Facts>,
    names: BTreeMap<RequestName, u64>,
    next: u64,
    /// When everything was well for the first time.
    quiet_since: Option<Nanos>,
}

#[derive(Debug)]
struct Facts {
    asking: Asking,
    /// As what it was sent last.
    sent: u32,
    /// Who handled it, and as which attempt.
    handled: Vec<(usize, u32)>,
    name: Option<RequestName>,
    /// Digests of what handlers answered.
    answers: Vec<u64>,
    outcome: Option<Asked>,
    /// It must be answered by then.
    due: Option<Nanos>,
}

/// What somebody asks.
#[derive(Clone, Copy, Debug)]
pub struct Asking {
    /// The machine that asks.
    pub caller: usize,
    /// What it expects.
    pub kind: Kind,
    /// Of headers and body.
    pub digest: u64,
    /// How many streams it opens.
    pub streams: u64,
    /// When, in true time.
    pub at: Nanos,
    /// How long it waits.
    pub patience: Nanos,
    /// Its handler answers at once, and nobody gives it up.
    pub prompt: bool,
    /// That answer is an error.
    pub fails: bool,
}

/// How a request ended for its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// An answer with this digest.
    Answered(u64),
    /// A one-way request was sent.
    Sent,
    /// It may have been handled.
    Unknown,
    /// It was certainly not handled, and never will be.
    NotHandled,
}

/// How many requests there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestCounts {
    /// Those that a handler was to answer promptly.
    pub asked: u64,
    /// Of these the answered ones.
    pub answered: u64,
    /// All that had to be answered, as all was well.
    pub due: u64,
    /// All that were handled more than once.
    pub repeated: u64,
}

/// Whoever waits for less is not promised an answer.
const PATIENCE_MIN: Nanos = 2_000_000_000;

impl Oracle {
    /// A number for the next request.
    pub fn next_request(&mut self) -> u64 {
        self.requests.next += 1;
        self.requests.next
    }

    /// Everything has been well since then.
    pub(super) fn be_quiet_about_requests(&mut self, now: Nanos) {
        self.requests.quiet_since.get_or_insert(now);
    }

    /// Somebody is about to ask.
    pub fn on_asking(&mut self, number: u64, asking: Asking) {
        let requests = &mut self.requests;
        let is_due = requests.quiet_since.is_some()
            && asking.prompt
            && asking.kind != Kind::OneWay
            && asking.patience >= PATIENCE_MIN;
        let due = is_due.then_some(asking.at + asking.patience / 2);
        let facts = Facts {
            asking,
            sent: 0,
            handled: Vec::new(),
            name: None,
            answers: Vec::new(),
            outcome: None,
            due,
        };
        requests.all.insert(number, facts);
    }

    /// A request goes on a connection.
    pub fn on_request_sent(&mut self, number: u64, attempt: u32) {
        let Some(facts) = self.requests.all.get_mut(&number) else { return };
        let rises = attempt > facts.sent;
        facts.sent = attempt;
        if !rises {
            let problem = format!("request {number} is sent as {attempt} once more: {facts:?}");
            self.fail("REQUEST", problem);
        }
    }

    /// Somebody begins to handle a request.
    pub fn on_handled(
        &mut self,
        handler: usize,
        number: u64,
        (request, attempt): (RequestName, u32),
        digest: u64,
    ) {
        let requests = &mut self.requests;
        let Some(facts) = requests.all.get_mut(&number) else {
            let problem = format!("{} handles what nobody asked for", name(handler));
            return self.fail("REQUEST", problem);
        };
        let may_repeat = facts.asking.kind == Kind::Retried && facts.asking.streams == 0;
        let is_twice = match may_repeat {
            false => !facts.handled.is_empty(),
            true => facts.handled.iter().any(|(_, before)| *before == attempt),
        };
        facts.handled.push((handler, attempt));
        let is_denied = facts.outcome == Some(Asked::NotHandled);
        let is_other = digest != facts.asking.digest;
        let is_named = *facts.name.get_or_insert(request) == request
            && *requests.names.entry(request).or_insert(number) == number;
        let problem = if is_twice || is_denied {
            "is handled again, or after all"
        } else if is_other {
            "is not what was asked"
        } else if !is_named {
            "has another's name, or another name than before"
        } else {
            return;
        };
        let problem = format!("request {number}, as {request}, {problem}: {facts:?}");
        self.fail("REQUEST", problem);
    }

    /// A handler answers.
    pub fn on_answering(&mut self, handler: usize, number: u64, digest: u64) {
        let Some(facts) = self.requests.all.get_mut(&number) else { return };
        facts.answers.push(digest);
        if facts.handled.iter().all(|(who, _)| *who != handler) {
            let problem = format!("{} answers {number} unasked: {facts:?}", name(handler));
            self.fail("REQUEST", problem);
        }
    }

    /// A caller hears how its request ended.
    pub fn on_outcome(&mut self, number: u64, outcome: Asked, now: Nanos) {
        let Some(facts) = self.requests.all.get_mut(&number) else { return };
        let fits = match outcome {
            Asked::Answered(answer) => facts.answers.contains(&answer),
            Asked::Sent => facts.asking.kind == Kind::OneWay,
            Asked::Unknown => true,
            Asked::NotHandled => facts.handled.is_empty(),
        };
        let before = facts.outcome.replace(outcome);
        let is_in_time =
            facts.due.is_none_or(|due| now <= due && matches!(outcome, Asked::Answered(_)));
        if !fits || before.is_some() || !is_in_time {
            let word = if is_in_time { "ended" } else { "when all is well ended" };
            let (caller, at) = (name(facts.asking.caller), now);
            let problem =
                format!("request {number} of {caller} {word} at {at} as {outcome:?}: {facts:?}");
            self.fail("REQUEST", problem);
        }
    }

    /// The run ends: whatever had to be answered by now was.
    pub fn on_requests_over(&mut self, now: Nanos) {
        let open =
            self.requests.all.iter().find(|(_, facts)| {
                facts.outcome.is_none() && facts.due.is_some_and(|due| due < now)
            });
        if let Some((number, facts)) = open {
            let problem = format!("request {number} is not answered, and all is well: {facts:?}");
            self.fail("REQUEST", problem);
        }
    }

    /// True when whatever belongs to this request must succeed.
    pub(super) fn is_request_due(&self, number: u64) -> bool {
        let facts = self.requests.all.get(&number);
        facts.is_some_and(|facts| facts.due.is_some() && !facts.asking.fails)
    }

    /// Requests asked and answered so far.
    #[must_use]
    pub fn requests(&self) -> RequestCounts {
        let mut counts = RequestCounts::default();
        for facts in self.requests.all.values() {
            let asking = &facts.asking;
            if asking.prompt && asking.kind != Kind::OneWay && facts.outcome.is_some() {
                counts.asked += 1;
                let answered = matches!(facts.outcome, Some(Asked::Answered(_)));
                counts.answered += u64::from(answered);
            }
            counts.due += u64::from(facts.due.is_some());
            counts.repeated += u64::from(facts.handled.len() > 1);
        }
        debug_assert!(len_u64(self.requests.all.len()) <= self.requests.next);
        counts
    }
}

#[cfg(test)]
mod tests {
    use ring_core::ids::{Boot, MemberId};

    use super::*;

    fn asking(kind: Kind) -> Asking {
        Asking {
            caller: 0,
            kind,
            digest: 5,
            streams: 0,
            at: 100,
            patience: 4_000_000_000,
            prompt: true,
            fails: false,
        }
    }

    fn asked(kind: Kind) -> (Oracle, u64) {
        let mut oracle = Oracle::default();
        let number = oracle.next_request();
        oracle.on_asking(number, asking(kind));
        (oracle, number)
    }

    fn named(number: u64, attempt: u32) -> (RequestName, u32) {
        (RequestName { caller: MemberId(1), boot: Boot(1), number }, attempt)
    }

    #[test]
    fn honest_requests_pass() {
        let (mut oracle, number) = asked(Kind::Retried);
        oracle.on_request_sent(number, 1);
        oracle.on_request_sent(number, 2);
        oracle.on_handled(1, number, named(1, 1), 5);
        oracle.on_handled(2, number, named(1, 2), 5);
        oracle.on_answering(2, number, 77);
        oracle.on_outcome(number, Asked::Answered(77), 200);
        let one_way = oracle.next_request();
        oracle.on_asking(one_way, asking(Kind::OneWay));
        oracle.on_outcome(one_way, Asked::Sent, 200);
        oracle.on_handled(1, one_way, named(2, 1), 5);
        let never = oracle.next_request();
        oracle.on_asking(never, asking(Kind::Once));
        oracle.on_outcome(never, Asked::NotHandled, 200);
        oracle.on_requests_over(300);
        assert_eq!(oracle.violation(), None);
        let counts = RequestCounts { asked: 2, answered: 1, due: 0, repeated: 1 };
        assert_eq!(oracle.requests(), counts);
    }

    #[test]
    fn each_lie_is_noticed() {
        let lies: [fn(&mut Oracle, u64); 10] = [
            |oracle, _| oracle.on_handled(1, 99, named(1, 1), 5),
            |oracle, number| oracle.on_handled(1, number, named(1, 1), 6),
            |oracle, number| {
                oracle.on_handled(1, number, named(1, 1), 5);
                oracle.on_handled(2, number, named(1, 2), 5);
            },
            |oracle, number| {
                oracle.on_handled(1, number, named(1, 1), 5);
                oracle.on_outcome(number, Asked::NotHandled, 200);
            },
            |oracle, number| {
                oracle.on_outcome(number, Asked::NotHandled, 200);
                oracle.on_handled(1, number, named(1, 1), 5);
            },
            |oracle, number| {
                oracle.on_handled(1, number, named(1, 1), 5);
                oracle.on_answering(1, number, 77);
                oracle.on_outcome(number, Asked::Answered(78), 200);
            },
            |oracle, number| oracle.on_answering(1, number, 77),
            |oracle, number| {
                oracle.on_outcome(number, Asked::Unknown, 200);
                oracle.on_outcome(number, Asked::Unknown, 200);
            },
            |oracle, number| {
                oracle.on_request_sent(number, 2);
                oracle.on_request_sent(number, 2);
            },
            |oracle, number| {
                oracle.on_handled(1, number, named(1, 1), 5);
                let other = oracle.next_request();
                oracle.on_asking(other, asking(Kind::Once));
                oracle.on_handled(1, other, named(1, 1), 5);
            },
        ];
        for lie in lies {
            let (mut oracle, number) = asked(Kind::Once);
            lie(&mut oracle, number);
            assert!(oracle.violation().is_some());
        }
        for (second, attempt) in [(1, 1), (2, 2)] {
            let (mut oracle, number) = asked(Kind::Retried);
            oracle.on_handled(1, number, named(1, 1), 5);
            oracle.on_handled(2, number, named(second, attempt), 5);
            assert!(oracle.violation().is_some(), "the same attempt, or another name");
        }
    }

    #[test]
    fn when_all_is_well_what_is_not_answered_in_time_is_noticed() {
        let due = 100 + 2_000_000_000;
        type End = fn(&mut Oracle, u64);
        let ends: [(End, bool); 4] = [
            (|oracle, number| oracle.on_outcome(number, Asked::Answered(77), 200), true),
            (|oracle, number| oracle.on_outcome(number, Asked::Answered(77), 2_000_000_101), false),
            (|oracle, number| oracle.on_outcome(number, Asked::Unknown, 200), false),
            (|_, _| {}, false),
        ];
        for (end, passes) in ends {
            let mut oracle = Oracle::default();
            oracle.be_quiet_about_requests(50);
            let number = oracle.next_request();
            oracle.on_asking(number, asking(Kind::Once));
            oracle.on_handled(1, number, named(1, 1), 5);
            oracle.on_answering(1, number, 77);
            end(&mut oracle, number);
            oracle.on_requests_over(due + 1);
            assert_eq!(oracle.violation().is_none(), passes);
        }
    }
}
