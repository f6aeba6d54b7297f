/* Power-up, the bus, the configuration, and the conversion of time to samples (integers, exact). */
#include "ionm.h"

#include <string.h>

#include "crc.h"
#include "sha256.h"
#include "wire.h"

uint64_t ionm_samples_ms(const ionm_fw *fw, uint32_t ms) { return ((uint64_t)ms * fw->config.rate_hz + 999u) / 1000u; }

uint64_t ionm_samples_us(const ionm_fw *fw, uint32_t us)
{
    return ((uint64_t)us * fw->config.rate_hz + 500000u) / 1000000u;
}

/* A new life: counters at 0, a new boot_id.  The configuration is not touched. */
static void restart(ionm_fw *fw)
{
    const uint32_t old = fw->boot_id;
    memset(&fw->stim, 0, sizeof fw->stim);
    memset(&fw->frame, 0, sizeof fw->frame);
    memset(&fw->impedance, 0, sizeof fw->impedance);
    ionm_fifo_clear(&fw->fifo);
    fw->fifo.high_permille = 0;
    fw->sample = fw->acq_sample = 0;
    do
        fw->boot_id = fw->hal->random_u32(fw->hal->board);
    while (fw->boot_id == 0 || fw->boot_id == old);
    fw->frame.next_status = ionm_samples_ms(fw, 100);
    ionm_snap_add(fw, 0);
    fw->hal->outputs_open(fw->hal->board);
}

static uint16_t default_config(const ionm_board_facts *facts, uint8_t *p)
{
    const uint16_t length = (uint16_t)(16 + 8 * facts->outputs + 4);
    memset(p, 0, length);
    put_u16(p, 1);
    put_u16(p + 2, length);
    put_u32(p + 4, 20000);
    put_u16(p + 8, facts->inputs_max < 32 ? facts->inputs_max : 32);
    put_u16(p + 10, 40);
    p[12] = facts->outputs;
    put_u32(p + length - 4, ionm_crc32(0, p, length - 4u));
    return length;
}

void ionm_power_up(ionm_fw *fw, const ionm_hal *hal, const ionm_board_facts *facts)
{
    uint8_t bytes[IONM_CONFIG_BYTES_MAX], digest[32], reason;
    ionm_crc_init();
    memset(fw, 0, sizeof *fw);
    fw->hal = hal;
    fw->facts = *facts;
    fw->fifo.memory = facts->fifo_memory;
    fw->fifo.size = facts->fifo_bytes & ~7u;
    ionm_sha256((const uint8_t *)ionm_limit_text, strlen(ionm_limit_text), digest);
    memcpy(fw->limit_hash, digest, sizeof fw->limit_hash);
    ionm_set_config(fw, bytes, default_config(facts, bytes), &reason); /* restarts: the rate was 0 */
}

static uint8_t decode_config(const ionm_fw *fw, const uint8_t *p, uint16_t length, ionm_config *c)
{
    if (!(length >= 20 && length <= IONM_CONFIG_BYTES_MAX && get_u16(p + 2) == length && length == 16 + 8 * p[12] + 4))
        return IONM_BAD_LENGTH;
    if (get_u32(p + length - 4) != ionm_crc32(0, p, length - 4u))
        return IONM_BAD_CRC;
    memset(c, 0, sizeof *c);
    c->rate_hz = get_u32(p + 4);
    c->inputs = get_u16(p + 8);
    c->block_samples = get_u16(p + 10);
    c->n_outputs = p[12];
    const bool ok = get_u16(p) == 1 && c->rate_hz >= IONM_RATE_MIN_HZ && c->rate_hz <= IONM_RATE_MAX_HZ && c->inputs >= 1
        && c->inputs <= fw->facts.inputs_max && c->block_samples >= 1 && c->block_samples <= IONM_BLOCK_SAMPLES_MAX
        && c->n_outputs <= fw->facts.outputs && p[13] == 0 && p[14] == 0 && p[15] == 0;
    if (!ok)
        return IONM_RANGE;
    for (int i = 0; i < c->n_outputs; i++) {
        const uint8_t *q = p + 16 + 8 * i;
        ionm_output_config *o = &c->output[i];
        o->kind = q[0];
        o->hand_held = q[1];
        o->max_amplitude = get_u32(q + 4);
        if (!(o->kind < IONM_KINDS && o->hand_held <= 1 && q[2] == 0 && q[3] == 0))
            return IONM_RANGE;
        if (!(o->max_amplitude <= ionm_limits_of(o->kind)->amplitude_max))
            return IONM_LIMIT;
    }
    memcpy(c->bytes, p, length);
    c->length = length;
    c->crc = get_u32(p + length - 4);
    return IONM_NONE;
}

/* Whole or not at all. */
bool ionm_set_config(ionm_fw *fw, const uint8_t *bytes, uint16_t length, uint8_t *reason)
{
    ionm_config config;
    *reason = decode_config(fw, bytes, length, &config);
    if (*reason != IONM_NONE)
        return false;
    const uint64_t block = IONM_HEADER_BYTES + (uint64_t)config.block_samples * config.inputs * 3u + 16u;
    if (!(2 * block <= fw->fifo.size)) { /* two blocks must fit, or nothing could ever flow */
        *reason = IONM_RANGE;
        return false;
    }
    const bool new_rate = config.rate_hz != fw->config.rate_hz;
    fw->config = config;
    ionm_fifo_clear(&fw->fifo); /* status blocks of the old layout */
    for (int i = 0; i < IONM_OUTPUTS_MAX; i++)
        fw->stim.output[i].under = 0;
    if (new_rate)
        restart(fw);
    return true;
}

void ionm_usb_reset(ionm_fw *fw)
{
    fw->pipe_open = false;
    ionm_stream_stop(fw);
    ionm_fifo_clear(&fw->fifo);
    ionm_impedance_stop(fw);
    ionm_stim_safe(fw, IONM_BUS_RESET);
}

void ionm_usb_set_alternate(ionm_fw *fw, uint8_t alternate)
{
    ionm_usb_reset(fw);
    fw->pipe_open = alternate == 1;
}
