//! The structs of the header. Those that the host fills start with their size and only grow at the
//! end; those that the library fills are frozen for an ABI number.

use std::ffi::{c_char, c_void};

use crate::status::ring_status_t;

/// Names an operation of a node, a request that came to it, or its end of a stream: never used twice by one node; 0 is
/// none.
pub type ring_id_t = u64;

/// Bytes that belong to someone else. `ptr` may be NULL when `len` is 0: that is an empty view.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ring_bytes_t {
    /// The first byte.
    pub ptr: *const u8,
    /// How many there are.
    pub len: usize,
}

/// A name and what belongs to it: a header, or a tag of a member.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ring_pair_t {
    /// UTF-8.
    pub name: ring_bytes_t,
    /// Any bytes; of a tag UTF-8.
    pub value: ring_bytes_t,
}

/// A stream to open beside a request or a response.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ring_stream_t {
    /// UTF-8, 1 to 255 bytes.
    pub name: ring_bytes_t,
    /// RING_UP, RING_DOWN, or both.
    pub ways: u32,
    /// 0.
    pub reserved: u32,
}

/// From the caller of a request to its handler.
pub const RING_UP: u32 = 1;
/// From the handler of a request to its caller.
pub const RING_DOWN: u32 = 2;

/// Why a call failed. The caller owns it and sets `size`; the library fills the rest on failure.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ring_error_t {
    /// sizeof(ring_error_t), set by the host.
    pub size: u32,
    /// The code that the call returned.
    pub code: ring_status_t,
    /// For later; 0.
    pub detail: u64,
    /// What went wrong, where and what to do: UTF-8, NUL-terminated, cut when it is longer.
    pub text: [c_char; 240],
}

/// How a completion queue is made. NULL in its place means all defaults.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ring_cq_options_t {
    /// sizeof(ring_cq_options_t).
    pub size: u32,
    /// 0.
    pub flags: u32,
    /// Called when events begin to wait, from any thread, a library's or one that submits. It must
    /// return quickly and not block. Inside it only ring_cq_wakeup() works. NULL: not called.
    pub wake: Option<unsafe extern "C" fn(arg: *mut c_void)>,
    /// For `wake`; it must be valid until ring_cq_free() has returned.
    pub wake_arg: *mut c_void,
}

/// Something that happened. Filled by ring_cq_drain(); `data` is lent until ring_events_release().
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ring_event_t {
    /// The operation's tag; 0 for an event of a node.
    pub tag: u64,
    /// The operation, or 0.
    pub id: ring_id_t,
    /// RING_EV_DONE and its like. Ignore those that you do not know.
    pub kind: u32,
    /// How it ended.
    pub status: ring_status_t,
    /// By kind: a revision, a number.
    pub a: u64,
    /// By kind: another number.
    pub b: u64,
    /// A value; after a failure what went wrong, in UTF-8.
    pub data: ring_bytes_t,
    /// Holds `data`; the library's own.
    pub owner: *mut c_void,
}

/// An operation has ended: exactly one for each ring_submit() that returned RING_OK. Nothing follows it of this
/// operation but what its streams do, and what becomes of the requests that it handed out. By operation: see
/// RING_OP_GET and its like.
pub const RING_EV_DONE: u32 = 1;
/// A scan found a key: `data` is the key and then its value, `a` the length of the key, `b` the
/// revision.
pub const RING_EV_ITEM: u32 = 2;
/// A connection to another member stands (`b` is 1) or is lost (`b` is 0); `a` is the member, `data` its address, if that
/// is known.
pub const RING_EV_MEMBER: u32 = 3;
/// A shard, `a`, of which this member has a replica, is led by member `b` (0: by nobody).
pub const RING_EV_LEADER: u32 = 4;
/// The node has ended; nothing more comes from it. RING_OUTCOME_UNKNOWN: a disk does not answer, and
/// its directory stays locked as long as the process lives.
pub const RING_EV_CLOSED: u32 = 5;
/// Keys left this member: `a` is who owns them now (0: nobody), `b` how many slots they are, `data` the ranges of
/// slots, each a pair of uint32_t: start (inclusive), end (exclusive).
pub const RING_EV_MOVE: u32 = 6;
/// Keys came to this member: `a` is who owned them (0: nobody); the rest as with RING_EV_MOVE.
pub const RING_EV_STEAL: u32 = 7;
/// This member was told to leave, and holds nothing any more: close it, and delete its directory.
pub const RING_EV_LEFT: u32 = 8;
/// What the node thinks of another member of the cluster, `a`, has changed; `b` says how: RING_MEMBER_JOINED
/// and its like. `data` is the member's name.
pub const RING_EV_STATE: u32 = 9;
/// A request came to a handler: `id` names it, until it is answered with RING_OP_RESPOND, exactly once; `tag` is the
/// handler's. `b` is how often it was sent, this time included: 1 says that it was not handled before. More does not say that it was:
/// members that are not the one, or have no room, count too.
/// `data` is fields (RING_FIELD_ROUTE and its like), and from byte `a` on the body.
pub const RING_EV_REQUEST: u32 = 10;
/// Bytes of stream `id` came: `data`, within the credit that ring_stream_credit() gave. `b` is 1 when none follow: the stream
/// has ended well in this way, or with RING_RESET it broke; that needs no credit, and bytes that had none by then are
/// dropped.
pub const RING_EV_BODY: u32 = 11;
/// Stream `id`, of which ring_stream_write() said RING_AGAIN, takes bytes again. RING_RESET, at any time and once: it
/// broke, and takes none any more.
pub const RING_EV_WRITABLE: u32 = 12;
/// Nobody waits for the answer to request `id` any more. `a` is 0: its caller gave up or is gone; it is still to be
/// answered, which ends it. `a` is 1: its deadline has passed, and it has ended; an answer that was on its way is
/// RING_CANCELLED.
pub const RING_EV_GONE: u32 = 13;
/// A watch stands: every change after revision `a` will be told. The first event of each watch, unless that fails.
pub const RING_EV_WATCHING: u32 = 14;
/// A watch: a key was set. `data` is the key and then its value, `a` the length of the key, `b` the revision; the changes of one
/// batch have one revision.
pub const RING_EV_CHANGED: u32 = 15;
/// A watch: a key was removed. `data` is the key, `a` its length, `b` the revision.
pub const RING_EV_REMOVED: u32 = 16;
/// A key that is tracked with RING_NEXT: member `a` is now the next in line for it, after `b` (0: nobody).
pub const RING_EV_NEXT: u32 = 17;
/// The node has halted: RING_HALTED, it met something that it must not go on with; RING_PANICKED, a defect of the library.
/// `data` says what, and what to do. Its operations end, nothing is accepted or written any more; it is still to be freed.
pub const RING_EV_HALTED: u32 = 18;
/// A scan with RING_LOCAL, before its first key: every write that was acknowledged longer than `a` nanoseconds before is seen.
/// UINT64_MAX: the replica does not know, because it has not reached its leader since it was started. It comes again when the
/// scan, of which no key was told yet, begins again.
pub const RING_EV_STALENESS: u32 = 19;
/// More than half of the registered members are connected to this one, itself counted (`b` is 1): what needs a majority can be
/// done. Or they are not any more (`b` is 0): it waits.
pub const RING_EV_READY: u32 = 20;
/// Member `a`, whose connection is lost, is dialled again, for the first time since; `data` is where.
pub const RING_EV_RECONNECTING: u32 = 21;
/// Nobody answers at the address `data`, where member `a` is expected (0: that is not known). It is dialled on; only the
/// first failure of a row is told.
pub const RING_EV_UNREACHABLE: u32 = 22;
/// This node refused a connection, of member `a` (0: it did not get to say who it is), as of a wrong cluster or version. `data` is
/// its address, of `b` bytes (0: not known), and then why and what to do.
pub const RING_EV_REFUSED: u32 = 23;
/// Another, as with RING_EV_REFUSED, refused this node.
pub const RING_EV_REFUSED_BY: u32 = 24;
/// Member `a` (0: not known) sent something that it should not have. It was dropped. `data` is the address it came from, `b` bytes
/// (0: not known), and then what it was.
pub const RING_EV_FAULT: u32 = 25;
/// This member was to leave, or to be registered otherwise, and the directory refuses: `data` says why. It goes on as before.
pub const RING_EV_STAYS: u32 = 26;
/// While ring_node_open() waits for the others that found the cluster (`expect`): `a` of `b` are here, this one included; `data` is
/// their names, a JSON array.
pub const RING_EV_GATHERING: u32 = 27;

/// RING_HANDLER_ERROR: the response was larger than its node allows.
pub const RING_CODE_TOO_LARGE: u32 = 0xFFFF_FFFF;
/// RING_HANDLER_ERROR: the handler panicked.
pub const RING_CODE_PANICKED: u32 = 0xFFFF_FFFE;
/// RING_HANDLER_ERROR: the handler gave the request up without an answer, because its host, its queue or its node is
/// ending. How far it had come is not known.
pub const RING_CODE_DROPPED: u32 = 0xFFFF_FFFD;

/// A request's route.
pub const RING_FIELD_ROUTE: u32 = 1;
/// The key whose owner was asked for.
pub const RING_FIELD_KEY: u32 = 2;
/// The partition whose leader was asked for.
pub const RING_FIELD_PARTITION: u32 = 3;
/// A header; ring_field_next() tells its name and its value.
pub const RING_FIELD_HEADER: u32 = 4;
/// A stream; ring_field_next() tells its name, its id here and its ways.
pub const RING_FIELD_STREAM: u32 = 5;
/// Names a request in the whole cluster, the same in each of its attempts: three uint64_t, the member that asks, its
/// start, and its number of the request.
pub const RING_FIELD_REQUEST: u32 = 6;
/// How long the caller still waits, when this was made: a uint64_t, nanoseconds.
pub const RING_FIELD_TIME_LEFT: u32 = 7;
/// Present when nobody waits for an answer.
pub const RING_FIELD_ONE_WAY: u32 = 8;

/// The member is there: for the first time, or again.
pub const RING_MEMBER_JOINED: u64 = 1;
/// It does not answer somebody. It may still refute that.
pub const RING_MEMBER_SUSPECT: u64 = 2;
/// It was a suspect, and has answered.
pub const RING_MEMBER_RECOVERED: u64 = 3;
/// It is dead: it did not answer in time.
pub const RING_MEMBER_FAILED: u64 = 4;
/// It left, or was let go.
pub const RING_MEMBER_LEFT: u64 = 5;
/// It was started again, unnoticed, or says something else of itself.
pub const RING_MEMBER_UPDATED: u64 = 6;

/// How a node is opened. Begin with ring_options_init().
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ring_options_t {
    /// sizeof(ring_options_t), set by ring_options_init().
    pub size: u32,
    /// RING_CLIENT, RING_MEMORY, RING_INSECURE, RING_NO_GOSSIP, RING_HOLD.
    pub flags: u32,
    /// This member's own name, one of `members`; empty: "one".
    pub name: ring_bytes_t,
    /// The cluster's name; empty: "ring".
    pub cluster: ring_bytes_t,
    /// Where to listen, "host:port" or "unix:/path"; empty: at the own address of `members`.
    pub listen: ring_bytes_t,
    /// The directory for the data, made when it is not there. Needed unless RING_MEMORY or
    /// RING_CLIENT is set.
    pub data_dir: ring_bytes_t,
    /// Every member as "name=host:port" or "name=unix:/path", the same list on all; none: a cluster of one.
    pub members: *const ring_bytes_t,
    /// How many members there are.
    pub n_members: usize,
    /// Addresses of members, "host:port": for a client, or for a member that joins a cluster that
    /// exists; `members` is empty then, and `listen` is where the others reach it.
    pub join: *const ring_bytes_t,
    /// How many addresses there are.
    pub n_join: usize,
    /// Shards of a new cluster; 0: 64.
    pub shards: u32,
    /// Replicas of each shard of a new cluster; 0: 3.
    pub replication: u32,
    /// Most operations under way; past them ring_submit() returns RING_AGAIN. 0: 65,536.
    pub max_inflight: u32,
    /// 0.
    pub reserved: u32,
    /// How long an operation may take that does not say; 0: 10 s.
    pub timeout_ns: i64,
    /// How long ring_node_open() may take; 0 or less: for a member as long as it takes, for a client
    /// `timeout_ns`.
    pub open_timeout_ns: i64,
    /// The directory with this node's keys, as `ring keys` makes it: every connection is encrypted, and both of its
    /// sides prove who they are. Empty: none is, and nobody does.
    pub keys_dir: ring_bytes_t,
    /// Where others reach this member, "host:port"; empty: where `members` has it, or at `listen`.
    pub advertise: ring_bytes_t,
    /// A member's share of the shards and keys beside the others', up to 65,535; 0: 1.
    pub weight: u32,
    /// 0.
    pub reserved2: u32,
    /// What the others are told of this member, beside its name: names once each, at most 32, with the member's name
    /// about 480 bytes. RING_OP_MEMBERS shows them.
    pub tags: *const ring_pair_t,
    /// How many tags there are.
    pub n_tags: usize,
    /// How many members found the cluster, where no list of `members` says it: those who were told to `join` each other find
    /// each other and create it once, together, when so many are there; whoever comes later joins it. The same number and
    /// the same addresses on all. 0: with `join` this member only joins.
    pub expect: u32,
    /// 0.
    pub reserved3: u32,
    /// Where to tell metrics to scrapers of Prometheus, "host:port": `GET /metrics` over HTTP, not encrypted. Empty: nowhere;
    /// RING_OP_METRICS tells the same.
    pub metrics: ring_bytes_t,
    /// What a member holds is moved elsewhere when it has been away for this long; 0: 5 min.
    pub replace_after_ns: i64,
    /// Gossip: each member probes one other so often, 10 ms to an hour; 0: 1 s. Members may differ in all of these.
    pub probe_interval_ns: i64,
    /// Gossip: a probe that has no answer after this long makes its target a suspect, at most `probe_interval_ns`; 0: three
    /// quarters of it.
    pub probe_timeout_ns: i64,
    /// Gossip: two members compare all that they know of the others this often, `probe_interval_ns` to a day; 0: 30 s.
    pub sync_interval_ns: i64,
    /// Gossip: so many probe intervals a suspect has to refute when others suspect it too, 1 to 100; 0: 5.
    pub suspicion_min: u32,
    /// Gossip: this times as long if nobody else does, 1 to 100; 0: 6.
    pub suspicion_max: u32,
    /// Told what the node logs: `level` is RING_LOG_ERROR and its like, `line` one line without its end, UTF-8, at most 4096
    /// bytes: what happened, then `key=value` pairs, then where in the library; control characters are escaped. It is lent
    /// for the call. Library threads call it, several at once, from within ring_node_open() until ring_node_free(). It must
    /// return quickly and not block; only ring_cq_wakeup() works inside. NULL: nobody is told.
    pub log: Option<unsafe extern "C" fn(arg: *mut c_void, level: i32, line: ring_bytes_t)>,
    /// For `log` and `log_free`; it must be valid until ring_node_free() has returned, or a ring_node_open() that fails.
    pub log_arg: *mut c_void,
    /// Called once, when `log` is not called any more and no call of it is under way: inside of ring_node_free(), or of
    /// ring_node_open() when that fails (but for RING_MISUSE, or when these options cannot be read: NULL, a wrong `size`,
    /// unknown fields). As `log` it must not block. Not called in a child of fork(). May be NULL.
    pub log_free: Option<unsafe extern "C" fn(arg: *mut c_void)>,
    /// The last level that is told; 0: RING_LOG_INFO.
    pub log_level: i32,
    /// 0.
    pub reserved4: u32,
}

/// The node cannot go on, or lost something.
pub const RING_LOG_ERROR: i32 = 1;
/// Somebody should look at it.
pub const RING_LOG_WARN: i32 = 2;
/// What happens in the life of a node and a cluster.
pub const RING_LOG_INFO: i32 = 3;
/// What helps to find out why.
pub const RING_LOG_DEBUG: i32 = 4;
/// Everything.
pub const RING_LOG_TRACE: i32 = 5;

/// A client: it joins, routes and calls, and owns nothing.
pub const RING_CLIENT: u32 = 1;
/// The data is in memory and ends with the node.
pub const RING_MEMORY: u32 = 2;
/// May listen beyond this machine, although nothing is encrypted.
pub const RING_INSECURE: u32 = 4;
/// Does not find out by gossip (UDP) who is alive, but takes for alive who it is connected to. The same on all members.
pub const RING_NO_GOSSIP: u32 = 8;
/// Requests for which this member has no handler are turned away, as by one that has too many, until RING_OP_SERVE: their
/// callers ask the next in line, or again. A member that comes back is asked before its host can submit RING_OP_HANDLE.
pub const RING_HOLD: u32 = 16;

/// One change of a batch.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ring_change_t {
    /// RING_OP_PUT or RING_OP_DELETE.
    pub op: u32,
    /// 0.
    pub reserved: u32,
    /// The key.
    pub key: ring_bytes_t,
    /// Its new value.
    pub value: ring_bytes_t,
}

/// An operation. Zero all of it, set `size` and `op` and what the operation needs. Everything that
/// it points to is copied before the call returns.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ring_op_t {
    /// sizeof(ring_op_t).
    pub size: u32,
    /// RING_OP_GET and its like.
    pub op: u16,
    /// RING_LOCAL and its like; those that the operation does not know are refused.
    pub flags: u16,
    /// Given back in each event of this operation.
    pub tag: u64,
    /// How long it may take; 0 or less: as the node's options say. Handlers, watches and tracks last until they are
    /// cancelled; RING_OP_WATCH: how long it may be that nobody can be asked, at least 10 s.
    pub timeout_ns: i64,
    /// RING_OP_STATUS, RING_OP_LEAVE, RING_TO_MEMBER: the member; 0 is this one. RING_OP_RESPOND: the request.
    pub target: u64,
    /// RING_OP_CAS: the revision that the key must have; 0: it must not exist. RING_AFTER: the revision.
    pub expect: u64,
    /// RING_OP_SCAN: most keys; 0: all. RING_OP_OWNERS: most members; 0: 1. RING_OP_HANDLE: most requests in the
    /// queue; 0: 1,024.
    pub limit: u64,
    /// The partition's name, UTF-8.
    pub partition: ring_bytes_t,
    /// The key; of a scan or a watch its first key, or with RING_PREFIX what all its keys begin with.
    pub key: ring_bytes_t,
    /// The value; of RING_OP_JOIN the address; of a scan or a watch its end (exclusive), where empty is the end of the partition. The body of a request
    /// or of a response; of an error its text, UTF-8.
    pub value: ring_bytes_t,
    /// RING_OP_CAS with RING_IF_VALUE: the value that the key must have.
    pub compare: ring_bytes_t,
    /// RING_OP_BATCH: the changes.
    pub changes: *const ring_change_t,
    /// How many changes there are.
    pub n_changes: usize,
    /// RING_OP_REQUEST, RING_OP_HANDLE: the route, UTF-8, 1 to 255 bytes.
    pub route: ring_bytes_t,
    /// RING_OP_REQUEST, RING_OP_RESPOND: the headers.
    pub headers: *const ring_pair_t,
    /// How many headers there are; at most 64.
    pub n_headers: usize,
    /// RING_OP_REQUEST, RING_OP_RESPOND: the streams to open; their ids here follow that of the operation, in this order:
    /// *id + 1 is the first.
    pub streams: *const ring_stream_t,
    /// How many streams there are; at most 64.
    pub n_streams: usize,
    /// RING_OP_RESPOND with RING_ERROR: the error's code, the host's own. 0xFFFFFFF0 and more are the library's:
    /// RING_CODE_DROPPED and its like.
    pub code: u32,
    /// 0.
    pub reserved: u32,
}

/// The value of a key. DONE: `data` is the value, `a` its revision; RING_NOT_FOUND without one. With RING_LOCAL `b` says how
/// stale that can be, also of a key that was not found: every write that was acknowledged longer than so many
/// nanoseconds before is seen. UINT64_MAX: the replica does not know, because it has not reached its leader since it was
/// started.
pub const RING_OP_GET: u16 = 1;
/// Sets a key. DONE: `a` is the revision of the change.
pub const RING_OP_PUT: u16 = 2;
/// Removes a key. DONE: `a` is the revision of the change, `b` is 1 if the key existed.
pub const RING_OP_DELETE: u16 = 3;
/// Sets a key (with RING_REMOVE: removes it) if it is as expected. DONE: `a` is the key's revision
/// now, 0 when it does not exist; RING_CONFLICT when it was not as expected.
pub const RING_OP_CAS: u16 = 4;
/// Makes several changes at one revision, all or none. DONE: `a` is the revision.
pub const RING_OP_BATCH: u16 = 5;
/// Reads a range of keys from one consistent state: one RING_EV_ITEM for each key, then DONE, whose
/// `a` is the revision of the state and `b` the number of keys. A page of keys is asked for when
/// the page before is drained, so a queue never holds more than one page of a scan.
/// RING_INTERRUPTED: `data` is the key to scan again from (with RING_REVERSE: to), and is empty if
/// no key was seen.
pub const RING_OP_SCAN: u16 = 6;
/// What a member says of itself. DONE: `data` is a JSON object, `a` the member.
pub const RING_OP_STATUS: u16 = 7;
/// The members in line for `key`, its owner first, as this node knows the ring; needs no majority and no other member.
/// DONE: `a` is the owner (0: there is none), `b` how many there are, `data` their ids, each a uint64_t. It has ended
/// when ring_submit() returns, and has no id.
pub const RING_OP_OWNERS: u16 = 8;
/// Who is registered, and what is thought of them. DONE: `data` is a JSON array of objects (id, name, address, weight,
/// standing, state, tags, connected), `b` their number, `a` this node's own id. With RING_WITH_CLIENTS also the clients that
/// are connected to this node: objects with their id, and `client`, which is true. Ends as RING_OP_OWNERS does.
pub const RING_OP_MEMBERS: u16 = 9;
/// Tells a member to leave the cluster: what it holds moves elsewhere. DONE when it knows: `data` and `a` as with
/// RING_OP_STATUS. It is gone when RING_OP_MEMBERS has it no more; itself it is told RING_EV_LEFT, or RING_EV_STAYS: the only
/// member that could hold the data stays, as does one without which no majority would be left, since others are away.
/// With RING_FORCE the latter goes all the same: those who are away are given up, and what they held too is left to fewer
/// members than it should have, to a single one at worst.
pub const RING_OP_LEAVE: u16 = 10;
/// Has a request handled by the owner of `key`, with RING_TO_MEMBER by member `target`, with RING_TO_LEADER by the leader of
/// `partition`, beside its data. DONE with RING_OK: `data` is fields (headers, and the streams that the response opens), and from byte
/// `a` on the body. RING_HANDLER_ERROR: the handler says so; `a` is its code, `data` its text. RING_NO_HANDLER,
/// RING_TIMEOUT, RING_CANCELLED: certainly not handled. RING_OUTCOME_UNKNOWN: perhaps. Unless it is RING_ONCE or has
/// streams, one that was perhaps handled is sent again, to the next in line. Its streams outlive it when it succeeds, and
/// break when it fails.
pub const RING_OP_REQUEST: u16 = 11;
/// From now on RING_EV_REQUEST comes for each request for `route` (with RING_REST: for all routes without a handler) that this
/// member is responsible for, at most `limit` that wait to be drained; others wait outside of the queue until there is room
/// or their deadline comes. RING_CONFLICT: the route has a handler. DONE when it was cancelled: no requests come
/// any more, those that were not drained are answered for the host, the others are still to be answered.
pub const RING_OP_HANDLE: u16 = 12;
/// Answers request `target`; with RING_ERROR by an error. Those of its streams that come here and had no credit by then are
/// given up; the others, and those that go from here, outlive it. DONE when it is on its way; RING_CANCELLED: nobody waited for it
/// any more. RING_MISUSE from ring_submit(): the request was answered before, or for the host.
pub const RING_OP_RESPOND: u16 = 13;
/// Tells the changes of a range of keys of `partition`, in the order in which they were committed, each once and none left out:
/// RING_EV_WATCHING, RING_EV_CHANGED, RING_EV_REMOVED. From now on, or with RING_AFTER after revision `expect`. A page of
/// changes is asked for when the page before is drained. DONE's `a` is the revision to go on after (0: none was told);
/// RING_COMPACTED: changes before revision `b` are forgotten: scan, and watch after the scan's revision.
pub const RING_OP_WATCH: u16 = 14;
/// Waits until `key`, which this member owns, leaves it; with RING_NEXT also tells who is the next in line: the present one, then
/// each other that becomes it. DONE: `a` is the new owner, 0: there is none. RING_CONFLICT: this member does not own it.
pub const RING_OP_TRACK: u16 = 15;
/// Waits until this member becomes the owner of `key`. RING_CONFLICT: it owns it already.
pub const RING_OP_REPLICA: u16 = 16;
/// Numbers about `partition`; its keys are counted, which takes a while on a large one. DONE: `a` is the revision of its shard,
/// `b` the number of keys, `data` a JSON object: shard, replicas, leader, keys, bytes, revision, applied, applied_term.
pub const RING_OP_INFO: u16 = 17;
/// Numbers about this node. DONE: `data` is text as Prometheus reads it (version 0.0.4 of its format). See `metrics` of
/// ring_options_t.
pub const RING_OP_METRICS: u16 = 18;
/// From now on dials `value`, too, "host:port", again and again until somebody answers: one more way to the members of this
/// node's cluster, or to the one that it is to join. DONE when it is known: RING_INVALID for what is no address, RING_AGAIN
/// when there are too many.
pub const RING_OP_JOIN: u16 = 19;
/// All handlers are there that are to be: ends what RING_HOLD began. Ends as RING_OP_OWNERS does.
pub const RING_OP_SERVE: u16 = 20;

/// RING_OP_SCAN, RING_OP_WATCH: the keys that begin with `key`.
pub const RING_PREFIX: u16 = 1;
/// RING_OP_SCAN: from the end of the range to its beginning.
pub const RING_REVERSE: u16 = 2;
/// RING_OP_GET, RING_OP_SCAN: as some replica has it; may be stale, needs no majority.
pub const RING_LOCAL: u16 = 4;
/// RING_OP_CAS: the key must have the value `compare`, whatever its revision.
pub const RING_IF_VALUE: u16 = 8;
/// RING_OP_CAS: removes the key instead of setting it.
pub const RING_REMOVE: u16 = 16;
/// RING_OP_REQUEST: to member `target`, which may be this one.
pub const RING_TO_MEMBER: u16 = 32;
/// RING_OP_REQUEST: to the leader of `partition`.
pub const RING_TO_LEADER: u16 = 64;
/// RING_OP_REQUEST: handled once at most, and not answered; DONE when it is handed to the connection. It has no
/// streams.
pub const RING_ONE_WAY: u16 = 128;
/// RING_OP_REQUEST: handled once at most.
pub const RING_ONCE: u16 = 256;
/// RING_OP_RESPOND: the answer is an error, `code` and `value`.
pub const RING_ERROR: u16 = 512;
/// RING_OP_HANDLE: all routes without a handler of their own; `route` is empty.
pub const RING_REST: u16 = 1024;
/// RING_OP_WATCH: what changed after revision `expect`.
pub const RING_AFTER: u16 = 2048;
/// RING_OP_TRACK: also who is the next in line.
pub const RING_NEXT: u16 = 4096;
/// RING_OP_LEAVE: also where so many others are away that no majority would be left.
pub const RING_FORCE: u16 = 16384;
/// RING_OP_MEMBERS: the clients too.
pub const RING_WITH_CLIENTS: u16 = 32768;
/// RING_OP_REQUEST: takes the streams that the response adds. Without, they are given up.
pub const RING_STREAMS: u16 = 8192;

/// How a sans-IO member is made.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ring_core_options_t {
    /// sizeof(ring_core_options_t).
    pub size: u32,
    /// RING_CLIENT or 0.
    pub flags: u32,
    /// As in ring_options_t.
    pub name: ring_bytes_t,
    /// As in ring_options_t.
    pub cluster: ring_bytes_t,
    /// As in ring_options_t; addresses come back in RING_FX_CONNECT as they are given here.
    pub members: *const ring_bytes_t,
    /// How many members there are.
    pub n_members: usize,
    /// As in ring_options_t.
    pub join: *const ring_bytes_t,
    /// How many addresses there are.
    pub n_join: usize,
    /// As in ring_options_t.
    pub shards: u32,
    /// As in ring_options_t.
    pub replication: u32,
    /// Every random choice comes from it. Another one for each member and each start.
    pub seed: u64,
    /// The host's monotonic clock.
    pub now_ns: u64,
}

/// Something that the host tells a sans-IO member. Zero all of it and set what the kind needs.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ring_input_t {
    /// sizeof(ring_input_t).
    pub size: u32,
    /// RING_IN_WAKEUP and its like.
    pub kind: u32,
    /// The connection, as the host numbers it; never used twice, not 0.
    pub peer: u64,
    /// By kind.
    pub token: u64,
    /// By kind.
    pub data: ring_bytes_t,
}

/// The deadline of ring_core_deadline() has come.
pub const RING_IN_WAKEUP: u32 = 1;
/// Connection `peer` stands. `token` is that of the RING_FX_CONNECT that asked for it; 0: it was
/// accepted.
pub const RING_IN_CONNECTED: u32 = 2;
/// The RING_FX_CONNECT with this `token` failed.
pub const RING_IN_CONNECT_FAILED: u32 = 3;
/// `data` came on connection `peer`: any part of the stream, in order.
pub const RING_IN_BYTES: u32 = 4;
/// Connection `peer` is gone.
pub const RING_IN_DISCONNECTED: u32 = 5;
/// Everything up to the RING_FX_STORE with this `token` is durable.
pub const RING_IN_STORED: u32 = 6;
/// A write of the log failed; `data` says why. The member halts.
pub const RING_IN_STORE_FAILED: u32 = 7;

/// Something that a sans-IO member asks of the host. Views are valid until the next call on it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ring_effect_t {
    /// sizeof(ring_effect_t), set by the library.
    pub size: u32,
    /// RING_FX_NONE and its like.
    pub kind: u32,
    /// The connection.
    pub peer: u64,
    /// By kind.
    pub token: u64,
    /// By kind.
    pub data: ring_bytes_t,
    /// RING_FX_EVENT: what happened. Its `data` is not to be released.
    pub event: ring_event_t,
}

/// Nothing to do until the next input.
pub const RING_FX_NONE: u32 = 0;
/// Connect to the address in `data`; answer RING_IN_CONNECTED or RING_IN_CONNECT_FAILED with
/// `token`.
pub const RING_FX_CONNECT: u32 = 1;
/// Send `data` on connection `peer`, in order.
pub const RING_FX_SEND: u32 = 2;
/// Close connection `peer` when everything is sent. Not answered.
pub const RING_FX_DISCONNECT: u32 = 3;
/// Append `data` to the log, in order; answer RING_IN_STORED with `token`. `peer` is the segment.
pub const RING_FX_STORE: u32 = 4;
/// Segments of the log before `token` are not needed any more.
pub const RING_FX_DISCARD: u32 = 5;
/// `event` happened.
pub const RING_FX_EVENT: u32 = 6;
/// The member has stopped for good; `data` says why.
pub const RING_FX_HALT: u32 = 7;
