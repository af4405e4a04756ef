//! The part of the directory's leader: from what is asked to the next table.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use super::plan::{Change, ChangeRefused, Placement};
use super::table::{Standing, Table};
use crate::ids::{MemberId, Revision};
use crate::time::Instant;

/// Gives the orders while its node leads the directory's group; idle otherwise.
///
/// It reads the table when it begins to lead and after each write whose outcome is not certain, and writes one
/// table at a time, on the revision it has read. A director that has been deposed meanwhile fails at that.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Director {
    settings: Settings,
    stage: Stage,
    /// What was asked for and is not in the table yet, each once.
    changes: VecDeque<Change>,
    /// Refusals for those who asked.
    refused: Vec<(MemberId, ChangeRefused)>,
    /// Since when a member is away; who is here is not in it.
    away: BTreeMap<MemberId, Instant>,
}

/// Bounds of a director's patience and haste.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// A member that is away for longer is given up.
    pub replace_after: Duration,
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
    Ready { table: Table, revision: Revision },
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
            stage: Stage::Idle,
            changes: VecDeque::new(),
            refused: Vec::new(),
            away: BTreeMap::new(),
        }
    }

    /// Its node leads the directory's group, or no longer does.
    pub fn on_lead(&mut self, leads: bool) {
        match (&self.stage, leads) {
            (Stage::Idle, true) => self.stage = Stage::Reading { asked: false },
            (_, true) | (Stage::Idle, false) => {}
            (_, false) => {
                self.stage = Stage::Idle;
                // Who asked asks again, the next leader.
                self.changes.clear();
                self.refused.clear();
                self.away.clear();
            }
        }
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
        if is_here {
            self.away.remove(&member);
        } else if self.leads() {
            self.away.entry(member).or_insert(now);
        }
    }

    /// The directory's answer to [`Ask::Read`]; none when it failed.
    pub fn on_read(&mut self, answer: Option<(Table, Revision)>) {
        if let Stage::Reading { asked } = &mut self.stage {
            match answer {
                Some((table, revision)) => self.stage = Stage::Ready { table, revision },
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
                self.stage = Stage::Ready { table: next.clone(), revision };
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
        let Stage::Ready { table, revision } = &self.stage else { return };
        let (table, revision) = (table.clone(), *revision);
        let mut next = table.clone();
        self.note_who_is_away(now, &table);
        while let Some(change) = self.changes.pop_front() {
            let is_here = |member: MemberId| !self.away.contains_key(&member);
            match next.with(&change, self.settings.members_max, is_here) {
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
        if let Some(advanced) = next.advanced(&placed, self.settings.moving_max) {
            next = advanced;
        }
        // A cluster's first table is yet to be written down.
        if next != table || revision == Revision(0) {
            self.stage = Stage::Writing { next, on: revision, asked: false };
        }
    }

    /// Members that were away for too long are lost, and those that are back return.
    fn note_who_is_away(&mut self, now: Instant, table: &Table) {
        for member in &table.members {
            let since = self.away.get(&member.id);
            let change = match member.standing {
                Standing::Active => since
                    .filter(|&&since| now.since(since) >= self.settings.replace_after)
                    .map(|_| Change::Lose(member.id)),
                Standing::Lost if since.is_none() => Some(Change::Return(member.id)),
                Standing::Lost | Standing::Leaving => None,
            };
            self.changes.extend(change);
        }
    }

    /// When somebody who is away will have been so for too long.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let Stage::Ready { table, .. } = &self.stage else { return None };
        let active = table.active().filter_map(|(member, _)| self.away.get(&member));
        active.map(|&since| since + self.settings.replace_after).min()
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
