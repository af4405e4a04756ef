//! How operations ended. A cluster that answers "unknown" to everything would pass every other
//! checker, so the share of `info` has a bound, and something must have happened at all.

use std::collections::BTreeMap;
use std::fmt;

use super::{Checker, Verdict, Violation};
use crate::history::{History, Op, Operation, Outcome};

/// Bounds on how operations end.
#[derive(Clone, Copy, Debug)]
pub struct Outcomes {
    /// Most operations in a thousand that may end as `info` (or not at all).
    pub info_permille_max: u64,
    /// Fewest operations that must have happened.
    pub ok_min: u64,
}

impl Default for Outcomes {
    /// A third may be unknown: a run of faults without end reaches a fifth.
    fn default() -> Self {
        Self { info_permille_max: 333, ok_min: 1 }
    }
}

impl Checker for Outcomes {
    fn name(&self) -> &'static str {
        "outcomes"
    }

    fn check(&self, history: &History) -> Verdict {
        let tallies = Tally::of(history);
        let mut all = Tally::default();
        for tally in tallies.values() {
            all.ok += tally.ok;
            all.fail += tally.fail;
            all.info += tally.info;
        }
        let share = all.info * 1000 / all.total().max(1);
        let what = if share > self.info_permille_max {
            format!(
                "{share} of 1000 operations ended as info, more than {}",
                self.info_permille_max
            )
        } else if all.ok < self.ok_min {
            format!("{} operations happened, fewer than {}", all.ok, self.ok_min)
        } else {
            return Verdict::Ok;
        };
        let lines = tallies.iter().map(|(f, tally)| format!("  {f}: {tally}"));
        Verdict::Violation(Violation {
            what,
            events: Vec::new(),
            text: lines.collect::<Vec<_>>().join("\n"),
        })
    }
}

/// How operations of one kind ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Happened.
    pub ok: u64,
    /// Did not happen.
    pub fail: u64,
    /// Unknown, or still open at the end.
    pub info: u64,
}

impl Tally {
    /// The tallies of a history by kind of operation.
    #[must_use]
    pub fn of(history: &History) -> BTreeMap<&str, Self> {
        let mut tallies: BTreeMap<&str, Self> = BTreeMap::new();
        for operation in history.operations() {
            let tally = tallies.entry(kind(&operation)).or_default();
            match operation.outcome {
                Outcome::Ok(_) => tally.ok += 1,
                Outcome::Fail => tally.fail += 1,
                Outcome::Info => tally.info += 1,
            }
        }
        tallies
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.ok + self.fail + self.info
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ok, fail, info } = self;
        write!(f, "{ok} ok, {fail} fail, {info} info")
    }
}

fn kind<'h>(operation: &Operation<'h>) -> &'h str {
    match operation.op {
        Op::Put { .. } => "put",
        Op::Get { local: false, .. } => "get",
        Op::Get { local: true, .. } => "get_local",
        Op::Delete { .. } => "del",
        Op::Cas { .. } => "cas",
        Op::CasRev { .. } => "cas_rev",
        Op::Batch { .. } => "batch",
        Op::Scan { local: false, .. } => "scan",
        Op::Scan { local: true, .. } => "scan_local",
        Op::Other { f, .. } => f,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Script, get, put};
    use super::Outcomes;
    use crate::check::Checker;

    /// The share of unknown outcomes has a bound, and the counts are reported.
    #[test]
    fn too_many_unknowns_are_reported() {
        let mut script = Script::new();
        script.ok(0, put("a", 1), 1);
        script.ok(0, get("a"), (1, 1));
        script.info(1, put("a", 2));
        assert!(Outcomes::default().check(&script.history()).is_ok());

        script.info(2, put("a", 3));

        let verdict = Outcomes::default().check(&script.history());
        assert!(verdict.to_string().contains("500 of 1000"), "{verdict}");
        assert!(verdict.to_string().contains("put: 1 ok, 0 fail, 2 info"), "{verdict}");
    }

    /// A run in which nothing happened proves nothing.
    #[test]
    fn an_idle_run_is_reported() {
        let mut script = Script::new();
        script.fail(0, put("a", 1));
        assert!(Outcomes::default().check(&script.history()).is_violation());
    }
}
