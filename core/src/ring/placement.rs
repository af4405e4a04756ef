//! Which members the slots fall to.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::mem;
use core::ops::Range;

use super::ranking::{Distance, Ranking};
use super::{SLOTS, slot_of};
use crate::ids::MemberId;

/// For each slot an order of the members: its owner, and who comes after it.
///
/// A pure function of the set of members and weights. Two placements are equal when their sets are.
///
/// 1. Each slot has one owner, if there is a member.
/// 2. No member owns more than [`bound`](Self::bound) slots.
/// 3. Stable: no slot and member would both rather have each other. A member *closes* at the distance of the last
///    slot that fills it and refuses all that are further.
/// 4. Behind its owner a slot's order has first the members that do not refuse it, then the others, each part by
///    distance.
#[derive(Clone)]
pub struct Placement {
    /// Those that own slots, by id.
    members: Vec<Member>,
    /// The owner of each slot, as a place in `members`; empty when there is none.
    owners: Vec<u16>,
    /// The next of each slot; empty unless there are two members.
    seconds: Vec<u16>,
}

/// A member of a placement.
#[derive(Clone)]
pub(super) struct Member {
    pub(super) id: MemberId,
    pub(super) weight: u16,
    pub(super) ranking: Ranking,
    pub(super) bound: u32,
    load: u32,
    /// Refuses slots that are further than this.
    closed_at: Distance,
}

impl Placement {
    /// Places the slots on a set of members.
    ///
    /// A member of weight 0 and a client own nothing. Of a member that is named twice the higher weight counts, and
    /// of more than [`MEMBERS_PLACED_MAX`] members those with the lowest ids.
    #[must_use]
    pub fn new(set: impl IntoIterator<Item = (MemberId, u16)>) -> Self {
        Self::of(members(set, SLOTS))
    }

    /// True if this is the placement on that set. Cheap beside making one.
    #[must_use]
    pub fn is_of(&self, set: impl IntoIterator<Item = (MemberId, u16)>) -> bool {
        able(set).into_iter().eq(self.members())
    }

    pub(super) fn of(members: Vec<Member>) -> Self {
        if members.is_empty() {
            return Self { members, owners: Vec::new(), seconds: Vec::new() };
        }
        Matching::new(members).finish()
    }

    /// Those that can own slots, with their weights, by id.
    pub fn members(&self) -> impl ExactSizeIterator<Item = (MemberId, u16)> + '_ {
        self.members.iter().map(|member| (member.id, member.weight))
    }

    /// The owner of a name; none when there is no member.
    #[must_use]
    pub fn owner_of(&self, name: &[u8]) -> Option<MemberId> {
        self.owner(slot_of(name))
    }

    /// The owner of a slot; none when there is no member.
    #[must_use]
    pub fn owner(&self, slot: u16) -> Option<MemberId> {
        self.at(&self.owners, slot)
    }

    /// The first `count` members of a slot's order, or all if there are fewer.
    #[must_use]
    pub fn owners(&self, slot: u16, count: usize) -> Vec<MemberId> {
        if count > 2 {
            let mut order: Vec<_> = (0..).zip(&self.members).collect();
            order.sort_by_cached_key(|&(place, member)| self.preference(slot, place, member));
            return order.iter().take(count).map(|(_, member)| member.id).collect();
        }
        self.owner(slot).into_iter().chain(self.second(slot)).take(count).collect()
    }

    /// The first member of a slot's order that is neither its owner nor in `skip`.
    #[must_use]
    pub fn next(&self, slot: u16, skip: &[MemberId]) -> Option<MemberId> {
        let second = self.second(slot)?;
        if !skip.contains(&second) {
            return Some(second);
        }
        let owner = self.owner(slot);
        let rest = (0..)
            .zip(&self.members)
            .filter(|(_, member)| Some(member.id) != owner && !skip.contains(&member.id));
        let next = rest.min_by_key(|&(place, member)| self.preference(slot, place, member));
        next.map(|(_, member)| member.id)
    }

    /// How many slots a member owns.
    #[must_use]
    pub fn load(&self, member: MemberId) -> u32 {
        self.place(member).map_or(0, |place| self.members[place].load)
    }

    /// The most slots that a member may own.
    #[must_use]
    pub fn bound(&self, member: MemberId) -> u32 {
        self.place(member).map_or(0, |place| self.members[place].bound)
    }

    /// The slots of a member, start inclusive, end exclusive, merged, ascending.
    #[must_use]
    pub fn slots(&self, member: MemberId) -> Vec<Range<u32>> {
        let mut slots = Vec::new();
        for slot in (0..=u16::MAX).filter(|&slot| self.owner(slot) == Some(member)) {
            add_slot(&mut slots, slot);
        }
        slots
    }

    fn second(&self, slot: u16) -> Option<MemberId> {
        self.at(&self.seconds, slot)
    }

    fn at(&self, table: &[u16], slot: u16) -> Option<MemberId> {
        table.get(usize::from(slot)).map(|&place| self.members[usize::from(place)].id)
    }

    fn place(&self, member: MemberId) -> Option<usize> {
        self.members.binary_search_by_key(&member, |member| member.id).ok()
    }

    /// The lower, the earlier in the slot's order.
    fn preference(&self, slot: u16, place: u16, member: &Member) -> (bool, bool, Distance) {
        let distance = member.ranking.distance_of(slot, place);
        (self.owners[usize::from(slot)] != place, distance > member.closed_at, distance)
    }
}

impl PartialEq for Placement {
    fn eq(&self, other: &Self) -> bool {
        self.members().eq(other.members())
    }
}

impl Eq for Placement {}

impl Hash for Placement {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.members.len().hash(state);
        self.members().for_each(|member| member.hash(state));
    }
}

impl fmt::Debug for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.members()).finish()
    }
}

/// Deferred acceptance (Gale and Shapley 1962): members propose to slots, the nearest first; a slot keeps the nearest
/// proposal and sends its last holder on. As slot and member go by one distance, there is only one stable
/// matching, and the order of proposals does not matter.
struct Matching {
    members: Vec<Member>,
    /// To which rank each member has proposed.
    proposed: Vec<u32>,
    /// The two nearest proposals that each slot has had.
    nearest: Vec<[Distance; 2]>,
    /// Slots that had fewer than two.
    open_slots: u32,
    /// Nobody proposes further than this for now: what members with room would propose in vain is most of all.
    limit: u64,
    /// Who has to propose, or go on because it has lost a slot.
    proposers: Vec<usize>,
}

impl Matching {
    fn new(members: Vec<Member>) -> Self {
        Self {
            proposed: vec![0; members.len()],
            nearest: vec![[Distance::NONE; 2]; SLOT_COUNT],
            open_slots: SLOTS,
            limit: 0,
            proposers: Vec::new(),
            members,
        }
    }

    /// Matches, and names each slot's next.
    ///
    /// What is settled within the limit stays: a proposal beyond it is further than all before it. A slot's two nearest
    /// proposals are its owner and, among the members that do not refuse it, the next.
    fn finish(mut self) -> Placement {
        while self.open_slots > 0 {
            let willing = |place: &usize| self.has_room(*place) && self.proposed[*place] < SLOTS;
            let open = (0..self.members.len()).filter(willing);
            let weight: u64 = open.map(|place| u64::from(self.members[place].weight)).sum();
            if weight == 0 {
                break;
            }
            // A member of weight 1 is at distance 2^60 of a slot on average; two proposals a slot on average.
            self.limit = self.limit.saturating_add((2 << 60) / weight);
            self.proposers.extend(0..self.members.len());
            while let Some(place) = self.proposers.pop() {
                self.propose(place);
            }
        }
        for place in 0..self.members.len() {
            if !self.has_room(place) {
                let last = u16::try_from(self.proposed[place] - 1).expect("a rank");
                let Member { ranking, closed_at, .. } = &mut self.members[place];
                *closed_at = ranking.distance(last, ranking.slot(last), small(place));
            }
        }
        let seconds = if self.members.len() > 1 { self.seconds().collect() } else { Vec::new() };
        let owners = self.nearest.iter().map(|[owner, _]| owner.member()).collect();
        Placement { owners, seconds, members: self.members }
    }

    /// Lets a member propose until it has its bound or comes to the limit.
    fn propose(&mut self, place: usize) {
        while self.has_room(place)
            && let Ok(rank) = u16::try_from(self.proposed[place])
        {
            let ranking = &self.members[place].ranking;
            let slot = ranking.slot(rank);
            let distance = ranking.distance(rank, slot, small(place));
            if distance.0 > self.limit {
                return;
            }
            self.proposed[place] += 1;
            self.on_proposal(slot, distance);
        }
    }

    fn on_proposal(&mut self, slot: u16, distance: Distance) {
        let [nearest, second] = &mut self.nearest[usize::from(slot)];
        if distance > *second {
            return;
        }
        if *second == Distance::NONE && *nearest != Distance::NONE {
            self.open_slots -= 1;
        }
        if distance > *nearest {
            *second = distance;
            return;
        }
        *second = mem::replace(nearest, distance);
        let sent_on = *second;
        self.members[usize::from(distance.member())].load += 1;
        if sent_on != Distance::NONE {
            let place = usize::from(sent_on.member());
            if !self.has_room(place) {
                self.proposers.push(place);
            }
            self.members[place].load -= 1;
        }
    }

    fn has_room(&self, place: usize) -> bool {
        let member = &self.members[place];
        member.load < member.bound
    }

    /// The next of each slot. Where only the owner does not refuse the slot, the nearest of the others.
    fn seconds(&self) -> impl Iterator<Item = u16> + '_ {
        (0..=u16::MAX).zip(&self.nearest).map(|(slot, &[owner, second])| {
            if second != Distance::NONE {
                return second.member();
            }
            let all = (0..).zip(&self.members);
            let others = all.filter(|&(place, _)| place != owner.member());
            let distances = others.map(|(place, member)| member.ranking.distance_of(slot, place));
            distances.min().expect("there are two members").member()
        })
    }
}

/// The members that can be placed, by id, each bounded to its share of `slots`.
pub(super) fn members(set: impl IntoIterator<Item = (MemberId, u16)>, slots: u32) -> Vec<Member> {
    let set = able(set);
    let total = set.iter().map(|&(_, weight)| u64::from(weight)).sum();
    let member = |(id, weight)| {
        let ranking = Ranking::new(id, weight);
        let bound = bound(slots, weight, total, ranking.rounding);
        Member { id, weight, ranking, bound, load: 0, closed_at: Distance::NONE }
    };
    set.into_iter().map(member).collect()
}

/// Those of a set that can own slots, by id.
fn able(set: impl IntoIterator<Item = (MemberId, u16)>) -> Vec<(MemberId, u16)> {
    let mut set: Vec<(MemberId, u16)> =
        set.into_iter().filter(|(id, weight)| *weight > 0 && !id.is_client()).collect();
    set.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
    set.dedup_by_key(|(id, _)| *id);
    set.truncate(MEMBERS_PLACED_MAX);
    set
}

/// The most of `slots` that a member may have: 1.10 of its share, less up to one slot, as its `rounding` says; or its
/// share rounded up where that is more, so that there is always room for all.
///
/// Rounded all alike, the bounds of all members would step by one with the same join, and every full member would
/// give up a slot at once.
fn bound(slots: u32, weight: u16, total: u64, rounding: u16) -> u32 {
    let share = u64::from(slots) * u64::from(weight);
    let most = ((share * 11) << 16) / (total * 10) + u64::from(rounding);
    let bound = (most >> 16).saturating_sub(1).max(share.div_ceil(total));
    u32::try_from(bound).expect("at most 1.10 of 65,536")
}

/// Adds a slot behind those that are there.
pub(super) fn add_slot(slots: &mut Vec<Range<u32>>, slot: u16) {
    let slot = u32::from(slot);
    match slots.last_mut() {
        Some(last) if last.end == slot => last.end += 1,
        Some(_) | None => slots.push(slot..slot + 1),
    }
}

pub(super) fn small(place: usize) -> u16 {
    u16::try_from(place).expect("a placement has at most MEMBERS_PLACED_MAX members")
}

/// So many members own slots at most.
pub const MEMBERS_PLACED_MAX: usize = 65_535;

const SLOT_COUNT: usize = 1 << 16;
