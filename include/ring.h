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
 * host only through `wake`, `log` and `log_free`, which must return quickly and may call nothing here but
 * ring_cq_wakeup() and ring_events_release(); anything else answers RING_MISUSE there. An operation ends on
 * whichever thread works for the node at that moment: one of the library's, or one of the host's that has just begun
 * another call on the node and works for it meanwhile. So inside a call the events of any operation may be queued, of
 * that call itself too, before it returns, and `wake` may be called, of any queue: hold no lock over a call that
 * `wake` or `log` takes. The library's threads are named, block all signals, and end with their node. After fork() the child
 * answers RING_FORKED for everything that its parent made; it may open its own.
 *
 * OWNERSHIP. What the host passes is copied before the call returns. What the library hands out is
 * lent: events until ring_events_release(), effects of a sans-IO member until the next call on it.
 * Structs that the host fills start with their size and only grow at the end: zero them, set
 * `size`. An empty view is (NULL, 0). Text is UTF-8 with a length, times are nanoseconds. Every
 * pointer is checked for NULL; what else it points to is the host's word.
 *
 * ERRORS. Each call says RING_OK or a negative code. After RING_OUTCOME_UNKNOWN a write may have
 * happened or may still, a request may have been handled; after RING_PANICKED too, if it was under way;
 * after any other failure it did not and never will. RING_HANDLER_ERROR is an answer, not a failure of
 * libring.
 *
 * ORDER. The events of a queue keep the order in which they happened. The writes of one thread to
 * one partition keep their order. A read sees every write that had ended when the read was
 * submitted; what it sees of writes under way is not said.
 *
 * REQUESTS. RING_OP_REQUEST asks the owner of a key, a member, or the leader of a partition. Who answers
 * has submitted RING_OP_HANDLE for the route: each request comes as RING_EV_REQUEST, and its `id` is the
 * host's until RING_OP_RESPOND has answered it, exactly once, or RING_EV_GONE has said that its deadline
 * passed. A second answer is RING_MISUSE. A host that does not drain holds a bounded number of requests;
 * further ones wait elsewhere, and each ends within its caller's deadline. ring_cancel() on a caller's
 * request gives it up (its handler is told by RING_EV_GONE); on a handler's request it answers with an
 * error; on a handler it ends that, and what was drained is still to be answered. A queue that is freed, and
 * a node that is closed, answer what they have handed out with an error: to end in good order cancel the
 * handlers, answer what is left, then close.
 *
 * STREAMS. A request opens named streams of bytes, upwards from caller to handler, downwards, or both; its
 * response may add some. The end of a stream on a node has an id: the caller's are those that follow its
 * request's (*id + 1 for the first), the handler's are in RING_EV_REQUEST, in the fields; those of a
 * response likewise, the other way round, there from the DONE of RING_OP_RESPOND on. Nothing comes before ring_stream_credit() allows it, and a writer
 * is told RING_AGAIN when its reader, here or there, does not read: memory is bounded on both sides. What was
 * not sent well to its end with `fin` breaks at the other end: RING_RESET. A stream outlives the request
 * that opened it, but not its failure. What a handler wants of a stream it allows before it answers: what had no credit by
 * then is given up, as are streams that a response adds to a request without RING_STREAMS. A caller that opens a
 * stream downwards reads it to its end, or gives it up with ring_stream_reset(): what came waits for it until then.
 *
 * WATCHES AND TRACKS. RING_OP_WATCH tells the changes of a range of keys until it is cancelled, RING_OP_TRACK
 * and RING_OP_REPLICA when a key leaves or reaches this member. They end with the node.
 *
 * A sans-IO member (ring_core_t) makes all operations on partitions, watches too. It neither asks nor
 * handles: ring_core_submit() refuses those operations with RING_UNSUPPORTED, and a node that asks such a member is
 * answered at once, RING_NO_HANDLER: certainly not handled.
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
 * From the caller of a request to its handler.
 */
#define RING_UP 1

/**
 * From the handler of a request to its caller.
 */
#define RING_DOWN 2

/**
 * An operation has ended: exactly one for each ring_submit() that returned RING_OK. Nothing follows it of this
 * operation but what its streams do, and what becomes of the requests that it handed out. By operation: see
 * RING_OP_GET and its like.
 */
#define RING_EV_DONE 1

/**
 * A scan found a key: `data` is the key and then its value, `a` the length of the key, `b` the
 * revision.
 */
#define RING_EV_ITEM 2

/**
 * A connection to another member stands (`b` is 1) or is lost (`b` is 0); `a` is the member, `data` its address, if that
 * is known.
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
 * A request came to a handler: `id` names it, until it is answered with RING_OP_RESPOND, exactly once; `tag` is the
 * handler's. `b` is how often it was sent, this time included: 1 says that it was not handled before. More does not say that it was:
 * members that are not the one, or have no room, count too.
 * `data` is fields (RING_FIELD_ROUTE and its like), and from byte `a` on the body.
 */
#define RING_EV_REQUEST 10

/**
 * Bytes of stream `id` came: `data`, within the credit that ring_stream_credit() gave. `b` is 1 when none follow: the stream
 * has ended well in this way, or with RING_RESET it broke; that needs no credit, and bytes that had none by then are
 * dropped.
 */
#define RING_EV_BODY 11

/**
 * Stream `id`, of which ring_stream_write() said RING_AGAIN, takes bytes again. RING_RESET, at any time and once: it
 * broke, and takes none any more.
 */
#define RING_EV_WRITABLE 12

/**
 * Nobody waits for the answer to request `id` any more. `a` is 0: its caller gave up or is gone; it is still to be
 * answered, which ends it. `a` is 1: its deadline has passed, and it has ended; an answer that was on its way is
 * RING_CANCELLED.
 */
#define RING_EV_GONE 13

/**
 * A watch stands: every change after revision `a` will be told. The first event of each watch, unless that fails.
 */
#define RING_EV_WATCHING 14

/**
 * A watch: a key was set. `data` is the key and then its value, `a` the length of the key, `b` the revision; the changes of one
 * batch have one revision.
 */
#define RING_EV_CHANGED 15

/**
 * A watch: a key was removed. `data` is the key, `a` its length, `b` the revision.
 */
#define RING_EV_REMOVED 16

/**
 * A key that is tracked with RING_NEXT: member `a` is now the next in line for it, after `b` (0: nobody).
 */
#define RING_EV_NEXT 17

/**
 * The node has halted: RING_HALTED, it met something that it must not go on with; RING_PANICKED, a defect of the library.
 * `data` says what, and what to do. Its operations end, nothing is accepted or written any more; it is still to be freed.
 */
#define RING_EV_HALTED 18

/**
 * A scan with RING_LOCAL, before its first key: every write that was acknowledged longer than `a` nanoseconds before is seen.
 * UINT64_MAX: the replica does not know, because it has not reached its leader since it was started. It comes again when the
 * scan, of which no key was told yet, begins again.
 */
#define RING_EV_STALENESS 19

/**
 * More than half of the registered members are connected to this one, itself counted (`b` is 1): what needs a majority can be
 * done. Or they are not any more (`b` is 0): it waits.
 */
#define RING_EV_READY 20

/**
 * Member `a`, whose connection is lost, is dialled again, for the first time since; `data` is where.
 */
#define RING_EV_RECONNECTING 21

/**
 * Nobody answers at the address `data`, where member `a` is expected (0: that is not known). It is dialled on; only the
 * first failure of a row is told.
 */
#define RING_EV_UNREACHABLE 22

/**
 * This node refused a connection, of member `a` (0: it did not get to say who it is), as of a wrong cluster or version. `data` is
 * its address, of `b` bytes (0: not known), and then why and what to do.
 */
#define RING_EV_REFUSED 23

/**
 * Another, as with RING_EV_REFUSED, refused this node.
 */
#define RING_EV_REFUSED_BY 24

/**
 * Member `a` (0: not known) sent something that it should not have. It was dropped. `data` is the address it came from, `b` bytes
 * (0: not known), and then what it was.
 */
#define RING_EV_FAULT 25

/**
 * This member was to leave, or to be registered otherwise, and the directory refuses: `data` says why. It goes on as before.
 */
#define RING_EV_STAYS 26

/**
 * While ring_node_open() waits for the others that found the cluster (`expect`): `a` of `b` are here, this one included; `data` is
 * their names, a JSON array.
 */
#define RING_EV_GATHERING 27

/**
 * RING_HANDLER_ERROR: the response was larger than its node allows.
 */
#define RING_CODE_TOO_LARGE 4294967295

/**
 * RING_HANDLER_ERROR: the handler panicked.
 */
#define RING_CODE_PANICKED 4294967294

/**
 * RING_HANDLER_ERROR: the handler gave the request up without an answer, because its host, its queue or its node is
 * ending. How far it had come is not known.
 */
#define RING_CODE_DROPPED 4294967293

/**
 * A request's route.
 */
#define RING_FIELD_ROUTE 1

/**
 * The key whose owner was asked for.
 */
#define RING_FIELD_KEY 2

/**
 * The partition whose leader was asked for.
 */
#define RING_FIELD_PARTITION 3

/**
 * A header; ring_field_next() tells its name and its value.
 */
#define RING_FIELD_HEADER 4

/**
 * A stream; ring_field_next() tells its name, its id here and its ways.
 */
#define RING_FIELD_STREAM 5

/**
 * Names a request in the whole cluster, the same in each of its attempts: three uint64_t, the member that asks, its
 * start, and its number of the request.
 */
#define RING_FIELD_REQUEST 6

/**
 * How long the caller still waits, when this was made: a uint64_t, nanoseconds.
 */
#define RING_FIELD_TIME_LEFT 7

/**
 * Present when nobody waits for an answer.
 */
#define RING_FIELD_ONE_WAY 8

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
 * The node cannot go on, or lost something.
 */
#define RING_LOG_ERROR 1

/**
 * Somebody should look at it.
 */
#define RING_LOG_WARN 2

/**
 * What happens in the life of a node and a cluster.
 */
#define RING_LOG_INFO 3

/**
 * What helps to find out why.
 */
#define RING_LOG_DEBUG 4

/**
 * Everything.
 */
#define RING_LOG_TRACE 5

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
 * Does not find out by gossip (UDP) who is alive, but takes for alive who it is connected to. The same on all members.
 */
#define RING_NO_GOSSIP 8

/**
 * Requests for which this member has no handler are turned away, as by one that has too many, until RING_OP_SERVE: their
 * callers ask the next in line, or again. A member that comes back is asked before its host can submit RING_OP_HANDLE.
 */
#define RING_HOLD 16

/**
 * The value of a key. DONE: `data` is the value, `a` its revision; RING_NOT_FOUND without one. With RING_LOCAL `b` says how
 * stale that can be, also of a key that was not found: every write that was acknowledged longer than so many
 * nanoseconds before is seen. UINT64_MAX: the replica does not know, because it has not reached its leader since it was
 * started.
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
 * standing, state, tags, connected), `b` their number, `a` this node's own id. With RING_WITH_CLIENTS also the clients that
 * are connected to this node: objects with their id, and `client`, which is true. Ends as RING_OP_OWNERS does.
 */
#define RING_OP_MEMBERS 9

/**
 * Tells a member to leave the cluster: what it holds moves elsewhere. DONE when it knows: `data` and `a` as with
 * RING_OP_STATUS. It is gone when RING_OP_MEMBERS has it no more; itself it is told RING_EV_LEFT, or RING_EV_STAYS: the only
 * member that could hold the data stays, as does one without which no majority would be left, since others are away.
 * With RING_FORCE the latter goes all the same: those who are away are given up, and what they held too is left to fewer
 * members than it should have, to a single one at worst.
 */
#define RING_OP_LEAVE 10

/**
 * Has a request handled by the owner of `key`, with RING_TO_MEMBER by member `target`, with RING_TO_LEADER by the leader of
 * `partition`, beside its data. DONE with RING_OK: `data` is fields (headers, and the streams that the response opens), and from byte
 * `a` on the body. RING_HANDLER_ERROR: the handler says so; `a` is its code, `data` its text. RING_NO_HANDLER,
 * RING_TIMEOUT, RING_CANCELLED: certainly not handled. RING_OUTCOME_UNKNOWN: perhaps. Unless it is RING_ONCE or has
 * streams, one that was perhaps handled is sent again, to the next in line. Its streams outlive it when it succeeds, and
 * break when it fails.
 */
#define RING_OP_REQUEST 11

/**
 * From now on RING_EV_REQUEST comes for each request for `route` (with RING_REST: for all routes without a handler) that this
 * member is responsible for, at most `limit` that wait to be drained; others wait outside of the queue until there is room
 * or their deadline comes. RING_CONFLICT: the route has a handler. DONE when it was cancelled: no requests come
 * any more, those that were not drained are answered for the host, the others are still to be answered.
 */
#define RING_OP_HANDLE 12

/**
 * Answers request `target`; with RING_ERROR by an error. Those of its streams that come here and had no credit by then are
 * given up; the others, and those that go from here, outlive it. DONE when it is on its way; RING_CANCELLED: nobody waited for it
 * any more. RING_MISUSE from ring_submit(): the request was answered before, or for the host.
 */
#define RING_OP_RESPOND 13

/**
 * Tells the changes of a range of keys of `partition`, in the order in which they were committed, each once and none left out:
 * RING_EV_WATCHING, RING_EV_CHANGED, RING_EV_REMOVED. From now on, or with RING_AFTER after revision `expect`. A page of
 * changes is asked for when the page before is drained. DONE's `a` is the revision to go on after (0: none was told);
 * RING_COMPACTED: changes before revision `b` are forgotten: scan, and watch after the scan's revision.
 */
#define RING_OP_WATCH 14

/**
 * Waits until `key`, which this member owns, leaves it; with RING_NEXT also tells who is the next in line: the present one, then
 * each other that becomes it. DONE: `a` is the new owner, 0: there is none. RING_CONFLICT: this member does not own it.
 */
#define RING_OP_TRACK 15

/**
 * Waits until this member becomes the owner of `key`. RING_CONFLICT: it owns it already.
 */
#define RING_OP_REPLICA 16

/**
 * Numbers about `partition`; its keys are counted, which takes a while on a large one. DONE: `a` is the revision of its shard,
 * `b` the number of keys, `data` a JSON object: shard, replicas, leader, keys, bytes, revision, applied, applied_term.
 */
#define RING_OP_INFO 17

/**
 * Numbers about this node. DONE: `data` is text as Prometheus reads it (version 0.0.4 of its format). See `metrics` of
 * ring_options_t.
 */
#define RING_OP_METRICS 18

/**
 * From now on dials `value`, too, "host:port", again and again until somebody answers: one more way to the members of this
 * node's cluster, or to the one that it is to join. DONE when it is known: RING_INVALID for what is no address, RING_AGAIN
 * when there are too many.
 */
#define RING_OP_JOIN 19

/**
 * All handlers are there that are to be: ends what RING_HOLD began. Ends as RING_OP_OWNERS does.
 */
#define RING_OP_SERVE 20

/**
 * RING_OP_SCAN, RING_OP_WATCH: the keys that begin with `key`.
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
 * RING_OP_REQUEST: to member `target`, which may be this one.
 */
#define RING_TO_MEMBER 32

/**
 * RING_OP_REQUEST: to the leader of `partition`.
 */
#define RING_TO_LEADER 64

/**
 * RING_OP_REQUEST: handled once at most, and not answered; DONE when it is handed to the connection. It has no
 * streams.
 */
#define RING_ONE_WAY 128

/**
 * RING_OP_REQUEST: handled once at most.
 */
#define RING_ONCE 256

/**
 * RING_OP_RESPOND: the answer is an error, `code` and `value`.
 */
#define RING_ERROR 512

/**
 * RING_OP_HANDLE: all routes without a handler of their own; `route` is empty.
 */
#define RING_REST 1024

/**
 * RING_OP_WATCH: what changed after revision `expect`.
 */
#define RING_AFTER 2048

/**
 * RING_OP_TRACK: also who is the next in line.
 */
#define RING_NEXT 4096

/**
 * RING_OP_LEAVE: also where so many others are away that no majority would be left.
 */
#define RING_FORCE 16384

/**
 * RING_OP_MEMBERS: the clients too.
 */
#define RING_WITH_CLIENTS 32768

/**
 * RING_OP_REQUEST: takes the streams that the response adds. Without, they are given up.
 */
#define RING_STREAMS 8192

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
 * Names an operation of a node, a request that came to it, or its end of a stream: never used twice by one node; 0 is
 * none.
 */
typedef uint64_t ring_id_t;

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
 * A name and what belongs to it: a header, or a tag of a member.
 */
typedef struct {
  /**
   * UTF-8.
   */
  ring_bytes_t name;
  /**
   * Any bytes; of a tag UTF-8.
   */
  ring_bytes_t value;
} ring_pair_t;

/**
 * How a node is opened. Begin with ring_options_init().
 */
typedef struct {
  /**
   * sizeof(ring_options_t), set by ring_options_init().
   */
  uint32_t size;
  /**
   * RING_CLIENT, RING_MEMORY, RING_INSECURE, RING_NO_GOSSIP, RING_HOLD.
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
   * Where to listen, "host:port" or "unix:/path"; empty: at the own address of `members`.
   */
  ring_bytes_t listen;
  /**
   * The directory for the data, made when it is not there. Needed unless RING_MEMORY or
   * RING_CLIENT is set.
   */
  ring_bytes_t data_dir;
  /**
   * Every member as "name=host:port" or "name=unix:/path", the same list on all; none: a cluster of one.
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
   * Where others reach this member, "host:port"; empty: where `members` has it, or at `listen`.
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
  /**
   * What the others are told of this member, beside its name: names once each, at most 32, with the member's name
   * about 480 bytes. RING_OP_MEMBERS shows them.
   */
  const ring_pair_t *tags;
  /**
   * How many tags there are.
   */
  size_t n_tags;
  /**
   * How many members found the cluster, where no list of `members` says it: those who were told to `join` each other find
   * each other and create it once, together, when so many are there; whoever comes later joins it. The same number and
   * the same addresses on all. 0: with `join` this member only joins.
   */
  uint32_t expect;
  /**
   * 0.
   */
  uint32_t reserved3;
  /**
   * Where to tell metrics to scrapers of Prometheus, "host:port": `GET /metrics` over HTTP, not encrypted. Empty: nowhere;
   * RING_OP_METRICS tells the same.
   */
  ring_bytes_t metrics;
  /**
   * What a member holds is moved elsewhere when it has been away for this long; 0: 5 min.
   */
  int64_t replace_after_ns;
  /**
   * Gossip: each member probes one other so often, 10 ms to an hour; 0: 1 s. Members may differ in all of these.
   */
  int64_t probe_interval_ns;
  /**
   * Gossip: a probe that has no answer after this long makes its target a suspect, at most `probe_interval_ns`; 0: three
   * quarters of it.
   */
  int64_t probe_timeout_ns;
  /**
   * Gossip: two members compare all that they know of the others this often, `probe_interval_ns` to a day; 0: 30 s.
   */
  int64_t sync_interval_ns;
  /**
   * Gossip: so many probe intervals a suspect has to refute when others suspect it too, 1 to 100; 0: 5.
   */
  uint32_t suspicion_min;
  /**
   * Gossip: this times as long if nobody else does, 1 to 100; 0: 6.
   */
  uint32_t suspicion_max;
  /**
   * Told what the node logs: `level` is RING_LOG_ERROR and its like, `line` one line without its end, UTF-8, at most 4096
   * bytes: what happened, then `key=value` pairs, then where in the library; control characters are escaped. It is lent
   * for the call. Library threads call it, several at once, from within ring_node_open() until ring_node_free(). It must
   * return quickly and not block; only ring_cq_wakeup() works inside. NULL: nobody is told.
   */
  void (*log)(void *arg, int32_t level, ring_bytes_t line);
  /**
   * For `log` and `log_free`; it must be valid until ring_node_free() has returned, or a ring_node_open() that fails.
   */
  void *log_arg;
  /**
   * Called once, when `log` is not called any more and no call of it is under way: inside of ring_node_free(), or of
   * ring_node_open() when that fails (but for RING_MISUSE, or when these options cannot be read: NULL, a wrong `size`,
   * unknown fields). As `log` it must not block. Not called in a child of fork(). May be NULL.
   */
  void (*log_free)(void *arg);
  /**
   * The last level that is told; 0: RING_LOG_INFO.
   */
  int32_t log_level;
  /**
   * 0.
   */
  uint32_t reserved4;
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
 * A stream to open beside a request or a response.
 */
typedef struct {
  /**
   * UTF-8, 1 to 255 bytes.
   */
  ring_bytes_t name;
  /**
   * RING_UP, RING_DOWN, or both.
   */
  uint32_t ways;
  /**
   * 0.
   */
  uint32_t reserved;
} ring_stream_t;

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
   * How long it may take; 0 or less: as the node's options say. Handlers, watches and tracks last until they are
   * cancelled; RING_OP_WATCH: how long it may be that nobody can be asked, at least 10 s.
   */
  int64_t timeout_ns;
  /**
   * RING_OP_STATUS, RING_OP_LEAVE, RING_TO_MEMBER: the member; 0 is this one. RING_OP_RESPOND: the request.
   */
  uint64_t target;
  /**
   * RING_OP_CAS: the revision that the key must have; 0: it must not exist. RING_AFTER: the revision.
   */
  uint64_t expect;
  /**
   * RING_OP_SCAN: most keys; 0: all. RING_OP_OWNERS: most members; 0: 1. RING_OP_HANDLE: most requests in the
   * queue; 0: 1,024.
   */
  uint64_t limit;
  /**
   * The partition's name, UTF-8.
   */
  ring_bytes_t partition;
  /**
   * The key; of a scan or a watch its first key, or with RING_PREFIX what all its keys begin with.
   */
  ring_bytes_t key;
  /**
   * The value; of RING_OP_JOIN the address; of a scan or a watch its end (exclusive), where empty is the end of the partition. The body of a request
   * or of a response; of an error its text, UTF-8.
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
  /**
   * RING_OP_REQUEST, RING_OP_HANDLE: the route, UTF-8, 1 to 255 bytes.
   */
  ring_bytes_t route;
  /**
   * RING_OP_REQUEST, RING_OP_RESPOND: the headers.
   */
  const ring_pair_t *headers;
  /**
   * How many headers there are; at most 64.
   */
  size_t n_headers;
  /**
   * RING_OP_REQUEST, RING_OP_RESPOND: the streams to open; their ids here follow that of the operation, in this order:
   * *id + 1 is the first.
   */
  const ring_stream_t *streams;
  /**
   * How many streams there are; at most 64.
   */
  size_t n_streams;
  /**
   * RING_OP_RESPOND with RING_ERROR: the error's code, the host's own. 0xFFFFFFF0 and more are the library's:
   * RING_CODE_DROPPED and its like.
   */
  uint32_t code;
  /**
   * 0.
   */
  uint32_t reserved;
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
 * A call that is not allowed here: inside a callback, two threads where one may be, a second answer to a request.
 */
#define RING_MISUSE -6

/**
 * This member does not lead; only calls that ask for it see this.
 */
#define RING_NOT_LEADER -7

/**
 * What was asked for does not fit what is there, and nothing was changed. RING_OP_CAS, in its DONE: the key is not as
 * expected; the event's `a` is its revision, 0 when it does not exist. RING_OP_HANDLE, from ring_submit(): the route has
 * a handler on this node. RING_OP_TRACK, in its DONE: this member does not own the key. RING_OP_REPLICA, in its DONE: it owns
 * the key already.
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

/**
 * A request's handler answered with an error: the event's `a` is its code.
 */
#define RING_HANDLER_ERROR -17

/**
 * The member that was asked handles no such route. Nothing happened.
 */
#define RING_NO_HANDLER -18

/**
 * A watch cannot go on: changes before revision `b` of the event are forgotten.
 */
#define RING_COMPACTED -19

/**
 * A stream is broken: its other end, its request or its connection is gone. What its reader has got is not known.
 */
#define RING_RESET -20

/**
 * This kind of member does not do that, whatever its state: a sans-IO member (ring_core_t) neither asks nor handles, tracks
 * no keys and has no metrics. Nothing happened.
 */
#define RING_UNSUPPORTED -21

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
 * The slot of a key, 0 to 65,535: those of RING_EV_MOVE and RING_EV_STEAL. The same on every member, in every language.
 * Owns nothing.
 * Any thread, also in callbacks; never blocks.
 * The slot; that of the empty key for a view that cannot be read: NULL with a length.
 */
RING_API
uint32_t ring_slot(ring_bytes_t key);

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
 * Begins to close a node: nothing more is accepted. Scans, watches, handlers and tracks are cancelled; requests that
 * were handed out are answered for the host, RING_CODE_DROPPED; what else is under way ends by itself, or at
 * `timeout_ns` with the node (negative: as long as it takes; every operation has its deadline). Then streams break,
 * everything is written, and RING_EV_CLOSED comes to `cq` with `tag`: the last event of the node, in any queue. Nobody
 * is told to leave: a member that is closed is away, and comes back when it is opened again.
 * Owns nothing: ring_node_free() is still to be called, then, or before to hurry.
 * Any thread but a callback's, also while others are in calls on the node; does not block. Calls that come later
 * answer RING_CLOSED, ring_call() on other threads ends as its operation does.
 * RING_OK, RING_CLOSED (it was closed before), RING_INVALID, RING_IO, RING_FORKED, RING_MISUSE.
 */
RING_API
ring_status_t ring_node_close(ring_node_t *n,
                              ring_cq_t *cq,
                              uint64_t tag,
                              int64_t timeout_ns);

/**
 * Ends a node: stops it at once, as if the process had been killed, unless it was closed; nothing
 * acknowledged is lost. Everything under way ends: its RING_EV_DONE is in its queue.
 * Afterwards `n` must not be used. NULL is ignored.
 * Any thread but a callback's, where it does nothing; blocks until its threads have ended, and waits for a `log` under
 * way; then `log_free` is called.
 * Nothing. In a child of fork() it does nothing: the memory stays with the process.
 */
RING_API
void ring_node_free(ring_node_t *n);

/**
 * Begins an operation; its events come to `cq`.
 * `op` and all it points to are copied. *id names it; NULL if nobody wants to know.
 * Any thread but a callback's; does not block.
 * RING_OK: exactly one RING_EV_DONE follows; it may be in the queue before this returns. Else nothing happened:
 * RING_AGAIN (too many), RING_CLOSED, RING_INVALID, RING_CONFLICT (RING_OP_HANDLE), RING_HALTED, RING_FORKED,
 * RING_MISUSE, RING_PANICKED.
 */
RING_API
ring_status_t ring_submit(ring_node_t *n,
                          ring_cq_t *cq,
                          const ring_op_t *op,
                          ring_id_t *id);

/**
 * Ends an operation early: its DONE says RING_CANCELLED, or of a write that may have happened
 * RING_OUTCOME_UNKNOWN. It may also just have ended by itself.
 * Owns nothing.
 * Any thread but a callback's; does not block.
 * RING_OK, RING_INVALID (no such operation, or it has ended), RING_FORKED, RING_MISUSE.
 */
RING_API ring_status_t ring_cancel(ring_node_t *n, ring_id_t id);

/**
 * Makes an operation that one event tells, and waits for its end, which *out tells as RING_EV_DONE would. Those that
 * are told by more need a queue: RING_OP_SCAN, RING_OP_WATCH, RING_OP_HANDLE, RING_OP_TRACK, RING_OP_REPLICA,
 * and requests and responses with streams or RING_STREAMS are RING_INVALID here.
 * *out is to be given to ring_events_release() unless no operation began; then it is empty.
 * Any thread but a callback's, many at a time; blocks, at most until the operation's deadline, and nobody else. While it
 * waits the thread does nothing for the host's queues: one that also drains a queue must not wait here for what only
 * that drain brings about, as for a request that its own handler is to answer. ring_cancel() cannot name it;
 * ring_node_free() on another thread ends it.
 * What the operation came to: also RING_NOT_FOUND, RING_CONFLICT, RING_TIMEOUT, RING_HANDLER_ERROR, RING_NO_HANDLER,
 * RING_OUTCOME_UNKNOWN; and as ring_submit().
 */
RING_API
ring_status_t ring_call(ring_node_t *n,
                        const ring_op_t *op,
                        ring_event_t *out,
                        ring_error_t *err);

/**
 * Writes to a stream what there is room for; with `fin` 1 ends it well when that was all of `chunk`.
 * What was taken is copied; *taken says how much; NULL if nobody wants to know.
 * Any thread but a callback's, one at a time for a stream that is to keep its order; does not block.
 * RING_OK: all of it. RING_AGAIN: not all; RING_EV_WRITABLE follows. RING_RESET: the stream is broken. RING_CLOSED: it
 * has ended. RING_INVALID (an id that was never a stream's here, or it does not go from here), RING_FORKED, RING_MISUSE.
 */
RING_API
ring_status_t ring_stream_write(ring_node_t *n,
                                ring_id_t s,
                                ring_bytes_t chunk,
                                uint32_t fin,
                                size_t *taken);

/**
 * Allows so many bytes more of a stream to come as RING_EV_BODY. Without, none do.
 * Owns nothing.
 * Any thread but a callback's; does not block.
 * RING_OK, RING_CLOSED (the stream has ended), RING_INVALID (an id that was never a stream's here, or it does not come
 * here), RING_FORKED, RING_MISUSE.
 */
RING_API
ring_status_t ring_stream_credit(ring_node_t *n,
                                 ring_id_t s,
                                 uint64_t bytes);

/**
 * Gives a stream up, in RING_UP, RING_DOWN or both `ways`; the other end is told. To end it well is ring_stream_write().
 * Nothing more is told of these ways but what is in the queue already.
 * Any thread but a callback's; does not block.
 * RING_OK, RING_CLOSED (the stream has ended), RING_INVALID (an id that was never a stream's here, or ways that it does not
 * have), RING_FORKED, RING_MISUSE.
 */
RING_API
ring_status_t ring_stream_reset(ring_node_t *n,
                                ring_id_t s,
                                uint32_t ways);

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
 * RING_OK: exactly one RING_EV_DONE follows. Else nothing happened: RING_AGAIN, RING_INVALID, RING_UNSUPPORTED
 * (RING_OP_REQUEST, RING_OP_RESPOND, RING_OP_HANDLE, RING_OP_TRACK, RING_OP_REPLICA, RING_OP_METRICS),
 * RING_HALTED, RING_MISUSE, RING_PANICKED.
 */
RING_API
ring_status_t ring_core_submit(ring_core_t *c,
                               uint64_t now_ns,
                               const ring_op_t *op,
                               ring_id_t *id);

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
/** A field of an event's data, as ring_field_next() reads it. Views are valid as long as the data is. */
typedef struct {
  /** RING_FIELD_ROUTE and its like. Ignore those that you do not know. */
  uint32_t kind;
  /** RING_FIELD_STREAM: RING_UP, RING_DOWN, or both. */
  uint32_t ways;
  /** RING_FIELD_STREAM: its id here. */
  ring_id_t stream;
  /** RING_FIELD_HEADER, RING_FIELD_STREAM: its name. */
  ring_bytes_t name;
  /** The value; of a field whose value is numbers the bytes of each, in the byte order of the machine. */
  ring_bytes_t value;
} ring_field_t;
/** The fields of an event whose `a` says where the body begins: RING_EV_REQUEST, DONE of RING_OP_REQUEST with RING_OK. */
static inline ring_bytes_t ring_fields(const ring_event_t *ev) {
  ring_bytes_t view = {ev->data.ptr, ev->a < ev->data.len ? (size_t)ev->a : ev->data.len};
  return view;
}
/** The body of such an event. */
static inline ring_bytes_t ring_body(const ring_event_t *ev) {
  size_t fields = ring_fields(ev).len;
  ring_bytes_t view = {ev->data.ptr, ev->data.len - fields};
  if (view.len != 0) view.ptr += fields;
  return view;
}
/** Reads the field at the beginning of *rest, and moves *rest behind it; 0: there is none. A field is its kind and
 *  the length of what follows, each a uint32_t; then, of a header, the length of its name (uint32_t), name and value; of a
 *  stream, its id (uint64_t), its ways (uint32_t) and its name; of the others the value. */
static inline int ring_field_next(ring_bytes_t *rest, ring_field_t *out) {
  uint32_t head[2], name = 0;
  size_t skip = 0;
  memset(out, 0, sizeof *out);
  if (rest->len < sizeof head) return 0;
  memcpy(head, rest->ptr, sizeof head);
  if (rest->len - sizeof head < head[1]) return 0;
  out->kind = head[0];
  out->value.ptr = rest->ptr + sizeof head;
  out->value.len = head[1];
  if (out->kind == RING_FIELD_HEADER && out->value.len >= sizeof name) {
    memcpy(&name, out->value.ptr, sizeof name);
    skip = sizeof name;
  } else if (out->kind == RING_FIELD_STREAM && out->value.len >= sizeof(ring_id_t) + sizeof name) {
    memcpy(&out->stream, out->value.ptr, sizeof(ring_id_t));
    memcpy(&out->ways, out->value.ptr + sizeof(ring_id_t), sizeof name);
    skip = sizeof(ring_id_t) + sizeof name;
    name = (uint32_t)(out->value.len - skip);
  }
  if (name <= out->value.len - skip) {
    out->name.ptr = out->value.ptr + skip;
    out->name.len = name;
    out->value.ptr += skip + name;
    out->value.len -= skip + name;
  }
  rest->ptr += sizeof head + head[1];
  rest->len -= sizeof head + head[1];
  return 1;
}

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* RING_H */
