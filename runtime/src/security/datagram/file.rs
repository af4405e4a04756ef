//! The file of datagram keys.

use std::fmt;
use std::fmt::Write as _;

use aws_lc_rs::hkdf::Prk;

use super::extract;

/// The keys of a cluster's datagrams: one seals, all open. Cheap to clone.
#[derive(Clone)]
pub struct DatagramKeys {
    /// By id; the first seals.
    keys: Vec<(u32, Prk)>,
}

/// A file of datagram keys cannot be used. Says nothing of what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFileError {
    /// This line, counted from 1, is not `seal ID KEY` or `open ID KEY`.
    Line(usize),
    /// There must be exactly one key that seals.
    Sealing,
    /// Two keys have this id, or ids of which a datagram shows the same: the last eight bits.
    Twice(u32),
    /// More than [`KEYS_MAX`] keys.
    Many,
    /// The system gave no random number.
    Random,
}

/// What a rotation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is a new key, which opens.
    Added {
        /// Its id.
        id: u32,
    },
    /// The new key seals; the old one still opens.
    Promoted {
        /// Its id.
        id: u32,
    },
    /// The old key is gone.
    Dropped {
        /// Its id.
        id: u32,
    },
}

/// A line of the file.
struct Line {
    seals: bool,
    id: u32,
    secret: [u8; 32],
}

impl DatagramKeys {
    /// Reads a file.
    ///
    /// # Errors
    /// See [`KeyFileError`].
    pub fn parse(text: &str) -> Result<Self, KeyFileError> {
        let mut lines = parse(text)?;
        lines.sort_by_key(|line| !line.seals);
        let keys = lines.iter().map(|line| (line.id, extract(&line.secret))).collect();
        Ok(Self { keys })
    }

    pub(super) fn sealing(&self) -> (u8, &Prk) {
        let (id, prk) = &self.keys[0];
        (short(*id), prk)
    }

    pub(super) fn opening(&self, id: u8) -> Option<&Prk> {
        self.keys.iter().find(|(known, _)| short(*known) == id).map(|(_, prk)| prk)
    }
}

/// Only the ids.
impl fmt::Debug for DatagramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|(id, _)| id)).finish()
    }
}

impl fmt::Display for KeyFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(
                f,
                "line {line} is not `seal ID KEY` or `open ID KEY` with a key of 64 hexadecimal \
                 digits"
            ),
            Self::Sealing => write!(f, "exactly one key must be there that seals"),
            Self::Twice(id) => {
                write!(f, "two keys have the id {id}, or ids that differ by a multiple of 256")
            }
            Self::Many => write!(f, "at most {KEYS_MAX} keys may be there"),
            Self::Random => write!(f, "the system gave no random number"),
        }
    }
}

impl std::error::Error for KeyFileError {}

/// A file with one new key.
///
/// # Errors
/// [`KeyFileError::Random`].
pub fn new_file() -> Result<String, KeyFileError> {
    Ok(write(&[Line { seals: true, id: 1, secret: draw()? }]))
}

/// The next step of a rotation: the file as all members must have it before the step after.
///
/// One key: a newer one is added, which opens. A newer one is there: it seals. Only older ones are
/// there beside the one that seals: they go, the oldest first.
///
/// # Errors
/// See [`KeyFileError`].
pub fn rotate(text: &str) -> Result<(String, Step), KeyFileError> {
    let mut lines = parse(text)?;
    let sealing = lines.iter().find(|line| line.seals).map(|line| line.id);
    let sealing = sealing.ok_or(KeyFileError::Sealing)?;
    let newest = lines.iter().map(|line| line.id).max().unwrap_or(sealing);
    let oldest = lines.iter().map(|line| line.id).min().unwrap_or(sealing);
    let step = if newest > sealing {
        for line in &mut lines {
            line.seals = line.id == newest;
        }
        Step::Promoted { id: newest }
    } else if oldest < sealing {
        lines.retain(|line| line.id != oldest);
        Step::Dropped { id: oldest }
    } else {
        let id = sealing.checked_add(1).ok_or(KeyFileError::Many)?;
        lines.push(Line { seals: false, id, secret: draw()? });
        Step::Added { id }
    };
    Ok((write(&lines), step))
}

fn parse(text: &str) -> Result<Vec<Line>, KeyFileError> {
    let mut lines: Vec<Line> = Vec::new();
    for (number, text) in (1..).zip(text.lines()) {
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let line = parse_line(text).ok_or(KeyFileError::Line(number))?;
        if lines.iter().any(|known| short(known.id) == short(line.id)) {
            return Err(KeyFileError::Twice(line.id));
        }
        if lines.len() == KEYS_MAX {
            return Err(KeyFileError::Many);
        }
        lines.push(line);
    }
    if lines.iter().filter(|line| line.seals).count() != 1 {
        return Err(KeyFileError::Sealing);
    }
    Ok(lines)
}

fn parse_line(text: &str) -> Option<Line> {
    let mut words = text.split_whitespace();
    let (what, id, key) = (words.next()?, words.next()?, words.next()?);
    let seals = match what {
        "seal" => true,
        "open" => false,
        _ => return None,
    };
    if words.next().is_some()
        || key.len() != 64
        || !key.bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        return None;
    }
    let mut secret = [0; 32];
    for (byte, at) in secret.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(key.get(at..at + 2)?, 16).ok()?;
    }
    Some(Line { seals, id: id.parse().ok()?, secret })
}

fn write(lines: &[Line]) -> String {
    let mut text = String::from(HEAD);
    for Line { seals, id, secret } in lines {
        let what = if *seals { "seal" } else { "open" };
        let hex: String = secret.iter().fold(String::new(), |mut hex, byte| {
            let _: fmt::Result = write!(hex, "{byte:02x}");
            hex
        });
        text.push_str(&format!("{what} {id} {hex}\n"));
    }
    text
}

fn draw() -> Result<[u8; 32], KeyFileError> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|_| KeyFileError::Random)?;
    Ok(secret)
}

/// What a datagram shows of a key's id.
fn short(id: u32) -> u8 {
    id.to_le_bytes()[0]
}

/// The most keys in a file.
pub const KEYS_MAX: usize = 4;
const HEAD: &str = "# Keys of the cluster's datagrams: one seals, all open. Keep this file secret. `ring keys\n\
                    # rotate-datagram` makes the next version of it.\n";
