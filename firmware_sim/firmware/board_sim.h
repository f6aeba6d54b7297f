/* The board that is not there: hal.h for the simulator.
 *
 * Loads on the outputs (a resistor, open or not), a gain error of each output, an impedance for each input, a seeded
 * random number, and faults: a stray pulse at a sample, a monitor that is silent.  Pulses that left an output are
 * collected here until the caller takes them; the patient answers them.
 */
#ifndef IONM_BOARD_SIM_H
#define IONM_BOARD_SIM_H
#include "ionm.h"

enum { SIM_PULSES_MAX = 4096, SIM_OPEN_OHM = 0x7FFFFFFF };

typedef struct {
    ionm_pulse pulse;
    int32_t delivered;
    uint8_t stray;
} sim_pulse;

typedef struct {
    bool armed;
    uint64_t sample;
    uint8_t output, negative;
    int32_t amplitude;
    uint16_t width_us;
} sim_stray;

typedef struct {
    ionm_fw fw;
    ionm_hal hal;
    uint64_t random_state;
    uint32_t load_ohm[IONM_OUTPUTS_MAX];
    double gain[IONM_OUTPUTS_MAX], stretch[IONM_OUTPUTS_MAX]; /* of amplitude and width */
    bool flip[IONM_OUTPUTS_MAX];                              /* the first phase goes the other way */
    bool monitor_silent[IONM_OUTPUTS_MAX];
    uint32_t input_ohm[IONM_INPUTS_MAX];
    sim_stray stray;
    bool measured_waits[IONM_OUTPUTS_MAX];
    ionm_measured measured[IONM_OUTPUTS_MAX];
    bool any_waits;
    sim_pulse pulses[SIM_PULSES_MAX];
    uint32_t n_pulses, pulses_lost;
} sim_board;

size_t sim_board_size(void);
void sim_power_up(sim_board *b, const ionm_board_facts *facts, uint64_t seed);
void sim_again(sim_board *b); /* power off and on: new boot_id, the world outside stays */
void sim_ticks(sim_board *b, uint64_t n);
bool sim_acquire(sim_board *b, const int32_t *counts, uint64_t n);

#endif
