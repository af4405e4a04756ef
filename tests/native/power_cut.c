/* Cuts the power of file systems: power_cut DIRECTORY... shuts down the file system of each, at once and without
 * writing anything back. What was not synced is lost; everything but unmounting fails from then on. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>

/* FS_IOC_SHUTDOWN of the kernel, which older headers do not name; ext4, xfs and f2fs know it. */
#define SHUTDOWN _IOR('X', 125, uint32_t)
/* Not even the journal is written out. */
#define NO_LOG_FLUSH 2

int main(int count, char **names) {
    enum { MOST = 16 };
    int disks[MOST];
    if (count < 2 || count > MOST) {
        fprintf(stderr, "power_cut: name 1 to %d directories\n", MOST - 1);
        return 2;
    }
    for (int k = 1; k < count; k++) {
        disks[k] = open(names[k], O_RDONLY | O_DIRECTORY);
        if (disks[k] < 0) {
            perror(names[k]);
            return 1;
        }
    }
    /* All are open, so that nothing but the calls themselves lies between the first and the last. */
    for (int k = 1; k < count; k++) {
        uint32_t how = NO_LOG_FLUSH;
        if (ioctl(disks[k], SHUTDOWN, &how) != 0) {
            perror(names[k]);
            return 1;
        }
    }
    return 0;
}
