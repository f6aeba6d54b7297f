/* usbfs_shim -- Linux usbfs without a kernel that has USB: LD_PRELOAD below the real libusb.
 *
 *   $USBSHIM_ROOT   tree made by tree.py; /sys/bus/usb and /dev/bus/usb are looked up below it
 *   $USBSHIM_SOCK   Unix socket of a USB/IP server
 * Both unset: every call goes straight to the C library.
 *
 * In:  open("/dev/bus/usb/BBB/DDD") and the ioctls that libusb makes on it.
 * Out: one USB/IP session an open node; each URB is a CMD_SUBMIT, each DISCARDURB a CMD_UNLINK.
 * Always: a URB is completed exactly once; its buffer is never touched after it was reaped or its node closed;
 * close leaves no thread, descriptor or allocation behind; nothing polls.
 *
 * The descriptor given to libusb is the write end of a one-page pipe.  Pipe full: nothing to reap, not writable.
 * Pipe empty: POLLOUT, reap.  Read end closed: POLLERR, what usbfs says of a lost device (an eventfd has no way to
 * say that, and libusb would spin on POLLOUT until the handle is closed).
 *
 * A node is a file that holds the device's bus id ("1-1"), or "!13": opening it fails with that errno.
 * Not emulated: isochronous URBs, the synchronous BULK ioctl, mmap'ed buffers (libusb asks for none of them);
 * dup() of a node; use of an inherited node after fork (ENODEV; closing it there leaves the parent's alone).
 */
#ifndef USBFS_SHIM_H
#define USBFS_SHIM_H
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <linux/usbdevice_fs.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <unistd.h>

#define REAL(name)                                                                                                     \
    ({                                                                                                                 \
        static _Atomic(void *) found_;                                                                                 \
        void *f_ = atomic_load_explicit(&found_, memory_order_relaxed);                                                \
        if (!f_) {                                                                                                     \
            f_ = dlsym(RTLD_NEXT, #name);                                                                              \
            atomic_store_explicit(&found_, f_, memory_order_relaxed);                                                  \
        }                                                                                                              \
        (__typeof__(&name))f_;                                                                                         \
    })

#pragma GCC visibility push(hidden) /* only the C library's own names are for others */

enum { MAX_INTERFACES = 32, MAX_ENDPOINTS = 64 };

/* One transfer on its way.  Owned by `pending` until completed, then by `done` (async) or by its waiter (sync). */
struct transfer {
    struct transfer *next;
    struct usbdevfs_urb *urb; /* NULL: a control transfer of our own, waited for in place */
    uint8_t *in;              /* where IN data goes, NULL for OUT */
    uint32_t seq, unlink_seq, room, charged;
    int status, actual;
    bool done;
};

struct endpoint {
    uint8_t interface, alt, address;
};

struct node {
    int fd, signal_fd, sock; /* write end given out, our read end (-1: hung up), USB/IP session (-1: busy elsewhere) */
    pid_t pid;
    int refs;                /* under table_lock: the table's own and one a running call */
    uint32_t devid, busnum, devnum, speed;
    pthread_t receiver;
    bool has_receiver;
    pthread_mutex_t tx;      /* orders submissions; taken before `state`, never held by the receiver */
    pthread_mutex_t state;   /* everything below */
    pthread_cond_t changed;
    uint32_t seq;
    bool gone, drained; /* drained: the pipe is empty, so the node polls writable */
    struct transfer *pending, **pending_tail, *done, **done_tail;
    size_t in_flight;
    uint32_t claimed;
    uint8_t alt[MAX_INTERFACES];
    bool has_interface[MAX_INTERFACES];
    struct endpoint endpoints[MAX_ENDPOINTS];
    int n_endpoints;
};

/* paths.c: what libusb opens */
extern char shim_root[PATH_MAX], shim_sock[sizeof(((struct sockaddr_un *)0)->sun_path)]; /* empty: no shim */
const char *shim_redirect(const char *path, char buf[PATH_MAX]);
bool shim_is_node(const char *path, unsigned *bus, unsigned *dev);

/* wire.c: bytes of a USB/IP session; shim_import begins one */
bool shim_receive(int sock, void *to, size_t n);
bool shim_discard(int sock, size_t n);
bool shim_transmit(int sock, const void *head, size_t head_n, const void *body, size_t body_n);
int shim_import(const char *busid, struct node *n);

/* session.c: the transfers of a session.  shim_poll_quiet with `state` held */
bool shim_start_receiver(struct node *n);
void shim_poll_quiet(struct node *n);
int shim_submit(struct node *n, struct transfer *t, int ep, bool in, uint32_t flags, const uint8_t *setup,
                const void *data, uint32_t length);
int shim_control(struct node *n, uint8_t type, uint8_t request, uint16_t value, uint16_t index, void *data,
                 uint16_t length);
int shim_cancel(struct node *n, const struct usbdevfs_urb *urb);

/* node.c: the open nodes of this process; usbfs.c has the ioctls on them.  shim_hold: the node behind `fd` until
 * shim_let_go, NULL when `fd` is none of ours; a node of the process before a fork is `foreign` */
int shim_owner(const struct node *n, uint8_t address);
int shim_open(const char *path, int flags, unsigned bus, unsigned dev);
struct node *shim_hold(int fd, bool *foreign);
void shim_let_go(struct node *n);

#pragma GCC visibility pop
#endif
