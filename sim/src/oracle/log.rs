//! What a member's log holds: as it is written, as it becomes durable, and as it is found after a crash.

use ring_core::ids::{GroupId, LogIndex, LogSeq, Term, len_usize};
use ring_core::storage::Recovered;
use ring_core::storage::record::Batch;
use ring_core::store::StoreState;

use super::mirror::{EntryFact, Fact, LogMirror, facts_of};
use super::{Oracle, Progress, name};

impl Oracle {
    /// A member was started: what it found must be what was written, up to some batch.
    pub fn on_boot(&mut self, member: usize, log: &Recovered, store: &[StoreState]) {
        if self.members[member].lost {
            return;
        }
        self.on_recovered(member, log);
        // What is found was durable before it could be said so.
        self.on_stored(member, LogSeq(log.tail.next_seq.0.max(1) - 1));
        self.on_birth_recovered(member, log);
        let facts = &mut self.members[member];
        facts.dropping.clear();
        facts.durable_upto = LogSeq(log.tail.next_seq.0.max(1) - 1);
        facts.queue.clear();
        facts.written.clear();
        for (group, found) in &log.groups {
            facts.written.insert(*group, LogMirror::of(found));
            if let Some(vote) = found.vote {
                facts.votes.insert((*group, found.term), vote);
            }
        }
        facts.durable = facts.written.clone();
        for (group, mirror) in &facts.durable {
            if mirror.term_at(mirror.last()) == Some(mirror.term) {
                let group = self.groups.entry(*group).or_default();
                group.on_stored(member, mirror.replica, mirror.term, mirror.last());
            }
        }
        let known = facts.progress.iter_mut();
        let absent = known.filter(|(group, _)| store.iter().all(|s| s.group != **group));
        let mut forgotten = None;
        for (group, progress) in absent {
            if progress.persisted > LogIndex(0) {
                forgotten = Some((*group, progress.persisted));
            }
            *progress = Progress::default();
        }
        if let Some((group, index)) = forgotten {
            let problem = format!("{}: the store forgot {group}, synced at {index}", name(member));
            self.fail("ONCE", problem);
        }
        for state in store {
            self.on_store_found(member, state);
        }
    }

    /// A log directory, or a copy of one as a power cut would leave it, says this. It changes nothing.
    pub fn on_recovered(&mut self, member: usize, log: &Recovered) {
        let facts = &self.members[member];
        if facts.lost {
            return;
        }
        let upto = LogSeq(log.tail.next_seq.0.max(1) - 1);
        if upto < facts.durable_upto {
            let problem = format!(
                "{}: recovery ends at batch {upto}, but {} is durable",
                name(member),
                facts.durable_upto
            );
            return self.fail("RECOVER", problem);
        }
        let mut expected = facts.durable.clone();
        for (seq, batch) in &facts.queue {
            if *seq <= upto {
                batch.iter().for_each(|fact| fact.apply(&mut expected));
            }
        }
        for (group, mirror) in &expected {
            let problem = match log.groups.get(group) {
                None => Some(String::from("is missing")),
                Some(found) => mirror.differs_from(&LogMirror::of(found)),
            };
            if let Some(problem) = problem {
                let problem = format!("{}: recovered {group} {problem}", name(member));
                return self.fail("RECOVER", problem);
            }
        }
    }

    /// A batch goes to the log.
    pub fn on_append(&mut self, member: usize, batch: &Batch) {
        if self.members[member].lost {
            return;
        }
        self.on_birth_written(member, batch);
        let facts = facts_of(batch);
        for fact in &facts {
            let mirror = self.members[member].written.get(&fact.group());
            if let Err(problem) = fact.fits(mirror) {
                let problem = format!("{}: batch {}: {problem}", name(member), batch.seq);
                return self.fail("MATCH", problem);
            }
            if let Err(problem) = self.directory.on_fact(fact, mirror) {
                return self.fail("ORDER", format!("{}: {problem}", name(member)));
            }
            if let Fact::Entries { group, entries, .. } = fact {
                let before = mirror.and_then(|m| m.term_at(entries[0].index.prev()));
                let replaced = entries.iter().map(|e| mirror.and_then(|m| m.term_at(e.index)));
                let replaced: Vec<Option<Term>> = replaced.collect();
                if let Err((check, problem)) = self.on_entries(*group, before, &replaced, entries) {
                    return self.fail(check, format!("{}: {problem}", name(member)));
                }
            }
            if let Fact::Cut { group, index, .. } = fact {
                let progress = self.members[member].progress.get(group);
                let persisted = progress.map_or(LogIndex(0), |progress| progress.persisted);
                if *index > persisted {
                    let problem = format!(
                        "{}: cuts {group} at {index}; its store is durable up to {persisted}",
                        name(member)
                    );
                    return self.fail("RECOVER", problem);
                }
            }
            fact.apply(&mut self.members[member].written);
        }
        self.members[member].queue.push_back((batch.seq, facts));
    }

    fn on_entries(
        &mut self,
        group: GroupId,
        before: Option<Term>,
        replaced: &[Option<Term>],
        entries: &[EntryFact],
    ) -> Result<(), (&'static str, String)> {
        let facts = self.groups.entry(group).or_default();
        let mut previous = before.unwrap_or_default();
        for (entry, replaced) in entries.iter().zip(replaced) {
            let (index, term) = (entry.index, entry.term);
            let known = facts.entries.entry((index, term)).or_insert((entry.hash, previous));
            if *known != (entry.hash, previous) {
                let problem =
                    format!("{group} {index} {term} stands in two logs with other content");
                return Err(("MATCH", problem));
            }
            let applied = index.0.checked_sub(1).and_then(|i| facts.ledger.get(len_usize(i)));
            // A leader of the past may well append here what never commits; but nobody gives up what was committed.
            if let Some((applied, _)) = applied
                && *applied != term
                && *replaced == Some(*applied)
            {
                let problem = format!("{group} {index}: {term} replaces the applied {applied}");
                return Err(("LEDGER", problem));
            }
            previous = term;
        }
        Ok(())
    }

    /// All batches up to this one are durable.
    pub fn on_stored(&mut self, member: usize, upto: LogSeq) {
        let facts = &mut self.members[member];
        if facts.lost {
            return;
        }
        while let Some((seq, _)) = facts.queue.front()
            && *seq <= upto
        {
            let (_, batch) = facts.queue.pop_front().expect("there is a first one");
            for fact in batch {
                if let Some((group, term, vote)) = fact.vote() {
                    facts.votes.insert((group, term), vote);
                }
                // The next replica on this member is another voter.
                if let Fact::Dropped { group } = fact {
                    facts.votes.retain(|(voted, _), _| *voted != group);
                    let mirror = facts.durable.get(&group);
                    if let Some((replica, mirror)) = mirror.and_then(|m| Some((m.replica?, m))) {
                        // One that came back on an old copy has been buried with all that it said.
                        self.buried.entry((group, replica)).or_insert_with(|| mirror.clone());
                        self.directory.on_gone(group, replica);
                    }
                }
                if let Fact::Made { group, replica } = fact {
                    self.directory.on_made(group, replica);
                }
                fact.apply(&mut facts.durable);
                if let Fact::Entries { group, entries } = &fact
                    && let Some(last) = entries.last()
                    && let Some(mirror) = facts.durable.get(group)
                    && mirror.term == last.term
                {
                    let group = self.groups.entry(*group).or_default();
                    group.on_stored(member, mirror.replica, last.term, last.index);
                }
            }
        }
        facts.durable_upto = facts.durable_upto.max(upto);
        self.on_birth_stored(member, upto);
    }
}
