/* Auxiliary lines: cautery sense, foot switch, probe button, external trigger, stop button.  An edge becomes a mark.
 *
 * Cautery makes fires of its time fail (stim.c); the stop button makes everything safe and keeps it so while it is held.
 */
#include "ionm.h"

bool ionm_line(const ionm_fw *fw, uint8_t line) { return (fw->aux >> line & 1u) != 0; }

void ionm_aux_edge(ionm_fw *fw, uint8_t line, bool level)
{
    if (!(line < IONM_LINES) || ionm_line(fw, line) == level)
        return;
    fw->aux = (uint8_t)(level ? fw->aux | 1u << line : fw->aux & ~(1u << line));
    const ionm_mark mark = {
        .sample = fw->sample, .kind = IONM_MARK_AUX, .output = line, .flags = level ? IONM_MARK_LEVEL : 0, .value = level,
    };
    ionm_mark_add(fw, &mark);
    ionm_snap_add(fw, fw->sample);
    if (line == IONM_LINE_STOP && level)
        ionm_stim_safe(fw, IONM_STOP_BUTTON);
}
