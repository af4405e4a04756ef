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
  CHECK(id == 0);

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
