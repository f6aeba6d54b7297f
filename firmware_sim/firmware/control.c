/* EP0 vendor requests (docs/wire/ionm1.md section 4).  A refused request STALLs and leaves its reason in GET_STATUS. */
#include <string.h>

#include "ionm.h"
#include "timers.h"
#include "wire.h"

enum { IN_DEVICE = 0xC0, IN_INTERFACE = 0xC1, OUT_DEVICE = 0x40, OUT_INTERFACE = 0x41, STALL = -1 };
enum { SLOT_FEATURES = 7, LIMIT_TABLE_VERSION = 1, INPUT_RECORD = 32 };

typedef struct {
    uint8_t type, request;
    uint16_t value, index, length; /* of the data stage */
    const uint8_t *data;
    uint8_t *reply;
} request_t;

static int identity(ionm_fw *fw, const request_t *r, uint8_t *reason)
{
    (void)reason;
    uint8_t *p = r->reply;
    memset(p, 0, 64);
    put_u16(p, 1);
    put_u32(p + 4, fw->boot_id);
    put_u16(p + 8, fw->facts.firmware_bcd);
    put_u16(p + 10, fw->facts.hardware);
    p[12] = fw->facts.inputs_max;
    p[13] = fw->facts.outputs;
    p[14] = IONM_SLOTS;
    p[15] = fw->facts.outputs ? SLOT_FEATURES : SLOT_FEATURES & ~1;
    put_u32(p + 16, LIMIT_TABLE_VERSION);
    put_u32(p + 20, fw->fifo.size);
    put_u32(p + 24, IONM_RATE_MAX_HZ);
    memcpy(p + 28, fw->limit_hash, 16);
    return 64;
}

static int status(ionm_fw *fw, const request_t *r, uint8_t *reason)
{
    (void)reason;
    uint8_t *p = r->reply;
    memset(p, 0, 48);
    p[0] = ionm_reported_state(fw, fw->stim.state);
    p[1] = fw->stim.trip;
    p[2] = fw->last_refusal;
    p[3] = fw->frame.streaming;
    put_u32(p + 4, fw->boot_id);
    put_u64(p + 8, fw->sample);
    put_u32(p + 16, fw->frame.seq);
    put_u32(p + 20, fw->frame.dropped);
    put_u16(p + 24, ionm_fifo_permille(&fw->fifo));
    put_u16(p + 26, (uint16_t)fw->fifo.high_permille);
    put_u32(p + 28, fw->stim.heartbeat_counter);
    put_u64(p + 32, fw->stim.processed);
    p[40] = fw->facts.high_speed ? 3 : 2;
    put_u32(p + 44, fw->stim.nonce_seen);
    return 48;
}

static int inputs(ionm_fw *fw, const request_t *r, uint8_t *reason)
{
    if (!(r->value < fw->facts.inputs_max)) {
        *reason = IONM_RANGE;
        return STALL;
    }
    const int n = fw->facts.inputs_max - r->value;
    for (int i = 0; i < n; i++) {
        uint8_t *p = r->reply + INPUT_RECORD * i;
        memset(p, 0, INPUT_RECORD);
        put_u32(p, fw->facts.lsb_pv[r->value + i]);
        p[4] = 1;
        p[5] = 3;
        memcpy(p + 8, fw->facts.label[r->value + i], 24);
    }
    return n * INPUT_RECORD;
}

static int get_config(ionm_fw *fw, const request_t *r, uint8_t *reason)
{
    (void)reason;
    memcpy(r->reply, fw->config.bytes, fw->config.length);
    return fw->config.length;
}

static int set_config(ionm_fw *fw, const request_t *r, uint8_t *reason)
{
    if (fw->frame.streaming || fw->stim.state != IONM_SAFE || fw->impedance.active) {
        *reason = IONM_STATE;
        return STALL;
    }
    return ionm_set_config(fw, r->data, r->length, reason) ? 0 : STALL;
}

static int stream(ionm_fw *fw, const request_t *r, uint8_t *reason)
{
    if (r->value == 0 && r->length == 0) {
        if (fw->frame.streaming) {
            ionm_stim_safe(fw, IONM_HOST_OFF); /* pulses could no longer report themselves */
            ionm_stream_stop(fw);
            ionm_fifo_clear(&fw->fifo);
        }
        return 0;
    }
    if (r->value > 1)
        *reason = IONM_RANGE;
    else if (r->length != (r->value ? 4 : 0))
        *reason = IONM_BAD_LENGTH;
    else if (!fw->facts.high_speed)
        *reason = IONM_SPEED;
    else if (!fw->pipe_open || fw->frame.streaming)
        *reason = IONM_STATE;
    if (*reason)
        return STALL;
    ionm_stream_start(fw, get_u32(r->data));
    return 0;
}

static int impedance(ionm_fw *fw, const request_t *r, uint8_t *reason)
{
    if (r->value > 1)
        *reason = IONM_RANGE;
    else if (r->length != (r->value ? 8 : 0))
        *reason = IONM_BAD_LENGTH;
    else if (r->value == 0)
        ionm_impedance_stop(fw);
    else
        *reason = ionm_impedance_start(fw, get_u64(r->data));
    return *reason ? STALL : 0;
}

static int heartbeat(ionm_fw *fw, const request_t *r, uint8_t *reason)
{
    *reason = ionm_heartbeat(fw, r->data, r->length);
    return *reason ? STALL : 0;
}

static int stim_off(ionm_fw *fw, const request_t *r, uint8_t *reason)
{
    (void)r;
    (void)reason;
    ionm_stim_safe(fw, IONM_HOST_OFF);
    return 0;
}

static int stim_load(ionm_fw *fw, const request_t *r, uint8_t *reason)
{
    *reason = r->value < IONM_SLOTS ? ionm_slot_load(fw, (uint8_t)r->value, r->data, r->length) : IONM_RANGE;
    return *reason ? STALL : 0;
}

static int stim_readback(ionm_fw *fw, const request_t *r, uint8_t *reason)
{
    if (!(r->value < IONM_SLOTS))
        *reason = IONM_RANGE;
    else if (fw->stim.slot[r->value].length == 0)
        *reason = IONM_STATE;
    if (*reason)
        return STALL;
    const ionm_slot *slot = &fw->stim.slot[r->value];
    memcpy(r->reply, slot->bytes, slot->length);
    return slot->length;
}

static int stim_arm(ionm_fw *fw, const request_t *r, uint8_t *reason)
{
    if (r->length != 8)
        *reason = IONM_BAD_LENGTH;
    else if (!(r->value < IONM_SLOTS))
        *reason = IONM_RANGE;
    else
        *reason = ionm_slot_arm(fw, (uint8_t)r->value, get_u32(r->data), get_u32(r->data + 4));
    return *reason ? STALL : 0;
}

static int stim_token(ionm_fw *fw, const request_t *r, uint8_t *reason)
{
    if (!(r->value < IONM_SLOTS)) {
        *reason = IONM_RANGE;
        return STALL;
    }
    const ionm_slot *slot = &fw->stim.slot[r->value];
    memset(r->reply, 0, 16);
    if (slot->token) {
        put_u32(r->reply, slot->token);
        put_u32(r->reply + 4, slot->crc);
        put_u64(r->reply + 8, slot->expires);
    }
    return 16;
}

static int stim_fire(ionm_fw *fw, const request_t *r, uint8_t *reason)
{
    if (r->length != 16)
        *reason = IONM_BAD_LENGTH;
    else if (!(r->value < IONM_SLOTS))
        *reason = IONM_RANGE;
    else
        *reason = ionm_queue_add(fw, (uint8_t)r->value, get_u32(r->data), get_u32(r->data + 4), get_u64(r->data + 8));
    return *reason ? STALL : 0;
}

static int stim_state(ionm_fw *fw, const request_t *r, uint8_t *reason)
{
    (void)reason;
    const ionm_stim *s = &fw->stim;
    uint8_t *p = r->reply;
    uint32_t armed = 0, left_ms = 0;
    for (int i = 0; i < IONM_SLOTS; i++)
        armed |= (uint32_t)(s->slot[i].token != 0) << i;
    if (ionm_stim_heartbeat_fresh(fw)) {
        const uint64_t left = s->heartbeat_sample + ionm_samples_ms(fw, IONM_WATCHDOG_MS) - fw->sample;
        left_ms = (uint32_t)(left * 1000u / fw->config.rate_hz);
    }
    memset(p, 0, 32);
    p[0] = ionm_reported_state(fw, s->state);
    p[1] = s->trip;
    put_u16(p + 2, (uint16_t)armed);
    put_u32(p + 4, left_ms);
    put_u32(p + 8, s->deliveries);
    put_u32(p + 12, s->pulses);
    put_u32(p + 16, s->refused);
    put_u32(p + 20, s->trips);
    put_u64(p + 24, s->last_pulse_sample);
    return 32;
}

static int stim_reset(ionm_fw *fw, const request_t *r, uint8_t *reason)
{
    if (r->length != 1)
        *reason = IONM_BAD_LENGTH;
    else if (!fw->stim.trip)
        *reason = IONM_STATE;
    else if (!ionm_stim_reset(fw, r->data[0]))
        *reason = IONM_TRIPPED_BEFORE;
    return *reason ? STALL : 0;
}

static int stim_abort(ionm_fw *fw, const request_t *r, uint8_t *reason)
{
    if (!(r->value < fw->facts.outputs)) {
        *reason = IONM_RANGE;
        return STALL;
    }
    ionm_stim_abort_output(fw, (uint8_t)r->value, IONM_HOST_OFF, fw->sample);
    return 0;
}

static const struct {
    uint8_t type, request, interface_number;
    bool no_data, no_value;
    int (*serve)(ionm_fw *fw, const request_t *r, uint8_t *reason);
} REQUESTS[] = {
    {IN_DEVICE, 0x01, 0, false, true, identity},
    {IN_DEVICE, 0x02, 0, false, true, status},
    {IN_DEVICE, 0x03, 0, false, false, inputs},
    {OUT_INTERFACE, 0x10, 0, false, false, stream},
    {OUT_DEVICE, 0x11, 0, false, true, set_config},
    {IN_DEVICE, 0x12, 0, false, true, get_config},
    {OUT_INTERFACE, 0x30, 0, false, false, impedance},
    {OUT_INTERFACE, 0x40, 1, false, true, heartbeat},
    {OUT_DEVICE, 0x50, 0, false, false, stim_off},
    {OUT_INTERFACE, 0x51, 1, false, false, stim_load},
    {IN_INTERFACE, 0x52, 1, false, false, stim_readback},
    {OUT_INTERFACE, 0x53, 1, false, false, stim_arm},
    {IN_INTERFACE, 0x54, 1, false, false, stim_token},
    {OUT_INTERFACE, 0x55, 1, false, false, stim_fire},
    {IN_INTERFACE, 0x56, 1, false, true, stim_state},
    {OUT_INTERFACE, 0x57, 1, false, true, stim_reset},
    {OUT_INTERFACE, 0x58, 1, true, false, stim_abort},
};

static int serve(ionm_fw *fw, const request_t *r, uint8_t *reason)
{
    for (size_t i = 0; i < sizeof REQUESTS / sizeof REQUESTS[0]; i++) {
        if (REQUESTS[i].type != r->type || REQUESTS[i].request != r->request)
            continue;
        const bool to_interface = (r->type & 0x1Fu) == 1;
        if (to_interface && r->index != REQUESTS[i].interface_number)
            break;
        if (to_interface && REQUESTS[i].interface_number == 1 && fw->facts.outputs == 0)
            break;
        if (REQUESTS[i].no_value && r->value != 0)
            *reason = IONM_RANGE;
        else if (REQUESTS[i].no_data && r->length != 0)
            *reason = IONM_BAD_LENGTH;
        return *reason ? STALL : REQUESTS[i].serve(fw, r, reason);
    }
    *reason = IONM_UNKNOWN_REQUEST;
    return STALL;
}

/* reply has room for IONM_REPLY_BYTES_MAX; the data stage has been received whole.  At most wLength bytes go back. */
int ionm_control(ionm_fw *fw, const uint8_t setup[8], const uint8_t *data, uint16_t length, uint8_t *reply)
{
    const request_t r = {setup[0], setup[1], get_u16(setup + 2), get_u16(setup + 4), length, data, reply};
    const uint16_t asked = get_u16(setup + 6);
    uint8_t reason = IONM_NONE;
    int n = STALL;
    if (!(setup[0] & 0x80) && asked != length)
        reason = IONM_BAD_LENGTH;
    else
        n = serve(fw, &r, &reason);
    if (n < 0) {
        fw->last_refusal = reason;
        return STALL;
    }
    return n > asked ? asked : n;
}
