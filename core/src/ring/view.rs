//! The ring as one member sees it: what it owns now, and who wants to know when that changes.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::mem;
use core::ops::Range;

use super::placement::{Placement, add_slot};
use super::slot_of;
use crate::ids::MemberId;

/// The present placement, and the names that are tracked.
///
/// Ownership is by slot, so two names of one slot share their fate. Of two members that go from one set of members
/// to another, what one says it loses to the other is what the other says it steals from it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RingView {
    me: MemberId,
    placement: Arc<Placement>,
    tracks: BTreeMap<TrackId, Track>,
    next_track: TrackId,
    tracks_max: usize,
}

/// A tracked name. Never used twice by one view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrackId(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Track {
    slot: u16,
    awaits: Awaits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Awaits {
    /// Until the slot leaves this member.
    Leaving,
    /// The same, and each time another member becomes the next; this one is it now.
    LeavingOrNext(Option<MemberId>),
    /// Until the slot comes to this member.
    Coming,
}

/// What a change of the members meant for this one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RingEvent {
    /// Slots left this member.
    Move {
        /// For whom; none when there is no member any more.
        to: Option<MemberId>,
        /// Start inclusive, end exclusive, merged, ascending.
        slots: Vec<Range<u32>>,
    },
    /// Slots came to this member.
    Steal {
        /// From whom; none when there was no member before.
        from: Option<MemberId>,
        /// Start inclusive, end exclusive, merged, ascending.
        slots: Vec<Range<u32>>,
    },
    /// A tracked name has left this member. The track is over.
    Left {
        /// Which.
        track: TrackId,
        /// The new owner; none when there is none, or on close.
        to: Option<MemberId>,
    },
    /// Another member is the next in line for a name that is tracked with its replica.
    NextChanged {
        /// Which.
        track: TrackId,
        /// The next in line now.
        new: MemberId,
        /// Who it was until now, if anybody.
        old: Option<MemberId>,
    },
    /// This member has become owner of a name that it waited for. The track is over.
    Came {
        /// Which.
        track: TrackId,
    },
}

/// Why a name is not tracked. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TrackError {
    /// This member does not own it; who does.
    NotMine(Option<MemberId>),
    /// This member owns it already.
    Mine,
    /// As many names are tracked as may be.
    Full,
}

impl fmt::Display for TrackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotMine(Some(owner)) => {
                write!(f, "the key belongs to {owner}, not to this member")
            }
            Self::NotMine(None) => f.write_str("the key has no owner: the ring has no member"),
            Self::Mine => f.write_str("the key belongs to this member already"),
            Self::Full => f.write_str("too many keys are tracked: end some of the tracks"),
        }
    }
}

impl core::error::Error for TrackError {}

impl RingView {
    /// The view of a member before it knows of any. At most `tracks_max` names are tracked at once.
    #[must_use]
    pub fn new(me: MemberId, tracks_max: usize) -> Self {
        Self {
            me,
            placement: Arc::new(Placement::new([])),
            tracks: BTreeMap::new(),
            next_track: TrackId(1),
            tracks_max,
        }
    }

    /// The present placement, to look names up without the view.
    #[must_use]
    pub fn placement(&self) -> &Arc<Placement> {
        &self.placement
    }

    /// True when this member owns a name.
    #[must_use]
    pub fn is_mine(&self, name: &[u8]) -> bool {
        self.owner(name) == Some(self.me)
    }

    /// The owner of a name; none when there is no member.
    #[must_use]
    pub fn owner(&self, name: &[u8]) -> Option<MemberId> {
        self.placement.owner_of(name)
    }

    /// The first `count` members in line for a name, its owner first, or all if there are fewer.
    #[must_use]
    pub fn owners(&self, name: &[u8], count: usize) -> Vec<MemberId> {
        self.placement.owners(slot_of(name), count)
    }

    /// The first in line for a name that is neither its owner nor in `skip`.
    #[must_use]
    pub fn next(&self, name: &[u8], skip: &[MemberId]) -> Option<MemberId> {
        self.placement.next(slot_of(name), skip)
    }

    /// Takes other members, with their weights. Says what that means: moves by who takes the slots, steals by who
    /// gives them, then tracks in the order in which they were made.
    pub fn set_members(
        &mut self,
        set: impl IntoIterator<Item = (MemberId, u16)>,
    ) -> Vec<RingEvent> {
        let set: Vec<(MemberId, u16)> = set.into_iter().collect();
        // A table changes often while replicas move, and those who own slots seldom.
        if self.placement.is_of(set.iter().copied()) {
            return Vec::new();
        }
        self.set_placement(Arc::new(Placement::new(set)))
    }

    /// The same with a placement that was made elsewhere.
    pub fn set_placement(&mut self, placement: Arc<Placement>) -> Vec<RingEvent> {
        let old = mem::replace(&mut self.placement, placement);
        if old == self.placement {
            return Vec::new();
        }
        let mut events = self.changes(&old);
        let (me, placement) = (self.me, &self.placement);
        self.tracks.retain(|&track, Track { slot, awaits }| {
            let owner = placement.owner(*slot);
            match awaits {
                Awaits::Leaving | Awaits::LeavingOrNext(_) if owner != Some(me) => {
                    events.push(RingEvent::Left { track, to: owner });
                    false
                }
                Awaits::Coming if owner == Some(me) => {
                    events.push(RingEvent::Came { track });
                    false
                }
                Awaits::LeavingOrNext(next) => {
                    let old = mem::replace(next, placement.next(*slot, &[]));
                    events.extend(next_changed(track, *next, old));
                    true
                }
                Awaits::Leaving | Awaits::Coming => true,
            }
        });
        events
    }

    /// Tells once, with [`RingEvent::Left`], when a name leaves this member.
    ///
    /// # Errors
    ///
    /// [`TrackError::NotMine`], [`TrackError::Full`].
    pub fn track(&mut self, name: &[u8]) -> Result<TrackId, TrackError> {
        self.add_mine(name, Awaits::Leaving)
    }

    /// As [`track`](Self::track), and also tells, with [`RingEvent::NextChanged`], who is the next in line: the present
    /// one at once, if there is one, and each other that becomes it.
    ///
    /// # Errors
    ///
    /// [`TrackError::NotMine`], [`TrackError::Full`].
    pub fn track_with_replica(
        &mut self,
        name: &[u8],
    ) -> Result<(TrackId, Option<RingEvent>), TrackError> {
        let next = self.next(name, &[]);
        let track = self.add_mine(name, Awaits::LeavingOrNext(next))?;
        Ok((track, next_changed(track, next, None)))
    }

    /// Tells once, with [`RingEvent::Came`], when this member becomes owner of a name.
    ///
    /// # Errors
    ///
    /// [`TrackError::Mine`], [`TrackError::Full`].
    pub fn replica(&mut self, name: &[u8]) -> Result<TrackId, TrackError> {
        if self.is_mine(name) {
            return Err(TrackError::Mine);
        }
        self.add(slot_of(name), Awaits::Coming)
    }

    /// Ends a track without a word. False if there is none: it has told already, or was ended before.
    pub fn cancel(&mut self, track: TrackId) -> bool {
        self.tracks.remove(&track).is_some()
    }

    /// How many names are tracked.
    #[must_use]
    pub fn tracked(&self) -> usize {
        self.tracks.len()
    }

    /// The member closes: every track is over, and those of names that it owned say so.
    pub fn close(&mut self) -> Vec<RingEvent> {
        let tracks = mem::take(&mut self.tracks).into_iter();
        let owned = tracks.filter(|(_, track)| track.awaits != Awaits::Coming);
        owned.map(|(track, _)| RingEvent::Left { track, to: None }).collect()
    }

    fn add_mine(&mut self, name: &[u8], awaits: Awaits) -> Result<TrackId, TrackError> {
        match self.owner(name) {
            Some(owner) if owner == self.me => self.add(slot_of(name), awaits),
            owner => Err(TrackError::NotMine(owner)),
        }
    }

    fn add(&mut self, slot: u16, awaits: Awaits) -> Result<TrackId, TrackError> {
        if self.tracks.len() >= self.tracks_max {
            return Err(TrackError::Full);
        }
        let track = self.next_track;
        self.next_track = TrackId(track.0.checked_add(1).expect("ids do not wrap"));
        self.tracks.insert(track, Track { slot, awaits });
        Ok(track)
    }

    /// Which slots left this member, and which came.
    fn changes(&self, old: &Placement) -> Vec<RingEvent> {
        let mut moved: BTreeMap<Option<MemberId>, Vec<Range<u32>>> = BTreeMap::new();
        let mut stolen = moved.clone();
        for slot in 0..=u16::MAX {
            let (before, now) = (old.owner(slot), self.placement.owner(slot));
            if before == now {
                continue;
            }
            if before == Some(self.me) {
                add_slot(moved.entry(now).or_default(), slot);
            } else if now == Some(self.me) {
                add_slot(stolen.entry(before).or_default(), slot);
            }
        }
        let moves = moved.into_iter().map(|(to, slots)| RingEvent::Move { to, slots });
        let steals = stolen.into_iter().map(|(from, slots)| RingEvent::Steal { from, slots });
        moves.chain(steals).collect()
    }
}

/// Nothing when it is the same member as before, or none.
fn next_changed(
    track: TrackId,
    next: Option<MemberId>,
    old: Option<MemberId>,
) -> Option<RingEvent> {
    let new = next.filter(|_| next != old)?;
    Some(RingEvent::NextChanged { track, new, old })
}
