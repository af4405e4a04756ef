//! Judges of histories, one file per property. Each takes a whole [`History`] and gives a
//! [`Verdict`]; none raises a false alarm, and none calls a history good that it could not judge.

use std::fmt;

use crate::history::{History, Operation};

mod durable;
mod linearizable;
mod local;
mod outcomes;
mod second;
mod session;

pub use durable::Durable;
pub use linearizable::Linearizable;
pub use local::LocalReads;
pub use outcomes::{Outcomes, Tally};
pub use second::SecondOpinion;
pub use session::Sessions;

/// A property of histories.
pub trait Checker {
    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// Judges a whole run.
    fn check(&self, history: &History) -> Verdict;
}

/// What a checker found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The property holds.
    Ok,
    /// The property is broken, without doubt.
    Violation(Violation),
    /// Not judged: too much effort, or something is missing in the history. Never to be counted as
    /// a pass.
    Unknown {
        /// What was not judged, and why.
        why: String,
    },
}

impl Verdict {
    /// True when the property holds.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        matches!(self, Self::Ok)
    }

    /// True when the property is broken.
    #[must_use]
    pub fn is_violation(&self) -> bool {
        matches!(self, Self::Violation(_))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("ok"),
            Self::Violation(violation) => write!(f, "VIOLATION: {violation}"),
            Self::Unknown { why } => write!(f, "unknown: {why}"),
        }
    }
}

/// A broken property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What is wrong, in one sentence.
    pub what: String,
    /// Indices of the invokes of the operations involved, as few as the checker could find; rising.
    pub events: Vec<u64>,
    /// The operations involved, one a line.
    pub text: String,
}

impl Violation {
    fn new<'a, 'h: 'a>(
        what: String,
        involved: impl IntoIterator<Item = &'a Operation<'h>>,
    ) -> Self {
        let mut involved: Vec<&Operation<'_>> = involved.into_iter().collect();
        involved.sort_by_key(|operation| operation.invoked);
        involved.dedup_by_key(|operation| operation.invoked);
        let lines: Vec<String> = involved.iter().map(|o| format!("  {o}")).collect();
        Self { what, events: involved.iter().map(|o| o.invoked).collect(), text: lines.join("\n") }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.what, self.text)
    }
}

/// Every checker of the workload `kv`; `bounds` says how operations may end.
#[must_use]
pub fn all(bounds: Outcomes) -> Vec<Box<dyn Checker>> {
    vec![
        Box::new(Linearizable::default()),
        Box::new(SecondOpinion::default()),
        Box::new(Sessions),
        Box::new(LocalReads),
        Box::new(Durable),
        Box::new(bounds),
    ]
}

#[cfg(test)]
mod testing;

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::testing::random::{self, Shape};
    use super::{Outcomes, all};

    /// No checker raises a false alarm on whole runs of a model, and each judges them.
    #[test]
    fn good_runs_pass_every_checker() {
        for seed in 0..10 {
            let history = random::history(seed, Shape::full());
            for checker in all(Outcomes::default()) {
                let begin = Instant::now();
                let verdict = checker.check(&history);
                eprintln!("{}: {:?}", checker.name(), begin.elapsed());
                assert!(verdict.is_ok(), "seed {seed}, {}: {verdict}", checker.name());
            }
        }
    }
}
