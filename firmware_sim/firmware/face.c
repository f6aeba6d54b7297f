/* Flat calls for cffi; no rule of the device lives here. */
#include "face.h"

#include <string.h>

#include "crc.h"

uint32_t face_crc32(const uint8_t *bytes, size_t length)
{
    ionm_crc_init();
    return ionm_crc32(0, bytes, length);
}

void face_power_up(sim_board *b, uint8_t *fifo, uint32_t fifo_bytes, uint8_t inputs, uint8_t outputs, uint8_t high_speed,
                   uint16_t firmware_bcd, const uint32_t *lsb_pv, const char *labels, uint64_t seed)
{
    ionm_board_facts facts = {
        .fifo_memory = fifo, .fifo_bytes = fifo_bytes, .inputs_max = inputs, .outputs = outputs,
        .high_speed = high_speed, .firmware_bcd = firmware_bcd, .hardware = 1,
    };
    memcpy(facts.lsb_pv, lsb_pv, inputs * sizeof lsb_pv[0]);
    memcpy(facts.label, labels, inputs * sizeof facts.label[0]);
    sim_power_up(b, &facts, seed);
}

int face_control(sim_board *b, const uint8_t *setup, const uint8_t *data, uint16_t length, uint8_t *reply)
{
    return ionm_control(&b->fw, setup, data, length, reply);
}

void face_usb_reset(sim_board *b) { ionm_usb_reset(&b->fw); }
void face_set_alternate(sim_board *b, uint8_t alternate) { ionm_usb_set_alternate(&b->fw, alternate); }
void face_aux(sim_board *b, uint8_t line, bool level) { ionm_aux_edge(&b->fw, line, level); }
void face_lost(sim_board *b, uint64_t n) { ionm_acq_lost(&b->fw, n); }
bool face_has_room(const sim_board *b, uint64_t n) { return ionm_has_room(&b->fw, n); }

uint32_t face_block_length(const sim_board *b)
{
    const uint8_t *block;
    return ionm_next_block(&b->fw, &block);
}

void face_block_take(sim_board *b, uint8_t *out)
{
    const uint8_t *block;
    const uint32_t length = ionm_next_block(&b->fw, &block);
    memcpy(out, block, length);
    ionm_block_sent(&b->fw);
}

uint32_t face_pulse_count(const sim_board *b) { return b->n_pulses; }

uint32_t face_pulses_take(sim_board *b, face_pulse *out)
{
    const uint32_t n = b->n_pulses;
    for (uint32_t i = 0; i < n; i++) {
        const ionm_pulse *p = &b->pulses[i].pulse;
        out[i] = (face_pulse){
            p->sample, p->set, p->nonce, p->pulse, p->width_us, p->output, p->slot, p->volts, p->negative, p->biphasic,
            p->last, b->pulses[i].delivered, b->pulses[i].stray,
        };
    }
    b->n_pulses = 0;
    return n;
}

uint64_t face_get(const sim_board *b, int what)
{
    const ionm_fw *fw = &b->fw;
    const uint64_t values[] = {
        fw->sample, fw->acq_sample, fw->stim.processed, fw->fifo.used, fw->fifo.size, fw->frame.streaming,
        fw->config.inputs, fw->config.rate_hz, fw->config.block_samples, fw->boot_id, fw->stim.state, fw->stim.trip,
        fw->fifo.records, fw->impedance.active ? (uint64_t)fw->impedance.input : UINT64_MAX, b->pulses_lost, fw->frame.n,
        fw->frame.open,
    };
    return what >= 0 && (size_t)what < sizeof values / sizeof values[0] ? values[what] : UINT64_MAX;
}

void face_set_load(sim_board *b, uint8_t output, uint32_t ohm, double gain)
{
    b->load_ohm[output] = ohm;
    b->gain[output] = gain;
}

void face_set_shape(sim_board *b, uint8_t output, double stretch, bool flip)
{
    b->stretch[output] = stretch;
    b->flip[output] = flip;
}

void face_set_input(sim_board *b, uint8_t input, uint32_t ohm) { b->input_ohm[input] = ohm; }

void face_stray(sim_board *b, uint64_t sample, uint8_t output, int32_t amplitude, uint16_t width_us, uint8_t negative)
{
    b->stray = (sim_stray){true, sample, output, negative, amplitude, width_us};
}

void face_lie(sim_board *b, bool on) { b->fw.lie_state = on; }
/* Counters that tests cannot wait for: samples nobody saw, and the next block's number. */
void face_jump(sim_board *b, uint64_t samples, uint32_t seq)
{
    ionm_acq_lost(&b->fw, b->fw.frame.open ? 1 : 0); /* a begun block ends */
    b->fw.sample += samples;
    b->fw.frame.next_status = b->fw.acq_sample = b->fw.sample;
    b->fw.frame.seq = seq;
}

void face_silent(sim_board *b, uint8_t output, bool on) { b->monitor_silent[output] = on; }
