/* Written by `python -m ionmd.timers` from ionmd/timers.toml; do not edit. */
#ifndef IONM_TIMERS_H
#define IONM_TIMERS_H
#define IONM_HEARTBEAT_MS 100
#define IONM_WATCHDOG_MS 400
#define IONM_TRAIN_ABORT_MS 20
#define IONM_ARM_TTL_MS 10000
#define IONM_LEASE_KEEPALIVE_MS 1000
#define IONM_NO_DATA_ALARM_MS 750
#define IONM_STAGE_STUCK_MS 500
#define IONM_WINDOW_MS 180
#define IONM_HORIZON_MS 200
#define IONM_CAUTERY_QUIET_MS 300
#endif
