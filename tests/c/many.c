/* Opens and frees nodes, argv[1] times: no thread, descriptor or byte is left. */
#include <dirent.h>

#include "check.h"

static int entries(const char *path) {
  DIR *dir = opendir(path);
  CHECK(dir);
  int n = 0;
  while (readdir(dir)) n++;
  closedir(dir);
  return n;
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  int rounds = atoi(argv[1]), threads = 0, files = 0;
  for (int i = 0; i < rounds; i++) {
    ring_cq_t *cq = new_queue();
    ring_node_t *node = new_node();
    ring_op_t op = new_op(RING_OP_PUT, 1, "k", "v");
    CHECK_STATUS(ring_submit(node, cq, &op, NULL), RING_OK);
    if (i % 4 == 0) {
      close_all(node, cq);
    } else if (i % 4 == 1) {
      ring_cq_free(cq);
      ring_node_free(node);
    } else {
      ring_node_free(node);
      ring_cq_free(cq);
    }
    if (i == 4) {
      threads = entries("/proc/self/task");
      files = entries("/proc/self/fd");
    }
  }
  CHECK(rounds > 5);
  CHECK(entries("/proc/self/task") <= threads && entries("/proc/self/fd") <= files);
  return 0;
}
