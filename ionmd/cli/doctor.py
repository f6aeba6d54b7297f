"""`ionmd doctor`: what is missing on this machine, each with the exact fix.  Looks only; changes nothing."""

from __future__ import annotations

import grp
import importlib
import os
import resource
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from ionmd.cli.common import as_json, clean, of_the_service, places, show_json, state_path
from ionmd.errors import ConfigError, DaemonUnreachable

COMPILED = (
    "ionmd.decode._decode", "ionmd.dsp._kernels", "ionmd.dsp._curves", "ionmd.case._pack", "ionmd.drivers._usbqueue",
)  # fmt: skip
RULES = tuple(Path(d) / "70-ionmd.rules" for d in ("/etc/udev/rules.d", "/run/udev/rules.d", "/usr/lib/udev/rules.d"))
GROUPS = ("ionmd-view", "ionmd-operate", "ionmd-stim", "ionmd-oversee", "ionmd-admin")
UNITS = ("ionmd.service", "ionmd.socket")
UNIT_DIRS = tuple(Path(d) for d in ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"))
DEFAULT_CONFIG = Path("/etc/ionmd/ionmd.toml")
RTPRIO, LOCKED_BYTES = 50, 256 << 20
VENDOR, PRODUCT = 0x1209, 0x0001


@dataclass(frozen=True)
class Finding:
    """`needed`: without it `run` with a device fails; else it is missing comfort or a matter of the installation."""

    what: str
    ok: bool
    detail: str
    fix: str = ""
    needed: bool = True


@click.command()
@as_json
@places
def doctor(socket: str | None, state_dir: str | None, as_json: bool) -> None:
    """What is missing on this machine, and the exact fix.  Exit code 1 when something needed is missing."""
    found = examine(socket, state_dir)
    bad = [f for f in found if f.needed and not f.ok]
    if as_json:
        show_json({"ok": not bad, "checks": [asdict(f) for f in found]})
    else:
        for f in found:
            word, colour = ("ok     ", "green") if f.ok else ("MISSING", "red") if f.needed else ("absent ", "yellow")
            click.echo(f"{click.style(word, fg=colour)}  {f.what:<15}  {clean(f.detail)}")
            if f.fix and not f.ok:
                click.echo(f"{'':9}{'fix':<15}  {f.fix}")
    if bad:
        raise SystemExit(1)


def examine(socket: str | None, state_dir: str | None) -> list[Finding]:
    checks: list[Callable[[], Finding]] = [
        compiled, libusb, configuration, lambda: state(state_dir), lambda: space(state_dir), udev_rule, groups, units,
        real_time, lambda: daemon(socket), device,
    ]  # fmt: skip
    return [check() for check in checks]


def compiled() -> Finding:
    wrong = []
    for name in COMPILED:
        try:
            importlib.import_module(name)
        except ImportError as error:
            wrong.append(f"{name} ({error})")
    detail = "; ".join(wrong) or f"{len(COMPILED)} modules load"
    return Finding("compiled parts", not wrong, detail, "pip install . (in a checkout: make); needs a C compiler")


def libusb() -> Finding:
    try:
        import libusb_package  # type: ignore[import-untyped,unused-ignore]

        backend = libusb_package.get_libusb1_backend()
    except (ImportError, OSError) as error:
        return Finding("libusb", False, str(error), "pip install libusb-package")
    return Finding("libusb", backend is not None, "loads" if backend is not None else "no libusb-1.0 was found",
                   "pip install libusb-package")  # fmt: skip


def configuration() -> Finding:
    """The file that `run` takes without --config, or the defaults."""
    from ionmd.config import load_config

    if not DEFAULT_CONFIG.exists():
        return Finding("configuration", True, f"no {DEFAULT_CONFIG}: the defaults are taken")
    try:
        found = load_config(DEFAULT_CONFIG)
    except ConfigError as error:
        return Finding("configuration", False, str(error), "correct the file as the message says (docs/config.md)")
    return Finding("configuration", True, f"{found.source}, sha256 {found.sha256[:16]}")


def space(option: str | None) -> Finding:
    """Free space against what the record keeps for the journal, and for how long samples fit."""
    from ionmd.config import Config

    path = state_path(option)
    free = shutil.disk_usage(next(p for p in (path, *path.parents) if p.exists())).free
    config = Config()
    device, reserve = config.device, config.record.reserve_mib << 20
    hours = max(0, free - reserve) / (device.inputs * device.rate_hz * 3) / 3600
    return Finding("disk space", free > reserve,
                   f"{free >> 20} MiB free, {hours:.1f} h of {device.inputs} inputs at {device.rate_hz} Hz",
                   f"make room, or put the record elsewhere (--state-dir): below {reserve >> 20} MiB samples are not "
                   "recorded")  # fmt: skip


def units() -> Finding:
    found = {(d / name).resolve(): name for name in UNITS for d in UNIT_DIRS if (d / name).is_file()}
    detail = ", ".join(map(str, sorted(found))) or f"{' and '.join(UNITS)} are not installed"
    return Finding("units", set(found.values()) == set(UNITS), detail,
                   "make install, then systemctl daemon-reload && systemctl enable --now ionmd.socket ionmd.service",
                   needed=False)  # fmt: skip


def real_time() -> Finding:
    """Whether this user may run the streaming thread in real time and lock its memory (the unit allows it)."""
    priority, _ = resource.getrlimit(resource.RLIMIT_RTPRIO)
    locked, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    unlimited = resource.RLIM_INFINITY
    may = priority in (unlimited, -1) or priority >= RTPRIO
    may = may and (locked in (unlimited, -1) or locked >= LOCKED_BYTES)
    shown = "without limit" if locked in (unlimited, -1) else f"{locked >> 20} MiB"
    detail = "root may" if os.geteuid() == 0 else f"priority up to {priority}, locked memory {shown}"
    return Finding("real time", may or os.geteuid() == 0, detail,
                   "run it as the service (LimitRTPRIO, LimitMEMLOCK of ionmd.service); by hand: two lines in "
                   "/etc/security/limits.d/ionmd.conf, `@ionmd - rtprio 50` and `@ionmd - memlock 1048576`",
                   needed=False)  # fmt: skip


def udev_rule() -> Finding:
    there = [p for p in RULES if p.is_file()]
    return Finding("udev rule", bool(there), str(there[0]) if there else f"no {RULES[0].name}",
                   "install -m 644 systemd/70-ionmd.rules /etc/udev/rules.d/ && udevadm control --reload && "
                   "udevadm trigger", needed=False)  # fmt: skip


def groups() -> Finding:
    known = {g.gr_name: g.gr_gid for g in grp.getgrall()}
    missing = [g for g in GROUPS if g not in known]
    mine = [g for g in GROUPS if g in known and known[g] in {*os.getgroups(), os.getegid()}]
    if missing:
        return Finding("groups", False, f"{', '.join(missing)} do not exist",
                       "install -m 644 systemd/ionmd.sysusers /usr/lib/sysusers.d/ionmd.conf && systemd-sysusers",
                       needed=False)  # fmt: skip
    return Finding("groups", bool(mine), f"you are in {', '.join(mine) or 'none of them'}",
                   "usermod -aG ionmd-view,ionmd-operate,ionmd-stim NAME, then log in again", needed=False)  # fmt: skip


def state(option: str | None) -> Finding:
    path = state_path(option)
    place = next(p for p in (path, *path.parents) if p.exists())
    ok = place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    good = f"{path} is writable" if place == path else f"{path} can be made"
    detail = (good if ok else f"{place} is not writable") + of_the_service(option)
    return Finding("state directory", ok, detail, "choose one with --state-dir, or correct the owner of " + str(place))


def daemon(option: str | None) -> Finding:
    from ionmd.cli.common import connect

    try:
        with connect(option) as client:
            return Finding("daemon", True, f"{client.hello.server} on {client.path}, your roles: "
                           f"{', '.join(client.hello.roles) or 'none'}", needed=False)  # fmt: skip
    except DaemonUnreachable as error:
        return Finding("daemon", False, str(error), "systemctl enable --now ionmd.socket ionmd.service, or `ionmd run`",
                       needed=False)  # fmt: skip


def device() -> Finding:
    fix = "plug the amplifier in and switch it on; without one: `ionmd run --simulate`"
    try:
        import libusb_package  # type: ignore[import-untyped,unused-ignore]
        import usb.core

        found = usb.core.find(idVendor=VENDOR, idProduct=PRODUCT, backend=libusb_package.get_libusb1_backend())
        if found is None:
            return Finding("device", False, f"no {VENDOR:04x}:{PRODUCT:04x} on the bus", fix, needed=False)
        node = f"/dev/bus/usb/{found.bus:03d}/{found.address:03d}"
        if not os.access(node, os.R_OK | os.W_OK):
            return Finding("device", False, f"{node} is there, but not yours to open", "install the udev rule and join "
                           "its group ionmd (see above)", needed=False)  # fmt: skip
        return Finding("device", True, node, needed=False)
    except (ImportError, OSError, ValueError, ConfigError) as error:
        return Finding("device", False, str(error), fix, needed=False)
    except Exception as error:  # pyusb raises its own NoBackendError and USBError
        return Finding("device", False, f"{type(error).__name__}: {error}", fix, needed=False)
