/* See queue.h.  The libusb types below are its stable ABI (libusb-1.0, unchanged since 1.0.9): no header is needed. */
#define _GNU_SOURCE
#include "queue.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "ring.h"

struct libusb_transfer {
    void *dev_handle;
    uint8_t flags;
    unsigned char endpoint;
    unsigned char type;
    unsigned int timeout;
    int status;
    int length;
    int actual_length;
    void (*callback)(struct libusb_transfer *);
    void *user_data;
    unsigned char *buffer;
    int num_iso_packets;
};
enum { COMPLETED, ERROR, TIMED_OUT, CANCELLED, STALL, NO_DEVICE, OVERFLOW };
enum { TYPE_BULK = 2, USB_ERROR_IO = -1, USB_ERROR_NO_DEVICE = -4 };
enum { MAX_TRANSFERS = 1024, ERRORS_IN_A_ROW = 8 }; /* a bad cable gives single errors, a dead one gives nothing else */

struct ionm_queue {
    /* libusb */
    struct libusb_transfer *(*alloc)(int);
    void (*release)(struct libusb_transfer *);
    int (*submit)(struct libusb_transfer *);
    int (*cancel)(struct libusb_transfer *);
    int (*events)(void *, struct timeval *, int *);
    void (*interrupt)(void *);
    void *context;
    ionm_ring *ring;
    int fd, n;
    struct libusb_transfer **transfers;
    uint8_t *memory;
    pthread_t thread;
    pthread_mutex_t lock; /* with `idle`: in_flight reached 0 */
    pthread_cond_t idle;
    _Atomic int stopping, quit, in_flight, state, errors_in_a_row, last_error, signalled;
    _Atomic uint64_t completed, bytes, stalls, errors, timeouts, overflows, cancelled, cancelled_bytes, last_done_ns;
};

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* One write until the consumer has looked: at 1,000 transfers/s most of them cost no system call. */
static void wake(ionm_queue *q) {
    uint64_t one = 1;
    if (!atomic_exchange(&q->signalled, 1) && write(q->fd, &one, sizeof one) < 0 && errno != EAGAIN)
        atomic_store(&q->signalled, 0);
}

void ionm_queue_drain_event(ionm_queue *q) {
    uint64_t count;
    if (read(q->fd, &count, sizeof count) < 0) { /* EAGAIN: nothing was signalled */
    }
    atomic_store(&q->signalled, 0); /* the consumer looks at the ring once more after this */
}

/* The worst state wins; RUNNING only ever comes from ionm_queue_submit. */
static void worsen(ionm_queue *q, int state) {
    int was = atomic_load(&q->state);
    while (was < state && !atomic_compare_exchange_weak(&q->state, &was, state)) {
    }
}

static void left(ionm_queue *q) {
    pthread_mutex_lock(&q->lock);
    if (atomic_fetch_sub(&q->in_flight, 1) == 1) pthread_cond_broadcast(&q->idle);
    pthread_mutex_unlock(&q->lock);
}

static void submit_failed(ionm_queue *q, int error) {
    atomic_store(&q->last_error, error);
    worsen(q, error == USB_ERROR_NO_DEVICE ? IONM_QUEUE_GONE : IONM_QUEUE_FAILED);
}

static void done(struct libusb_transfer *t) {
    ionm_queue *q = t->user_data;
    int again = 0;
    if (t->actual_length > 0 && t->status != OVERFLOW) { /* what a cancelled or broken transfer held is real data too */
        uint64_t at = now_ns();
        ionm_ring_push(q->ring, t->buffer, (uint32_t)t->actual_length, t->status == CANCELLED, at);
        atomic_store(&q->last_done_ns, at);
        atomic_fetch_add(&q->bytes, (uint64_t)t->actual_length);
    }
    switch (t->status) {
    case COMPLETED:
        atomic_fetch_add(&q->completed, 1);
        atomic_store(&q->errors_in_a_row, 0);
        again = 1;
        break;
    case TIMED_OUT:
        atomic_fetch_add(&q->timeouts, 1);
        again = 1;
        break;
    case CANCELLED:
        atomic_fetch_add(&q->cancelled, 1);
        atomic_fetch_add(&q->cancelled_bytes, (uint64_t)t->actual_length);
        break;
    case STALL:
        atomic_fetch_add(&q->stalls, 1);
        worsen(q, IONM_QUEUE_STALLED);
        break;
    case NO_DEVICE:
        worsen(q, IONM_QUEUE_GONE);
        break;
    default:
        atomic_fetch_add(t->status == OVERFLOW ? &q->overflows : &q->errors, 1);
        again = atomic_fetch_add(&q->errors_in_a_row, 1) + 1 < ERRORS_IN_A_ROW;
        if (!again) worsen(q, IONM_QUEUE_FAILED);
    }
    if (again && !atomic_load(&q->stopping) && atomic_load(&q->state) == IONM_QUEUE_RUNNING) {
        int error = q->submit(t);
        if (!error) {
            wake(q);
            return;
        }
        submit_failed(q, error);
    }
    wake(q);
    left(q);
}

static void *event_thread(void *argument) {
    ionm_queue *q = argument;
    while (!atomic_load(&q->quit)) {
        struct timeval tick = {0, 100000};
        int error = q->events(q->context, &tick, NULL);
        if (error < 0 && error != -10) { /* -10: interrupted by a signal */
            struct timespec pause = {0, 10000000};
            atomic_store(&q->last_error, error);
            nanosleep(&pause, NULL);
        }
    }
    return NULL;
}

static int find(void *library, const char *name, void *into, char *why, int size) {
    void *f = dlsym(library, name);
    memcpy(into, &f, sizeof f);
    if (!f) snprintf(why, (size_t)size, "%s is not in the libusb library", name);
    return f != NULL;
}

static void discard(ionm_queue *q) {
    for (int i = 0; q->transfers && i < q->n; i++)
        if (q->transfers[i]) q->release(q->transfers[i]);
    free(q->transfers);
    free(q->memory);
    if (q->fd >= 0) close(q->fd);
    free(q);
}

ionm_queue *ionm_queue_new(const char *library, uintptr_t context, uintptr_t handle, uintptr_t ring, int endpoint,
                           int transfers, int transfer_bytes, char *why, int why_size) {
    if (transfers < 1 || transfers > MAX_TRANSFERS || transfer_bytes < 512 || transfer_bytes % 512 || !handle || !ring) {
        snprintf(why, (size_t)why_size, "%d transfers of %d bytes: 1 to %d of a multiple of 512 were expected", transfers,
                 transfer_bytes, MAX_TRANSFERS);
        return NULL;
    }
    void *lib = dlopen(library, RTLD_NOW | RTLD_LOCAL); /* already loaded: the same copy; never closed */
    if (!lib) {
        snprintf(why, (size_t)why_size, "%s", dlerror());
        return NULL;
    }
    ionm_queue *q = calloc(1, sizeof *q);
    if (!q) return NULL;
    q->fd = -1;
    if (!find(lib, "libusb_alloc_transfer", &q->alloc, why, why_size) ||
        !find(lib, "libusb_free_transfer", &q->release, why, why_size) ||
        !find(lib, "libusb_submit_transfer", &q->submit, why, why_size) ||
        !find(lib, "libusb_cancel_transfer", &q->cancel, why, why_size) ||
        !find(lib, "libusb_handle_events_timeout_completed", &q->events, why, why_size) ||
        !find(lib, "libusb_interrupt_event_handler", &q->interrupt, why, why_size)) {
        free(q);
        return NULL;
    }
    q->context = (void *)context;
    q->ring = (ionm_ring *)ring;
    q->n = transfers;
    q->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    q->transfers = calloc((size_t)transfers, sizeof *q->transfers);
    q->memory = aligned_alloc(512, (size_t)transfers * (size_t)transfer_bytes);
    pthread_mutex_init(&q->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&q->idle, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int ok = q->fd >= 0 && q->transfers && q->memory;
    for (int i = 0; ok && i < transfers; i++) {
        struct libusb_transfer *t = q->transfers[i] = q->alloc(0);
        if (!(ok = t != NULL)) break;
        t->dev_handle = (void *)handle;
        t->endpoint = (unsigned char)endpoint;
        t->type = TYPE_BULK;
        t->timeout = 0; /* a timeout used as flow control would lose data that the device has sent */
        t->length = transfer_bytes;
        t->buffer = q->memory + (size_t)i * (size_t)transfer_bytes;
        t->callback = done;
        t->user_data = q;
    }
    if (!ok) {
        snprintf(why, (size_t)why_size, "no memory for %d transfers of %d bytes", transfers, transfer_bytes);
        discard(q);
        return NULL;
    }
    sigset_t all, before; /* signals belong to the main thread */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&q->thread, NULL, event_thread, q);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error) {
        snprintf(why, (size_t)why_size, "the event thread cannot start: error %d", error);
        discard(q);
        return NULL;
    }
    pthread_setname_np(q->thread, "usb-events");
    return q;
}

int ionm_queue_eventfd(ionm_queue *q) { return q->fd; }

int ionm_queue_submit(ionm_queue *q) {
    if (atomic_load(&q->in_flight)) return USB_ERROR_IO;
    atomic_store(&q->stopping, 0);
    atomic_store(&q->errors_in_a_row, 0);
    atomic_store(&q->state, IONM_QUEUE_RUNNING);
    for (int i = 0; i < q->n; i++) {
        atomic_fetch_add(&q->in_flight, 1);
        int error = q->submit(q->transfers[i]);
        if (error) {
            submit_failed(q, error);
            left(q);
            return error;
        }
    }
    return 0;
}

int ionm_queue_reap(ionm_queue *q, int timeout_ms) {
    uint64_t until = now_ns() + (uint64_t)timeout_ms * 1000000u;
    atomic_store(&q->stopping, 1);
    while (atomic_load(&q->in_flight) && now_ns() < until) {
        /* Again in every round: a callback may have submitted between our flag and our cancel. */
        for (int i = q->n - 1; i >= 0; i--) q->cancel(q->transfers[i]);
        uint64_t wait = now_ns() + 20000000u;
        struct timespec t = {(time_t)(wait / 1000000000u), (long)(wait % 1000000000u)};
        pthread_mutex_lock(&q->lock);
        while (atomic_load(&q->in_flight) && !pthread_cond_timedwait(&q->idle, &q->lock, &t)) {
        }
        pthread_mutex_unlock(&q->lock);
    }
    if (!atomic_load(&q->in_flight)) {
        int running = IONM_QUEUE_RUNNING;
        atomic_compare_exchange_strong(&q->state, &running, IONM_QUEUE_IDLE);
    }
    return atomic_load(&q->in_flight);
}

void ionm_queue_get_stats(ionm_queue *q, ionm_queue_stats *out) {
    out->completed = atomic_load(&q->completed);
    out->bytes = atomic_load(&q->bytes);
    out->stalls = atomic_load(&q->stalls);
    out->errors = atomic_load(&q->errors);
    out->timeouts = atomic_load(&q->timeouts);
    out->overflows = atomic_load(&q->overflows);
    out->cancelled = atomic_load(&q->cancelled);
    out->cancelled_bytes = atomic_load(&q->cancelled_bytes);
    out->last_done_ns = atomic_load(&q->last_done_ns);
    out->state = atomic_load(&q->state);
    out->in_flight = atomic_load(&q->in_flight);
    out->last_error = atomic_load(&q->last_error);
}

int ionm_queue_free(ionm_queue *q) {
    int out = ionm_queue_reap(q, 2000);
    atomic_store(&q->quit, 1);
    q->interrupt(q->context);
    pthread_join(q->thread, NULL);
    if (out) return out; /* libusb still owns memory of ours: leaking it is the only safe thing */
    pthread_cond_destroy(&q->idle);
    pthread_mutex_destroy(&q->lock);
    discard(q);
    return 0;
}
