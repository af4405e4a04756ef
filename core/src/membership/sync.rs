//! Comparisons of whole views, and a look after the dead.
//!
//! Datagrams carry news; what was lost on all ways, or is older than a split, comes by comparison. Two hashes first;
//! only where they differ the hashes of 64 parts, and then what is known of the members of the parts that differ.
//! A quiet cluster pays for one hash.

use alloc::vec::Vec;

use super::member::State;
use super::merge::Via;
use super::questions::Why;
use super::table::{Entry, bucket_of};
use super::wire::{BUCKETS, Body, Claim, SyncMessage, Update};
use super::{Membership, Phase};
use crate::ids::MemberId;
use crate::time::Instant;

impl Membership {
    pub(super) fn drive_sync(&mut self, t: Instant) {
        if self.next_sync <= t {
            self.next_sync = t + self.config.sync_interval;
            let partner = self.table.draw(&mut self.rng, 1, self.me);
            if let Some(&partner) = partner.first() {
                self.compare_with(partner);
            }
        }
        if self.next_grave <= t {
            self.next_grave = t + self.config.dead_probe_interval;
            self.probe_the_dead(t);
        }
    }

    pub(super) fn compare_with(&mut self, partner: MemberId) {
        self.counters.syncs += 1;
        self.out.syncs.push((partner, SyncMessage::Digest { hash: self.table.digest() }));
    }

    /// A stream to a member is there: what each knows is compared at once, whether they know of each other or not.
    pub fn on_connected(&mut self, now: Instant, member: MemberId) {
        self.clock(now);
        match self.phase {
            Phase::Running => {
                self.compare_with(member);
                self.tell_suspect(member);
            }
            Phase::Waiting | Phase::Leaving { .. } | Phase::Gone => {}
        }
    }

    /// A suspect hears of it over a stream, if there is one (the buddy notice, where datagrams may be what fails), and answers with
    /// what it says of itself. A comparison would not do: a suspect is present, and the hashes are equal.
    pub(super) fn tell_suspect(&mut self, member: MemberId) {
        let entry = self.table.get(member);
        let Some(entry) = entry.filter(|entry| entry.state() == State::Suspect) else { return };
        let updates = records(member, entry).map(Claim::to_update).collect();
        let wanted = u8::try_from(bucket_of(member)).into_iter().collect();
        self.out.syncs.push((member, SyncMessage::Records { updates, wanted }));
    }

    /// A dead member that answers was on the other side of a split. The ping tells it that it is thought dead.
    fn probe_the_dead(&mut self, t: Instant) {
        let Some(member) = self.table.next_grave(&mut self.rng) else { return };
        let Some((address, _)) = self.reach(member) else { return };
        let seq = self.send(address, Some(member), Body::Ping { to: member.into() }, &[]);
        self.ask(t, seq, Some(member), Why::Other);
    }

    /// A message of a comparison came, over a stream with a member that has shaken hands with this one.
    pub fn on_sync(&mut self, now: Instant, from: MemberId, message: SyncMessage) {
        let t = self.clock(now);
        match self.phase {
            Phase::Running => {}
            Phase::Waiting | Phase::Leaving { .. } | Phase::Gone => return,
        }
        match message {
            SyncMessage::Digest { hash } => {
                if hash != self.table.digest() {
                    let hashes = self.table.buckets().to_vec();
                    self.out.syncs.push((from, SyncMessage::Buckets { hashes }));
                }
            }
            SyncMessage::Buckets { hashes } => {
                if hashes.len() != BUCKETS {
                    self.counters.malformed += 1;
                    return;
                }
                let own = self.table.buckets();
                let differing = (0..BUCKETS).filter(|&bucket| own[bucket] != hashes[bucket]);
                let wanted: Vec<u8> = differing.filter_map(|b| u8::try_from(b).ok()).collect();
                if !wanted.is_empty() {
                    self.send_records(from, &wanted, wanted.clone());
                }
            }
            SyncMessage::Records { updates, wanted } => {
                let parts_exist = wanted.iter().all(|part| usize::from(*part) < BUCKETS);
                if !parts_exist || !updates.iter().all(Update::check) {
                    self.counters.malformed += 1;
                    return;
                }
                for update in &updates {
                    update.with_claim(|claim| self.learn(t, claim, Via::Stream(from)));
                }
                if !wanted.is_empty() {
                    self.send_records(from, &wanted, Vec::new());
                }
            }
        }
    }

    /// Sends what is known of the members of some parts, in messages of bounded size. The last one asks for the
    /// same of the other.
    fn send_records(&mut self, to: MemberId, parts: &[u8], wanted: Vec<u8>) {
        let mut updates = Vec::new();
        let mut bytes = 0;
        for (id, entry) in self.table.iter() {
            if !parts.iter().any(|part| usize::from(*part) == bucket_of(id)) {
                continue;
            }
            for update in records(id, entry).map(Claim::to_update) {
                let size = postcard::ser_flavors::Size::default();
                bytes += postcard::serialize_with_flavor(&update, size).unwrap_or(0);
                updates.push(update);
            }
            if bytes >= self.config.sync_bytes {
                bytes = 0;
                let updates = core::mem::take(&mut updates);
                self.out.syncs.push((to, SyncMessage::Records { updates, wanted: Vec::new() }));
            }
        }
        self.out.syncs.push((to, SyncMessage::Records { updates, wanted }));
    }
}

/// What one member tells of another: what it said, if it is present, and what is thought of it, if that is more.
fn records(id: MemberId, entry: &Entry) -> impl Iterator<Item = Claim<'_>> {
    let said = entry.said(id).filter(|_| entry.is_present());
    let thought = entry.thought(id).filter(|_| entry.state() != State::Alive);
    said.into_iter().chain(thought)
}
