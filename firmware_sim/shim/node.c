/* Open nodes: the descriptor that libusb polls, what the device has, and who still uses it. */
#include "shim.h"

enum { MAX_FD = 65536 };

static _Atomic(struct node *) table[MAX_FD];
static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;

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
int shim_owner(const struct node *n, uint8_t address)
{
    for (int i = 0; i < n->n_endpoints; i++) {
        const struct endpoint *e = &n->endpoints[i];
        if (e->address == address && e->interface < MAX_INTERFACES && e->alt == n->alt[e->interface])
            return e->interface;
    }
    return -1;
}

/* ------------------------------------------------------------------ open and close */

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

int shim_open(const char *path, int flags, unsigned bus, unsigned dev)
{
    char at[PATH_MAX], busid[32] = "";
    uint8_t descriptors[4096];
    size_t size;
    int probe = REAL(open)(shim_redirect(path, at), (flags & O_ACCMODE) | O_CLOEXEC);
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
    shim_poll_quiet(n);
    if (n->fd >= MAX_FD) {
        errno = EMFILE;
        goto fail;
    }
    snprintf(at, sizeof at, "%.*s/sys/bus/usb/devices/%s/descriptors", (int)(sizeof at - 80), shim_root, busid);
    if (read_file(at, descriptors, sizeof descriptors, &size))
        parse_descriptors(n, descriptors, size);
    if (shim_import(busid, n))
        goto fail;
    if (n->sock >= 0) {
        if (!shim_start_receiver(n)) {
            errno = ENOMEM;
            goto fail;
        }
        /* The kernel configures a device when it is plugged in; here attaching is opening. */
        if (shim_control(n, 0x00, 0x09, 1, 0, NULL, 0) < 0) {
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

struct node *shim_hold(int fd, bool *foreign)
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

void shim_let_go(struct node *n)
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
    shim_let_go(n);
    return r;
}
