/* Ends: twice, after, in flight, the queue first, without close. Every operation ends exactly once. */
#include "check.h"

enum { N = 400 };

static void submit_many(ring_node_t *node, ring_cq_t *cq) {
  char key[16];
  for (int i = 0; i < N; i++) {
    snprintf(key, sizeof key, "k%d", i);
    ring_op_t op = new_op(i % 2 ? RING_OP_PUT : RING_OP_GET, 1 + (uint64_t)i, key, "v");
    CHECK_STATUS(ring_submit(node, cq, &op, NULL), RING_OK);
  }
}

/* Counts the ends that wait in a queue: each operation once. */
static void expect_all(ring_cq_t *cq, int closed) {
  int seen[N] = {0};
  for (int i = 0; i < N; i++) {
    ring_event_t ev = next_event(cq, NULL, 0);
    CHECK(ev.kind == RING_EV_DONE && ev.tag >= 1 && ev.tag <= N && !seen[ev.tag - 1]++);
    CHECK(ev.status == RING_OK || ev.status == RING_NOT_FOUND || ev.status == RING_CLOSED ||
          ev.status == RING_OUTCOME_UNKNOWN);
  }
  if (closed) CHECK(next_event(cq, NULL, 0).kind == RING_EV_CLOSED);
  CHECK_STATUS(ring_cq_wait(cq, 0), RING_TIMEOUT);
}

static void twice_and_after(void) {
  ring_node_t *node = new_node();
  ring_cq_t *cq = new_queue();
  submit_many(node, cq);
  CHECK_STATUS(ring_node_close(node, cq, 7, -1), RING_OK);
  CHECK_STATUS(ring_node_close(node, cq, 8, -1), RING_CLOSED);
  ring_op_t op = new_op(RING_OP_GET, 1, "k", "");
  CHECK_STATUS(ring_submit(node, cq, &op, NULL), RING_CLOSED);
  ring_event_t ev;
  CHECK_STATUS(ring_call(node, &op, &ev, NULL), RING_CLOSED);
  expect_all(cq, 1);
  CHECK_STATUS(ring_submit(node, cq, &op, NULL), RING_CLOSED);
  ring_node_free(node);
  CHECK_STATUS(ring_cq_wait(cq, 0), RING_TIMEOUT); /* nothing came after CLOSED */
  ring_cq_free(cq);
}

static void in_flight(int64_t timeout) {
  ring_node_t *node = new_node();
  ring_cq_t *cq = new_queue();
  submit_many(node, cq);
  CHECK_STATUS(ring_node_close(node, cq, 7, timeout), RING_OK);
  expect_all(cq, 1);
  ring_node_free(node);
  ring_cq_free(cq);
}

static void free_in_flight(void) {
  ring_node_t *node = new_node();
  ring_cq_t *cq = new_queue();
  submit_many(node, cq);
  ring_node_free(node);
  expect_all(cq, 0); /* the queue outlives the node */
  ring_cq_free(cq);
}

static void free_while_it_closes(void) {
  ring_node_t *node = new_node();
  ring_cq_t *cq = new_queue();
  submit_many(node, cq);
  CHECK_STATUS(ring_node_close(node, cq, 7, -1), RING_OK);
  ring_node_free(node);
  expect_all(cq, 1);
  ring_cq_free(cq);
}

static void queue_first(void) {
  ring_node_t *node = new_node();
  ring_cq_t *cq = new_queue();
  submit_many(node, cq);
  ring_op_t scan = new_op(RING_OP_SCAN, 1, "", "");
  CHECK_STATUS(ring_submit(node, cq, &scan, NULL), RING_OK);
  ring_cq_free(cq); /* what still comes is dropped */
  ring_cq_t *other = new_queue();
  close_all(node, other);
}

/* A scan whose items nobody drains does not hold up a close. */
static void scan_that_waits(void) {
  ring_node_t *node = new_node();
  ring_cq_t *cq = new_queue(), *other = new_queue();
  char key[16];
  for (int i = 0; i < 1500; i++) {
    snprintf(key, sizeof key, "s%d", i);
    ring_op_t op = new_op(RING_OP_PUT, 1, key, "v");
    CHECK_STATUS(ring_submit(node, other, &op, NULL), RING_OK);
  }
  for (int i = 0; i < 1500; i++) CHECK_STATUS(next_event(other, NULL, 0).status, RING_OK);
  ring_op_t scan = new_op(RING_OP_SCAN, 5, "", "");
  CHECK_STATUS(ring_submit(node, cq, &scan, NULL), RING_OK);
  CHECK_STATUS(ring_cq_wait(cq, 60 * SECONDS), RING_OK);
  close_all(node, other);
  int items = 0;
  ring_event_t ev;
  while ((ev = next_event(cq, NULL, 0)).kind == RING_EV_ITEM) items++;
  CHECK(ev.kind == RING_EV_DONE && ev.status == RING_CANCELLED && items > 0 && items < 1500);
  ring_cq_free(cq);
}

static void *blocked_wait(void *cq) {
  ring_status_t *s = (ring_status_t *)malloc(sizeof *s);
  CHECK(s);
  *s = ring_cq_wait((ring_cq_t *)cq, -1);
  return s;
}

/* A thread that waits is ended by a wakeup. */
static void wakeup(void) {
  ring_cq_t *cq = new_queue();
  pthread_t thread;
  void *result;
  CHECK(pthread_create(&thread, NULL, blocked_wait, cq) == 0);
  ring_cq_wakeup(cq);
  CHECK(pthread_join(thread, &result) == 0);
  CHECK(*(ring_status_t *)result == RING_AGAIN);
  free(result);
  ring_cq_free(cq);
}

int main(void) {
  twice_and_after();
  in_flight(-1);
  in_flight(0);
  free_in_flight();
  free_while_it_closes();
  queue_first();
  scan_that_waits();
  wakeup();
  return 0;
}
