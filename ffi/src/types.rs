//! The structs of the header. Those that the host fills start with their size and only grow at the
//! end; those that the library fills are frozen for an ABI number.

use std::ffi::{c_char, c_void};

use crate::status::ring_status_t;

/// Names an operation of a node, or a scan: never used twice by one node; 0 is none.
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

/// An operation has ended: exactly one for each ring_submit() that returned RING_OK, the last with
/// its tag. By operation: see RING_OP_GET and its like.
pub const RING_EV_DONE: u32 = 1;
/// A scan found a key: `data` is the key and then its value, `a` the length of the key, `b` the
/// revision.
pub const RING_EV_ITEM: u32 = 2;
/// A connection to another member stands (`b` is 1) or is lost (`b` is 0); `a` is the member.
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
    /// RING_CLIENT, RING_MEMORY, RING_INSECURE.
    pub flags: u32,
    /// This member's own name, one of `members`; empty: "one".
    pub name: ring_bytes_t,
    /// The cluster's name; empty: "ring".
    pub cluster: ring_bytes_t,
    /// Where to listen, "host:port"; empty: at the own address of `members`.
    pub listen: ring_bytes_t,
    /// The directory for the data, made when it is not there. Needed unless RING_MEMORY or
    /// RING_CLIENT is set.
    pub data_dir: ring_bytes_t,
    /// Every member as "name=host:port", the same list on all; none: a cluster of one.
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
    /// Where others reach a member that joins, "host:port"; empty: at `listen`.
    pub advertise: ring_bytes_t,
    /// A member's share of the shards and keys beside the others', up to 65,535; 0: 1.
    pub weight: u32,
    /// 0.
    pub reserved2: u32,
}

/// A client: it joins, routes and calls, and owns nothing.
pub const RING_CLIENT: u32 = 1;
/// The data is in memory and ends with the node.
pub const RING_MEMORY: u32 = 2;
/// May listen beyond this machine, although nothing is encrypted.
pub const RING_INSECURE: u32 = 4;

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
    /// How long it may take; 0 or less: as the node's options say.
    pub timeout_ns: i64,
    /// RING_OP_STATUS, RING_OP_LEAVE: the member; 0 is this one.
    pub target: u64,
    /// RING_OP_CAS: the revision that the key must have; 0: it must not exist.
    pub expect: u64,
    /// RING_OP_SCAN: most keys; 0: all. RING_OP_OWNERS: most members; 0: 1.
    pub limit: u64,
    /// The partition's name, UTF-8.
    pub partition: ring_bytes_t,
    /// The key; of a scan its first key, or with RING_PREFIX what all its keys begin with.
    pub key: ring_bytes_t,
    /// The value; of a scan its end (exclusive), where empty is the end of the partition.
    pub value: ring_bytes_t,
    /// RING_OP_CAS with RING_IF_VALUE: the value that the key must have.
    pub compare: ring_bytes_t,
    /// RING_OP_BATCH: the changes.
    pub changes: *const ring_change_t,
    /// How many changes there are.
    pub n_changes: usize,
}

/// The value of a key. DONE: `data` is the value, `a` its revision; RING_NOT_FOUND without one.
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
/// standing, state, tags), `b` their number. Ends as RING_OP_OWNERS does.
pub const RING_OP_MEMBERS: u16 = 9;
/// Tells a member to leave the cluster: what it holds moves elsewhere. DONE when it knows: `data` and `a` as with
/// RING_OP_STATUS. It is gone when RING_OP_MEMBERS has it no more; itself it is told RING_EV_LEFT.
pub const RING_OP_LEAVE: u16 = 10;

/// RING_OP_SCAN: the keys that begin with `key`.
pub const RING_PREFIX: u16 = 1;
/// RING_OP_SCAN: from the end of the range to its beginning.
pub const RING_REVERSE: u16 = 2;
/// RING_OP_GET, RING_OP_SCAN: as some replica has it; may be stale, needs no majority.
pub const RING_LOCAL: u16 = 4;
/// RING_OP_CAS: the key must have the value `compare`, whatever its revision.
pub const RING_IF_VALUE: u16 = 8;
/// RING_OP_CAS: removes the key instead of setting it.
pub const RING_REMOVE: u16 = 16;

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
