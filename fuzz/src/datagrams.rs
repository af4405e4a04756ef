//! An opener of sealed datagrams, with keys that rotate, among honest senders, strangers and repeats.
//!
//! - No panic, and what is opened is exactly what an honest sealer has sealed under its name.
//! - A datagram is opened at most once, never when it was sealed before the introduction or in an earlier start.
//! - A datagram that was changed, cut or made up is dropped and counted, and costs nobody else's datagrams.

use std::collections::BTreeSet;

use arbitrary::{Result, Unstructured};
use libring::security::datagram::{
    DATAGRAM_BYTES_MAX, DatagramKeys, Dropped, Introduction, NotIntroduced, Opener, Sealer, Start,
};
use ring_core::ids::{ClusterId, MemberId};
use ring_core::time::Instant;

/// See the [module](self).
pub fn run(data: &[u8]) {
    // Too few bytes end the play.
    let _ = try_run(&mut Unstructured::new(data));
}

fn try_run(u: &mut Unstructured<'_>) -> Result<()> {
    let mut play = Play::new();
    while !u.is_empty() {
        play.step(u)?;
    }
    Ok(())
}

struct Play {
    opener: Opener,
    /// Which keys the opener has.
    keys: usize,
    now: Instant,
    hosts: Vec<Host>,
    sealed: Vec<Sealed>,
    dropped: u64,
}

/// A sender, with what the opener was told of it.
struct Host {
    sealer: Sealer,
    start: Start,
    keys: usize,
    known: Option<Introduction>,
}

/// A datagram that somebody honest has sealed.
struct Sealed {
    host: usize,
    start: Start,
    counter: u64,
    keys: usize,
    bytes: Vec<u8>,
    plain: Vec<u8>,
    opened: bool,
}

const CLUSTER: ClusterId = ClusterId(7);
const HOSTS: usize = 3;
/// How far behind the newest counter a datagram is opened surely.
const WINDOW: u64 = 1024;

/// The files of a rotation, step by step; the last knows no key of the first.
fn files() -> [String; 4] {
    let line = |word: &str, id: u32| format!("{word} {id} {}\n", format!("{id:02x}").repeat(32));
    [
        line("seal", 1),
        line("seal", 1) + &line("open", 2),
        line("open", 1) + &line("seal", 2),
        line("seal", 2),
    ]
}

fn keys(step: usize) -> DatagramKeys {
    DatagramKeys::parse(&files()[step]).expect("a file of keys")
}

/// Whether what is sealed at one step is opened at another.
fn opens(sealing: usize, opening: usize) -> bool {
    let key = if sealing < 2 { 1 } else { 2 };
    match opening {
        0 => key == 1,
        3 => key == 2,
        _ => true,
    }
}

impl Play {
    fn new() -> Self {
        let host = |place: usize| {
            let start = Start { counter: 1, drawn: 1 };
            let sealer = Sealer::new(&keys(0), CLUSTER, id(place), start);
            Host { sealer, start, keys: 0, known: None }
        };
        Self {
            opener: Opener::new(keys(0), CLUSTER),
            keys: 0,
            now: Instant(1),
            hosts: (0..HOSTS).map(host).collect(),
            sealed: Vec::new(),
            dropped: 0,
        }
    }

    fn step(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let place = u.int_in_range(0..=HOSTS - 1)?;
        match u.int_in_range(0..=15)? {
            0..=3 => self.seal(u, place)?,
            4..=7 => self.open(u)?,
            8..=10 => self.forge(u)?,
            11 => self.introduce(place),
            12 => self.restart(u, place)?,
            13 => {
                let step = u.int_in_range(0..=3)?;
                if u.arbitrary()? {
                    self.keys = step;
                    self.opener.set_keys(keys(step));
                } else {
                    self.hosts[place].keys = step;
                    self.hosts[place].sealer.set_keys(&keys(step));
                }
            }
            14 => {
                self.hosts[place].known = None;
                self.opener.forget(id(place));
            }
            _ => self.now = Instant(self.now.0.saturating_add(u.arbitrary()?)),
        }
        Ok(())
    }

    fn seal(&mut self, u: &mut Unstructured<'_>, place: usize) -> Result<()> {
        let host = &mut self.hosts[place];
        let len = usize::from(u.arbitrary::<u8>()?).min(u.len());
        let plain = u.bytes(len)?.to_vec();
        let counter = host.sealer.introduction().next;
        let mut bytes = Vec::new();
        host.sealer.seal(counter, &plain, &mut bytes).expect("short, and one of few");
        let (start, keys) = (host.start, host.keys);
        self.sealed.push(Sealed { host: place, start, counter, keys, bytes, plain, opened: false });
        Ok(())
    }

    /// Any datagram that was sealed comes, whenever and however often.
    fn open(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let Some(last) = self.sealed.len().checked_sub(1) else { return Ok(()) };
        let place = u.int_in_range(0..=last)?;
        let newest = |sealed: &&Sealed, of: &Sealed| {
            sealed.opened && sealed.host == of.host && sealed.start == of.start
        };
        let one = &self.sealed[place];
        let top = self.sealed.iter().filter(|sealed| newest(sealed, one));
        let top = top.map(|sealed| sealed.counter).max().unwrap_or(0);
        let known = self.hosts[one.host].known;
        let heard = known.is_some_and(|known| {
            known.start == one.start && known.next <= one.counter && one.counter + WINDOW > top
        });
        let expected = heard && opens(one.keys, self.keys);
        let mut bytes = one.bytes.clone();
        match self.opener.open(self.now, &mut bytes) {
            Ok(opened) => {
                assert_eq!(opened.from, id(one.host), "its sender");
                assert_eq!((opened.counter, opened.plain), (one.counter, &*one.plain), "what was sealed");
                assert!(expected, "neither too early nor of another start");
                assert!(!one.opened, "at most once");
                self.sealed[place].opened = true;
            }
            Err(why) => {
                self.dropped += 1;
                let fresh = expected && !one.opened;
                assert!(!fresh, "an honest datagram was dropped: {why}");
            }
        }
        self.count();
        Ok(())
    }

    /// A sealed datagram that was changed, or bytes that nobody has sealed.
    fn forge(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let mut bytes = match self.sealed.len().checked_sub(1) {
            Some(last) if u.ratio(3, 4)? => {
                let mut bytes = self.sealed[u.int_in_range(0..=last)?].bytes.clone();
                let at = u.choose_index(bytes.len())?;
                if u.ratio(1, 4)? {
                    bytes.truncate(at);
                } else if u.ratio(1, 4)? {
                    bytes.push(u.arbitrary()?);
                } else {
                    bytes[at] ^= u.int_in_range(1..=255u8)?;
                }
                bytes
            }
            Some(_) | None => {
                let len = usize::from(u.arbitrary::<u8>()?).min(u.len());
                let mut bytes = u.bytes(len)?.to_vec();
                if u.ratio(1, 64)? {
                    bytes.resize(DATAGRAM_BYTES_MAX + 1, 0);
                }
                bytes
            }
        };
        let opened = self.opener.open(self.now, &mut bytes).map(|opened| opened.from);
        assert!(opened.is_err(), "nobody has sealed what {opened:?} is to have sent");
        self.dropped += 1;
        self.count();
        Ok(())
    }

    fn introduce(&mut self, place: usize) {
        let host = &mut self.hosts[place];
        let introduction = host.sealer.introduction();
        let result = self.opener.introduce(self.now, id(place), introduction);
        let older = host.known.is_some_and(|known| known.start.counter > host.start.counter);
        let expected = if older { Err(NotIntroduced::Older) } else { Ok(()) };
        assert_eq!(result, expected);
        if result.is_ok() {
            host.known = Some(introduction);
        }
    }

    /// A start that counts further, or on a directory that was put back.
    fn restart(&mut self, u: &mut Unstructured<'_>, place: usize) -> Result<()> {
        let host = &mut self.hosts[place];
        let back = u.ratio(1, 4)?;
        let counter = if back { 1 } else { host.start.counter + 1 };
        // Drawn anew at each start, and never the same.
        host.start = Start { counter, drawn: host.start.drawn + 1 };
        host.sealer = Sealer::new(&keys(host.keys), CLUSTER, id(place), host.start);
        Ok(())
    }

    /// Each reason is counted.
    fn count(&self) {
        let sum: u64 = Dropped::ALL.iter().map(|why| self.opener.dropped(*why)).sum();
        assert_eq!(sum, self.dropped, "what is dropped is counted, once");
        let reasons: BTreeSet<String> = Dropped::ALL.iter().map(ToString::to_string).collect();
        assert_eq!(reasons.len(), Dropped::ALL.len(), "each reason has its words");
    }
}

fn id(place: usize) -> MemberId {
    MemberId(u64::try_from(place).expect("few") + 10)
}
