/* The stimulator on the sample clock: one train at a time, every pulse measured, off when in doubt.
 *
 * The tick does nothing until `due`; whatever may change what is due sets it to 0.  The state is derived, never set:
 * a latched trip, a running train, a live token, a loaded slot, or nothing.  Nothing here looks at a converter count,
 * so ticks may run ahead of the framing.
 */
#include "ionm.h"
#include "timers.h"

enum {
    MEASURE_MS = 3, /* the longest pulse is 2 ms; a monitor that is silent for longer saw nothing */
    WIDTH_SPARE_US = 10,
};

static uint8_t derived_state(const ionm_stim *s)
{
    uint8_t state = IONM_SAFE;
    if (s->trip)
        return IONM_TRIPPED;
    if (s->train.active)
        return IONM_FIRING;
    for (int i = 0; i < IONM_SLOTS; i++) {
        if (s->slot[i].token)
            return IONM_ARMED;
        if (s->slot[i].length)
            state = IONM_CONFIGURED;
    }
    return state;
}

/* Pulse and delivery-end marks tell ARMED <-> FIRING; every other change has a mark of its own. */
void ionm_stim_update_state(ionm_fw *fw, uint8_t reason, uint64_t at)
{
    ionm_stim *s = &fw->stim;
    const uint8_t old = s->state, state = derived_state(s);
    s->due = 0;
    if (state == old)
        return;
    s->state = state;
    ionm_snap_add(fw, at);
    if ((old == IONM_ARMED && state == IONM_FIRING) || (old == IONM_FIRING && state == IONM_ARMED))
        return;
    const ionm_mark mark = {
        .sample = at, .kind = IONM_MARK_STIM_STATE, .value = state | (uint32_t)reason << 8,
    };
    ionm_mark_add(fw, &mark);
}

bool ionm_stim_heartbeat_fresh(const ionm_fw *fw)
{
    const ionm_stim *s = &fw->stim;
    return s->heartbeat_known && fw->sample - s->heartbeat_sample < ionm_samples_ms(fw, IONM_WATCHDOG_MS);
}

/* The train is over; reason 0: it came to its own end. */
void ionm_train_end(ionm_fw *fw, uint8_t reason, uint64_t at)
{
    ionm_train *t = &fw->stim.train;
    if (!t->active)
        return;
    t->active = false;
    fw->stim.deliveries++;
    const uint8_t why = reason ? reason : t->reason;
    const ionm_mark mark = {
        .sample = at, .kind = IONM_MARK_DELIVERY_END, .output = t->sequence.output, .slot = t->slot,
        .flags = (uint8_t)((why ? IONM_MARK_NOT_OK : 0) | (why == IONM_NO_CONTACT ? IONM_MARK_NO_CONTACT : 0)
            | (t->sequence.volts ? IONM_MARK_VOLTS : 0)),
        .pulse = t->next, .nonce = t->nonce, .value = why,
    };
    ionm_mark_add(fw, &mark);
}

static void everything_off(ionm_fw *fw, uint8_t reason, uint64_t at)
{
    ionm_stim *s = &fw->stim;
    fw->hal->outputs_open(fw->hal->board);
    ionm_train_end(fw, reason, at);
    for (int i = 0; i < IONM_SLOTS; i++) {
        s->slot[i].token = 0;
        s->slot[i].length = 0;
    }
    ionm_queue_drop(fw, -1, reason, at);
}

void ionm_stim_safe(ionm_fw *fw, uint8_t reason)
{
    everything_off(fw, reason, fw->sample);
    ionm_stim_update_state(fw, reason, fw->sample);
}

void ionm_stim_trip(ionm_fw *fw, uint8_t reason, uint64_t at)
{
    if (fw->stim.trip) {
        fw->hal->outputs_open(fw->hal->board);
        return;
    }
    fw->stim.trip = reason;
    fw->stim.trips++;
    everything_off(fw, reason, at);
    ionm_stim_update_state(fw, reason, at);
}

bool ionm_stim_reset(ionm_fw *fw, uint8_t reason)
{
    if (!fw->stim.trip || fw->stim.trip != reason)
        return false;
    fw->stim.trip = IONM_NONE;
    for (int i = 0; i < IONM_OUTPUTS_MAX; i++)
        fw->stim.output[i].under = 0;
    ionm_stim_update_state(fw, IONM_NONE, fw->sample);
    return true;
}

void ionm_stim_abort_output(ionm_fw *fw, uint8_t output, uint8_t reason, uint64_t at)
{
    ionm_stim *s = &fw->stim;
    if (s->train.active && s->train.sequence.output == output)
        ionm_train_end(fw, reason, at);
    for (int i = 0; i < IONM_SLOTS; i++)
        if (s->slot[i].length && s->slot[i].sequence.output == output) {
            s->slot[i].token = 0;
            ionm_queue_drop(fw, i, reason, at);
        }
    ionm_stim_update_state(fw, reason, at);
}

static void pulse_mark(ionm_fw *fw, const ionm_pulse *p, const ionm_measured *m, uint8_t flags)
{
    flags |= (uint8_t)((p->last ? IONM_MARK_LAST : 0) | (m->compliance_reached ? IONM_MARK_COMPLIANCE : 0)
        | (p->negative ? IONM_MARK_NEGATIVE : 0) | (p->volts ? IONM_MARK_VOLTS : 0));
    const ionm_mark mark = {
        .sample = p->sample, .kind = IONM_MARK_PULSE, .output = p->output, .slot = p->slot, .flags = flags,
        .pulse = p->pulse, .width_us = p->width_us, .nonce = p->nonce, .set = p->negative ? -p->set : p->set,
        .delivered = m->delivered, .value = m->compliance_mv,
    };
    ionm_mark_add(fw, &mark);
}

static void stray(ionm_fw *fw, uint8_t output, const ionm_measured *m)
{
    const ionm_pulse nobody = {
        .sample = fw->sample > 0 ? fw->sample - 1 : 0, .output = output, .width_us = m->width_us, .volts = m->volts,
        .negative = m->negative, .last = 1,
    };
    pulse_mark(fw, &nobody, m, IONM_MARK_NOT_OK);
    ionm_stim_trip(fw, IONM_STRAY_PULSE, nobody.sample);
}

/* A pulse that lasts longer than asked, or goes the other way, is too much whatever its amplitude; what is smaller than
 * any pulse (an open circuit's noise) has neither length nor direction. */
static bool misshapen(const ionm_pulse *p, const ionm_measured *m, uint8_t kind)
{
    const uint32_t spare_us = p->width_us / 10u > WIDTH_SPARE_US ? p->width_us / 10u : WIDTH_SPARE_US;
    if (m->delivered < (int32_t)ionm_limits_of(kind)->tolerance_min)
        return false;
    return m->width_us > p->width_us + spare_us || (m->negative != 0) != (p->negative != 0);
}

void ionm_stim_measured(ionm_fw *fw, uint8_t output, const ionm_measured *m)
{
    ionm_stim *s = &fw->stim;
    if (!(output < IONM_OUTPUTS_MAX))
        return;
    ionm_output *o = &s->output[output];
    if (!o->waiting) {
        stray(fw, output, m);
        return;
    }
    o->waiting = false;
    const ionm_pulse p = o->pulse;
    const ionm_output_config *config = &fw->config.output[output];
    const int deviation = misshapen(&p, m, config->kind) ? 1 : ionm_tolerance(config->kind, p.set, m->delivered);
    const bool no_contact = deviation < 0 && config->hand_held;
    pulse_mark(fw, &p, m, (uint8_t)((deviation ? IONM_MARK_NOT_OK : 0) | (no_contact ? IONM_MARK_NO_CONTACT : 0)));
    const bool running = s->train.active && s->train.nonce == p.nonce;
    s->due = 0;
    if (deviation > 0) {
        ionm_stim_trip(fw, IONM_OVER_DELIVERY, p.sample);
        return;
    }
    if (running && deviation < 0)
        s->train.reason = no_contact ? IONM_NO_CONTACT : IONM_UNDER_DELIVERY;
    o->under = deviation < 0 && !no_contact ? (uint8_t)(o->under + 1) : 0;
    if (o->under >= 2) {
        o->under = 0;
        ionm_stim_abort_output(fw, output, IONM_UNDER_DELIVERY, p.sample);
        return;
    }
    if (running && p.last) {
        ionm_train_end(fw, IONM_NONE, p.sample);
        ionm_stim_update_state(fw, IONM_NONE, p.sample);
    }
}

/* The monitor has not answered: it counts as nothing delivered. */
static void unmeasured(ionm_fw *fw, uint8_t output)
{
    const ionm_measured nothing = {0};
    ionm_stim_measured(fw, output, &nothing);
}

static void emit(ionm_fw *fw, uint64_t now)
{
    ionm_stim *s = &fw->stim;
    ionm_train *t = &s->train;
    ionm_output *o = &s->output[t->sequence.output];
    if (o->waiting)
        unmeasured(fw, t->sequence.output);
    if (!t->active)
        return;
    const uint8_t i = t->next++;
    const int32_t amplitude = t->sequence.amplitude[i];
    const ionm_pulse pulse = {
        .sample = now, .set = amplitude < 0 ? -amplitude : amplitude, .nonce = t->nonce, .pulse = i,
        .width_us = t->sequence.width_us[i], .output = t->sequence.output, .slot = t->slot,
        .volts = t->sequence.volts, .negative = amplitude < 0, .biphasic = t->sequence.biphasic[i],
        .last = t->next == t->sequence.n_pulses,
    };
    o->waiting = true;
    o->pulse = pulse;
    o->deadline = now + ionm_samples_ms(fw, MEASURE_MS);
    o->fired = true;
    o->last_sample = now;
    o->gap_ms = t->sequence.gap_ms;
    o->recent[(o->recent_head + o->recent_count) % IONM_RATE_PER_MIN_MAX] = (uint32_t)now;
    if (o->recent_count < IONM_RATE_PER_MIN_MAX)
        o->recent_count++;
    else
        o->recent_head = (uint16_t)((o->recent_head + 1u) % IONM_RATE_PER_MIN_MAX);
    const uint32_t quiet_us = pulse.width_us * (pulse.biphasic ? 2u : 1u) + IONM_DEAD_TIME_MS * 1000u;
    s->quiet_until = now + (quiet_us * (uint64_t)fw->config.rate_hz + 999999u) / 1000000u;
    s->pulses++;
    s->last_pulse_sample = now;
    ionm_slot_renew(fw, t->slot, now);
    fw->hal->output_pulse(fw->hal->board, &pulse);
}

/* Is this output ready for a delivery of n pulses? */
static bool rested(ionm_fw *fw, uint8_t output, const ionm_sequence *q, uint64_t now)
{
    ionm_output *o = &fw->stim.output[output];
    const ionm_limits *lim = ionm_limits_of(fw->config.output[output].kind);
    const uint64_t minute = 60u * (uint64_t)fw->config.rate_hz;
    if (!o->fired)
        return true;
    const uint16_t gap_ms = q->gap_ms > lim->gap_ms ? q->gap_ms : lim->gap_ms;
    const uint16_t longest = o->gap_ms > gap_ms ? o->gap_ms : gap_ms;
    if (!(now - o->last_sample >= ionm_samples_ms(fw, longest)))
        return false;
    if (now - o->last_sample >= minute) /* also keeps the ages below from wrapping */
        o->recent_count = 0;
    while (o->recent_count > 0 && (uint32_t)((uint32_t)now - o->recent[o->recent_head]) >= minute) {
        o->recent_head = (uint16_t)((o->recent_head + 1u) % IONM_RATE_PER_MIN_MAX);
        o->recent_count--;
    }
    return o->recent_count + q->n_pulses <= lim->rate_per_min;
}

static uint8_t why_not_now(ionm_fw *fw, const ionm_fire *fire, uint64_t now)
{
    ionm_stim *s = &fw->stim;
    const ionm_slot *slot = &s->slot[fire->slot];
    if (!(fire->at == now))
        return IONM_LATE;
    if (!(slot->token != 0 && slot->token == fire->token))
        return IONM_TOKEN;
    if (!fw->frame.streaming)
        return IONM_STATE;
    if (!ionm_stim_heartbeat_fresh(fw))
        return IONM_WATCHDOG;
    ionm_sequence again; /* decoded from the armed bytes each time: memory is not trusted for 10 s */
    if (ionm_sequence_decode(slot->bytes, slot->length, &again) != IONM_NONE || !(again.output < fw->config.n_outputs))
        return IONM_SEQUENCE_CHANGED;
    const uint8_t limit = ionm_sequence_check(&again, &fw->config.output[again.output]);
    if (limit)
        return limit;
    if (fw->impedance.active)
        return IONM_IMPEDANCE_MODE;
    if (ionm_line(fw, IONM_LINE_CAUTERY))
        return IONM_CAUTERY;
    if (s->train.active || !(now >= s->quiet_until))
        return IONM_DEAD_TIME;
    if (!rested(fw, again.output, &again, now))
        return IONM_RATE;
    s->train = (ionm_train){
        .active = true, .slot = fire->slot, .nonce = fire->nonce, .first = now, .sequence = again,
    };
    return IONM_NONE;
}

static void start_due(ionm_fw *fw, uint64_t now)
{
    ionm_stim *s = &fw->stim;
    while (s->queued > 0 && s->queue[0].at <= now) {
        const ionm_fire fire = s->queue[0];
        s->queued--;
        for (uint8_t i = 0; i < s->queued; i++)
            s->queue[i] = s->queue[i + 1];
        const uint8_t reason = why_not_now(fw, &fire, now);
        if (reason) {
            ionm_fire_refused(fw, &fire, reason, now);
            continue;
        }
        emit(fw, now);
        ionm_stim_update_state(fw, IONM_NONE, now);
    }
}

static void expire_tokens(ionm_fw *fw, uint64_t now)
{
    ionm_stim *s = &fw->stim;
    for (uint8_t i = 0; i < IONM_SLOTS; i++) {
        if (!s->slot[i].token || now < s->slot[i].expires || (s->train.active && s->train.slot == i))
            continue;
        s->slot[i].token = 0;
        ionm_queue_drop(fw, i, IONM_EXPIRED, now);
        ionm_stim_update_state(fw, IONM_EXPIRED, now);
    }
}

static uint64_t pulse_sample(const ionm_fw *fw)
{
    const ionm_train *t = &fw->stim.train;
    if (!t->active || t->next >= t->sequence.n_pulses)
        return UINT64_MAX;
    return t->first + ionm_samples_us(fw, t->sequence.t_us[t->next]);
}

static uint64_t min_u64(uint64_t a, uint64_t b) { return a < b ? a : b; }

static uint64_t next_due(const ionm_fw *fw)
{
    const ionm_stim *s = &fw->stim;
    uint64_t due = pulse_sample(fw);
    if (s->state == IONM_ARMED || s->state == IONM_FIRING)
        due = min_u64(due, s->heartbeat_sample + ionm_samples_ms(fw, IONM_WATCHDOG_MS));
    if (s->queued)
        due = min_u64(due, s->queue[0].at);
    for (int i = 0; i < IONM_SLOTS; i++)
        if (s->slot[i].token && !(s->train.active && s->train.slot == i))
            due = min_u64(due, s->slot[i].expires);
    for (int i = 0; i < IONM_OUTPUTS_MAX; i++)
        if (s->output[i].waiting)
            due = min_u64(due, s->output[i].deadline);
    if (fw->impedance.active)
        due = min_u64(due, fw->impedance.done);
    return due;
}

static void work(ionm_fw *fw, uint64_t now)
{
    ionm_stim *s = &fw->stim;
    if ((s->state == IONM_ARMED || s->state == IONM_FIRING) && !ionm_stim_heartbeat_fresh(fw))
        ionm_stim_safe(fw, IONM_WATCHDOG);
    for (uint8_t i = 0; i < IONM_OUTPUTS_MAX; i++)
        if (s->output[i].waiting && now >= s->output[i].deadline)
            unmeasured(fw, i);
    expire_tokens(fw, now);
    if (now >= pulse_sample(fw))
        emit(fw, now);
    start_due(fw, now);
    ionm_impedance_work(fw, now);
    s->due = next_due(fw);
}

void ionm_stim_tick(ionm_fw *fw)
{
    const uint64_t now = fw->sample;
    if (now >= fw->stim.due)
        work(fw, now);
    fw->sample = now + 1;
}
