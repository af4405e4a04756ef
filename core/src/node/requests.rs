//! The node's part in requests: whom they may go to, and what comes about them.

use alloc::vec::Vec;

use bytes::Bytes;

use super::Node;
use super::turn::Reachable;
use crate::group::Group;
use crate::ids::{Boot, ConnId, GroupId, MemberId, RequestId};
use crate::io::{Output, Refused};
use crate::request::message::{Fault, Part};
use crate::request::{Half, HandleId, Reach, Request, Requests, Response, StreamId, Target, Via};
use crate::ring::{RingView, shard_of};
use crate::router::{self, Router};
use crate::time::{Instant, Now};
use crate::wire::message::Message;

/// Whom this node can reach, and who is responsible for what.
struct Responsible<'a> {
    reach: Reachable<'a>,
    ring: &'a RingView,
    router: &'a Router,
    shards: u32,
}

impl Reach for Responsible<'_> {
    fn via(&self, member: MemberId) -> Option<Via> {
        if member == self.reach.me {
            return Some(Via::Local);
        }
        self.reach.links.conn_of(member).map(Via::Conn)
    }

    fn was_reached(&self, member: MemberId) -> bool {
        self.reach.links.was_up(member)
    }

    fn owners(&self, key: &[u8], count: usize) -> Vec<MemberId> {
        self.ring.owners(key, count)
    }

    fn leaders(&self, partition: &[u8]) -> Vec<MemberId> {
        let group = shard_of(partition, self.shards);
        let known = self.leader_here(partition).or_else(|| self.router.leader(group));
        let replicas = router::Reach::replicas(&self.reach, group);
        let mut leaders: Vec<MemberId> = known.into_iter().collect();
        leaders.extend(replicas.into_iter().filter(|&replica| known != Some(replica)));
        leaders
    }

    fn leader_here(&self, partition: &[u8]) -> Option<MemberId> {
        let group: Option<&Group> = self.reach.groups.get(&shard_of(partition, self.shards));
        group.and_then(|group| group.raft.leader()).map(|leader| leader.member)
    }

    fn boot(&self, conn: ConnId) -> Boot {
        self.reach.links.boot_of(conn)
    }
}

impl Node {
    /// A request of the application. An accepted one ends with one [`Effect::Answered`], at its deadline at the latest.
    ///
    /// # Errors
    /// It was not accepted; nothing changed.
    ///
    /// [`Effect::Answered`]: crate::request::Effect::Answered
    pub fn request(&mut self, now: Now, request: RequestId, what: Request) -> Result<(), Refused> {
        if self.halted {
            return Err(Refused::Halted);
        }
        self.requests.request(now.instant, request, what)
    }

    /// Gives a request up, and what is open of its streams. One that is not answered ends with
    /// [`Failure::Cancelled`](crate::request::Failure::Cancelled).
    pub fn cancel_request(&mut self, request: RequestId) {
        self.requests.cancel(request);
    }

    /// From now on this node is handed the requests that it is responsible for. Before, they are answered with
    /// [`Fault::NoRoute`].
    pub fn serve_requests(&mut self) {
        self.requests.serve();
    }

    /// Answers a request that was handed out. True when its response, with the streams that it adds, is on its way; false
    /// when it is an error, or became one, or nobody waits for it any more.
    pub fn respond(&mut self, handle: HandleId, result: Result<Response, Fault>) -> bool {
        self.requests.respond(handle, result)
    }

    /// Writes to a stream, or ends it with the last bytes. Nothing happens if it has ended.
    ///
    /// # Errors
    /// More than [`STREAM_CHUNK_MAX`](crate::request::STREAM_CHUNK_MAX), or than the last
    /// [`Effect::Credit`](crate::request::Effect::Credit) allows; nothing changed.
    pub fn stream_write(
        &mut self,
        stream: StreamId,
        data: Bytes,
        last: bool,
    ) -> Result<(), Refused> {
        self.requests.stream_write(stream, data, last)
    }

    /// A stream's reader has done with so many more bytes.
    pub fn stream_taken(&mut self, stream: StreamId, bytes: u64) {
        self.requests.stream_taken(stream, bytes);
    }

    /// Gives a direction of a stream up.
    pub fn stream_give_up(&mut self, stream: StreamId, half: Half) {
        self.requests.stream_give_up(stream, half);
    }

    /// Takes what is about requests; gives back anything else.
    pub(super) fn on_request_message(
        &mut self,
        now: Instant,
        from: MemberId,
        conn: ConnId,
        message: Message,
    ) -> Option<Message> {
        if let Message::Request { at, part } = message {
            // Only who owns a key is asked of the ring, and a new one may take milliseconds to make.
            if let Part::Ask(ask) = &part
                && matches!(ask.target, Target::Key(_))
            {
                self.refresh_ring();
            }
            let result = self.with_requests(|requests, reach| {
                requests.on_part(now, from, conn, (at, part), reach)
            });
            if let Err(what) = result {
                self.peer_fault(Some(from), what);
            }
        } else if let Message::RequestsTaken { upto } = message {
            self.requests.on_taken(conn, upto);
        } else if let Message::RequestsSent { upto } = message {
            self.requests.on_sent(conn, upto);
        } else if let Message::StreamCredit { of, upto } = message {
            self.requests.on_credit(conn, of, upto);
        } else {
            return Some(message);
        }
        None
    }

    /// A group's leader is known: requests to its partitions go there.
    pub(super) fn on_leader_for_requests(&mut self, now: Instant, group: GroupId) {
        let shards = self.shards();
        self.requests.on_leader(now, |partition| shard_of(partition, shards) == group);
    }

    /// Does what is due of requests.
    pub(super) fn drive_requests(&mut self, now: Instant) {
        if self.requests.wants_ring(now) {
            self.refresh_ring();
        }
        loop {
            self.with_requests(|requests, reach| requests.drive(now, reach));
            let sends = self.requests.sends();
            self.outputs.0.extend(sends.map(|(conn, message)| Output::Send { conn, message }));
            self.outputs.0.extend(self.requests.effects().map(Output::Request));
            let Some((conn, how)) = self.requests.stuck() else { break };
            self.peer_fault(self.links.member_of(conn), how);
            self.on_disconnected(now, conn);
            self.outputs.0.push(Output::Disconnect { conn });
        }
    }

    /// Ends overdue requests while nothing may be sent.
    pub(super) fn expire_requests(&mut self, now: Instant) {
        self.requests.expire(now);
        self.outputs.0.extend(self.requests.effects().map(Output::Request));
    }

    fn shards(&self) -> u32 {
        self.genesis.as_ref().map_or(self.config.shards, |genesis| genesis.shards)
    }

    fn with_requests<T>(&mut self, act: impl FnOnce(&mut Requests, &Responsible<'_>) -> T) -> T {
        let shards = self.shards();
        let reach = Responsible {
            reach: Reachable {
                me: self.me,
                client: self.config.client,
                links: &self.links,
                genesis: self.genesis.as_ref(),
                table: self.table.as_ref(),
                groups: &self.groups,
            },
            ring: &self.ring,
            router: &self.router,
            shards,
        };
        act(&mut self.requests, &reach)
    }
}
