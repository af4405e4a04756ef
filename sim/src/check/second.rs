//! A second opinion on linearizability: the checker of the crate `todc-utils` judges the registers
//! of a run, and ours judges the same. That they disagree is a failure by itself.
//!
//! A register is a key that was put, got, deleted and compared. Batches and scans count as what
//! they say about the key (that is less than they say in all). Revisions are left out: a comparison
//! by revision becomes one by the value that was seen at that revision; if none was, the key is
//! left out.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use todc_utils::linearizability::history::Action;
use todc_utils::{History as Sequence, Specification, WGLChecker};

use super::linearizable::{Linearizable, partitions};
use super::{Checker, Verdict, Violation};
use crate::history::{Done, History, Key, Op, Operation, Outcome, Value};

/// Two checkers on the registers of a run.
#[derive(Clone, Copy, Debug)]
pub struct SecondOpinion {
    /// Registers with more operations are left out: the other checker takes quadratic time.
    pub operations_max: usize,
    /// Registers with more unknown outcomes are left out: the other checker takes exponential time.
    pub unknown_max: usize,
    /// Most operations that the other checker tries out for one register; then it is left out.
    pub tries_max: u64,
}

impl Default for SecondOpinion {
    fn default() -> Self {
        Self { operations_max: 400, unknown_max: 40, tries_max: 100_000 }
    }
}

impl Checker for SecondOpinion {
    fn name(&self) -> &'static str {
        "second opinion"
    }

    fn check(&self, history: &History) -> Verdict {
        let mut judged = 0;
        let mut left_out = 0;
        for operations in partitions(history).into_values() {
            let (registers, others) = registers(&operations);
            left_out += others;
            for (key, calls) in registers {
                match self.compare(&calls) {
                    Opinion::Agree => judged += 1,
                    Opinion::LeftOut => left_out += 1,
                    Opinion::Broken(mut ours) => {
                        ours.what = format!("{key}: say both checkers: {}", ours.what);
                        return Verdict::Violation(ours);
                    }
                    Opinion::Disagree { ours } => {
                        let what = format!(
                            "the two checkers disagree about {key}: ours says {ours}; one of them is wrong"
                        );
                        let whole = calls.iter().map(|call| call.whole);
                        return Verdict::Violation(Violation::new(what, whole));
                    }
                }
            }
        }
        if judged == 0 && left_out > 0 {
            return Verdict::Unknown {
                why: format!("none of {left_out} keys can be given to the other checker"),
            };
        }
        Verdict::Ok
    }
}

impl SecondOpinion {
    fn compare(&self, calls: &[Call<'_>]) -> Opinion {
        let unknown = calls.iter().filter(|call| call.done.is_none()).count();
        if calls.len() > self.operations_max || unknown > self.unknown_max {
            return Opinion::LeftOut;
        }
        let Some(theirs) = theirs(calls, self.tries_max) else {
            return Opinion::LeftOut;
        };
        let operations: Vec<Operation<'_>> = calls.iter().map(Call::operation).collect();
        let ours = Linearizable::default().judge_operations(&operations);
        match (&ours, theirs) {
            (Verdict::Unknown { .. }, _) => Opinion::LeftOut,
            (Verdict::Ok, true) => Opinion::Agree,
            (Verdict::Violation(violation), false) => Opinion::Broken(violation.clone()),
            (Verdict::Ok, false) | (Verdict::Violation(_), true) => {
                Opinion::Disagree { ours: ours.to_string() }
            }
        }
    }
}

enum Opinion {
    Agree,
    LeftOut,
    Broken(Violation),
    Disagree { ours: String },
}

/// What one operation says about one key.
struct Call<'h> {
    whole: &'h Operation<'h>,
    op: Op,
    done: Option<Done>,
}

impl Call<'_> {
    fn operation(&self) -> Operation<'_> {
        Operation {
            op: &self.op,
            outcome: match &self.done {
                Some(done) => Outcome::Ok(done),
                None => Outcome::Info,
            },
            ..*self.whole
        }
    }
}

/// The registers of a partition with what was done to them, and how many keys are none.
fn registers<'h>(operations: &'h [Operation<'h>]) -> (BTreeMap<Key, Vec<Call<'h>>>, usize) {
    let revisions = revisions(operations);
    let mut registers: BTreeMap<Key, Vec<Call<'_>>> = BTreeMap::new();
    let mut others: BTreeSet<Key> = BTreeSet::new();
    for whole in operations {
        let answer = match whole.outcome {
            Outcome::Fail => continue,
            Outcome::Ok(done) => Some(done),
            Outcome::Info => None,
        };
        let mut add = |op: Op, key: &Key, done: Option<Done>| {
            let call = Call { whole, op, done };
            registers.entry(key.clone()).or_default().push(call);
        };
        match (whole.op, answer) {
            (Op::CasRev { key, revision, new }, _) => {
                let old = match revision {
                    0 => None,
                    revision => match revisions.get(&(key, *revision)) {
                        Some(value) => Some((*value).clone()),
                        None => {
                            others.insert(key.clone());
                            continue;
                        }
                    },
                };
                let op = Op::Cas { key: key.clone(), old, new: new.clone() };
                add(op, key, answer.map(without_revision));
            }
            (Op::Put { key, .. } | Op::Delete { key } | Op::Cas { key, .. }, _) => {
                add(whole.op.clone(), key, answer.map(without_revision));
            }
            (Op::Get { key, .. }, Some(done)) => {
                add(whole.op.clone(), key, Some(without_revision(done)));
            }
            (Op::Scan { .. }, Some(Done::Page { items, .. })) => {
                for (key, value, _) in items {
                    let op = Op::Get { key: key.clone(), local: false };
                    add(op, key, Some(Done::Value(Some((value.clone(), None)))));
                }
            }
            (Op::Batch { changes }, _) => {
                let last: BTreeMap<&Key, &Option<Value>> =
                    changes.iter().map(|(key, value)| (key, value)).collect();
                for (key, value) in last {
                    let key = key.clone();
                    let (op, done) = match value.clone() {
                        Some(value) => {
                            (Op::Put { key: key.clone(), value }, Done::Written { revision: None })
                        }
                        None => (
                            Op::Delete { key: key.clone() },
                            Done::Deleted { existed: None, revision: None },
                        ),
                    };
                    add(op, &key, answer.map(|_| done));
                }
            }
            (Op::Get { .. } | Op::Scan { .. } | Op::Other { .. }, _) => {}
        }
    }
    registers.retain(|key, _| !others.contains(key));
    (registers, others.len())
}

/// The values that were seen at revisions.
fn revisions<'h>(operations: &[Operation<'h>]) -> BTreeMap<(&'h Key, u64), &'h Value> {
    let mut seen = BTreeMap::new();
    for operation in operations {
        let Outcome::Ok(done) = operation.outcome else {
            continue;
        };
        match (operation.op, done) {
            (Op::Put { key, value }, Done::Written { revision: Some(revision) })
            | (Op::Get { key, .. }, Done::Value(Some((value, Some(revision)))))
            | (
                Op::Cas { key, new: Some(value), .. } | Op::CasRev { key, new: Some(value), .. },
                Done::Compared { swapped: true, revision: Some(revision) },
            ) => {
                seen.insert((key, *revision), value);
            }
            (Op::Batch { changes }, Done::Written { revision: Some(revision) }) => {
                for (key, value) in changes {
                    seen.extend(value.iter().map(|value| ((key, *revision), value)));
                }
            }
            (Op::Scan { .. }, Done::Page { items, .. }) => {
                for (key, value, revision) in items {
                    seen.extend(revision.map(|revision| ((key, revision), value)));
                }
            }
            _ => {}
        }
    }
    seen
}

fn without_revision(done: &Done) -> Done {
    match done {
        Done::Written { .. } => Done::Written { revision: None },
        Done::Deleted { existed, .. } => Done::Deleted { existed: *existed, revision: None },
        Done::Compared { swapped, .. } => Done::Compared { swapped: *swapped, revision: None },
        Done::Value(found) => Done::Value(found.clone().map(|(value, _)| (value, None))),
        Done::Page { .. } | Done::Other(_) => done.clone(),
    }
}

/// What the other checker says; none when it took too much.
fn theirs(calls: &[Call<'_>], tries: u64) -> Option<bool> {
    // Calls and responses in the order of the history; what has no answer answers after all others.
    let mut events: Vec<(u64, usize, bool)> = Vec::with_capacity(calls.len() * 2);
    for (at, call) in calls.iter().enumerate() {
        events.push((call.whole.invoked, at, false));
        let end = match call.done {
            Some(_) => call.whole.completed.unwrap_or(u64::MAX),
            None => u64::MAX,
        };
        events.push((end, at, true));
    }
    events.sort_unstable();
    let actions = events.into_iter().map(|(_, at, is_end)| {
        let step = Step { op: calls[at].op.clone(), done: calls[at].done.clone() };
        let action = if is_end { Action::Response(step) } else { Action::Call(step) };
        (at, action)
    });
    TRIES.set(tries);
    let legal = WGLChecker::<Register>::is_linearizable(Sequence::from_actions(actions.collect()));
    (TRIES.get() > 0).then_some(legal)
}

thread_local! {
    /// How many operations the other checker may still try out.
    static TRIES: Cell<u64> = const { Cell::new(0) };
}

#[derive(Clone, Debug)]
struct Step {
    op: Op,
    done: Option<Done>,
}

/// A register that may be absent.
struct Register;

impl Specification for Register {
    type State = Option<Value>;
    type Operation = Step;

    fn init() -> Self::State {
        None
    }

    fn apply(step: &Step, state: &Self::State) -> (bool, Self::State) {
        // When the tries are spent nothing fits any more, and the search ends at once.
        let left = TRIES.get().saturating_sub(1);
        TRIES.set(left);
        if left == 0 {
            return (false, state.clone());
        }
        let same = state.clone();
        match (&step.op, &step.done) {
            (Op::Put { value, .. }, _) => (true, Some(value.clone())),
            (Op::Delete { .. }, Some(Done::Deleted { existed: Some(existed), .. })) => {
                (*existed == state.is_some(), None)
            }
            (Op::Delete { .. }, _) => (true, None),
            (Op::Cas { old, new, .. }, done) => {
                let swaps = state == old;
                let told = match done {
                    Some(Done::Compared { swapped, .. }) => *swapped == swaps,
                    _ => true,
                };
                (told, if swaps { new.clone() } else { same })
            }
            (Op::Get { .. }, Some(Done::Value(found))) => {
                (found.as_ref().map(|(value, _)| value) == state.as_ref(), same)
            }
            _ => (false, same),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Script, absent, batch, cas, get, page, put, random, scan};
    use super::SecondOpinion;
    use crate::check::{Checker, Verdict};
    use crate::history::{Done, What};

    fn verdict(script: &Script) -> Verdict {
        SecondOpinion::default().check(&script.history())
    }

    /// Both call a good history good.
    #[test]
    fn both_accept() {
        let mut script = Script::new();
        script.info(1, put("a", 9));
        script.ok(0, put("a", 1), 1);
        script.ok(0, cas("a", Some(1), Some(2)), true);
        script.ok(0, cas("a", Some(1), Some(3)), false);
        script.ok(0, get("a"), (9, 4));
        script.ok(0, batch(&[("a", 5)]), 5);
        script.ok(0, scan(), page(&[("a", 5, 5)], 5));
        assert_eq!(verdict(&script), Verdict::Ok);
    }

    /// Both find a lost write.
    #[test]
    fn both_refuse() {
        let mut script = Script::new();
        script.ok(0, put("a", 1), 1);
        script.ok(0, get("a"), absent());
        let text = verdict(&script).to_string();
        assert!(text.contains("say both"), "{text}");
    }

    /// On random histories, good and damaged, the two never disagree.
    #[test]
    fn they_agree_on_random_histories() {
        let (mut good, mut bad, mut left_out) = (0, 0, 0);
        for seed in 0..300 {
            let shape = random::Shape { by_revision: seed % 4 < 2, ..random::Shape::small() };
            let mut history = random::history(seed, shape);
            if seed % 2 == 1 {
                for event in &mut history.events {
                    if let What::Client { phase, .. } = &mut event.what
                        && let crate::history::Phase::Ok(done) = phase
                        && matches!(done, Done::Value(_))
                        && (event.index + seed) % 5 == 0
                    {
                        *done = Done::Value(None);
                    }
                }
            }
            match SecondOpinion::default().check(&history) {
                Verdict::Ok => good += 1,
                verdict @ Verdict::Violation(_) => {
                    assert!(verdict.to_string().contains("say both"), "seed {seed}: {verdict}");
                    bad += 1;
                }
                Verdict::Unknown { .. } => left_out += 1,
            }
        }
        let tally = format!("{good} good, {bad} bad, {left_out} left out");
        eprintln!("{tally}");
        assert!(good >= 120 && bad >= 50 && left_out < 50, "{tally}");
    }
}
