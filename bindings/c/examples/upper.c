/* A request with streams: a member that sends back in capitals what it is sent, while it is sent, and a client of it.
 * Neither side holds more than a chunk, however long the text is and however slow the other.
 *
 *   cc upper.c $(pkg-config --cflags --libs ring) -o upper
 *   ./upper serve 127.0.0.1:4801 1 &        # ends after one request
 *   echo hello | ./upper call 127.0.0.1:4801
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ring.h"

enum { CHUNK = 64 << 10 };

/* A chunk on its way out of the program: what the stream has not taken yet. */
struct chunk {
  uint8_t bytes[CHUNK];
  size_t at, len;
  uint32_t fin;
};

/* A text that is being sent back. */
struct text {
  struct text *next;
  ring_id_t stream;
  struct chunk chunk;
};

static int failed(const char *what, const ring_error_t *err) {
  fprintf(stderr, "%s: %s (%s)\n", what, err->text, ring_status_name(err->code));
  return 1;
}

static ring_op_t new_op(uint16_t code) {
  ring_op_t op;
  memset(&op, 0, sizeof op);
  op.size = sizeof op;
  op.op = code;
  return op;
}

/* Writes on: RING_OK when all of the chunk is written, RING_AGAIN to be called again at RING_EV_WRITABLE. */
static ring_status_t write_on(ring_node_t *node, ring_id_t stream, struct chunk *chunk) {
  ring_bytes_t rest = {chunk->bytes + chunk->at, chunk->len - chunk->at};
  size_t taken = 0;
  ring_status_t status = ring_stream_write(node, stream, rest, chunk->fin, &taken);
  chunk->at += taken;
  return status;
}

static struct text **find(struct text **texts, ring_id_t stream) {
  while (*texts && (*texts)->stream != stream) texts = &(*texts)->next;
  return *texts ? texts : NULL;
}

/* Writes back what came, and asks for as much again. 1: that was all, or nobody reads it. */
static int answer_on(ring_node_t *node, struct text *text) {
  size_t before = text->chunk.at;
  ring_status_t status = write_on(node, text->stream, &text->chunk);
  if (status == RING_OK && text->chunk.fin) return 1;
  if (status != RING_OK && status != RING_AGAIN) {
    (void)ring_stream_reset(node, text->stream, RING_UP | RING_DOWN);
    return 1;
  }
  /* What is allowed and what waits here is a chunk together. RING_CLOSED: its end is in the queue. */
  (void)ring_stream_credit(node, text->stream, text->chunk.at - before);
  return 0;
}

/* One event of the server; 1 when a text is over. */
static int serve_one(ring_node_t *node, ring_cq_t *cq, struct text **texts, const ring_event_t *ev) {
  struct text **place, *text;
  if (ev->kind == RING_EV_REQUEST) {
    ring_op_t op = new_op(RING_OP_RESPOND);
    ring_bytes_t rest = ring_fields(ev);
    ring_field_t field;
    op.target = ev->id;
    memset(&field, 0, sizeof field);
    while (ring_field_next(&rest, &field) && field.kind != RING_FIELD_STREAM) {
    }
    text = (struct text *)calloc(1, sizeof *text);
    if (!text || field.stream == 0 || field.ways != (RING_UP | RING_DOWN)) {
      free(text);
      op.flags = RING_ERROR;
      op.code = 1;
      op.value = ring_text("open one stream, both ways");
      (void)ring_submit(node, cq, &op, NULL);
      return 0;
    }
    text->stream = field.stream;
    text->next = *texts;
    *texts = text;
    (void)ring_stream_credit(node, text->stream, CHUNK);
    (void)ring_submit(node, cq, &op, NULL); /* the stream goes on after the answer */
    return 0;
  }
  if ((ev->kind != RING_EV_BODY && ev->kind != RING_EV_WRITABLE) || !(place = find(texts, ev->id))) return 0;
  text = *place;
  if (ev->kind == RING_EV_BODY && ev->status == RING_OK) {
    struct chunk *chunk = &text->chunk;
    memmove(chunk->bytes, chunk->bytes + chunk->at, chunk->len - chunk->at);
    chunk->len -= chunk->at;
    chunk->at = 0;
    if (ev->data.len > CHUNK - chunk->len) abort(); /* more than was allowed */
    for (size_t i = 0; i < ev->data.len; i++) chunk->bytes[chunk->len++] = (uint8_t)toupper(ev->data.ptr[i]);
    chunk->fin = (uint32_t)ev->b;
  }
  if (ev->status == RING_OK && !answer_on(node, text)) return 0;
  if (ev->status != RING_OK) (void)ring_stream_reset(node, text->stream, RING_UP | RING_DOWN);
  *place = text->next;
  free(text);
  return 1;
}

static int serve(ring_node_t *node, ring_cq_t *cq, long count) {
  struct text *texts = NULL;
  ring_id_t handler = 0;
  ring_op_t op = new_op(RING_OP_HANDLE);
  op.route = ring_text("upper");
  if (ring_submit(node, cq, &op, &handler) != RING_OK) return 1;
  printf("ready\n");
  fflush(stdout);
  for (int closed = 0; !closed;) {
    ring_event_t events[64];
    if (ring_cq_wait(cq, -1) != RING_OK) return 1;
    int32_t n = ring_cq_drain(cq, events, 64);
    for (int32_t i = 0; i < n; i++) {
      closed |= events[i].kind == RING_EV_CLOSED;
      if (serve_one(node, cq, &texts, &events[i]) && --count == 0) {
        (void)ring_cancel(node, handler);
        (void)ring_node_close(node, cq, 0, -1);
      }
    }
    ring_events_release(events, n < 0 ? 0 : (uint32_t)n);
  }
  return 0;
}

static int call(ring_node_t *node, ring_cq_t *cq) {
  ring_stream_t stream = {ring_text("text"), RING_UP | RING_DOWN, 0};
  ring_op_t op = new_op(RING_OP_REQUEST);
  ring_id_t id = 0;
  struct chunk chunk = {{0}, 0, 0, 0};
  op.route = ring_text("upper");
  op.key = ring_text("any");
  op.streams = &stream;
  op.n_streams = 1;
  if (ring_submit(node, cq, &op, &id) != RING_OK) return 1;
  ring_id_t text = id + 1;
  if (ring_stream_credit(node, text, CHUNK) != RING_OK) return 1;
  int result = -1, answered = 0, ended = 0, waits = 0;
  while (result < 0) {
    while (!waits && !chunk.fin) {
      chunk.at = 0;
      chunk.len = fread(chunk.bytes, 1, CHUNK, stdin);
      chunk.fin = chunk.len < CHUNK;
      ring_status_t status = write_on(node, text, &chunk);
      waits = status == RING_AGAIN;
      if (status != RING_OK && !waits) break; /* an event says why */
    }
    ring_event_t ev;
    int32_t n = ring_cq_drain(cq, &ev, 1);
    if (n == 0) {
      if (ring_cq_wait(cq, -1) != RING_OK) return 1;
      continue;
    }
    if (n < 0) return 1;
    if (ev.kind == RING_EV_DONE) answered = 1;
    if (ev.kind == RING_EV_BODY) {
      fwrite(ev.data.ptr, 1, ev.status == RING_OK ? ev.data.len : 0, stdout);
      ended = ev.b == 1;
      if (!ended) (void)ring_stream_credit(node, text, ev.data.len);
    }
    if (ev.kind == RING_EV_WRITABLE && ev.status == RING_OK) waits = write_on(node, text, &chunk) == RING_AGAIN;
    if (ev.status != RING_OK) {
      fprintf(stderr, "%.*s\n", (int)ev.data.len, (const char *)ev.data.ptr);
      result = 1;
    } else if (answered && ended) {
      result = 0;
    }
    ring_events_release(&ev, 1);
  }
  return result;
}

int main(int argc, char **argv) {
  int serves = argc > 1 && strcmp(argv[1], "serve") == 0;
  if (argc < 3 || argc > 3 + serves || (!serves && strcmp(argv[1], "call") != 0)) {
    fprintf(stderr, "usage: upper serve HOST:PORT [COUNT] | upper call HOST:PORT\n");
    return 2;
  }
  ring_error_t err = {sizeof err, RING_OK, 0, ""};
  ring_bytes_t address = ring_text(argv[2]);
  ring_options_t options;
  ring_options_init(&options, sizeof options);
  options.flags = serves ? RING_MEMORY : RING_CLIENT;
  if (serves) options.listen = address;
  else options.join = &address;
  options.n_join = serves ? 0 : 1;
  ring_node_t *node = NULL;
  ring_cq_t *cq = NULL;
  if (ring_cq_open(NULL, &cq, &err) != RING_OK) return failed("queue", &err);
  if (ring_node_open(&options, NULL, &node, &err) != RING_OK) return failed("open", &err);
  int result = serves ? serve(node, cq, argc > 3 ? atol(argv[3]) : 0) : call(node, cq);
  ring_node_free(node);
  ring_cq_free(cq);
  return result;
}
