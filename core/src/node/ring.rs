//! The node's part in the hash ring: who owns a key among the members that are alive.
//!
//! A placement takes some milliseconds to make, so it is made when it is needed: at the end of a turn where the
//! application wants to know what changes ([`Config::watch_ring`]) or tracks a key, else with the next question.
//!
//! [`Config::watch_ring`]: crate::Config::watch_ring

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;

use super::Node;
use crate::directory::Registered;
use crate::ids::MemberId;
use crate::io::Event;
use crate::ring::{RingView, TrackError, TrackId};

/// Which change of a key's owner or of the one behind it is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Awaited {
    /// The key leaves this member, which owns it.
    Leaving,
    /// The same, and each change of the next in line.
    LeavingOrNext,
    /// The key comes to this member, which does not own it.
    Coming,
}

impl Node {
    /// The ring of the members that are alive, as far as this node knows.
    pub fn ring(&mut self) -> &RingView {
        self.refresh_ring();
        &self.ring
    }

    /// Tells, with [`Event::Ring`], what is awaited of a key. Ends by itself as [`RingView`] says.
    ///
    /// # Errors
    /// [`TrackError`]: the key is not where it would have to be, or too many are tracked.
    pub fn track(&mut self, key: &[u8], awaited: Awaited) -> Result<TrackId, TrackError> {
        self.refresh_ring();
        match awaited {
            Awaited::Leaving => self.ring.track(key),
            Awaited::LeavingOrNext => {
                let (track, next) = self.ring.track_with_replica(key)?;
                if let Some(next) = next {
                    self.event(Event::Ring(next));
                }
                Ok(track)
            }
            Awaited::Coming => self.ring.replica(key),
        }
    }

    /// Ends a track without a word. False if it has ended before.
    pub fn untrack(&mut self, track: TrackId) -> bool {
        self.ring.cancel(track)
    }

    /// The cluster exists and this node is part of it; who hears that can ask for owners at once.
    pub(super) fn come_up(&mut self) {
        let genesis = self.genesis.clone().expect("who comes up knows the cluster");
        self.ring_due = true;
        self.is_up = true;
        self.ready_due = true;
        self.tell_ring();
        self.event(Event::Up { genesis });
    }

    /// At the end of a turn: what has changed is told to those who asked for it.
    pub(super) fn tell_ring(&mut self) {
        if self.config.watch_ring || self.ring.tracked() > 0 {
            self.refresh_ring();
        }
    }

    /// Makes the placement anew if another set of members is alive.
    pub(super) fn refresh_ring(&mut self) {
        if !mem::take(&mut self.ring_due) {
            return;
        }
        let before = Arc::clone(self.ring.placement());
        let events = self.ring.set_members(self.alive_members());
        let placement = Arc::clone(self.ring.placement());
        if before != placement {
            self.requests.on_change();
            self.event(Event::RingChanged { placement });
        }
        for event in events {
            self.event(Event::Ring(event));
        }
    }

    /// Those who can own keys, with their weights: registered, not on their way out, and alive as far as this node
    /// knows.
    fn alive_members(&self) -> Vec<(MemberId, u16)> {
        let mut able: Vec<(MemberId, u16)> = match (&self.table, &self.genesis) {
            (Some(table), _) => table.active().collect(),
            (None, Some(genesis)) => {
                Registered::founders(genesis).map(|founder| (founder.id, founder.weight)).collect()
            }
            (None, None) => Vec::new(),
        };
        able.retain(|&(id, _)| self.is_alive(id));
        able
    }
}
