/* Two threads that drain one queue: one of them is told, and no event is lost or given twice. */
#include "check.h"

enum { N = 600, SIZE = 1 << 16 };
static ring_cq_t *cq;
static int seen[N + 1], total, misuses;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void *drainer(void *arg) {
  (void)arg;
  char *buf = (char *)malloc(2 * SIZE);
  CHECK(buf);
  for (;;) {
    int64_t n = ring_cq_drain_packed(cq, buf, 2 * SIZE);
    CHECK(n >= 0 || n == RING_MISUSE);
    pthread_mutex_lock(&lock);
    if (n == RING_MISUSE) misuses++;
    for (int64_t at = 0; at < n; at += 48 + SIZE) {
      uint64_t tag;
      memcpy(&tag, buf + at, 8);
      CHECK(tag >= 1 && tag <= N && !seen[tag]++);
      total++;
    }
    int over = total == N;
    pthread_mutex_unlock(&lock);
    if (over) break;
  }
  free(buf);
  return NULL;
}

int main(void) {
  ring_node_t *node = new_node();
  cq = new_queue();
  char *value = (char *)calloc(SIZE, 1);
  CHECK(value);
  pthread_t threads[2];
  for (int round = 0; misuses == 0 && round < 200; round++) {
    memset(seen, 0, sizeof seen);
    total = 0;
    for (int i = 0; i < 2; i++) CHECK(pthread_create(&threads[i], NULL, drainer, NULL) == 0);
    for (int i = 1; i <= N; i++) {
      ring_op_t op = new_op(TEST_ECHO, (uint64_t)i, "", "");
      op.value.ptr = (const uint8_t *)value;
      op.value.len = SIZE;
      CHECK_STATUS(ring_submit(node, cq, &op, NULL), RING_OK);
    }
    for (int i = 0; i < 2; i++) CHECK(pthread_join(threads[i], NULL) == 0);
  }
  CHECK(misuses > 0);
  free(value);
  close_all(node, cq);
  return 0;
}
