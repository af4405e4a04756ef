/* Three members that expect each other: what they tell while they open and then, what they say of themselves, local reads
 * and how stale they are, a client, a leave that is refused and then forced. argv[1] to argv[3]: where they listen. */
#include "check.h"

enum { MEMBERS = 3 };

struct member {
  char **addresses;
  int index;
  ring_cq_t *events;
  ring_node_t *node;
  uint64_t id;
};

static void *open_member(void *arg) {
  struct member *m = (struct member *)arg;
  static const char *names[MEMBERS] = {"a", "b", "c"};
  ring_bytes_t join[MEMBERS];
  for (int i = 0; i < MEMBERS; i++) join[i] = ring_text(m->addresses[i]);
  ring_options_t options;
  ring_options_init(&options, sizeof options);
  options.flags = RING_MEMORY;
  options.shards = 2;
  options.name = ring_text(names[m->index]);
  options.listen = join[m->index];
  options.join = join;
  options.n_join = MEMBERS;
  options.expect = MEMBERS;
  options.probe_interval_ns = SECONDS / 5;
  if (m->index == 0) options.metrics = ring_text("127.0.0.1:0");
  ring_error_t err;
  memset(&err, 0, sizeof err);
  err.size = sizeof err;
  if (ring_node_open(&options, m->events, &m->node, &err) != RING_OK) fprintf(stderr, "%s\n", err.text);
  CHECK(m->node);
  return NULL;
}

/* The next event of this kind; others are passed over. */
static ring_event_t next_of(ring_cq_t *cq, uint32_t kind, char *text, size_t room) {
  ring_event_t ev;
  do ev = next_event(cq, text, room);
  while (ev.kind != kind);
  return ev;
}

/* Makes an operation; what it says goes to `text`. */
static ring_event_t call(ring_node_t *node, ring_op_t op, ring_status_t status, char *text, size_t room) {
  ring_event_t ev;
  CHECK_STATUS(ring_call(node, &op, &ev, NULL), status);
  size_t len = ev.data.len < room - 1 ? ev.data.len : room - 1;
  if (len) memcpy(text, ev.data.ptr, len);
  text[len] = 0;
  ring_events_release(&ev, 1);
  return ev;
}

static void opened(struct member *members) {
  static char text[4096];
  /* It waited for the others, and says who was there last: all. */
  ring_event_t ev;
  do ev = next_of(members[0].events, RING_EV_GATHERING, text, sizeof text);
  while (ev.a < MEMBERS);
  CHECK(ev.b == MEMBERS && strcmp(text, "[\"a\",\"b\",\"c\"]") == 0);
  while (next_of(members[0].events, RING_EV_READY, NULL, 0).b != 1) {
  }
  for (int i = 0; i < MEMBERS; i++) {
    ev = call(members[i].node, new_op(RING_OP_MEMBERS, 1, "", ""), RING_OK, text, sizeof text);
    CHECK(ev.b == MEMBERS && ev.a != 0);
    members[i].id = ev.a;
    ring_event_t status = call(members[i].node, new_op(RING_OP_STATUS, 1, "", ""), RING_OK, text, sizeof text);
    CHECK(status.a == ev.a);
  }
  CHECK(members[0].id != members[1].id && members[1].id != members[2].id && members[0].id != members[2].id);
}

static void says(ring_node_t *node, char *address) {
  static char text[1 << 16];
  call(node, new_op(RING_OP_METRICS, 1, "", ""), RING_OK, text, sizeof text);
  CHECK(strstr(text, "\nring_members_registered 3\n") && strstr(text, "# TYPE ring_uptime_seconds gauge\n"));
  call(node, new_op(RING_OP_PUT, 1, "key", "value"), RING_OK, text, sizeof text);
  ring_event_t put = call(node, new_op(RING_OP_PUT, 1, "key", "value"), RING_OK, text, sizeof text);
  ring_event_t info = call(node, new_op(RING_OP_INFO, 1, "", ""), RING_OK, text, sizeof text);
  CHECK(info.a >= put.a && info.b == 1 && strstr(text, "\"keys\":1,") && strstr(text, "\"bytes\":8,"));
  call(node, new_op(RING_OP_JOIN, 1, "", address), RING_OK, text, sizeof text);
  call(node, new_op(RING_OP_JOIN, 1, "", "nowhere"), RING_INVALID, text, sizeof text);
  CHECK(strstr(text, "host:port"));
  ring_op_t op = new_op(RING_OP_METRICS, 1, "", "");
  op.flags = RING_FORCE;
  call(node, op, RING_INVALID, text, sizeof text);
  CHECK(ring_slot(ring_text("key")) < 65536 && ring_slot(ring_text("key")) != ring_slot(ring_text("other")));
  ring_bytes_t bad = {NULL, 1};
  CHECK(ring_slot(bad) == ring_slot(none()));

  /* A task of the queue that is cancelled, or has ended by then, has one end. */
  ring_cq_t *cq = new_queue();
  ring_id_t id = 0;
  op = new_op(RING_OP_METRICS, 2, "", "");
  CHECK_STATUS(ring_submit(node, cq, &op, &id), RING_OK);
  ring_status_t s = ring_cancel(node, id);
  ring_event_t ev = next_event(cq, NULL, 0);
  CHECK(ev.id == id && ev.tag == 2 && ev.status == (s == RING_OK ? RING_CANCELLED : RING_OK));
  CHECK(s == RING_OK || s == RING_INVALID);
  ring_cq_free(cq);
}

static void local(ring_node_t *node) {
  char text[64];
  ring_op_t op = new_op(RING_OP_GET, 1, "key", "");
  op.flags = RING_LOCAL;
  ring_event_t ev;
  ring_status_t s;
  do { /* until the replica has heard of its leader, and of the write */
    s = ring_call(node, &op, &ev, NULL);
    CHECK(s == RING_OK || s == RING_NOT_FOUND);
    ring_events_release(&ev, 1);
  } while (s != RING_OK || ev.b == UINT64_MAX);
  CHECK(ev.b < 60 * (uint64_t)SECONDS);
  op.key = ring_text("none");
  ev = call(node, op, RING_NOT_FOUND, text, sizeof text);
  CHECK(ev.b < 60 * (uint64_t)SECONDS);
  op.flags = 0;
  CHECK(call(node, op, RING_NOT_FOUND, text, sizeof text).b == 0);
  ring_cq_t *cq = new_queue();
  op = new_op(RING_OP_SCAN, 2, "", "");
  op.flags = RING_LOCAL;
  CHECK_STATUS(ring_submit(node, cq, &op, NULL), RING_OK);
  ev = next_event(cq, NULL, 0);
  CHECK(ev.kind == RING_EV_STALENESS && ev.tag == 2 && ev.a < 60 * (uint64_t)SECONDS);
  CHECK(next_event(cq, NULL, 0).kind == RING_EV_ITEM);
  CHECK(next_event(cq, NULL, 0).kind == RING_EV_DONE);
  ring_cq_free(cq);
}

/* A client is no member: who it is connected to lists it when asked for it. */
static void client(struct member *members) {
  char text[4096];
  ring_bytes_t join = ring_text(members[0].addresses[0]);
  ring_options_t options;
  ring_options_init(&options, sizeof options);
  options.flags = RING_CLIENT;
  options.join = &join;
  options.n_join = 1;
  ring_node_t *node = NULL;
  CHECK_STATUS(ring_node_open(&options, NULL, &node, NULL), RING_OK);
  ring_op_t op = new_op(RING_OP_MEMBERS, 1, "", "");
  CHECK(call(members[0].node, op, RING_OK, text, sizeof text).b == MEMBERS && !strstr(text, "client"));
  CHECK(strstr(text, "\"connected\":true"));
  op.flags = RING_WITH_CLIENTS;
  while (call(members[0].node, op, RING_OK, text, sizeof text).b != MEMBERS + 1) {
  }
  CHECK(strstr(text, "{\"client\":true,\"id\":"));
  CHECK(call(node, op, RING_OK, text, sizeof text).b == MEMBERS);
  ring_node_free(node);
  while (call(members[0].node, op, RING_OK, text, sizeof text).b != MEMBERS) {
  }
}

/* With one of three away another may not go, and says so; by force it does, and the last has all of the data. */
static void leave(struct member *members) {
  char text[256];
  ring_op_t op = new_op(RING_OP_LEAVE, 1, "", "");
  op.target = members[1].id;
  ring_node_free(members[2].node);
  next_of(members[0].events, RING_EV_RECONNECTING, text, sizeof text);
  CHECK(strcmp(text, members[0].addresses[2]) == 0);
  CHECK_STATUS(call(members[0].node, op, RING_OK, text, sizeof text).status, RING_OK);
  next_of(members[1].events, RING_EV_STAYS, text, sizeof text);
  CHECK(strstr(text, "majority"));
  op.flags = RING_FORCE;
  call(members[0].node, op, RING_OK, text, sizeof text);
  next_of(members[1].events, RING_EV_LEFT, NULL, 0);
  close_all(members[1].node, members[1].events);
  call(members[0].node, new_op(RING_OP_GET, 1, "key", ""), RING_OK, text, sizeof text);
  CHECK(strcmp(text, "value") == 0);
  call(members[0].node, new_op(RING_OP_MEMBERS, 1, "", ""), RING_OK, text, sizeof text);
}

/* A pace that cannot be kept is refused, with its name and the way out. */
static void refused(void) {
  ring_node_t *node = NULL;
  ring_error_t err;
  ring_options_t options;
  memset(&err, 0, sizeof err);
  err.size = sizeof err;
  ring_options_init(&options, sizeof options);
  options.flags = RING_MEMORY;
  options.probe_timeout_ns = 2 * SECONDS;
  CHECK_STATUS(ring_node_open(&options, NULL, &node, &err), RING_INVALID);
  CHECK(strstr(err.text, "detector.probe_timeout: 2s is longer than probe_interval, 1s") && strstr(err.text, "raise"));
  options.probe_timeout_ns = 0;
  options.suspicion_max = 101;
  CHECK_STATUS(ring_node_open(&options, NULL, &node, &err), RING_INVALID);
  CHECK(strstr(err.text, "detector.suspicion_max") && !node);
}

int main(int argc, char **argv) {
  CHECK(argc == MEMBERS + 1);
  refused();
  struct member members[MEMBERS];
  pthread_t threads[MEMBERS];
  for (int i = 0; i < MEMBERS; i++) {
    struct member member = {argv + 1, i, new_queue(), NULL, 0};
    members[i] = member;
  }
  for (int i = 0; i < MEMBERS; i++) CHECK(pthread_create(&threads[i], NULL, open_member, &members[i]) == 0);
  for (int i = 0; i < MEMBERS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
  opened(members);
  says(members[0].node, argv[2]);
  local(members[1].node);
  client(members);
  leave(members);
  close_all(members[0].node, members[0].events);
  ring_cq_free(members[2].events);
  return 0;
}
