/* Three members in one thread, on this program's own clock, network and disk, all drawn from a seed: connections break
 * and what was on them is lost, delays reorder what travels on different connections, disks take their time. A writer
 * and readers check that reads are linearizable; two runs of a seed must agree to the last bit. argv[1..]: seeds. */
#include "check.h"

enum { MEMBERS = 3, CONNS = 8192, WRITES = 120 };
#define MS 1000000ULL
#define WATCH (~1ULL)

struct input {
  uint64_t at, order;
  int to;
  uint32_t kind;
  uint64_t conn, token;
  uint8_t *data;
  size_t len;
};

struct conn {
  int ends[2]; /* who dialled, who accepted */
  int up;
  uint64_t last[2]; /* when the last thing arrives at each end: a connection keeps its order */
};

struct world {
  uint64_t dice, now, order, next_conn, stored[MEMBERS];
  ring_core_t *members[MEMBERS];
  struct conn conns[CONNS];
  struct input *heap;
  size_t len, room;
  int faults, breaks;
  /* The writer's: one write at a time, values that only rise. */
  uint64_t writing, acked, writes_done, unknown, read_from, reads_done;
  int write_open, read_open;
  /* A watch of what is written, begun again after what it told when it fails. */
  uint64_t watch_after, watch_told, changes;
  int watch_open;
};

static uint64_t draw(struct world *w) { /* splitmix64 */
  uint64_t z = (w->dice += 0x9E3779B97F4A7C15ULL);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  return z ^ (z >> 31);
}

static int before(const struct input *a, const struct input *b) {
  return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void push(struct world *w, struct input in) {
  in.order = w->order++;
  if (w->len == w->room) {
    w->room = w->room ? 2 * w->room : 1024;
    w->heap = (struct input *)realloc(w->heap, w->room * sizeof *w->heap);
    CHECK(w->heap);
  }
  size_t i = w->len++;
  for (; i > 0 && before(&in, &w->heap[(i - 1) / 2]); i = (i - 1) / 2) w->heap[i] = w->heap[(i - 1) / 2];
  w->heap[i] = in;
}

static struct input pop(struct world *w) {
  struct input top = w->heap[0], last = w->heap[--w->len];
  size_t i = 0;
  for (;;) {
    size_t child = 2 * i + 1;
    if (child >= w->len) break;
    if (child + 1 < w->len && before(&w->heap[child + 1], &w->heap[child])) child++;
    if (!before(&w->heap[child], &last)) break;
    w->heap[i] = w->heap[child];
    i = child;
  }
  w->heap[i] = last;
  return top;
}

/* Something for one end of a connection, behind all that is on its way there. */
static void along(struct world *w, uint64_t conn, int end, uint32_t kind, uint64_t token, ring_bytes_t data) {
  struct conn *c = &w->conns[conn];
  struct input in;
  memset(&in, 0, sizeof in);
  in.at = w->now + MS / 10 + draw(w) % (w->faults ? 40 * MS : 2 * MS);
  if (in.at < c->last[end]) in.at = c->last[end];
  c->last[end] = in.at;
  in.to = c->ends[end];
  in.kind = kind;
  in.conn = conn;
  in.token = token;
  if (data.len) {
    in.data = (uint8_t *)malloc(data.len);
    CHECK(in.data);
    memcpy(in.data, data.ptr, data.len);
    in.len = data.len;
  }
  push(w, in);
}

static void on_event(struct world *w, int me, const ring_event_t *ev) {
  (void)me;
  if (ev->tag == WATCH) {
    if (ev->kind == RING_EV_DONE) {
      CHECK(ev->status == RING_TIMEOUT || ev->status == RING_COMPACTED);
      w->watch_after = ev->status == RING_COMPACTED ? 0 : ev->a;
      w->watch_open = 0;
    } else if (ev->kind == RING_EV_CHANGED) {
      CHECK(ev->a == 8 && ev->data.len == 16 && memcmp(ev->data.ptr, "register", 8) == 0);
      CHECK(ev->b > w->watch_told); /* each once, in order */
      w->watch_told = ev->b;
      w->changes++;
    } else {
      CHECK(ev->kind == RING_EV_WATCHING);
    }
    return;
  }
  if (ev->kind != RING_EV_DONE) return;
  uint64_t value = 0;
  if (ev->tag & 1) { /* the write */
    CHECK(ev->tag >> 1 == w->writing);
    CHECK(ev->status == RING_OK || ev->status == RING_OUTCOME_UNKNOWN || ev->status == RING_TIMEOUT);
    if (ev->status == RING_OK) w->acked = w->writing;
    if (ev->status == RING_OUTCOME_UNKNOWN) w->unknown++;
    w->write_open = 0;
    w->writes_done++;
    return;
  }
  CHECK(ev->status == RING_OK || ev->status == RING_NOT_FOUND || ev->status == RING_TIMEOUT);
  if (ev->status != RING_TIMEOUT) {
    if (ev->status == RING_OK) {
      CHECK(ev->data.len == sizeof value);
      memcpy(&value, ev->data.ptr, sizeof value);
    }
    /* It sees at least what was acknowledged when it began, and nothing that was not begun. */
    CHECK(value >= w->read_from && value <= w->writing);
    if (value > w->acked) w->acked = value; /* what one read saw no later read may miss */
    w->reads_done++;
  }
  w->read_open = 0;
}

static void take_effects(struct world *w, int me) {
  ring_effect_t fx;
  for (;;) {
    CHECK_STATUS(ring_core_next(w->members[me], &fx), RING_OK);
    CHECK(fx.size == sizeof fx);
    if (fx.kind == RING_FX_NONE) return;
    struct conn *c = fx.peer < CONNS ? &w->conns[fx.peer] : NULL;
    switch (fx.kind) {
      case RING_FX_CONNECT: {
        CHECK(fx.data.len == 2 && fx.data.ptr[0] == 'm');
        int to = fx.data.ptr[1] - '0';
        struct input in;
        memset(&in, 0, sizeof in);
        if (w->faults && draw(w) % 3 == 0) {
          in.at = w->now + draw(w) % (20 * MS);
          in.to = me;
          in.kind = RING_IN_CONNECT_FAILED;
          in.token = fx.token;
          push(w, in);
          break;
        }
        uint64_t conn = w->next_conn++;
        CHECK(conn < CONNS);
        w->conns[conn].ends[0] = me;
        w->conns[conn].ends[1] = to;
        w->conns[conn].up = 1;
        along(w, conn, 0, RING_IN_CONNECTED, fx.token, none());
        along(w, conn, 1, RING_IN_CONNECTED, 0, none());
        break;
      }
      case RING_FX_SEND:
        CHECK(c);
        if (c->up) along(w, fx.peer, c->ends[0] == me, RING_IN_BYTES, 0, fx.data);
        break;
      case RING_FX_DISCONNECT:
        CHECK(c);
        if (c->up) along(w, fx.peer, c->ends[0] == me, RING_IN_DISCONNECTED, 0, none());
        break;
      case RING_FX_STORE: {
        CHECK(fx.data.len > 0 && fx.token > w->stored[me]);
        w->stored[me] = fx.token;
        struct input in;
        memset(&in, 0, sizeof in);
        in.at = w->now + MS / 10 + draw(w) % (3 * MS);
        in.to = me;
        in.kind = RING_IN_STORED;
        in.token = fx.token; /* they may come in another order: the last one counts */
        push(w, in);
        break;
      }
      case RING_FX_EVENT: on_event(w, me, &fx.event); break;
      case RING_FX_DISCARD: break;
      default:
        fprintf(stderr, "member %d: effect %u: %.*s\n", me, fx.kind, (int)fx.data.len, (const char *)fx.data.ptr);
        exit(1);
    }
  }
}

static void tell(struct world *w, int me, uint32_t kind, uint64_t conn, uint64_t token, ring_bytes_t data) {
  ring_input_t in;
  memset(&in, 0, sizeof in);
  in.size = sizeof in;
  in.kind = kind;
  in.peer = conn;
  in.token = token;
  in.data = data;
  CHECK_STATUS(ring_core_input(w->members[me], w->now, &in), RING_OK);
  take_effects(w, me);
}

static void deliver(struct world *w, struct input in) {
  int lost = 0;
  if (in.kind == RING_IN_BYTES || in.kind == RING_IN_CONNECTED) lost = !w->conns[in.conn].up;
  if (lost && in.kind == RING_IN_CONNECTED) {
    if (in.token) tell(w, in.to, RING_IN_CONNECT_FAILED, 0, in.token, none());
  } else if (!lost) {
    ring_bytes_t data;
    data.ptr = in.data;
    data.len = in.len;
    tell(w, in.to, in.kind, in.conn, in.token, data);
    if (in.kind == RING_IN_DISCONNECTED) w->conns[in.conn].up = 0;
  }
  free(in.data);
}

/* A connection breaks: what is on its way is lost, and both ends hear of it, in their time. */
static void break_one(struct world *w) {
  if (w->next_conn < 2) return;
  uint64_t recent = w->next_conn < 9 ? w->next_conn - 1 : 8, conn = w->next_conn - 1 - draw(w) % recent;
  if (!w->conns[conn].up) return;
  along(w, conn, 0, RING_IN_DISCONNECTED, 0, none());
  along(w, conn, 1, RING_IN_DISCONNECTED, 0, none());
  w->conns[conn].up = 0;
  w->breaks++;
}

static void work(struct world *w) {
  if (!w->watch_open) {
    ring_op_t op = new_op(RING_OP_WATCH, WATCH, "register", "");
    if (w->watch_after) op.flags = RING_AFTER;
    op.expect = w->watch_after;
    w->watch_open = 1;
    CHECK_STATUS(ring_core_submit(w->members[0], w->now, &op, NULL), RING_OK);
    take_effects(w, 0);
  }
  if (!w->write_open) {
    w->writing++;
    ring_op_t op = new_op(RING_OP_PUT, w->writing << 1 | 1, "register", "");
    op.value.ptr = (const uint8_t *)&w->writing;
    op.value.len = sizeof w->writing;
    op.timeout_ns = 3 * SECONDS;
    int me = (int)(draw(w) % MEMBERS);
    w->write_open = 1;
    CHECK_STATUS(ring_core_submit(w->members[me], w->now, &op, NULL), RING_OK);
    take_effects(w, me);
  }
  if (!w->read_open) {
    ring_op_t op = new_op(RING_OP_GET, w->writing << 1, "register", "");
    op.timeout_ns = 3 * SECONDS;
    int me = (int)(draw(w) % MEMBERS);
    w->read_open = 1;
    w->read_from = w->acked;
    CHECK_STATUS(ring_core_submit(w->members[me], w->now, &op, NULL), RING_OK);
    take_effects(w, me);
  }
}

static uint64_t run(uint64_t seed) {
  struct world *w = (struct world *)calloc(1, sizeof *w);
  CHECK(w);
  w->dice = seed;
  w->next_conn = 1;
  w->now = 1000 * MS;
  static const char *names[MEMBERS] = {"a", "b", "c"}, *members[MEMBERS] = {"a=m0", "b=m1", "c=m2"};
  ring_bytes_t list[MEMBERS];
  for (int i = 0; i < MEMBERS; i++) list[i] = ring_text(members[i]);
  for (int i = 0; i < MEMBERS; i++) {
    ring_core_options_t o;
    memset(&o, 0, sizeof o);
    o.size = sizeof o;
    o.name = ring_text(names[i]);
    o.members = list;
    o.n_members = MEMBERS;
    o.shards = 4;
    o.seed = draw(w);
    o.now_ns = w->now;
    ring_error_t err;
    err.size = sizeof err;
    if (ring_core_open(&o, &w->members[i], &err) != RING_OK) {
      fprintf(stderr, "%s\n", err.text);
      exit(1);
    }
    take_effects(w, i);
  }
  /* It neither asks nor handles, and says so. */
  static const uint16_t refused[] = {RING_OP_REQUEST, RING_OP_HANDLE, RING_OP_RESPOND,
                                     RING_OP_TRACK, RING_OP_REPLICA, RING_OP_METRICS};
  for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
    ring_op_t op = new_op(refused[i], 2, "k", "");
    op.route = ring_text(refused[i] == RING_OP_REQUEST || refused[i] == RING_OP_HANDLE ? "r" : "");
    CHECK_STATUS(ring_core_submit(w->members[0], w->now, &op, NULL), RING_UNSUPPORTED);
  }
  uint64_t next_work = w->now, next_break = w->now + 3000 * MS, end = w->now + 120000 * MS;
  while (w->writes_done < WRITES) {
    CHECK(w->now < end); /* it must finish: a majority always talks in the end */
    w->faults = w->writes_done > 10 && w->writes_done < WRITES - 20;
    uint64_t at = w->len ? w->heap[0].at : UINT64_MAX;
    int due = -1; /* what comes first: -1 a delivery, else a member's timer, MEMBERS work, MEMBERS + 1 a break */
    for (int i = 0; i < MEMBERS; i++) {
      int64_t deadline = ring_core_deadline(w->members[i]);
      if (deadline >= 0 && (uint64_t)deadline < at) {
        at = (uint64_t)deadline;
        due = i;
      }
    }
    if (next_work < at) {
      at = next_work;
      due = MEMBERS;
    }
    if (w->faults && next_break < at) {
      at = next_break;
      due = MEMBERS + 1;
    }
    if (at > w->now) w->now = at;
    if (due == -1) {
      deliver(w, pop(w));
    } else if (due < MEMBERS) {
      tell(w, due, RING_IN_WAKEUP, 0, 0, none());
    } else if (due == MEMBERS) {
      work(w);
      next_work = w->now + 20 * MS;
    } else {
      break_one(w);
      next_break = w->now + draw(w) % (300 * MS);
    }
  }
  CHECK(w->reads_done > WRITES / 4 && w->acked > WRITES / 2 && w->breaks > 5);
  CHECK(w->changes > WRITES / 2);
  uint64_t digest = 0;
  for (int i = 0; i < MEMBERS; i++) digest = digest * 31 + ring_core_digest(w->members[i]);
  printf("seed %llu: %llu writes, %llu reads, %llu unknown, %d breaks, %llu s, digest %016llx\n",
         (unsigned long long)seed, (unsigned long long)w->writes_done, (unsigned long long)w->reads_done,
         (unsigned long long)w->unknown, w->breaks, (unsigned long long)(w->now / (1000 * MS)),
         (unsigned long long)digest);
  for (int i = 0; i < MEMBERS; i++) ring_core_free(w->members[i]);
  while (w->len) free(pop(w).data);
  free(w->heap);
  free(w);
  return digest;
}

int main(int argc, char **argv) {
  uint64_t last = 0;
  CHECK(argc > 1);
  for (int i = 1; i < argc; i++) {
    uint64_t seed = strtoull(argv[i], NULL, 10), digest = run(seed);
    CHECK(run(seed) == digest);
    CHECK(digest != last);
    last = digest;
  }
  return 0;
}
