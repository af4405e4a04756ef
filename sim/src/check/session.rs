//! What one process sees never goes back: along the operations of a process, revisions of a key
//! never fall, its own writes come after all that it saw of their partition, and a scan contains
//! all that it saw before. Follows from linearizability; judged by itself because it needs no
//! search and names the process.

use std::collections::BTreeMap;

use super::linearizable::partitions;
use super::{Checker, Verdict, Violation};
use crate::history::{Done, History, Key, Op, Operation, Outcome, ProcessId};

/// The checker of each process's own order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sessions;

impl Checker for Sessions {
    fn name(&self) -> &'static str {
        "sessions"
    }

    fn check(&self, history: &History) -> Verdict {
        for operations in partitions(history).into_values() {
            if let Some(violation) = check_partition(&operations) {
                return Verdict::Violation(violation);
            }
        }
        Verdict::Ok
    }
}

fn check_partition(operations: &[Operation<'_>]) -> Option<Violation> {
    let mut sessions: BTreeMap<ProcessId, Session> = BTreeMap::new();
    for (at, operation) in operations.iter().enumerate() {
        let Outcome::Ok(done) = operation.outcome else {
            continue;
        };
        let session = sessions.entry(operation.process).or_default();
        for sight in sights(operation.op, done) {
            if let Some((before, revision)) = session.contradicts(&sight) {
                let what = format!(
                    "process {} saw {} after it had seen v{revision}",
                    operation.process,
                    sight.words()
                );
                return Some(Violation::new(what, [&operations[before], operation]));
            }
            session.learn(&sight, at);
        }
    }
    None
}

/// What an answer says about revisions.
enum Sight<'h> {
    /// A key's value is of this revision.
    Key(&'h Key, u64),
    /// A change of this process got this revision.
    Change(u64),
    /// A snapshot holds all up to this revision.
    Snapshot(u64),
}

impl Sight<'_> {
    fn words(&self) -> String {
        match self {
            Self::Key(key, revision) => format!("{key} at v{revision}"),
            Self::Change(revision) => format!("its own change at v{revision}"),
            Self::Snapshot(revision) => format!("a snapshot of v{revision}"),
        }
    }
}

/// The greatest revision seen and by which operation.
type Seen = Option<(usize, u64)>;

#[derive(Default)]
struct Session<'h> {
    any: Seen,
    keys: BTreeMap<&'h Key, (usize, u64)>,
}

impl<'h> Session<'h> {
    fn contradicts(&self, sight: &Sight<'h>) -> Seen {
        match *sight {
            Sight::Key(key, revision) => {
                let seen = self.keys.get(key).copied();
                seen.filter(|&(_, before)| before > revision)
            }
            Sight::Change(revision) => self.any.filter(|&(_, before)| before >= revision),
            Sight::Snapshot(revision) => self.any.filter(|&(_, before)| before > revision),
        }
    }

    fn learn(&mut self, sight: &Sight<'h>, at: usize) {
        let revision = match *sight {
            Sight::Key(key, revision) => {
                self.keys.insert(key, (at, revision));
                revision
            }
            Sight::Change(revision) | Sight::Snapshot(revision) => revision,
        };
        if self.any.is_none_or(|(_, before)| before < revision) {
            self.any = Some((at, revision));
        }
    }
}

fn sights<'h>(op: &'h Op, done: &'h Done) -> Vec<Sight<'h>> {
    let known = |revision: &Option<u64>| revision.filter(|&revision| revision > 0);
    let mut sights = Vec::new();
    match (op, done) {
        (Op::Put { key, .. }, Done::Written { revision }) => {
            sights.extend(known(revision).map(Sight::Change));
            sights.extend(known(revision).map(|revision| Sight::Key(key, revision)));
        }
        (Op::Batch { changes }, Done::Written { revision }) if !changes.is_empty() => {
            sights.extend(known(revision).map(Sight::Change));
            for (key, _) in changes {
                sights.extend(known(revision).map(|revision| Sight::Key(key, revision)));
            }
        }
        (Op::Delete { .. }, Done::Deleted { existed: Some(true), revision }) => {
            sights.extend(known(revision).map(Sight::Change))
        }
        (Op::Cas { key, .. } | Op::CasRev { key, .. }, Done::Compared { swapped, revision }) => {
            if *swapped {
                sights.extend(known(revision).map(Sight::Change));
            }
            sights.extend(known(revision).map(|revision| Sight::Key(key, revision)));
        }
        (Op::Get { key, .. }, Done::Value(Some((_, revision)))) => {
            sights.extend(known(revision).map(|revision| Sight::Key(key, revision)));
        }
        (Op::Scan { .. }, Done::Page { items, revision, .. }) => {
            sights.extend(known(revision).map(Sight::Snapshot));
            for (key, _, revision) in items {
                sights.extend(known(revision).map(|revision| Sight::Key(key, revision)));
            }
        }
        _ => {}
    }
    sights
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Script, batch, del, get, page, put, scan};
    use super::Sessions;
    use crate::check::Checker;

    fn verdict(script: &Script) -> String {
        Sessions.check(&script.history()).to_string()
    }

    /// Rising revisions are fine, and so are two processes that see different ones.
    #[test]
    fn rising_revisions_are_fine() {
        let mut script = Script::new();
        script.ok(0, put("a", 1), 1);
        script.ok(0, put("b", 2), 2);
        script.ok(0, get("a"), (1, 1));
        script.ok(0, batch(&[("a", 3), ("b", 4)]), 3);
        script.ok(0, get("b"), (4, 3));
        script.ok(1, get("a"), (1, 1));
        script.ok(0, scan(), page(&[("a", 3, 3), ("b", 4, 3)], 3));
        script.ok(0, del("a"), (true, 4));
        assert_eq!(verdict(&script), "ok");
    }

    /// A process reads a newer value and then an older one.
    #[test]
    fn a_falling_revision_is_found() {
        let mut script = Script::new();
        script.ok(0, get("a"), (2, 2));
        script.ok(0, get("a"), (1, 1));
        let text = verdict(&script);
        assert!(text.contains("saw p/a at v1 after it had seen v2"), "{text}");
    }

    /// A process does not see its own write.
    #[test]
    fn a_forgotten_own_write_is_found() {
        let mut script = Script::new();
        script.ok(0, put("a", 2), 5);
        script.ok(0, get("a"), (1, 1));
        assert!(verdict(&script).contains("saw p/a at v1 after it had seen v5"));
    }

    /// A snapshot that lacks what the process saw, though no key tells.
    #[test]
    fn an_old_snapshot_is_found() {
        let mut script = Script::new();
        script.ok(0, del("a"), (true, 5));
        script.ok(0, scan(), page(&[], 4));
        assert!(verdict(&script).contains("saw a snapshot of v4 after it had seen v5"));
    }

    /// A change gets a revision below one that its process had seen.
    #[test]
    fn a_change_below_what_was_seen_is_found() {
        let mut script = Script::new();
        script.ok(0, get("a"), (1, 5));
        script.ok(0, put("b", 2), 5);
        assert!(verdict(&script).contains("its own change at v5"));
    }
}
