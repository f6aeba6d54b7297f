/* The simulator's side of hal.h; doubles are allowed here, this file never runs on a microcontroller. */
#include "board_sim.h"

#include <string.h>

static uint32_t random_u32(void *board) /* splitmix64 */
{
    sim_board *b = board;
    uint64_t z = b->random_state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (uint32_t)((z ^ (z >> 31)) >> 32);
}

/* A current source up to its compliance voltage, or a voltage source up to 1.5 A; both in series with the load. */
static ionm_measured measure(const sim_board *b, uint8_t output, int32_t set, uint16_t width_us, bool volts)
{
    const double ohm = b->load_ohm[output], gain = b->gain[output];
    const uint32_t compliance = ionm_limits_of(b->fw.config.output[output].kind)->compliance_mv;
    const bool open = b->load_ohm[output] == SIM_OPEN_OHM;
    double delivered = set * gain, mv;
    bool reached = false;
    if (volts) {
        const double most_mv = 1500.0 * ohm; /* 1.5 A */
        reached = delivered > most_mv;
        delivered = open ? 0.0 : reached ? most_mv : delivered;
        mv = delivered;
    } else {
        const double most_ua = open ? 0.0 : compliance * 1000.0 / (ohm > 1.0 ? ohm : 1.0);
        reached = compliance > 0 && delivered >= most_ua;
        delivered = reached ? most_ua : delivered;
        mv = open ? compliance : delivered * ohm / 1000.0;
    }
    return (ionm_measured){
        .delivered = (int32_t)(delivered + 0.5), .compliance_mv = (uint32_t)(mv + 0.5), .width_us = width_us,
        .compliance_reached = reached, .volts = volts,
    };
}

static void collect(sim_board *b, const ionm_pulse *pulse, int32_t delivered, bool stray)
{
    if (b->n_pulses == SIM_PULSES_MAX)
        b->pulses_lost++;
    else
        b->pulses[b->n_pulses++] = (sim_pulse){*pulse, delivered, stray};
}

static void output_pulse(void *board, const ionm_pulse *pulse)
{
    sim_board *b = board;
    ionm_measured m = measure(b, pulse->output, pulse->set, pulse->width_us, pulse->volts);
    m.negative = (pulse->negative != 0) != b->flip[pulse->output];
    m.width_us = (uint16_t)(pulse->width_us * b->stretch[pulse->output] + 0.5);
    collect(b, pulse, m.delivered, false);
    if (b->monitor_silent[pulse->output])
        return;
    b->measured[pulse->output] = m;
    b->measured_waits[pulse->output] = b->any_waits = true;
}

static void outputs_open(void *board) { (void)board; }

static void impedance_start(void *board, uint8_t input) { (void)board, (void)input; }

static uint32_t impedance_read(void *board, uint8_t input)
{
    const sim_board *b = board;
    return b->input_ohm[input];
}

size_t sim_board_size(void) { return sizeof(sim_board); }

void sim_power_up(sim_board *b, const ionm_board_facts *facts, uint64_t seed)
{
    memset(b, 0, sizeof *b);
    b->hal = (ionm_hal){b, random_u32, output_pulse, outputs_open, impedance_start, impedance_read};
    b->random_state = seed;
    for (int i = 0; i < IONM_OUTPUTS_MAX; i++) {
        b->load_ohm[i] = 1000;
        b->gain[i] = b->stretch[i] = 1.0;
    }
    for (int i = 0; i < IONM_INPUTS_MAX; i++)
        b->input_ohm[i] = 2000;
    ionm_power_up(&b->fw, &b->hal, facts);
}

void sim_again(sim_board *b)
{
    const ionm_board_facts facts = b->fw.facts;
    memset(b->measured_waits, 0, sizeof b->measured_waits);
    b->any_waits = false;
    b->stray.armed = false;
    b->n_pulses = b->pulses_lost = 0;
    ionm_power_up(&b->fw, &b->hal, &facts);
}

static void fire_stray(sim_board *b, uint64_t sample)
{
    const sim_stray *s = &b->stray;
    const bool volts = ionm_limits_of(b->fw.config.output[s->output].kind)->volts;
    ionm_measured m = measure(b, s->output, s->amplitude, s->width_us, volts);
    const ionm_pulse pulse = {
        .sample = sample, .width_us = s->width_us, .output = s->output, .volts = volts, .negative = s->negative, .last = 1,
    };
    m.negative = s->negative;
    b->stray.armed = false;
    collect(b, &pulse, m.delivered, true);
    ionm_stim_measured(&b->fw, s->output, &m);
}

void sim_ticks(sim_board *b, uint64_t n)
{
    for (; n > 0; n--) {
        const uint64_t now = b->fw.sample;
        ionm_stim_tick(&b->fw);
        if (b->any_waits) {
            b->any_waits = false;
            for (uint8_t i = 0; i < IONM_OUTPUTS_MAX; i++)
                if (b->measured_waits[i]) {
                    b->measured_waits[i] = false;
                    ionm_stim_measured(&b->fw, i, &b->measured[i]);
                }
        }
        if (b->stray.armed && now >= b->stray.sample)
            fire_stray(b, now);
    }
}

/* n samples of `inputs` counts each; false: they lie ahead of the stimulator's clock. */
bool sim_acquire(sim_board *b, const int32_t *counts, uint64_t n)
{
    if (!(n <= b->fw.sample - b->fw.acq_sample))
        return false;
    for (uint64_t i = 0; i < n; i++)
        ionm_acq_sample(&b->fw, counts + i * b->fw.config.inputs);
    return true;
}
