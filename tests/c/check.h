/* What the C tests share: a test is a program that says where it failed and exits with 1. */
#ifndef CHECK_H
#define CHECK_H
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "ring.h"

#define CHECK(what) \
  do { \
    if (!(what)) { \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what); \
      exit(1); \
    } \
  } while (0)

#define CHECK_STATUS(call, expected) \
  do { \
    ring_status_t got_ = (call); \
    if (got_ != (expected)) { \
      fprintf(stderr, "%s:%d: %s is %s\n", __FILE__, __LINE__, #call, ring_status_name(got_)); \
      exit(1); \
    } \
  } while (0)

/* Operations of a library that was built for tests. */
#define TEST_ECHO 0xF001
#define TEST_PANIC_HERE 0xF002
#define TEST_PANIC_THERE 0xF003

#define SECONDS (1000000000LL)

static inline ring_bytes_t none(void) {
  ring_bytes_t view = {NULL, 0};
  return view;
}

static inline ring_op_t new_op(uint16_t code, uint64_t tag, const char *key, const char *value) {
  ring_op_t op;
  memset(&op, 0, sizeof op);
  op.size = sizeof op;
  op.op = code;
  op.tag = tag;
  op.partition = ring_text("test");
  op.key = ring_text(key);
  op.value = ring_text(value);
  return op;
}

static inline ring_cq_t *new_queue(void) {
  ring_cq_t *cq = NULL;
  CHECK_STATUS(ring_cq_open(NULL, &cq, NULL), RING_OK);
  return cq;
}

/* A cluster of one in memory, whose own events go to `events`. */
static inline ring_node_t *new_node_with(ring_cq_t *events) {
  ring_error_t err;
  ring_node_t *node = NULL;
  ring_options_t options;
  memset(&err, 0, sizeof err);
  err.size = sizeof err;
  ring_options_init(&options, sizeof options);
  options.flags = RING_MEMORY;
  options.shards = 4;
  if (ring_node_open(&options, events, &node, &err) != RING_OK) {
    fprintf(stderr, "%s: %s\n", ring_status_name(err.code), err.text);
    exit(1);
  }
  return node;
}

static inline ring_node_t *new_node(void) {
  return new_node_with(NULL);
}

/* The next event; its data is copied into `text` (of `room` bytes) and given back. */
static inline ring_event_t next_event(ring_cq_t *cq, char *text, size_t room) {
  ring_event_t ev;
  for (;;) {
    int32_t n = ring_cq_drain(cq, &ev, 1);
    CHECK(n >= 0);
    if (n == 1) break;
    CHECK_STATUS(ring_cq_wait(cq, 60 * SECONDS), RING_OK);
  }
  if (text) {
    size_t len = ev.data.len < room - 1 ? ev.data.len : room - 1;
    if (len) memcpy(text, ev.data.ptr, len);
    text[len] = 0;
  }
  ring_events_release(&ev, 1);
  return ev;
}

static inline void close_all(ring_node_t *node, ring_cq_t *cq) {
  CHECK_STATUS(ring_node_close(node, cq, 99, -1), RING_OK);
  while (next_event(cq, NULL, 0).kind != RING_EV_CLOSED) {
  }
  ring_node_free(node);
  ring_cq_free(cq);
}
#endif
