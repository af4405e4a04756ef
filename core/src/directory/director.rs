//! The part of the directory's leader: from what is asked to the next table.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use super::plan::{Change, ChangeRefused, Placement, Registration};
use super::table::{Registered, Standing, Table};
use crate::ids::{GroupId, MemberId, Revision, Term};
use crate::time::Instant;

/// Gives the orders while its node leads the directory's group; idle otherwise.
///
/// It reads the table when it begins to lead and after each write whose outcome is not certain, and writes one
/// table at a time, on the revision it has read. A director that has been deposed meanwhile fails at that.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Director {
    settings: Settings,
    /// The term in which its node leads. In another one somebody else may have written in between.
    term: Option<Term>,
    stage: Stage,
    /// What was asked for and is not in the table yet, each once.
    changes: VecDeque<Change>,
    /// Refusals for those who asked.
    refused: Vec<(MemberId, ChangeRefused)>,
    /// Since when a member is away, none if it is here. Of who is not in it nothing is known yet: that is no reason
    /// to take it for lost, nor for returned.
    presence: BTreeMap<MemberId, Option<Instant>>,
    /// Orders under way, and since when this director has known of them: those of the table of `tracked`.
    under_way: BTreeMap<GroupId, (u64, Instant)>,
    tracked: u64,
    /// Groups whose orders have been under way for so long that they take nobody's turn.
    stalled: BTreeSet<GroupId>,
}

/// Bounds of a director's patience and haste.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// A member that is away for longer is given up, and an order that is under way for longer is not waited for.
    pub replace_after: Duration,
    /// A member that is away for longer, and not just for the time in which a broken link is made anew, may lose its
    /// name to another one.
    pub name_after: Duration,
    /// Most orders under way at once.
    pub moving_max: u64,
    /// Most registered members.
    pub members_max: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Stage {
    /// Somebody else leads.
    Idle,
    /// The table must be read; whether the question is under way.
    Reading { asked: bool },
    /// What the directory says, at this revision.
    Ready {
        table: Table,
        revision: Revision,
        /// The table is where the placement wants it: only a change asks for another one.
        at_rest: bool,
    },
    /// This table replaces that of the revision; whether the write is under way.
    Writing { next: Table, on: Revision, asked: bool },
}

/// What a director asks of its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Read the table, linearizably; answered by [`Director::on_read`].
    Read,
    /// Replace the table; answered by [`Director::on_written`].
    Write {
        /// The new one, encoded.
        value: Vec<u8>,
        /// Only if the present one is of this revision; 0: there is none.
        on: Revision,
    },
}

/// Most changes that wait.
const CHANGES_MAX: usize = 4096;

impl Director {
    /// One that does not lead.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            term: None,
            stage: Stage::Idle,
            changes: VecDeque::new(),
            refused: Vec::new(),
            presence: BTreeMap::new(),
            under_way: BTreeMap::new(),
            tracked: 0,
            stalled: BTreeSet::new(),
        }
    }

    /// Its node leads the directory's group in this term, or no longer does.
    pub fn on_lead(&mut self, term: Option<Term>) {
        if self.term == term {
            return;
        }
        self.term = term;
        self.stage = match term {
            Some(_) => Stage::Reading { asked: false },
            None => Stage::Idle,
        };
        // Who asked asks again, the next leader.
        self.changes.clear();
        self.refused.clear();
        self.presence.clear();
        self.under_way.clear();
        self.tracked = 0;
        self.stalled.clear();
    }

    /// True while its node leads.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.stage != Stage::Idle
    }

    /// Something is asked for. It is forgotten when the leader changes, or when too much waits.
    pub fn ask(&mut self, change: Change) {
        if self.leads() && self.changes.len() < CHANGES_MAX && !self.changes.contains(&change) {
            self.changes.push_back(change);
        }
    }

    /// A member can be reached from here, or not.
    pub fn on_presence(&mut self, now: Instant, member: MemberId, is_here: bool) {
        if !self.leads() {
            return;
        }
        let since = self.presence.entry(member).or_default();
        *since = if is_here { None } else { since.or(Some(now)) };
    }

    /// Its node has learned of a table of this version. If that is newer than what was read, it was written by the
    /// director before this one, whose write came in after the reading: it is read anew. Without that a director
    /// that has nothing to write would never notice.
    pub fn on_version(&mut self, version: u64) {
        if let Stage::Ready { table, .. } = &self.stage
            && table.version < version
        {
            self.stage = Stage::Reading { asked: false };
        }
    }

    /// The directory's answer to [`Ask::Read`]; none when it failed.
    pub fn on_read(&mut self, answer: Option<(Table, Revision)>) {
        if let Stage::Reading { asked } = &mut self.stage {
            match answer {
                Some((table, revision)) => {
                    self.stage = Stage::Ready { table, revision, at_rest: false };
                }
                None => *asked = false,
            }
        }
    }

    /// The answer to [`Ask::Write`]: the revision of the new table, or none when it is not known whether it counts.
    /// Returns the table that counts from now on.
    pub fn on_written(&mut self, revision: Option<Revision>) -> Option<Table> {
        let Stage::Writing { next, asked: true, .. } = &self.stage else { return None };
        let next = next.clone();
        match revision {
            Some(revision) => {
                self.stage = Stage::Ready { table: next.clone(), revision, at_rest: false };
                Some(next)
            }
            None => {
                self.stage = Stage::Reading { asked: false };
                None
            }
        }
    }

    /// Works out the next table from what was asked, who is away and where the shards belong. Called as often as one
    /// likes; between two calls at most one question comes of it, from [`Director::take_ask`].
    pub fn drive<P: Placement>(&mut self, now: Instant, placement: impl Fn(&Table) -> P) {
        self.note_who_is_away(now);
        self.note_who_is_stalled(now);
        let Stage::Ready { table, revision, at_rest } = &mut self.stage else { return };
        // The next table follows from this one and the changes alone.
        if *at_rest && self.changes.is_empty() {
            return;
        }
        let mut next = table.clone();
        let (presence, name_after) = (&self.presence, self.settings.name_after);
        // A link that broke may belong to a member that is well. Where its namesake listens it is not any more; else
        // it has the time to come back.
        let is_gone = |known: &Registered, who: &Registration| {
            let Some(Some(since)) = presence.get(&known.id) else { return false };
            let is_lost = known.standing == Standing::Lost;
            is_lost || known.address == who.address || now.since(*since) >= name_after
        };
        let members_max = self.settings.members_max;
        while let Some(change) = self.changes.pop_front() {
            let changed = match &change {
                Change::Leave { member, force: false } => {
                    let is_here = |member| presence.get(&member) == Some(&None);
                    let leaves = next.with(&change, members_max, is_gone);
                    leaves.and_then(|leaves| refuse_loss(leaves, *member, &placement, is_here))
                }
                Change::Leave { force: true, .. } => {
                    let away = presence.iter().filter(|(_, since)| since.is_some());
                    let given_up = next.without(away.map(|(&member, _)| member));
                    given_up.with(&change, members_max, is_gone)
                }
                Change::Register(_)
                | Change::Lose(_)
                | Change::Return(_)
                | Change::Settle { .. } => next.with(&change, members_max, is_gone),
            };
            match changed {
                Ok(Some(changed)) => next = changed,
                Ok(None) => {}
                Err(reason) => {
                    if let Some(asker) = change.asker() {
                        self.refused.push((asker, reason));
                    }
                }
            }
        }
        let placed = placement(&next);
        if let Some(advanced) = next.advanced(&placed, self.settings.moving_max, &self.stalled) {
            next = advanced;
        }
        // A cluster's first table is yet to be written down.
        if next != *table || *revision == Revision(0) {
            self.stage = Stage::Writing { next, on: *revision, asked: false };
        } else {
            *at_rest = true;
        }
    }

    /// Members that were away for too long are lost, and those that are back return.
    fn note_who_is_away(&mut self, now: Instant) {
        let Stage::Ready { table, .. } = &self.stage else { return };
        self.presence.retain(|&member, _| table.member(member).is_some());
        for member in &table.members {
            let Some(since) = self.presence.get(&member.id) else { continue };
            let change = match member.standing {
                Standing::Active => since
                    .filter(|&since| now.since(since) >= self.settings.replace_after)
                    .map(|_| Change::Lose(member.id)),
                Standing::Lost if since.is_none() => Some(Change::Return(member.id)),
                Standing::Lost | Standing::Leaving => None,
            };
            self.changes.extend(change);
        }
    }

    /// Orders that are not settled for long may never be: their groups may have lost a majority meanwhile. Others do not
    /// wait for them for ever.
    fn note_who_is_stalled(&mut self, now: Instant) {
        let Stage::Ready { table, at_rest, .. } = &mut self.stage else { return };
        if self.tracked != table.version {
            self.tracked = table.version;
            let before = core::mem::take(&mut self.under_way);
            let known = |group, order| before.get(&group).filter(|&&(known, _)| known == order);
            let moving = table.groups.iter().filter(|assignment| !assignment.settled);
            let moving = moving.map(|assignment| (assignment.group, assignment.order));
            let since = |(group, order)| (group, *known(group, order).unwrap_or(&(order, now)));
            self.under_way = moving.map(since).collect();
        }
        let is_stalled = |&(_, &(_, since)): &(_, &(u64, Instant))| {
            now.since(since) >= self.settings.replace_after
        };
        let stalled = self.under_way.iter().filter(is_stalled).map(|(&group, _)| group);
        let stalled: BTreeSet<GroupId> = stalled.collect();
        if stalled != self.stalled {
            self.stalled = stalled;
            *at_rest = false;
        }
    }

    /// What is to be asked of the directory's group now.
    pub fn take_ask(&mut self) -> Option<Ask> {
        match &mut self.stage {
            Stage::Reading { asked } if !*asked => {
                *asked = true;
                Some(Ask::Read)
            }
            Stage::Writing { next, on, asked } if !*asked => {
                *asked = true;
                Some(Ask::Write { value: next.encode(), on: *on })
            }
            Stage::Idle | Stage::Reading { .. } | Stage::Ready { .. } | Stage::Writing { .. } => {
                None
            }
        }
    }

    /// Who asked for what cannot be.
    pub fn take_refused(&mut self) -> Vec<(MemberId, ChangeRefused)> {
        core::mem::take(&mut self.refused)
    }
}

/// The table in which a member goes, unless those who would hold its replicas could decide nothing.
fn refuse_loss<P: Placement>(
    leaves: Option<Table>,
    member: MemberId,
    placement: &impl Fn(&Table) -> P,
    is_here: impl Fn(MemberId) -> bool,
) -> Result<Option<Table>, ChangeRefused> {
    match leaves {
        Some(table) if table.lacks_majority(member, &placement(&table), is_here) => {
            Err(ChangeRefused::NoMajority)
        }
        leaves => Ok(leaves),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::genesis::{Founder, Genesis};
    use crate::ids::{ClusterId, GroupId};

    fn table() -> Table {
        let founder = |id| Founder {
            id: MemberId(id),
            name: alloc::format!("m{id}"),
            address: alloc::string::String::new(),
            birth: id,
        };
        Table::of_genesis(&Genesis {
            cluster: ClusterId(1),
            name: alloc::string::String::from("ring"),
            members: (1..=3).map(founder).collect(),
            shards: 1,
            replication: 3,
        })
    }

    fn settings() -> Settings {
        let (replace_after, name_after) = (Duration::from_secs(9), Duration::from_secs(2));
        Settings { replace_after, name_after, moving_max: 1, members_max: 9 }
    }

    fn nowhere(_: &Table) -> impl Placement + use<> {
        |_: GroupId| Vec::new()
    }

    /// The write of the director before it came in after the reading: a table that others have tells so.
    #[test]
    fn a_director_that_has_read_too_early_reads_again() {
        let mut director = Director::new(settings());
        director.on_lead(Some(crate::ids::Term(1)));
        assert_eq!(director.take_ask(), Some(Ask::Read));
        director.on_read(Some((table(), Revision(4))));
        director.drive(Instant(0), nowhere);
        director.on_version(table().version);
        assert_eq!(director.take_ask(), None, "it has the newest");

        director.on_version(table().version + 1);
        assert_eq!(director.take_ask(), Some(Ask::Read));
        director.on_read(Some((Table { version: 2, ..table() }, Revision(5))));
        director.on_version(2);
        assert_eq!(director.take_ask(), None);
    }
}
