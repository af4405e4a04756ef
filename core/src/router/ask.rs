//! Questions: reads, the pages of a scan, a member's word of itself.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use super::{At, PAUSE, Reach, Router, choose_replica};
use crate::ids::{CursorId, GroupId, MemberId, RequestId, Revision};
use crate::io::{Failure, Output, Reply};
use crate::shard::command::{Answer, Page, Query, WATCH_WAIT};
use crate::time::Instant;
use crate::wire::message::{AskError, Leave, MemberStatus, Message};

/// A question under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ask {
    pub(super) request: RequestId,
    pub(super) what: What,
    pub(super) turn: usize,
    pub(super) target: Option<MemberId>,
    pub(super) begun: Instant,
    pub(super) due: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum What {
    Query {
        group: GroupId,
        query: Query,
        linearizable: bool,
    },
    /// A later page of a scan: only where the scan began, and only once.
    Page {
        group: GroupId,
        member: MemberId,
        cursor: CursorId,
        query: Query,
    },
    Status {
        member: MemberId,
        /// Whether it is told to leave, too.
        leave: Leave,
    },
}

/// A scan that may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Cursor {
    pub(super) group: GroupId,
    pub(super) member: MemberId,
    pub(super) page: u32,
    pub(super) revision: Revision,
    pub(super) idle_until: Instant,
}

impl Router {
    pub(crate) fn query(
        &mut self,
        now: Instant,
        request: RequestId,
        deadline: Instant,
        group: GroupId,
        query: Query,
        linearizable: bool,
    ) {
        self.ask(now, request, deadline, What::Query { group, query, linearizable });
    }

    pub(crate) fn status(
        &mut self,
        now: Instant,
        request: RequestId,
        deadline: Instant,
        member: MemberId,
        leave: Leave,
    ) {
        self.ask(now, request, deadline, What::Status { member, leave });
    }

    /// The next page of a scan, or its end. False when the cursor is not known (any more).
    pub(crate) fn page(
        &mut self,
        now: Instant,
        request: RequestId,
        deadline: Instant,
        cursor: CursorId,
        limit: Option<u32>,
    ) -> bool {
        let Some(known) = self.cursors.get_mut(&cursor) else { return false };
        known.page += 1;
        known.idle_until = now + self.timers.cursor_ttl;
        let (group, member) = (known.group, known.member);
        let (page, revision) = (known.page, known.revision);
        let query = match limit {
            Some(limit) => Query::ScanNext { cursor, page, revision, limit },
            None => Query::ScanClose { cursor },
        };
        if limit.is_none() {
            self.cursors.remove(&cursor);
        }
        self.ask(now, request, deadline, What::Page { group, member, cursor, query });
        true
    }

    /// A name for a new scan's snapshot.
    pub(crate) fn new_cursor(&mut self) -> CursorId {
        CursorId(self.rng.next())
    }

    fn ask(&mut self, now: Instant, request: RequestId, deadline: Instant, what: What) {
        let id = self.next_ask;
        self.next_ask += 1;
        self.add_call(request, deadline, 64, At::Ask(id));
        self.asks.insert(id, Ask { request, what, turn: 0, target: None, begun: now, due: now });
        self.ask_due.insert((now, id));
    }

    pub(super) fn drive_ask(
        &mut self,
        now: Instant,
        id: u64,
        reach: &impl Reach,
        send: &mut Vec<(MemberId, Message)>,
        out: &mut Vec<Output>,
    ) {
        let Some(ask) = self.asks.get_mut(&id) else { return };
        let mut wait = self.timers.retry;
        match &ask.what {
            What::Query { group, query, linearizable } => {
                // First the own replica, else the leader; then one after the other.
                let first = reach
                    .local_replica(*group)
                    .or_else(|| self.routes.get(group).and_then(|route| route.leader))
                    .filter(|_| ask.turn == 0);
                ask.target = choose_replica(*group, ask.turn, first, reach);
                ask.turn += 1;
                if let Some(target) = ask.target {
                    if matches!(query, Query::Watch(_)) {
                        wait += WATCH_WAIT;
                    }
                    let (query, linearizable, group) = (query.clone(), *linearizable, *group);
                    let ask = Message::Ask { call: id, group, query, linearizable };
                    send.push((target, ask));
                } else {
                    wait = PAUSE;
                }
            }
            What::Page { group, member, cursor, query } => {
                let (group, member, cursor) = (*group, *member, *cursor);
                // Asked a second time it would skip a page, so it is asked once.
                if ask.turn > 0 || !reach.is_connected(member) {
                    let request = ask.request;
                    self.cursors.remove(&cursor);
                    self.asks.remove(&id);
                    self.end_call(request, Err(Failure::Interrupted), out);
                    return;
                }
                ask.turn = 1;
                ask.target = Some(member);
                wait = self.timers.retry * 10;
                let query = query.clone();
                send.push((member, Message::Ask { call: id, group, query, linearizable: false }));
            }
            What::Status { member, leave } => {
                ask.target = Some(*member);
                if reach.is_connected(*member) {
                    send.push((*member, Message::AskStatus { call: id, leave: *leave }));
                } else {
                    wait = PAUSE;
                }
            }
        }
        ask.due = now + wait;
        self.ask_due.insert((ask.due, id));
    }

    /// An answer to a question.
    pub(crate) fn on_answer(
        &mut self,
        now: Instant,
        from: MemberId,
        id: u64,
        result: Result<Answer, AskError>,
        out: &mut Vec<Output>,
        describe: impl Fn(GroupId) -> (Vec<MemberId>, Option<MemberId>),
    ) {
        let Some(ask) = self.asks.get_mut(&id) else { return };
        let Ok(answer) = result else {
            // Another replica, a little later; an answer of one that is not asked any more changes nothing.
            if ask.target == Some(from) && matches!(ask.what, What::Query { .. }) {
                self.ask_due.remove(&(ask.due, id));
                ask.due = now + PAUSE;
                self.ask_due.insert((ask.due, id));
            }
            return;
        };
        self.ask_due.remove(&(ask.due, id));
        let ask = self.asks.remove(&id).expect("looked at just now");
        let result = match answer {
            Answer::Value(value) => Ok(Reply::Value(value)),
            Answer::Info(info) => {
                let (replicas, leader) = describe(info.group);
                Ok(Reply::Info { info, replicas, leader })
            }
            Answer::Changes { changes, upto } => Ok(Reply::Changes { changes, upto }),
            Answer::Compacted { first } => Ok(Reply::Compacted { first }),
            Answer::NoCursor => Err(Failure::Interrupted),
            Answer::Page(page) => {
                let cursor = self.note_cursor(now, from, &ask.what, &page);
                Ok(Reply::Page { page, cursor, age: None })
            }
        };
        self.end_call(ask.request, result, out);
    }

    /// An answer of a replica that did not ask its leader. It was told how old it was there when it left; the whole time
    /// since the question is counted as its way.
    pub(crate) fn on_local_answer(
        &mut self,
        now: Instant,
        from: MemberId,
        id: u64,
        answer: Answer,
        age: Option<u64>,
        out: &mut Vec<Output>,
    ) {
        let is_local = |ask: &&Ask| matches!(ask.what, What::Query { linearizable: false, .. });
        let Some(begun) = self.asks.get(&id).filter(is_local).map(|ask| ask.begun) else { return };
        let age = age.map(|age| Duration::from_nanos(age).saturating_add(now.since(begun)));
        let ask = self.asks.remove(&id).expect("looked at just now");
        self.ask_due.remove(&(ask.due, id));
        let result = match answer {
            Answer::Value(found) => Ok(Reply::Local { found, age }),
            Answer::Page(page) => {
                let cursor = self.note_cursor(now, from, &ask.what, &page);
                Ok(Reply::Page { page, cursor, age })
            }
            // Nothing else is asked like this.
            Answer::Info(_)
            | Answer::Changes { .. }
            | Answer::Compacted { .. }
            | Answer::NoCursor => Err(Failure::Malformed),
        };
        self.end_call(ask.request, result, out);
    }

    /// Remembers where a scan can go on, or forgets it.
    fn note_cursor(
        &mut self,
        now: Instant,
        from: MemberId,
        what: &What,
        page: &Page,
    ) -> Option<CursorId> {
        let (more, revision) = (page.more, page.revision);
        let idle_until = now + self.timers.cursor_ttl;
        match what {
            What::Query { group, query: Query::Scan(scan), .. } if more => {
                let cursor = Cursor { group: *group, member: from, page: 0, revision, idle_until };
                self.cursors.insert(scan.cursor, cursor);
                Some(scan.cursor)
            }
            What::Page { cursor, .. } if more => Some(*cursor),
            What::Page { cursor, .. } => {
                self.cursors.remove(cursor);
                None
            }
            What::Query { .. } | What::Status { .. } => None,
        }
    }

    /// What a member says of itself.
    pub(crate) fn on_status(&mut self, id: u64, status: Box<MemberStatus>, out: &mut Vec<Output>) {
        if let Some(ask) = self.asks.remove(&id) {
            self.ask_due.remove(&(ask.due, id));
            self.end_call(ask.request, Ok(Reply::Status(status)), out);
        }
    }
}
