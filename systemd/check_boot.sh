#!/bin/bash
# Boots what `make install DESTDIR=` made under a systemd of its own and works with it as people on a cart would: the
# unit in its sandbox, the socket, users and groups, a crash, a hang.  The amplifier is the simulated one, over libusb.
# Everything is in namespaces over a throw-away copy of this machine's files, without network; nothing here changes.
# Usage: check_boot.sh DESTDIR.  Needs root, systemd 250, overlayfs.  Exit code 1 when a check fails.
set -u
tree=$(realpath "${1:?DESTDIR of make install}")
[ "$(id -u)" = 0 ] || { echo "check-boot: root is needed for namespaces"; exit 2; }
for tool in unshare nsenter systemctl runuser; do
  command -v $tool >/dev/null || { echo "check-boot: $tool is missing (util-linux, systemd)"; exit 2; }
done
# all that is about the machine and not about the service
masked="systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket systemd-udev-trigger.service
  systemd-sysctl.service systemd-modules-load.service systemd-remount-fs.service systemd-random-seed.service
  systemd-hwdb-update.service systemd-timesyncd.service systemd-networkd.service systemd-resolved.service
  systemd-binfmt.service systemd-tmpfiles-setup-dev.service systemd-pstore.service systemd-firstboot.service
  systemd-machine-id-commit.service kmod-static-nodes.service modprobe@.service sys-kernel-debug.mount
  sys-kernel-tracing.mount sys-fs-fuse-connections.mount dev-hugepages.mount dev-mqueue.mount
  proc-sys-fs-binfmt_misc.automount swap.target getty.target"

become_machine() {  # the first process of the namespaces
  set -e
  local mounts
  mounts=$(cat /proc/self/mounts)
  mount --make-rprivate /
  mount -t tmpfs -o size=2G scratch "$work"
  mkdir "$work"/{upper,work,root}
  root=$work/root
  mount -t overlay -o "lowerdir=/,upperdir=$work/upper,workdir=$work/work" overlay "$root"
  mount -t proc proc "$root/proc"
  mount -t sysfs -o ro sysfs "$root/sys"
  for place in run tmp dev; do mount -t tmpfs "$place" "$root/$place"; done
  for node in null zero full random urandom tty; do
    touch "$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
  done
  mkdir "$root"/dev/{pts,shm,bus}
  mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
  mount -t tmpfs shm "$root/dev/shm"
  ln -s pts/ptmx "$root/dev/ptmx"
  ln -s /proc/self/fd "$root/dev/fd"
  grep -q ' /sys/fs/cgroup cgroup2 ' <<<"$mounts" || mount -t tmpfs cgroup "$root/sys/fs/cgroup"
  while read -r _ at kind options _; do
    case $kind$at in  # a fresh group of cpuset has no processors
      *cpuset*) ;;
      cgroup2*) mkdir -p "$root$at"; mount -t cgroup2 cgroup2 "$root$at" ;;
      cgroup*) mkdir -p "$root$at"; mount -t cgroup -o "$(echo "$options" | sed 's/\(^\|,\)\(rw\|ro\|relatime\|nosuid\|nodev\|noexec\|xattr\)//g; s/^,//')" cgroup "$root$at" ;;
    esac
  done <<<"$mounts"
  mkdir -p "$root/etc/systemd/system" "$root/old"
  for unit in $masked; do ln -sf /dev/null "$root/etc/systemd/system/$unit"; done
  : >"$root/etc/fstab"
  cp -a "$tree/usr" "$tree/etc" "$root/"
  cd "$root"
  pivot_root . old
  umount -l /old
  cd /
  container=check-boot exec /lib/systemd/systemd --system --unit=basic.target --show-status=no
}
if [ "${CHECK_BOOT:-}" ]; then work=$CHECK_BOOT; become_machine; fi

work=$(mktemp -d -t check-boot.XXXXXX)
groups=$(awk '($3 == "cgroup" && $2 !~ /cpuset/) || $3 == "cgroup2" {print $2 "/check-boot"}' /proc/self/mounts)
(
  for group in $groups; do mkdir -p "$group" && echo "$BASHPID" >"$group/cgroup.procs"; done
  CHECK_BOOT=$work exec unshare --mount --pid --fork --uts --ipc --net --cgroup --kill-child bash "$0" "$tree"
) >"$work.log" 2>&1 &
outer=$!
finish() {
  kill -9 $outer 2>/dev/null
  wait $outer 2>/dev/null
  sleep 0.5
  for group in $groups; do find "$group" -depth -type d -exec rmdir {} + 2>/dev/null; done
  rm -rf "$work" "$work.log"
}
trap finish EXIT

machine() {  # a command as root of the machine, as if a person had typed it there
  nsenter -t "$first" -m -u -i -n -p -C -r -w -- env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 bash -c "$1"
}
as() { machine "runuser -u $1 -- $2"; }
failed=0
check() {  # what, text that must be there, the command
  local what=$1 wanted=$2
  shift 2
  local got
  got=$("$@" 2>&1)
  if grep -qE -- "$wanted" <<<"$got"; then printf 'ok      %s\n' "$what"; return; fi
  printf 'FAILED  %s: %s was expected, this came:\n%s\n' "$what" "$wanted" "$got"
  failed=1
}
within() {  # seconds, text, the command: until it says so
  for _ in $(seq $(($1 * 5))); do
    machine "$3" 2>&1 | grep -qE -- "$2" && { machine "$3" 2>&1; return; }
    sleep 0.2
  done
  machine "$3" 2>&1
}

first=""
for _ in $(seq 50); do
  sleep 0.2
  first=$(pgrep -P $outer -x systemd) && machine "systemctl is-system-running" 2>/dev/null | grep -qE 'running|degraded' && break
done
[ -n "$first" ] || { echo "check-boot: systemd did not start:"; cat "$work.log"; exit 1; }
machine "rm -f /run/nologin; useradd -m kim; useradd -m lee; useradd -m sam
         usermod -aG ionmd-view,ionmd-operate,ionmd-stim kim; usermod -aG ionmd-view,ionmd-oversee lee" >/dev/null

check "enabled and started as documented" '^active$' \
  machine "systemctl -q enable --now ionmd.socket ionmd.service 2>/dev/null; systemctl is-active ionmd.service"
[ $failed = 0 ] || { machine "journalctl -u ionmd -o cat --no-pager | tail -20"; exit 1; }
check "ready without an amplifier" 'device absent' within 5 'device absent' "systemctl show -p StatusText ionmd"
check "a technologist sees it" '^device +absent' as kim "ionmd status"
check "doctor finds nothing missing" '^ok +daemon .*operate, stim, view' as kim "ionmd doctor"
check "who oversees may not open a case" 'needs the role operate' as lee "ionmd case new"
check "who is in no group does not get in" 'Permission denied' as sam "ionmd status"

machine "mkdir /run/sim; chown ionmd:ionmd /run/sim; ln -s /usr/lib/ionmd/firmware_sim/shim/*.so /run/sim/shim.so
  systemd-run -q --unit=sim --uid=ionmd --gid=ionmd /usr/bin/ionmd-sim --scenario quiet --listen unix:/run/sim/usb --shim-root /run/sim/root
  mkdir -p /etc/systemd/system/ionmd.service.d
  printf '[Service]\nEnvironment=LD_PRELOAD=/run/sim/shim.so USBSHIM_ROOT=/run/sim/root USBSHIM_SOCK=/run/sim/usb\n' >/etc/systemd/system/ionmd.service.d/sim.conf
  systemctl daemon-reload"
sleep 1
machine "systemctl restart ionmd"
check "streams from the unit on the bus" 'device streaming' within 10 'device streaming' "systemctl show -p StatusText ionmd"
check "a case is opened" 'is open' as kim "ionmd case new --id c1"
machine "systemd-run -q --unit=kim --uid=kim ionmd start ssep_median_left --as Kim"
check "averages come" 'ssep_median_left' as kim "timeout 60 ionmd watch average --json --count 1"

machine "systemctl kill -s KILL ionmd"
check "after a crash a client waits for the next daemon" '^device ' as kim "ionmd status"
check "which streams again" 'device streaming' within 10 'device streaming' "systemctl show -p StatusText ionmd"
check "and is disarmed" '^stimulator +SAFE, lease held by nobody' as kim "ionmd status"
check "the case goes on" 'is open' as kim "ionmd case open c1"
check "and is closed" 'is closed' as kim "ionmd case close"
check "and verified by the service's user" '^c1 +closed +verified' within 10 verified "runuser -u ionmd -- ionmd case verify"
check "who may not read the record is told where it is" 'sudo -u ionmd' as kim "ionmd case list"

before=$(machine "systemctl show -p MainPID --value ionmd")
machine "systemctl kill -s STOP ionmd"
for _ in $(seq 50); do
  after=$(machine "systemctl show -p MainPID --value ionmd")
  [ "$after" != "$before" ] && [ "$after" != 0 ] && break
  sleep 0.2
done
check "a daemon that hangs is replaced by the watchdog" '^replaced$' \
  bash -c "[ '$after' != '$before' ] && [ '$after' != 0 ] && echo replaced || echo main process $after, before $before"
check "it stops when told" 'Result=success' machine "systemctl stop ionmd.socket ionmd.service; systemctl show -p Result ionmd"
check "and said nothing of a crash in itself" '^0$' machine "journalctl -u ionmd -o cat | grep -cE 'Traceback|Exception|crashed'"
exit $failed
