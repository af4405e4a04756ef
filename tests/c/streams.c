/* Streams: both ways at once, back-pressure, abandoned on either side, and what their request, queue and node do to them.
 * Within one node, and between a member and a client. argv[1]: where the member listens. */
#include "check.h"

enum { BIG = 5 << 18, WINDOW = 512 << 10, TAKES_STREAMS = 8 };

/* A caller and a handler, each with its queue. */
struct pair {
  ring_node_t *here, *there;
  ring_cq_t *cq, *served;
  ring_id_t handler;
};

static ring_id_t submit(ring_node_t *node, ring_cq_t *cq, ring_op_t op) {
  ring_id_t id = 0;
  CHECK_STATUS(ring_submit(node, cq, &op, &id), RING_OK);
  return id;
}

/* The next event, given back: its `a` is then the length of its data. */
static ring_event_t expect(ring_cq_t *cq, uint32_t kind, ring_id_t id, ring_status_t status) {
  char text[128];
  ring_event_t ev;
  while (ring_cq_drain(cq, &ev, 1) == 0) CHECK_STATUS(ring_cq_wait(cq, 60 * SECONDS), RING_OK);
  snprintf(text, sizeof text, "%.*s", ev.data.len < 100 ? (int)ev.data.len : 100, (const char *)ev.data.ptr);
  ev.a = ev.data.len;
  ring_events_release(&ev, 1);
  if (ev.kind != kind || (id && ev.id != id) || ev.status != status) {
    fprintf(stderr, "event %u of %llu, %s, not %u: %s\n", ev.kind, (unsigned long long)ev.id,
            ring_status_name(ev.status), kind, text);
    abort();
  }
  return ev;
}

/* Begins a request with one stream; returns its id, and the handler's ids of the request and of the stream. */
static ring_id_t begin(struct pair *p, uint32_t ways, ring_id_t *session, ring_id_t *stream) {
  ring_op_t op = new_op(RING_OP_REQUEST, 1, "key", "");
  ring_stream_t s = {ring_text("s"), ways, 0};
  op.timeout_ns = 60 * SECONDS;
  op.route = ring_text("stream");
  op.flags = ways & TAKES_STREAMS ? RING_STREAMS : 0;
  s.ways = ways &= RING_UP | RING_DOWN;
  op.streams = &s;
  op.n_streams = 1;
  ring_id_t id = submit(p->here, p->cq, op);
  ring_event_t ev;
  while (ring_cq_drain(p->served, &ev, 1) == 0) CHECK_STATUS(ring_cq_wait(p->served, 60 * SECONDS), RING_OK);
  CHECK(ev.kind == RING_EV_REQUEST);
  *session = ev.id;
  ring_bytes_t rest = ring_fields(&ev);
  ring_field_t f;
  *stream = 0;
  while (ring_field_next(&rest, &f)) {
    if (f.kind != RING_FIELD_STREAM) continue;
    CHECK(f.name.len == 1 && f.name.ptr[0] == 's' && f.ways == ways && f.value.len == 0);
    *stream = f.stream;
  }
  CHECK(*stream != 0);
  ring_events_release(&ev, 1);
  return id;
}

static void respond(struct pair *p, ring_id_t session) {
  ring_op_t op = new_op(RING_OP_RESPOND, 2, "", "");
  op.target = session;
  submit(p->there, p->served, op);
  expect(p->served, RING_EV_DONE, 0, RING_OK);
}

static uint8_t byte(size_t at) { return (uint8_t)(at * 7 + at / 251); }

/* Writes as much of BIG bytes as there is room for; 1 when all are written, and ended. */
static int write_on(ring_node_t *node, ring_id_t s, size_t *at) {
  static uint8_t chunk[100000];
  for (;;) {
    size_t len = BIG - *at < sizeof chunk ? BIG - *at : sizeof chunk, taken = 77;
    for (size_t i = 0; i < len; i++) chunk[i] = byte(*at + i);
    ring_bytes_t view = {chunk, len};
    ring_status_t status = ring_stream_write(node, s, view, *at + len == BIG, &taken);
    CHECK(taken <= len);
    *at += taken;
    if (status == RING_AGAIN) return 0;
    CHECK_STATUS(status, RING_OK);
    CHECK(taken == len);
    if (*at == BIG) return 1;
  }
}

/* Writes until its reader would have to read; says how much. */
static size_t fill(struct pair *p, ring_id_t stream) {
  size_t at = 0;
  for (;;) {
    CHECK(write_on(p->here, stream, &at) == 0);
    if (at >= WINDOW) return at;
    expect(p->cq, RING_EV_WRITABLE, stream, RING_OK);
  }
}

/* Both ways at once, each more than any window, with little credit on one side. */
static void both_ways(struct pair *p) {
  ring_id_t session, theirs, id = begin(p, RING_UP | RING_DOWN, &session, &theirs), ours = id + 1;
  size_t up = 0, down = 0, got[2] = {0, 0};
  int ended[2] = {0, 0}, done = 0, answered = 0;
  CHECK_STATUS(ring_stream_credit(p->here, ours, 1 << 20), RING_OK);
  CHECK_STATUS(ring_stream_credit(p->there, theirs, 1000), RING_OK);
  int up_done = write_on(p->here, ours, &up), down_done = write_on(p->there, theirs, &down);
  while (!ended[0] || !ended[1] || !done) {
    for (int side = 0; side < 2; side++) {
      ring_cq_t *cq = side ? p->served : p->cq;
      ring_node_t *node = side ? p->there : p->here;
      ring_id_t s = side ? theirs : ours;
      ring_event_t ev;
      if (ring_cq_wait(cq, SECONDS / 1000) != RING_OK) continue;
      while (ring_cq_drain(cq, &ev, 1) == 1) {
        CHECK_STATUS(ev.status, RING_OK);
        if (ev.kind == RING_EV_BODY) {
          CHECK(ev.id == s && !ended[side]);
          for (size_t i = 0; i < ev.data.len; i++) CHECK(ev.data.ptr[i] == byte(got[side] + i));
          got[side] += ev.data.len;
          ended[side] = ev.b == 1;
          if (!ended[side]) {
            ring_status_t c = ring_stream_credit(node, s, ev.data.len + (size_t)side * 300);
            CHECK(c == RING_OK || c == RING_CLOSED); /* its last event may be in the queue by now */
          }
        } else if (ev.kind == RING_EV_WRITABLE) {
          CHECK(ev.id == s);
          if (side) down_done = down_done || write_on(node, s, &down);
          else up_done = up_done || write_on(node, s, &up);
        } else {
          CHECK(ev.kind == RING_EV_DONE);
          if (side) answered++;
          else done++;
        }
        ring_events_release(&ev, 1);
      }
    }
    if (up > BIG / 2 && !answered) { /* in the middle: streams outlive their request */
      answered = 1;
      ring_op_t op = new_op(RING_OP_RESPOND, 2, "", "");
      op.target = session;
      submit(p->there, p->served, op);
    }
  }
  CHECK(up_done && down_done && got[0] == BIG && got[1] == BIG && done == 1);
  while (answered < 2) answered += next_event(p->served, NULL, 0).kind == RING_EV_DONE;
  CHECK_STATUS(ring_stream_write(p->here, ours, none(), 0, NULL), RING_CLOSED);
  CHECK_STATUS(ring_stream_credit(p->there, theirs, 1), RING_CLOSED);
}

/* A reader that takes nothing stops its writer, who is told when it goes on. */
static void pressure(struct pair *p) {
  ring_id_t session, theirs, id = begin(p, RING_UP, &session, &theirs), ours = id + 1;
  size_t up;
  CHECK_STATUS(ring_stream_credit(p->here, ours, 1), RING_INVALID); /* it does not come here */
  CHECK_STATUS(ring_stream_write(p->there, theirs, none(), 1, NULL), RING_INVALID);
  CHECK_STATUS(ring_stream_write(p->here, ours, none(), 2, NULL), RING_INVALID);
  CHECK_STATUS(ring_stream_reset(p->here, ours, 4), RING_INVALID);
  /* Ids that are no stream's: of nothing, of an operation, of a request, one past the last stream of each. */
  ring_id_t strangers[] = {0, 12345, id, p->handler, session, ours + 1, theirs + 1, p->handler + 1};
  for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++) {
    CHECK_STATUS(ring_stream_reset(p->here, strangers[i], RING_UP), RING_INVALID);
    CHECK_STATUS(ring_stream_credit(p->there, strangers[i], 1), RING_INVALID);
    CHECK_STATUS(ring_stream_write(p->there, strangers[i], none(), 1, NULL), RING_INVALID);
  }
  up = fill(p, ours);
  CHECK(up >= WINDOW && up <= 2 * WINDOW);
  CHECK_STATUS(ring_cq_wait(p->served, 0), RING_TIMEOUT);
  CHECK_STATUS(ring_stream_credit(p->there, theirs, UINT64_MAX), RING_OK);
  size_t got = 0;
  while (got < up) {
    ring_event_t ev = expect(p->served, RING_EV_BODY, theirs, RING_OK);
    got += (size_t)ev.a;
    if (got > WINDOW / 2) break;
    CHECK(ev.b == 0);
  }
  expect(p->cq, RING_EV_WRITABLE, ours, RING_OK);

  /* The writer gives up: the reader gets what was sent, then RESET. */
  CHECK_STATUS(ring_stream_reset(p->here, ours, RING_UP), RING_OK);
  CHECK_STATUS(ring_stream_reset(p->here, ours, RING_UP), RING_CLOSED);
  ring_event_t ev;
  while ((ev = next_event(p->served, NULL, 0)).b == 0) CHECK(ev.kind == RING_EV_BODY && ev.status == RING_OK);
  CHECK(ev.kind == RING_EV_BODY && ev.status == RING_RESET && ev.id == theirs);
  respond(p, session);
  expect(p->cq, RING_EV_DONE, id, RING_OK);
}

/* Abandoned by the reader; by the request's failure; by a cancel; by the handler's queue. */
static void broken(struct pair *p) {
  ring_id_t session, theirs, id = begin(p, RING_DOWN, &session, &theirs), ours = id + 1;
  CHECK_STATUS(ring_stream_reset(p->here, ours, RING_DOWN), RING_OK);
  expect(p->served, RING_EV_WRITABLE, theirs, RING_RESET);
  CHECK_STATUS(ring_stream_write(p->there, theirs, ring_text("x"), 0, NULL), RING_CLOSED);
  respond(p, session);
  expect(p->cq, RING_EV_DONE, id, RING_OK);

  /* An error answers the request: its streams break on both sides, and the caller is told by events. */
  id = begin(p, RING_UP | RING_DOWN, &session, &theirs);
  ours = id + 1;
  CHECK_STATUS(ring_stream_credit(p->there, theirs, 1), RING_OK);
  ring_op_t op = new_op(RING_OP_RESPOND, 2, "", "no");
  op.target = session;
  op.flags = RING_ERROR;
  op.code = 5;
  submit(p->there, p->served, op);
  int dones = 0, reads = 0, writes = 0;
  for (int i = 0; i < 3; i++) {
    ring_event_t ev = next_event(p->cq, NULL, 0);
    dones += ev.kind == RING_EV_DONE && ev.status == RING_HANDLER_ERROR && ev.a == 5;
    reads += ev.kind == RING_EV_BODY && ev.status == RING_RESET && ev.b == 1 && ev.id == ours;
    writes += ev.kind == RING_EV_WRITABLE && ev.status == RING_RESET && ev.id == ours;
  }
  CHECK(dones == 1 && reads == 1 && writes == 1);
  dones = reads = writes = 0;
  for (int i = 0; i < 3; i++) {
    ring_event_t ev = next_event(p->served, NULL, 0);
    dones += ev.kind == RING_EV_DONE && ev.status == RING_OK;
    reads += ev.kind == RING_EV_BODY && ev.status == RING_RESET && ev.id == theirs;
    writes += ev.kind == RING_EV_WRITABLE && ev.status == RING_RESET && ev.id == theirs;
  }
  CHECK(dones == 1 && reads == 1 && writes == 1);

  /* The caller cancels. */
  id = begin(p, RING_UP, &session, &theirs);
  ours = id + 1;
  CHECK_STATUS(ring_cancel(p->here, id), RING_OK);
  dones = writes = 0;
  for (int i = 0; i < 2; i++) {
    ring_event_t ev = next_event(p->cq, NULL, 0);
    dones += ev.kind == RING_EV_DONE && ev.status == RING_OUTCOME_UNKNOWN;
    writes += ev.kind == RING_EV_WRITABLE && ev.status == RING_RESET;
  }
  CHECK(dones == 1 && writes == 1);
  int gone = 0;
  reads = 0;
  for (int i = 0; i < 2; i++) {
    ring_event_t ev = next_event(p->served, NULL, 0);
    reads += ev.kind == RING_EV_BODY && ev.status == RING_RESET && ev.id == theirs;
    gone += ev.kind == RING_EV_GONE && ev.id == session && ev.a == 0;
  }
  CHECK(reads == 1 && gone == 1);
  op = new_op(RING_OP_RESPOND, 2, "", "");
  op.target = session;
  submit(p->there, p->served, op);
  expect(p->served, RING_EV_DONE, 0, RING_CANCELLED);
  CHECK_STATUS(ring_cq_wait(p->cq, 0), RING_TIMEOUT);
  CHECK_STATUS(ring_cq_wait(p->served, 0), RING_TIMEOUT);
}

/* A handler that does not read what comes: its answer gives that up, whatever came by then. A stream that breaks while its
 * reader allows nothing says so all the same. A caller that did not ask for streams gets none. */
static void ignored(struct pair *p) {
  ring_id_t session, theirs, id = begin(p, RING_UP, &session, &theirs);
  fill(p, id + 1);
  respond(p, session);
  CHECK_STATUS(ring_stream_credit(p->there, theirs, 1), RING_CLOSED);
  int dones = 0, writes = 0;
  while (!dones || !writes) {
    ring_event_t ev = next_event(p->cq, NULL, 0);
    dones += ev.kind == RING_EV_DONE && ev.status == RING_OK;
    writes += ev.kind == RING_EV_WRITABLE && ev.status == RING_RESET;
  }
  CHECK(dones == 1 && writes == 1);

  id = begin(p, RING_UP, &session, &theirs);
  fill(p, id + 1);
  CHECK_STATUS(ring_stream_credit(p->there, theirs, 1), RING_OK);
  ring_event_t ev = expect(p->served, RING_EV_BODY, theirs, RING_OK);
  CHECK(ev.a == 1);
  CHECK_STATUS(ring_stream_reset(p->here, id + 1, RING_UP), RING_OK);
  expect(p->served, RING_EV_BODY, theirs, RING_RESET);
  ring_stream_t stream = {ring_text("unasked"), RING_DOWN, 0};
  ring_op_t op = new_op(RING_OP_RESPOND, 2, "", "");
  op.target = session;
  op.streams = &stream;
  op.n_streams = 1;
  ring_id_t first = submit(p->there, p->served, op) + 1;
  expect(p->served, RING_EV_DONE, first - 1, RING_OK);
  expect(p->served, RING_EV_WRITABLE, first, RING_RESET);
  expect(p->cq, RING_EV_DONE, id, RING_OK);
}

/* A response adds streams of its own, which outlive it. */
static void added(struct pair *p) {
  ring_id_t session, theirs, id = begin(p, RING_UP | TAKES_STREAMS, &session, &theirs);
  CHECK_STATUS(ring_stream_write(p->here, id + 1, none(), 1, NULL), RING_OK); /* ends it */
  expect(p->served, RING_EV_BODY, theirs, RING_OK);
  ring_stream_t streams[3] = {{ring_text("down"), RING_DOWN, 0}, {ring_text("up"), RING_UP, 0}, {ring_text("both"), 3, 0}};
  ring_op_t op = new_op(RING_OP_RESPOND, 2, "", "body");
  op.target = session;
  op.streams = streams;
  op.n_streams = 3;
  ring_id_t first = submit(p->there, p->served, op) + 1, ids[3] = {0, 0, 0};
  expect(p->served, RING_EV_DONE, first - 1, RING_OK);
  ring_event_t ev;
  while (ring_cq_drain(p->cq, &ev, 1) == 0) CHECK_STATUS(ring_cq_wait(p->cq, 60 * SECONDS), RING_OK);
  CHECK(ev.kind == RING_EV_DONE && ev.status == RING_OK && ring_body(&ev).len == 4);
  ring_bytes_t rest = ring_fields(&ev);
  ring_field_t f;
  for (int i = 0; ring_field_next(&rest, &f); i++) {
    CHECK(i < 3 && f.kind == RING_FIELD_STREAM && f.ways == streams[i].ways && f.name.len == streams[i].name.len);
    ids[i] = f.stream;
  }
  CHECK(ids[0] && ids[1] && ids[2]);
  ring_events_release(&ev, 1);
  CHECK_STATUS(ring_stream_credit(p->here, ids[0], 100), RING_OK);
  ring_status_t s = ring_stream_write(p->there, first, ring_text("down"), 1, NULL);
  if (s == RING_AGAIN) { /* the response is on its way */
    expect(p->served, RING_EV_WRITABLE, first, RING_OK);
    s = ring_stream_write(p->there, first, ring_text("down"), 1, NULL);
  }
  CHECK_STATUS(s, RING_OK);
  size_t got = 0;
  do {
    ev = expect(p->cq, RING_EV_BODY, ids[0], RING_OK);
    got += (size_t)ev.a;
  } while (!ev.b);
  CHECK(got == 4);
  CHECK_STATUS(ring_stream_reset(p->here, ids[1], RING_UP), RING_OK);
  expect(p->served, RING_EV_BODY, first + 1, RING_RESET);
  CHECK_STATUS(ring_stream_reset(p->there, first + 2, RING_UP | RING_DOWN), RING_OK);
  int reads = 0, writes = 0;
  for (int i = 0; i < 2; i++) {
    ev = next_event(p->cq, NULL, 0);
    CHECK(ev.id == ids[2] && ev.status == RING_RESET);
    reads += ev.kind == RING_EV_BODY;
    writes += ev.kind == RING_EV_WRITABLE;
  }
  CHECK(reads == 1 && writes == 1);
}

/* Streams of a response that end before anything was made of it, with their queue, or as soon as it is on its way: the
 * caller is told. */
static void early(struct pair *p) {
  for (int i = 0; i < 20; i++) {
    ring_id_t session, theirs;
    begin(p, RING_UP | TAKES_STREAMS, &session, &theirs);
    ring_stream_t stream = {ring_text("added"), RING_UP | RING_DOWN, 0};
    ring_cq_t *cq = i % 2 ? new_queue() : p->served;
    ring_op_t op = new_op(RING_OP_RESPOND, 2, "", "");
    op.target = session;
    op.streams = &stream;
    op.n_streams = 1;
    ring_id_t id = submit(p->there, cq, op);
    if (cq == p->served) {
      expect(cq, RING_EV_DONE, id, RING_OK);
      CHECK_STATUS(ring_stream_reset(p->there, id + 1, RING_UP | RING_DOWN), RING_OK);
    } else {
      ring_cq_free(cq);
    }
    int dones = 0, reads = 0, writes = 0;
    for (int n = 0; n < 4; n++) { /* that of the request, which was not read, and both ways of the other */
      ring_event_t ev = next_event(p->cq, NULL, 0);
      dones += ev.kind == RING_EV_DONE && ev.status == RING_OK;
      reads += ev.kind == RING_EV_BODY && ev.status == RING_RESET;
      writes += ev.kind == RING_EV_WRITABLE && ev.status == RING_RESET;
    }
    CHECK(dones == 1 && reads == 1 && writes == 2);
  }
  CHECK_STATUS(ring_cq_wait(p->served, 0), RING_TIMEOUT);
}

static void serve(struct pair *p) {
  ring_op_t op = new_op(RING_OP_HANDLE, 10, "", "");
  op.route = ring_text("stream");
  p->served = new_queue();
  p->handler = submit(p->there, p->served, op);
}

/* Closed as soon as its answer is on its way, a node has answered. */
static void last_word(struct pair *p) {
  serve(p);
  ring_id_t session, theirs, id = begin(p, RING_UP, &session, &theirs);
  respond(p, session);
  close_all(p->there, p->served);
  ring_event_t ev;
  do ev = next_event(p->cq, NULL, 0);
  while (ev.kind != RING_EV_DONE);
  CHECK(ev.id == id);
  CHECK_STATUS(ev.status, RING_OK);
  close_all(p->here, p->cq);
}

/* A queue that is freed gives up the streams that were to be told there, on the caller's side and on the handler's. */
static void queues(struct pair *p) {
  ring_id_t session, theirs, id;
  ring_cq_t *cq = p->cq;
  p->cq = new_queue();
  id = begin(p, RING_UP | RING_DOWN, &session, &theirs);
  ring_cq_free(p->cq);
  CHECK_STATUS(ring_stream_write(p->here, id + 1, ring_text("x"), 0, NULL), RING_CLOSED);
  p->cq = cq;
  int seen = 0;
  while (seen != 7) {
    ring_event_t ev = next_event(p->served, NULL, 0);
    int bit = ev.kind == RING_EV_BODY ? 1 : ev.kind == RING_EV_WRITABLE ? 2 : 4;
    CHECK(!(seen & bit) && (ev.kind == RING_EV_GONE ? ev.id == session : ev.id == theirs && ev.status == RING_RESET));
    seen |= bit;
  }
  CHECK_STATUS(ring_cancel(p->there, session), RING_OK);

  id = begin(p, RING_UP | RING_DOWN, &session, &theirs);
  CHECK_STATUS(ring_stream_credit(p->there, theirs, 1), RING_OK);
  respond(p, session);
  expect(p->cq, RING_EV_DONE, id, RING_OK);
  ring_cq_free(p->served);
  int reads = 0, writes = 0;
  for (int i = 0; i < 2; i++) {
    ring_event_t ev = next_event(p->cq, NULL, 0);
    CHECK(ev.id == id + 1 && ev.status == RING_RESET);
    reads += ev.kind == RING_EV_BODY;
    writes += ev.kind == RING_EV_WRITABLE;
  }
  CHECK(reads == 1 && writes == 1);
  CHECK_STATUS(ring_cancel(p->there, p->handler), RING_INVALID);
  CHECK_STATUS(ring_cq_wait(p->cq, 0), RING_TIMEOUT);
}

static void all(struct pair *p) {
  serve(p);
  both_ways(p);
  pressure(p);
  broken(p);
  ignored(p);
  added(p);
  early(p);
  queues(p);
  serve(p);
  /* The node ends under open streams: each way ends, then nothing comes any more. */
  ring_id_t session, theirs, id = begin(p, RING_UP | RING_DOWN, &session, &theirs);
  CHECK_STATUS(ring_stream_credit(p->there, theirs, 1), RING_OK);
  respond(p, session);
  expect(p->cq, RING_EV_DONE, id, RING_OK);
  CHECK_STATUS(ring_node_close(p->here, p->cq, 99, -1), RING_OK);
  int seen = 0;
  while (seen != 7) {
    ring_event_t ev = next_event(p->cq, NULL, 0);
    int bit = ev.kind == RING_EV_BODY ? 1 : ev.kind == RING_EV_WRITABLE ? 2 : 4;
    CHECK(!(seen & bit) && (ev.kind == RING_EV_CLOSED ? seen == 3 : ev.status == RING_RESET));
    seen |= bit;
  }
  CHECK_STATUS(ring_stream_write(p->here, id + 1, none(), 1, NULL), RING_CLOSED);
  ring_node_free(p->here);
  CHECK_STATUS(ring_cq_wait(p->cq, 0), RING_TIMEOUT);
  ring_cq_free(p->cq);
  seen = 0;
  while (seen != 3) {
    ring_event_t ev = next_event(p->served, NULL, 0);
    if (ev.kind == RING_EV_DONE) { /* the handler's: it is the same node */
      CHECK(ev.tag == 10 && ev.status == RING_CANCELLED && p->here == p->there);
      continue;
    }
    CHECK(ev.id == theirs && ev.status == RING_RESET);
    seen |= ev.kind == RING_EV_BODY ? 1 : 2;
  }
  if (p->here != p->there) close_all(p->there, p->served);
  else ring_cq_free(p->served);
}

/* A member, and a client of it. */
static void open_pair(struct pair *p, const char *at) {
  ring_options_t options;
  ring_bytes_t address = ring_text(at);
  ring_options_init(&options, sizeof options);
  options.flags = RING_MEMORY;
  options.shards = 4;
  options.listen = address;
  CHECK_STATUS(ring_node_open(&options, NULL, &p->there, NULL), RING_OK);
  ring_options_init(&options, sizeof options);
  options.flags = RING_CLIENT;
  options.join = &address;
  options.n_join = 1;
  CHECK_STATUS(ring_node_open(&options, NULL, &p->here, NULL), RING_OK);
  p->cq = new_queue();
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  struct pair p;
  memset(&p, 0, sizeof p);
  p.here = p.there = new_node();
  p.cq = new_queue();
  all(&p);
  open_pair(&p, argv[1]);
  all(&p);
  for (int i = 0; i < 3; i++) {
    open_pair(&p, argv[1]);
    last_word(&p);
  }
  return 0;
}
