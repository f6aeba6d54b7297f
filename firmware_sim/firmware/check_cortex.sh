#!/bin/sh
# Every firmware file must compile for Cortex-M4 and M7 without a message, and need nothing of a C library but the four
# memory functions: no malloc, no OS, no floating point (soft-float helpers would show as undefined symbols).
set -eu
cd "$(dirname "$0")"
TARGET=arm-none-eabi
for tool in gcc ld nm size; do
  command -v "$TARGET-$tool" >/dev/null 2>&1 || {
    echo "$TARGET-$tool is missing: sudo apt-get install --no-install-recommends gcc-arm-none-eabi libnewlib-arm-none-eabi" >&2
    exit 1
  }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for core in cortex-m4 cortex-m7; do
  for file in *.c; do
    case "$file" in board_sim.c | face.c) continue ;; esac # the host's own
    "$TARGET-gcc" -mcpu="$core" -mthumb -mfloat-abi=soft -std=c11 -O2 -Wall -Wextra -Wconversion -Wno-sign-conversion \
      -Werror -c "$file" -o "$work/${file%.c}.o"
  done
  "$TARGET-ld" -r -o "$work/all" "$work"/*.o
  needs=$("$TARGET-nm" -u "$work/all" | awk '{print $2}' | grep -vxE 'memcpy|memmove|memset|strlen|__aeabi_u?l?divmod|__aeabi_u?ldivmod' || true)
  [ -z "$needs" ] || { echo "$core: the firmware needs $needs" >&2; exit 1; }
  echo '#include "ionm.h"
ionm_fw fw;' >"$work/state.c"
  "$TARGET-gcc" -mcpu="$core" -mthumb -std=c11 -I. -c "$work/state.c" -o "$work/state"
  flash=$("$TARGET-size" "$work/all" | awk 'NR == 2 {print $1 + $2}')
  ram=$("$TARGET-size" "$work/state" | awk 'NR == 2 {print $3}')
  echo "$core: every firmware file compiles; $flash bytes of code and tables, $ram bytes of state; the FIFO comes on top"
done
