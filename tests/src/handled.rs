//! What the program `handler` writes down of each request that it handles, and what a test reads of it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use libring::{Incoming, Timers};

/// The variable of the environment that says where it is written down.
pub const RECORD: &str = "RING_TESTS_HANDLED";

/// The route of requests that are written down. Their body is a token that names the request.
pub const WORK: &str = "work";

/// The route of requests with a stream [`STREAM`], of which each piece comes back.
pub const ECHO: &str = "echo";

/// See [`ECHO`].
pub const STREAM: &str = "s";

/// How long a request is handled.
pub const TAKES: Duration = Duration::from_millis(200);

/// How soon a silent peer is given up, at members and clients: a connection is believed for four of the longest election
/// time-outs, 2 s.
#[must_use]
pub fn timers() -> Timers {
    Timers {
        election_min: Duration::from_millis(250),
        election_max: Duration::from_millis(500),
        heartbeat: Duration::from_millis(60),
        ..Timers::default()
    }
}

/// The file of one member in one start, or of all. What was written is there after any crash but the machine's.
#[derive(Debug)]
pub struct Record {
    file: File,
    member: String,
}

/// What became of a request at one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handled {
    /// The member's name.
    pub member: String,
    /// The request's id.
    pub id: String,
    /// How often it had been sent.
    pub attempt: u32,
    /// Whether the handler came to its end.
    pub is_done: bool,
}

/// All that was handled, by token, in the order of the beginnings.
pub type ByToken = BTreeMap<String, Vec<Handled>>;

impl Record {
    /// For one member. All write to one file.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: &Path, member: &str) -> std::io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        Ok(Self { file, member: member.to_owned() })
    }

    /// A handler begins.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn begins(&self, incoming: &Incoming) -> std::io::Result<()> {
        self.line(BEGINS, incoming)
    }

    /// A handler has done what it was asked for.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn ends(&self, incoming: &Incoming) -> std::io::Result<()> {
        self.line(ENDS, incoming)
    }

    fn line(&self, what: &str, incoming: &Incoming) -> std::io::Result<()> {
        let token = String::from_utf8_lossy(incoming.body());
        let (id, attempt) = (incoming.id(), incoming.attempt());
        let line = format!("{what} {} {token} {id} {attempt}\n", self.member);
        // One system call: lines of several processes do not mix.
        (&self.file).write_all(line.as_bytes())
    }
}

/// Reads what all members have written down.
///
/// # Panics
/// When the file cannot be read, or a line is none of [`Record`]'s.
#[must_use]
pub fn read(path: &PathBuf) -> ByToken {
    let text = fs::read_to_string(path).expect("a member has made it");
    let mut found = ByToken::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [what, member, token, id, attempt] = words[..] else { panic!("{line}") };
        let attempt = attempt.parse().expect("a number");
        let all = found.entry(token.to_owned()).or_default();
        match what {
            BEGINS => all.push(Handled {
                member: member.to_owned(),
                id: id.to_owned(),
                attempt,
                is_done: false,
            }),
            ENDS => {
                let mut begun = all.iter_mut();
                let begun = begun.find(|one| one.member == member && one.attempt == attempt);
                begun.unwrap_or_else(|| panic!("{line}: never begun")).is_done = true;
            }
            _ => panic!("{line}"),
        }
    }
    found
}

const BEGINS: &str = "begins";
const ENDS: &str = "ends";
