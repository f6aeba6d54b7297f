"""Compiles firmware/*.c for the host as `firmware_sim._firmware` (cffi).

    python -m firmware_sim.build_firmware      # in place, from the top of the tree; setup.py does the same

Only the calls that core.py makes are declared; the firmware's own struct stays opaque except for the few
read-only fields that have an accessor below.
"""

from pathlib import Path

from cffi import FFI

HERE = "firmware_sim/firmware"
SOURCES = sorted(str(p) for p in Path(HERE).glob("*.c"))

ffi = FFI()
ffi.cdef(
    """
    typedef ... sim_board;
    typedef struct {
        uint64_t sample; int32_t set; uint32_t nonce; uint16_t pulse, width_us;
        uint8_t output, slot, volts, negative, biphasic, last; int32_t delivered; uint8_t stray;
    } face_pulse;

    size_t sim_board_size(void);
    uint32_t face_crc32(const uint8_t *bytes, size_t length);
    void face_power_up(sim_board *b, uint8_t *fifo, uint32_t fifo_bytes, uint8_t inputs, uint8_t outputs,
                       uint8_t high_speed, uint16_t firmware_bcd, const uint32_t *lsb_pv,
                       const char *labels, uint64_t seed);
    void sim_again(sim_board *b);
    void sim_ticks(sim_board *b, uint64_t n);
    bool sim_acquire(sim_board *b, const int32_t *counts, uint64_t n);
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
    void face_set_input(sim_board *b, uint8_t input, uint32_t ohm);
    void face_stray(sim_board *b, uint64_t sample, uint8_t output, int32_t amplitude, uint16_t width_us,
                    uint8_t negative);
    void face_lie(sim_board *b, bool on);
    void face_silent(sim_board *b, uint8_t output, bool on);
    void face_set_shape(sim_board *b, uint8_t output, double stretch, bool flip);
    void face_jump(sim_board *b, uint64_t samples, uint32_t seq);
    """
)
ffi.set_source(
    "firmware_sim._firmware",
    '#include "firmware/face.h"',
    sources=SOURCES,
    include_dirs=["firmware_sim"],  # not HERE: its limits.h would hide the C library's
    extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-Wextra"],
)

if __name__ == "__main__":
    ffi.compile(verbose=False)
