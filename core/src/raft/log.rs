//! A replica's log in memory: the entries behind the cut, and the memberships that they set.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::message::{Entry, EntryBody, Membership};
use crate::ids::{LogIndex, Term, len_u64};

/// The log behind the cut. What lies before is in the store, durably.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Log {
    cut_index: LogIndex,
    cut_term: Term,
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Up to here the entries are durable on this member.
    stored: LogIndex,
    /// The membership at the cut, then those that entries behind it set. Never empty.
    memberships: VecDeque<(LogIndex, Membership)>,
}

impl Log {
    /// A log as recovery found it: all of it durable.
    ///
    /// # Panics
    /// When the entries are not contiguous from the cut on; recovery has made sure of that.
    #[must_use]
    pub fn new(
        cut_index: LogIndex,
        cut_term: Term,
        membership: Membership,
        entries: Vec<Entry>,
    ) -> Self {
        let mut log = Self {
            cut_index,
            cut_term,
            entries: VecDeque::new(),
            bytes: 0,
            stored: cut_index,
            memberships: VecDeque::from([(cut_index, membership)]),
        };
        for entry in entries {
            log.push(entry);
        }
        log.stored = log.last_index();
        log
    }

    /// The last index that is cut off.
    #[must_use]
    pub fn cut_index(&self) -> LogIndex {
        self.cut_index
    }

    /// Its term.
    #[must_use]
    pub fn cut_term(&self) -> Term {
        self.cut_term
    }

    /// The membership in force at the cut.
    #[must_use]
    pub fn cut_membership(&self) -> &Membership {
        &self.memberships.front().expect("never empty").1
    }

    /// The last index.
    #[must_use]
    pub fn last_index(&self) -> LogIndex {
        self.entries.back().map_or(self.cut_index, |entry| entry.index)
    }

    /// Its term.
    #[must_use]
    pub fn last_term(&self) -> Term {
        self.entries.back().map_or(self.cut_term, |entry| entry.term)
    }

    /// Up to here the entries are durable on this member.
    #[must_use]
    pub fn stored(&self) -> LogIndex {
        self.stored
    }

    /// Bytes of the entries behind the cut.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The term of an index; none before the cut and behind the end.
    #[must_use]
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.cut_index {
            return Some(self.cut_term);
        }
        self.entry(index).map(|entry| entry.term)
    }

    /// The entry at an index.
    #[must_use]
    pub fn entry(&self, index: LogIndex) -> Option<&Entry> {
        let place = index.0.checked_sub(self.cut_index.0)?.checked_sub(1)?;
        self.entries.get(usize::try_from(place).ok()?)
    }

    /// The membership in force: the last one in the log.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        &self.memberships.back().expect("never empty").1
    }

    /// Where the membership in force stands in the log.
    #[must_use]
    pub fn membership_index(&self) -> LogIndex {
        self.memberships.back().expect("never empty").0
    }

    /// The memberships that may be in force for all that is known when this index is committed: the last one up to it, and
    /// those after it.
    pub(super) fn memberships_since(&self, commit: LogIndex) -> impl Iterator<Item = &Membership> {
        let later = self.memberships.iter().skip(1).map(|(at, _)| *at).chain([LogIndex(u64::MAX)]);
        let spans = self.memberships.iter().zip(later);
        spans.filter(move |(_, next)| *next > commit).map(|((_, membership), _)| membership)
    }

    /// Copies (cheaply) the entries `from..=to`, as many as fit but at least one.
    #[must_use]
    pub fn slice(&self, from: LogIndex, to: LogIndex, count: usize, bytes: usize) -> Vec<Entry> {
        let most = usize::try_from((to.0 + 1).saturating_sub(from.0)).unwrap_or(usize::MAX);
        let mut slice = Vec::with_capacity(most.min(count).min(SLICE_AT_ONCE));
        let mut total = 0;
        let mut index = from;
        while index <= to && slice.len() < count {
            let Some(entry) = self.entry(index) else {
                break;
            };
            total += entry.body.size();
            if total > bytes && !slice.is_empty() {
                break;
            }
            slice.push(entry.clone());
            index = index.next();
        }
        slice
    }

    /// The greatest index up to `index` whose term is at most `term`: where two logs may still agree (the
    /// dissertation's faster back-tracking, section 3.5). Never before the cut.
    #[must_use]
    pub fn agree_at_most(&self, index: LogIndex, term: Term) -> (LogIndex, Term) {
        let mut index = index.min(self.last_index());
        while index > self.cut_index {
            let here = self.term_at(index).expect("between cut and end");
            if here <= term {
                return (index, here);
            }
            index = index.prev();
        }
        (self.cut_index, self.cut_term)
    }

    /// True when a log that ends so is at least as up to date as this one (section 3.6.1): terms first.
    #[must_use]
    pub fn is_up_to_date(&self, last_index: LogIndex, last_term: Term) -> bool {
        (last_term, last_index) >= (self.last_term(), self.last_index())
    }

    pub(super) fn push(&mut self, entry: Entry) {
        assert_eq!(entry.index, self.last_index().next(), "entries are contiguous");
        assert!(entry.term >= self.last_term(), "terms never fall");
        if let EntryBody::Membership(membership) = &entry.body {
            self.memberships.push_back((entry.index, Membership::clone(membership)));
        }
        self.bytes += entry.body.size();
        self.entries.push_back(entry);
    }

    /// Drops everything from `index` on.
    pub(super) fn truncate_from(&mut self, index: LogIndex) {
        assert!(index > self.cut_index, "what is cut is committed");
        while self.entries.back().is_some_and(|entry| entry.index >= index) {
            let entry = self.entries.pop_back().expect("looked at just now");
            self.bytes -= entry.body.size();
        }
        while self.memberships.len() > 1 && self.membership_index() >= index {
            self.memberships.pop_back();
        }
        self.stored = self.stored.min(index.prev());
    }

    /// The entry (`last`, `term`) and all before it are durable. True when that is news.
    pub(super) fn on_stored(&mut self, last: LogIndex, term: Term) -> bool {
        // An entry that was replaced since says nothing about the one in its place.
        if self.term_at(last) != Some(term) || last <= self.stored {
            return false;
        }
        self.stored = last;
        true
    }

    /// Drops everything up to `index`, which must be in the log.
    pub(super) fn cut(&mut self, index: LogIndex) {
        let term = self.term_at(index).expect("the cut is in the log");
        self.drop_front(index, term);
        while self.memberships.get(1).is_some_and(|&(at, _)| at <= index) {
            self.memberships.pop_front();
        }
        self.memberships.front_mut().expect("never empty").0 = index;
    }

    /// A snapshot takes the log's place up to `index`. What follows stays only if the log holds that very entry
    /// (section 5.1).
    pub(super) fn reset(&mut self, index: LogIndex, term: Term, membership: Membership) {
        if self.term_at(index) == Some(term) {
            self.drop_front(index, term);
            self.memberships.retain(|&(at, _)| at > index);
        } else {
            self.entries.clear();
            self.bytes = 0;
            self.memberships.clear();
            self.cut_index = index;
            self.cut_term = term;
            self.stored = index;
        }
        self.memberships.push_front((index, membership));
    }

    fn drop_front(&mut self, index: LogIndex, term: Term) {
        while self.entries.front().is_some_and(|entry| entry.index <= index) {
            let entry = self.entries.pop_front().expect("looked at just now");
            self.bytes -= entry.body.size();
        }
        self.cut_index = index;
        self.cut_term = term;
        self.stored = self.stored.max(index);
    }

    pub(super) fn check(&self) {
        assert_eq!(
            self.last_index().0 - self.cut_index.0,
            len_u64(self.entries.len()),
            "5: entries are contiguous"
        );
        assert!(self.stored >= self.cut_index, "2: the cut is durable");
        assert!(!self.memberships.is_empty(), "a membership is always in force");
    }
}

/// Room is made for so many entries of a slice before it is known how many fit.
const SLICE_AT_ONCE: usize = 256;
