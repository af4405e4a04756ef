/* Every operation on a cluster of one, through a queue and through ring_call(). argv[1]: a directory for the data. */
#include <poll.h>

#include "check.h"

static ring_event_t call(ring_node_t *node, ring_op_t op, ring_status_t expected) {
  ring_event_t ev;
  CHECK_STATUS(ring_call(node, &op, &ev, NULL), expected);
  CHECK(ev.status == expected && ev.kind == RING_EV_DONE && ev.tag == op.tag);
  return ev;
}

static void give_back(ring_event_t ev) { ring_events_release(&ev, 1); }

static void keys(ring_node_t *node) {
  ring_event_t put = call(node, new_op(RING_OP_PUT, 7, "a", "one"), RING_OK);
  CHECK(put.a > 0 && put.owner == NULL);

  ring_event_t got = call(node, new_op(RING_OP_GET, 8, "a", ""), RING_OK);
  CHECK(got.a == put.a && got.data.len == 3 && memcmp(got.data.ptr, "one", 3) == 0);
  give_back(got);
  give_back(call(node, new_op(RING_OP_GET, 8, "none", ""), RING_NOT_FOUND));

  ring_op_t cas = new_op(RING_OP_CAS, 9, "a", "two");
  cas.expect = put.a;
  ring_event_t swapped = call(node, cas, RING_OK);
  CHECK(swapped.a > put.a);
  ring_event_t again = call(node, cas, RING_CONFLICT);
  CHECK(again.a == swapped.a);
  cas.flags = RING_IF_VALUE | RING_REMOVE;
  cas.compare = ring_text("two");
  give_back(call(node, cas, RING_OK));
  give_back(call(node, new_op(RING_OP_GET, 8, "a", ""), RING_NOT_FOUND));

  CHECK(call(node, new_op(RING_OP_DELETE, 10, "a", ""), RING_OK).b == 0);
  call(node, new_op(RING_OP_PUT, 10, "a", ""), RING_OK);
  ring_event_t empty = call(node, new_op(RING_OP_GET, 10, "a", ""), RING_OK);
  CHECK(empty.data.ptr == NULL && empty.data.len == 0);
  CHECK(call(node, new_op(RING_OP_DELETE, 10, "a", ""), RING_OK).b == 1);

  ring_event_t status = call(node, new_op(RING_OP_STATUS, 11, "", ""), RING_OK);
  CHECK(status.data.len > 2 && status.data.ptr[0] == '{');
  give_back(status);
}

/* A cluster of one owns every key, and cannot let its only member go. */
static void ring(ring_node_t *node) {
  ring_event_t status = call(node, new_op(RING_OP_STATUS, 11, "", ""), RING_OK);
  uint64_t me = status.a, owner = 0;
  give_back(status);
  ring_op_t op = new_op(RING_OP_OWNERS, 12, "some key", "");
  op.limit = 3;
  ring_event_t owners = call(node, op, RING_OK);
  CHECK(owners.a == me && owners.b == 1 && owners.data.len == sizeof owner);
  memcpy(&owner, owners.data.ptr, sizeof owner);
  CHECK(owner == me);
  give_back(owners);

  ring_event_t members = call(node, new_op(RING_OP_MEMBERS, 13, "", ""), RING_OK);
  CHECK(members.b == 1 && members.data.len > 2 && members.data.ptr[0] == '[');
  give_back(members);
  op = new_op(RING_OP_MEMBERS, 13, "", "");
  op.flags = RING_WITH_CLIENTS;
  members = call(node, op, RING_OK);
  CHECK(members.b == 1);
  give_back(members);

  ring_op_t unknown = new_op(RING_OP_OWNERS, 14, "some key", "");
  unknown.flags = RING_LOCAL;
  CHECK_STATUS(ring_call(node, &unknown, NULL, NULL), RING_INVALID);
}

static void batch(ring_node_t *node) {
  ring_change_t changes[3];
  memset(changes, 0, sizeof changes);
  changes[0].op = RING_OP_PUT;
  changes[0].key = ring_text("b1");
  changes[0].value = ring_text("x");
  changes[1].op = RING_OP_PUT;
  changes[1].key = ring_text("b2");
  changes[2].op = RING_OP_DELETE;
  changes[2].key = ring_text("b1");
  ring_op_t op = new_op(RING_OP_BATCH, 12, "", "");
  op.changes = changes;
  op.n_changes = 3;
  CHECK(call(node, op, RING_OK).a > 0);
  give_back(call(node, new_op(RING_OP_GET, 13, "b1", ""), RING_NOT_FOUND));
  give_back(call(node, new_op(RING_OP_GET, 13, "b2", ""), RING_OK));
}

/* More keys than a page has, forwards and backwards; and a limit. */
static void scan(ring_node_t *node, ring_cq_t *cq) {
  enum { N = 2500 };
  char key[16], text[64], last[64];
  for (int i = 0; i < N; i++) {
    snprintf(key, sizeof key, "s%05d", i);
    ring_op_t op = new_op(RING_OP_PUT, 1, key, key);
    CHECK_STATUS(ring_submit(node, cq, &op, NULL), RING_OK);
  }
  for (int i = 0; i < N; i++) CHECK_STATUS(next_event(cq, text, sizeof text).status, RING_OK);

  for (int way = 0; way < 3; way++) {
    ring_op_t op = new_op(RING_OP_SCAN, 2, "s", "");
    op.flags = way == 1 ? RING_PREFIX | RING_REVERSE : RING_PREFIX;
    op.limit = way == 2 ? 1500 : 0;
    ring_id_t id = 0;
    CHECK_STATUS(ring_submit(node, cq, &op, &id), RING_OK);
    int seen = 0;
    last[0] = 0;
    for (;;) {
      ring_event_t ev = next_event(cq, text, sizeof text);
      CHECK(ev.tag == 2 && ev.id == id && ev.status == RING_OK);
      if (ev.kind == RING_EV_DONE) {
        CHECK(ev.b == (uint64_t)seen);
        break;
      }
      CHECK(ev.kind == RING_EV_ITEM && ev.a == 6 && strncmp(text, text + 6, 6) == 0);
      CHECK(seen == 0 || (way == 1 ? strcmp(text, last) < 0 : strcmp(text, last) > 0));
      strcpy(last, text);
      seen++;
    }
    CHECK(seen == (way == 2 ? 1500 : N));
  }
}

/* Packed records, and the descriptor that says when there are some. */
static void packed(ring_node_t *node, ring_cq_t *cq) {
  struct pollfd fd = {ring_cq_fd(cq), POLLIN, 0};
  CHECK(fd.fd >= 0 && poll(&fd, 1, 0) == 0);
  ring_op_t op = new_op(RING_OP_PUT, 1, "p", "packed!!!");
  give_back(call(node, op, RING_OK));
  op = new_op(RING_OP_GET, 0x1122334455667788ULL, "p", "");
  ring_id_t id = 0;
  CHECK_STATUS(ring_submit(node, cq, &op, &id), RING_OK);
  CHECK(poll(&fd, 1, 60000) == 1);

  unsigned char buf[256];
  CHECK(ring_cq_drain_packed(cq, buf, 10) == -64);
  memset(buf, 0xEE, sizeof buf);
  CHECK(ring_cq_drain_packed(cq, buf, sizeof buf) == 64);
  uint64_t words[5];
  uint32_t kind, len, flags;
  int32_t status;
  memcpy(&words[0], buf, 8);
  memcpy(&words[1], buf + 8, 8);
  memcpy(&kind, buf + 16, 4);
  memcpy(&status, buf + 20, 4);
  memcpy(&len, buf + 40, 4);
  memcpy(&flags, buf + 44, 4);
  CHECK(words[0] == 0x1122334455667788ULL && words[1] == id && kind == RING_EV_DONE && status == RING_OK);
  CHECK(len == 9 && flags == 0 && memcmp(buf + 48, "packed!!!\0\0\0\0\0\0\0", 16) == 0 && buf[64] == 0xEE);
  CHECK(poll(&fd, 1, 0) == 0);
  CHECK(ring_cq_drain_packed(cq, buf, sizeof buf) == 0);
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  ring_options_t options;
  ring_options_init(&options, sizeof options);
  options.data_dir = ring_text(argv[1]);
  options.shards = 4;
  for (int round = 0; round < 2; round++) {
    ring_node_t *node = NULL;
    ring_error_t err;
    err.size = sizeof err;
    if (ring_node_open(&options, NULL, &node, &err) != RING_OK) fprintf(stderr, "%s\n", err.text);
    CHECK(node);
    ring_cq_t *cq = new_queue();
    if (round == 0) {
      keys(node);
      ring(node);
      batch(node);
      packed(node, cq);
      scan(node, cq);
    } else {
      give_back(call(node, new_op(RING_OP_GET, 1, "p", ""), RING_OK)); /* it was kept */
      ring_node_t *second = NULL;
      CHECK_STATUS(ring_node_open(&options, NULL, &second, &err), RING_IO); /* the directory is in use */
      CHECK(err.code == RING_IO && strstr(err.text, "in use"));
    }
    close_all(node, cq);
  }
  return 0;
}
