/* What core.py calls, with flat arguments; host only. */
#ifndef IONM_FACE_H
#define IONM_FACE_H
#include "board_sim.h"

typedef struct {
    uint64_t sample;
    int32_t set;
    uint32_t nonce;
    uint16_t pulse, width_us;
    uint8_t output, slot, volts, negative, biphasic, last;
    int32_t delivered;
    uint8_t stray;
} face_pulse;

uint32_t face_crc32(const uint8_t *bytes, size_t length);
void face_power_up(sim_board *b, uint8_t *fifo, uint32_t fifo_bytes, uint8_t inputs, uint8_t outputs, uint8_t high_speed,
                   uint16_t firmware_bcd, const uint32_t *lsb_pv, const char *labels, uint64_t seed);
int face_control(sim_board *b, const uint8_t *setup, const uint8_t *data, uint16_t length, uint8_t *reply);
void face_usb_reset(sim_board *b);
void face_set_alternate(sim_board *b, uint8_t alternate);
void face_aux(sim_board *b, uint8_t line, bool level);
void face_lost(sim_board *b, uint64_t n);
bool face_has_room(const sim_board *b, uint64_t n);
uint32_t face_block_length(const sim_board *b);
void face_block_take(sim_board *b, uint8_t *out);
uint32_t face_pulse_count(const sim_board *b);
uint32_t face_pulses_take(sim_board *b, face_pulse *out);
uint64_t face_get(const sim_board *b, int what);
void face_set_load(sim_board *b, uint8_t output, uint32_t ohm, double gain);
void face_set_shape(sim_board *b, uint8_t output, double stretch, bool flip);
void face_set_input(sim_board *b, uint8_t input, uint32_t ohm);
void face_stray(sim_board *b, uint64_t sample, uint8_t output, int32_t amplitude, uint16_t width_us, uint8_t negative);
void face_lie(sim_board *b, bool on);
void face_silent(sim_board *b, uint8_t output, bool on);
void face_jump(sim_board *b, uint64_t samples, uint32_t seq);

#endif
