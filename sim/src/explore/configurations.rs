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
    let times = Times { timeouts: 2, ..Times::CALM };
    let fresh = Bounds {
        start: vec![Start { term: 0, log: vec![] }; 3],
        term: 2,
        in_flight: 3,
        unstored: 2,
        append_entries: 1024,
        times,
    };
    // Figure 3.7 of the dissertation at (b), without the two servers that only follow: the first has an entry of
    // term 2, the third one of term 3, and both were leaders.
    let crossed = |log: &[u64]| Start { term: 3, log: log.to_vec() };
    let crossed = Bounds {
        start: vec![crossed(&[2]), crossed(&[]), crossed(&[3])],
        term: 5,
        append_entries: 1,
        ..fresh.clone()
    };
    let with = |bounds: &Bounds, times| Bounds { times, ..bounds.clone() };
    let named = |name, about, quick, bounds| Configuration { name, about, quick, bounds };
    vec![
        named(
            "election",
            "one term, three time-outs, a power cut",
            true,
            Bounds { term: 1, ..with(&fresh, Times { timeouts: 3, crashes: 1, ..times }) },
        ),
        named(
            "elections",
            "two terms, a power cut, a repeated message",
            false,
            with(&fresh, Times { crashes: 1, repeats: 1, ..times }),
        ),
        named(
            "replication",
            "two terms, an entry, a power cut",
            false,
            with(&fresh, Times { proposals: 1, crashes: 1, ..times }),
        ),
        named(
            "repetition",
            "two terms, an entry, a repeated message",
            false,
            with(&fresh, Times { proposals: 1, repeats: 1, ..times }),
        ),
        named("crossed", "entries of crossed terms, two more leaders", true, with(&crossed, times)),
        named(
            "beats",
            "one term, three time-outs, a tick",
            false,
            Bounds { term: 1, ..with(&fresh, Times { timeouts: 3, beats: 1, ..times }) },
        ),
        named("reads", "two terms, a read", false, with(&fresh, Times { reads: 1, ..times })),
        named(
            "transfer",
            "two terms, an entry, a hand-over",
            true,
            with(&fresh, Times { timeouts: 1, proposals: 1, transfers: 1, ..times }),
        ),
        named(
            "appends",
            "one leader, two entries one by one, a repeated message",
            false,
            Bounds {
                term: 1,
                append_entries: 1,
                ..with(&fresh, Times { timeouts: 1, proposals: 2, repeats: 1, ..times })
            },
        ),
    ]
}
