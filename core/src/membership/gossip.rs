//! Which news still has to be told: the least told first, of equals the newest (SWIM section 4.1).
//!
//! Each piece is told a bounded number of times. What a member hears again while it still tells it counts as told: who
//! said it tells it too (Demers et al. 1987, section 1.4, rumors with feedback and counters). In a cluster where
//! everybody knows it already it therefore dies out twice as fast, and where few do nothing changes.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::ids::MemberId;

/// Members of whom something new is known. What is told is what is known of the member when a datagram is made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct News {
    order: BTreeSet<Place>,
    places: BTreeMap<MemberId, Place>,
    added: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Place {
    told: u32,
    /// Counts down with each addition, so that the newest comes first.
    age: u64,
    member: MemberId,
}

impl News {
    /// Something new is known of a member.
    pub(crate) fn add(&mut self, member: MemberId) {
        self.add_told(member, 0);
    }

    /// Something is known of a member that counts as told so often already.
    pub(crate) fn add_told(&mut self, member: MemberId, told: u32) {
        self.added += 1;
        self.put(Place { told, age: u64::MAX - self.added, member });
    }

    /// Somebody else tells the same of the member. That counts as told once; after `limit` times it is forgotten.
    pub(crate) fn heard(&mut self, member: MemberId, limit: u32) {
        if let Some(place) = self.places.get(&member) {
            self.told(*place, limit);
        }
    }

    fn told(&mut self, place: Place, limit: u32) {
        if place.told + 1 >= limit {
            self.remove(place.member);
        } else {
            self.put(Place { told: place.told + 1, ..place });
        }
    }

    /// There is nothing to tell of the member any more.
    pub(crate) fn remove(&mut self, member: MemberId) {
        if let Some(place) = self.places.remove(&member) {
            self.order.remove(&place);
        }
    }

    pub(crate) fn contains(&self, member: MemberId) -> bool {
        self.places.contains_key(&member)
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// Offers the members in order until `take` says to stop; those it took count as told, and are forgotten when
    /// they were told `limit` times.
    pub(crate) fn tell(&mut self, limit: u32, mut take: impl FnMut(MemberId) -> Taken) {
        let mut told = alloc::vec::Vec::new();
        for place in &self.order {
            match take(place.member) {
                Taken::Told => told.push(*place),
                Taken::Passed => {}
                Taken::Full => break,
            }
        }
        for place in told {
            self.told(place, limit);
        }
    }

    fn put(&mut self, place: Place) {
        if let Some(old) = self.places.insert(place.member, place) {
            self.order.remove(&old);
        }
        self.order.insert(place);
    }

    pub(crate) fn check(&self) {
        assert_eq!(self.order.len(), self.places.len(), "each member has one place");
        for (member, place) in &self.places {
            assert!(place.member == *member && self.order.contains(place), "places agree");
        }
    }
}

/// What became of news that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is on its way.
    Told,
    /// Not this one.
    Passed,
    /// There is no room for this one or any other.
    Full,
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn round(news: &mut News, limit: u32, room: usize) -> Vec<u64> {
        let mut told = Vec::new();
        news.tell(limit, |member| {
            if told.len() == room {
                return Taken::Full;
            }
            told.push(member.0);
            Taken::Told
        });
        news.check();
        told
    }

    #[test]
    fn the_least_told_comes_first_and_each_is_told_so_often() {
        let mut news = News::default();
        news.add(MemberId(1));
        news.add(MemberId(2));
        news.add(MemberId(3));
        assert_eq!(round(&mut news, 2, 2), [3, 2], "the newest first");
        assert_eq!(round(&mut news, 2, 2), [1, 3], "then the least told");
        assert_eq!(round(&mut news, 2, 9), [2, 1]);
        assert_eq!(round(&mut news, 2, 9), [], "each was told twice");
    }

    #[test]
    fn what_is_heard_counts_as_told() {
        let mut news = News::default();
        news.add(MemberId(1));
        news.add_told(MemberId(2), 3);
        news.heard(MemberId(1), 4);
        news.heard(MemberId(9), 4);
        assert_eq!(round(&mut news, 4, 1), [1], "it was told once, the other one three times");
        assert_eq!(round(&mut news, 4, 9), [1, 2]);
        news.heard(MemberId(1), 4);
        assert_eq!(news.len(), 0);
    }

    #[test]
    fn what_is_new_again_is_told_again() {
        let mut news = News::default();
        news.add(MemberId(1));
        assert_eq!(round(&mut news, 2, 9), [1]);
        news.add(MemberId(1));
        assert_eq!(round(&mut news, 2, 9), [1]);
        assert_eq!(round(&mut news, 2, 9), [1]);
        assert!(!news.contains(MemberId(1)));
    }
}
