/* Bulk IN queue on libusb: many transfers in flight, copied into a transport ring, no GIL.
 *
 * In:  an open libusb device handle (pyusb's own), the context it belongs to, and a ring that outlives the queue.
 * Out: whole transfers in the ring, an eventfd that is readable when the ring may hold something new or the state changed.
 * Always: a completed transfer is copied and submitted again at once, in the completion callback; nothing here waits for
 *   the consumer.  One thread of ours runs libusb's events; callbacks may also run on a thread inside a synchronous
 *   control transfer, never on two at once (libusb's event lock).
 * A state other than RUNNING stays until ionm_queue_submit: STALLED needs clear-halt, GONE and FAILED need a reopen.
 */
#ifndef IONM_USB_QUEUE_H
#define IONM_USB_QUEUE_H

#include <stdint.h>

enum { IONM_QUEUE_IDLE, IONM_QUEUE_RUNNING, IONM_QUEUE_STALLED, IONM_QUEUE_FAILED, IONM_QUEUE_GONE };

typedef struct {
    uint64_t completed;
    uint64_t bytes;
    uint64_t stalls;
    uint64_t errors;    /* LIBUSB_TRANSFER_ERROR, submitted again until too many in a row */
    uint64_t timeouts;
    uint64_t overflows; /* babble: the device sent more than asked; that transfer is lost */
    uint64_t cancelled; /* by us, at stop */
    uint64_t cancelled_bytes; /* of those, data that had come; it went into the ring */
    uint64_t last_done_ns;    /* CLOCK_MONOTONIC of the newest completion, 0 before the first */
    int32_t state;
    int32_t in_flight;
    int32_t last_error; /* libusb's code of the newest failed submit or event call */
} ionm_queue_stats;

typedef struct ionm_queue ionm_queue;

/* NULL on failure, with the reason in `why`.  `library`: the file pyusb loaded; it is found again, not loaded twice. */
ionm_queue *ionm_queue_new(const char *library, uintptr_t context, uintptr_t handle, uintptr_t ring, int endpoint,
                           int transfers, int transfer_bytes, char *why, int why_size);
int ionm_queue_eventfd(ionm_queue *q);
int ionm_queue_submit(ionm_queue *q);               /* all transfers; 0 or libusb's error */
int ionm_queue_reap(ionm_queue *q, int timeout_ms); /* cancel all, wait for every callback; transfers still out */
void ionm_queue_drain_event(ionm_queue *q);         /* consumer: the ring was found empty, arm the eventfd again */
void ionm_queue_get_stats(ionm_queue *q, ionm_queue_stats *out);
int ionm_queue_free(ionm_queue *q); /* reaps, ends the thread, frees; >0: so many transfers were left behind */

#endif
