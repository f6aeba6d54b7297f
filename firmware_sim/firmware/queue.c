/* Waiting fires, sorted by at_sample; equal ones in the order in which they came. */
#include "ionm.h"

enum { FAR_S = 30 };

void ionm_fire_refused(ionm_fw *fw, const ionm_fire *fire, uint8_t reason, uint64_t at)
{
    fw->stim.refused++;
    const ionm_mark mark = {
        .sample = at, .kind = IONM_MARK_FIRE_REFUSED, .output = fw->stim.slot[fire->slot].sequence.output,
        .slot = fire->slot, .flags = IONM_MARK_NOT_OK, .nonce = fire->nonce, .value = reason,
    };
    ionm_mark_add(fw, &mark);
}

static uint8_t check(ionm_fw *fw, uint8_t index, uint32_t token, uint32_t nonce, uint64_t at)
{
    ionm_stim *s = &fw->stim;
    if (s->trip)
        return IONM_TRIPPED_BEFORE;
    if (!(index < IONM_SLOTS))
        return IONM_RANGE;
    const ionm_slot *slot = &s->slot[index];
    if (!(token != 0 && slot->token == token))
        return IONM_TOKEN;
    if (!(nonce > s->nonce_seen))
        return IONM_NONCE;
    s->nonce_seen = nonce; /* from here on it is used up, whatever follows */
    if (!fw->frame.streaming) /* a pulse must be able to report itself */
        return IONM_STATE;
    if (!ionm_stim_heartbeat_fresh(fw))
        return IONM_WATCHDOG;
    if (!(at >= fw->sample))
        return IONM_LATE;
    if (!(at - fw->sample <= (uint64_t)FAR_S * fw->config.rate_hz))
        return IONM_FAR;
    return ionm_sequence_check(&slot->sequence, &fw->config.output[slot->sequence.output]);
}

uint8_t ionm_queue_add(ionm_fw *fw, uint8_t slot, uint32_t token, uint32_t nonce, uint64_t at_sample)
{
    ionm_stim *s = &fw->stim;
    const uint64_t at = at_sample ? at_sample : fw->sample;
    uint8_t reason = check(fw, slot, token, nonce, at);
    if (!reason && !(s->queued < IONM_QUEUE))
        reason = IONM_QUEUE_FULL;
    if (reason) {
        s->refused++;
        return reason;
    }
    uint8_t i = s->queued++;
    for (; i > 0 && s->queue[i - 1].at > at; i--)
        s->queue[i] = s->queue[i - 1];
    s->queue[i] = (ionm_fire){at, nonce, token, slot};
    s->due = 0;
    return IONM_NONE;
}

bool ionm_queue_has(const ionm_fw *fw, uint8_t slot)
{
    for (uint8_t i = 0; i < fw->stim.queued; i++)
        if (fw->stim.queue[i].slot == slot)
            return true;
    return false;
}

void ionm_queue_drop(ionm_fw *fw, int slot, uint8_t reason, uint64_t at)
{
    ionm_stim *s = &fw->stim;
    ionm_fire gone[IONM_QUEUE];
    uint8_t kept = 0, dropped = 0;
    for (uint8_t i = 0; i < s->queued; i++)
        if (slot < 0 || s->queue[i].slot == slot)
            gone[dropped++] = s->queue[i];
        else
            s->queue[kept++] = s->queue[i];
    s->queued = kept; /* before the marks: a full mark store comes back here */
    for (uint8_t i = 0; i < dropped; i++)
        ionm_fire_refused(fw, &gone[i], reason, at);
}
