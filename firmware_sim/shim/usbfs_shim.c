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

enum { USBIP_VERSION = 0x0111, OP_REQ_IMPORT = 0x8003, ST_BUSY = 2 };
enum { CMD_SUBMIT = 1, CMD_UNLINK = 2, RET_SUBMIT = 3, RET_UNLINK = 4 };
enum { HEADER_BYTES = 48, RECORD_BYTES = 312, MAX_FD = 65536, MAX_INTERFACES = 32, MAX_ENDPOINTS = 64 };
enum { MAX_IN_FLIGHT = 16 << 20 }; /* usbfs_memory_mb's default; beyond it SUBMITURB is ENOMEM */

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

static _Atomic(struct node *) table[MAX_FD];
static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX], sock_path[sizeof(((struct sockaddr_un *)0)->sun_path)];

__attribute__((constructor)) static void read_environment(void)
{
    const char *r = getenv("USBSHIM_ROOT"), *s = getenv("USBSHIM_SOCK");
    if (!r || !s || strlen(r) >= sizeof root - NAME_MAX || strlen(s) >= sizeof sock_path)
        return;
    strcpy(root, r);
    strcpy(sock_path, s);
}

/* ------------------------------------------------------------------ paths */

static bool below(const char *path, const char *top)
{
    size_t n = strlen(top);
    return !strncmp(path, top, n) && (path[n] == '/' || path[n] == 0);
}

/* `path`, or its place below $USBSHIM_ROOT written into `buf`. */
static const char *redirect(const char *path, char buf[PATH_MAX])
{
    if (!root[0] || !path || (!below(path, "/sys/bus/usb") && !below(path, "/dev/bus/usb")))
        return path;
    if ((size_t)snprintf(buf, PATH_MAX, "%s%s", root, path) >= PATH_MAX)
        return path;
    return buf;
}

static bool is_node(const char *path, unsigned *bus, unsigned *dev)
{
    char rest;
    return root[0] && path && sscanf(path, "/dev/bus/usb/%3u/%3u%c", bus, dev, &rest) == 2;
}

/* ------------------------------------------------------------------ bytes */

static bool receive(int sock, void *to, size_t n)
{
    uint8_t *p = to;
    while (n) {
        ssize_t got = recv(sock, p, n, MSG_WAITALL);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        p += got;
        n -= (size_t)got;
    }
    return true;
}

static bool transmit(int sock, const void *head, size_t head_n, const void *body, size_t body_n)
{
    struct iovec iov[2] = {{(void *)head, head_n}, {(void *)body, body_n}};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = body_n ? 2 : 1};
    while (msg.msg_iovlen) {
        ssize_t sent = sendmsg(sock, &msg, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return false;
        while (msg.msg_iovlen && (size_t)sent >= msg.msg_iov->iov_len) {
            sent -= (ssize_t)msg.msg_iov->iov_len;
            msg.msg_iov++;
            msg.msg_iovlen--;
        }
        if (msg.msg_iovlen) {
            msg.msg_iov->iov_base = (uint8_t *)msg.msg_iov->iov_base + sent;
            msg.msg_iov->iov_len -= (size_t)sent;
        }
    }
    return true;
}

/* ------------------------------------------------------------------ completion (all with `state` held) */

static void poll_writable(struct node *n)
{
    char byte;
    if (!n->drained && n->signal_fd >= 0 && REAL(read)(n->signal_fd, &byte, 1) == 1)
        n->drained = true;
}

static void poll_quiet(struct node *n)
{
    if (n->drained && n->signal_fd >= 0 && REAL(write)(n->fd, "", 1) == 1)
        n->drained = false;
}

static void complete(struct node *n, struct transfer *t, int status, int actual)
{
    t->status = status;
    t->actual = actual;
    t->done = true;
    if (t->urb) {
        if (!status && (t->urb->flags & USBDEVFS_URB_SHORT_NOT_OK) && (uint32_t)actual < t->room)
            t->status = -EREMOTEIO;
        t->next = NULL;
        *n->done_tail = t;
        n->done_tail = &t->next;
        poll_writable(n);
    }
    pthread_cond_broadcast(&n->changed);
}

static struct transfer *find(struct node *n, uint32_t seq, bool by_unlink)
{
    for (struct transfer *t = n->pending; t; t = t->next)
        if ((by_unlink ? t->unlink_seq : t->seq) == seq)
            return t;
    return NULL;
}

static void detach(struct node *n, struct transfer *t)
{
    struct transfer **at = &n->pending;
    while (*at != t)
        at = &(*at)->next;
    *at = t->next;
    if (!*at)
        n->pending_tail = at;
}

static void fail_pending(struct node *n, int status)
{
    while (n->pending) {
        struct transfer *t = n->pending;
        detach(n, t);
        complete(n, t, status, 0);
    }
}

/* ------------------------------------------------------------------ receive thread: one a session */

static bool discard_bytes(int sock, size_t n)
{
    char sink[4096];
    while (n) {
        size_t part = n < sizeof sink ? n : sizeof sink;
        if (!receive(sock, sink, part))
            return false;
        n -= part;
    }
    return true;
}

static void *receiver(void *arg)
{
    struct node *n = arg;
    uint32_t h[HEADER_BYTES / 4];
    while (receive(n->sock, h, sizeof h)) {
        uint32_t command = be32toh(h[0]), seq = be32toh(h[1]), actual = be32toh(h[6]);
        int status = (int)be32toh(h[5]);
        pthread_mutex_lock(&n->state);
        struct transfer *t = find(n, seq, command == RET_UNLINK);
        pthread_mutex_unlock(&n->state);
        if (command == RET_SUBMIT && t) {
            /* `t` stays pending while its data arrives: nobody frees a pending transfer but this thread. */
            uint32_t kept = t->in && actual > t->room ? t->room : actual;
            if (t->in && (!receive(n->sock, t->in, kept) || !discard_bytes(n->sock, actual - kept)))
                break;
            pthread_mutex_lock(&n->state);
            detach(n, t);
            complete(n, t, kept < actual && !status ? -EOVERFLOW : status, (int)kept);
            pthread_mutex_unlock(&n->state);
        } else if (command == RET_UNLINK) {
            /* Status 0: the victim had been answered before, in order, so it is no longer pending here. */
            if (t) {
                pthread_mutex_lock(&n->state);
                detach(n, t);
                complete(n, t, -ENOENT, 0);
                pthread_mutex_unlock(&n->state);
            }
        } else {
            break; /* an answer to nothing: the stream cannot be followed any more */
        }
    }
    pthread_mutex_lock(&n->state);
    n->gone = true;
    fail_pending(n, -ESHUTDOWN);
    REAL(close)(n->signal_fd);
    n->signal_fd = -1;
    pthread_cond_broadcast(&n->changed);
    pthread_mutex_unlock(&n->state);
    return NULL;
}

/* ------------------------------------------------------------------ submission */

static int submit(struct node *n, struct transfer *t, int ep, bool in, uint32_t flags, const uint8_t *setup,
                  const void *data, uint32_t length)
{
    uint32_t h[HEADER_BYTES / 4] = {0};
    h[0] = htobe32(CMD_SUBMIT);
    h[2] = htobe32(n->devid);
    h[3] = htobe32(in);
    h[4] = htobe32((uint32_t)ep);
    h[5] = htobe32(flags);
    h[6] = htobe32(length);
    if (setup)
        memcpy(&h[10], setup, 8);
    pthread_mutex_lock(&n->tx);
    pthread_mutex_lock(&n->state);
    if (n->gone || n->sock < 0) {
        errno = n->gone ? ENODEV : EBUSY;
        pthread_mutex_unlock(&n->state);
        pthread_mutex_unlock(&n->tx);
        return -1;
    }
    t->seq = ++n->seq;
    t->next = NULL;
    *n->pending_tail = t;
    n->pending_tail = &t->next;
    n->in_flight += t->charged;
    h[1] = htobe32(t->seq);
    pthread_mutex_unlock(&n->state);
    /* A failed send means a dead session: the receiver sees it too and completes `t` like all others. */
    if (!transmit(n->sock, h, sizeof h, data, in ? 0 : length))
        shutdown(n->sock, SHUT_RDWR);
    pthread_mutex_unlock(&n->tx);
    return 0;
}

static int wait_sync(struct node *n, struct transfer *t)
{
    pthread_mutex_lock(&n->state);
    while (!t->done)
        pthread_cond_wait(&n->changed, &n->state);
    pthread_mutex_unlock(&n->state);
    if (t->status) {
        errno = t->status == -ESHUTDOWN ? ENODEV : -t->status;
        return -1;
    }
    return t->actual;
}

static int control(struct node *n, uint8_t type, uint8_t request, uint16_t value, uint16_t index, void *data,
                   uint16_t length)
{
    uint8_t setup[8] = {type,           request,       (uint8_t)value,  (uint8_t)(value >> 8),
                        (uint8_t)index, index >> 8,    (uint8_t)length, (uint8_t)(length >> 8)};
    bool in = type & 0x80;
    struct transfer t = {.in = in ? data : NULL, .room = length};
    if (submit(n, &t, 0, in, 0, setup, data, length))
        return -1;
    return wait_sync(n, &t);
}

static int cancel(struct node *n, const struct usbdevfs_urb *urb)
{
    uint32_t h[HEADER_BYTES / 4] = {0};
    pthread_mutex_lock(&n->tx);
    pthread_mutex_lock(&n->state);
    struct transfer *t = n->pending;
    while (t && t->urb != urb)
        t = t->next;
    if (!t) {
        errno = n->gone ? ENODEV : EINVAL; /* completed already: it waits to be reaped */
        pthread_mutex_unlock(&n->state);
        pthread_mutex_unlock(&n->tx);
        return -1;
    }
    bool first = !t->unlink_seq;
    uint32_t seq = t->seq;
    if (first)
        t->unlink_seq = ++n->seq;
    h[0] = htobe32(CMD_UNLINK);
    h[1] = htobe32(t->unlink_seq);
    h[2] = htobe32(n->devid);
    h[5] = htobe32(seq);
    pthread_mutex_unlock(&n->state);
    if (first && !transmit(n->sock, h, sizeof h, NULL, 0))
        shutdown(n->sock, SHUT_RDWR);
    pthread_mutex_unlock(&n->tx);
    /* As usb_kill_urb: it is reapable when the ioctl returns. */
    pthread_mutex_lock(&n->state);
    while (find(n, seq, false))
        pthread_cond_wait(&n->changed, &n->state);
    pthread_mutex_unlock(&n->state);
    return 0;
}

/* ------------------------------------------------------------------ what the device has */

static void parse_descriptors(struct node *n, const uint8_t *d, size_t size)
{
    uint8_t interface = 0, alt = 0;
    for (size_t at = 0; at + 2 <= size && d[at] >= 2 && at + d[at] <= size; at += d[at]) {
        if (d[at + 1] == 4 && d[at] >= 9) {
            interface = d[at + 2];
            alt = d[at + 3];
            if (interface < MAX_INTERFACES)
                n->has_interface[interface] = true;
        } else if (d[at + 1] == 5 && d[at] >= 7 && n->n_endpoints < MAX_ENDPOINTS) {
            n->endpoints[n->n_endpoints++] = (struct endpoint){interface, alt, d[at + 2]};
        }
    }
}

static bool read_file(const char *path, void *to, size_t room, size_t *size)
{
    int fd = REAL(open)(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    *size = 0;
    ssize_t got;
    while (*size < room && (got = REAL(read)(fd, (uint8_t *)to + *size, room - *size)) > 0)
        *size += (size_t)got;
    REAL(close)(fd);
    return true;
}

/* The interface whose active alternate has this endpoint, -1: none has. */
static int owner(const struct node *n, uint8_t address)
{
    for (int i = 0; i < n->n_endpoints; i++) {
        const struct endpoint *e = &n->endpoints[i];
        if (e->address == address && e->interface < MAX_INTERFACES && e->alt == n->alt[e->interface])
            return e->interface;
    }
    return -1;
}

/* ------------------------------------------------------------------ open and close */

static int import(const char *busid, struct node *n)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    strcpy(a.sun_path, sock_path);
    int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s < 0)
        return -1;
    uint8_t request[40] = {USBIP_VERSION >> 8, USBIP_VERSION & 255, OP_REQ_IMPORT >> 8, OP_REQ_IMPORT & 255};
    uint8_t reply[8], record[RECORD_BYTES];
    memcpy(request + 8, busid, strnlen(busid, 31));
    if (connect(s, (struct sockaddr *)&a, sizeof a) || !transmit(s, request, sizeof request, NULL, 0) ||
        !receive(s, reply, sizeof reply))
        goto gone;
    uint32_t status, word[3];
    memcpy(&status, reply + 4, 4);
    status = be32toh(status);
    if (status == ST_BUSY) {
        REAL(close)(s);
        n->sock = -1;
        return 0;
    }
    if (status || !receive(s, record, sizeof record))
        goto gone;
    memcpy(word, record + 288, sizeof word);
    if (be32toh(word[0]) != n->busnum || be32toh(word[1]) != n->devnum)
        goto gone; /* it has re-enumerated since the node was looked up */
    n->devid = n->busnum << 16 | n->devnum;
    n->speed = be32toh(word[2]);
    n->sock = s;
    return 0;
gone:
    REAL(close)(s);
    errno = ENODEV;
    return -1;
}

static void release(struct node *n)
{
    if (n->sock >= 0)
        REAL(close)(n->sock);
    if (n->signal_fd >= 0)
        REAL(close)(n->signal_fd);
    while (n->done) {
        struct transfer *t = n->done;
        n->done = t->next;
        free(t);
    }
    pthread_mutex_destroy(&n->tx);
    pthread_mutex_destroy(&n->state);
    pthread_cond_destroy(&n->changed);
    free(n);
}

static bool start_receiver(struct node *n)
{
    sigset_t all, before; /* the host program's signals are not for this thread */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    n->has_receiver = !pthread_create(&n->receiver, NULL, receiver, n);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return n->has_receiver;
}

static int open_node(const char *path, int flags, unsigned bus, unsigned dev)
{
    char at[PATH_MAX], busid[32] = "";
    uint8_t descriptors[4096];
    size_t size;
    int probe = REAL(open)(redirect(path, at), (flags & O_ACCMODE) | O_CLOEXEC);
    if (probe < 0)
        return -1;
    REAL(close)(probe);
    if (!read_file(at, busid, sizeof busid - 1, &size))
        return -1;
    busid[strcspn(busid, "\n")] = 0;
    if (busid[0] == '!') {
        errno = atoi(busid + 1);
        return -1;
    }
    struct node *n = calloc(1, sizeof *n);
    if (!n) {
        errno = ENOMEM;
        return -1;
    }
    *n = (struct node){.fd = -1, .signal_fd = -1, .sock = -1, .refs = 1, .pid = getpid(), .busnum = bus, .devnum = dev};
    n->pending_tail = &n->pending;
    n->done_tail = &n->done;
    pthread_mutex_init(&n->tx, NULL);
    pthread_mutex_init(&n->state, NULL);
    pthread_cond_init(&n->changed, NULL);

    int ends[2], saved;
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK))
        goto fail;
    n->signal_fd = ends[0];
    n->fd = ends[1];
    n->drained = true;
    fcntl(n->fd, F_SETPIPE_SZ, 4096); /* one page: full with one byte in it */
    poll_quiet(n);
    if (n->fd >= MAX_FD) {
        errno = EMFILE;
        goto fail;
    }
    snprintf(at, sizeof at, "%.*s/sys/bus/usb/devices/%s/descriptors", (int)(sizeof at - 80), root, busid);
    if (read_file(at, descriptors, sizeof descriptors, &size))
        parse_descriptors(n, descriptors, size);
    if (import(busid, n))
        goto fail;
    if (n->sock >= 0) {
        if (!start_receiver(n)) {
            errno = ENOMEM;
            goto fail;
        }
        /* The kernel configures a device when it is plugged in; here attaching is opening. */
        if (control(n, 0x00, 0x09, 1, 0, NULL, 0) < 0) {
            saved = errno;
            shutdown(n->sock, SHUT_RDWR);
            pthread_join(n->receiver, NULL);
            errno = saved;
            goto fail;
        }
    }
    atomic_store(&table[n->fd], n);
    return n->fd;
fail:
    saved = errno;
    if (n->fd >= 0)
        REAL(close)(n->fd);
    release(n);
    errno = saved;
    return -1;
}

/* The node behind `fd`, held; NULL when `fd` is none of ours.  A node of the process before a fork is `foreign`. */
static struct node *hold(int fd, bool *foreign)
{
    *foreign = false;
    if (fd < 0 || fd >= MAX_FD || !atomic_load_explicit(&table[fd], memory_order_acquire))
        return NULL;
    pthread_mutex_lock(&table_lock);
    struct node *n = atomic_load(&table[fd]);
    if (n && n->pid != getpid()) {
        *foreign = true;
        n = NULL;
    }
    if (n)
        n->refs++;
    pthread_mutex_unlock(&table_lock);
    return n;
}

static void let_go(struct node *n)
{
    pthread_mutex_lock(&table_lock);
    bool last = !--n->refs;
    pthread_mutex_unlock(&table_lock);
    if (last)
        release(n);
}

int close(int fd)
{
    struct node *n = fd >= 0 && fd < MAX_FD ? atomic_load_explicit(&table[fd], memory_order_acquire) : NULL;
    if (!n || n->pid != getpid()) /* after vfork the table is the parent's: leave it alone */
        return REAL(close)(fd);
    pthread_mutex_lock(&table_lock);
    bool ours = atomic_load(&table[fd]) == n;
    if (ours)
        atomic_store(&table[fd], NULL);
    pthread_mutex_unlock(&table_lock);
    if (!ours)
        return REAL(close)(fd);
    if (n->has_receiver) {
        shutdown(n->sock, SHUT_RDWR);
        pthread_join(n->receiver, NULL);
    }
    int r = REAL(close)(fd);
    let_go(n);
    return r;
}

/* ------------------------------------------------------------------ ioctls */

static int submit_urb(struct node *n, struct usbdevfs_urb *urb)
{
    const uint8_t *setup = NULL;
    uint8_t *data = urb->buffer;
    uint32_t length = (uint32_t)urb->buffer_length;
    bool in = urb->endpoint & 0x80;
    if (urb->buffer_length < 0 || (length && !data)) {
        errno = EINVAL;
        return -1;
    }
    if (urb->type == USBDEVFS_URB_TYPE_CONTROL) {
        if (length < 8 || (uint32_t)(data[6] | data[7] << 8) > length - 8) {
            errno = EINVAL;
            return -1;
        }
        setup = data;
        in = setup[0] & 0x80;
        length = (uint32_t)(data[6] | data[7] << 8);
        data += 8;
    } else if (urb->type != USBDEVFS_URB_TYPE_BULK && urb->type != USBDEVFS_URB_TYPE_INTERRUPT) {
        errno = EINVAL;
        return -1;
    }
    pthread_mutex_lock(&n->state);
    int why = 0;
    if (!setup && !n->gone && owner(n, urb->endpoint) < 0)
        why = ENOENT;
    else if (n->in_flight + length > MAX_IN_FLIGHT)
        why = ENOMEM;
    pthread_mutex_unlock(&n->state);
    struct transfer *t = why ? NULL : calloc(1, sizeof *t);
    if (!t) {
        errno = why ? why : ENOMEM;
        return -1;
    }
    *t = (struct transfer){.urb = urb, .in = in ? data : NULL, .room = length, .charged = length};
    if (submit(n, t, urb->endpoint & 15, in, urb->flags & (USBDEVFS_URB_SHORT_NOT_OK | USBDEVFS_URB_ZERO_PACKET), setup,
               data, length)) {
        int saved = errno;
        free(t);
        errno = saved;
        return -1;
    }
    return 0;
}

static int reap(struct node *n, void **out, bool wait)
{
    pthread_mutex_lock(&n->state);
    while (wait && !n->done && !n->gone)
        pthread_cond_wait(&n->changed, &n->state);
    struct transfer *t = n->done;
    if (!t) {
        errno = n->gone ? ENODEV : EAGAIN;
        pthread_mutex_unlock(&n->state);
        return -1;
    }
    n->done = t->next;
    if (!n->done) {
        n->done_tail = &n->done;
        poll_quiet(n);
    }
    n->in_flight -= t->charged;
    pthread_mutex_unlock(&n->state);
    t->urb->status = t->status;
    t->urb->actual_length = t->actual;
    *out = t->urb;
    free(t);
    return 0;
}

/* What the kernel does before it disturbs an interface (-1: the whole device): its transfers end as discarded. */
static void cancel_all(struct node *n, int interface)
{
    struct usbdevfs_urb *urb;
    do {
        urb = NULL;
        pthread_mutex_lock(&n->state);
        for (struct transfer *t = n->pending; t && !urb; t = t->next)
            if (t->urb && (interface < 0 || owner(n, t->urb->endpoint) == interface))
                urb = t->urb;
        pthread_mutex_unlock(&n->state);
        if (urb)
            cancel(n, urb);
    } while (urb);
}

static int claim(struct node *n, unsigned interface, bool take)
{
    int why = 0;
    pthread_mutex_lock(&n->state);
    if (n->gone)
        why = ENODEV;
    else if (n->sock < 0)
        why = EBUSY;
    else if (interface >= MAX_INTERFACES || !n->has_interface[interface])
        why = ENOENT;
    else if (!take && !(n->claimed & 1u << interface))
        why = EINVAL;
    else if (take)
        n->claimed |= 1u << interface;
    else
        n->claimed &= ~(1u << interface);
    bool back = !why && !take && n->alt[interface];
    pthread_mutex_unlock(&n->state);
    if (!why && !take)
        cancel_all(n, (int)interface);
    if (back) /* the kernel returns a released interface to alternate 0 */
        control(n, 0x01, 0x0B, 0, (uint16_t)interface, NULL, 0);
    if (back)
        n->alt[interface] = 0;
    errno = why;
    return why ? -1 : 0;
}

static int set_interface(struct node *n, const struct usbdevfs_setinterface *s)
{
    if (s->interface >= MAX_INTERFACES || !(n->claimed & 1u << s->interface)) {
        errno = EINVAL;
        return -1;
    }
    cancel_all(n, (int)s->interface);
    if (control(n, 0x01, 0x0B, (uint16_t)s->altsetting, (uint16_t)s->interface, NULL, 0) < 0)
        return -1;
    pthread_mutex_lock(&n->state);
    n->alt[s->interface] = (uint8_t)s->altsetting;
    pthread_mutex_unlock(&n->state);
    return 0;
}

static int set_configuration(struct node *n, int value)
{
    if (n->claimed || n->sock < 0) {
        errno = EBUSY;
        return -1;
    }
    if (control(n, 0x00, 0x09, (uint16_t)(value < 0 ? 0 : value), 0, NULL, 0) < 0)
        return -1;
    pthread_mutex_lock(&n->state);
    memset(n->alt, 0, sizeof n->alt);
    pthread_mutex_unlock(&n->state);
    return 0;
}

/* Port reset, then what the kernel restores: configuration and alternates. */
static int reset(struct node *n)
{
    uint8_t alt[MAX_INTERFACES];
    cancel_all(n, -1);
    if (control(n, 0x23, 0x03, 4, 1, NULL, 0) < 0 || control(n, 0x00, 0x09, 1, 0, NULL, 0) < 0)
        return -1;
    pthread_mutex_lock(&n->state);
    memcpy(alt, n->alt, sizeof alt);
    pthread_mutex_unlock(&n->state);
    for (uint16_t i = 0; i < MAX_INTERFACES; i++)
        if (alt[i] && control(n, 0x01, 0x0B, alt[i], i, NULL, 0) < 0)
            return -1;
    return 0;
}

static int get_driver(struct node *n, struct usbdevfs_getdriver *g)
{
    if (g->interface >= MAX_INTERFACES || !(n->claimed & 1u << g->interface)) {
        errno = ENODATA;
        return -1;
    }
    strcpy(g->driver, "usbfs");
    return 0;
}

static int node_ioctl(struct node *n, unsigned long request, void *arg)
{
    switch (request) {
    case USBDEVFS_SUBMITURB:
        return submit_urb(n, arg);
    case USBDEVFS_REAPURBNDELAY:
        return reap(n, arg, false);
    case USBDEVFS_REAPURB:
        return reap(n, arg, true);
    case USBDEVFS_DISCARDURB:
        return cancel(n, arg);
    case USBDEVFS_GET_CAPABILITIES: /* so that libusb sends a transfer as one URB and reaps after a disconnect */
        *(uint32_t *)arg =
            USBDEVFS_CAP_ZERO_PACKET | USBDEVFS_CAP_NO_PACKET_SIZE_LIM | USBDEVFS_CAP_REAP_AFTER_DISCONNECT;
        return 0;
    case USBDEVFS_CONTROL: {
        struct usbdevfs_ctrltransfer *c = arg;
        return control(n, c->bRequestType, c->bRequest, c->wValue, c->wIndex, c->data, c->wLength);
    }
    case USBDEVFS_CLAIMINTERFACE:
        return claim(n, *(unsigned *)arg, true);
    case USBDEVFS_RELEASEINTERFACE:
        return claim(n, *(unsigned *)arg, false);
    case USBDEVFS_DISCONNECT_CLAIM:
        return claim(n, ((struct usbdevfs_disconnect_claim *)arg)->interface, true);
    case USBDEVFS_SETINTERFACE:
        return set_interface(n, arg);
    case USBDEVFS_SETCONFIGURATION:
        return set_configuration(n, *(int *)arg);
    case USBDEVFS_RESET:
        return reset(n);
    case USBDEVFS_CLEAR_HALT:
        return control(n, 0x02, 0x01, 0, (uint16_t) * (unsigned *)arg, NULL, 0) < 0 ? -1 : 0;
    case USBDEVFS_RESETEP: /* host side of the data toggle only */
        return 0;
    case USBDEVFS_GETDRIVER:
        return get_driver(n, arg);
    case USBDEVFS_IOCTL: /* (dis)connect of a kernel driver: none is ever bound */
        errno = ENODATA;
        return -1;
    case USBDEVFS_CONNECTINFO:
        *(struct usbdevfs_connectinfo *)arg = (struct usbdevfs_connectinfo){n->devnum, n->speed == 1};
        return 0;
    case USBDEVFS_GET_SPEED:
        return (int)n->speed;
    default:
        errno = ENOTTY;
        return -1;
    }
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list va;
    va_start(va, request);
    void *arg = va_arg(va, void *);
    va_end(va);
    bool foreign;
    struct node *n = hold(fd, &foreign);
    if (!n) {
        if (!foreign)
            return REAL(ioctl)(fd, request, arg);
        errno = ENODEV;
        return -1;
    }
    int r = node_ioctl(n, request, arg), saved = errno;
    let_go(n);
    errno = saved;
    return r;
}

/* ------------------------------------------------------------------ the C library's ways to a path */

static int open_at(int dir, const char *path, int flags, mode_t mode)
{
    char at[PATH_MAX];
    unsigned bus, dev;
    if (is_node(path, &bus, &dev) && !(flags & (O_DIRECTORY | O_PATH)))
        return open_node(path, flags, bus, dev);
    return REAL(openat)(dir, redirect(path, at), flags, mode);
}

#define MODE(flags)                                                                                                    \
    ({                                                                                                                 \
        mode_t m_ = 0;                                                                                                 \
        if ((flags) & (O_CREAT | O_TMPFILE)) {                                                                         \
            va_list va_;                                                                                               \
            va_start(va_, flags);                                                                                      \
            m_ = va_arg(va_, mode_t);                                                                                  \
            va_end(va_);                                                                                               \
        }                                                                                                              \
        m_;                                                                                                            \
    })

int open(const char *path, int flags, ...) { return open_at(AT_FDCWD, path, flags, MODE(flags)); }
int open64(const char *path, int flags, ...) { return open_at(AT_FDCWD, path, flags, MODE(flags)); }
int openat(int dir, const char *path, int flags, ...) { return open_at(dir, path, flags, MODE(flags)); }
int openat64(int dir, const char *path, int flags, ...) { return open_at(dir, path, flags, MODE(flags)); }
/* what fortified callers are compiled into */
int __open_2(const char *path, int flags) { return open_at(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return open_at(AT_FDCWD, path, flags, 0); }
int __openat_2(int dir, const char *path, int flags) { return open_at(dir, path, flags, 0); }
int __openat64_2(int dir, const char *path, int flags) { return open_at(dir, path, flags, 0); }

DIR *opendir(const char *path)
{
    char at[PATH_MAX];
    return REAL(opendir)(redirect(path, at));
}

ssize_t readlink(const char *restrict path, char *restrict to, size_t room)
{
    char at[PATH_MAX];
    return REAL(readlink)(redirect(path, at), to, room);
}

int access(const char *path, int mode)
{
    char at[PATH_MAX];
    return REAL(access)(redirect(path, at), mode);
}

/* libusb uses sysfs only where /sys is one; a container may have none. */
int statfs(const char *path, struct statfs *to)
{
    char at[PATH_MAX];
    int r = REAL(statfs)(redirect(path, at), to);
    if (root[0] && !strcmp(path, "/sys")) {
        if (r)
            memset(to, 0, sizeof *to);
        to->f_type = SYSFS_MAGIC;
        r = 0;
    }
    return r;
}
