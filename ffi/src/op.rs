//! Operations: from the header's struct to core's actions, from replies to events.

#![expect(unsafe_code, reason = "views of the host")]

use std::time::Duration;

use bytes::Bytes;
use libring::{
    Action, Consistency, Error, Failure, HandlerError, MemberId, MemberState, Placement, Range,
    Reply as Answer, Revision, Standing, Way, slot_of,
};
use ring_core::ids::len_u64;
use ring_core::request::{HEADERS_MAX, STREAMS_MAX};
use ring_core::shard::command::{Change, Expect, WATCH_WAIT};
use serde_json::{Value, json};

use crate::fault::Fault;
use crate::queue::Event;
use crate::raw;
use crate::request::{Ask, Awaited, Parts, To};
use crate::scan::{Changes, Pages, Paging, failed};
use crate::serve::{Reply, Wish};
use crate::status;
use crate::types::{
    RING_AFTER, RING_CODE_DROPPED, RING_CODE_PANICKED, RING_CODE_TOO_LARGE, RING_DOWN, RING_ERROR,
    RING_EV_DONE, RING_FORCE, RING_IF_VALUE, RING_LOCAL, RING_NEXT, RING_ONCE, RING_ONE_WAY,
    RING_OP_BATCH, RING_OP_CAS, RING_OP_DELETE, RING_OP_GET, RING_OP_HANDLE, RING_OP_INFO,
    RING_OP_JOIN, RING_OP_LEAVE, RING_OP_MEMBERS, RING_OP_METRICS, RING_OP_OWNERS, RING_OP_PUT,
    RING_OP_REPLICA, RING_OP_REQUEST, RING_OP_RESPOND, RING_OP_SCAN, RING_OP_SERVE, RING_OP_STATUS,
    RING_OP_TRACK, RING_OP_WATCH, RING_PREFIX, RING_REMOVE, RING_REST, RING_REVERSE, RING_STREAMS,
    RING_TO_LEADER, RING_TO_MEMBER, RING_UP, RING_WITH_CLIENTS, ring_bytes_t, ring_change_t,
    ring_op_t, ring_pair_t, ring_stream_t,
};

/// An operation, read whole: nothing in it points to the host's memory but the partition's name.
pub(crate) struct Op<'a> {
    pub(crate) tag: u64,
    pub(crate) partition: &'a str,
    /// None: as the node's options say.
    pub(crate) timeout: Option<Duration>,
    pub(crate) what: What,
}

/// What an operation does.
pub(crate) enum What {
    Call(Action),
    /// The status of a member; none: of this one.
    Status(Option<MemberId>),
    /// A member is to leave; none: this one.
    Leave {
        member: Option<MemberId>,
        /// Also where too many others are away.
        force: bool,
    },
    Pages(Paging),
    /// Answered at once.
    Ask(Question),
    Request(Box<Ask>),
    Respond(Box<Reply>),
    Handle(Wish),
    Track(Bytes, Awaited),
    /// An address more to dial.
    Join(String),
    Metrics,
    /// All handlers are there.
    Serve,
    #[cfg(feature = "test-ops")]
    Echo(Bytes),
    /// Panics in the call.
    #[cfg(feature = "test-ops")]
    PanicHere,
    /// Panics in the completion, on a thread of the library.
    #[cfg(feature = "test-ops")]
    PanicThere,
}

impl What {
    /// Whether it gives its host something that must be taken back when the queue is freed.
    pub(crate) fn outlives_its_submission(&self) -> bool {
        match self {
            Self::Pages(_) | Self::Request(_) | Self::Respond(_) => true,
            Self::Handle(_) | Self::Track(..) => true,
            Self::Call(_) | Self::Status(_) | Self::Leave { .. } | Self::Ask(_) => false,
            Self::Join(_) | Self::Metrics | Self::Serve => false,
            #[cfg(feature = "test-ops")]
            Self::Echo(_) | Self::PanicHere | Self::PanicThere => false,
        }
    }
}

/// What a node knows by itself.
pub(crate) enum Question {
    Owners { key: Bytes, count: usize },
    Members { with_clients: bool },
}

/// The answer to a question: who is in line for a key, or who is registered.
pub(crate) fn answered(
    tag: u64,
    question: &Question,
    me: MemberId,
    ring: &Placement,
    there: impl FnOnce() -> There,
) -> Event {
    let event = Event { tag, kind: RING_EV_DONE, ..Event::default() };
    match question {
        Question::Owners { key, count } => {
            let owners = ring.owners(slot_of(key), *count);
            let data: Vec<u8> = owners.iter().flat_map(|id| id.0.to_ne_bytes()).collect();
            let a = owners.first().map_or(0, |owner| owner.0);
            Event { a, b: len_u64(owners.len()), data: data.into(), ..event }
        }
        Question::Members { with_clients } => {
            let There { members, clients } = there();
            let mut listed: Vec<Value> = members.into_iter().map(Listed::json).collect();
            if *with_clients {
                let client = |id: MemberId| json!({ "id": id.0, "client": true });
                listed.extend(clients.into_iter().map(client));
            }
            let b = len_u64(listed.len());
            Event { a: me.0, b, data: Value::from(listed).to_string().into(), ..event }
        }
    }
}

/// Who is there.
pub(crate) struct There {
    pub(crate) members: Vec<Listed>,
    /// Those that are connected to this node.
    pub(crate) clients: Vec<MemberId>,
}

/// A registered member, and what is thought of it.
pub(crate) struct Listed {
    pub(crate) id: MemberId,
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) weight: u16,
    pub(crate) standing: Standing,
    pub(crate) state: Option<MemberState>,
    pub(crate) tags: Vec<(String, String)>,
    pub(crate) connected: bool,
}

impl Listed {
    fn json(self) -> Value {
        let standing = match self.standing {
            Standing::Active => "Active",
            Standing::Leaving => "Leaving",
            Standing::Lost => "Lost",
        };
        let state = self.state.map(|state| match state {
            MemberState::Alive => "alive",
            MemberState::Suspect => "suspect",
            MemberState::Dead => "failed",
            MemberState::Left => "left",
        });
        let tags: serde_json::Map<String, Value> =
            self.tags.into_iter().map(|(key, value)| (key, Value::from(value))).collect();
        json!({
            "id": self.id.0,
            "name": self.name,
            "address": self.address,
            "weight": self.weight,
            "standing": standing,
            "state": state,
            "tags": tags,
            "connected": self.connected,
        })
    }
}

impl Op<'_> {
    /// Reads an operation.
    ///
    /// # Safety
    /// As ring_submit() says of its `op`.
    pub(crate) unsafe fn read<'a>(op: *const ring_op_t) -> Result<Op<'a>, Fault> {
        // SAFETY: the caller's.
        let op = unsafe { raw::read(op, "ring_op_t")? };
        if op.reserved != 0 {
            return Err(Fault::invalid("reserved: 0"));
        }
        if op.code != 0 && (op.op != RING_OP_RESPOND || op.flags & RING_ERROR == 0) {
            return Err(Fault::invalid("code: only with RING_OP_RESPOND and RING_ERROR"));
        }
        // SAFETY: the caller vouches for every view in it.
        let partition = unsafe { raw::text(op.partition, "partition")? };
        // SAFETY: as above.
        let what = unsafe { read_what(&op)? };
        let mut timeout = nanos(op.timeout_ns);
        if let What::Pages(Paging::Watch(_)) = &what {
            // An answer that says nothing takes half as long.
            timeout = Some(timeout.unwrap_or_default().max(WATCH_PAGE_MIN));
        }
        Ok(Op { tag: op.tag, partition, timeout, what })
    }
}

/// A member of the header; 0 is none.
fn member(id: u64) -> Option<MemberId> {
    Some(MemberId(id)).filter(|member| member.0 != 0)
}

/// A time of the header; none when it is not positive.
pub(crate) fn nanos(ns: i64) -> Option<Duration> {
    u64::try_from(ns).ok().filter(|ns| *ns > 0).map(Duration::from_nanos)
}

/// # Safety
/// Every view in `op` is as [`raw::bytes`] asks.
unsafe fn read_what(op: &ring_op_t) -> Result<What, Fault> {
    // SAFETY: the caller's.
    let copy =
        |view: ring_bytes_t, what| unsafe { raw::bytes(view, what) }.map(Bytes::copy_from_slice);
    let known = |flags: u16| check_flags(op, flags);
    let consistency = match op.flags & RING_LOCAL {
        0 => Consistency::Linearizable,
        _ => Consistency::Local,
    };
    let call = match op.op {
        RING_OP_GET => {
            known(RING_LOCAL)?;
            Action::Get { key: copy(op.key, "key")?, consistency }
        }
        RING_OP_PUT => {
            known(0)?;
            Action::Put { key: copy(op.key, "key")?, value: copy(op.value, "value")? }
        }
        RING_OP_DELETE => {
            known(0)?;
            Action::Delete { key: copy(op.key, "key")? }
        }
        RING_OP_CAS => {
            known(RING_IF_VALUE | RING_REMOVE)?;
            let expect = match op.flags & RING_IF_VALUE {
                0 => Expect::Revision(Revision(op.expect)),
                _ => Expect::Value(Some(copy(op.compare, "compare")?)),
            };
            let value = match op.flags & RING_REMOVE {
                0 => Some(copy(op.value, "value")?),
                _ => None,
            };
            Action::CompareAndSet { key: copy(op.key, "key")?, expect, value }
        }
        RING_OP_BATCH => {
            known(0)?;
            // SAFETY: the caller's.
            Action::Batch { changes: unsafe { read_changes(op)? } }
        }
        RING_OP_SCAN => {
            known(RING_PREFIX | RING_REVERSE | RING_LOCAL)?;
            return scan(op, copy(op.key, "key")?, copy(op.value, "value")?, consistency);
        }
        RING_OP_STATUS => {
            known(0)?;
            return Ok(What::Status(member(op.target)));
        }
        RING_OP_OWNERS => {
            known(0)?;
            let count = usize::try_from(op.limit.max(1)).unwrap_or(usize::MAX);
            return Ok(What::Ask(Question::Owners { key: copy(op.key, "key")?, count }));
        }
        RING_OP_MEMBERS => {
            known(RING_WITH_CLIENTS)?;
            let with_clients = op.flags & RING_WITH_CLIENTS != 0;
            return Ok(What::Ask(Question::Members { with_clients }));
        }
        RING_OP_LEAVE => {
            known(RING_FORCE)?;
            let force = op.flags & RING_FORCE != 0;
            return Ok(What::Leave { member: member(op.target), force });
        }
        RING_OP_INFO => {
            known(0)?;
            Action::Info
        }
        RING_OP_WATCH | RING_OP_REQUEST | RING_OP_RESPOND | RING_OP_HANDLE | RING_OP_TRACK
        | RING_OP_REPLICA | RING_OP_METRICS | RING_OP_JOIN | RING_OP_SERVE => {
            // SAFETY: the caller's.
            return unsafe { read_own(op) };
        }
        #[cfg(feature = "test-ops")]
        TEST_ECHO => return Ok(What::Echo(copy(op.value, "value")?)),
        #[cfg(feature = "test-ops")]
        TEST_PANIC_HERE => return Ok(What::PanicHere),
        #[cfg(feature = "test-ops")]
        TEST_PANIC_THERE => return Ok(What::PanicThere),
        unknown => return Err(Fault::invalid(format!("op {unknown}: not known"))),
    };
    Ok(What::Call(call))
}

/// An operation of this layer, not of core.
///
/// # Safety
/// As for [`read_what`].
unsafe fn read_own(op: &ring_op_t) -> Result<What, Fault> {
    // SAFETY: the caller's.
    let copy =
        |view: ring_bytes_t, what| unsafe { raw::bytes(view, what) }.map(Bytes::copy_from_slice);
    let known = |flags: u16| check_flags(op, flags);
    match op.op {
        RING_OP_WATCH => {
            known(RING_PREFIX | RING_AFTER)?;
            let (from, to) = range(op, copy(op.key, "key")?, copy(op.value, "value")?)?;
            let after = (op.flags & RING_AFTER != 0).then_some(Revision(op.expect));
            Ok(What::Pages(Paging::Watch(Changes::new(from, to, after))))
        }
        RING_OP_REQUEST => {
            known(RING_TO_MEMBER | RING_TO_LEADER | RING_ONE_WAY | RING_ONCE | RING_STREAMS)?;
            // SAFETY: the caller's.
            Ok(What::Request(Box::new(unsafe { read_ask(op)? })))
        }
        RING_OP_RESPOND => {
            known(RING_ERROR)?;
            // SAFETY: the caller's.
            Ok(What::Respond(Box::new(unsafe { read_reply(op)? })))
        }
        RING_OP_HANDLE => {
            known(RING_REST)?;
            // SAFETY: the caller's.
            Ok(What::Handle(unsafe { read_wish(op)? }))
        }
        RING_OP_TRACK => {
            known(RING_NEXT)?;
            let awaited = match op.flags {
                0 => Awaited::Leaving,
                _ => Awaited::LeavingOrNext,
            };
            Ok(What::Track(copy(op.key, "key")?, awaited))
        }
        RING_OP_REPLICA => {
            known(0)?;
            Ok(What::Track(copy(op.key, "key")?, Awaited::Coming))
        }
        RING_OP_METRICS => {
            known(0)?;
            Ok(What::Metrics)
        }
        RING_OP_SERVE => {
            known(0)?;
            Ok(What::Serve)
        }
        RING_OP_JOIN => {
            known(0)?;
            // SAFETY: the caller's.
            let address = unsafe { raw::text(op.value, "value")? };
            Ok(What::Join(address.to_owned()))
        }
        unknown => Err(Fault::invalid(format!("op {unknown}: not known"))),
    }
}

fn check_flags(op: &ring_op_t, flags: u16) -> Result<(), Fault> {
    match op.flags & !flags {
        0 => Ok(()),
        unknown => Err(Fault::invalid(format!("op {}: unknown flags {unknown:#x}", op.op))),
    }
}

/// # Safety
/// Every change is readable, and every view in them.
unsafe fn read_changes(op: &ring_op_t) -> Result<Vec<Change<Bytes>>, Fault> {
    // SAFETY: the caller's.
    let changes: &[ring_change_t] =
        unsafe { raw::array(op.changes, op.n_changes, CHANGES_MAX, "changes")? };
    let change = |change: &ring_change_t| {
        // SAFETY: the caller's.
        let key = Bytes::copy_from_slice(unsafe { raw::bytes(change.key, "a change's key")? });
        let put = match change.op {
            op if op == u32::from(RING_OP_PUT) => true,
            op if op == u32::from(RING_OP_DELETE) => false,
            op => return Err(Fault::invalid(format!("a change's op {op}: not known"))),
        };
        if !put {
            return Ok(Change { key, value: None });
        }
        // SAFETY: the caller's.
        let value = unsafe { raw::bytes(change.value, "a change's value")? };
        Ok(Change { key, value: Some(Bytes::copy_from_slice(value)) })
    };
    changes.iter().map(change).collect()
}

fn scan(op: &ring_op_t, key: Bytes, value: Bytes, consistency: Consistency) -> Result<What, Fault> {
    let reverse = op.flags & RING_REVERSE != 0;
    let limit = Some(op.limit).filter(|limit| *limit != 0);
    let (from, to) = range(op, key, value)?;
    let pages = Pages::new(from, to, reverse, limit, consistency);
    Ok(What::Pages(Paging::Scan(pages)))
}

/// The keys of a scan or a watch.
fn range(op: &ring_op_t, key: Bytes, value: Bytes) -> Result<(Bytes, Option<Bytes>), Fault> {
    if op.flags & RING_PREFIX == 0 {
        return Ok((key, Some(value).filter(|to| !to.is_empty())));
    }
    if !value.is_empty() {
        return Err(Fault::invalid("`value` is no end of a range with RING_PREFIX"));
    }
    let to = Range::after_prefix(&key);
    Ok((key, to))
}

/// # Safety
/// Every view in `op` is as [`raw::bytes`] asks.
unsafe fn read_ask(op: &ring_op_t) -> Result<Ask, Fault> {
    let to = match op.flags & (RING_TO_MEMBER | RING_TO_LEADER) {
        // SAFETY: the caller's.
        0 => To::Owner(Bytes::copy_from_slice(unsafe { raw::bytes(op.key, "key")? })),
        RING_TO_MEMBER => To::Member(member(op.target)),
        RING_TO_LEADER => To::Leader,
        _ => return Err(Fault::invalid("a request goes to a member or to a leader, not to both")),
    };
    let (once, one_way) = (op.flags & RING_ONCE != 0, op.flags & RING_ONE_WAY != 0);
    // SAFETY: the caller's.
    let (route, parts) = unsafe { (raw::text(op.route, "route")?, read_parts(op)?) };
    let takes_streams = op.flags & RING_STREAMS != 0;
    Ok(Ask { to, route: route.to_owned(), parts, once, one_way, takes_streams })
}

/// # Safety
/// As for [`read_ask`].
unsafe fn read_reply(op: &ring_op_t) -> Result<Reply, Fault> {
    let result = if op.flags & RING_ERROR == 0 {
        // SAFETY: the caller's.
        Ok(unsafe { read_parts(op)? })
    } else {
        if op.n_headers != 0 || op.n_streams != 0 {
            return Err(Fault::invalid("an error has neither headers nor streams"));
        }
        if op.code >= CODES {
            return Err(Fault::invalid(format!("code: {} is one of the library's", op.code)));
        }
        // SAFETY: the caller's.
        let text = unsafe { raw::text(op.value, "value")? };
        Err(HandlerError::new(op.code, text))
    };
    Ok(Reply { session: op.target, result })
}

/// # Safety
/// As for [`read_ask`].
unsafe fn read_wish(op: &ring_op_t) -> Result<Wish, Fault> {
    // SAFETY: the caller's.
    let route = unsafe { raw::text(op.route, "route")? };
    let is_rest = op.flags & RING_REST != 0;
    if is_rest && !route.is_empty() {
        return Err(Fault::invalid("route: empty with RING_REST"));
    }
    let places = match op.limit {
        0 => PLACES,
        limit => usize::try_from(limit).unwrap_or(PLACES_MAX).min(PLACES_MAX),
    };
    Ok(Wish { route: (!is_rest).then(|| route.to_owned()), places })
}

/// # Safety
/// As for [`read_ask`].
unsafe fn read_parts(op: &ring_op_t) -> Result<Parts, Fault> {
    // SAFETY: the caller's.
    let (body, headers, streams) = unsafe {
        let body = Bytes::copy_from_slice(raw::bytes(op.value, "value")?);
        let headers = raw::array(op.headers, op.n_headers, HEADERS_MAX, "headers")?;
        (body, headers, raw::array(op.streams, op.n_streams, STREAMS_MAX, "streams")?)
    };
    let header = |pair: &ring_pair_t| {
        // SAFETY: the caller's.
        let (name, value) = unsafe {
            (raw::text(pair.name, "a header's name")?, raw::bytes(pair.value, "a header's value")?)
        };
        Ok((name.to_owned(), Bytes::copy_from_slice(value)))
    };
    let stream = |stream: &ring_stream_t| {
        // SAFETY: the caller's.
        let name = unsafe { raw::text(stream.name, "a stream's name")? };
        if name.is_empty() {
            return Err(Fault::invalid("a stream's name is empty"));
        }
        let way = match (stream.ways, stream.reserved) {
            (RING_UP, 0) => Way::Up,
            (RING_DOWN, 0) => Way::Down,
            (BOTH, 0) => Way::Both,
            _ => return Err(Fault::invalid("a stream's ways: RING_UP, RING_DOWN or both")),
        };
        Ok((name.to_owned(), way))
    };
    Ok(Parts {
        headers: headers.iter().map(header).collect::<Result<_, Fault>>()?,
        body,
        streams: streams.iter().map(stream).collect::<Result<_, Fault>>()?,
    })
}

/// The end of an operation that is no scan.
pub(crate) fn done(tag: u64, id: u64, answer: Result<Answer, Error>) -> Event {
    let event = Event { tag, id, kind: RING_EV_DONE, ..Event::default() };
    match answer {
        Ok(Answer::Written { revision }) => Event { a: revision.0, ..event },
        Ok(Answer::Deleted { existed, revision }) => {
            Event { a: revision.0, b: u64::from(existed), ..event }
        }
        Ok(Answer::Compared { swapped, revision }) => {
            let status = if swapped { status::RING_OK } else { status::RING_CONFLICT };
            Event { status, a: revision.0, ..event }
        }
        Ok(Answer::Value(found)) => value(event, found),
        Ok(Answer::Local { found, age }) => Event { b: staleness(age), ..value(event, found) },
        Ok(Answer::Info { info, replicas, leader }) => {
            let replicas: Vec<u64> = replicas.iter().map(|member| member.0).collect();
            let data = json!({
                "shard": info.group.0,
                "replicas": replicas,
                "leader": leader.map(|member| member.0),
                "keys": info.keys,
                "bytes": info.bytes,
                "revision": info.revision.0,
                "applied": info.applied.0,
                "applied_term": info.applied_term.0,
            });
            let (a, b) = (info.revision.0, info.keys);
            Event { a, b, data: data.to_string().into(), ..event }
        }
        Ok(Answer::Status(status)) => match serde_json::to_vec(&status) {
            Ok(data) => Event { a: status.member.0, data: data.into(), ..event },
            Err(e) => failed(tag, id, &Fault::new(status::RING_IO, e.to_string())),
        },
        Ok(Answer::Page { .. } | Answer::Changes { .. } | Answer::Compacted { .. }) => {
            let fault = Fault::new(status::RING_PANICKED, "a reply of the wrong kind");
            failed(tag, id, &fault)
        }
        // Told to whoever abandoned a read.
        Err(Error::Failed(Failure::Interrupted)) => {
            let fault = Fault::new(status::RING_CANCELLED, "cancelled; it did not happen");
            failed(tag, id, &fault)
        }
        Err(error) => failed(tag, id, &error.into()),
    }
}

fn value(event: Event, found: Option<(Bytes, Revision)>) -> Event {
    match found {
        Some((data, revision)) => Event { a: revision.0, data, ..event },
        None => Event { status: status::RING_NOT_FOUND, ..event },
    }
}

/// How stale a read can be, as the header has it.
pub(crate) fn staleness(age: Option<Duration>) -> u64 {
    age.map_or(u64::MAX, |age| u64::try_from(age.as_nanos()).unwrap_or(u64::MAX - 1))
}

/// More changes are refused by every configuration.
const CHANGES_MAX: usize = 1 << 20;
const BOTH: u32 = RING_UP | RING_DOWN;
/// Codes of errors from here on are the library's.
const CODES: u32 = 0xFFFF_FFF0;
/// Requests that may wait in a queue if the host does not say...
const PLACES: usize = 1024;
/// ... and at most.
const PLACES_MAX: usize = 1 << 20;
/// Twice the time after which a watch is answered although nothing has changed.
const WATCH_PAGE_MIN: Duration = WATCH_WAIT.saturating_mul(2);
const _: () = assert!(
    HandlerError::TOO_LARGE == RING_CODE_TOO_LARGE
        && HandlerError::PANICKED == RING_CODE_PANICKED
        && HandlerError::DROPPED == RING_CODE_DROPPED
        && RING_CODE_DROPPED >= CODES
);
#[cfg(feature = "test-ops")]
const TEST_ECHO: u16 = 0xF001;
#[cfg(feature = "test-ops")]
const TEST_PANIC_HERE: u16 = 0xF002;
#[cfg(feature = "test-ops")]
const TEST_PANIC_THERE: u16 = 0xF003;
