//! What must hold of all replicas together, at every state.

use ring_core::ids::{LogIndex, ReplicaId, Term};
use ring_core::raft::message::Entry;

use super::member::Held;

/// What happened so far and later states are judged by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct Past {
    /// Who was seen to lead, sorted by term.
    leaders: Vec<(Term, ReplicaId)>,
    /// Every entry that some replica has taken for committed, from index 1 on, and the term of the first that did.
    committed: Vec<(Entry, Term)>,
    /// The reads asked for, and how much was committed then.
    reads: Vec<(u64, LogIndex)>,
}

/// What is judged of one replica.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    pub(super) id: ReplicaId,
    pub(super) term: Term,
    pub(super) leads: bool,
    pub(super) commit: LogIndex,
    /// Its log in memory...
    pub(super) log: &'a Held,
    /// ... and on its disk.
    pub(super) disk: &'a Held,
}

impl Past {
    /// A state follows in which the replica at place `changed` is another than before.
    ///
    /// # Errors
    /// What does not hold in it.
    pub(super) fn follow(&mut self, all: &[Seen<'_>], changed: usize) -> Result<(), String> {
        let seen = &all[changed];
        if seen.leads {
            self.on_leader(seen)?;
        }
        self.on_commit(seen)?;
        for leader in all.iter().filter(|seen| seen.leads) {
            self.check_leader(leader)?;
        }
        self.check_durable(all)
    }

    /// A read is asked for.
    pub(super) fn on_read(&mut self, read: u64) {
        self.reads.push((read, self.last_committed()));
    }

    /// A read may be answered at this index: everything that was committed when it was asked for must be in it.
    pub(super) fn on_read_answered(&self, read: u64, index: LogIndex) -> Result<(), String> {
        match self.reads.iter().find(|asked| asked.0 == read) {
            Some(&(_, floor)) if index < floor => {
                Err(format!("READ: answered at {index}, when {floor} was committed before"))
            }
            Some(_) => Ok(()),
            None => Err(format!("READ: nobody asked for {read}")),
        }
    }

    /// ELECT: one leader a term, for all time.
    fn on_leader(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        match self.leaders.binary_search_by_key(&seen.term, |leader| leader.0) {
            Ok(place) if self.leaders[place].1 != seen.id => {
                let other = self.leaders[place].1;
                Err(format!("ELECT: {} and {other} lead {}", seen.id, seen.term))
            }
            Ok(_) => Ok(()),
            Err(place) => {
                self.leaders.insert(place, (seen.term, seen.id));
                Ok(())
            }
        }
    }

    /// LEDGER: what was committed once is what everyone commits there.
    fn on_commit(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        for index in seen.log.cut_index.0 + 1..=seen.commit.0 {
            let entry =
                seen.log.entry(LogIndex(index)).ok_or("LEDGER: committed beyond the log")?;
            match self.entry(LogIndex(index)) {
                Some((committed, _)) if committed != entry => {
                    let id = seen.id;
                    return Err(format!("LEDGER: {id} commits {entry:?}, not {committed:?}"));
                }
                Some(_) => {}
                None if LogIndex(index) == self.last_committed().next() => {
                    self.committed.push((entry.clone(), seen.term));
                }
                None => return Err(format!("LEDGER: nobody saw what is before {entry:?}")),
            }
        }
        Ok(())
    }

    /// LEDGER: a leader has everything that was committed in the terms before its own (section 3.6.3).
    fn check_leader(&self, leader: &Seen<'_>) -> Result<(), String> {
        for (entry, term) in &self.committed {
            let has =
                entry.index <= leader.log.cut_index || leader.log.entry(entry.index) == Some(entry);
            if *term <= leader.term && !has {
                let (id, term) = (leader.id, leader.term);
                return Err(format!("LEDGER: {id} leads {term} without {entry:?}"));
            }
        }
        Ok(())
    }

    /// What is committed is on the disks of a majority.
    fn check_durable(&self, all: &[Seen<'_>]) -> Result<(), String> {
        for (entry, _) in &self.committed {
            let has = |seen: &&Seen<'_>| {
                entry.index <= seen.disk.cut_index || seen.disk.entry(entry.index) == Some(entry)
            };
            let disks = all.iter().filter(has).count();
            if disks * 2 <= all.len() {
                return Err(format!("DURABLE: {entry:?} is committed and on {disks} disks"));
            }
        }
        Ok(())
    }

    fn last_committed(&self) -> LogIndex {
        self.committed.last().map_or(LogIndex(0), |(entry, _)| entry.index)
    }

    fn entry(&self, index: LogIndex) -> Option<&(Entry, Term)> {
        self.committed.iter().find(|(entry, _)| entry.index == index)
    }
}

/// MATCH: where two logs have an entry of the same index and term, they are equal up to there (section 3.5).
pub(super) fn check_match(one: &Held, other: &Held) -> Result<(), String> {
    let cut = one.cut_index.max(other.cut_index);
    let common: Vec<(&Entry, &Entry)> = one
        .entries
        .iter()
        .filter(|entry| entry.index > cut)
        .filter_map(|entry| Some((entry, other.entry(entry.index)?)))
        .collect();
    let agreed = common.iter().rposition(|(a, b)| a.term == b.term).map_or(0, |last| last + 1);
    match common[..agreed].iter().find(|(a, b)| a != b) {
        Some((a, b)) => Err(format!("MATCH: {a:?} and {b:?} below an equal entry")),
        None => Ok(()),
    }
}
