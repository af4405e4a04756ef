//! The obvious slow twin: a model that forgets nothing, and a disk that forgets what was not
//! synced.

use proptest::prelude::*;

use super::*;
use crate::rng::Rng;

/// What happens to a log, drawn by proptest; numbers are made to fit the state they meet.
#[derive(Clone, Debug)]
enum Op {
    /// Entries that replace up to `back` of the last ones.
    Entries {
        group: u32,
        back: u64,
        count: u64,
        rise: u64,
    },
    /// The store has persisted some of the log.
    Cut {
        group: u32,
        index: u64,
    },
    /// A snapshot was installed, perhaps of another history.
    Snapshot {
        group: u32,
        ahead: u64,
        rise: u64,
    },
    Vote {
        group: u32,
        term: u64,
    },
    NewReplica {
        group: u32,
    },
    Leave {
        group: u32,
    },
    Drop {
        group: u32,
    },
    PeerBoot {
        member: u64,
        boot: u64,
    },
    /// Hands a batch to the disk.
    Write,
    /// Syncs everything written.
    Sync,
    /// Opens a segment.
    Rotate,
    Discard,
    /// The process dies; what it wrote stays readable.
    Kill,
    /// Power is lost: of what was not synced any part may be gone.
    PowerCut {
        seed: u64,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let group = || 0..3_u32;
    prop_oneof![
        8 => (group(), 0..4_u64, 1..4_u64, 0..2_u64)
            .prop_map(|(group, back, count, rise)| Op::Entries { group, back, count, rise }),
        3 => (group(), any::<u64>()).prop_map(|(group, index)| Op::Cut { group, index }),
        2 => (group(), 1..6_u64, 0..3_u64)
            .prop_map(|(group, ahead, rise)| Op::Snapshot { group, ahead, rise }),
        2 => (group(), 0..3_u64).prop_map(|(group, term)| Op::Vote { group, term }),
        1 => group().prop_map(|group| Op::NewReplica { group }),
        1 => group().prop_map(|group| Op::Leave { group }),
        1 => group().prop_map(|group| Op::Drop { group }),
        1 => (1..3_u64, 0..9_u64).prop_map(|(member, boot)| Op::PeerBoot { member, boot }),
        8 => Just(Op::Write),
        4 => Just(Op::Sync),
        3 => Just(Op::Rotate),
        3 => Just(Op::Discard),
        1 => Just(Op::Kill),
        2 => any::<u64>().prop_map(|seed| Op::PowerCut { seed }),
    ]
}

/// Everything that was ever said, with the segment that holds each entry.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    birth: u64,
    boot: Boot,
    earlier: Vec<u32>,
    peers: BTreeMap<MemberId, Boot>,
    groups: BTreeMap<GroupId, ModelGroup>,
}

#[derive(Clone, Debug, PartialEq)]
struct ModelGroup {
    state: RecoveredGroup,
    entries: BTreeMap<LogIndex, (Entry, SegmentId)>,
}

impl ModelGroup {
    fn new(replica: ReplicaId) -> Self {
        let state = RecoveredGroup {
            replica,
            term: Term(0),
            vote: None,
            commit: LogIndex(0),
            cut_index: LogIndex(0),
            cut_term: Term(0),
            membership: Membership::default(),
            entries: vec![],
        };
        let entries = BTreeMap::new();
        Self { state, entries }
    }

    fn last(&self) -> (LogIndex, Term) {
        let cut = (self.state.cut_index, self.state.cut_term);
        let last = self.entries.last_key_value();
        last.map_or(cut, |(index, (entry, _))| (*index, entry.term))
    }

    fn cut(&mut self, index: LogIndex, term: Term) {
        if self.entries.get(&index).is_none_or(|(entry, _)| entry.term != term) {
            self.entries.clear();
        }
        self.entries.retain(|held, _| *held > index);
        self.state.cut_index = index;
        self.state.cut_term = term;
        self.state.commit = self.state.commit.max(index);
    }
}

impl Model {
    fn apply(&mut self, segment: SegmentId, record: &Record) {
        let mut of = |group: &GroupId, replica: &ReplicaId| {
            let known = self.groups.get(group);
            if known.is_none_or(|known| known.state.replica != *replica) {
                self.groups.insert(*group, ModelGroup::new(*replica));
            }
            *group
        };
        match record {
            Record::Boot(boot) => {
                if self.boot != Boot(0) {
                    self.earlier.push(self.boot.drawn());
                }
                self.boot = *boot;
            }
            Record::PeerBoot { member, boot } => {
                self.peers.insert(*member, *boot);
            }
            Record::Vote { group, replica, term, vote } => {
                let group = of(group, replica);
                let held = &mut self.groups.get_mut(&group).unwrap().state;
                (held.term, held.vote) = (*term, *vote);
            }
            Record::Entries { group, replica, entries } => {
                let group = of(group, replica);
                let held = &mut self.groups.get_mut(&group).unwrap().entries;
                held.retain(|index, _| *index < entries[0].index);
                let new = entries.iter().cloned();
                held.extend(new.map(|entry| (entry.index, (entry, segment))));
            }
            Record::Cut { group, replica, index, term, membership } => {
                let group = of(group, replica);
                let held = self.groups.get_mut(&group).unwrap();
                held.cut(*index, *term);
                held.state.membership = membership.clone();
            }
            Record::Checkpoint(checkpoint) => {
                self.birth = checkpoint.birth;
                let named = |group: &GroupId| checkpoint.groups.iter().any(|it| it.group == *group);
                self.groups.retain(|group, _| named(group));
            }
            Record::Replica { group, replica } => {
                of(group, replica);
            }
            Record::Dropped { group } => {
                self.groups.remove(group);
            }
            Record::Birth { .. }
            | Record::Table(_)
            | Record::Genesis(_)
            | Record::Founded
            | Record::Released => {
                panic!("{record:?} is not drawn")
            }
        }
    }

    fn checkpoint(&self, left: &[GroupId]) -> Checkpoint {
        let groups = self.groups.iter().filter(|(group, _)| !left.contains(group));
        let groups = groups.map(|(group, held)| GroupCheckpoint {
            group: *group,
            replica: held.state.replica,
            term: held.state.term,
            vote: held.state.vote,
            commit: held.state.commit,
            cut_index: held.state.cut_index,
            cut_term: held.state.cut_term,
            membership: held.state.membership.clone(),
            last_index: held.last().0,
        });
        Checkpoint {
            birth: 7,
            boot: self.boot,
            earlier: self.earlier.clone(),
            peers: self.peers.iter().map(|(member, boot)| (*member, *boot)).collect(),
            groups: groups.collect(),
            ..Checkpoint::default()
        }
    }

    fn recovered(&self, tail: Tail) -> Recovered {
        let groups = self.groups.iter().map(|(group, held)| {
            let entries = held.entries.values().map(|(entry, _)| entry.clone());
            let entries = entries.collect();
            (*group, RecoveredGroup { entries, ..held.state.clone() })
        });
        Recovered {
            birth: self.birth,
            boot: self.boot,
            earlier: self.earlier.clone(),
            peers: self.peers.clone(),
            groups: groups.collect(),
            tail,
            ..Recovered::default()
        }
    }

    /// The oldest segment that holds an entry.
    fn needs(&self) -> Option<SegmentId> {
        let entries = self.groups.values().flat_map(|held| held.entries.values());
        entries.map(|(_, segment)| *segment).min()
    }
}

#[derive(Clone, Debug, Default)]
struct File {
    bytes: Vec<u8>,
    synced: usize,
    /// Whether the directory was synced since the file was made.
    named: bool,
}

#[derive(Clone, Debug, Default)]
struct Disk {
    files: BTreeMap<SegmentId, File>,
    /// Deleted since the directory was synced.
    deleted: BTreeMap<SegmentId, File>,
}

impl Disk {
    fn append(&mut self, batch: &Batch) {
        if let Some(opening) = batch.opens {
            if let Some(previous) = opening.previous {
                let file = self.files.get_mut(&previous).unwrap();
                file.synced = file.bytes.len();
            }
            self.sync_directory();
            let made = self.files.insert(batch.segment, File::default());
            assert!(made.is_none(), "{} was used before", batch.segment);
        }
        let file = self.files.get_mut(&batch.segment).unwrap();
        assert_eq!(len_u64(file.bytes.len()), batch.offset);
        encode_batch(batch, &mut file.bytes);
        assert_eq!(len_u64(file.bytes.len()), batch.offset + batch.len);
    }

    fn sync(&mut self) {
        for file in self.files.values_mut() {
            file.synced = file.bytes.len();
        }
        self.sync_directory();
    }

    fn sync_directory(&mut self) {
        self.files.values_mut().for_each(|file| file.named = true);
        self.deleted.clear();
    }

    fn delete(&mut self, below: SegmentId) {
        let kept = self.files.split_off(&below);
        self.deleted.extend(core::mem::replace(&mut self.files, kept));
    }

    /// Loses any part of what was not synced, sector by sector, and what stays is on the disk for
    /// good.
    fn power_cut(&mut self, rng: &mut Rng) {
        let back = core::mem::take(&mut self.deleted);
        self.files.extend(back.into_iter().filter(|_| rng.below(2) == 0));
        self.files.retain(|_, file| file.named || rng.below(2) == 0);
        for file in self.files.values_mut() {
            let mut at = file.synced;
            let calm = rng.below(3) == 0; // Nothing is lost but the end.
            while at < file.bytes.len() {
                let sector = 1 + usize::try_from(rng.below(100)).unwrap();
                let end = file.bytes.len().min(at + sector);
                match rng.below(if calm { 1 } else { 4 }) {
                    0 | 1 => {}
                    2 => file.bytes[at..end].fill(0),
                    _ => file.bytes[at..end].fill(0xa5),
                }
                at = end;
            }
            let unsynced = len_u64(file.bytes.len() - file.synced);
            if rng.below(2) == 0 {
                let kept = usize::try_from(rng.below(unsynced + 1)).unwrap();
                file.bytes.truncate(file.synced + kept);
            }
            file.synced = file.bytes.len();
            file.named = true;
        }
    }

    fn source(&self) -> BTreeMap<SegmentId, Bytes> {
        let files = self.files.iter();
        files.map(|(id, file)| (*id, Bytes::from(file.bytes.clone()))).collect()
    }
}

/// A member that does what the operations say.
struct Run {
    log: Log,
    disk: Disk,
    /// The state after what is staged.
    model: Model,
    /// The state after each batch.
    states: Vec<Model>,
    written: LogSeq,
    /// What no power cut may take.
    durable: LogSeq,
    staged: bool,
    present: SegmentId,
    next: SegmentId,
    left: Vec<GroupId>,
    /// A cut in the present segment made entries void that it does not cover.
    ambiguous: bool,
    replicas: u64,
}

impl Run {
    fn new() -> Self {
        let mut run = Self {
            log: Log::new(&Tail::default(), 100),
            disk: Disk::default(),
            model: Model::default(),
            states: vec![Model::default()],
            written: LogSeq(0),
            durable: LogSeq(0),
            staged: false,
            present: SegmentId(0),
            next: SegmentId(1),
            left: vec![],
            ambiguous: false,
            replicas: 0,
        };
        run.boot();
        run
    }

    fn boot(&mut self) {
        self.rotate();
        self.push(Record::Boot(self.model.boot.next()));
    }

    fn rotate(&mut self) {
        self.write();
        let checkpoint = self.model.checkpoint(&self.left);
        self.left.clear();
        self.present = self.next;
        self.next = self.next.next();
        self.model.apply(self.present, &Record::Checkpoint(checkpoint.clone()));
        self.log.open_segment(checkpoint);
        self.staged = true;
        self.ambiguous = false;
    }

    fn push(&mut self, record: Record) {
        self.model.apply(self.present, &record);
        assert_eq!(self.log.push(record), self.log.next_seq());
        self.staged = true;
    }

    fn write(&mut self) {
        let Some(batch) = self.log.seal() else { return };
        self.written = batch.seq;
        self.durable = self.durable.max(batch.durable);
        self.staged = false;
        assert_eq!(batch.segment, self.present);
        self.disk.append(&batch);
        self.states.push(self.model.clone());
        assert_eq!(self.written, LogSeq(len_u64(self.states.len()) - 1));
    }

    fn sync(&mut self) {
        self.disk.sync();
        self.log.on_stored(self.written);
        self.durable = self.written;
    }

    /// Discards what may go: never more, and not less when everything is durable.
    fn discard(&mut self) {
        let below = self.log.discardable();
        assert_eq!(self.log.discardable(), None);
        if let Some(below) = below {
            self.disk.delete(below);
        }
        let present = self.present;
        if self.log.stored() == self.log.next_seq().prev() && !self.staged {
            let needed = self.model.needs().unwrap_or(present).min(present);
            let oldest = *self.disk.files.first_key_value().unwrap().0;
            assert!(oldest <= needed, "{oldest} .. {needed}");
            assert!(oldest == needed || self.ambiguous, "{oldest} < {needed}");
        }
        let files = self.disk.files.values();
        assert!(self.log.bytes() <= files.map(|file| len_u64(file.bytes.len())).sum());
    }

    /// Recovers, compares with what may have become of the model, and boots again.
    fn restart(&mut self) {
        let recovered = recover(&mut self.disk.source()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(Ok(&recovered), recover(&mut self.disk.source()).as_ref());
        let seq = recovered.tail.next_seq.prev();
        assert!(seq >= self.durable, "{seq} of {} durable", self.durable);
        assert!(seq <= self.written, "{seq} of {} written", self.written);
        self.states.truncate(crate::ids::len_usize(seq.0) + 1);
        self.model = self.states.last().unwrap().clone();
        assert_eq!(recovered, self.model.recovered(recovered.tail.clone()));
        assert!(self.disk.files.keys().all(|id| *id < recovered.tail.next_segment));
        self.written = seq;
        self.log = Log::new(&recovered.tail, 100);
        self.staged = false;
        self.next = recovered.tail.next_segment;
        self.left.clear();
        self.boot();
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Entries { group, back, count, rise } => {
                let (group, replica) = self.group(group);
                let held = &self.model.groups[&group];
                let (last, term) = held.last();
                let first = LogIndex(last.0.saturating_sub(back).max(held.state.cut_index.0) + 1);
                let entries = (first.0..first.0 + count).map(|index| entry(index, term.0 + rise));
                let entries = entries.collect();
                self.push(Record::Entries { group, replica, entries });
            }
            Op::Cut { group, index } => {
                let (group, replica) = self.group(group);
                let held = &self.model.groups[&group];
                let nth = index % len_u64(held.entries.len()).max(1);
                let entry = held.entries.values().nth(crate::ids::len_usize(nth)).cloned();
                if let Some((entry, _)) = entry {
                    self.cut(group, replica, entry.index, entry.term);
                }
            }
            Op::Snapshot { group, ahead, rise } => {
                let (group, replica) = self.group(group);
                let cut = self.model.groups[&group].state.cut_index;
                let index = LogIndex(cut.0 + ahead);
                let held = self.model.groups[&group].entries.get(&index);
                let term = held.map_or(Term(1), |(entry, _)| Term(entry.term.0 + rise));
                let behind = self.model.groups[&group].last().0 > index;
                self.ambiguous |= held.is_some() && rise > 0 && behind;
                self.cut(group, replica, index, term);
            }
            Op::Vote { group, term } => {
                let (group, replica) = self.group(group);
                let term = Term(self.model.groups[&group].state.term.0 + term);
                let vote = Some(ReplicaId(term.0));
                self.push(Record::Vote { group, replica, term, vote });
            }
            Op::NewReplica { group } => {
                self.model.groups.remove(&GroupId(group));
                self.group(group);
            }
            Op::Drop { group } => self.push(Record::Dropped { group: GroupId(group) }),
            Op::Leave { group } => self.left.push(GroupId(group)),
            Op::PeerBoot { member, boot } => {
                self.push(Record::PeerBoot { member: MemberId(member), boot: Boot(boot) })
            }
            Op::Write => self.write(),
            Op::Sync => self.sync(),
            Op::Rotate => self.rotate(),
            Op::Discard => self.discard(),
            Op::Kill => self.restart(),
            Op::PowerCut { seed } => {
                self.disk.power_cut(&mut Rng::new(seed));
                self.restart();
                self.durable = self.written;
            }
        }
    }

    /// The group with this member's replica of it; a new one if it has none.
    fn group(&mut self, group: u32) -> (GroupId, ReplicaId) {
        let group = GroupId(group);
        self.left.retain(|left| *left != group);
        if !self.model.groups.contains_key(&group) {
            self.replicas += 1;
            let replica = ReplicaId(self.replicas);
            self.push(Record::Replica { group, replica });
        }
        (group, self.model.groups[&group].state.replica)
    }

    fn cut(&mut self, group: GroupId, replica: ReplicaId, index: LogIndex, term: Term) {
        let membership = Membership {
            voters: vec![crate::raft::message::Replica {
                id: ReplicaId(index.0),
                member: MemberId(1),
            }],
            ..Membership::default()
        };
        self.push(Record::Cut { group, replica, index, term, membership });
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Whatever was durable is there, what is there is a prefix of what was written, and only
    /// needless segments go.
    #[test]
    fn recovery_agrees_with_a_model_that_forgets_nothing(
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let mut run = Run::new();
        for op in ops {
            run.step(op);
        }
        run.write();
        run.sync();
        run.discard();
        run.restart();
    }

    /// W3 on any log: a changed bit that later batches knew to be durable is never passed over in
    /// silence.
    #[test]
    fn damage_is_told_or_makes_no_difference(
        ops in prop::collection::vec(op(), 1..60),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let mut run = Run::new();
        for op in ops {
            run.step(op);
        }
        run.write();
        run.sync();
        run.push(Record::Boot(Boot(99)));
        run.write();

        let mut source = run.disk.source();
        let whole = recover(&mut source).unwrap();
        let counted: Vec<_> = whole.tail.segments.iter().filter(|(_, len)| *len > 0).collect();
        let (segment, len) = *counted[at.index(counted.len())];
        let mut bytes = source[&segment].to_vec();
        let place = at.index(crate::ids::len_usize(len));
        bytes[place] ^= 1 << bit;
        source.insert(segment, Bytes::from(bytes));

        let last = Some(segment) == whole.tail.last && {
            let batch = crate::storage::codec::batch_len(crate::storage::codec::record_len(
                &Record::Boot(Boot(99)),
            ));
            len_u64(place) >= len - batch
        };
        match recover(&mut source) {
            Err(RecoveryError::Damaged { segment: named, .. }) => {
                prop_assert!(!last);
                prop_assert_eq!(named, segment);
            }
            Ok(recovered) => {
                prop_assert!(last);
                prop_assert_eq!(recovered.tail.next_seq.next(), whole.tail.next_seq);
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    /// Intact batches of any content, as a broken program might write them: an answer, no panic.
    #[test]
    fn any_records_give_an_answer(
        chosen in prop::collection::vec(
            (0..6_u8, 0..2_u32, edge(), edge(), 1..3_u64, any::<bool>()),
            0..20,
        ),
    ) {
        let mut files: BTreeMap<SegmentId, Vec<u8>> = BTreeMap::new();
        let (mut segment, mut offset, mut opens) = (SegmentId(1), 0, Some(Opening::default()));
        for (seq, (kind, group, index, other, term, rotate)) in (1..).zip(chosen) {
            let group = GroupId(group);
            let replica = ReplicaId(1);
            let term = Term(term);
            if rotate && offset > 0 {
                opens = Some(Opening { previous: Some(segment), previous_len: offset });
                (segment, offset) = (segment.next(), 0);
            }
            let mut records = Vec::new();
            if opens.is_some() {
                let mut says = checkpoint(0, 0);
                let held = &mut says.groups[0];
                (held.cut_index, held.cut_term) = (LogIndex(index), term);
                held.last_index = LogIndex(other);
                records.push(Record::Checkpoint(says));
            }
            records.push(match kind {
                0 => Record::Vote { group, replica: ReplicaId(term.0), term, vote: None },
                1 => Record::Cut {
                    group,
                    replica,
                    index: LogIndex(index),
                    term,
                    membership: Membership::default(),
                },
                _ => Record::Entries {
                    group,
                    replica,
                    entries: vec![entry(index, term.0), entry(index.saturating_add(1), term.0)],
                },
            });
            let len = records.iter().map(crate::storage::codec::record_len).sum();
            let len = crate::storage::codec::batch_len(len);
            let seq = LogSeq(seq);
            let durable = seq.prev();
            let opens = opens.take();
            let batch = Batch { seq, segment, offset, len, durable, opens, records };
            encode_batch(&batch, files.entry(segment).or_default());
            offset += len;
        }
        let mut source: BTreeMap<_, _> =
            files.into_iter().map(|(id, bytes)| (id, Bytes::from(bytes))).collect();
        let report = inspect(&mut source);
        match recover(&mut source) {
            Ok(recovered) => {
                for held in recovered.groups.values() {
                    let cut = held.cut_index.0;
                    let follow = (1..).zip(&held.entries);
                    prop_assert!(follow.into_iter().all(|(n, entry)| entry.index.0 == cut + n));
                }
                prop_assert_eq!(report.damage, None);
            }
            Err(error) => prop_assert_eq!(report.damage, Some(error)),
        }
    }
}

/// Small indexes and those at the end of their type.
fn edge() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0..6_u64, 1 => u64::MAX - 2..=u64::MAX]
}
