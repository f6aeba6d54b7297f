/* The limit table, sequences decoded and held against it.  Integers only; every check says what is allowed.
 *
 * The text is what GET_IDENTITY hashes: a host stimulates only when it holds the same table.  The numbers
 * below it are the same ones; tests/test_firmware_limits.py walks both edges of each.
 */
#include "limits.h"

#include <stddef.h>

#include "crc.h"
#include "reasons.h"
#include "wire.h"

const char ionm_limit_text[] =
    "ionm1 limit table 1\n"
    "transcutaneous mA max_ua=100000 width_us=50..1000 pulses=1..4 compliance_mv=400000 energy_uj=50000 "
    "interval_us=2000.. gap_ms=15 rate_per_min=3000\n"
    "transcranial V max_mv=1000000 width_us=50..100 pulses=1..9 energy_uj=50000 interval_us=1000..10000 gap_ms=1000 "
    "rate_per_min=60\n"
    "probe mA max_ua=40000 width_us=50..300 pulses=1..5 compliance_mv=200000 energy_uj=50000 interval_us=1000.. "
    "gap_ms=50 rate_per_min=1200";

static const ionm_limits LIMITS[IONM_KINDS] = {
    [IONM_KIND_TRANSCUTANEOUS] = {false, 100000, 50, 1000, 4, 400000, 50000, 2000, IONM_DELIVERY_US_MAX, 15, 3000, 50},
    [IONM_KIND_TRANSCRANIAL] = {true, 1000000, 50, 100, 9, 0, 50000, 1000, 10000, 1000, 60, 5000},
    [IONM_KIND_PROBE] = {false, 40000, 50, 300, 5, 200000, 50000, 1000, IONM_DELIVERY_US_MAX, 50, 1200, 50},
};

const ionm_limits *ionm_limits_of(uint8_t kind) { return &LIMITS[kind < IONM_KINDS ? kind : IONM_KIND_UNUSED]; }

static uint32_t magnitude(int32_t x) { return x < 0 ? 0u - (uint32_t)x : (uint32_t)x; }

/* Bytes of 5.6 -> fields; form only, no limits. */
uint8_t ionm_sequence_decode(const uint8_t *p, uint16_t length, ionm_sequence *s)
{
    if (!(length >= 8 + 12 + 4))
        return IONM_BAD_LENGTH;
    if (get_u32(p + length - 4) != ionm_crc32(0, p, length - 4u))
        return IONM_BAD_CRC;
    const uint8_t n = p[4];
    if (!(get_u16(p) == 1 && n >= 1 && n <= IONM_PULSES_MAX))
        return IONM_RANGE;
    if (length != 8 + 12 * n + 4)
        return IONM_BAD_LENGTH;
    s->output = p[2];
    s->volts = p[3];
    s->n_pulses = n;
    s->zero_at = p[5];
    s->gap_ms = get_u16(p + 6);
    if (!(s->volts <= 1 && s->zero_at < n))
        return IONM_RANGE;
    for (int i = 0; i < n; i++) {
        const uint8_t *q = p + 8 + 12 * i;
        s->t_us[i] = get_u32(q);
        s->amplitude[i] = (int32_t)get_u32(q + 4);
        s->width_us[i] = get_u16(q + 8);
        s->biphasic[i] = q[10];
        const bool rising = i == 0 ? s->t_us[0] == 0 : s->t_us[i] > s->t_us[i - 1];
        if (!(rising && s->t_us[i] <= IONM_DELIVERY_US_MAX && s->biphasic[i] <= 1 && q[11] == 0))
            return IONM_RANGE;
        if (s->amplitude[i] == 0) /* a pulse of nothing could not be told from one that was not delivered */
            return IONM_RANGE;
    }
    return IONM_NONE;
}

uint8_t ionm_sequence_check(const ionm_sequence *s, const ionm_output_config *output)
{
    if (!(output->kind > IONM_KIND_UNUSED && output->kind < IONM_KINDS))
        return IONM_RANGE;
    const ionm_limits *lim = &LIMITS[output->kind];
    if ((s->volts != 0) != lim->volts)
        return IONM_RANGE;
    if (!(s->n_pulses >= 1 && s->n_pulses <= lim->pulses_max))
        return IONM_LIMIT;
    for (int i = 0; i < s->n_pulses; i++) {
        const uint64_t amplitude = magnitude(s->amplitude[i]);
        const uint64_t phases = s->biphasic[i] ? 2 : 1;
        if (!(amplitude >= 1 && amplitude <= lim->amplitude_max))
            return IONM_LIMIT;
        if (output->max_amplitude != 0 && !(amplitude <= output->max_amplitude))
            return IONM_LIMIT;
        if (!(s->width_us[i] >= lim->width_min_us && s->width_us[i] <= lim->width_max_us))
            return IONM_LIMIT;
        /* into 1 kohm, uA^2 us and mV^2 us are both 1e-9 uJ; at most 1e12 * 1000 * 2, so 64 bits hold it */
        if (!(amplitude * amplitude * s->width_us[i] * phases <= lim->energy_max_uj * 1000000000u))
            return IONM_LIMIT;
        if (i > 0) {
            const uint32_t interval_us = s->t_us[i] - s->t_us[i - 1];
            if (!(interval_us >= lim->interval_min_us && interval_us <= lim->interval_max_us))
                return IONM_LIMIT;
        }
    }
    return IONM_NONE;
}

int ionm_tolerance(uint8_t kind, int32_t set, int32_t delivered)
{
    const int64_t want = magnitude(set), got = delivered;
    int64_t ten = want; /* ten times the tolerance, so that 10 % stays exact */
    const int64_t least = (int64_t)ionm_limits_of(kind)->tolerance_min * 10;
    if (ten < least)
        ten = least;
    if ((want - got) * 10 > ten)
        return -1;
    return (got - want) * 10 > ten ? 1 : 0;
}
