/* Slots: load a sequence, arm it, keep its token alive; and the heartbeat that allows it.  All return a reason code. */
#include <string.h>

#include "crc.h"
#include "ionm.h"
#include "wire.h"

enum { HEARTBEAT_BYTES = 24, TTL_MIN_MS = 2000, TTL_MAX_MS = 60000 };

uint8_t ionm_slot_load(ionm_fw *fw, uint8_t index, const uint8_t *bytes, uint16_t length)
{
    ionm_stim *s = &fw->stim;
    ionm_sequence sequence;
    if (s->trip)
        return IONM_TRIPPED_BEFORE;
    if (!(index < IONM_SLOTS))
        return IONM_RANGE;
    if (!(length <= IONM_SEQUENCE_BYTES_MAX))
        return IONM_BAD_LENGTH;
    uint8_t reason = ionm_sequence_decode(bytes, length, &sequence);
    if (!reason && !(sequence.output < fw->config.n_outputs))
        reason = IONM_RANGE;
    if (!reason)
        reason = ionm_sequence_check(&sequence, &fw->config.output[sequence.output]);
    if (reason)
        return reason;
    ionm_slot *slot = &s->slot[index];
    if (s->train.active && s->train.slot == index) /* what runs is no longer what the host wants */
        ionm_train_end(fw, IONM_SEQUENCE_CHANGED, fw->sample);
    slot->token = 0;
    ionm_queue_drop(fw, index, IONM_SEQUENCE_CHANGED, fw->sample);
    memcpy(slot->bytes, bytes, length);
    slot->length = length;
    slot->sequence = sequence;
    slot->crc = get_u32(bytes + length - 4);
    ionm_stim_update_state(fw, IONM_NONE, fw->sample);
    return IONM_NONE;
}

uint8_t ionm_slot_arm(ionm_fw *fw, uint8_t index, uint32_t crc, uint32_t ttl_ms)
{
    ionm_stim *s = &fw->stim;
    if (s->trip)
        return IONM_TRIPPED_BEFORE;
    if (!(index < IONM_SLOTS))
        return IONM_RANGE;
    ionm_slot *slot = &s->slot[index];
    if (slot->length == 0)
        return IONM_STATE;
    if (crc != slot->crc)
        return IONM_SEQUENCE_CHANGED;
    if (!(ttl_ms >= TTL_MIN_MS && ttl_ms <= TTL_MAX_MS))
        return IONM_RANGE;
    if (fw->impedance.active)
        return IONM_IMPEDANCE_MODE;
    if (ionm_line(fw, IONM_LINE_STOP))
        return IONM_STOP_BUTTON;
    if (!ionm_stim_heartbeat_fresh(fw))
        return IONM_WATCHDOG;
    ionm_queue_drop(fw, index, IONM_TOKEN, fw->sample); /* fires of the old token */
    uint32_t token;
    do
        token = fw->hal->random_u32(fw->hal->board);
    while (token == 0 || token == slot->token);
    slot->token = token;
    slot->ttl_samples = ionm_samples_ms(fw, ttl_ms);
    s->output[slot->sequence.output].under = 0;
    ionm_slot_renew(fw, index, fw->sample);
    ionm_stim_update_state(fw, IONM_NONE, fw->sample);
    return IONM_NONE;
}

void ionm_slot_renew(ionm_fw *fw, uint8_t index, uint64_t from)
{
    ionm_slot *slot = &fw->stim.slot[index];
    slot->expires = from + slot->ttl_samples;
    fw->stim.due = 0;
}

uint8_t ionm_heartbeat(ionm_fw *fw, const uint8_t *bytes, uint16_t length)
{
    ionm_stim *s = &fw->stim;
    if (length != HEARTBEAT_BYTES)
        return IONM_BAD_LENGTH;
    if (get_u32(bytes + 20) != ionm_crc32(0, bytes, 20))
        return IONM_BAD_CRC;
    const uint32_t counter = get_u32(bytes);
    const uint64_t processed = get_u64(bytes + 8);
    if (get_u32(bytes + 16) != fw->boot_id)
        return IONM_BOOT_ID;
    if (!(counter > s->heartbeat_counter))
        return IONM_COUNTER;
    if (!(processed <= fw->sample)) /* a host that has processed the future is not one to trust */
        return IONM_RANGE;
    const bool grown = processed > s->processed;
    s->heartbeat_known = true;
    s->heartbeat_counter = counter;
    s->heartbeat_sample = fw->sample;
    s->processed = processed;
    s->due = 0;
    for (uint8_t i = 0; grown && i < IONM_SLOTS; i++)
        if (s->slot[i].token && ionm_queue_has(fw, i))
            ionm_slot_renew(fw, i, fw->sample);
    return IONM_NONE;
}
