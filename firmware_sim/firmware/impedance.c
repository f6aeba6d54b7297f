/* Impedance mode: one input after the other, INPUT_MS each, a mark for each; ends by itself.
 *
 * The test current is in the samples meanwhile; the header flag says so.  No stimulus can be armed during it.
 */
#include "ionm.h"

enum { INPUT_MS = 20, OFF = 0xFF };

static void next_input(ionm_fw *fw, uint64_t now)
{
    ionm_impedance *z = &fw->impedance;
    for (uint8_t i = 0; i < fw->config.inputs; i++)
        if (z->mask >> i & 1u) {
            z->input = i;
            z->done = now + ionm_samples_ms(fw, INPUT_MS);
            fw->hal->impedance_start(fw->hal->board, i);
            return;
        }
    ionm_impedance_stop(fw);
}

uint8_t ionm_impedance_start(ionm_fw *fw, uint64_t mask)
{
    if (!(fw->stim.state == IONM_SAFE || fw->stim.state == IONM_CONFIGURED))
        return IONM_STATE;
    if (fw->impedance.active)
        return IONM_IMPEDANCE_MODE;
    const uint64_t present = fw->config.inputs == 64 ? ~(uint64_t)0 : ((uint64_t)1 << fw->config.inputs) - 1u;
    if (!(mask != 0 && (mask & ~present) == 0))
        return IONM_RANGE;
    fw->impedance.active = true;
    fw->impedance.mask = mask;
    ionm_snap_add(fw, fw->sample);
    next_input(fw, fw->sample);
    fw->stim.due = 0;
    return IONM_NONE;
}

void ionm_impedance_stop(ionm_fw *fw)
{
    if (!fw->impedance.active)
        return;
    fw->impedance.active = false;
    fw->hal->impedance_start(fw->hal->board, OFF);
    ionm_snap_add(fw, fw->sample);
}

void ionm_impedance_work(ionm_fw *fw, uint64_t now)
{
    ionm_impedance *z = &fw->impedance;
    if (!z->active || now < z->done)
        return;
    const uint32_t ohm = fw->hal->impedance_read(fw->hal->board, z->input);
    const bool open = ohm >= 0x7FFFFFFFu;
    const ionm_mark mark = {
        .sample = now, .kind = IONM_MARK_IMPEDANCE, .output = z->input,
        .flags = open ? IONM_MARK_NOT_OK : 0, .delivered = open ? 0x7FFFFFFF : (int32_t)ohm,
    };
    ionm_mark_add(fw, &mark);
    z->mask &= ~((uint64_t)1 << z->input);
    next_input(fw, now);
}
