//! Local reads may be stale, but not false: each finds something that was written, at the revision
//! at which it was written, and not before it was asked for.

use std::collections::BTreeMap;

use super::{Checker, Verdict, Violation};
use crate::history::{Done, History, Key, Op, Operation, Outcome, Value};

/// The checker of local reads.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalReads;

impl Checker for LocalReads {
    fn name(&self) -> &'static str {
        "local reads"
    }

    fn check(&self, history: &History) -> Verdict {
        let operations = history.operations();
        let mut writers: BTreeMap<(&Key, &Value), Vec<&Operation<'_>>> = BTreeMap::new();
        for operation in &operations {
            if operation.outcome != Outcome::Fail {
                for key_and_value in written(operation.op) {
                    writers.entry(key_and_value).or_default().push(operation);
                }
            }
        }
        for operation in &operations {
            for (key, value, revision) in found(operation) {
                let known = writers.get(&(key, value)).map_or(&[][..], Vec::as_slice);
                let end = operation.completed.unwrap_or(u64::MAX);
                let early = known.iter().filter(|writer| writer.invoked < end);
                let mut fitting = early.filter(|writer| match (revision_of(writer), revision) {
                    (Some(own), Some(seen)) => own == seen,
                    _ => true,
                });
                if fitting.next().is_none() {
                    let what = format!("a local read found {key} = {value}, which was not so");
                    let involved = known.iter().copied().chain([operation]);
                    return Verdict::Violation(Violation::new(what, involved));
                }
            }
        }
        Verdict::Ok
    }
}

fn written(op: &Op) -> Vec<(&Key, &Value)> {
    match op {
        Op::Put { key, value } => vec![(key, value)],
        Op::Cas { key, new, .. } | Op::CasRev { key, new, .. } => {
            new.iter().map(|value| (key, value)).collect()
        }
        Op::Batch { changes } => {
            let set = changes.iter();
            set.filter_map(|(key, value)| Some((key, value.as_ref()?))).collect()
        }
        Op::Get { .. } | Op::Delete { .. } | Op::Scan { .. } | Op::Other { .. } => Vec::new(),
    }
}

fn found<'h>(operation: &Operation<'h>) -> Vec<(&'h Key, &'h Value, Option<u64>)> {
    let Outcome::Ok(done) = operation.outcome else {
        return Vec::new();
    };
    match (operation.op, done) {
        (Op::Get { key, local: true }, Done::Value(Some((value, revision)))) => {
            vec![(key, value, *revision)]
        }
        (Op::Scan { local: true, .. }, Done::Page { items, .. }) => {
            items.iter().map(|(key, value, r)| (key, value, *r)).collect()
        }
        _ => Vec::new(),
    }
}

fn revision_of(operation: &Operation<'_>) -> Option<u64> {
    let Outcome::Ok(done) = operation.outcome else {
        return None;
    };
    match done {
        Done::Written { revision } | Done::Compared { swapped: true, revision } => *revision,
        Done::Deleted { .. }
        | Done::Compared { .. }
        | Done::Value(_)
        | Done::Page { .. }
        | Done::Other(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Script, get_local, put};
    use super::LocalReads;
    use crate::check::{Checker, Linearizable};

    /// A stale local read is fine; no other checker minds it.
    #[test]
    fn stale_is_fine() {
        let mut script = Script::new();
        script.ok(0, put("a", 1), 1);
        script.ok(0, put("a", 2), 2);
        script.ok(1, get_local("a"), (1, 1));
        script.info(2, put("a", 3));
        script.ok(1, get_local("a"), (3, 3));
        assert!(LocalReads.check(&script.history()).is_ok());
        assert!(Linearizable::default().check(&script.history()).is_ok());
    }

    /// A value that was refused, is of another revision, or comes from the future.
    #[test]
    fn false_reads_are_found() {
        let mut refused = Script::new();
        refused.fail(0, put("a", 1));
        refused.ok(1, get_local("a"), (1, 1));

        let mut other = Script::new();
        other.ok(0, put("a", 1), 1);
        other.ok(1, get_local("a"), (1, 2));

        let mut future = Script::new();
        future.ok(1, get_local("a"), (1, 1));
        future.ok(0, put("a", 1), 1);

        for script in [refused, other, future] {
            assert!(LocalReads.check(&script.history()).is_violation());
        }
    }
}
