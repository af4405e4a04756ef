/* Watches of a range, and keys that are tracked while a second member joins. argv[1], argv[2]: where the two listen. */
#include "check.h"

static ring_id_t submit(ring_node_t *node, ring_cq_t *cq, ring_op_t op) {
  ring_id_t id = 0;
  CHECK_STATUS(ring_submit(node, cq, &op, &id), RING_OK);
  return id;
}

static uint64_t put(ring_node_t *node, const char *key, const char *value) {
  ring_op_t op = new_op(value ? RING_OP_PUT : RING_OP_DELETE, 1, key, value);
  ring_event_t ev;
  CHECK_STATUS(ring_call(node, &op, &ev, NULL), RING_OK);
  ring_events_release(&ev, 1);
  return ev.a;
}

static ring_event_t expect(ring_cq_t *cq, uint32_t kind, ring_id_t id, const char *data, uint64_t b) {
  char text[128];
  ring_event_t ev = next_event(cq, text, sizeof text);
  if (ev.kind != kind || ev.id != id || (data && strcmp(text, data) != 0) || (b && ev.b != b)) {
    fprintf(stderr, "event %u of %llu, %s, %llu, %llu: %s; not %u: %s\n", ev.kind, (unsigned long long)ev.id,
            ring_status_name(ev.status), (unsigned long long)ev.a, (unsigned long long)ev.b, text, kind, data);
    exit(1);
  }
  return ev;
}

static void watches(ring_node_t *node, ring_cq_t *cq) {
  put(node, "w0", "before");
  ring_op_t op = new_op(RING_OP_WATCH, 5, "w", "");
  op.flags = RING_PREFIX;
  ring_event_t none_of_it;
  CHECK_STATUS(ring_call(node, &op, &none_of_it, NULL), RING_INVALID);
  ring_id_t id = submit(node, cq, op);
  uint64_t from = expect(cq, RING_EV_WATCHING, id, "", 0).a;
  put(node, "other", "x");
  uint64_t r1 = put(node, "w1", "one"), r2 = put(node, "w1", "two"), r3 = put(node, "w1", NULL);
  CHECK(r1 > from && r2 > r1 && r3 > r2);
  ring_event_t ev = expect(cq, RING_EV_CHANGED, id, "w1one", r1);
  CHECK(ev.a == 2 && ev.tag == 5 && ev.status == RING_OK);
  expect(cq, RING_EV_CHANGED, id, "w1two", r2);
  expect(cq, RING_EV_REMOVED, id, "w1", r3);

  /* More than a page, while nobody drains: all of it comes, in order. */
  enum { N = 2500 };
  char text[16];
  ring_cq_t *other = new_queue();
  for (int i = 0; i < N; i++) {
    snprintf(text, sizeof text, "w%05d", i);
    submit(node, other, new_op(RING_OP_PUT, 1, text, "v"));
  }
  for (int i = 0; i < N; i++) CHECK_STATUS(next_event(other, NULL, 0).status, RING_OK);
  uint64_t last = r3;
  for (int i = 0; i < N; i++) {
    snprintf(text, sizeof text, "w%05dv", i);
    ev = expect(cq, RING_EV_CHANGED, id, text, 0);
    CHECK(ev.b >= last);
    last = ev.b;
  }
  CHECK_STATUS(ring_cancel(node, id), RING_OK);
  CHECK_STATUS(ring_cancel(node, id), RING_INVALID);
  ev = expect(cq, RING_EV_DONE, id, NULL, 0);
  CHECK(ev.status == RING_CANCELLED && ev.a >= last);
  uint64_t upto = ev.a;

  /* It goes on after its end, and from the middle; not from before what is remembered. */
  r1 = put(node, "w1", "again");
  op.flags = RING_PREFIX | RING_AFTER;
  op.expect = upto;
  id = submit(node, cq, op);
  CHECK(expect(cq, RING_EV_WATCHING, id, "", 0).a == upto);
  expect(cq, RING_EV_CHANGED, id, "w1again", r1);
  CHECK_STATUS(ring_cancel(node, id), RING_OK);
  expect(cq, RING_EV_DONE, id, NULL, 0);
  op.expect = r2;
  id = submit(node, cq, op);
  expect(cq, RING_EV_WATCHING, id, "", 0);
  expect(cq, RING_EV_REMOVED, id, "w1", r3);
  /* Its queue is freed, and with it the watch. */
  ring_op_t idle = new_op(RING_OP_WATCH, 6, "idle", "");
  ring_id_t second = submit(node, other, idle);
  expect(other, RING_EV_WATCHING, second, "", 0);
  ring_cq_free(other);
  CHECK_STATUS(ring_cancel(node, second), RING_INVALID);
  CHECK_STATUS(ring_cancel(node, id), RING_OK);
  while ((ev = next_event(cq, NULL, 0)).kind != RING_EV_DONE) CHECK(ev.kind == RING_EV_CHANGED);
}

/* 2 MiB of changes: more than a group remembers. */
static void compacted(ring_node_t *node, ring_cq_t *cq) {
  static char value[64 << 10];
  uint64_t first = put(node, "c", "x");
  memset(value, 'v', sizeof value - 1);
  for (int i = 0; i < 40; i++) put(node, "c", value);
  ring_op_t op = new_op(RING_OP_WATCH, 5, "c", "");
  op.flags = RING_AFTER;
  op.expect = first;
  ring_id_t id = submit(node, cq, op);
  ring_event_t ev = expect(cq, RING_EV_DONE, id, NULL, 0);
  CHECK(ev.status == RING_COMPACTED && ev.a == first && ev.b > first);
}

static ring_node_t *open_at(char *address, char *join, const char *name) {
  ring_options_t options;
  ring_bytes_t seed = ring_text(join);
  ring_pair_t tag = {ring_text("rack"), ring_text(name)};
  ring_node_t *node = NULL;
  ring_error_t err;
  memset(&err, 0, sizeof err);
  err.size = sizeof err;
  ring_options_init(&options, sizeof options);
  options.flags = RING_MEMORY;
  options.shards = 4;
  options.name = ring_text(name);
  options.listen = ring_text(address);
  options.tags = &tag;
  options.n_tags = 1;
  if (join) {
    options.join = &seed;
    options.n_join = 1;
  }
  if (ring_node_open(&options, NULL, &node, &err) != RING_OK) fprintf(stderr, "%s\n", err.text);
  CHECK(node);
  return node;
}

/* Keys that leave this member for one that joins. */
static void tracks(char **addresses) {
  enum { KEYS = 40 };
  ring_node_t *node = open_at(addresses[0], NULL, "a");
  ring_cq_t *cq = new_queue();
  char key[16];
  ring_id_t ids[KEYS];
  for (int i = 0; i < KEYS; i++) {
    snprintf(key, sizeof key, "t%d", i);
    ring_op_t op = new_op(RING_OP_TRACK, 100 + (uint64_t)i, key, "");
    op.flags = RING_NEXT;
    ids[i] = submit(node, cq, op);
  }
  ring_op_t op = new_op(RING_OP_REPLICA, 50, "t0", "");
  submit(node, cq, op);
  CHECK(next_event(cq, NULL, 0).status == RING_CONFLICT); /* it owns it already */

  ring_node_t *joined = open_at(addresses[1], addresses[0], "b");
  uint64_t other = 0;
  int left = 0, next = 0, told[KEYS] = {0};
  while (left + next < KEYS) { /* each either leaves, or has a second in line */
    ring_event_t ev = next_event(cq, NULL, 0);
    CHECK(ev.tag >= 100 && ev.tag < 100 + KEYS && ev.id == ids[ev.tag - 100]);
    CHECK(ev.status == RING_OK && ev.a != 0 && (other == 0 || ev.a == other));
    other = ev.a;
    if (ev.kind == RING_EV_DONE) left++;
    else CHECK(ev.kind == RING_EV_NEXT && ev.b == 0 && ++next);
    CHECK(!told[ev.tag - 100]++);
    if (ev.kind == RING_EV_DONE) ids[ev.tag - 100] = 0;
  }
  CHECK(left > 0 && next > 0);

  /* On the other one a key that stayed here comes when this member leaves; its tag is known. */
  char stays[16] = "";
  for (int i = 0; i < KEYS; i++)
    if (ids[i]) snprintf(stays, sizeof stays, "t%d", i);
  ring_cq_t *theirs = new_queue();
  ring_id_t comes = submit(joined, theirs, new_op(RING_OP_REPLICA, 7, stays, ""));
  op = new_op(RING_OP_TRACK, 8, stays, "");
  submit(joined, theirs, op);
  CHECK(next_event(theirs, NULL, 0).status == RING_CONFLICT); /* not its own */
  char text[1024] = "";
  op = new_op(RING_OP_MEMBERS, 9, "", "");
  for (int tries = 0; !strstr(text, "\"rack\":\"b\"") || !strstr(text, "\"rack\":\"a\""); tries++) {
    CHECK(tries < 600);
    submit(node, theirs, op);
    next_event(theirs, text, sizeof text);
    CHECK(ring_cq_wait(theirs, SECONDS / 10) == RING_TIMEOUT); /* tags come by gossip */
  }
  close_all(node, cq); /* what is tracked there ends with it */
  ring_event_t ev = expect(theirs, RING_EV_DONE, comes, NULL, 0);
  CHECK(ev.status == RING_OK && ev.a == other);
  ring_node_free(joined);
  ring_cq_free(theirs);
}

int main(int argc, char **argv) {
  CHECK(argc == 3);
  ring_node_t *node = new_node();
  ring_cq_t *cq = new_queue();
  watches(node, cq);
  compacted(node, cq);
  close_all(node, cq);
  tracks(argv + 1);
  return 0;
}
