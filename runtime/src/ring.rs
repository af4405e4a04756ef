//! The hash ring: who owns a key, and word of when that changes.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use ring_core::ids::MemberId;
use ring_core::node::Awaited;
use ring_core::ring::{Placement, RingEvent, TrackError, TrackId, slot_of};
use tokio::sync::{Notify, oneshot};

use crate::error::Error;
use crate::node::{Inner, Node};
use crate::shared::{Item, Shared};

/// The ring of the members that are alive, as far as this node knows. Two nodes that know the same members alive give
/// the same answers; while news of a change is under way they may differ. Nothing here needs a majority.
impl Node {
    /// The ring at this moment. It does not change any more: look many keys up in it.
    #[must_use]
    pub fn ring(&self) -> Arc<Placement> {
        self.inner.shared().placement()
    }

    /// The slot of a key, in `0..`[`SLOTS`](crate::SLOTS): the same on every member and in every language.
    #[must_use]
    pub fn slot(&self, key: impl AsRef<[u8]>) -> u32 {
        u32::from(slot_of(key.as_ref()))
    }

    /// The owner of a key; none when no member is alive that may own one.
    #[must_use]
    pub fn owner(&self, key: impl AsRef<[u8]>) -> Option<MemberId> {
        self.ring().owner_of(key.as_ref())
    }

    /// The first `count` members in line for a key, its owner first; all if there are fewer.
    #[must_use]
    pub fn owners(&self, key: impl AsRef<[u8]>, count: usize) -> Vec<MemberId> {
        self.ring().owners(slot_of(key.as_ref()), count)
    }

    /// The first in line for a key that is neither its owner nor in `skip`.
    #[must_use]
    pub fn next(&self, key: impl AsRef<[u8]>, skip: &[MemberId]) -> Option<MemberId> {
        self.ring().next(slot_of(key.as_ref()), skip)
    }

    /// True when this member owns a key.
    #[must_use]
    pub fn is_mine(&self, key: impl AsRef<[u8]>) -> bool {
        self.owner(key) == Some(self.whoami())
    }

    /// Waits for the moment when a key leaves this member.
    ///
    /// # Errors
    /// [`Error::Track`]: this member does not own the key, or too many are tracked. The node has ended.
    pub async fn track(&self, key: impl AsRef<[u8]>) -> Result<Track, Error> {
        self.await_change(key.as_ref(), Awaited::Leaving).await
    }

    /// As [`Node::track`], and also tells who is the next in line: the present one at once, if there is one, then each
    /// other that becomes it.
    ///
    /// # Errors
    /// As [`Node::track`].
    pub async fn track_with_replica(&self, key: impl AsRef<[u8]>) -> Result<Track, Error> {
        self.await_change(key.as_ref(), Awaited::LeavingOrNext).await
    }

    /// Waits for the moment when this member becomes owner of a key.
    ///
    /// # Errors
    /// [`Error::Track`]: this member owns the key already, or too many are tracked. The node has ended.
    pub async fn replica(&self, key: impl AsRef<[u8]>) -> Result<Track, Error> {
        self.await_change(key.as_ref(), Awaited::Coming).await
    }

    async fn await_change(&self, key: &[u8], awaited: Awaited) -> Result<Track, Error> {
        let queue = Arc::new(Queue::default());
        let (answer, answered) = oneshot::channel();
        let tracking = Tracking {
            key: Bytes::copy_from_slice(key),
            awaited,
            queue: Arc::clone(&queue),
            answer,
        };
        let shared = self.inner.shared();
        shared.put(Item::Track(tracking), key.len()).map_err(|_| closed())?;
        let id = answered.await.map_err(|_| closed())?.map_err(Error::Track)?;
        Ok(Track { id, awaited, queue, inner: Arc::clone(&self.inner), over: false })
    }
}

fn closed() -> Error {
    Error::Failed(ring_core::io::Failure::Closed { maybe: false })
}

/// What is told of a key that is tracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracked {
    /// It has left this member. Nothing follows.
    Left {
        /// The new owner; none when there is none, or when this node has ended.
        to: Option<MemberId>,
    },
    /// Another member is the next in line.
    Next {
        /// It.
        new: MemberId,
        /// Who was it until now, if anybody.
        old: Option<MemberId>,
    },
    /// This member owns it now. Nothing follows.
    Came,
}

/// A key that is tracked. Dropped, it is tracked no more.
pub struct Track {
    id: TrackId,
    awaited: Awaited,
    queue: Arc<Queue>,
    inner: Arc<Inner>,
    over: bool,
}

impl Track {
    /// What happens next; none when nothing follows any more. To drop the future loses nothing.
    pub async fn next(&mut self) -> Option<Tracked> {
        while !self.over {
            let more = self.queue.more.notified();
            let (told, ended) = {
                let mut state = self.queue.state.lock();
                (state.told.pop_front(), state.ended)
            };
            if let Some(told) = told {
                self.over = !matches!(told, Tracked::Next { .. });
                return Some(told);
            }
            if ended {
                self.over = true;
                return (self.awaited != Awaited::Coming).then_some(Tracked::Left { to: None });
            }
            more.await;
        }
        None
    }
}

impl fmt::Debug for Track {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Track")
            .field("id", &self.id)
            .field("awaited", &self.awaited)
            .finish_non_exhaustive()
    }
}

impl Drop for Track {
    fn drop(&mut self) {
        if !self.over {
            // A node that has ended tracks nothing.
            let _ = self.inner.shared().put(Item::Untrack(self.id), 0);
        }
    }
}

/// A wish to track, on its way to core.
pub(crate) struct Tracking {
    key: Bytes,
    awaited: Awaited,
    queue: Arc<Queue>,
    answer: oneshot::Sender<Result<TrackId, TrackError>>,
}

/// What was told and not taken.
#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    more: Notify,
}

#[derive(Debug, Default)]
struct State {
    told: VecDeque<Tracked>,
    ended: bool,
}

/// Changes of the next in line that wait; of more, the last two become one.
const WAITING: usize = 16;

impl Queue {
    fn tell(&self, tracked: Tracked) {
        let mut state = self.state.lock();
        let is_full = state.told.len() >= WAITING;
        match (state.told.back_mut(), tracked) {
            (Some(Tracked::Next { new, .. }), Tracked::Next { new: newer, .. }) if is_full => {
                *new = newer;
            }
            _ => state.told.push_back(tracked),
        }
        drop(state);
        self.more.notify_one();
    }
}

/// Core's side: who is told of which track.
#[derive(Default)]
pub(crate) struct Tracks(BTreeMap<TrackId, Arc<Queue>>);

impl Tracks {
    /// Begins what was wished for. Nobody may wait for it any more.
    pub(crate) fn begin(&mut self, node: &mut ring_core::Node, tracking: Tracking) {
        let Tracking { key, awaited, queue, answer } = tracking;
        let result = node.track(&key, awaited);
        let begun = result.ok();
        if answer.send(result).is_err() {
            begun.map(|track| node.untrack(track));
        } else if let Some(track) = begun {
            self.0.insert(track, queue);
        }
    }

    /// Ends a track that nobody wants any more.
    pub(crate) fn end(&mut self, node: &mut ring_core::Node, track: TrackId) {
        self.0.remove(&track);
        node.untrack(track);
    }

    /// Tells what concerns one track; what concerns the whole member is given back.
    pub(crate) fn tell(&mut self, event: RingEvent) -> Option<RingEvent> {
        let (track, tracked) = match event {
            RingEvent::Move { .. } | RingEvent::Steal { .. } => return Some(event),
            RingEvent::Left { track, to } => (track, Tracked::Left { to }),
            RingEvent::NextChanged { track, new, old } => (track, Tracked::Next { new, old }),
            RingEvent::Came { track } => (track, Tracked::Came),
        };
        if let Some(queue) = self.0.get(&track) {
            queue.tell(tracked);
        }
        if !matches!(tracked, Tracked::Next { .. }) {
            self.0.remove(&track);
        }
        None
    }
}

impl Drop for Tracks {
    fn drop(&mut self) {
        for queue in self.0.values() {
            queue.state.lock().ended = true;
            queue.more.notify_one();
        }
    }
}

impl Shared {
    fn placement(&self) -> Arc<Placement> {
        Arc::clone(&self.placement.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_that_nobody_takes_become_one_and_the_end_stays() {
        let queue = Queue::default();
        let member = |n| MemberId(u64::try_from(n).unwrap());
        for n in 1..=100 {
            queue.tell(Tracked::Next { new: member(n + 1), old: Some(member(n)) });
        }
        queue.tell(Tracked::Left { to: None });
        let told = std::mem::take(&mut queue.state.lock().told);
        assert_eq!(told.len(), WAITING + 1);
        assert_eq!(told[WAITING - 1], Tracked::Next { new: member(101), old: Some(member(16)) });
        assert_eq!(told[WAITING], Tracked::Left { to: None });
    }
}
