/* A log of one's own: each node's lines reach its host, one line each, until log_free, which comes once. argv: a directory,
 * an address. */
#include <stdint.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

/* What one node said. */
struct seen {
  pthread_mutex_t lock;
  int lines, warnings, errors, frees, up, closed, panics;
  char warning[512];
};

static ring_cq_t *queue; /* of calls from inside of the callback */

static int has(ring_bytes_t line, const char *text) {
  size_t len = strlen(text);
  for (size_t i = 0; i + len <= line.len; i++)
    if (memcmp(line.ptr + i, text, len) == 0) return 1;
  return 0;
}

static void on_log(void *arg, int32_t level, ring_bytes_t line) {
  struct seen *seen = (struct seen *)arg;
  pthread_mutex_lock(&seen->lock);
  CHECK(seen->frees == 0);
  CHECK(level >= RING_LOG_ERROR && level <= RING_LOG_TRACE && line.len > 0 && line.len <= 4096);
  for (size_t i = 0; i < line.len; i++) CHECK(line.ptr[i] >= 0x20 && line.ptr[i] != 0x7f);
  CHECK(line.ptr[line.len - 1] == ']' && has(line, " [libring") + has(line, " [ring") == 1);
  seen->lines++;
  seen->errors += level == RING_LOG_ERROR;
  if (level == RING_LOG_WARN) {
    size_t len = line.len < sizeof seen->warning - 1 ? line.len : sizeof seen->warning - 1;
    memcpy(seen->warning, line.ptr, len);
    seen->warning[len] = 0;
    seen->warnings++;
  }
  seen->up += has(line, "up cluster=") && has(line, " name=\"ring\"");
  seen->closed += line.len > 7 && memcmp(line.ptr, "closed ", 7) == 0;
  seen->panics += level == RING_LOG_ERROR && has(line, "asked for");
  pthread_mutex_unlock(&seen->lock);
  /* What is not for callbacks. */
  ring_options_t options;
  ring_node_t *node = NULL;
  ring_options_init(&options, sizeof options);
  options.flags = RING_MEMORY;
  options.log_arg = arg;
  options.log = on_log;
  CHECK_STATUS(ring_node_open(&options, NULL, &node, NULL), RING_MISUSE);
  CHECK_STATUS(ring_cq_wait(queue, -1), RING_MISUSE);
  CHECK(ring_cq_fd(queue) == RING_MISUSE);
  ring_cq_free(queue);   /* does nothing here */
  ring_cq_wakeup(queue); /* is allowed */
}

static void on_free(void *arg) {
  struct seen *seen = (struct seen *)arg;
  CHECK(ring_cq_fd(queue) == RING_MISUSE);
  pthread_mutex_lock(&seen->lock);
  seen->frees++;
  pthread_mutex_unlock(&seen->lock);
}

static ring_options_t new_options(struct seen *seen) {
  ring_options_t o;
  memset(seen, 0, sizeof *seen);
  CHECK(pthread_mutex_init(&seen->lock, NULL) == 0);
  ring_options_init(&o, sizeof o);
  o.flags = RING_MEMORY;
  o.shards = 4;
  o.log = on_log;
  o.log_arg = seen;
  o.log_free = on_free;
  return o;
}

static void write_file(const char *dir, const char *name) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", dir, name);
  FILE *file = fopen(path, "w");
  CHECK(file && fputs("nothing of use\n", file) >= 0 && fclose(file) == 0);
  CHECK(chmod(path, 0644) == 0);
}

/* Whatever ring_node_open() fails with, log_free has been called when it returns. */
static void opens_that_fail(const char *dir) {
  struct seen seen;
  ring_node_t *node = NULL;
  ring_options_t o = new_options(&seen);
  CHECK_STATUS(ring_node_open(&o, NULL, NULL, NULL), RING_INVALID);
  CHECK(seen.frees == 1 && seen.lines == 0);

  o = new_options(&seen);
  o.log_level = RING_LOG_TRACE + 1;
  CHECK_STATUS(ring_node_open(&o, NULL, &node, NULL), RING_INVALID);
  CHECK(seen.frees == 1 && seen.lines == 0);

  o = new_options(&seen);
  o.reserved4 = 1;
  CHECK_STATUS(ring_node_open(&o, NULL, &node, NULL), RING_INVALID);
  CHECK(seen.frees == 1 && seen.lines == 0);

  o = new_options(&seen);
  o.log = NULL;
  o.name.ptr = (const uint8_t *)"\xff";
  o.name.len = 1;
  CHECK_STATUS(ring_node_open(&o, NULL, &node, NULL), RING_INVALID);
  CHECK(seen.frees == 1);

  o = new_options(&seen); /* these cannot be read: nobody knows what they hold */
  o.size = offsetof(ring_options_t, log_free);
  CHECK_STATUS(ring_node_open(&o, NULL, &node, NULL), RING_INVALID);
  CHECK(seen.frees == 0);

  /* The keys are of no use, and before that: everybody may read them. The name of their directory ends no line. */
  char keys[4000];
  snprintf(keys, sizeof keys, "%s/a\nb", dir);
  CHECK(mkdir(dir, 0700) == 0 && mkdir(keys, 0700) == 0);
  write_file(keys, "ca.pem");
  write_file(keys, "certificate.pem");
  write_file(keys, "key.pem");
  o = new_options(&seen);
  o.keys_dir = ring_text(keys);
  CHECK_STATUS(ring_node_open(&o, NULL, &node, NULL), RING_INVALID);
  CHECK(seen.frees == 1 && seen.warnings == 1 && seen.lines == 1);
  CHECK(strstr(seen.warning, "/a\\nb/key.pem") && strstr(seen.warning, "chmod 600"));
}

/* A host of a former version has no log, whatever lies behind its struct. */
static void former_host(void) {
  struct seen seen;
  ring_node_t *node = NULL;
  ring_options_t o = new_options(&seen);
  o.size = offsetof(ring_options_t, log);
  CHECK_STATUS(ring_node_open(&o, NULL, &node, NULL), RING_OK);
  ring_node_free(node);
  CHECK(seen.frees == 0 && seen.lines == 0);
}

/* Two nodes: each hears of itself; closed, then freed, or freed at once. */
static void ends(void) {
  struct seen one, two, quiet;
  ring_node_t *first = NULL, *second = NULL, *third = NULL;
  ring_options_t o = new_options(&one);
  CHECK_STATUS(ring_node_open(&o, NULL, &first, NULL), RING_OK);
  o = new_options(&two);
  CHECK_STATUS(ring_node_open(&o, NULL, &second, NULL), RING_OK);
  o = new_options(&quiet);
  o.log_level = RING_LOG_ERROR;
  CHECK_STATUS(ring_node_open(&o, NULL, &third, NULL), RING_OK);
  ring_node_t *silent = new_node(); /* it has none: the others hear nothing of it */
  ring_node_free(silent);
  ring_cq_t *cq = new_queue();
  CHECK_STATUS(ring_node_close(first, cq, 1, -1), RING_OK);
  CHECK(next_event(cq, NULL, 0).kind == RING_EV_CLOSED);
  CHECK(one.frees == 0 && one.up == 1 && one.closed == 1);
  CHECK(two.closed == 0);
  ring_node_free(first);
  CHECK(one.frees == 1);
  ring_node_free(second);
  CHECK(two.frees == 1 && two.up == 1 && two.closed == 1 && two.warnings + two.errors == 0);
  close_all(third, cq);
  CHECK(quiet.frees == 1 && quiet.lines == 0);
}

/* Freed while everything is logged. */
static void free_in_flight(void) {
  for (int round = 0; round < 10; round++) {
    struct seen seen;
    ring_node_t *node = NULL;
    ring_cq_t *cq = new_queue();
    ring_options_t o = new_options(&seen);
    o.log_level = RING_LOG_TRACE;
    CHECK_STATUS(ring_node_open(&o, cq, &node, NULL), RING_OK);
    for (int i = 0; i < 50; i++) {
      ring_op_t op = new_op(RING_OP_PUT, 1, "k", "v");
      CHECK_STATUS(ring_submit(node, cq, &op, NULL), RING_OK);
    }
    ring_node_free(node);
    CHECK(seen.frees == 1 && seen.up == 1);
    ring_cq_free(cq);
  }
}

/* A client of another cluster: both sides say so. It is not up in time, and what is left of it is silent. */
static void refused_peer(const char *address) {
  struct seen here, there;
  ring_node_t *node = NULL, *client = NULL;
  ring_options_t o = new_options(&here);
  o.listen = ring_text(address);
  CHECK_STATUS(ring_node_open(&o, NULL, &node, NULL), RING_OK);
  o = new_options(&there);
  ring_bytes_t join = ring_text(address);
  o.flags = RING_CLIENT;
  o.cluster = ring_text("another");
  o.join = &join;
  o.n_join = 1;
  o.open_timeout_ns = 2 * SECONDS;
  ring_status_t s = ring_node_open(&o, NULL, &client, NULL);
  CHECK(s != RING_OK && there.frees == 1);
  CHECK(there.warnings >= 1 && strstr(there.warning, "its cluster is called \"ring\""));
  ring_node_free(node);
  CHECK(here.frees == 1 && here.warnings >= 1 && strstr(here.warning, "it was refused, and told"));
}

/* A defect is logged where it is met, and as what ends the node. */
static void panic(void) {
  for (int there = 0; there < 2; there++) {
    struct seen seen;
    ring_node_t *node = NULL;
    ring_cq_t *cq = new_queue();
    ring_options_t o = new_options(&seen);
    CHECK_STATUS(ring_node_open(&o, NULL, &node, NULL), RING_OK);
    ring_op_t op = new_op(there ? TEST_PANIC_THERE : TEST_PANIC_HERE, 2, "", "");
    CHECK_STATUS(ring_submit(node, cq, &op, NULL), there ? RING_OK : RING_PANICKED);
    if (there) CHECK_STATUS(next_event(cq, NULL, 0).status, RING_PANICKED);
    ring_node_free(node);
    ring_cq_free(cq);
    CHECK(seen.frees == 1 && seen.panics >= 1);
  }
}

/* In a child nothing of the parent's is called; it may log itself. */
static void child(void) {
  struct seen seen, own;
  ring_node_t *node = NULL, *other = NULL;
  ring_options_t o = new_options(&seen);
  CHECK_STATUS(ring_node_open(&o, NULL, &node, NULL), RING_OK);
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    ring_cq_free(queue);
    queue = new_queue();
    int lines = seen.lines;
    ring_node_free(node);
    CHECK(seen.frees == 0 && seen.lines == lines);
    o = new_options(&own);
    CHECK_STATUS(ring_node_open(&o, NULL, &other, NULL), RING_OK);
    ring_node_free(other);
    CHECK(own.frees == 1 && own.up == 1 && seen.lines == lines);
    execlp("true", "true", (char *)NULL);
    _exit(1);
  }
  int status = 1;
  CHECK(waitpid(pid, &status, 0) == pid && status == 0);
  ring_node_free(node);
  CHECK(seen.frees == 1);
}

int main(int argc, char **argv) {
  CHECK(argc == 3);
  queue = new_queue();
  opens_that_fail(argv[1]);
  former_host();
  ends();
  free_in_flight();
  refused_peer(argv[2]);
  panic();
  child();
  ring_cq_free(queue);
  return 0;
}
