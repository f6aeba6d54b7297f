/* The transfers of a session: they go out as CMD_SUBMIT, a thread receives their answers and completes them. */
#include "shim.h"

enum { CMD_SUBMIT = 1, CMD_UNLINK = 2, RET_SUBMIT = 3, RET_UNLINK = 4, HEADER_BYTES = 48 };

/* ------------------------------------------------------------------ completion (all with `state` held) */

static void poll_writable(struct node *n)
{
    char byte;
    if (!n->drained && n->signal_fd >= 0 && REAL(read)(n->signal_fd, &byte, 1) == 1)
        n->drained = true;
}

void shim_poll_quiet(struct node *n)
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

static void *receiver(void *arg)
{
    struct node *n = arg;
    uint32_t h[HEADER_BYTES / 4];
    while (shim_receive(n->sock, h, sizeof h)) {
        uint32_t command = be32toh(h[0]), seq = be32toh(h[1]), actual = be32toh(h[6]);
        int status = (int)be32toh(h[5]);
        pthread_mutex_lock(&n->state);
        struct transfer *t = find(n, seq, command == RET_UNLINK);
        pthread_mutex_unlock(&n->state);
        if (command == RET_SUBMIT && t) {
            /* `t` stays pending while its data arrives: nobody frees a pending transfer but this thread. */
            uint32_t kept = t->in && actual > t->room ? t->room : actual;
            if (t->in && (!shim_receive(n->sock, t->in, kept) || !shim_discard(n->sock, actual - kept)))
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

bool shim_start_receiver(struct node *n)
{
    sigset_t all, before; /* the host program's signals are not for this thread */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    n->has_receiver = !pthread_create(&n->receiver, NULL, receiver, n);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return n->has_receiver;
}

/* ------------------------------------------------------------------ submission */

int shim_submit(struct node *n, struct transfer *t, int ep, bool in, uint32_t flags, const uint8_t *setup,
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
    if (!shim_transmit(n->sock, h, sizeof h, data, in ? 0 : length))
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

int shim_control(struct node *n, uint8_t type, uint8_t request, uint16_t value, uint16_t index, void *data,
                   uint16_t length)
{
    uint8_t setup[8] = {type,           request,       (uint8_t)value,  (uint8_t)(value >> 8),
                        (uint8_t)index, index >> 8,    (uint8_t)length, (uint8_t)(length >> 8)};
    bool in = type & 0x80;
    struct transfer t = {.in = in ? data : NULL, .room = length};
    if (shim_submit(n, &t, 0, in, 0, setup, data, length))
        return -1;
    return wait_sync(n, &t);
}

int shim_cancel(struct node *n, const struct usbdevfs_urb *urb)
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
    if (first && !shim_transmit(n->sock, h, sizeof h, NULL, 0))
        shutdown(n->sock, SHUT_RDWR);
    pthread_mutex_unlock(&n->tx);
    /* As usb_kill_urb: it is reapable when the ioctl returns. */
    pthread_mutex_lock(&n->state);
    while (find(n, seq, false))
        pthread_cond_wait(&n->changed, &n->state);
    pthread_mutex_unlock(&n->state);
    return 0;
}
