//! The bounds that are searched: by `cargo run --release -p sim --bin explore`, and the quick ones by a test.

use super::{Bounds, Start, Times};

/// Bounds with a name.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// The name.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// Whether it takes seconds only.
    pub quick: bool,
    /// The bounds.
    pub bounds: Bounds,
}

/// All of them.
#[must_use]
pub fn configurations() -> Vec<Configuration> {
    let calm = Times::CALM;
    let fresh = |term, in_flight, unstored, times| Bounds {
        start: vec![Start { term: 0, log: vec![] }; 3],
        term,
        in_flight,
        unstored,
        times,
    };
    vec![
        Configuration {
            name: "election",
            about: "one term, one power cut",
            quick: true,
            bounds: fresh(1, 3, 2, Times { timeouts: 2, crashes: 1, ..calm }),
        },
        Configuration {
            name: "elections",
            about: "two terms, a power cut, a repetition",
            quick: false,
            bounds: fresh(2, 3, 2, Times { timeouts: 2, crashes: 1, repeats: 1, ..calm }),
        },
        Configuration {
            name: "replication",
            about: "two terms, an entry, a power cut, a repetition",
            quick: false,
            bounds: fresh(
                2,
                3,
                2,
                Times { timeouts: 2, proposals: 1, crashes: 1, repeats: 1, ..calm },
            ),
        },
        Configuration {
            name: "repl2",
            about: "two terms, an entry, a power cut",
            quick: false,
            bounds: fresh(2, 3, 2, Times { timeouts: 2, proposals: 1, crashes: 1, ..calm }),
        },
        Configuration {
            name: "repl3",
            about: "two terms, an entry, a repeat",
            quick: false,
            bounds: fresh(2, 4, 2, Times { timeouts: 2, proposals: 1, repeats: 1, ..calm }),
        },
    ]
}
