/* Ends: a stream that several end at once, ids that are never given twice, streams that nobody ends, and a node that is
 * closed while a callback runs. */
#include "check.h"

enum { ROUNDS = 40, IDS = 600 };

static ring_id_t submit(ring_node_t *node, ring_cq_t *cq, ring_op_t op) {
  ring_id_t id = 0;
  CHECK_STATUS(ring_submit(node, cq, &op, &id), RING_OK);
  return id;
}

static ring_node_t *serving(ring_cq_t *served) {
  ring_node_t *node = new_node();
  ring_op_t op = new_op(RING_OP_HANDLE, 10, "", "");
  op.route = ring_text("r");
  submit(node, served, op);
  return node;
}

/* A request with a stream in both ways; its id, and the handler's of the request and of the stream. */
static ring_id_t begin(ring_node_t *node, ring_cq_t *cq, ring_cq_t *served, ring_id_t *session, ring_id_t *stream) {
  ring_op_t op = new_op(RING_OP_REQUEST, 1, "key", "");
  ring_stream_t s = {ring_text("s"), RING_UP | RING_DOWN, 0};
  op.route = ring_text("r");
  op.streams = &s;
  op.n_streams = 1;
  op.timeout_ns = 60 * SECONDS;
  ring_id_t id = submit(node, cq, op);
  ring_event_t ev;
  do ev = next_event(served, NULL, 0);
  while (ev.kind != RING_EV_REQUEST);
  *session = ev.id;
  *stream = ev.id + 1;
  return id;
}

struct ender {
  ring_node_t *node;
  ring_id_t stream;
  pthread_barrier_t *start;
};

static void *end_stream(void *arg) {
  struct ender *e = (struct ender *)arg;
  pthread_barrier_wait(e->start);
  ring_status_t s = ring_stream_reset(e->node, e->stream, RING_UP | RING_DOWN);
  CHECK(s == RING_OK || s == RING_CLOSED);
  s = ring_stream_write(e->node, e->stream, none(), 1, NULL);
  CHECK(s == RING_CLOSED);
  return NULL;
}

/* Two threads give up one end, a third the other, while an error ends the request: each way of each end is told at most
 * once, and what was ended by the host here is not told at all once the call has returned. */
static void at_once(void) {
  ring_cq_t *cq = new_queue(), *served = new_queue();
  ring_node_t *node = serving(served);
  for (int i = 0; i < ROUNDS; i++) {
    ring_id_t session, theirs, id = begin(node, cq, served, &session, &theirs);
    pthread_barrier_t start;
    pthread_t threads[3];
    CHECK(pthread_barrier_init(&start, NULL, 4) == 0);
    struct ender ours = {node, id + 1, &start}, other = {node, theirs, &start};
    for (int t = 0; t < 3; t++) CHECK(pthread_create(&threads[t], NULL, end_stream, t < 2 ? &ours : &other) == 0);
    pthread_barrier_wait(&start);
    ring_op_t op = new_op(RING_OP_RESPOND, 2, "", "no");
    op.target = session;
    op.flags = RING_ERROR;
    submit(node, served, op);
    for (int t = 0; t < 3; t++) CHECK(pthread_join(threads[t], NULL) == 0);
    CHECK(pthread_barrier_destroy(&start) == 0);
    ring_cq_t *queues[2] = {cq, served};
    for (int side = 0; side < 2; side++) {
      int reads = 0, writes = 0, done = 0;
      while (!done) { /* what its streams did is in the queue, before it or behind it */
        ring_event_t ev = next_event(queues[side], NULL, 0);
        done = ev.kind == RING_EV_DONE;
        reads += ev.kind == RING_EV_BODY && ev.b == 1;
        writes += ev.kind == RING_EV_WRITABLE && ev.status == RING_RESET;
        CHECK(done || ev.id == (side ? theirs : id + 1));
      }
      ring_event_t ev;
      while (ring_cq_drain(queues[side], &ev, 1) == 1) {
        reads += ev.kind == RING_EV_BODY && ev.b == 1;
        writes += ev.kind == RING_EV_WRITABLE && ev.status == RING_RESET;
        CHECK(ev.id == (side ? theirs : id + 1));
        ring_events_release(&ev, 1);
      }
      CHECK(reads <= 1 && writes <= 1);
    }
    CHECK_STATUS(ring_stream_reset(node, id + 1, RING_UP), RING_CLOSED);
    CHECK_STATUS(ring_stream_reset(node, theirs, RING_UP), RING_CLOSED);
  }
  CHECK_STATUS(ring_node_close(node, cq, 99, -1), RING_OK);
  CHECK(next_event(cq, NULL, 0).kind == RING_EV_CLOSED);
  ring_node_free(node);
  CHECK(next_event(served, NULL, 0).tag == 10);
  CHECK_STATUS(ring_cq_wait(served, 0), RING_TIMEOUT);
  ring_cq_free(cq);
  ring_cq_free(served);
}

static int compare(const void *a, const void *b) {
  ring_id_t x = *(const ring_id_t *)a, y = *(const ring_id_t *)b;
  return x < y ? -1 : x > y;
}

/* Ids of operations, of requests that came, and of streams: none twice. Those that have ended are known as such, for what
 * they were, and another node knows none of them as a stream's that it has. */
static void never_twice(void) {
  ring_cq_t *cq = new_queue(), *served = new_queue();
  ring_node_t *node = serving(served), *other = new_node();
  ring_id_t ids[IDS];
  size_t n = 0;
  while (n < IDS) {
    ring_id_t session, theirs, id = begin(node, cq, served, &session, &theirs);
    ring_op_t op = new_op(RING_OP_RESPOND, 2, "", "");
    op.target = session;
    ring_id_t answer = submit(node, served, op), put = submit(node, cq, new_op(RING_OP_PUT, 3, "k", "v"));
    CHECK_STATUS(ring_stream_reset(node, id + 1, RING_UP | RING_DOWN), RING_OK);
    ring_id_t now[] = {id, id + 1, session, theirs, answer, put};
    for (size_t i = 0; i < 6 && n < IDS; i++) ids[n++] = now[i];
    for (int ends = 0; ends < 2; ends += next_event(cq, NULL, 0).kind == RING_EV_DONE) {
    }
    ring_event_t ev;
    do ev = next_event(served, NULL, 0);
    while (ev.kind != RING_EV_DONE);
    ring_status_t s = ring_stream_reset(node, theirs, RING_UP | RING_DOWN);
    CHECK(s == RING_OK || s == RING_CLOSED);
    /* Each is used once more: it has ended, and no newer one is hit. */
    CHECK_STATUS(ring_cancel(node, id), RING_INVALID);
    CHECK_STATUS(ring_cancel(node, put), RING_INVALID);
    CHECK_STATUS(ring_cancel(node, session), RING_INVALID);
    CHECK_STATUS(ring_submit(node, served, &op, NULL), RING_MISUSE);
    op.target = id;
    CHECK_STATUS(ring_submit(node, served, &op, NULL), RING_INVALID); /* no request that came here */
    CHECK_STATUS(ring_stream_credit(node, id + 1, 1), RING_CLOSED);
    CHECK_STATUS(ring_stream_credit(node, theirs, 1), RING_CLOSED);
    CHECK_STATUS(ring_stream_credit(other, theirs, 1), RING_INVALID);
    while (ring_cq_drain(served, &ev, 1) == 1) {
      CHECK(ev.id == theirs && ev.status == RING_RESET);
      ring_events_release(&ev, 1);
    }
  }
  qsort(ids, n, sizeof *ids, compare);
  for (size_t i = 1; i < n; i++) CHECK(ids[i] != ids[i - 1] && ids[i - 1] != 0);
  ring_node_free(other);
  ring_node_free(node);
  ring_cq_free(served);
  ring_cq_free(cq);
}

/* Nobody reads, ends or resets what was opened: the close of the node, its free, or that of the queue does. */
static void abandoned(int how) {
  ring_cq_t *cq = new_queue(), *served = new_queue();
  ring_node_t *node = serving(served);
  static uint8_t chunk[100000];
  ring_bytes_t view = {chunk, sizeof chunk};
  for (int i = 0; i < 4; i++) {
    ring_id_t session, theirs, id = begin(node, cq, served, &session, &theirs);
    for (int side = 0; side < 2; side++) {
      while (ring_stream_write(node, side ? theirs : id + 1, view, 0, NULL) == RING_OK) {
      }
    }
    CHECK_STATUS(ring_stream_credit(node, theirs, 10), RING_OK);
    if (i % 2) { /* answered, or not even that */
      ring_op_t op = new_op(RING_OP_RESPOND, 2, "", "");
      op.target = session;
      submit(node, served, op);
    }
    next_event(served, NULL, 0); /* of one the events are taken, of the others not */
  }
  if (how == 0) close_all(node, cq);
  if (how == 1) {
    ring_node_free(node);
    ring_cq_free(cq);
  }
  ring_cq_free(served);
  if (how == 2) {
    ring_cq_free(cq);
    ring_node_free(node);
  }
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int inside, may_go;
static ring_node_t *called;
static ring_cq_t *called_cq;
static ring_status_t misused[3];

/* Holds whichever thread it runs on until the node's close was begun. */
static void wake(void *arg) {
  (void)arg;
  pthread_mutex_lock(&lock);
  if (!inside) {
    misused[0] = ring_node_close(called, called_cq, 1, -1);
    misused[1] = ring_cancel(called, 1);
    misused[2] = ring_stream_reset(called, 1, RING_UP);
    ring_node_free(called); /* does nothing here */
    inside = 1;
    pthread_cond_broadcast(&changed);
    while (!may_go) pthread_cond_wait(&changed, &lock);
  }
  pthread_mutex_unlock(&lock);
}

static void *put(void *arg) {
  (void)arg;
  ring_op_t op = new_op(RING_OP_STATUS, 5, "", "");
  CHECK_STATUS(ring_submit(called, called_cq, &op, NULL), RING_OK);
  return NULL;
}

/* A node is closed, or freed, while a callback of its queue runs on a thread of it, or on one that calls it: that is waited
 * for, and what came is told. */
static void in_a_callback(int is_freed) {
  ring_cq_options_t options;
  pthread_t thread;
  memset(&options, 0, sizeof options);
  options.size = sizeof options;
  options.wake = wake;
  inside = may_go = 0;
  CHECK_STATUS(ring_cq_open(&options, &called_cq, NULL), RING_OK);
  called = new_node();
  CHECK(pthread_create(&thread, NULL, put, NULL) == 0);
  pthread_mutex_lock(&lock);
  while (!inside) pthread_cond_wait(&changed, &lock);
  for (int i = 0; i < 3; i++) CHECK_STATUS(misused[i], RING_MISUSE);
  CHECK_STATUS(ring_node_close(called, called_cq, 9, -1), RING_OK);
  CHECK_STATUS(ring_node_close(called, called_cq, 9, -1), RING_CLOSED);
  may_go = 1;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
  CHECK(pthread_join(thread, NULL) == 0);
  if (is_freed) ring_node_free(called);
  ring_event_t ev = next_event(called_cq, NULL, 0);
  CHECK(ev.kind == RING_EV_DONE && ev.tag == 5);
  ev = next_event(called_cq, NULL, 0);
  CHECK(ev.kind == RING_EV_CLOSED && ev.tag == 9);
  if (!is_freed) ring_node_free(called);
  CHECK_STATUS(ring_cq_wait(called_cq, 0), RING_TIMEOUT);
  ring_cq_free(called_cq);
}

int main(void) {
  at_once();
  never_twice();
  for (int how = 0; how < 3; how++) abandoned(how);
  in_a_callback(0);
  in_a_callback(1);
  return 0;
}
