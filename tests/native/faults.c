/* A library to preload: counts what a process does to the files below one directory, and lets the nth such call
 * crash or fail.
 *
 * | variable | what it says |
 * |---|---|
 * | RING_FAULT_DIR | the directory, absolute and without symbolic links |
 * | RING_FAULT_LOG | a file elsewhere; a line is appended for each call before it is made: number, name, path |
 * | RING_FAULT | what happens: KIND@N at the call with number N, counted from 1 over all threads; or `nosync` |
 *
 * | kind | what happens |
 * |---|---|
 * | kill | the process is killed before the call |
 * | torn | a write writes half, any other call is carried out; then the process is killed |
 * | eio | the call fails with EIO and does nothing |
 * | enospc | the same with ENOSPC, for this call and every later one that needs room |
 * | short | a write writes half, and says so |
 * | lost | a sync fails with EIO and what was written since the last sync is gone, as a kernel may drop dirty pages
 *          that it could not write; any other call fails as with `eio` |
 * | lie | a sync says that it succeeded although what was written since the last one is gone; the process is killed
 *         before the next write |
 * | nosync | every sync says that it succeeded and does nothing: a disk that lies |
 *
 * Only calls that go through the C library are seen. A test compares the count with that of a tracer.
 */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { NONE, KILL, TORN, EIO_, ENOSPC_, SHORT, LOST, LIE, NOSYNC };
/* What a call is, as far as faults tell calls apart. */
enum call { READ, WRITE, SYNC, ROOM, OTHER };

static const char *dir;
static size_t dir_len;
static int log_fd = -1;
static enum kind kind;
static long at;
static atomic_long count;
/* By descriptor: how much of the file is known durable. */
enum { FDS = 4096 };
static atomic_long durable[FDS];

__attribute__((constructor)) static void begin(void) {
    static const char *const names[] = {"", "kill", "torn", "eio", "enospc", "short", "lost", "lie", "nosync"};
    dir = getenv("RING_FAULT_DIR");
    dir_len = dir ? strlen(dir) : 0;
    const char *log = getenv("RING_FAULT_LOG");
    if (log) {
        log_fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    }
    const char *fault = getenv("RING_FAULT");
    if (!fault) {
        return;
    }
    size_t len = strcspn(fault, "@");
    for (int k = KILL; k <= NOSYNC; k++) {
        if (strlen(names[k]) == len && strncmp(names[k], fault, len) == 0) {
            kind = (enum kind)k;
        }
    }
    at = fault[len] == '@' ? atol(fault + len + 1) : 0;
    if (kind == NONE || (kind != NOSYNC && at <= 0)) {
        static const char wrong[] = "faults: RING_FAULT is not understood\n";
        syscall(SYS_write, 2, wrong, sizeof wrong - 1);
        _exit(99);
    }
}

static int is_ours(const char *path) {
    return dir_len && strncmp(path, dir, dir_len) == 0 && (path[dir_len] == '/' || path[dir_len] == 0);
}

/* The path of a descriptor; empty when it has none. */
static void path_of(int fd, char path[PATH_MAX]) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long len = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    path[len > 0 ? len : 0] = 0;
}

/* The path that a name in a directory stands for. */
static void path_in(int at_fd, const char *name, char path[PATH_MAX]) {
    size_t len = 0;
    path[0] = 0;
    if (name[0] != '/' && at_fd != AT_FDCWD) {
        path_of(at_fd, path);
        len = strlen(path);
        if (len + 1 < PATH_MAX) {
            path[len++] = '/';
        }
    }
    snprintf(path + len, PATH_MAX - len, "%s", name);
}

static void die(void) {
    syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
    for (;;) {
        pause();
    }
}

/* Counts a call. Answers with what is to happen to it; NONE if it is carried out as usual. */
static enum kind meet(enum call call, const char *name, const char *path) {
    if (!is_ours(path)) {
        return NONE;
    }
    if (kind == NOSYNC) {
        return call == SYNC ? NOSYNC : NONE;
    }
    long number = atomic_fetch_add(&count, 1) + 1;
    if (log_fd >= 0) {
        char line[PATH_MAX + 64];
        int len = snprintf(line, sizeof line, "%ld %s %s\n", number, name, path + dir_len);
        syscall(SYS_write, log_fd, line, len);
    }
    int needs_room = call == WRITE || call == ROOM;
    if (kind == ENOSPC_ && number >= at && needs_room) {
        errno = ENOSPC;
        return ENOSPC_;
    }
    if (kind == LIE && number > at && call == WRITE) {
        die();
    }
    if (number != at || kind == ENOSPC_ || (kind == LIE && call != SYNC)) {
        return NONE;
    }
    if (kind == KILL) {
        die();
    }
    if (kind == SHORT && call != WRITE) {
        return NONE;
    }
    errno = EIO;
    return kind;
}

static enum kind meet_fd(enum call call, const char *name, int fd) {
    int before = errno;
    char path[PATH_MAX];
    path_of(fd, path);
    enum kind what = meet(call, name, path);
    if (what == NONE || what == NOSYNC) {
        errno = before;
    }
    return what;
}

static enum kind meet_at(enum call call, const char *name, int at_fd, const char *file) {
    int before = errno;
    char path[PATH_MAX];
    path_in(at_fd, file, path);
    enum kind what = meet(call, name, path);
    if (what == NONE || what == NOSYNC) {
        errno = before;
    }
    return what;
}

static long size_of(int fd) {
    struct stat is;
    return syscall(SYS_fstat, fd, &is) == 0 && S_ISREG(is.st_mode) ? (long)is.st_size : 0;
}

/* The end of a call that is not a write: it fails, or succeeds as its last deed. */
#define END(what, real)            \
    do {                           \
        if (what == TORN) {        \
            (void)real;            \
            die();                 \
        }                          \
        if (what != NONE) {        \
            return -1;             \
        }                          \
        return real;               \
    } while (0)

static int opened(int fd) {
    if (fd >= 0 && fd < FDS) {
        atomic_store(&durable[fd], size_of(fd));
    }
    return fd;
}

static int open_at(int at_fd, const char *file, int flags, mode_t mode) {
    enum call call = flags & O_CREAT ? ROOM : OTHER;
    enum kind what = meet_at(call, flags & O_CREAT ? "create" : "open", at_fd, file);
    END(what, opened((int)syscall(SYS_openat, at_fd, file, flags, mode)));
}

#define MODE(flags, mode)                            \
    mode_t mode = 0;                                 \
    if (flags & (O_CREAT | __O_TMPFILE)) {           \
        va_list rest;                                \
        va_start(rest, flags);                       \
        mode = va_arg(rest, mode_t);                 \
        va_end(rest);                                \
    }

int open(const char *file, int flags, ...) {
    MODE(flags, mode)
    return open_at(AT_FDCWD, file, flags, mode);
}

int open64(const char *file, int flags, ...) {
    MODE(flags, mode)
    return open_at(AT_FDCWD, file, flags | O_LARGEFILE, mode);
}

int openat(int at_fd, const char *file, int flags, ...) {
    MODE(flags, mode)
    return open_at(at_fd, file, flags, mode);
}

int openat64(int at_fd, const char *file, int flags, ...) {
    MODE(flags, mode)
    return open_at(at_fd, file, flags | O_LARGEFILE, mode);
}

int creat(const char *file, mode_t mode) {
    return open_at(AT_FDCWD, file, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

int creat64(const char *file, mode_t mode) {
    return creat(file, mode);
}

DIR *opendir(const char *file) {
    DIR *(*real)(const char *) = (DIR * (*)(const char *)) dlsym(RTLD_NEXT, "opendir");
    enum kind what = meet_at(OTHER, "open", AT_FDCWD, file);
    DIR *opened = what == NONE || what == TORN ? real(file) : NULL;
    if (what == TORN) {
        die();
    }
    return opened;
}

/* How many bytes of a write are written: all, half, or none. */
static size_t share(enum kind what, size_t len) {
    return what == NONE ? len : what == TORN || what == SHORT ? len / 2 : 0;
}

#define END_WRITE(what, len, real)                   \
    do {                                             \
        size_t some = share(what, len);              \
        if (what != NONE && what != TORN && what != SHORT) { \
            return -1;                               \
        }                                            \
        if (what == SHORT && some == 0) {            \
            some = len;                              \
        }                                            \
        ssize_t done = real;                         \
        if (what == TORN) {                          \
            die();                                   \
        }                                            \
        return done;                                 \
    } while (0)

ssize_t write(int fd, const void *bytes, size_t len) {
    enum kind what = meet_fd(WRITE, "write", fd);
    END_WRITE(what, len, syscall(SYS_write, fd, bytes, some));
}

ssize_t pwrite(int fd, const void *bytes, size_t len, off_t offset) {
    enum kind what = meet_fd(WRITE, "pwrite", fd);
    END_WRITE(what, len, syscall(SYS_pwrite64, fd, bytes, some, offset));
}

ssize_t pwrite64(int fd, const void *bytes, size_t len, off64_t offset) {
    return pwrite(fd, bytes, len, offset);
}

/* Half of several buffers: the first one alone, or half of the only one. */
ssize_t writev(int fd, const struct iovec *parts, int number) {
    enum kind what = meet_fd(WRITE, "writev", fd);
    if ((what == TORN || what == SHORT) && number > 0) {
        size_t len = number > 1 ? 2 * parts[0].iov_len : parts[0].iov_len;
        END_WRITE(what, len, syscall(SYS_write, fd, parts[0].iov_base, some));
    }
    END_WRITE(what, 0, ((void)some, syscall(SYS_writev, fd, parts, number)));
}

ssize_t read(int fd, void *bytes, size_t len) {
    enum kind what = meet_fd(READ, "read", fd);
    END(what, syscall(SYS_read, fd, bytes, len));
}

ssize_t pread(int fd, void *bytes, size_t len, off_t offset) {
    enum kind what = meet_fd(READ, "pread", fd);
    END(what, syscall(SYS_pread64, fd, bytes, len, offset));
}

ssize_t pread64(int fd, void *bytes, size_t len, off64_t offset) {
    return pread(fd, bytes, len, offset);
}

static int sync_with(long number, const char *name, int fd) {
    enum kind what = meet_fd(SYNC, name, fd);
    if (what == NOSYNC) {
        return 0;
    }
    if ((what == LOST || what == LIE) && fd < FDS) {
        long lost_from = atomic_load(&durable[fd]);
        if (size_of(fd) > lost_from) {
            (void)syscall(SYS_ftruncate, fd, lost_from);
        }
        errno = EIO;
        return what == LIE ? 0 : -1;
    }
    long size = size_of(fd);
    if (what != NONE && what != TORN) {
        return -1;
    }
    int done = (int)syscall(number, fd);
    if (what == TORN) {
        die();
    }
    if (done == 0 && fd < FDS) {
        atomic_store(&durable[fd], size);
    }
    return done;
}

int fsync(int fd) {
    return sync_with(SYS_fsync, "fsync", fd);
}

int fdatasync(int fd) {
    return sync_with(SYS_fdatasync, "fdatasync", fd);
}

int rename(const char *from, const char *to) {
    enum kind what = meet_at(OTHER, "rename", AT_FDCWD, to);
    END(what, (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
}

int renameat(int from_fd, const char *from, int to_fd, const char *to) {
    enum kind what = meet_at(OTHER, "rename", to_fd, to);
    END(what, (int)syscall(SYS_renameat2, from_fd, from, to_fd, to, 0));
}

int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags) {
    enum kind what = meet_at(OTHER, "rename", to_fd, to);
    END(what, (int)syscall(SYS_renameat2, from_fd, from, to_fd, to, flags));
}

int unlink(const char *file) {
    enum kind what = meet_at(OTHER, "unlink", AT_FDCWD, file);
    END(what, (int)syscall(SYS_unlinkat, AT_FDCWD, file, 0));
}

int unlinkat(int at_fd, const char *file, int flags) {
    enum kind what = meet_at(OTHER, "unlink", at_fd, file);
    END(what, (int)syscall(SYS_unlinkat, at_fd, file, flags));
}

int rmdir(const char *file) {
    enum kind what = meet_at(OTHER, "rmdir", AT_FDCWD, file);
    END(what, (int)syscall(SYS_unlinkat, AT_FDCWD, file, AT_REMOVEDIR));
}

int mkdir(const char *file, mode_t mode) {
    enum kind what = meet_at(ROOM, "mkdir", AT_FDCWD, file);
    END(what, (int)syscall(SYS_mkdirat, AT_FDCWD, file, mode));
}

int mkdirat(int at_fd, const char *file, mode_t mode) {
    enum kind what = meet_at(ROOM, "mkdir", at_fd, file);
    END(what, (int)syscall(SYS_mkdirat, at_fd, file, mode));
}

int ftruncate(int fd, off_t len) {
    enum kind what = meet_fd(ROOM, "ftruncate", fd);
    END(what, (int)syscall(SYS_ftruncate, fd, len));
}

int ftruncate64(int fd, off64_t len) {
    return ftruncate(fd, len);
}

int fallocate(int fd, int mode, off_t offset, off_t len) {
    enum kind what = meet_fd(ROOM, "fallocate", fd);
    END(what, (int)syscall(SYS_fallocate, fd, mode, offset, len));
}

int fallocate64(int fd, int mode, off64_t offset, off64_t len) {
    return fallocate(fd, mode, offset, len);
}

int link(const char *from, const char *to) {
    enum kind what = meet_at(ROOM, "link", AT_FDCWD, to);
    END(what, (int)syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0));
}

int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags) {
    enum kind what = meet_at(ROOM, "link", to_fd, to);
    END(what, (int)syscall(SYS_linkat, from_fd, from, to_fd, to, flags));
}
