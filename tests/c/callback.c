/* Calls from inside a callback are refused, whichever thread it runs on. */
#include "check.h"

static ring_node_t *node;
static ring_cq_t *cq;
static ring_status_t seen[6];
static int calls;

static void wake(void *arg) {
  CHECK(arg == &calls);
  ring_op_t op = new_op(RING_OP_GET, 1, "k", "");
  ring_event_t ev;
  seen[0] = ring_submit(node, cq, &op, NULL);
  seen[1] = ring_call(node, &op, &ev, NULL);
  seen[2] = ring_cq_wait(cq, -1);
  seen[3] = ring_cq_drain(cq, &ev, 1);
  seen[4] = ring_node_close(node, cq, 1, 0);
  seen[5] = ring_cq_fd(cq);
  ring_node_free(node); /* does nothing here */
  ring_cq_free(cq);     /* neither does this */
  ring_cq_wakeup(cq);   /* this is allowed */
  calls++;
}

int main(void) {
  ring_cq_options_t options;
  memset(&options, 0, sizeof options);
  options.size = sizeof options;
  options.wake = wake;
  options.wake_arg = &calls;
  CHECK_STATUS(ring_cq_open(&options, &cq, NULL), RING_OK);
  node = new_node();
  for (int threads = 0; threads < 2; threads++) {
    /* The echo ends on this thread, the other on the library's. */
    ring_op_t op = new_op(threads ? RING_OP_GET : TEST_ECHO, 5, "k", "");
    memset(seen, 0, sizeof seen);
    CHECK_STATUS(ring_submit(node, cq, &op, NULL), RING_OK);
    while (ring_cq_wait(cq, 60 * SECONDS) != RING_OK) { /* woken by the callback itself */
    }
    CHECK(next_event(cq, NULL, 0).tag == 5);
  }
  ring_cq_t *other = new_queue();
  close_all(node, other);
  ring_cq_free(cq); /* waits for a callback under way */
  CHECK(calls == 2);
  for (int i = 0; i < 6; i++) CHECK_STATUS(seen[i], RING_MISUSE);
  return 0;
}
