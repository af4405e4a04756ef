/* What was made before fork() answers RING_FORKED in the child, which can make its own. */
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

int main(void) {
  ring_node_t *node = new_node();
  ring_cq_t *cq = new_queue();
  ring_op_t op = new_op(RING_OP_PUT, 1, "k", "v");
  CHECK_STATUS(ring_submit(node, cq, &op, NULL), RING_OK);
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    ring_event_t ev;
    char packed[64];
    CHECK_STATUS(ring_submit(node, cq, &op, NULL), RING_FORKED);
    CHECK_STATUS(ring_call(node, &op, &ev, NULL), RING_FORKED);
    CHECK_STATUS(ring_cancel(node, 1), RING_FORKED);
    CHECK_STATUS(ring_cq_wait(cq, -1), RING_FORKED);
    CHECK_STATUS(ring_cq_drain(cq, &ev, 1), RING_FORKED);
    CHECK(ring_cq_drain_packed(cq, packed, sizeof packed) == RING_FORKED);
    CHECK_STATUS(ring_cq_fd(cq), RING_FORKED);
    CHECK_STATUS(ring_node_close(node, cq, 1, -1), RING_FORKED);
    ring_cq_wakeup(cq);
    ring_node_free(node);
    ring_cq_free(cq);
    ring_node_t *own = new_node();
    ring_cq_t *queue = new_queue();
    CHECK_STATUS(ring_call(own, &op, &ev, NULL), RING_OK);
    CHECK_STATUS(ring_submit(own, cq, &op, NULL), RING_FORKED); /* the parent's queue */
    close_all(own, queue);
    /* What the parent's threads held stays in a child for ever; a program that checks for leaks is not to count it. */
    execlp("true", "true", (char *)NULL);
    _exit(1);
  }
  int status = 1;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  CHECK_STATUS(next_event(cq, NULL, 0).status, RING_OK); /* the parent goes on */
  close_all(node, cq);
  return 0;
}
