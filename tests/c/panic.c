/* A defect of the library stops its node, never the host; other nodes go on. */
#include "check.h"

static void check_stopped(ring_node_t *node, ring_cq_t *cq) {
  ring_op_t op = new_op(RING_OP_PUT, 3, "k", "v");
  CHECK_STATUS(ring_submit(node, cq, &op, NULL), RING_PANICKED);
  ring_error_t err;
  ring_event_t ev;
  err.size = sizeof err;
  CHECK_STATUS(ring_call(node, &op, &ev, &err), RING_PANICKED);
  CHECK(strstr(err.text, "asked for"));
  ring_events_release(&ev, 1);
}

/* The library's own serving of a request is no handler's: its defect is not answered, it ends the node, and that is
 * told. */
static void check_serving(void) {
  char text[256];
  ring_cq_t *events = new_queue(), *cq = new_queue();
  ring_node_t *node = new_node_with(events);
  ring_op_t op = new_op(RING_OP_HANDLE, 4, "", "");
  op.flags = RING_REST;
  CHECK_STATUS(ring_submit(node, cq, &op, NULL), RING_OK);
  op = new_op(RING_OP_REQUEST, 5, "k", "body");
  op.route = ring_text("test-panic");
  CHECK_STATUS(ring_submit(node, cq, &op, NULL), RING_OK);
  /* The request and the handler, each once, and the end of the node. */
  for (unsigned seen = 0; seen != 3;) {
    ring_event_t ev = next_event(cq, text, sizeof text);
    CHECK(ev.kind == RING_EV_DONE && (ev.tag == 4 || ev.tag == 5) && !(seen & 1u << (ev.tag - 4)));
    if (ev.tag == 5) {
      CHECK_STATUS(ev.status, RING_PANICKED);
      CHECK(strstr(text, "asked for, where"));
      CHECK_STATUS(ring_node_close(node, cq, 9, -1), RING_OK);
    }
    seen |= 1u << (ev.tag - 4);
  }
  CHECK(next_event(cq, NULL, 0).kind == RING_EV_CLOSED);
  ring_event_t ev;
  do {
    ev = next_event(events, text, sizeof text);
  } while (ev.kind != RING_EV_HALTED);
  CHECK_STATUS(ev.status, RING_PANICKED);
  CHECK(strstr(text, "asked for, where"));
  ring_node_free(node);
  ring_cq_free(cq);
  ring_cq_free(events);
}

int main(void) {
  check_serving();
  ring_node_t *healthy = new_node();
  char text[256];
  for (int there = 0; there < 2; there++) {
    ring_node_t *node = new_node();
    ring_cq_t *cq = new_queue();
    ring_op_t panic = new_op(there ? TEST_PANIC_THERE : TEST_PANIC_HERE, 2, "", "");
    ring_status_t s = ring_submit(node, cq, &panic, NULL);
    if (there) {
      CHECK_STATUS(s, RING_OK);
      ring_event_t ev = next_event(cq, text, sizeof text);
      CHECK(ev.kind == RING_EV_DONE && ev.tag == 2 && ev.status == RING_PANICKED && strstr(text, "asked for"));
    } else {
      CHECK_STATUS(s, RING_PANICKED);
    }
    check_stopped(node, cq);
    close_all(node, cq);
  }
  /* What was in flight ends, and says why. */
  ring_node_t *node = new_node();
  ring_cq_t *cq = new_queue();
  for (int i = 0; i < 100; i++) {
    ring_op_t op = new_op(RING_OP_PUT, 10, "k", "v");
    CHECK_STATUS(ring_submit(node, cq, &op, NULL), RING_OK);
  }
  ring_op_t panic = new_op(TEST_PANIC_HERE, 2, "", "");
  CHECK_STATUS(ring_submit(node, cq, &panic, NULL), RING_PANICKED);
  for (int i = 0; i < 100; i++) {
    ring_event_t ev = next_event(cq, text, sizeof text);
    CHECK(ev.tag == 10 && (ev.status == RING_OK || ev.status == RING_PANICKED));
  }
  ring_node_free(node);
  ring_cq_free(cq);

  ring_op_t op = new_op(RING_OP_PUT, 3, "k", "v");
  ring_event_t ev;
  CHECK_STATUS(ring_call(healthy, &op, &ev, NULL), RING_OK);
  ring_node_free(healthy);

  /* A sans-IO member too. */
  ring_core_options_t options;
  ring_core_t *core = NULL;
  memset(&options, 0, sizeof options);
  options.size = sizeof options;
  options.seed = 1;
  CHECK_STATUS(ring_core_open(&options, &core, NULL), RING_OK);
  CHECK_STATUS(ring_core_submit(core, 1, &panic, NULL), RING_PANICKED);
  CHECK_STATUS(ring_core_submit(core, 1, &op, NULL), RING_PANICKED);
  CHECK(ring_core_deadline(core) == -1);
  ring_core_free(core);
  return 0;
}
