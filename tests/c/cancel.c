/* Cancelling races with ending: whatever wins, each operation ends exactly once. */
#include "check.h"

enum { N = 2000 };
static ring_id_t ids[N];
static int next_id; /* how many are in `ids` */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void *canceller(void *node) {
  for (int i = 0; i < N;) {
    pthread_mutex_lock(&lock);
    ring_id_t id = i + 30 < next_id || next_id == N ? ids[i] : 0; /* some of them have ended */
    pthread_mutex_unlock(&lock);
    if (!id) continue;
    ring_status_t s = ring_cancel((ring_node_t *)node, id);
    CHECK(s == RING_OK || s == RING_INVALID);
    i++;
  }
  return NULL;
}

int main(void) {
  ring_node_t *node = new_node();
  ring_cq_t *cq = new_queue();
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, canceller, node) == 0);
  static const uint16_t codes[3] = {RING_OP_GET, RING_OP_PUT, RING_OP_SCAN};
  for (int i = 0; i < N; i++) {
    ring_op_t op = new_op(codes[i % 3], (uint64_t)i, "k", i % 3 == 1 ? "v" : "");
    ring_id_t id = 0;
    CHECK_STATUS(ring_submit(node, cq, &op, &id), RING_OK);
    pthread_mutex_lock(&lock);
    ids[next_id++] = id;
    pthread_mutex_unlock(&lock);
  }
  static int seen[N];
  int cancelled = 0;
  for (int i = 0; i < N;) {
    ring_event_t ev = next_event(cq, NULL, 0);
    if (ev.kind != RING_EV_DONE) continue;
    CHECK(!seen[ev.tag]++);
    switch (ev.tag % 3) {
      case 0: CHECK(ev.status == RING_OK || ev.status == RING_NOT_FOUND || ev.status == RING_CANCELLED); break;
      case 1: CHECK(ev.status == RING_OK || ev.status == RING_OUTCOME_UNKNOWN); break;
      default: CHECK(ev.status == RING_OK || ev.status == RING_CANCELLED); break;
    }
    cancelled += ev.status == RING_CANCELLED || ev.status == RING_OUTCOME_UNKNOWN;
    i++;
  }
  CHECK(pthread_join(thread, NULL) == 0);
  CHECK(ring_cancel(node, ids[0]) == RING_INVALID);
  printf("%d of %d were cancelled\n", cancelled, N);
  close_all(node, cq);
  return 0;
}
