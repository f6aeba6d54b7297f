/* The device: all of its state in one struct, and every call into it.
 *
 * In: samples, output measurements, line edges, EP0 requests (hal.h says who calls when).
 * Out: whole blocks of docs/wire/ionm1.md section 3 from ionm_take_block; pulses through the HAL.
 * Always: the sample counter is the only clock; no allocation, no floating point, no loop without a bound.
 * Two counters: `sample` is the next sample of the stimulator, `acq_sample` the next one to be framed.
 * acq_sample never passes sample; how far it lags changes no byte of the stream except fifo_permille.
 */
#ifndef IONM_H
#define IONM_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hal.h"
#include "limits.h"
#include "reasons.h"

enum {
    IONM_INPUTS_MAX = 64,
    IONM_OUTPUTS_MAX = 8,
    IONM_SLOTS = 16,
    IONM_QUEUE = 32,
    IONM_MARKS = 256,
    IONM_SNAPS = 64,
    IONM_HEADER_BYTES = 64,
    IONM_MARK_BYTES = 32,
    IONM_SEQUENCE_BYTES_MAX = 8 + 12 * IONM_PULSES_MAX + 4,
    IONM_CONFIG_BYTES_MAX = 16 + 8 * IONM_OUTPUTS_MAX + 4,
    IONM_REPLY_BYTES_MAX = 64 * 32,
    IONM_RATE_MIN_HZ = 1000,
    IONM_RATE_MAX_HZ = 40000,
    IONM_BLOCK_SAMPLES_MAX = 4096,
    IONM_COUNT_MAX = 0x7FFFFF,
    IONM_COUNT_MIN = -0x800000,
};

enum { IONM_BLOCK_DATA = 1, IONM_BLOCK_STATUS = 4 };
enum { IONM_FLAG_OVERFLOW = 1, IONM_FLAG_SATURATED = 2, IONM_FLAG_TEST = 4, IONM_FLAG_IMPEDANCE = 8 };
enum {
    IONM_MARK_PULSE = 1, IONM_MARK_DELIVERY_END, IONM_MARK_AUX, IONM_MARK_STIM_STATE, IONM_MARK_IMPEDANCE,
    IONM_MARK_FIRE_REFUSED,
};
enum {
    IONM_MARK_LAST = 1, IONM_MARK_NOT_OK = 2, IONM_MARK_NO_CONTACT = 4, IONM_MARK_COMPLIANCE = 8,
    IONM_MARK_NEGATIVE = 16, IONM_MARK_LEVEL = 32, IONM_MARK_VOLTS = 64,
};
enum { IONM_SAFE, IONM_CONFIGURED, IONM_ARMED, IONM_FIRING, IONM_TRIPPED };
enum {
    IONM_LINE_CAUTERY, IONM_LINE_FOOT_SWITCH, IONM_LINE_PROBE_BUTTON, IONM_LINE_TRIGGER, IONM_LINE_STOP, IONM_LINES,
};

/* What the board says about itself once, at power-up. */
typedef struct {
    uint8_t *fifo_memory;
    uint32_t fifo_bytes;
    uint8_t inputs_max, outputs, high_speed;
    uint16_t firmware_bcd, hardware;
    uint32_t lsb_pv[IONM_INPUTS_MAX];
    char label[IONM_INPUTS_MAX][24];
} ionm_board_facts;

typedef struct {
    uint64_t sample;
    uint8_t kind, output, slot, flags;
    uint16_t pulse, width_us;
    uint32_t nonce;
    int32_t set, delivered;
    uint32_t value;
} ionm_mark;

/* State as it was from `sample` on: lets a header tell the truth about its own last sample. */
typedef struct {
    uint64_t sample;
    uint8_t state, trip, aux;
    bool impedance;
} ionm_snap;

/* 5.4 decoded, and its bytes as applied. */
typedef struct {
    uint32_t rate_hz;
    uint16_t inputs, block_samples;
    uint8_t n_outputs;
    ionm_output_config output[IONM_OUTPUTS_MAX];
    uint8_t bytes[IONM_CONFIG_BYTES_MAX];
    uint16_t length;
    uint32_t crc;
} ionm_config;

typedef struct {
    uint8_t bytes[IONM_SEQUENCE_BYTES_MAX];
    uint16_t length; /* 0: empty */
    ionm_sequence sequence;
    uint32_t crc;    /* the one that ends the bytes */
    uint32_t token;  /* 0: not armed */
    uint64_t ttl_samples, expires;
} ionm_slot;

typedef struct {
    uint64_t at;
    uint32_t nonce, token;
    uint8_t slot;
} ionm_fire;

typedef struct {
    bool active;
    uint8_t slot, next; /* next pulse to leave */
    uint8_t reason;     /* what was wrong with a pulse so far, 0 if nothing */
    uint32_t nonce;
    uint64_t first;
    ionm_sequence sequence; /* a copy: what was authorised is what runs */
} ionm_train;

typedef struct {
    bool waiting; /* a pulse left and its measurement has not come */
    ionm_pulse pulse;
    uint64_t deadline;
    uint8_t under;             /* consecutive under-deliveries */
    bool fired;                /* ever */
    uint64_t last_sample;      /* of the last pulse */
    uint16_t gap_ms;           /* asked for by the last delivery */
    uint32_t recent[IONM_RATE_PER_MIN_MAX]; /* low words of the samples of pulses of the last minute */
    uint16_t recent_head, recent_count;
} ionm_output;

typedef struct {
    ionm_slot slot[IONM_SLOTS];
    ionm_fire queue[IONM_QUEUE];
    uint8_t queued;
    ionm_train train;
    ionm_output output[IONM_OUTPUTS_MAX];
    uint8_t state, trip; /* trip: reason of the latched trip, 0 if none */
    uint64_t quiet_until; /* no pulse of another output before this sample */
    uint64_t due;         /* the tick has nothing to do before this sample */
    bool heartbeat_known;
    uint64_t heartbeat_sample; /* when the last one was accepted */
    uint32_t heartbeat_counter;
    uint64_t processed;
    uint32_t nonce_seen;
    uint32_t deliveries, pulses, refused, trips;
    uint64_t last_pulse_sample;
} ionm_stim;

typedef struct {
    uint8_t *memory;
    uint32_t size, head, tail, used, records, high_permille;
} ionm_fifo;

typedef struct {
    bool streaming, open, dropping, overflowed, saturated;
    uint32_t session, seq, dropped;
    uint8_t *block; /* where the open block is being written */
    uint16_t room;  /* marks it has room for */
    uint64_t first;
    uint16_t n;
    uint64_t next_status;
    ionm_mark mark[IONM_MARKS]; /* sorted by sample; in the order of events where equal */
    uint16_t marks;
    bool marks_lost;
    ionm_snap snap[IONM_SNAPS]; /* changes not yet reached by acq_sample */
    uint8_t snaps;
    ionm_snap now; /* as of acq_sample */
} ionm_framing;

typedef struct {
    bool active;
    uint64_t mask;
    uint8_t input;
    uint64_t done; /* sample at which the present input is measured */
} ionm_impedance;

typedef struct {
    const ionm_hal *hal;
    ionm_board_facts facts;
    ionm_config config;
    uint32_t boot_id;
    uint64_t sample, acq_sample;
    uint8_t aux;
    bool pipe_open; /* interface 0 is in alternate setting 1 */
    uint8_t last_refusal;
    uint8_t limit_hash[16];
    ionm_stim stim;
    ionm_framing frame;
    ionm_fifo fifo;
    ionm_impedance impedance;
    bool lie_state; /* simulated fault: everything that reports the state says SAFE.  Nothing on a board sets it. */
} ionm_fw;

/* ionm.c: power and the bus */
void ionm_power_up(ionm_fw *fw, const ionm_hal *hal, const ionm_board_facts *facts);
void ionm_usb_reset(ionm_fw *fw);                        /* bus reset, SET_CONFIGURATION, lost cable */
void ionm_usb_set_alternate(ionm_fw *fw, uint8_t alternate); /* of interface 0 */
bool ionm_set_config(ionm_fw *fw, const uint8_t *bytes, uint16_t length, uint8_t *reason);
uint64_t ionm_samples_ms(const ionm_fw *fw, uint32_t ms); /* rounded up */
uint64_t ionm_samples_us(const ionm_fw *fw, uint32_t us); /* nearest, a half rounds up */

/* control.c: EP0 vendor requests.  Returns the length of the reply, or -1 for STALL. */
int ionm_control(ionm_fw *fw, const uint8_t setup[8], const uint8_t *data, uint16_t length, uint8_t *reply);

/* stim.c */
void ionm_stim_tick(ionm_fw *fw);
void ionm_stim_measured(ionm_fw *fw, uint8_t output, const ionm_measured *measured);
void ionm_stim_safe(ionm_fw *fw, uint8_t reason);
void ionm_stim_trip(ionm_fw *fw, uint8_t reason, uint64_t at);
void ionm_stim_abort_output(ionm_fw *fw, uint8_t output, uint8_t reason, uint64_t at);
void ionm_stim_update_state(ionm_fw *fw, uint8_t reason, uint64_t at);
bool ionm_stim_heartbeat_fresh(const ionm_fw *fw);
bool ionm_stim_reset(ionm_fw *fw, uint8_t reason);
void ionm_train_end(ionm_fw *fw, uint8_t reason, uint64_t at);

/* queue.c: waiting fires */
uint8_t ionm_queue_add(ionm_fw *fw, uint8_t slot, uint32_t token, uint32_t nonce, uint64_t at_sample);
void ionm_queue_drop(ionm_fw *fw, int slot, uint8_t reason, uint64_t at); /* slot -1: all */
bool ionm_queue_has(const ionm_fw *fw, uint8_t slot);
void ionm_fire_refused(ionm_fw *fw, const ionm_fire *fire, uint8_t reason, uint64_t at);

/* slot.c: sequences and tokens; each returns a reason code, 0 when done */
uint8_t ionm_slot_load(ionm_fw *fw, uint8_t slot, const uint8_t *bytes, uint16_t length);
uint8_t ionm_slot_arm(ionm_fw *fw, uint8_t slot, uint32_t crc, uint32_t ttl_ms);
void ionm_slot_renew(ionm_fw *fw, uint8_t slot, uint64_t from);
uint8_t ionm_heartbeat(ionm_fw *fw, const uint8_t *bytes, uint16_t length);

/* frame.c: blocks; fifo.c: where they wait; marks.c */
void ionm_stream_start(ionm_fw *fw, uint32_t session);
void ionm_stream_stop(ionm_fw *fw);
void ionm_acq_sample(ionm_fw *fw, const int32_t *counts);
void ionm_acq_lost(ionm_fw *fw, uint64_t samples);
uint32_t ionm_block_bytes(const ionm_fw *fw, uint32_t samples, uint32_t marks);
bool ionm_has_room(const ionm_fw *fw, uint64_t samples);
uint8_t *ionm_fifo_reserve(ionm_fifo *fifo, uint32_t bytes);
void ionm_fifo_commit(ionm_fifo *fifo, uint8_t *block, uint32_t bytes);
void ionm_fifo_clear(ionm_fifo *fifo);
uint16_t ionm_fifo_permille(const ionm_fifo *fifo);
uint32_t ionm_next_block(const ionm_fw *fw, const uint8_t **block); /* length, 0: nothing to send */
void ionm_block_sent(ionm_fw *fw);
void ionm_mark_add(ionm_fw *fw, const ionm_mark *mark);
uint16_t ionm_marks_take(ionm_fw *fw, uint64_t before, uint16_t room, uint8_t *out);
void ionm_snap_add(ionm_fw *fw, uint64_t sample);
void ionm_snaps_reach(ionm_fw *fw, uint64_t sample);
uint8_t ionm_reported_state(const ionm_fw *fw, uint8_t state);

/* impedance.c */
uint8_t ionm_impedance_start(ionm_fw *fw, uint64_t mask);
void ionm_impedance_stop(ionm_fw *fw);
void ionm_impedance_work(ionm_fw *fw, uint64_t now);

/* aux_lines.c */
void ionm_aux_edge(ionm_fw *fw, uint8_t line, bool level);
bool ionm_line(const ionm_fw *fw, uint8_t line);

#endif
