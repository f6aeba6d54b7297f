/* Auxiliary lines: cautery sense, foot switch, probe button, external trigger.  An edge becomes a mark. */
#include "ionm.h"

void ionm_aux_edge(ionm_fw *fw, uint8_t line, bool level)
{
    if (!(line < IONM_LINES) || ((fw->aux >> line & 1u) != 0) == level)
        return;
    fw->aux = (uint8_t)(level ? fw->aux | 1u << line : fw->aux & ~(1u << line));
    const ionm_mark mark = {
        .sample = fw->sample, .kind = IONM_MARK_AUX, .output = line, .flags = level ? IONM_MARK_LEVEL : 0, .value = level,
    };
    ionm_mark_add(fw, &mark);
    ionm_snap_add(fw, fw->sample);
}
