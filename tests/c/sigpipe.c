/* A peer that closes while the library writes to it: no SIGPIPE, and no signal on a thread of the library. argv[1]:
 * an address to listen on. */
#include <arpa/inet.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"

static pthread_t main_thread;
static volatile sig_atomic_t handled, elsewhere;

static void on_signal(int number) {
  (void)number;
  handled = 1;
  if (!pthread_equal(pthread_self(), main_thread)) elsewhere = 1;
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  main_thread = pthread_self();
  signal(SIGUSR1, on_signal);
  char *colon = strrchr(argv[1], ':');
  CHECK(colon);
  struct sockaddr_in address;
  memset(&address, 0, sizeof address);
  address.sin_family = AF_INET;
  address.sin_port = htons((uint16_t)atoi(colon + 1));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);

  /* A member of three, whose first peer is this socket: it dials, says hello, and is cut off again and again. */
  int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
  CHECK(listener >= 0);
  CHECK(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) == 0);
  CHECK(bind(listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(listener, 8) == 0);
  ring_bytes_t join = ring_text(argv[1]);
  ring_options_t options;
  ring_options_init(&options, sizeof options);
  options.flags = RING_CLIENT;
  options.join = &join;
  options.n_join = 1;
  options.timeout_ns = 3 * SECONDS;
  ring_node_t *node = NULL;
  ring_error_t err;
  err.size = sizeof err;
  pid_t peer = fork();
  CHECK(peer >= 0);
  if (peer == 0) {
    for (;;) {
      int conn = accept(listener, NULL, NULL);
      struct linger now = {1, 0}; /* a reset: what the other side writes next is a write to a closed peer */
      CHECK(setsockopt(conn, SOL_SOCKET, SO_LINGER, &now, sizeof now) == 0);
      close(conn);
    }
  }
  close(listener);
  CHECK_STATUS(ring_node_open(&options, NULL, &node, &err), RING_TIMEOUT); /* SIGPIPE would have ended us */
  kill(peer, SIGKILL);

  /* Signals of the process are for the host's threads. */
  node = new_node();
  for (int i = 0; i < 50; i++) {
    handled = 0;
    kill(getpid(), SIGUSR1);
    while (!handled) usleep(100);
  }
  CHECK(!elsewhere);
  ring_node_free(node);
  return 0;
}
