//! What may still be answered.

use alloc::collections::VecDeque;
use core::net::SocketAddr;

use crate::ids::MemberId;
use crate::time::Instant;

/// A datagram that may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Question {
    /// Who may answer; none: whoever is at the address.
    pub(super) to: Option<MemberId>,
    pub(super) why: Why,
    pub(super) sent: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Why {
    /// A ping of the running probe, or of one before.
    Probe,
    /// A request to another to ping the probe's target.
    Indirect { target: MemberId, nacked: bool },
    /// A ping for another.
    Relay { origin: SocketAddr, echo: u64, due: Instant },
    /// For a proof, to tell a suspect of its suspicion, or to look after the dead.
    Other,
    /// To a seed.
    Seed(SocketAddr),
}

/// Questions by the number of their datagram. Numbers rise, so the list is sorted; there are few, and the latest
/// are answered first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Questions {
    list: VecDeque<(u64, Question)>,
}

impl Questions {
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn oldest(&self) -> Option<&(u64, Question)> {
        self.list.front()
    }

    pub(super) fn get(&self, seq: u64) -> Option<&Question> {
        self.place(seq).map(|place| &self.list[place].1)
    }

    pub(super) fn get_mut(&mut self, seq: u64) -> Option<&mut Question> {
        self.place(seq).map(|place| &mut self.list[place].1)
    }

    pub(super) fn remove(&mut self, seq: u64) -> Option<Question> {
        let place = self.place(seq)?;
        self.list.remove(place).map(|(_, question)| question)
    }

    /// Adds the question of the last datagram.
    pub(super) fn push(&mut self, seq: u64, question: Question) {
        let last = self.list.back().map(|(last, _)| *last);
        assert!(last.is_none_or(|last| last < seq), "numbers rise");
        self.list.push_back((seq, question));
    }

    fn place(&self, seq: u64) -> Option<usize> {
        self.list.binary_search_by_key(&seq, |(seq, _)| *seq).ok()
    }
}
