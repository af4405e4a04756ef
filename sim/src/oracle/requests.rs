//! Requests: what their callers and their handlers saw must fit together (check REQUEST).
//!
//! 1. What is handled was asked for.
//! 2. What is to be handled once is handled at most once, and so is whatever its handler sees as a first attempt.
//! 3. Who is told that it was certainly not handled is right, then and for ever.
//! 4. An answer is of somebody who handles this request.

use std::collections::BTreeMap;

use ring_core::ids::len_u64;
use ring_core::request::Kind;

use super::{Oracle, name};

/// All requests of a run, by the number that they carry.
#[derive(Debug, Default)]
pub(super) struct Requests {
    all: BTreeMap<u64, Facts>,
}

#[derive(Debug)]
struct Facts {
    caller: usize,
    kind: Kind,
    /// Who handled it, and as which attempt.
    handled: Vec<(usize, u32)>,
    outcome: Option<Asked>,
}

/// How a request ended for its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// An answer that carries this number.
    Answered(u64),
    /// A one-way request was sent.
    Sent,
    /// It may have been handled.
    Unknown,
    /// It was certainly not handled, and never will be.
    NotHandled,
}

impl Oracle {
    /// Somebody is about to ask; gives the request's number.
    pub fn on_asking(&mut self, caller: usize, kind: Kind) -> u64 {
        let number = len_u64(self.requests.all.len()) + 1;
        let facts = Facts { caller, kind, handled: Vec::new(), outcome: None };
        self.requests.all.insert(number, facts);
        number
    }

    /// Somebody begins to handle a request.
    pub fn on_handled(&mut self, handler: usize, number: u64, attempt: u32) {
        let Some(facts) = self.requests.all.get_mut(&number) else {
            let problem = format!("{} handles what nobody asked for", name(handler));
            return self.fail("REQUEST", problem);
        };
        let is_twice = match facts.kind {
            Kind::Once | Kind::OneWay => !facts.handled.is_empty(),
            Kind::Retried => facts.handled.iter().any(|(_, before)| *before == attempt),
        };
        facts.handled.push((handler, attempt));
        let is_denied = facts.outcome == Some(Asked::NotHandled);
        if is_twice || is_denied {
            let problem = format!("request {number} is handled again, or after all: {facts:?}");
            self.fail("REQUEST", problem);
        }
    }

    /// A caller hears how its request ended.
    pub fn on_outcome(&mut self, number: u64, outcome: Asked) {
        let Some(facts) = self.requests.all.get_mut(&number) else { return };
        let fits = match outcome {
            Asked::Answered(answer) => answer == number && !facts.handled.is_empty(),
            Asked::Sent => facts.kind == Kind::OneWay,
            Asked::Unknown => true,
            Asked::NotHandled => facts.handled.is_empty(),
        };
        let before = facts.outcome.replace(outcome);
        if !fits || before.is_some() {
            let problem = format!(
                "request {number} of {} ended as {outcome:?}: {facts:?}",
                name(facts.caller)
            );
            self.fail("REQUEST", problem);
        }
    }

    /// Requests asked and answered so far.
    #[must_use]
    pub fn requests(&self) -> (u64, u64) {
        let is_answered = |facts: &&Facts| matches!(facts.outcome, Some(Asked::Answered(_)));
        let answered = self.requests.all.values().filter(is_answered).count();
        (len_u64(self.requests.all.len()), len_u64(answered))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(kind: Kind) -> (Oracle, u64) {
        let mut oracle = Oracle::default();
        let number = oracle.on_asking(0, kind);
        (oracle, number)
    }

    #[test]
    fn honest_requests_pass() {
        let (mut oracle, number) = asked(Kind::Retried);
        oracle.on_handled(1, number, 1);
        oracle.on_handled(2, number, 2);
        oracle.on_outcome(number, Asked::Answered(number));
        let one_way = oracle.on_asking(0, Kind::OneWay);
        oracle.on_outcome(one_way, Asked::Sent);
        oracle.on_handled(1, one_way, 1);
        let never = oracle.on_asking(0, Kind::Once);
        oracle.on_outcome(never, Asked::NotHandled);
        assert_eq!(oracle.violation(), None);
        assert_eq!(oracle.requests(), (3, 1));
    }

    #[test]
    fn each_lie_is_noticed() {
        let lies: [fn(&mut Oracle, u64); 6] = [
            |oracle, _| oracle.on_handled(1, 99, 1),
            |oracle, number| {
                oracle.on_handled(1, number, 1);
                oracle.on_handled(2, number, 2);
            },
            |oracle, number| {
                oracle.on_handled(1, number, 1);
                oracle.on_outcome(number, Asked::NotHandled);
            },
            |oracle, number| {
                oracle.on_outcome(number, Asked::NotHandled);
                oracle.on_handled(1, number, 1);
            },
            |oracle, number| {
                oracle.on_handled(1, number, 1);
                oracle.on_outcome(number, Asked::Answered(number + 1));
            },
            |oracle, number| {
                oracle.on_outcome(number, Asked::Unknown);
                oracle.on_outcome(number, Asked::Unknown);
            },
        ];
        for lie in lies {
            let (mut oracle, number) = asked(Kind::Once);
            lie(&mut oracle, number);
            assert!(oracle.violation().is_some());
        }
        let (mut oracle, number) = asked(Kind::Retried);
        oracle.on_handled(1, number, 1);
        oracle.on_handled(2, number, 1);
        assert!(oracle.violation().is_some(), "the same attempt twice");
    }
}
