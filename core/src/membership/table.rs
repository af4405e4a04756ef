//! All members known, what is thought of each, and the order in which they are probed.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;

use twox_hash::XxHash64;

use super::member::{Incarnation, Member, State, Statement};
use super::replay::Window;
use super::suspicion::Suspicion;
use super::wire::{Accusers, BUCKETS, Claim};
use crate::ids::{MemberId, len_u64};
use crate::rng::Rng;
use crate::time::Instant;

/// What is known of one member.
///
/// Two things grow, each by itself: what it said last (`profile` with its incarnation), and what is thought of it
/// (incarnation and state, ordered by incarnation first and by state second). Both only ever rise, so the order in
/// which news comes does not matter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    /// What it said of itself last. None: it was accused before anything was heard of it.
    pub(crate) profile: Option<Statement>,
    pub(crate) incarnation: Incarnation,
    pub(crate) standing: Standing,
    /// Its datagrams seen, once it has proven that it sends them now.
    pub(crate) window: Option<Window>,
    pub(crate) rtt: Option<RoundTrip>,
    /// Whether it is in the list of those to probe, or of the dead.
    listed: bool,
    buried: bool,
    /// When its state is over: the end of a suspicion, or of remembering.
    pub(crate) timer: Option<Instant>,
}

/// What is thought of a member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Standing {
    Alive,
    Suspect(Suspicion),
    Dead,
    Left,
}

/// A smoothed round-trip time and its deviation (RFC 6298).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RoundTrip {
    smoothed: Duration,
    deviation: Duration,
}

impl RoundTrip {
    /// Takes a sample in.
    pub(crate) fn with(before: Option<Self>, sample: Duration) -> Self {
        let Some(Self { smoothed, deviation }) = before else {
            return Self { smoothed: sample, deviation: sample / 2 };
        };
        Self {
            smoothed: (smoothed * 7 + sample) / 8,
            deviation: (deviation * 3 + smoothed.abs_diff(sample)) / 4,
        }
    }

    /// How long an answer takes at most, most likely.
    pub(crate) fn timeout(self) -> Duration {
        self.smoothed + self.deviation * 4
    }
}

impl Entry {
    pub(crate) fn new(incarnation: Incarnation, standing: Standing) -> Self {
        Self {
            profile: None,
            incarnation,
            standing,
            window: None,
            rtt: None,
            listed: false,
            buried: false,
            timer: None,
        }
    }

    pub(crate) fn state(&self) -> State {
        match self.standing {
            Standing::Alive => State::Alive,
            Standing::Suspect(_) => State::Suspect,
            Standing::Dead => State::Dead,
            Standing::Left => State::Left,
        }
    }

    /// True for a member of the present view: not gone, and not just a name in an accusation.
    pub(crate) fn is_present(&self) -> bool {
        self.profile.is_some() && self.state().is_present()
    }

    pub(crate) fn member(&self, id: MemberId) -> Option<Member> {
        let profile = self.profile.as_ref()?.profile();
        Some(Member { id, incarnation: self.incarnation, state: self.state(), profile })
    }

    /// What is thought of it, for others. None for an alive member that never said who it is, which does not exist.
    pub(crate) fn thought(&self, member: MemberId) -> Option<Claim<'_>> {
        let incarnation = self.incarnation;
        match &self.standing {
            Standing::Alive => self.said(member),
            Standing::Suspect(suspicion) => {
                let accusers = Accusers::new(&suspicion.accusers)?;
                Some(Claim::Suspect { member, incarnation, accusers })
            }
            Standing::Dead => Some(Claim::Dead { member, incarnation }),
            Standing::Left => Some(Claim::Left { member, incarnation }),
        }
    }

    /// What it said of itself, for others.
    pub(crate) fn said(&self, member: MemberId) -> Option<Claim<'_>> {
        let statement = self.profile.as_ref()?;
        let (incarnation, profile) = (statement.at, statement.bytes());
        Some(Claim::Alive { member, incarnation, profile })
    }

    /// What the rest of the table knows of it.
    fn trace(&self, id: MemberId) -> Trace {
        Trace { gone: !self.state().is_present(), timer: self.timer, mark: self.mark(id) }
    }

    /// Its part in the hashes, if it is present.
    fn mark(&self, id: MemberId) -> Option<Mark> {
        let statement = self.profile.as_ref().filter(|_| self.is_present())?;
        let view = hash([id.0, self.incarnation.0]);
        let ring = if id.is_client() { 0 } else { hash([id.0, u64::from(statement.weight)]) };
        Some(Mark { view, ring })
    }
}

/// What of an entry is also counted or listed elsewhere in the table.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Trace {
    gone: bool,
    timer: Option<Instant>,
    mark: Option<Mark>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Mark {
    view: u64,
    ring: u64,
}

fn hash(words: [u64; 2]) -> u64 {
    let mut bytes = [0; 16];
    let (first, second) = bytes.split_at_mut(8);
    first.copy_from_slice(&words[0].to_le_bytes());
    second.copy_from_slice(&words[1].to_le_bytes());
    XxHash64::oneshot(0, &bytes)
}

/// The part of the view that a member belongs to.
pub(crate) fn bucket_of(id: MemberId) -> usize {
    let bucket = hash([id.0, 0]) % len_u64(BUCKETS);
    usize::try_from(bucket).expect("less than BUCKETS")
}

/// All members known, this one included.
///
/// Invariants, checked by [`Table::check`]:
/// 1. `present`, `gone`, `ring_hash` and `buckets` are what the entries add up to.
/// 2. Each entry's timer is in `ends` if the member is not gone, in `tombs` if it is; nothing else is there.
/// 3. Each present member but this one is in `order` once; each dead one with a profile is in `graves` once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Table {
    me: MemberId,
    entries: BTreeMap<MemberId, Box<Entry>>,
    /// Ends of suspicions.
    ends: BTreeSet<(Instant, MemberId)>,
    /// When the gone are forgotten.
    tombs: BTreeSet<(Instant, MemberId)>,
    order: Round,
    graves: Round,
    present: usize,
    gone: usize,
    buckets: Vec<u64>,
    ring_hash: u64,
}

impl Table {
    pub(crate) fn new(me: MemberId) -> Self {
        Self {
            me,
            entries: BTreeMap::new(),
            ends: BTreeSet::new(),
            tombs: BTreeSet::new(),
            order: Round::default(),
            graves: Round::default(),
            present: 0,
            gone: 0,
            buckets: alloc::vec![0; BUCKETS],
            ring_hash: 0,
        }
    }

    pub(crate) fn get(&self, id: MemberId) -> Option<&Entry> {
        self.entries.get(&id).map(Box::as_ref)
    }

    /// Members present, this one included.
    pub(crate) fn present(&self) -> usize {
        self.present
    }

    /// Members of whom there is an entry that is no tombstone, and always this one: it may come back.
    pub(crate) fn known(&self) -> usize {
        let own = self.get(self.me).is_some_and(|own| !own.state().is_present());
        self.entries.len() - self.gone + usize::from(own)
    }

    /// Tombstones.
    pub(crate) fn gone(&self) -> usize {
        self.gone
    }

    pub(crate) fn ring_hash(&self) -> u64 {
        self.ring_hash
    }

    pub(crate) fn buckets(&self) -> &[u64] {
        &self.buckets
    }

    /// The hash of the whole view.
    pub(crate) fn digest(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, bucket| sum.wrapping_add(*bucket))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (MemberId, &Entry)> {
        self.entries.iter().map(|(&id, entry)| (id, entry.as_ref()))
    }

    /// Changes what the rest of the table does not depend on: window and round-trip time.
    pub(crate) fn contact(
        &mut self,
        id: MemberId,
    ) -> Option<(&mut Option<Window>, &mut Option<RoundTrip>)> {
        self.entries.get_mut(&id).map(|entry| (&mut entry.window, &mut entry.rtt))
    }

    /// Adds a member of whom nothing is known.
    pub(crate) fn insert(&mut self, id: MemberId, entry: Entry, rng: &mut Rng) {
        let before = self.entries.insert(id, Box::new(entry));
        assert!(before.is_none(), "a member has one entry");
        self.list(id, rng);
        self.count(id);
    }

    /// Changes an entry, and all that depends on it. False if there is none.
    pub(crate) fn update(
        &mut self,
        id: MemberId,
        rng: &mut Rng,
        change: impl FnOnce(&mut Entry),
    ) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else { return false };
        let before = entry.trace(id);
        change(entry);
        if entry.trace(id) != before {
            self.discount(id, before);
            self.count(id);
        }
        self.list(id, rng);
        true
    }

    /// Forgets a member.
    pub(crate) fn remove(&mut self, id: MemberId) {
        let Some(entry) = self.entries.remove(&id) else { return };
        self.discount(id, entry.trace(id));
        self.order.forget(id, entry.listed);
        self.graves.forget(id, entry.buried);
    }

    /// Takes an entry out of the sums and timers, as it was.
    fn discount(&mut self, id: MemberId, Trace { gone, timer, mark }: Trace) {
        if let Some(at) = timer {
            if gone {
                self.tombs.remove(&(at, id))
            } else {
                self.ends.remove(&(at, id))
            };
        }
        self.gone -= usize::from(gone);
        if let Some(mark) = mark {
            let bucket = &mut self.buckets[bucket_of(id)];
            *bucket = bucket.wrapping_sub(mark.view);
            self.ring_hash = self.ring_hash.wrapping_sub(mark.ring);
            self.present -= 1;
        }
    }

    /// Brings an entry into the sums and timers.
    fn count(&mut self, id: MemberId) {
        let Some(entry) = self.entries.get(&id) else { return };
        let Trace { gone, timer, mark } = entry.trace(id);
        if let Some(at) = timer {
            if gone {
                self.tombs.insert((at, id))
            } else {
                self.ends.insert((at, id))
            };
        }
        self.gone += usize::from(gone);
        if let Some(mark) = mark {
            let bucket = &mut self.buckets[bucket_of(id)];
            *bucket = bucket.wrapping_add(mark.view);
            self.ring_hash = self.ring_hash.wrapping_add(mark.ring);
            self.present += 1;
        }
    }

    /// Brings an entry into the lists where it belongs. Where it does not any more it stays until its turn comes.
    fn list(&mut self, id: MemberId, rng: &mut Rng) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if id != self.me && entry.is_present() && !entry.listed {
            self.order.add(id, rng);
            entry.listed = true;
        }
        if entry.state() == State::Dead && entry.profile.is_some() && !entry.buried {
            self.graves.add(id, rng);
            entry.buried = true;
        }
    }

    /// The suspicion that ends next.
    pub(crate) fn next_end(&self) -> Option<(Instant, MemberId)> {
        self.ends.first().copied()
    }

    /// Who is forgotten next.
    pub(crate) fn next_tomb(&self) -> Option<(Instant, MemberId)> {
        self.tombs.first().copied()
    }

    /// The next member to probe: each present one once a round, each round in another order (SWIM section 4.3).
    pub(crate) fn next_target(&mut self, rng: &mut Rng) -> Option<MemberId> {
        let entries = &mut self.entries;
        self.order.next(rng, |id| match entries.get_mut(&id) {
            Some(entry) => {
                entry.listed = entry.is_present();
                entry.listed
            }
            None => false,
        })
    }

    /// A dead member to probe: each in turn.
    pub(crate) fn next_grave(&mut self, rng: &mut Rng) -> Option<MemberId> {
        let entries = &mut self.entries;
        self.graves.next(rng, |id| match entries.get_mut(&id) {
            Some(entry) => {
                entry.buried = entry.state() == State::Dead && entry.profile.is_some();
                entry.buried
            }
            None => false,
        })
    }

    /// Up to `count` other present members, drawn, each once, none of them `except`.
    pub(crate) fn draw(&self, rng: &mut Rng, count: usize, except: MemberId) -> Vec<MemberId> {
        let mut drawn = Vec::with_capacity(count);
        // A list of which half is gone gives enough after a few tries; a short list gives what it has.
        for _ in 0..count * 4 {
            if drawn.len() == count {
                break;
            }
            let Some(id) = self.order.draw(rng) else { break };
            let present = self.get(id).is_some_and(Entry::is_present);
            if present && id != except && !drawn.contains(&id) {
                drawn.push(id);
            }
        }
        drawn
    }

    pub(crate) fn check(&self) {
        let (mut present, mut gone, mut ring_hash) = (0, 0, 0_u64);
        let mut buckets = alloc::vec![0_u64; BUCKETS];
        let (mut ends, mut tombs) = (BTreeSet::new(), BTreeSet::new());
        let (mut listed, mut buried) = (Vec::new(), Vec::new());
        for (id, entry) in self.iter() {
            let is_gone = !entry.state().is_present();
            gone += usize::from(is_gone);
            if let Some(mark) = entry.mark(id) {
                present += 1;
                ring_hash = ring_hash.wrapping_add(mark.ring);
                let bucket = &mut buckets[bucket_of(id)];
                *bucket = bucket.wrapping_add(mark.view);
            }
            if let Some(at) = entry.timer {
                if is_gone {
                    tombs.insert((at, id))
                } else {
                    ends.insert((at, id))
                };
            }
            listed.extend(entry.listed.then_some(id));
            buried.extend(entry.buried.then_some(id));
            assert!(entry.listed || !entry.is_present() || id == self.me, "3: {id} is listed");
        }
        let sums = (self.present, self.gone, self.ring_hash, &self.buckets);
        assert_eq!(sums, (present, gone, ring_hash, &buckets), "1: the sums are kept");
        assert_eq!((&self.ends, &self.tombs), (&ends, &tombs), "2: the timers are kept");
        assert_eq!(self.order.sorted(), listed, "3: each is in the order once");
        assert_eq!(self.graves.sorted(), buried, "3: each dead one is in the graves once");
    }
}

/// Members in a drawn order, gone through again and again. Who does not belong any more is dropped when its turn
/// comes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Round {
    ids: Vec<MemberId>,
    next: usize,
}

impl Round {
    /// Puts a member at a random place, as SWIM does with those that join.
    fn add(&mut self, id: MemberId, rng: &mut Rng) {
        self.ids.push(id);
        let place = rng.below(len_u64(self.ids.len()));
        let last = self.ids.len() - 1;
        self.ids.swap(usize::try_from(place).expect("a place in the list"), last);
    }

    fn next(
        &mut self,
        rng: &mut Rng,
        mut belongs: impl FnMut(MemberId) -> bool,
    ) -> Option<MemberId> {
        loop {
            if self.next >= self.ids.len() {
                self.next = 0;
                for last in (1..self.ids.len()).rev() {
                    let place = rng.below(len_u64(last) + 1);
                    self.ids.swap(usize::try_from(place).expect("a place in the list"), last);
                }
            }
            let id = *self.ids.get(self.next)?;
            if belongs(id) {
                self.next += 1;
                return Some(id);
            }
            self.ids.swap_remove(self.next);
        }
    }

    fn draw(&self, rng: &mut Rng) -> Option<MemberId> {
        let place = rng.below(len_u64(self.ids.len()));
        self.ids.get(usize::try_from(place).ok()?).copied()
    }

    fn forget(&mut self, id: MemberId, listed: bool) {
        if listed && let Some(place) = self.ids.iter().position(|other| *other == id) {
            self.ids.swap_remove(place);
        }
    }

    fn sorted(&self) -> Vec<MemberId> {
        let mut ids = self.ids.clone();
        ids.sort_unstable();
        ids
    }
}
