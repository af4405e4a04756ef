//! Which members hold the shards.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use alloc::vec::Vec;
use core::mem;

use super::SLOTS;
use super::placement::{Member, members};
use super::ranking::Distance;
use crate::ids::{GroupId, MemberId, len_u64};

/// For each shard the members that hold its replicas; the first is its preferred leader.
///
/// A pure function of the set of members and weights, the number of shards and that of replicas. A shard is as far
/// from a member as the first of its slots.
///
/// 1. Each shard has as many replicas as were asked for, on different members, or one on each member if there are
///    fewer.
/// 2. Every member holds 0.90 of its share of the replicas, rounded down, to 1.10, rounded down, or the share rounded
///    up if that is more. No share is more than a replica of each shard: what a heavy member cannot hold is shared
///    by the others.
/// 3. Of the shards each member leads its share, rounded down or up, as far as the replicas that it holds allow.
/// 4. Those that stand second behind one leader are as evenly spread as the replicas allow: they lead when it fails.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ShardPlacement {
    replicas: Vec<Vec<MemberId>>,
}

impl ShardPlacement {
    /// Places so many shards with so many replicas each on a set of members, of which those of weight 0 and clients
    /// hold nothing.
    #[must_use]
    pub fn new(set: impl IntoIterator<Item = (MemberId, u16)>, shards: u32, replicas: u32) -> Self {
        let members = members(set, SLOTS);
        let replicas = usize::try_from(replicas).unwrap_or(usize::MAX).min(members.len());
        let order = Order::new(&members, shards);
        if replicas == 0 {
            return Self { replicas: vec![Vec::new(); order.slots.len()] };
        }
        let held = hold(&order, replicas);
        let leaders = lead(&order, &held);
        Self { replicas: line_up(&order, held, &leaders) }
    }

    /// The members that hold a shard's replicas, its preferred leader first. Empty for a group that is no shard.
    #[must_use]
    pub fn replicas(&self, shard: GroupId) -> &[MemberId] {
        let index = usize::try_from(shard.prev().0).ok().filter(|_| shard != GroupId::DIRECTORY);
        index.and_then(|index| self.replicas.get(index)).map_or(&[], Vec::as_slice)
    }

    /// The member that should lead a shard; none when there is no member.
    #[must_use]
    pub fn leader(&self, shard: GroupId) -> Option<MemberId> {
        self.replicas(shard).first().copied()
    }

    /// Each shard with the members that hold its replicas.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (GroupId, &[MemberId])> + '_ {
        let mut group = GroupId(0);
        self.replicas.iter().map(move |replicas| {
            group = group.next();
            (group, replicas.as_slice())
        })
    }
}

/// How far the shards are from the members.
struct Order<'a> {
    members: &'a [Member],
    /// The first slot of each shard.
    slots: Vec<u16>,
}

impl<'a> Order<'a> {
    fn new(members: &'a [Member], shards: u32) -> Self {
        let first = |shard: u32| {
            let slot = (u64::from(shard) * u64::from(SLOTS)).div_ceil(u64::from(shards));
            u16::try_from(slot).unwrap_or(u16::MAX)
        };
        Self { members, slots: (0..shards).map(first).collect() }
    }

    fn distance(&self, shard: usize, place: u16) -> Distance {
        self.members[usize::from(place)].ranking.distance_of(self.slots[shard], place)
    }

    /// Members, the nearest first.
    fn sorted(&self, shard: usize, places: impl Iterator<Item = u16>) -> Vec<u16> {
        let mut distances: Vec<_> = places.map(|place| self.distance(shard, place)).collect();
        distances.sort_unstable();
        distances.into_iter().map(Distance::member).collect()
    }

    fn nearest(&self, shard: usize, count: usize) -> Vec<u16> {
        let mut distances: Vec<_> = self.all().map(|place| self.distance(shard, place)).collect();
        if count < distances.len() {
            distances.select_nth_unstable(count);
            distances.truncate(count);
        }
        distances.into_iter().map(Distance::member).collect()
    }

    /// The nearest pairs first.
    fn pairs(&self, candidates: &[Vec<u16>]) -> Vec<(usize, u16)> {
        let of = |(shard, places): (usize, &Vec<u16>)| {
            let pair = |&place: &u16| (self.distance(shard, place), shard);
            places.iter().map(pair).collect::<Vec<_>>()
        };
        let mut pairs: Vec<_> = candidates.iter().enumerate().flat_map(of).collect();
        pairs.sort_unstable();
        pairs.into_iter().map(|(distance, shard)| (shard, distance.member())).collect()
    }

    fn all(&self) -> impl Iterator<Item = u16> + use<> {
        0..u16::try_from(self.members.len()).expect("placed members have a place")
    }
}

/// Who holds each shard's replicas: the nearest pairs of shard and member first, as long as the shard wants one more
/// and the member has room. First every member gets the least that it must hold, then as much as it may.
fn hold(order: &Order<'_>, replicas: usize) -> Vec<Vec<u16>> {
    let shards = order.slots.len();
    let candidates: Vec<_> = (0..shards).map(|shard| order.nearest(shard, CANDIDATES)).collect();
    let pairs = order.pairs(&candidates);
    let mut seats = Seats::new(bounds(order.members, shards, replicas), shards, replicas);
    let all = |shard: usize| order.sorted(shard, order.all());
    seats.fill(&pairs, all);
    seats.widen();
    seats.fill(&pairs, all);
    let full = seats.taken.iter().all(|taken| taken.len() == replicas);
    assert!(full, "the bounds have room for every replica of every shard");
    seats.taken
}

/// Who leads each shard: one of its holders, the nearest pairs first. First every member gets its share rounded down,
/// then some get one more.
fn lead(order: &Order<'_>, held: &[Vec<u16>]) -> Vec<u16> {
    let pairs = order.pairs(held);
    let holders = |shard: usize| order.sorted(shard, held[shard].iter().copied());
    let mut seats = Seats::new(shares(order.members, held.len()), held.len(), 1);
    seats.fill(&pairs, holders);
    seats.widen();
    seats.fill(&pairs, holders);
    // No exchange helps the rest: the holders that lead the least beyond their share.
    let mut beyond = vec![0_u32; order.members.len()];
    for (shard, holders) in held.iter().enumerate() {
        let least = |&place: &u16| (beyond[usize::from(place)], order.distance(shard, place));
        if seats.taken[shard].is_empty()
            && let Some(place) = holders.iter().copied().min_by_key(least)
        {
            beyond[usize::from(place)] += 1;
            seats.taken[shard].push(place);
        }
    }
    seats.taken.into_iter().filter_map(|leader| leader.first().copied()).collect()
}

/// Each shard's leader first. Second is who stands there least often behind that leader so far, then the nearest.
fn line_up(order: &Order<'_>, held: Vec<Vec<u16>>, leaders: &[u16]) -> Vec<Vec<MemberId>> {
    let mut behind: BTreeMap<(u16, u16), u32> = BTreeMap::new();
    let mut placed = Vec::with_capacity(held.len());
    for (shard, (mut line, &leader)) in held.into_iter().zip(leaders).enumerate() {
        let count = |place| behind.get(&(leader, place)).copied().unwrap_or(0);
        line.sort_by_cached_key(|&place| (place != leader, order.distance(shard, place)));
        let second = line.iter().skip(1).copied().min_by_key(|&place| count(place));
        if let Some(second) = second {
            *behind.entry((leader, second)).or_default() += 1;
            line[1..].sort_by_key(|&place| place != second);
        }
        placed.push(line.into_iter().map(|place| order.members[usize::from(place)].id).collect());
    }
    placed
}

/// Which members have a seat in each shard.
struct Seats {
    /// How many each shard wants.
    wanted: usize,
    taken: Vec<Vec<u16>>,
    room: Vec<Room>,
}

/// How many more seats a member may take.
struct Room {
    now: u32,
    /// And so many when the room is widened.
    later: u32,
}

impl Seats {
    fn new(room: Vec<Room>, shards: usize, wanted: usize) -> Self {
        Self { wanted, taken: vec![Vec::new(); shards], room }
    }

    /// Gives seats to the pairs in their order, then by exchanges, until no shard can have another one.
    fn fill(&mut self, pairs: &[(usize, u16)], allowed: impl Fn(usize) -> Vec<u16>) {
        for &(shard, place) in pairs {
            let taken = &self.taken[shard];
            let free = self.room[usize::from(place)].now > 0 && taken.len() < self.wanted;
            if free && !taken.contains(&place) {
                self.take(shard, place);
            }
        }
        for shard in 0..self.taken.len() {
            while self.taken[shard].len() < self.wanted
                && self.room.iter().any(|room| room.now > 0)
                && self.make_room(shard, &allowed)
            {}
        }
    }

    fn widen(&mut self) {
        for room in &mut self.room {
            room.now += mem::take(&mut room.later);
        }
    }

    fn take(&mut self, shard: usize, place: u16) {
        self.room[usize::from(place)].now -= 1;
        self.taken[shard].push(place);
    }

    /// Finds a seat for a shard by the shortest chain of exchanges: a full member takes it and leaves another shard,
    /// which finds another member (an augmenting path: Hopcroft and Karp 1973). False if there is none; then
    /// nothing has changed. `allowed` names the members that a shard may have, those tried first in front.
    fn make_room(&mut self, shard: usize, allowed: impl Fn(usize) -> Vec<u16>) -> bool {
        // By which shard's wish, and which member it wants, a shard was reached.
        let mut reached: BTreeMap<usize, (usize, u16)> = BTreeMap::new();
        let mut asked = vec![false; self.room.len()];
        let mut queue = VecDeque::from([shard]);
        while let Some(wishes) = queue.pop_front() {
            for place in allowed(wishes) {
                if self.taken[wishes].contains(&place) || asked[usize::from(place)] {
                    continue;
                }
                asked[usize::from(place)] = true;
                if self.room[usize::from(place)].now > 0 {
                    self.exchange(wishes, place, &reached);
                    return true;
                }
                for (other, taken) in self.taken.iter().enumerate() {
                    if other != shard && taken.contains(&place) && !reached.contains_key(&other) {
                        reached.insert(other, (wishes, place));
                        queue.push_back(other);
                    }
                }
            }
        }
        false
    }

    fn exchange(&mut self, last: usize, place: u16, reached: &BTreeMap<usize, (usize, u16)>) {
        self.take(last, place);
        let mut left = last;
        while let Some(&(shard, place)) = reached.get(&left) {
            self.taken[left].retain(|taken| *taken != place);
            self.taken[shard].push(place);
            left = shard;
        }
    }
}

/// How many replicas each member holds at least, and how many more it may.
fn bounds(members: &[Member], shards: usize, replicas: usize) -> Vec<Room> {
    let (shards, replicas) = (len_u64(shards), len_u64(replicas));
    let mut by_weight: Vec<_> = members.iter().map(|member| u64::from(member.weight)).collect();
    by_weight.sort_unstable_by(|a, b| b.cmp(a));
    // What is left for those that do not hold one replica of every shard, and what they weigh.
    let (mut left, mut weight) = (shards * replicas, by_weight.iter().sum::<u64>());
    for heavy in by_weight {
        if left * heavy < shards * weight {
            break;
        }
        left -= shards;
        weight -= heavy;
    }
    let room = |member: &Member| {
        let share = (left * u64::from(member.weight)).min(shards * weight);
        let (least, most) = match weight {
            0 => (shards, shards),
            _ => (
                share * 9 / (weight * 10),
                (share * 11 / (weight * 10)).max(share.div_ceil(weight)),
            ),
        };
        room(least.min(shards), most.min(shards))
    };
    members.iter().map(room).collect()
}

/// How many of the shards each member leads: its share, rounded down or up.
fn shares(members: &[Member], shards: usize) -> Vec<Room> {
    let total: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
    let share = |member: &Member| len_u64(shards) * u64::from(member.weight);
    let room = |member| room(share(member) / total, share(member).div_ceil(total));
    members.iter().map(room).collect()
}

fn room(least: u64, most: u64) -> Room {
    let narrow = |count| u32::try_from(count).expect("no more than there are shards");
    Room { now: narrow(least), later: narrow(most - least) }
}

/// So many members next to a shard are asked before exchanges are tried.
const CANDIDATES: usize = 32;
