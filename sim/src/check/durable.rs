//! No acknowledged write is lost at the end of a run. Obvious and slow on purpose, and apart from
//! the search: it looks at the last read of each key only, and asks whether some acknowledged write
//! should have replaced what that read found.

use std::collections::BTreeMap;

use super::linearizable::partitions;
use super::{Checker, Verdict, Violation};
use crate::history::{Done, History, Key, Op, Operation, Outcome, Value};

/// The checker of the final reads. A key whose changes were acknowledged and that nobody read
/// afterwards makes the verdict [`Verdict::Unknown`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Durable;

impl Checker for Durable {
    fn name(&self) -> &'static str {
        "durable"
    }

    fn check(&self, history: &History) -> Verdict {
        let mut unread = Vec::new();
        for operations in partitions(history).into_values() {
            let mut keys: BTreeMap<&Key, Vec<Change<'_>>> = BTreeMap::new();
            for operation in &operations {
                for (key, value) in changes(operation) {
                    keys.entry(key).or_default().push(Change { operation, value });
                }
            }
            for (key, changes) in keys {
                let Some((read, found)) = final_read(&operations, key, &changes) else {
                    if changes.iter().any(Change::is_acknowledged) {
                        unread.push(key.to_string());
                    }
                    continue;
                };
                if let Some(violation) = lost(key, &changes, read, &found) {
                    return Verdict::Violation(violation);
                }
            }
        }
        match unread.as_slice() {
            [] => Verdict::Ok,
            [first, ..] => Verdict::Unknown {
                why: format!(
                    "{} keys were not read after their last acknowledged change, such as {first}",
                    unread.len()
                ),
            },
        }
    }
}

struct Change<'a> {
    operation: &'a Operation<'a>,
    /// What the key became; none: absent.
    value: Option<&'a Value>,
}

impl Change<'_> {
    fn is_acknowledged(&self) -> bool {
        matches!(self.operation.outcome, Outcome::Ok(_))
    }

    /// When it had certainly taken effect.
    fn end(&self) -> Option<u64> {
        let completed = self.operation.completed;
        completed.filter(|_| self.is_acknowledged())
    }

    fn revision(&self) -> Option<u64> {
        let Outcome::Ok(done) = self.operation.outcome else {
            return None;
        };
        let revision = match done {
            Done::Written { revision }
            | Done::Deleted { existed: Some(true), revision }
            | Done::Compared { revision, .. } => *revision,
            Done::Deleted { .. } | Done::Value(_) | Done::Page { .. } | Done::Other(_) => None,
        };
        revision.filter(|&revision| revision > 0)
    }
}

/// The changes that an operation made or may have made.
fn changes<'a>(operation: &'a Operation<'_>) -> Vec<(&'a Key, Option<&'a Value>)> {
    let idle = match operation.outcome {
        Outcome::Fail => true,
        Outcome::Info => false,
        Outcome::Ok(done) => matches!(
            done,
            Done::Deleted { existed: Some(false), .. } | Done::Compared { swapped: false, .. }
        ),
    };
    if idle {
        return Vec::new();
    }
    match operation.op {
        Op::Put { key, value } => vec![(key, Some(value))],
        Op::Delete { key } => vec![(key, None)],
        Op::Cas { key, new, .. } | Op::CasRev { key, new, .. } => vec![(key, new.as_ref())],
        Op::Batch { changes } => {
            let last: BTreeMap<&Key, Option<&Value>> =
                changes.iter().map(|(k, v)| (k, v.as_ref())).collect();
            last.into_iter().collect()
        }
        Op::Get { .. } | Op::Scan { .. } | Op::Other { .. } => Vec::new(),
    }
}

/// What a read found.
type Read<'a> = Option<(&'a Value, Option<u64>)>;

/// The last read of a key that began after every acknowledged change of it had ended.
fn final_read<'a>(
    operations: &'a [Operation<'a>],
    key: &Key,
    changes: &[Change<'_>],
) -> Option<(&'a Operation<'a>, Read<'a>)> {
    let quiet = changes.iter().filter_map(Change::end).max().unwrap_or(0);
    let last = operations.iter().rev().take_while(|o| o.invoked > quiet);
    last.into_iter().find_map(|operation| Some((operation, found(operation, key)?)))
}

fn found<'a>(operation: &'a Operation<'a>, key: &Key) -> Option<Read<'a>> {
    let Outcome::Ok(done) = operation.outcome else {
        return None;
    };
    match (operation.op, done) {
        (Op::Get { key: asked, .. }, Done::Value(value)) if asked == key => {
            Some(value.as_ref().map(|(value, revision)| (value, *revision)))
        }
        (Op::Scan { from, to, .. }, Done::Page { items, more, .. }) => {
            let item = items.iter().find(|(item, _, _)| item == key);
            let inside = key >= from && to.as_ref().is_none_or(|to| key < to);
            match item {
                Some((_, value, revision)) => Some(Some((value, *revision))),
                None if inside && !more => Some(None),
                None => None,
            }
        }
        _ => None,
    }
}

/// The acknowledged change that the read should have found, or something later.
fn lost(
    key: &Key,
    changes: &[Change<'_>],
    read: &Operation<'_>,
    found: &Read<'_>,
) -> Option<Violation> {
    let value = found.map(|(value, _)| value);
    let revision = found.and_then(|(_, revision)| revision);
    let newer = changes.iter().find(|change| {
        let own = change.revision();
        own.is_some_and(|own| revision.is_some_and(|found| own > found))
    });
    if let Some(newer) = newer {
        let what = format!("{key}: an acknowledged change is newer than what the last read found");
        return Some(Violation::new(what, [newer.operation, read]));
    }
    let sources = changes.iter().filter(|change| {
        change.value == value && change.operation.invoked < read.completed.unwrap_or(u64::MAX)
    });
    let mut refuted = Vec::new();
    for source in sources {
        // It was replaced if an acknowledged change began after it had ended.
        let replaced = changes.iter().find(|change| {
            change.is_acknowledged()
                && change.value != value
                && source.end().is_some_and(|end| end < change.operation.invoked)
        });
        match replaced {
            Some(change) => refuted.push((source, change)),
            None => return None,
        }
    }
    let written = |change: &&Change<'_>| change.is_acknowledged() && change.value.is_some();
    let mut involved = vec![read];
    let what = match (refuted.last(), changes.iter().find(written)) {
        (Some((source, change)), _) => {
            involved.extend([source.operation, change.operation]);
            format!("{key}: the last read found what an acknowledged change had replaced")
        }
        (None, Some(change)) if value.is_none() => {
            involved.push(change.operation);
            format!("{key}: acknowledged, removed by nobody, and absent at the last read")
        }
        (None, _) if value.is_none() => return None,
        (None, _) => format!("{key}: the last read found a value that nobody can have written"),
    };
    Some(Violation::new(what, involved))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Script, absent, batch, cas, del, get, page, put, scan};
    use super::Durable;
    use crate::check::Checker;

    fn verdict(script: &Script) -> String {
        Durable.check(&script.history()).to_string()
    }

    /// Everything acknowledged is there or was replaced.
    #[test]
    fn what_was_written_last_is_found() {
        let mut script = Script::new();
        script.ok(0, put("a", 1), 1);
        script.ok(0, put("a", 2), 2);
        script.ok(0, put("b", 3), 3);
        script.ok(0, del("b"), (true, 4));
        script.ok(0, put("c", 5), 5);
        script.info(1, put("c", 6));
        script.ok(2, get("a"), (2, 2));
        script.ok(2, scan(), page(&[("a", 2, 2), ("c", 6, 6)], 6));
        assert_eq!(verdict(&script), "ok");
    }

    /// An acknowledged write is gone.
    #[test]
    fn a_vanished_write_is_found() {
        let mut script = Script::new();
        script.ok(0, put("a", 1), 1);
        script.ok(0, get("a"), absent());
        assert!(verdict(&script).contains("removed by nobody"));
    }

    /// Part of a batch is gone.
    #[test]
    fn half_a_batch_is_found() {
        let mut script = Script::new();
        script.ok(0, batch(&[("a", 1), ("b", 2)]), 1);
        script.ok(0, scan(), page(&[("a", 1, 1)], 1));
        assert!(verdict(&script).contains("p/b: acknowledged"));
    }

    /// An old value is back.
    #[test]
    fn a_value_that_came_back_is_found() {
        let mut script = Script::new();
        script.ok(0, put("a", 1), ());
        script.ok(0, cas("a", Some(1), Some(2)), true);
        script.ok(0, get("a"), 1_u64);
        let text = verdict(&script);
        assert!(text.contains("had replaced"), "{text}");
    }

    /// Revisions tell even when values do not.
    #[test]
    fn an_older_revision_is_found() {
        let mut script = Script::new();
        let early = script.invoke(0, put("a", 1));
        script.ok(1, put("a", 2), 2);
        script.complete(early, 1);
        script.ok(0, get("a"), (1, 1));
        assert!(verdict(&script).contains("newer than what the last read found"));
    }

    /// A refused write is found.
    #[test]
    fn a_refused_write_is_found() {
        let mut script = Script::new();
        script.fail(0, put("a", 1));
        script.ok(0, put("a", 2), ());
        script.ok(0, get("a"), 1_u64);
        assert!(verdict(&script).contains("nobody can have written"));
    }

    /// Absence is explained by a removal without a known outcome.
    #[test]
    fn an_unknown_removal_explains_absence() {
        let mut script = Script::new();
        script.info(1, del("a"));
        script.ok(0, put("a", 1), 1);
        script.ok(0, get("a"), absent());
        assert_eq!(verdict(&script), "ok");
    }

    /// A key that nobody read at the end is not judged.
    #[test]
    fn an_unread_key_is_unknown() {
        let mut script = Script::new();
        script.ok(0, get("a"), absent());
        script.ok(0, put("a", 1), 1);
        assert!(verdict(&script).starts_with("unknown"));
    }
}
