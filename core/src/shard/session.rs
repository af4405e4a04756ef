//! Exactly once (RIFL): what a group remembers of each client session, so that a repeated command
//! changes nothing and gets the answer it got at first.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::command::Outcome;
use super::state::COUNTER_MAX;
use crate::ids::{Seq, SessionId, len_u64};

/// What all replicas of a group must bound alike, or they would apply one entry differently.
/// Written into the group's state when it is made, and carried along by snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rules {
    /// Most sessions; the one idle for longest gives way.
    pub(super) sessions: u32,
    /// A session idle for longer than this, in nanoseconds of shard time, is forgotten.
    pub(super) session_ttl: u64,
    /// Most replies kept for one session...
    pub(super) session_replies: u32,
    /// ... and for all of them; the session idle for longest loses its own.
    pub(super) replies: u32,
}

/// The rules of a new group.
pub(super) const RULES: Rules =
    Rules { sessions: 4096, session_ttl: 60_000_000_000, session_replies: 4096, replies: 262_144 };

/// What a peer may ask for at most in a snapshot.
const RULES_MAX: Rules =
    Rules { sessions: 1 << 16, session_ttl: u64::MAX, session_replies: 1 << 16, replies: 1 << 20 };

impl Rules {
    pub(super) fn are_sane(&self) -> bool {
        (1..=RULES_MAX.sessions).contains(&self.sessions)
            && (1..=RULES_MAX.session_replies).contains(&self.session_replies)
            && (1..=RULES_MAX.replies).contains(&self.replies)
    }
}

/// One session, as it stands in the store too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Session {
    /// The command expected next.
    next: Seq,
    /// Shard time of its last item.
    active: u64,
    /// Replies to the commands just before `next`, in order.
    replies: VecDeque<Outcome>,
    /// Whether the store does not have it as it is here.
    #[serde(skip)]
    touched: bool,
}

impl Session {
    /// Reads a session from its stored form. None when it is damaged.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (session, rest) = postcard::take_from_bytes::<Self>(bytes).ok()?;
        // Invariant: replies go to commands 1 to next - 1 only.
        let is_sound = rest.is_empty()
            && len_u64(session.replies.len()) < session.next.0
            && session.next.0 < COUNTER_MAX;
        is_sound.then_some(session)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("memory does not fail")
    }

    fn reply(&self, seq: Seq) -> Option<&Outcome> {
        let oldest = self.next.0 - len_u64(self.replies.len());
        let place = usize::try_from(seq.0.checked_sub(oldest)?).ok()?;
        self.replies.get(place)
    }

    /// Drops replies to commands before `first`; answers how many.
    fn forget_below(&mut self, first: Seq) -> usize {
        let oldest = self.next.0 - len_u64(self.replies.len());
        let below = usize::try_from(first.0.saturating_sub(oldest)).unwrap_or(usize::MAX);
        self.forget(below.min(self.replies.len()))
    }

    fn forget(&mut self, count: usize) -> usize {
        self.replies.drain(..count);
        count
    }
}

/// What is to be done with a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It is the session's next: apply it, then `record` its outcome.
    Now,
    /// It was applied; its reply, unless that is forgotten.
    Before(Option<Outcome>),
    /// Others come first.
    Gap { next: Seq },
    /// No such session.
    Unknown,
}

/// All sessions of a group.
#[derive(Clone, Debug, Default)]
pub(super) struct Sessions {
    map: BTreeMap<SessionId, Session>,
    /// Replies in all of them.
    replies: usize,
    /// No session was last active before this. May lag behind the truth (0 is always right): it
    /// only spares looking.
    idle_since: u64,
    /// Sessions that the store does not have as they are here.
    touched: Vec<SessionId>,
}

impl Sessions {
    /// Takes up a session from the store.
    pub(super) fn restore(&mut self, id: SessionId, session: Session) {
        self.replies += session.replies.len();
        self.map.insert(id, session);
    }

    /// Forgets sessions that have been idle for too long at `now`, and says which.
    pub(super) fn expire(&mut self, now: u64, rules: &Rules, gone: &mut Vec<SessionId>) {
        let is_over = |active: u64| active.saturating_add(rules.session_ttl) < now;
        if self.map.is_empty() || !is_over(self.idle_since) {
            return;
        }
        let first = gone.len();
        let mut idle_since = u64::MAX;
        for (id, session) in &self.map {
            if is_over(session.active) {
                gone.push(*id);
            } else {
                idle_since = idle_since.min(session.active);
            }
        }
        self.idle_since = idle_since;
        for id in &gone[first..] {
            self.remove(*id);
        }
    }

    /// Opens a session; says which gave way to it.
    pub(super) fn open(
        &mut self,
        id: SessionId,
        now: u64,
        rules: &Rules,
        gone: &mut Vec<SessionId>,
    ) {
        while len_u64(self.map.len()) >= u64::from(rules.sessions) {
            let idlest = self.idlest(|_| true).expect("the limit is at least one");
            self.remove(idlest);
            gone.push(idlest);
        }
        if self.map.is_empty() {
            self.idle_since = now;
        }
        let session =
            Session { next: Seq(1), active: now, replies: VecDeque::new(), touched: true };
        let before = self.map.insert(id, session);
        assert!(before.is_none(), "{id} was used before");
        self.touched.push(id);
    }

    /// What is to be done with command `seq` of a session, which thereby shows that it is in use.
    pub(super) fn turn(&mut self, id: SessionId, seq: Seq, now: u64) -> Turn {
        let Some(session) = self.map.get_mut(&id) else {
            return Turn::Unknown;
        };
        session.active = now;
        if !session.touched {
            session.touched = true;
            self.touched.push(id);
        }
        if seq == session.next {
            Turn::Now
        } else if seq < session.next {
            Turn::Before(session.reply(seq).cloned())
        } else {
            Turn::Gap { next: session.next }
        }
    }

    /// Notes the outcome of a session's next command. Replies before `first` are no longer needed.
    pub(super) fn record(&mut self, id: SessionId, first: Seq, outcome: Outcome, rules: &Rules) {
        let session = self.map.get_mut(&id).expect("it is this session's turn");
        let seq = session.next;
        session.replies.push_back(outcome);
        session.next = seq.next();
        self.replies += 1;
        // A command cannot declare itself answered: its own reply stays whatever the sender says.
        self.replies -= session.forget_below(first.min(seq));
        let kept = len_u64(session.replies.len());
        if kept > u64::from(rules.session_replies) {
            self.replies -= session.forget(1);
        }
        if len_u64(self.replies) > u64::from(rules.replies) {
            self.shed();
        }
    }

    /// Puts every touched session among the writes.
    pub(super) fn write(&mut self, mut put: impl FnMut(SessionId, Option<Vec<u8>>)) {
        for id in self.touched.drain(..) {
            let session = self.map.get_mut(&id);
            put(
                id,
                session.map(|session| {
                    session.touched = false;
                    session.encode()
                }),
            );
        }
    }

    /// The session idle for longest (of those, the oldest) loses its replies.
    fn shed(&mut self) {
        let id =
            self.idlest(|session| !session.replies.is_empty()).expect("somebody holds the replies");
        let session = self.map.get_mut(&id).expect("just found");
        self.replies -= session.forget(session.replies.len());
        if !session.touched {
            session.touched = true;
            self.touched.push(id);
        }
    }

    fn idlest(&self, which: impl Fn(&Session) -> bool) -> Option<SessionId> {
        let candidates = self.map.iter().filter(|(_, session)| which(session));
        let (id, _) = candidates.min_by_key(|(id, session)| (session.active, **id))?;
        Some(*id)
    }

    fn remove(&mut self, id: SessionId) {
        let session = self.map.remove(&id).expect("it is there");
        self.replies -= session.replies.len();
        if !session.touched {
            self.touched.push(id);
        }
    }
}
