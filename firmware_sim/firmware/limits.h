/* Hard limits of the stimulator: the table of docs/wire/ionm1.md section 7 and the sequences held against it. */
#ifndef IONM_LIMITS_H
#define IONM_LIMITS_H
#include <stdbool.h>
#include <stdint.h>

enum { IONM_PULSES_MAX = 16, IONM_RATE_PER_MIN_MAX = 3000, IONM_DELIVERY_US_MAX = 10000000, IONM_DEAD_TIME_MS = 1 };
enum { IONM_KIND_UNUSED, IONM_KIND_TRANSCUTANEOUS, IONM_KIND_TRANSCRANIAL, IONM_KIND_PROBE, IONM_KINDS };

typedef struct {
    bool volts;
    uint32_t amplitude_max; /* uA or mV */
    uint16_t width_min_us, width_max_us;
    uint8_t pulses_max;
    uint32_t compliance_mv; /* 0: voltage source */
    uint64_t energy_max_uj;
    uint32_t interval_min_us, interval_max_us; /* between pulses of one sequence */
    uint16_t gap_ms;
    uint16_t rate_per_min;
    uint32_t tolerance_min; /* uA or mV; the other bound is 10 % */
} ionm_limits;

typedef struct {
    uint8_t kind, hand_held;
    uint32_t max_amplitude; /* 0: the hard limit */
} ionm_output_config;

typedef struct {
    uint8_t output, volts, n_pulses, zero_at;
    uint16_t gap_ms;
    uint32_t t_us[IONM_PULSES_MAX];
    int32_t amplitude[IONM_PULSES_MAX];
    uint16_t width_us[IONM_PULSES_MAX];
    uint8_t biphasic[IONM_PULSES_MAX];
} ionm_sequence;

extern const char ionm_limit_text[];
const ionm_limits *ionm_limits_of(uint8_t kind); /* kind is 1..3 */
uint8_t ionm_sequence_decode(const uint8_t *bytes, uint16_t length, ionm_sequence *sequence);
uint8_t ionm_sequence_check(const ionm_sequence *sequence, const ionm_output_config *output);
/* -1 under, 0 within tolerance, +1 over */
int ionm_tolerance(uint8_t kind, int32_t set, int32_t delivered);

#endif
