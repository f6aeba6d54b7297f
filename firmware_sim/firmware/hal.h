/* What the firmware needs of a board.  Nothing else of the hardware is known above this line.
 *
 * The board calls in (all at ONE interrupt priority, so that no call interrupts another):
 *   ionm_stim_tick        every sample, before anything else happens in it
 *   ionm_acq_sample       every sample, with the converter's counts; may lag behind the tick (filter delay)
 *   ionm_stim_measured    when the output monitor has finished measuring a pulse, wanted or not
 *   ionm_aux_edge         when an auxiliary line changed
 *   ionm_control          an EP0 vendor request;  ionm_usb_*: what the USB stack saw
 * The firmware calls out through this table.  No call may block.
 */
#ifndef IONM_HAL_H
#define IONM_HAL_H
#include <stdint.h>

/* One pulse that leaves an output now.  set is uA or mV, always >= 0; negative: the first phase is negative. */
typedef struct {
    uint64_t sample;
    int32_t set;
    uint32_t nonce;
    uint16_t pulse;
    uint16_t width_us;
    uint8_t output, slot, volts, negative, biphasic, last;
} ionm_pulse;

/* What the monitor of an output saw of one pulse.  delivered is uA, or mV at the electrodes while current flows
 * (an open circuit delivers 0, whatever the unit); width_us and negative are those of its first phase. */
typedef struct {
    int32_t delivered;
    uint32_t compliance_mv;
    uint16_t width_us;
    uint8_t compliance_reached, volts, negative;
} ionm_measured;

typedef struct {
    void *board;
    uint32_t (*random_u32)(void *board);
    void (*output_pulse)(void *board, const ionm_pulse *pulse); /* hardware ends the pulse by itself after its width */
    void (*outputs_open)(void *board);                          /* every relay open, every source at zero */
    void (*impedance_start)(void *board, uint8_t input);        /* test current on this input; 0xFF: off */
    uint32_t (*impedance_read)(void *board, uint8_t input);     /* ohm; 0x7FFFFFFF: open */
} ionm_hal;

#endif
