/* The ioctls of usbfs that libusb makes. */
#include "shim.h"

enum { MAX_IN_FLIGHT = 16 << 20 }; /* usbfs_memory_mb's default; beyond it SUBMITURB is ENOMEM */

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
    if (!setup && !n->gone && shim_owner(n, urb->endpoint) < 0)
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
    const uint32_t flags = urb->flags & (USBDEVFS_URB_SHORT_NOT_OK | USBDEVFS_URB_ZERO_PACKET);
    if (shim_submit(n, t, urb->endpoint & 15, in, flags, setup, data, length)) {
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
        shim_poll_quiet(n);
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
            if (t->urb && (interface < 0 || shim_owner(n, t->urb->endpoint) == interface))
                urb = t->urb;
        pthread_mutex_unlock(&n->state);
        if (urb)
            shim_cancel(n, urb);
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
        shim_control(n, 0x01, 0x0B, 0, (uint16_t)interface, NULL, 0);
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
    if (shim_control(n, 0x01, 0x0B, (uint16_t)s->altsetting, (uint16_t)s->interface, NULL, 0) < 0)
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
    if (shim_control(n, 0x00, 0x09, (uint16_t)(value < 0 ? 0 : value), 0, NULL, 0) < 0)
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
    if (shim_control(n, 0x23, 0x03, 4, 1, NULL, 0) < 0 || shim_control(n, 0x00, 0x09, 1, 0, NULL, 0) < 0)
        return -1;
    pthread_mutex_lock(&n->state);
    memcpy(alt, n->alt, sizeof alt);
    pthread_mutex_unlock(&n->state);
    for (uint16_t i = 0; i < MAX_INTERFACES; i++)
        if (alt[i] && shim_control(n, 0x01, 0x0B, alt[i], i, NULL, 0) < 0)
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
        return shim_cancel(n, arg);
    case USBDEVFS_GET_CAPABILITIES: /* so that libusb sends a transfer as one URB and reaps after a disconnect */
        *(uint32_t *)arg =
            USBDEVFS_CAP_ZERO_PACKET | USBDEVFS_CAP_NO_PACKET_SIZE_LIM | USBDEVFS_CAP_REAP_AFTER_DISCONNECT;
        return 0;
    case USBDEVFS_CONTROL: {
        struct usbdevfs_ctrltransfer *c = arg;
        return shim_control(n, c->bRequestType, c->bRequest, c->wValue, c->wIndex, c->data, c->wLength);
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
        return shim_control(n, 0x02, 0x01, 0, (uint16_t) * (unsigned *)arg, NULL, 0) < 0 ? -1 : 0;
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
    struct node *n = shim_hold(fd, &foreign);
    if (!n) {
        if (!foreign)
            return REAL(ioctl)(fd, request, arg);
        errno = ENODEV;
        return -1;
    }
    int r = node_ioctl(n, request, arg), saved = errno;
    shim_let_go(n);
    errno = saved;
    return r;
}
