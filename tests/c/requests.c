/* Requests and their handlers: answers, errors, twice, gone, late, never; queues and nodes that end under them. */
#include <time.h>
#include "check.h"

static ring_op_t ask(uint64_t tag, const char *route, const char *body) {
  ring_op_t op = new_op(RING_OP_REQUEST, tag, "key", body);
  op.route = ring_text(route);
  return op;
}

static ring_id_t submit(ring_node_t *node, ring_cq_t *cq, ring_op_t op) {
  ring_id_t id = 0;
  CHECK_STATUS(ring_submit(node, cq, &op, &id), RING_OK);
  CHECK(id != 0);
  return id;
}

static ring_id_t handle(ring_node_t *node, ring_cq_t *cq, uint64_t tag, const char *route, uint64_t limit) {
  ring_op_t op = new_op(RING_OP_HANDLE, tag, "", "");
  op.flags = route ? 0 : RING_REST;
  op.route = ring_text(route);
  op.limit = limit;
  return submit(node, cq, op);
}

static ring_op_t answer(uint64_t tag, ring_id_t session, const char *body) {
  ring_op_t op = new_op(RING_OP_RESPOND, tag, "", body);
  op.target = session;
  return op;
}

/* The next event, which must be of this kind and tag; kept: to be released. */
static ring_event_t take(ring_cq_t *cq, uint32_t kind, uint64_t tag) {
  ring_event_t ev;
  int32_t n;
  while ((n = ring_cq_drain(cq, &ev, 1)) == 0) CHECK_STATUS(ring_cq_wait(cq, 60 * SECONDS), RING_OK);
  CHECK(n == 1);
  if (ev.kind != kind || ev.tag != tag) {
    fprintf(stderr, "event %u of tag %llu, %s: %.*s\n", ev.kind, (unsigned long long)ev.tag, ring_status_name(ev.status),
            (int)ev.data.len, (const char *)ev.data.ptr);
    exit(1);
  }
  return ev;
}

static ring_event_t done(ring_cq_t *cq, uint64_t tag, ring_status_t status) {
  ring_event_t ev = take(cq, RING_EV_DONE, tag);
  if (ev.status != status) fprintf(stderr, "%s: %.*s\n", ring_status_name(ev.status), (int)ev.data.len, (const char *)ev.data.ptr);
  CHECK(ev.status == status);
  return ev;
}

static void give_back(ring_event_t ev) { ring_events_release(&ev, 1); }

static int is(ring_bytes_t view, const char *text) {
  return view.len == strlen(text) && (view.len == 0 || memcmp(view.ptr, text, view.len) == 0);
}

/* A field of an event; exits when there is none. */
static ring_field_t field(const ring_event_t *ev, uint32_t kind) {
  ring_bytes_t rest = ring_fields(ev);
  ring_field_t f;
  while (ring_field_next(&rest, &f))
    if (f.kind == kind) return f;
  fprintf(stderr, "no field %u\n", kind);
  exit(1);
}

static uint64_t now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Everything that a request says comes to its handler, and everything that the answer says to the caller. */
static void answers(ring_node_t *node, ring_cq_t *cq) {
  ring_id_t handler = handle(node, cq, 10, "echo", 0);
  ring_op_t op = ask(1, "echo", "hello");
  ring_pair_t headers[2] = {{ring_text("h1"), ring_text("v1")}, {ring_text("h2"), ring_text("")}};
  op.headers = headers;
  op.n_headers = 2;
  ring_id_t id = submit(node, cq, op);
  ring_event_t ev = take(cq, RING_EV_REQUEST, 10);
  ring_id_t session = ev.id;
  CHECK(session != id && session != handler && ev.b == 1);
  CHECK(is(ring_body(&ev), "hello") && is(field(&ev, RING_FIELD_ROUTE).value, "echo"));
  CHECK(is(field(&ev, RING_FIELD_KEY).value, "key"));
  ring_field_t h = field(&ev, RING_FIELD_HEADER);
  CHECK(is(h.name, "h1") && is(h.value, "v1"));
  CHECK(field(&ev, RING_FIELD_REQUEST).value.len == 24);
  uint64_t left;
  CHECK(field(&ev, RING_FIELD_TIME_LEFT).value.len == sizeof left);
  memcpy(&left, field(&ev, RING_FIELD_TIME_LEFT).value.ptr, sizeof left);
  CHECK(left > 0 && left <= 10 * SECONDS);
  give_back(ev);

  op = answer(2, session, "world");
  op.headers = headers;
  op.n_headers = 1;
  submit(node, cq, op);
  CHECK_STATUS(ring_submit(node, cq, &op, NULL), RING_MISUSE); /* twice */
  op.target = session + 1000000;
  CHECK_STATUS(ring_submit(node, cq, &op, NULL), RING_INVALID); /* never was */
  give_back(done(cq, 2, RING_OK));
  ev = done(cq, 1, RING_OK);
  CHECK(ev.id == id && is(ring_body(&ev), "world") && is(field(&ev, RING_FIELD_HEADER).value, "v1"));
  give_back(ev);

  /* An error, with its code and text. */
  submit(node, cq, ask(1, "echo", ""));
  ev = take(cq, RING_EV_REQUEST, 10);
  op = answer(2, ev.id, "no such thing");
  op.flags = RING_ERROR;
  op.code = 0xFFFFFFFF;
  CHECK_STATUS(ring_submit(node, cq, &op, NULL), RING_INVALID); /* not the host's code */
  op.code = 404;
  submit(node, cq, op);
  give_back(ev);
  give_back(done(cq, 2, RING_OK));
  ev = done(cq, 1, RING_HANDLER_ERROR);
  CHECK(ev.a == 404 && is(ev.data, "no such thing"));
  CHECK(is(ring_fields(&ev), "no such thing") && ring_body(&ev).len == 0); /* it has neither, but the view is of it */
  give_back(ev);

  /* To a member, to a leader, one way; a route that nobody has, and the one for the rest. */
  op = ask(1, "echo", "to me");
  op.flags = RING_TO_MEMBER;
  submit(node, cq, op);
  ev = take(cq, RING_EV_REQUEST, 10);
  submit(node, cq, answer(2, ev.id, ""));
  give_back(ev);
  give_back(done(cq, 2, RING_OK));
  ev = done(cq, 1, RING_OK);
  CHECK(ev.data.len == 0);
  give_back(ev);
  op.flags = RING_TO_LEADER;
  submit(node, cq, op);
  ev = take(cq, RING_EV_REQUEST, 10);
  CHECK(is(field(&ev, RING_FIELD_PARTITION).value, "test"));
  submit(node, cq, answer(2, ev.id, ""));
  give_back(ev);
  give_back(done(cq, 2, RING_OK));
  give_back(done(cq, 1, RING_OK));
  op.flags = RING_ONE_WAY;
  submit(node, cq, op);
  int seen = 0;
  for (int i = 0; i < 2; i++) { /* DONE comes when it is on its way */
    ev = next_event(cq, NULL, 0);
    if (ev.kind == RING_EV_REQUEST) session = ev.id;
    seen |= ev.kind == RING_EV_REQUEST ? 1 : 2;
    CHECK(ev.kind == RING_EV_REQUEST || (ev.kind == RING_EV_DONE && ev.tag == 1 && ev.status == RING_OK));
  }
  CHECK(seen == 3);
  submit(node, cq, answer(2, session, ""));
  give_back(done(cq, 2, RING_OK));
  submit(node, cq, ask(1, "nobody's", ""));
  give_back(done(cq, 1, RING_NO_HANDLER));
  op = new_op(RING_OP_HANDLE, 11, "", "");
  op.route = ring_text("echo");
  CHECK_STATUS(ring_submit(node, cq, &op, NULL), RING_CONFLICT);
  op.route = none();
  CHECK_STATUS(ring_submit(node, cq, &op, NULL), RING_INVALID);
  ring_id_t rest = handle(node, cq, 11, NULL, 0);
  submit(node, cq, ask(1, "nobody's", ""));
  ev = take(cq, RING_EV_REQUEST, 11);
  CHECK(is(field(&ev, RING_FIELD_ROUTE).value, "nobody's"));

  /* Cancelled, a handler gets nothing more; what it was given it still answers. */
  CHECK_STATUS(ring_cancel(node, rest), RING_OK);
  CHECK_STATUS(ring_cancel(node, rest), RING_INVALID);
  give_back(done(cq, 11, RING_CANCELLED));
  submit(node, cq, ask(3, "nobody's", ""));
  give_back(done(cq, 3, RING_NO_HANDLER));
  submit(node, cq, answer(2, ev.id, ""));
  give_back(ev);
  give_back(done(cq, 2, RING_OK));
  give_back(done(cq, 1, RING_OK));

  /* A call that waits, on another thread than the one that answers, is in `threads`. It cannot have streams. */
  ring_stream_t stream = {ring_text("s"), RING_UP, 0};
  op = ask(1, "echo", "");
  op.streams = &stream;
  op.n_streams = 1;
  CHECK_STATUS(ring_call(node, &op, &ev, NULL), RING_INVALID);
  stream.ways = 4;
  CHECK_STATUS(ring_submit(node, cq, &op, NULL), RING_INVALID);
  CHECK_STATUS(ring_cancel(node, handler), RING_OK);
  give_back(done(cq, 10, RING_CANCELLED));
}

/* Both sides of a request that nobody answers end at its deadline: in any order, by the two sides' clocks; so may the
   caller's word come first. */
static void ends_in_time(ring_cq_t *cq, uint64_t tag, uint64_t handler, ring_id_t session) {
  int gone = 0, ended = 0;
  while (!gone || !ended) {
    ring_event_t ev = next_event(cq, NULL, 0);
    if (ev.kind == RING_EV_DONE) {
      CHECK(ev.tag == tag && ev.status == RING_OUTCOME_UNKNOWN && !ended++);
    } else {
      CHECK(ev.kind == RING_EV_GONE && ev.tag == handler && ev.id == session);
      gone |= ev.a == 1;
    }
  }
}

/* A handler that never answers: the caller's deadline ends the request, and the host hears of it. */
static void never(ring_node_t *node, ring_cq_t *cq) {
  ring_id_t handler = handle(node, cq, 10, "never", 0);
  ring_op_t op = ask(1, "never", "");
  op.timeout_ns = SECONDS / 5;
  submit(node, cq, op);
  ring_event_t ev = take(cq, RING_EV_REQUEST, 10);
  ring_id_t session = ev.id;
  give_back(ev);
  ends_in_time(cq, 1, 10, session);
  op = answer(2, session, "too late");
  submit(node, cq, op);
  give_back(done(cq, 2, RING_CANCELLED));
  CHECK_STATUS(ring_submit(node, cq, &op, NULL), RING_MISUSE);

  /* A caller that gives up: the handler hears of it, and answers in vain. */
  ring_id_t id = submit(node, cq, ask(1, "never", ""));
  ev = take(cq, RING_EV_REQUEST, 10);
  session = ev.id;
  give_back(ev);
  CHECK_STATUS(ring_cancel(node, id), RING_OK);
  int ended = 0, gone = 0;
  while (!gone || !ended) {
    ev = next_event(cq, NULL, 0);
    if (ev.kind == RING_EV_DONE) CHECK(ev.tag == 1 && ev.status == RING_OUTCOME_UNKNOWN && !ended++);
    else CHECK(ev.kind == RING_EV_GONE && ev.id == session && ev.a == 0 && !gone++);
  }
  CHECK_STATUS(ring_cancel(node, id), RING_INVALID);
  submit(node, cq, answer(2, session, ""));
  give_back(done(cq, 2, RING_CANCELLED));

  /* A handler that gives up: the caller gets an error. */
  submit(node, cq, ask(1, "never", ""));
  ev = take(cq, RING_EV_REQUEST, 10);
  CHECK_STATUS(ring_cancel(node, ev.id), RING_OK);
  CHECK_STATUS(ring_cancel(node, ev.id), RING_INVALID);
  op = answer(2, ev.id, "");
  CHECK_STATUS(ring_submit(node, cq, &op, NULL), RING_MISUSE);
  give_back(ev);
  ev = done(cq, 1, RING_HANDLER_ERROR);
  CHECK(ev.a == RING_CODE_DROPPED);
  give_back(ev);
  CHECK_STATUS(ring_cancel(node, handler), RING_OK);
  give_back(done(cq, 10, RING_CANCELLED));
}

/* A queue that nobody drains: the requests end at their deadline, and nothing of them is left in it. */
static void undrained(ring_node_t *node, ring_cq_t *cq) {
  enum { N = 40, PLACES = 4 };
  ring_cq_t *slow = new_queue();
  ring_id_t handler = handle(node, slow, 10, "slow", PLACES);
  /* Ends after all others: by then the handler's side of those has ended too, a moment after their callers'. */
  ring_id_t last = handle(node, cq, 11, "last", 1);
  ring_op_t longest = ask(3, "last", "");
  longest.timeout_ns = SECONDS;
  uint64_t begin = now_ms();
  submit(node, cq, longest);
  ring_event_t ev = take(cq, RING_EV_REQUEST, 11);
  ring_id_t session = ev.id;
  give_back(ev);
  for (int i = 0; i < N; i++) {
    ring_op_t op = ask(1, "slow", "body");
    op.timeout_ns = SECONDS / 2;
    submit(node, cq, op);
  }
  for (int i = 0; i < N; i++) give_back(done(cq, 1, RING_OUTCOME_UNKNOWN));
  CHECK(now_ms() - begin < 10000);
  ends_in_time(cq, 3, 11, session);
  CHECK_STATUS(ring_cancel(node, last), RING_OK);
  give_back(done(cq, 11, RING_CANCELLED));
  /* What was not drained in time is not shown; the next is. */
  submit(node, cq, ask(1, "slow", "late"));
  ev = take(slow, RING_EV_REQUEST, 10);
  CHECK(is(ring_body(&ev), "late"));
  submit(node, cq, answer(2, ev.id, ""));
  give_back(ev);
  give_back(done(cq, 2, RING_OK));
  give_back(done(cq, 1, RING_OK));

  /* Cancelled, the handler answers for the host what waits in the queue: DONE is all that is left there. */
  for (int i = 0; i < N; i++) submit(node, cq, ask(1, "slow", "body"));
  CHECK_STATUS(ring_cq_wait(slow, 60 * SECONDS), RING_OK);
  CHECK_STATUS(ring_cancel(node, handler), RING_OK);
  for (int i = 0; i < N; i++) {
    ev = take(cq, RING_EV_DONE, 1);
    CHECK(ev.status == RING_HANDLER_ERROR || ev.status == RING_NO_HANDLER);
    give_back(ev);
  }
  give_back(done(slow, 10, RING_CANCELLED));
  CHECK_STATUS(ring_cq_wait(slow, 0), RING_TIMEOUT);

  /* Freed with requests in it and with one drained, it answers them. */
  handle(node, slow, 10, "slow", PLACES);
  for (int i = 0; i < N; i++) submit(node, cq, ask(1, "slow", "body"));
  ev = take(slow, RING_EV_REQUEST, 10);
  ring_cq_free(slow);
  for (int i = 0; i < N; i++) {
    ring_event_t end = take(cq, RING_EV_DONE, 1);
    CHECK(end.status == RING_HANDLER_ERROR || end.status == RING_NO_HANDLER);
    give_back(end);
  }
  CHECK(is(ring_body(&ev), "body")); /* lent until it is released, whatever became of the queue */
  ring_op_t op = answer(2, ev.id, "");
  CHECK_STATUS(ring_submit(node, cq, &op, NULL), RING_MISUSE);
  give_back(ev);
  slow = new_queue();
  handle(node, slow, 10, "slow", 0); /* the route is free again */
  ring_cq_free(slow);
}

struct server {
  ring_node_t *node;
  ring_cq_t *cq;
  int answered;
};

/* Answers whatever comes until it is woken, each with its own body. */
static void *serve(void *arg) {
  struct server *s = (struct server *)arg;
  for (;;) {
    ring_status_t waited = ring_cq_wait(s->cq, -1);
    if (waited == RING_AGAIN) return NULL;
    CHECK_STATUS(waited, RING_OK);
    ring_event_t ev[16];
    int32_t n = ring_cq_drain(s->cq, ev, 16);
    CHECK(n >= 0);
    for (int32_t i = 0; i < n; i++) {
      if (ev[i].kind != RING_EV_REQUEST) continue;
      ring_op_t op = answer(2, ev[i].id, "");
      op.value = ring_body(&ev[i]);
      CHECK_STATUS(ring_submit(s->node, s->cq, &op, NULL), RING_OK);
      s->answered++;
    }
    ring_events_release(ev, (uint32_t)n);
  }
}

/* A thread that answers, calls that wait, and cancels that race with the answers. */
static void threads(ring_node_t *node, ring_cq_t *cq) {
  enum { N = 500 };
  struct server s = {node, new_queue(), 0};
  pthread_t thread;
  handle(node, s.cq, 10, "echo", 0);
  CHECK(pthread_create(&thread, NULL, serve, &s) == 0);
  char body[16];
  for (int i = 0; i < 50; i++) {
    snprintf(body, sizeof body, "%d", i);
    ring_op_t op = ask(1, "echo", body);
    ring_event_t ev;
    CHECK_STATUS(ring_call(node, &op, &ev, NULL), RING_OK);
    CHECK(is(ring_body(&ev), body));
    give_back(ev);
  }
  ring_id_t ids[N];
  for (int i = 0; i < N; i++) {
    ids[i] = submit(node, cq, ask(100 + (uint64_t)i, "echo", "x"));
    if (i >= 5 && i % 2) {
      ring_status_t c = ring_cancel(node, ids[i - 5]);
      CHECK(c == RING_OK || c == RING_INVALID);
    }
  }
  static int seen[N];
  int cancelled = 0;
  for (int i = 0; i < N; i++) {
    ring_event_t ev = next_event(cq, NULL, 0);
    CHECK(ev.kind == RING_EV_DONE && ev.tag >= 100 && ev.tag < 100 + N && !seen[ev.tag - 100]++);
    CHECK(ev.id == ids[ev.tag - 100]);
    CHECK(ev.status == RING_OK || ev.status == RING_CANCELLED || ev.status == RING_OUTCOME_UNKNOWN);
    cancelled += ev.status != RING_OK;
  }
  printf("%d of %d were cancelled\n", cancelled, N);
  ring_cq_wakeup(s.cq);
  CHECK(pthread_join(thread, NULL) == 0);
  ring_cq_free(s.cq);
}

/* Closing with open requests on both sides; freeing without closing. */
static void ends(int close) {
  enum { N = 20 };
  ring_node_t *node = new_node();
  ring_cq_t *cq = new_queue(), *held = new_queue();
  handle(node, held, 10, "held", 0);
  for (int i = 0; i < N; i++) submit(node, cq, ask(1 + (uint64_t)i, "held", ""));
  ring_event_t ev = take(held, RING_EV_REQUEST, 10);
  ring_op_t op = answer(2, ev.id, "");
  if (close) {
    CHECK_STATUS(ring_node_close(node, cq, 99, -1), RING_OK);
    CHECK_STATUS(ring_submit(node, cq, &op, NULL), RING_CLOSED);
  } else {
    ring_node_free(node);
  }
  give_back(ev);
  int seen[N + 1] = {0};
  for (int i = 0; i < N; i++) {
    ev = next_event(cq, NULL, 0);
    CHECK(ev.kind == RING_EV_DONE && ev.tag >= 1 && ev.tag <= N && !seen[ev.tag]++ && ev.status < 0);
  }
  if (close) {
    CHECK(next_event(cq, NULL, 0).kind == RING_EV_CLOSED);
    ring_node_free(node);
  }
  give_back(done(held, 10, RING_CANCELLED));
  CHECK_STATUS(ring_cq_wait(cq, 0), RING_TIMEOUT);
  ring_cq_free(cq);
  ring_cq_free(held);
}

/* A handler and keys that are tracked take no request's place. */
static void narrow(void) {
  ring_options_t options;
  ring_node_t *node = NULL;
  ring_cq_t *cq = new_queue();
  ring_options_init(&options, sizeof options);
  options.flags = RING_MEMORY;
  options.shards = 4;
  options.max_inflight = 1;
  CHECK_STATUS(ring_node_open(&options, NULL, &node, NULL), RING_OK);
  handle(node, cq, 10, "narrow", 0);
  submit(node, cq, ask(1, "narrow", ""));
  ring_op_t op = ask(3, "narrow", "");
  CHECK_STATUS(ring_submit(node, cq, &op, NULL), RING_AGAIN);
  ring_event_t ev = take(cq, RING_EV_REQUEST, 10);
  submit(node, cq, answer(2, ev.id, ""));
  give_back(ev);
  give_back(done(cq, 2, RING_OK));
  give_back(done(cq, 1, RING_OK));
  close_all(node, cq);
}

/* Before its handlers are there a node that holds requests turns them away; what has no handler then is told so. */
static void holds(void) {
  ring_node_t *node = NULL;
  ring_options_t options;
  ring_options_init(&options, sizeof options);
  options.flags = RING_MEMORY | RING_HOLD;
  options.shards = 4;
  CHECK_STATUS(ring_node_open(&options, NULL, &node, NULL), RING_OK);
  ring_cq_t *cq = new_queue();
  ring_op_t op = ask(1, "later", "body");
  op.timeout_ns = SECONDS / 5;
  submit(node, cq, op);
  give_back(done(cq, 1, RING_TIMEOUT));
  submit(node, cq, ask(2, "later", "body"));
  ring_id_t handler = handle(node, cq, 10, "later", 1);
  op = new_op(RING_OP_SERVE, 3, "", "");
  ring_event_t ev;
  CHECK_STATUS(ring_call(node, &op, &ev, NULL), RING_OK);
  give_back(ev);
  ev = take(cq, RING_EV_REQUEST, 10);
  submit(node, cq, answer(4, ev.id, "answer"));
  give_back(ev);
  for (int i = 0; i < 2; i++) {
    ev = next_event(cq, NULL, 0);
    CHECK(ev.kind == RING_EV_DONE && (ev.tag == 2 || ev.tag == 4) && ev.status == RING_OK);
  }
  submit(node, cq, ask(5, "none", ""));
  give_back(done(cq, 5, RING_NO_HANDLER));
  CHECK_STATUS(ring_cancel(node, handler), RING_OK);
  give_back(done(cq, 10, RING_CANCELLED));
  close_all(node, cq);
}

int main(void) {
  ring_node_t *node = new_node();
  ring_cq_t *cq = new_queue();
  answers(node, cq);
  never(node, cq);
  undrained(node, cq);
  threads(node, cq);
  close_all(node, cq);
  ends(1);
  ends(0);
  narrow();
  holds();
  return 0;
}
