//! Random histories against an obvious slow twin, applied in any portions, by any replica.

use alloc::collections::BTreeMap;
use alloc::format;

use proptest::prelude::*;

use super::*;

/// The slow twin: remembers everything, forgets by looking at all of it.
#[derive(Default)]
pub(super) struct Twin {
    pub(super) data: BTreeMap<Bytes, (Bytes, Revision)>,
    revision: Revision,
    stamp: u64,
    opened: u64,
    sessions: BTreeMap<u64, TwinSession>,
}

#[derive(Default)]
struct TwinSession {
    active: u64,
    replies: Vec<Outcome>,
    answered: u64,
}

impl Twin {
    pub(super) fn apply(&mut self, stamp: u64, items: &[Item<Bytes>]) -> Vec<ItemOutcome> {
        self.stamp = self.stamp.max(stamp);
        let now = self.stamp;
        self.sessions.retain(|_, session| session.active + 60 * SECOND >= now);
        items.iter().map(|item| self.item(item)).collect()
    }

    fn next(&self, session: u64) -> u64 {
        let session = self.sessions.get(&session);
        1 + session.map_or(0, |session| u64::try_from(session.replies.len()).unwrap())
    }

    fn item(&mut self, item: &Item<Bytes>) -> ItemOutcome {
        let (session, seq, first, command) = match item {
            Item::Open { .. } => {
                self.opened += 1;
                let session = TwinSession { active: self.stamp, ..TwinSession::default() };
                self.sessions.insert(self.opened, session);
                return ItemOutcome::Opened(SessionId(self.opened));
            }
            Item::Command { session, seq, first, command } => (session.0, seq.0, first.0, command),
        };
        let next = self.next(session);
        let Some(known) = self.sessions.get_mut(&session) else {
            return ItemOutcome::Expired;
        };
        known.active = self.stamp;
        if seq > next {
            return ItemOutcome::Gap { next: Seq(next) };
        }
        if seq < next {
            return match seq.checked_sub(1) {
                Some(place) if seq >= known.answered => {
                    ItemOutcome::Done(known.replies[usize::try_from(place).unwrap()].clone())
                }
                Some(_) | None => ItemOutcome::Forgotten,
            };
        }
        known.answered = known.answered.max(first.min(seq));
        let outcome = self.command(&postcard::from_bytes(command).unwrap());
        self.sessions.get_mut(&session).unwrap().replies.push(outcome.clone());
        ItemOutcome::Done(outcome)
    }

    fn command(&mut self, command: &Command<Bytes>) -> Outcome {
        match command {
            Command::Skip => Outcome::Skipped,
            Command::Put { key, value, .. } => {
                self.change(&[(key, Some(value))]);
                Outcome::Written { revision: self.revision }
            }
            Command::Delete { key, .. } => {
                let existed = self.data.contains_key(key);
                if existed {
                    self.change(&[(key, None)]);
                }
                Outcome::Deleted { existed, revision: self.revision }
            }
            Command::CompareAndSet { key, expect, value, .. } => {
                let present = self.data.get(key).cloned();
                let is_expected = match expect {
                    Expect::Value(value) => present.as_ref().map(|(v, _)| v) == value.as_ref(),
                    Expect::Revision(Revision(0)) => present.is_none(),
                    Expect::Revision(r) => present.as_ref().is_some_and(|(_, at)| at == r),
                };
                if is_expected && (value.is_some() || present.is_some()) {
                    self.change(&[(key, value.as_ref())]);
                }
                let revision = self.data.get(key).map_or(Revision(0), |(_, at)| *at);
                Outcome::Compared { swapped: is_expected, revision }
            }
            Command::Batch { changes, .. } => {
                let changes: Vec<_> = changes.iter().map(|c| (&c.key, c.value.as_ref())).collect();
                self.change(&changes);
                Outcome::Written { revision: self.revision }
            }
        }
    }

    fn change(&mut self, changes: &[(&Bytes, Option<&Bytes>)]) {
        if !changes.is_empty() {
            self.revision = self.revision.next();
        }
        for (key, value) in changes {
            match value {
                Some(value) => self.data.insert((*key).clone(), ((*value).clone(), self.revision)),
                None => self.data.remove(*key),
            };
        }
    }
}

/// What a client might send, told relative to what its session expects.
#[derive(Clone, Debug)]
enum Op {
    Open,
    /// Session, how far before (negative) or behind the expected seq, how many replies it still
    /// wants, what.
    Command(u64, i64, u64, Command<Bytes>),
    /// The entry ends here; so much shard time passes.
    Cut(u64),
}

fn any_command() -> impl Strategy<Value = Command<Bytes>> {
    let key = || (0..6_u8).prop_map(|k| format!("k{k}"));
    let value = || (0..3_u8).prop_map(|v| format!("v{v}"));
    let maybe = || proptest::option::of(value());
    let expect = prop_oneof![
        maybe().prop_map(|value| Expect::Value(value.map(Bytes::from))),
        (0..20_u64).prop_map(|revision| Expect::Revision(Revision(revision))),
    ];
    prop_oneof![
        1 => Just(Command::Skip),
        4 => (key(), value()).prop_map(|(k, v)| put(&k, &v)),
        2 => key().prop_map(|k| delete(&k)),
        3 => (key(), expect, maybe()).prop_map(|(k, e, v)| swap(&k, e, v.as_deref())),
        2 => proptest::collection::vec((key(), maybe()), 0..5).prop_map(|changes| {
            let changes: Vec<_> = changes.iter().map(|(k, v)| (&k[..], v.as_deref())).collect();
            batch(&changes)
        }),
    ]
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        1 => Just(Op::Open),
        12 => (1..5_u64, -3..4_i64, 0..4_u64, any_command())
            .prop_map(|(session, off, wanted, c)| {
                // Mostly the right one.
                Op::Command(session, if off > 1 { 0 } else { off }, wanted, c)
            }),
        4 => prop_oneof![3 => Just(0), 1 => Just(25 * SECOND)].prop_map(Op::Cut),
    ]
}

/// A history, what the twin answered to it, and where the twin's data stood after each entry.
pub(super) struct History {
    pub(super) entries: Vec<Entry>,
    pub(super) outcomes: Vec<Vec<ItemOutcome>>,
    pub(super) data: Vec<Vec<(Bytes, Bytes, Revision)>>,
}

impl core::fmt::Debug for History {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(&self.outcomes).finish()
    }
}

pub(super) fn any_history(len: usize) -> impl Strategy<Value = History> {
    proptest::collection::vec(any_op(), 0..len).prop_map(|ops| history(&ops))
}

fn history(ops: &[Op]) -> History {
    let mut twin = Twin::default();
    let mut history = History { entries: vec![], outcomes: vec![], data: vec![] };
    let mut stamp = 0;
    for ops in ops.split_inclusive(|op| matches!(op, Op::Cut(_))) {
        let mut items = Vec::new();
        let mut outcomes = twin.apply(stamp, &[]);
        for op in ops {
            let next = match op {
                Op::Open => open(),
                Op::Command(session, off, wanted, command) => {
                    let seq = twin.next(*session).saturating_add_signed(*off);
                    item(*session, seq, seq.saturating_sub(*wanted), command)
                }
                Op::Cut(passed) => {
                    stamp += passed;
                    continue;
                }
            };
            outcomes.extend(twin.apply(0, core::slice::from_ref(&next)));
            items.push(next);
        }
        let index = u64::try_from(history.entries.len()).unwrap() + 1;
        history.entries.push(entry(index, data(twin.stamp, items)));
        history.outcomes.push(outcomes);
        let pairs = twin.data.iter().map(|(k, (v, r))| (k.clone(), v.clone(), *r));
        history.data.push(pairs.collect());
    }
    history
}

/// Everything in partition `p`, by scans.
pub(super) fn contents<S: Store>(worker: &mut Worker<S>) -> Vec<(Bytes, Bytes, Revision)> {
    let mut items = Vec::new();
    let mut query = scan_of("", None, false, 100, 1);
    let mut pages = 0;
    loop {
        let shown;
        match ask(worker, query) {
            Answer::Page(page) => {
                shown = page.revision;
                items.extend(page.items);
                if !page.more {
                    return items;
                }
            }
            other => panic!("{other:?}"),
        }
        pages += 1;
        query = Query::ScanNext { cursor: CursorId(1), page: pages, revision: shown, limit: 100 };
    }
}

/// Applies entries in portions: a task ends where `cuts` says 1 or 2, a run where it says 2.
pub(super) fn apply_in_portions<S: Store>(
    worker: &mut Worker<S>,
    entries: &[Entry],
    cuts: &[u8],
) -> Vec<Vec<ItemOutcome>> {
    let mut tasks = Vec::new();
    let mut portion = Vec::new();
    let mut done = Vec::new();
    for (entry, cut) in entries.iter().zip(cuts.iter().cycle()) {
        portion.push(entry.clone());
        if *cut > 0 {
            tasks.push(apply(&portion));
            portion.clear();
        }
        if *cut > 1 {
            worker.run(tasks.drain(..), &mut done);
        }
    }
    tasks.push(apply(&portion));
    worker.run(tasks, &mut done);
    let outcomes = done.into_iter().map(|done| match done {
        StoreDone::Applied { outcomes, .. } => outcomes,
        other => panic!("{other:?}"),
    });
    outcomes.flatten().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Outcomes and data are the twin's, in whatever portions the entries come.
    #[test]
    fn the_machine_is_its_slow_twin(
        history in any_history(120),
        cuts in proptest::collection::vec(0..3_u8, 1..10),
    ) {
        let mut shard = Shard::new();
        let outcomes = apply_in_portions(&mut shard.worker, &history.entries, &cuts);

        prop_assert_eq!(&outcomes, &history.outcomes);
        let expected = history.data.last().cloned().unwrap_or_default();
        prop_assert_eq!(contents(&mut shard.worker), expected);

        let mut other = Shard::new();
        apply_in_portions(&mut other.worker, &history.entries, &[2]);
        prop_assert_eq!(shard.state(), other.state(), "digest and all, for any portions");
        let mut reopened = shard.reopen();
        prop_assert_eq!(&contents(&mut reopened.worker), &contents(&mut other.worker));
    }

    /// A replica that got a snapshot on its way is the same as one that applied everything, and
    /// sends the same snapshot on.
    #[test]
    fn a_replica_from_a_snapshot_is_like_any_other(
        history in any_history(120),
        at in any::<proptest::sample::Index>(),
        before in any::<proptest::sample::Index>(),
    ) {
        prop_assume!(!history.entries.is_empty());
        let at = 1 + at.index(history.entries.len());
        let before = before.index(at);
        let mut sender = Shard::new();
        apply_in_portions(&mut sender.worker, &history.entries[..at], &[2]);
        let chunks = chunks(&mut sender.worker, 1);
        apply_in_portions(&mut sender.worker, &history.entries[at..], &[2]);

        let mut receiver = Shard::new();
        apply_in_portions(&mut receiver.worker, &history.entries[..before], &[1]);
        let state = install::install_all(&mut receiver.worker, 1, &chunks);
        prop_assert_eq!(state.index, LogIndex(u64::try_from(at).unwrap()));
        prop_assert_eq!(&contents(&mut receiver.worker), &history.data[at - 1]);
        let outcomes = apply_in_portions(&mut receiver.worker, &history.entries[at..], &[1]);

        prop_assert_eq!(&outcomes[..], &history.outcomes[at..]);
        prop_assert_eq!(receiver.state().digest, sender.state().digest);
        let sent_on = super::chunks(&mut receiver.worker, 2);
        prop_assert_eq!(sent_on, super::chunks(&mut sender.worker, 2));
        prop_assert_eq!(receiver.worker.store().len(), sender.worker.store().len(), "no leftovers");
    }
}

#[test]
fn the_digest_tells_histories_apart() {
    let digest = |items: Vec<Item<Bytes>>| {
        let mut shard = Shard::with_session();
        shard.apply(0, items);
        shard.state().digest
    };
    let histories = [
        vec![],
        vec![open()],
        vec![item(1, 1, 1, &put("k", "a"))],
        vec![item(1, 1, 1, &put("k", "b"))],
        vec![item(1, 1, 1, &put("ka", ""))],
        vec![item(1, 1, 1, &delete("k"))],
        vec![item(1, 1, 1, &Command::Skip)],
        vec![item(1, 2, 1, &Command::Skip)],
    ];
    let mut digests: Vec<u64> = histories.into_iter().map(digest).collect();
    let count = digests.len();
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), count);
}
