/**
 * @file ring.h
 *
 * libring: one library that makes a program a member of a cluster. C99 and C++11.
 * Made from the sources by `make header`; do not edit.
 *
 * LIFE. Open a completion queue for each event loop (or thread that waits), then a node. Submit
 * operations to the node; what becomes of them comes to the queue. Close the node, wait for
 * RING_EV_CLOSED, free the node, free the queue. A queue may be freed before its nodes: its events
 * are dropped then. A node may be freed without being closed: it stops as if the process had been
 * killed; nothing acknowledged is lost.
 *
 * THREADS. Calls on nodes and queues come from any thread; only draining one queue is for one
 * thread at a time. No handle may be used during or after its own _free, but for calls that wait:
 * those end. A sans-IO member (ring_core_t) belongs to one thread at a time. The library calls the
 * host only through `wake`, which must return quickly and may call nothing here but
 * ring_cq_wakeup() and ring_events_release(); anything else answers RING_MISUSE there. The
 * library's threads are named, block all signals, and end with their node. After fork() the child
 * answers RING_FORKED for everything that its parent made; it may open its own.
 *
 * OWNERSHIP. What the host passes is copied before the call returns. What the library hands out is
 * lent: events until ring_events_release(), effects of a sans-IO member until the next call on it.
 * Structs that the host fills start with their size and only grow at the end: zero them, set
 * `size`. An empty view is (NULL, 0). Text is UTF-8 with a length, times are nanoseconds. Every
 * pointer is checked for NULL; what else it points to is the host's word.
 *
 * ERRORS. Each call says RING_OK or a negative code. After RING_OUTCOME_UNKNOWN a write may have
 * happened or may still; after RING_PANICKED too, if it was under way; after any other failure it
 * did not and never will.
 *
 * ORDER. The events of a queue keep the order in which they happened. The writes of one thread to
 * one partition keep their order. A read sees every write that had ended when the read was
 * submitted; what it sees of writes under way is not said.
 *
 * @code
 * // A cluster of one, in memory: put, get, close.
 * static int example(void) {
 *   ring_error_t err = {sizeof err, 0, 0, ""};
 *   ring_cq_t *cq = NULL;
 *   ring_node_t *node = NULL;
 *   ring_options_t options;
 *   ring_options_init(&options, sizeof options);
 *   options.flags = RING_MEMORY;
 *   if (ring_cq_open(NULL, &cq, &err) != RING_OK) return 1;
 *   if (ring_node_open(&options, NULL, &node, &err) != RING_OK) return 1;
 *
 *   ring_op_t op;
 *   ring_event_t done;
 *   memset(&op, 0, sizeof op);
 *   op.size = sizeof op;
 *   op.op = RING_OP_PUT;
 *   op.partition = ring_text("users");
 *   op.key = ring_text("ada");
 *   op.value = ring_text("countess");
 *   if (ring_call(node, &op, &done, &err) != RING_OK) return 1; // waits
 *   ring_events_release(&done, 1);
 *
 *   op.op = RING_OP_GET;
 *   op.tag = 2;
 *   if (ring_submit(node, cq, &op, NULL) != RING_OK) return 1; // does not wait
 *   if (ring_node_close(node, cq, 3, -1) != RING_OK) return 1;
 *
 *   for (int closed = 0; !closed;) {
 *     ring_event_t events[16];
 *     if (ring_cq_wait(cq, -1) != RING_OK) return 1;
 *     int32_t n = ring_cq_drain(cq, events, 16);
 *     for (int32_t i = 0; i < n; i++) {
 *       ring_bytes_t data = events[i].data;
 *       if (events[i].tag == 2) printf("%.*s\n", (int)data.len, (const char *)data.ptr);
 *       closed |= events[i].kind == RING_EV_CLOSED;
 *     }
 *     ring_events_release(events, n < 0 ? 0 : (uint32_t)n);
 *   }
 *   ring_node_free(node);
 *   ring_cq_free(cq);
 *   return 0;
 * }
 * @endcode
 */

#ifndef RING_H
#define RING_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifndef RING_API
#define RING_API
#endif

/**
 * An operation has ended: exactly one for each ring_submit() that returned RING_OK, the last with
 * its tag. By operation: see RING_OP_GET and its like.
 */
#define RING_EV_DONE 1

/**
 * A scan found a key: `data` is the key and then its value, `a` the length of the key, `b` the
 * revision.
 */
#define RING_EV_ITEM 2

/**
 * A connection to another member stands (`b` is 1) or is lost (`b` is 0); `a` is the member.
 */
#define RING_EV_MEMBER 3

/**
 * A shard, `a`, of which this member has a replica, is led by member `b` (0: by nobody).
 */
#define RING_EV_LEADER 4

/**
 * The node has ended; nothing more comes from it. RING_OUTCOME_UNKNOWN: a disk does not answer, and
 * its directory stays locked as long as the process lives.
 */
#define RING_EV_CLOSED 5

/**
 * Keys left this member: `a` is who owns them now (0: nobody), `b` how many slots they are, `data` the ranges of
 * slots, each a pair of uint32_t: start (inclusive), end (exclusive).
 */
#define RING_EV_MOVE 6

/**
 * Keys came to this member: `a` is who owned them (0: nobody); the rest as with RING_EV_MOVE.
 */
#define RING_EV_STEAL 7

/**
 * This member was told to leave, and holds nothing any more: close it, and delete its directory.
 */
#define RING_EV_LEFT 8

/**
 * What the node thinks of another member of the cluster, `a`, has changed; `b` says how: RING_MEMBER_JOINED
 * and its like. `data` is the member's name.
 */
#define RING_EV_STATE 9

/**
 * The member is there: for the first time, or again.
 */
#define RING_MEMBER_JOINED 1

/**
 * It does not answer somebody. It may still refute that.
 */
#define RING_MEMBER_SUSPECT 2

/**
 * It was a suspect, and has answered.
 */
#define RING_MEMBER_RECOVERED 3

/**
 * It is dead: it did not answer in time.
 */
#define RING_MEMBER_FAILED 4

/**
 * It left, or was let go.
 */
#define RING_MEMBER_LEFT 5

/**
 * It was started again, unnoticed, or says something else of itself.
 */
#define RING_MEMBER_UPDATED 6

/**
 * A client: it joins, routes and calls, and owns nothing.
 */
#define RING_CLIENT 1

/**
 * The data is in memory and ends with the node.
 */
#define RING_MEMORY 2

/**
 * May listen beyond this machine, although nothing is encrypted.
 */
#define RING_INSECURE 4

/**
 * The value of a key. DONE: `data` is the value, `a` its revision; RING_NOT_FOUND without one.
 */
#define RING_OP_GET 1

/**
 * Sets a key. DONE: `a` is the revision of the change.
 */
#define RING_OP_PUT 2

/**
 * Removes a key. DONE: `a` is the revision of the change, `b` is 1 if the key existed.
 */
#define RING_OP_DELETE 3

/**
 * Sets a key (with RING_REMOVE: removes it) if it is as expected. DONE: `a` is the key's revision
 * now, 0 when it does not exist; RING_CONFLICT when it was not as expected.
 */
#define RING_OP_CAS 4

/**
 * Makes several changes at one revision, all or none. DONE: `a` is the revision.
 */
#define RING_OP_BATCH 5

/**
 * Reads a range of keys from one consistent state: one RING_EV_ITEM for each key, then DONE, whose
 * `a` is the revision of the state and `b` the number of keys. A page of keys is asked for when
 * the page before is drained, so a queue never holds more than one page of a scan.
 * RING_INTERRUPTED: `data` is the key to scan again from (with RING_REVERSE: to), and is empty if
 * no key was seen.
 */
#define RING_OP_SCAN 6

/**
 * What a member says of itself. DONE: `data` is a JSON object, `a` the member.
 */
#define RING_OP_STATUS 7

/**
 * The members in line for `key`, its owner first, as this node knows the ring; needs no majority and no other member.
 * DONE: `a` is the owner (0: there is none), `b` how many there are, `data` their ids, each a uint64_t. It has ended
 * when ring_submit() returns, and has no id.
 */
#define RING_OP_OWNERS 8

/**
 * Who is registered, and what is thought of them. DONE: `data` is a JSON array of objects (id, name, address, weight,
 * standing, state, tags), `b` their number. Ends as RING_OP_OWNERS does.
 */
#define RING_OP_MEMBERS 9

/**
 * Tells a member to leave the cluster: what it holds moves elsewhere. DONE when it knows: `data` and `a` as with
 * RING_OP_STATUS. It is gone when RING_OP_MEMBERS has it no more; itself it is told RING_EV_LEFT.
 */
#define RING_OP_LEAVE 10

/**
 * RING_OP_SCAN: the keys that begin with `key`.
 */
#define RING_PREFIX 1

/**
 * RING_OP_SCAN: from the end of the range to its beginning.
 */
#define RING_REVERSE 2

/**
 * RING_OP_GET, RING_OP_SCAN: as some replica has it; may be stale, needs no majority.
 */
#define RING_LOCAL 4

/**
 * RING_OP_CAS: the key must have the value `compare`, whatever its revision.
 */
#define RING_IF_VALUE 8

/**
 * RING_OP_CAS: removes the key instead of setting it.
 */
#define RING_REMOVE 16

/**
 * The deadline of ring_core_deadline() has come.
 */
#define RING_IN_WAKEUP 1

/**
 * Connection `peer` stands. `token` is that of the RING_FX_CONNECT that asked for it; 0: it was
 * accepted.
 */
#define RING_IN_CONNECTED 2

/**
 * The RING_FX_CONNECT with this `token` failed.
 */
#define RING_IN_CONNECT_FAILED 3

/**
 * `data` came on connection `peer`: any part of the stream, in order.
 */
#define RING_IN_BYTES 4

/**
 * Connection `peer` is gone.
 */
#define RING_IN_DISCONNECTED 5

/**
 * Everything up to the RING_FX_STORE with this `token` is durable.
 */
#define RING_IN_STORED 6

/**
 * A write of the log failed; `data` says why. The member halts.
 */
#define RING_IN_STORE_FAILED 7

/**
 * Nothing to do until the next input.
 */
#define RING_FX_NONE 0

/**
 * Connect to the address in `data`; answer RING_IN_CONNECTED or RING_IN_CONNECT_FAILED with
 * `token`.
 */
#define RING_FX_CONNECT 1

/**
 * Send `data` on connection `peer`, in order.
 */
#define RING_FX_SEND 2

/**
 * Close connection `peer` when everything is sent. Not answered.
 */
#define RING_FX_DISCONNECT 3

/**
 * Append `data` to the log, in order; answer RING_IN_STORED with `token`. `peer` is the segment.
 */
#define RING_FX_STORE 4

/**
 * Segments of the log before `token` are not needed any more.
 */
#define RING_FX_DISCARD 5

/**
 * `event` happened.
 */
#define RING_FX_EVENT 6

/**
 * The member has stopped for good; `data` says why.
 */
#define RING_FX_HALT 7

/**
 * The number of this header: ring_abi() of the library must return the same.
 */
#define RING_ABI 0

/**
 * A member that the host drives: no clock, no socket, no file, no thread of its own. Its state is
 * a function of its options and of what it was told. The replicated data is in memory; log batches
 * go to the host, but a member cannot be opened from them yet.
 */
typedef struct ring_core_t ring_core_t;

/**
 * A completion queue: filled by many threads, drained by one at a time.
 */
typedef struct ring_cq_t ring_cq_t;

/**
 * A member of a cluster, or a client of one; owns threads, sockets and files.
 */
typedef struct ring_node_t ring_node_t;

/**
 * What a call or an operation came to: RING_OK, or a negative code. ring_status_name() knows each.
 */
typedef int32_t ring_status_t;

/**
 * How a completion queue is made. NULL in its place means all defaults.
 */
typedef struct {
  /**
   * sizeof(ring_cq_options_t).
   */
  uint32_t size;
  /**
   * 0.
   */
  uint32_t flags;
  /**
   * Called when events begin to wait, from any thread, a library's or one that submits. It must
   * return quickly and not block. Inside it only ring_cq_wakeup() works. NULL: not called.
   */
  void (*wake)(void *arg);
  /**
   * For `wake`; it must be valid until ring_cq_free() has returned.
   */
  void *wake_arg;
} ring_cq_options_t;

/**
 * Why a call failed. The caller owns it and sets `size`; the library fills the rest on failure.
 */
typedef struct {
  /**
   * sizeof(ring_error_t), set by the host.
   */
  uint32_t size;
  /**
   * The code that the call returned.
   */
  ring_status_t code;
  /**
   * For later; 0.
   */
  uint64_t detail;
  /**
   * What went wrong, where and what to do: UTF-8, NUL-terminated, cut when it is longer.
   */
  char text[240];
} ring_error_t;

/**
 * Names an operation of a node, or a scan: never used twice by one node; 0 is none.
 */
typedef uint64_t ring_id_t;

/**
 * Bytes that belong to someone else. `ptr` may be NULL when `len` is 0: that is an empty view.
 */
typedef struct {
  /**
   * The first byte.
   */
  const uint8_t *ptr;
  /**
   * How many there are.
   */
  size_t len;
} ring_bytes_t;

/**
 * Something that happened. Filled by ring_cq_drain(); `data` is lent until ring_events_release().
 */
typedef struct {
  /**
   * The operation's tag; 0 for an event of a node.
   */
  uint64_t tag;
  /**
   * The operation, or 0.
   */
  ring_id_t id;
  /**
   * RING_EV_DONE and its like. Ignore those that you do not know.
   */
  uint32_t kind;
  /**
   * How it ended.
   */
  ring_status_t status;
  /**
   * By kind: a revision, a number.
   */
  uint64_t a;
  /**
   * By kind: another number.
   */
  uint64_t b;
  /**
   * A value; after a failure what went wrong, in UTF-8.
   */
  ring_bytes_t data;
  /**
   * Holds `data`; the library's own.
   */
  void *owner;
} ring_event_t;

/**
 * How a node is opened. Begin with ring_options_init().
 */
typedef struct {
  /**
   * sizeof(ring_options_t), set by ring_options_init().
   */
  uint32_t size;
  /**
   * RING_CLIENT, RING_MEMORY, RING_INSECURE.
   */
  uint32_t flags;
  /**
   * This member's own name, one of `members`; empty: "one".
   */
  ring_bytes_t name;
  /**
   * The cluster's name; empty: "ring".
   */
  ring_bytes_t cluster;
  /**
   * Where to listen, "host:port"; empty: at the own address of `members`.
   */
  ring_bytes_t listen;
  /**
   * The directory for the data, made when it is not there. Needed unless RING_MEMORY or
   * RING_CLIENT is set.
   */
  ring_bytes_t data_dir;
  /**
   * Every member as "name=host:port", the same list on all; none: a cluster of one.
   */
  const ring_bytes_t *members;
  /**
   * How many members there are.
   */
  size_t n_members;
  /**
   * Addresses of members, "host:port": for a client, or for a member that joins a cluster that
   * exists; `members` is empty then, and `listen` is where the others reach it.
   */
  const ring_bytes_t *join;
  /**
   * How many addresses there are.
   */
  size_t n_join;
  /**
   * Shards of a new cluster; 0: 64.
   */
  uint32_t shards;
  /**
   * Replicas of each shard of a new cluster; 0: 3.
   */
  uint32_t replication;
  /**
   * Most operations under way; past them ring_submit() returns RING_AGAIN. 0: 65,536.
   */
  uint32_t max_inflight;
  /**
   * 0.
   */
  uint32_t reserved;
  /**
   * How long an operation may take that does not say; 0: 10 s.
   */
  int64_t timeout_ns;
  /**
   * How long ring_node_open() may take; 0 or less: for a member as long as it takes, for a client
   * `timeout_ns`.
   */
  int64_t open_timeout_ns;
  /**
   * The directory with this node's keys, as `ring keys` makes it: every connection is encrypted, and both of its
   * sides prove who they are. Empty: none is, and nobody does.
   */
  ring_bytes_t keys_dir;
  /**
   * Where others reach a member that joins, "host:port"; empty: at `listen`.
   */
  ring_bytes_t advertise;
  /**
   * A member's share of the shards and keys beside the others', up to 65,535; 0: 1.
   */
  uint32_t weight;
  /**
   * 0.
   */
  uint32_t reserved2;
} ring_options_t;

/**
 * One change of a batch.
 */
typedef struct {
  /**
   * RING_OP_PUT or RING_OP_DELETE.
   */
  uint32_t op;
  /**
   * 0.
   */
  uint32_t reserved;
  /**
   * The key.
   */
  ring_bytes_t key;
  /**
   * Its new value.
   */
  ring_bytes_t value;
} ring_change_t;

/**
 * An operation. Zero all of it, set `size` and `op` and what the operation needs. Everything that
 * it points to is copied before the call returns.
 */
typedef struct {
  /**
   * sizeof(ring_op_t).
   */
  uint32_t size;
  /**
   * RING_OP_GET and its like.
   */
  uint16_t op;
  /**
   * RING_LOCAL and its like; those that the operation does not know are refused.
   */
  uint16_t flags;
  /**
   * Given back in each event of this operation.
   */
  uint64_t tag;
  /**
   * How long it may take; 0 or less: as the node's options say.
   */
  int64_t timeout_ns;
  /**
   * RING_OP_STATUS, RING_OP_LEAVE: the member; 0 is this one.
   */
  uint64_t target;
  /**
   * RING_OP_CAS: the revision that the key must have; 0: it must not exist.
   */
  uint64_t expect;
  /**
   * RING_OP_SCAN: most keys; 0: all. RING_OP_OWNERS: most members; 0: 1.
   */
  uint64_t limit;
  /**
   * The partition's name, UTF-8.
   */
  ring_bytes_t partition;
  /**
   * The key; of a scan its first key, or with RING_PREFIX what all its keys begin with.
   */
  ring_bytes_t key;
  /**
   * The value; of a scan its end (exclusive), where empty is the end of the partition.
   */
  ring_bytes_t value;
  /**
   * RING_OP_CAS with RING_IF_VALUE: the value that the key must have.
   */
  ring_bytes_t compare;
  /**
   * RING_OP_BATCH: the changes.
   */
  const ring_change_t *changes;
  /**
   * How many changes there are.
   */
  size_t n_changes;
} ring_op_t;

/**
 * How a sans-IO member is made.
 */
typedef struct {
  /**
   * sizeof(ring_core_options_t).
   */
  uint32_t size;
  /**
   * RING_CLIENT or 0.
   */
  uint32_t flags;
  /**
   * As in ring_options_t.
   */
  ring_bytes_t name;
  /**
   * As in ring_options_t.
   */
  ring_bytes_t cluster;
  /**
   * As in ring_options_t; addresses come back in RING_FX_CONNECT as they are given here.
   */
  const ring_bytes_t *members;
  /**
   * How many members there are.
   */
  size_t n_members;
  /**
   * As in ring_options_t.
   */
  const ring_bytes_t *join;
  /**
   * How many addresses there are.
   */
  size_t n_join;
  /**
   * As in ring_options_t.
   */
  uint32_t shards;
  /**
   * As in ring_options_t.
   */
  uint32_t replication;
  /**
   * Every random choice comes from it. Another one for each member and each start.
   */
  uint64_t seed;
  /**
   * The host's monotonic clock.
   */
  uint64_t now_ns;
} ring_core_options_t;

/**
 * Something that the host tells a sans-IO member. Zero all of it and set what the kind needs.
 */
typedef struct {
  /**
   * sizeof(ring_input_t).
   */
  uint32_t size;
  /**
   * RING_IN_WAKEUP and its like.
   */
  uint32_t kind;
  /**
   * The connection, as the host numbers it; never used twice, not 0.
   */
  uint64_t peer;
  /**
   * By kind.
   */
  uint64_t token;
  /**
   * By kind.
   */
  ring_bytes_t data;
} ring_input_t;

/**
 * Something that a sans-IO member asks of the host. Views are valid until the next call on it.
 */
typedef struct {
  /**
   * sizeof(ring_effect_t), set by the library.
   */
  uint32_t size;
  /**
   * RING_FX_NONE and its like.
   */
  uint32_t kind;
  /**
   * The connection.
   */
  uint64_t peer;
  /**
   * By kind.
   */
  uint64_t token;
  /**
   * By kind.
   */
  ring_bytes_t data;
  /**
   * RING_FX_EVENT: what happened. Its `data` is not to be released.
   */
  ring_event_t event;
} ring_effect_t;

/**
 * Done.
 */
#define RING_OK 0

/**
 * No room, or nothing there yet: try again later. Nothing happened.
 */
#define RING_AGAIN -1

/**
 * The node, queue or stream is closed. Nothing happened.
 */
#define RING_CLOSED -2

/**
 * Cancelled. It did not happen.
 */
#define RING_CANCELLED -3

/**
 * The time was up. It did not happen.
 */
#define RING_TIMEOUT -4

/**
 * An argument cannot be used: NULL, a size, UTF-8, a limit. Nothing happened.
 */
#define RING_INVALID -5

/**
 * A call that is not allowed here: inside a callback, or two threads where one may be.
 */
#define RING_MISUSE -6

/**
 * This member does not lead; only calls that ask for it see this.
 */
#define RING_NOT_LEADER -7

/**
 * A compare-and-set found something else; the event's `a` is the revision that it found.
 */
#define RING_CONFLICT -8

/**
 * The write may have happened, or may still happen. Repeating it may do it twice.
 */
#define RING_OUTCOME_UNKNOWN -9

/**
 * The system refused: a file, a socket, a thread, a disk.
 */
#define RING_IO -10

/**
 * The handle was made before fork(); this is the child. Nothing happened.
 */
#define RING_FORKED -11

/**
 * A defect of this library: the node has stopped, and writes nothing more.
 */
#define RING_PANICKED -12

/**
 * The memory given is too small for what must go there.
 */
#define RING_TOO_SMALL -13

/**
 * No such key.
 */
#define RING_NOT_FOUND -14

/**
 * The member has halted: it met something that it must not go on with. Nothing happened.
 */
#define RING_HALTED -15

/**
 * A scan's snapshot is gone: scan again from the key that the event carries.
 */
#define RING_INTERRUPTED -16

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The library's ABI number; a binding compares it with RING_ABI.
 * Owns nothing.
 * Any thread, also in callbacks; never blocks.
 * Always succeeds.
 */
RING_API uint32_t ring_abi(void);

/**
 * The library's version, "1.2.3".
 * The text is static and NUL-terminated.
 * Any thread, also in callbacks; never blocks.
 * Always succeeds.
 */
RING_API const char *ring_version(void);

/**
 * A status code's name, "RING_TIMEOUT".
 * The text is static and NUL-terminated.
 * Any thread, also in callbacks; never blocks.
 * Always succeeds: "RING_UNKNOWN_STATUS" for a code that it does not know.
 */
RING_API const char *ring_status_name(ring_status_t s);

/**
 * Makes a completion queue; `o` may be NULL.
 * The caller owns *out and ends it with ring_cq_free().
 * Any thread; does not block.
 * RING_OK, RING_INVALID, RING_IO (no descriptor is left), RING_MISUSE.
 */
RING_API ring_status_t ring_cq_open(const ring_cq_options_t *o, ring_cq_t **out, ring_error_t *err);

/**
 * A descriptor that is readable while events wait, for poll() and its like. Never read it.
 * It belongs to the queue and is closed with it.
 * Any thread; never blocks.
 * The descriptor, or a negative code: RING_INVALID, RING_FORKED, RING_MISUSE.
 */
RING_API int32_t ring_cq_fd(const ring_cq_t *cq);

/**
 * Waits until events wait, at most `timeout_ns` (negative: without end, 0: looks only).
 * Owns nothing.
 * Any thread but a callback's; blocks. ring_cq_wakeup() and ring_cq_free() end it.
 * RING_OK, RING_TIMEOUT, RING_AGAIN (woken), RING_CLOSED, RING_INVALID, RING_FORKED, RING_MISUSE.
 */
RING_API ring_status_t ring_cq_wait(ring_cq_t *cq, int64_t timeout_ns);

/**
 * Ends one ring_cq_wait(), the one under way or the next, and makes the descriptor readable.
 * Owns nothing.
 * Any thread, also in callbacks; does not block.
 * Nothing; NULL and a queue of a parent process are ignored.
 */
RING_API void ring_cq_wakeup(ring_cq_t *cq);

/**
 * Takes up to `max` events out of the queue, in the order in which they happened.
 * Each event's data is lent until ring_events_release(), which every event must go to.
 * One thread at a time, not in callbacks; does not block.
 * How many, or a negative code: RING_MISUSE (a second thread), RING_INVALID, RING_FORKED.
 */
RING_API int32_t ring_cq_drain(ring_cq_t *cq, ring_event_t *out, uint32_t max);

/**
 * Gives back what ring_cq_drain() or ring_call() lent.
 * Afterwards the events' data must not be used; to give it back twice does nothing.
 * Any thread, also in callbacks; does not block.
 * Nothing.
 */
RING_API void ring_events_release(ring_event_t *ev, uint32_t n);

/**
 * As ring_cq_drain(), for other languages: copies whole records into `buf`, nothing to release.
 * A record: tag u64, id u64, kind u32, status i32, a u64, b u64, length u32, 0 u32, then the data,
 * padded with zeros to a multiple of 8; in the byte order of the machine. `buf` is the caller's.
 * One thread at a time, not in callbacks; does not block.
 * The bytes written. -48 or less: minus the size that the first record needs. Else a code:
 * RING_MISUSE (a second thread), RING_INVALID, RING_FORKED.
 */
RING_API int64_t ring_cq_drain_packed(ring_cq_t *cq, void *buf, size_t cap);

/**
 * Ends a queue. Events that wait are dropped, also those that a node still adds.
 * Afterwards `cq` must not be used, and `wake` is not called any more. NULL is ignored.
 * Any thread but a callback's, where it does nothing; waits for a `wake` under way.
 * Nothing. In a child of fork() it does nothing: the memory stays with the process.
 */
RING_API void ring_cq_free(ring_cq_t *cq);

/**
 * Fills `o` with the defaults. `size` is sizeof(ring_options_t) of the host's header.
 * Owns nothing.
 * Any thread; never blocks.
 * Nothing; a size that is not plausible is found by ring_node_open().
 */
RING_API void ring_options_init(ring_options_t *o, uint32_t size);

/**
 * Opens a node and waits until it is up. Its own events go to `events`, unless that is NULL.
 * The caller owns *out and ends it with ring_node_free(). `o` is copied; the queue is only used.
 * Any thread but a callback's; blocks, at most `open_timeout_ns`.
 * RING_OK, RING_INVALID, RING_IO, RING_TIMEOUT, RING_HALTED, RING_FORKED, RING_MISUSE,
 * RING_PANICKED.
 */
RING_API
ring_status_t ring_node_open(const ring_options_t *o,
                             ring_cq_t *events,
                             ring_node_t **out,
                             ring_error_t *err);

/**
 * Begins to close a node: nothing more is accepted, what is under way ends, waiting at most
 * `timeout_ns` (negative: as long as it takes; every operation has its deadline); scans are
 * cancelled. Then everything is written and RING_EV_CLOSED comes to `cq` with `tag`, the last.
 * Owns nothing: ring_node_free() is still to be called.
 * Any thread but a callback's; does not block.
 * RING_OK, RING_CLOSED (it was closed before), RING_INVALID, RING_IO, RING_FORKED, RING_MISUSE.
 */
RING_API ring_status_t ring_node_close(ring_node_t *n, ring_cq_t *cq, uint64_t tag, int64_t timeout_ns);

/**
 * Ends a node: stops it at once, as if the process had been killed, unless it was closed; nothing
 * acknowledged is lost. Everything under way ends: its RING_EV_DONE is in its queue.
 * Afterwards `n` must not be used. NULL is ignored.
 * Any thread but a callback's, where it does nothing; blocks until its threads have ended.
 * Nothing. In a child of fork() it does nothing: the memory stays with the process.
 */
RING_API void ring_node_free(ring_node_t *n);

/**
 * Begins an operation; its events come to `cq`.
 * `op` and all it points to are copied. *id names it; NULL if nobody wants to know.
 * Any thread but a callback's; does not block.
 * RING_OK: exactly one RING_EV_DONE follows. Else nothing happened: RING_AGAIN (too many),
 * RING_CLOSED, RING_INVALID, RING_HALTED, RING_FORKED, RING_MISUSE, RING_PANICKED.
 */
RING_API ring_status_t ring_submit(ring_node_t *n, ring_cq_t *cq, const ring_op_t *op, ring_id_t *id);

/**
 * Ends an operation early: its DONE says RING_CANCELLED, or of a write that may have happened
 * RING_OUTCOME_UNKNOWN. It may also just have ended by itself.
 * Owns nothing.
 * Any thread but a callback's; does not block.
 * RING_OK, RING_INVALID (no such operation, or it has ended), RING_FORKED, RING_MISUSE.
 */
RING_API ring_status_t ring_cancel(ring_node_t *n, ring_id_t id);

/**
 * Makes an operation, not a scan, and waits for its end, which *out tells as RING_EV_DONE would.
 * *out is to be given to ring_events_release() unless no operation began; then it is empty.
 * Any thread but a callback's; blocks, at most until the operation's deadline.
 * What the operation came to: also RING_NOT_FOUND, RING_CONFLICT, RING_TIMEOUT,
 * RING_OUTCOME_UNKNOWN; and as ring_submit().
 */
RING_API ring_status_t ring_call(ring_node_t *n, const ring_op_t *op, ring_event_t *out, ring_error_t *err);

/**
 * Makes a sans-IO member.
 * The caller owns *out and ends it with ring_core_free(). `o` is copied.
 * Any thread; does not block.
 * RING_OK, RING_INVALID, RING_PANICKED.
 */
RING_API ring_status_t ring_core_open(const ring_core_options_t *o, ring_core_t **out, ring_error_t *err);

/**
 * Tells a member something. `now_ns` never goes back (if it does, the time before counts).
 * `in` and its data are copied.
 * One thread at a time; does not block.
 * RING_OK, RING_INVALID (nothing happened), RING_MISUSE, RING_PANICKED.
 */
RING_API ring_status_t ring_core_input(ring_core_t *c, uint64_t now_ns, const ring_input_t *input);

/**
 * Begins an operation; its events come as RING_FX_EVENT. *id names it, NULL if nobody wants to
 * know.
 * `op` and all it points to are copied.
 * One thread at a time; does not block.
 * RING_OK: exactly one RING_EV_DONE follows. Else nothing happened: RING_AGAIN, RING_INVALID,
 * RING_HALTED, RING_MISUSE, RING_PANICKED.
 */
RING_API ring_status_t ring_core_submit(ring_core_t *c, uint64_t now_ns, const ring_op_t *op, ring_id_t *id);

/**
 * When RING_IN_WAKEUP is due, on the clock of `now_ns`. Ask when no effect is left.
 * Owns nothing.
 * One thread at a time; does not block.
 * A time; -1: there is no timer, or a member that cannot be used any more.
 */
RING_API int64_t ring_core_deadline(const ring_core_t *c);

/**
 * The next thing that the host is to do; call it until it says RING_FX_NONE. Effects are carried
 * out in this order.
 * What *out shows is lent until the next call on `c`.
 * One thread at a time; does not block.
 * RING_OK, RING_INVALID, RING_MISUSE, RING_PANICKED.
 */
RING_API ring_status_t ring_core_next(ring_core_t *c, ring_effect_t *out);

/**
 * A hash over the member's state and all effects so far: the same for the same options and inputs
 * with the same version of the library.
 * Owns nothing.
 * One thread at a time; does not block.
 * The hash; 0 for NULL and for a member that cannot be used any more.
 */
RING_API uint64_t ring_core_digest(const ring_core_t *c);

/**
 * Ends a member, as if its process had been killed.
 * Afterwards `c` and what it lent must not be used. NULL is ignored.
 * One thread at a time; does not block.
 * Nothing.
 */
RING_API void ring_core_free(ring_core_t *c);

/** A view of a NUL-terminated text; NULL is an empty one. */
static inline ring_bytes_t ring_text(const char *s) {
  ring_bytes_t view = {(const uint8_t *)s, s ? strlen(s) : 0};
  return view;
}

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* RING_H */
