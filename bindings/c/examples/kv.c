/* A client of a running cluster: puts, gets and scans.
 *
 *   cc kv.c $(pkg-config --cflags --libs ring) -o kv && ./kv 127.0.0.1:4701
 */
#include <stdio.h>
#include <string.h>

#include "ring.h"

static int failed(const char *what, const ring_error_t *err) {
  fprintf(stderr, "%s: %s (%s)\n", what, err->text, ring_status_name(err->code));
  return 1;
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: kv HOST:PORT\n");
    return 2;
  }
  ring_error_t err = {sizeof err, RING_OK, 0, ""};
  ring_bytes_t member = ring_text(argv[1]);
  ring_options_t options;
  ring_options_init(&options, sizeof options);
  options.flags = RING_CLIENT;
  options.join = &member;
  options.n_join = 1;
  ring_node_t *node = NULL;
  if (ring_node_open(&options, NULL, &node, &err) != RING_OK) return failed("open", &err);

  /* Put, and wait for it. */
  static const char *const fruit[][2] = {{"apple", "red"}, {"pear", "green"}, {"plum", "blue"}};
  ring_op_t op;
  ring_event_t done;
  memset(&op, 0, sizeof op);
  op.size = sizeof op;
  op.partition = ring_text("fruit");
  op.op = RING_OP_PUT;
  for (size_t i = 0; i < sizeof fruit / sizeof fruit[0]; i++) {
    op.key = ring_text(fruit[i][0]);
    op.value = ring_text(fruit[i][1]);
    if (ring_call(node, &op, &done, &err) != RING_OK) return failed("put", &err);
    ring_events_release(&done, 1);
  }

  op.op = RING_OP_GET;
  op.key = ring_text("apple");
  op.value = ring_text(NULL);
  if (ring_call(node, &op, &done, &err) != RING_OK) return failed("get", &err);
  printf("apple is %.*s\n", (int)done.data.len, (const char *)done.data.ptr);
  ring_events_release(&done, 1);

  /* Scan what begins with p: events come to a queue. An event loop would watch ring_cq_fd(). */
  ring_cq_t *cq = NULL;
  if (ring_cq_open(NULL, &cq, &err) != RING_OK) return failed("queue", &err);
  op.op = RING_OP_SCAN;
  op.flags = RING_PREFIX;
  op.key = ring_text("p");
  if (ring_submit(node, cq, &op, NULL) != RING_OK) return 1;
  for (int scanning = 1; scanning;) {
    ring_event_t events[64];
    if (ring_cq_wait(cq, -1) != RING_OK) return 1;
    int32_t n = ring_cq_drain(cq, events, 64);
    for (int32_t i = 0; i < n; i++) {
      const char *data = (const char *)events[i].data.ptr;
      int key = (int)events[i].a, len = (int)events[i].data.len;
      if (events[i].kind == RING_EV_ITEM) {
        printf("%.*s is %.*s\n", key, data, len - key, data + key);
      } else if (events[i].kind == RING_EV_DONE) {
        if (events[i].status != RING_OK) fprintf(stderr, "scan: %.*s\n", len, data);
        scanning = 0;
      }
    }
    ring_events_release(events, n < 0 ? 0 : (uint32_t)n);
  }
  ring_node_free(node);
  ring_cq_free(cq);
  return 0;
}
