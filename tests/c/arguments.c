/* NULL, sizes, UTF-8, lengths: whatever is wrong with an argument is RING_INVALID, and nothing happens. */
#include "check.h"

static void nothing(void) {
  ring_error_t err;
  memset(&err, 0, sizeof err);
  err.size = sizeof err;
  CHECK_STATUS(ring_cq_open(NULL, NULL, &err), RING_INVALID);
  CHECK(err.code == RING_INVALID && strcmp(err.text, "out: NULL") == 0);
  CHECK_STATUS(ring_node_open(NULL, NULL, NULL, NULL), RING_INVALID);
  CHECK_STATUS(ring_node_close(NULL, NULL, 0, 0), RING_INVALID);
  CHECK_STATUS(ring_submit(NULL, NULL, NULL, NULL), RING_INVALID);
  CHECK_STATUS(ring_cancel(NULL, 1), RING_INVALID);
  CHECK_STATUS(ring_call(NULL, NULL, NULL, NULL), RING_INVALID);
  CHECK_STATUS(ring_cq_fd(NULL), RING_INVALID);
  CHECK_STATUS(ring_cq_wait(NULL, 0), RING_INVALID);
  CHECK_STATUS(ring_cq_drain(NULL, NULL, 1), RING_INVALID);
  CHECK(ring_cq_drain_packed(NULL, NULL, 1) == RING_INVALID);
  CHECK_STATUS(ring_core_open(NULL, NULL, NULL), RING_INVALID);
  CHECK_STATUS(ring_core_input(NULL, 0, NULL), RING_INVALID);
  CHECK_STATUS(ring_core_submit(NULL, 0, NULL, NULL), RING_INVALID);
  CHECK_STATUS(ring_core_next(NULL, NULL), RING_INVALID);
  CHECK(ring_core_deadline(NULL) == -1 && ring_core_digest(NULL) == 0);
  ring_options_init(NULL, 0);
  ring_cq_wakeup(NULL);
  ring_events_release(NULL, 3);
  ring_cq_free(NULL);
  ring_node_free(NULL);
  ring_core_free(NULL);
}

static void options(void) {
  union {
    ring_options_t known;
    unsigned char bytes[sizeof(ring_options_t) + 64];
  } o;
  ring_node_t *node = NULL;
  ring_error_t err;
  err.size = sizeof err;

  ring_options_init(&o.known, sizeof o.known - 8);
  o.known.flags = RING_MEMORY;
  CHECK_STATUS(ring_node_open(&o.known, NULL, &node, &err), RING_INVALID);
  CHECK(strstr(err.text, "too small"));

  ring_options_init(&o.known, sizeof o); /* a host of a later version */
  o.known.flags = RING_MEMORY;
  o.bytes[sizeof o - 1] = 1; /* ... that uses a field we do not know */
  CHECK_STATUS(ring_node_open(&o.known, NULL, &node, &err), RING_INVALID);
  CHECK(strstr(err.text, "does not know"));
  CHECK(node == NULL);
  o.bytes[sizeof o - 1] = 0; /* ... that does not */
  CHECK_STATUS(ring_node_open(&o.known, NULL, &node, &err), RING_OK);
  ring_node_free(node);

  ring_options_init(&o.known, sizeof o.known);
  o.known.size = offsetof(ring_options_t, tags); /* a host of a former version: the rest is not its own */
  o.known.n_tags = SIZE_MAX;
  o.known.flags = RING_MEMORY;
  CHECK_STATUS(ring_node_open(&o.known, NULL, &node, &err), RING_OK);
  ring_node_free(node);
  node = NULL;
  o.known.size = sizeof o.known;
  CHECK_STATUS(ring_node_open(&o.known, NULL, &node, &err), RING_INVALID);
  ring_pair_t tags[2] = {{ring_text("t"), ring_text("1")}, {ring_text("t"), ring_text("2")}};
  o.known.tags = tags;
  o.known.n_tags = 2;
  CHECK_STATUS(ring_node_open(&o.known, NULL, &node, &err), RING_INVALID); /* a tag twice */
  o.known.n_tags = 1;
  tags[0].value = ring_text("\xff");
  CHECK_STATUS(ring_node_open(&o.known, NULL, &node, &err), RING_INVALID);
  CHECK(strcmp(err.text, "a tag: not UTF-8") == 0);

  o.known.size = 1u << 20;
  CHECK_STATUS(ring_node_open(&o.known, NULL, &node, &err), RING_INVALID);
  CHECK(strstr(err.text, "not plausible"));

  ring_options_init(&o.known, sizeof o.known);
  CHECK_STATUS(ring_node_open(&o.known, NULL, &node, &err), RING_INVALID); /* no data_dir */
  CHECK(strstr(err.text, "data_dir"));
  o.known.flags = 1u << 31;
  CHECK_STATUS(ring_node_open(&o.known, NULL, &node, &err), RING_INVALID);
  o.known.flags = RING_MEMORY;
  o.known.name = ring_text("\xff");
  CHECK_STATUS(ring_node_open(&o.known, NULL, &node, &err), RING_INVALID);
  CHECK(strcmp(err.text, "name: not UTF-8") == 0);
  o.known.name.ptr = NULL;
  CHECK_STATUS(ring_node_open(&o.known, NULL, &node, &err), RING_INVALID);
  o.known.name = none();
  o.known.n_members = 1;
  CHECK_STATUS(ring_node_open(&o.known, NULL, &node, &err), RING_INVALID);
  o.known.members = &o.known.name;
  o.known.n_members = SIZE_MAX;
  CHECK_STATUS(ring_node_open(&o.known, NULL, &node, &err), RING_INVALID);
  o.known.n_members = 1;
  CHECK_STATUS(ring_node_open(&o.known, NULL, &node, &err), RING_INVALID);
  CHECK(strstr(err.text, "name=host:port"));

  /* An error that the host gave no size gets nothing; a small one nothing either. */
  memset(&err, 0, sizeof err);
  err.size = sizeof err - 1;
  CHECK_STATUS(ring_node_open(NULL, NULL, &node, &err), RING_INVALID);
  CHECK(err.code == 0 && err.text[0] == 0);

  ring_cq_options_t q;
  ring_cq_t *cq = NULL;
  memset(&q, 0, sizeof q);
  CHECK_STATUS(ring_cq_open(&q, &cq, NULL), RING_INVALID); /* size 0 */
  q.size = sizeof q;
  q.flags = 1;
  CHECK_STATUS(ring_cq_open(&q, &cq, NULL), RING_INVALID);
}

/* What is wrong with a request, its answer, its streams. */
static void requests(ring_node_t *node, ring_cq_t *cq, ring_id_t *id) {
  ring_op_t op = new_op(RING_OP_REQUEST, 1, "k", ""), bad = op;
  CHECK_STATUS(ring_submit(node, cq, &bad, id), RING_OK); /* core says that the route is empty */
  CHECK(next_event(cq, NULL, 0).status == RING_INVALID);
  *id = 0;
  op.route = ring_text("r");
  bad = op;
  bad.flags = RING_TO_MEMBER | RING_TO_LEADER;
  CHECK_STATUS(ring_submit(node, cq, &bad, id), RING_INVALID);
  bad = op;
  bad.code = 1;
  CHECK_STATUS(ring_submit(node, cq, &bad, id), RING_INVALID);
  bad = op;
  bad.n_headers = 1;
  CHECK_STATUS(ring_submit(node, cq, &bad, id), RING_INVALID);
  ring_pair_t header = {ring_text("\xff"), ring_text("")};
  bad.headers = &header;
  CHECK_STATUS(ring_submit(node, cq, &bad, id), RING_INVALID);
  bad.n_headers = 65;
  CHECK_STATUS(ring_submit(node, cq, &bad, id), RING_INVALID);
  bad = op;
  bad.n_streams = 1;
  CHECK_STATUS(ring_submit(node, cq, &bad, id), RING_INVALID);
  ring_stream_t stream = {ring_text("s"), RING_UP, 1};
  bad.streams = &stream;
  CHECK_STATUS(ring_submit(node, cq, &bad, id), RING_INVALID);
  stream.reserved = stream.ways = 0;
  CHECK_STATUS(ring_submit(node, cq, &bad, id), RING_INVALID);
  op = new_op(RING_OP_RESPOND, 1, "", "");
  CHECK_STATUS(ring_submit(node, cq, &op, id), RING_INVALID); /* to nothing */
  op.code = 7;
  CHECK_STATUS(ring_submit(node, cq, &op, id), RING_INVALID);
  op.flags = RING_ERROR;
  op.n_headers = 1;
  op.headers = &header;
  CHECK_STATUS(ring_submit(node, cq, &op, id), RING_INVALID);
  op = new_op(RING_OP_HANDLE, 1, "", "");
  op.flags = RING_REST;
  op.route = ring_text("r");
  CHECK_STATUS(ring_submit(node, cq, &op, id), RING_INVALID);
  ring_event_t ev;
  op.flags = 0;
  CHECK_STATUS(ring_call(node, &op, &ev, NULL), RING_INVALID); /* it needs a queue */
  op.op = RING_OP_TRACK;
  CHECK_STATUS(ring_call(node, &op, &ev, NULL), RING_INVALID);
  CHECK_STATUS(ring_stream_write(NULL, 1, none(), 0, NULL), RING_INVALID);
  CHECK_STATUS(ring_stream_write(node, 1, none(), 0, NULL), RING_INVALID);
  ring_bytes_t null = {NULL, 1};
  CHECK_STATUS(ring_stream_write(node, 1, null, 0, NULL), RING_INVALID);
  CHECK_STATUS(ring_stream_credit(node, 1, 1), RING_INVALID);
  CHECK_STATUS(ring_stream_reset(node, 1, 0), RING_INVALID);
}

static void operations(void) {
  ring_node_t *node = new_node();
  ring_cq_t *cq = new_queue();
  ring_id_t id = 0;
  ring_op_t op = new_op(RING_OP_PUT, 1, "k", "v");
  CHECK_STATUS(ring_submit(node, NULL, &op, &id), RING_INVALID);
  CHECK_STATUS(ring_submit(node, cq, NULL, &id), RING_INVALID);
  ring_op_t bad = op;
  bad.size = sizeof op - 1;
  CHECK_STATUS(ring_submit(node, cq, &bad, &id), RING_INVALID);
  bad = op;
  bad.op = 999;
  CHECK_STATUS(ring_submit(node, cq, &bad, &id), RING_INVALID);
  bad = op;
  bad.flags = RING_REVERSE;
  CHECK_STATUS(ring_submit(node, cq, &bad, &id), RING_INVALID);
  bad = op;
  bad.partition = ring_text("\xc3\x28");
  CHECK_STATUS(ring_submit(node, cq, &bad, &id), RING_INVALID);
  bad = op;
  bad.key.ptr = NULL;
  CHECK_STATUS(ring_submit(node, cq, &bad, &id), RING_INVALID);
  bad = op;
  bad.value.len = SIZE_MAX;
  CHECK_STATUS(ring_submit(node, cq, &bad, &id), RING_INVALID);
  bad = new_op(RING_OP_BATCH, 1, "", "");
  bad.n_changes = 2;
  CHECK_STATUS(ring_submit(node, cq, &bad, &id), RING_INVALID);
  bad = new_op(RING_OP_SCAN, 1, "", "");
  ring_event_t ev;
  CHECK_STATUS(ring_call(node, &bad, &ev, NULL), RING_INVALID);
  ring_events_release(&ev, 1);
  CHECK_STATUS(ring_call(node, &op, NULL, NULL), RING_INVALID);
  bad = op;
  bad.size = offsetof(ring_op_t, route) - 8;
  CHECK_STATUS(ring_submit(node, cq, &bad, &id), RING_INVALID);
  requests(node, cq, &id);
  CHECK(id == 0);
  bad = op;
  bad.size = offsetof(ring_op_t, route); /* a host of a former version: the rest is not its own */
  bad.n_headers = SIZE_MAX;
  CHECK_STATUS(ring_call(node, &bad, &ev, NULL), RING_OK);
  ring_events_release(&ev, 1);

  /* A limit that only the member knows ends the operation. */
  size_t len = 100 << 10;
  char *key = (char *)calloc(len, 1), text[256];
  CHECK(key);
  op.key.ptr = (const uint8_t *)key;
  op.key.len = len;
  CHECK_STATUS(ring_submit(node, cq, &op, &id), RING_OK);
  memset(key, 1, len);
  free(key); /* it was copied */
  ring_event_t done = next_event(cq, text, sizeof text);
  CHECK(done.id == id && done.status == RING_INVALID && strstr(text, "65536"));

  CHECK(ring_cq_drain(cq, NULL, 0) == 0);
  CHECK_STATUS(ring_cq_drain(cq, NULL, 1), RING_INVALID);
  CHECK_STATUS(ring_cancel(node, 12345), RING_INVALID);
  close_all(node, cq);
}

int main(void) {
  CHECK(ring_abi() == RING_ABI);
  CHECK(strcmp(ring_status_name(RING_OUTCOME_UNKNOWN), "RING_OUTCOME_UNKNOWN") == 0);
  CHECK(strcmp(ring_status_name(12345), "RING_UNKNOWN_STATUS") == 0);
  CHECK(ring_version()[0] != 0);
  nothing();
  options();
  operations();
  return 0;
}
