"""USB as the drivers see it: find a unit by its serial number, talk to endpoint 0, stream a bulk endpoint.

In: vendor, product and serial number.  Out: control transfers as bytes, whole bulk transfers in a ring without the GIL.
Always: pyusb's errors become ours here, in one table.  Every search has a libusb context of its own: pyusb keeps one
for the life of the process, and a libusb without udev never sees in it what was plugged in later.  The library is
libusb_package's, with the very handle that pyusb opened.
"""

from __future__ import annotations

import contextlib
import errno
import threading
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import libusb_package
import usb.backend.libusb1 as libusb1
import usb.core
import usb.util

from ionmd.errors import DeviceError, DeviceGone, IonmdError, MissingKernel

try:
    from ionmd.drivers._usbqueue import ffi, lib
except ImportError as exc:  # no slow path
    raise MissingKernel(f"the USB queue is not compiled ({exc}): run `make build`") from exc

T = TypeVar("T")
EP0_TIMEOUT_MS = 500
SETUP_TIMEOUT_MS = 10_000  # until the unit is configured; a device may take its time over that
UDEV_RULE = "70-ionmd.rules"
US_ENGLISH = 0x0409
QUEUE_STATES = ("idle", "running", "stalled", "failed", "gone")
MAX_TRANSFERS = 1024
HIGH_SPEED = 3

# What a libusb errno means to whoever asked.  Everything else is a DeviceError with libusb's own words.
GONE = frozenset({errno.ENODEV, errno.EIO, errno.EPROTO, errno.ESHUTDOWN, errno.EILSEQ, errno.ENOENT, errno.ENXIO})


class NoReply(DeviceError):
    """A request got no answer in time: whether the device took it is not known."""


def _error(code: int | None, words: str | None, unit: str, doing: str) -> IonmdError:
    """What a failed request means to us."""
    if code in GONE:
        return DeviceGone(f"{unit} left the bus while {doing} ({words})")
    if code == errno.EACCES:
        return DeviceError(
            f"{unit}: permission denied while {doing}: install the udev rule {UDEV_RULE}, be a member of group ionmd, "
            "then plug the device in again"
        )
    if code == errno.EBUSY:
        return DeviceError(f"{unit}: another program uses it: close that program ({doing})")
    if code == errno.ETIMEDOUT:
        return NoReply(f"{unit} did not answer in time while {doing}")
    return DeviceError(f"{unit}: {words} (errno {code}) while {doing}")


class UsbUnit:
    """One opened unit.  Requests may come from any thread; `close` is safe twice, and waits for those under way.

    libusb must not lose a handle or a context that somebody uses, and a pyusb object that is let go after its context
    takes the process along.  So pyusb's device is held here alone, and never by an exception: the traceback of pyusb's
    own error keeps the device alive, so that error ends here and one of ours takes its place."""

    def __init__(self, device: Any, backend: Any, serial: str) -> None:
        self._device, self._backend = device, backend
        self.serial = serial
        self.timeout_ms = SETUP_TIMEOUT_MS
        self._name = f"unit {serial}"
        self._idle = threading.Condition()  # with `_users`: requests under way
        self._users = 0

    def _do(self, doing: str, request: Callable[[Any], T], stalled: T | None = None) -> T:
        """The request's result, or `stalled` when the device STALLs and that is an answer."""
        with self._idle:
            device = self._device
            if device is None:
                raise DeviceGone(f"{self._name} was closed")
            self._users += 1
        try:
            return request(device)
        except usb.core.USBError as error:
            code, words = error.errno, error.strerror
        finally:
            del device
            with self._idle:
                self._users -= 1
                self._idle.notify_all()
        if code == errno.EPIPE and stalled is not None:
            return stalled
        raise _error(code, words, self._name, doing)

    @property
    def speed(self) -> int:
        """USB speed code: 3 high, 2 full; 0 when libusb does not know."""
        return self._do("asking its speed", lambda d: int(d.speed or 0))

    def prepare(self) -> None:
        """Configuration 1, all interfaces claimed.  The configuration is only set when it is another: it resets."""

        def claim(device: Any) -> None:
            handle = device._ctx.managed_open()
            if device.backend.get_configuration(handle) != 1:
                device.set_configuration(1)
            for interface in range(device[0].bNumInterfaces):
                usb.util.claim_interface(device, interface)

        self._do("claiming its interfaces", claim)

    def set_interface(self, interface: int, alternate: int) -> None:
        self._do(f"selecting interface {interface} alternate {alternate}",
                 lambda d: d.set_interface_altsetting(interface, alternate))  # fmt: skip

    def read(self, kind: int, request: int, value: int, index: int, length: int) -> bytes | None:
        """Device to host; None when the device STALLs."""

        def ask(device: Any) -> tuple[bytes | None]:
            return (bytes(device.ctrl_transfer(kind, request, value, index, length, self.timeout_ms)),)

        nothing: tuple[bytes | None] = (None,)
        return self._do(f"asking request 0x{request:02x}", ask, nothing)[0]

    def write(self, kind: int, request: int, value: int, index: int, data: bytes) -> bool:
        """Host to device; False when the device STALLs."""

        def tell(device: Any) -> int:
            return int(device.ctrl_transfer(kind, request, value, index, data or None, self.timeout_ms))

        sent = self._do(f"sending request 0x{request:02x}", tell, -1)
        if sent >= 0 and data and sent != len(data):
            raise DeviceError(f"{self._name}: {sent} of {len(data)} bytes of request 0x{request:02x} were taken")
        return sent >= 0

    def clear_halt(self, endpoint: int) -> None:
        self._do(f"clearing endpoint 0x{endpoint:02x}", lambda d: d.clear_halt(endpoint))

    def reset(self) -> None:
        """Port reset: the unit is unconfigured afterwards; close it and look for it again."""
        self._do("resetting its port", lambda d: d.reset())

    def queue(self, endpoint: int, transfers: int, transfer_bytes: int, ring_address: int) -> BulkQueue:
        """A bulk IN queue into the ring at this address; close it before this unit and before the ring dies."""
        handle = self._do("opening it", lambda d: int(d._ctx.managed_open().handle.value))
        return BulkQueue(self, self._backend.ctx.value, handle, endpoint, transfers, transfer_bytes, ring_address)

    def close(self) -> None:
        with self._idle:
            device, backend, self._device, self._backend = self._device, self._backend, None, None
            while self._users:
                self._idle.wait()
        if device is None:
            return
        with contextlib.suppress(usb.core.USBError):
            usb.util.dispose_resources(device)
        del device  # its libusb reference goes before the context
        backend.finalize()


class BulkQueue:
    """Transfers in flight on one endpoint (ext/usb/queue.h).  Never outlived by its unit, at interpreter exit neither:
    libusb must not be torn down under its event thread."""

    def __init__(self, unit: UsbUnit, context: int, handle: int, endpoint: int, transfers: int, transfer_bytes: int,
                 ring_address: int) -> None:
        self._unit = unit
        why = ffi.new("char[]", 200)
        path = str(libusb_package.get_library_path()).encode()
        self._q = lib.ionm_queue_new(path, context, handle, ring_address, endpoint, transfers, transfer_bytes, why, 200)
        if self._q == ffi.NULL:
            raise DeviceError(f"the USB queue cannot start: {ffi.string(why).decode(errors='replace')}")
        self._stats = ffi.new("ionm_queue_stats *")
        # Finalizers run newest first, so this one comes before those of pyusb's handle and context.
        self._free = weakref.finalize(self, lib.ionm_queue_free, self._q)

    def submit(self) -> None:
        """Put all transfers in flight.  Raises DeviceGone when libusb refuses."""
        if code := lib.ionm_queue_submit(self._q):
            raise DeviceGone(f"the bulk transfers cannot be submitted (libusb error {code})")

    def reap(self, timeout_ms: int = 2000) -> None:
        """Cancel what is in flight and wait until each has come back; what they held is in the ring."""
        lib.ionm_queue_reap(self._q, timeout_ms)

    def fileno(self) -> int:
        return int(lib.ionm_queue_eventfd(self._q)) if self._q else -1

    def drain_event(self) -> None:
        lib.ionm_queue_drain_event(self._q)

    def stats(self) -> dict[str, int]:
        """Counters of queue.h; `state` is an index into QUEUE_STATES."""
        lib.ionm_queue_get_stats(self._q, self._stats)
        return {name: int(getattr(self._stats, name)) for name, _ in ffi.typeof("ionm_queue_stats").fields}

    @property
    def state(self) -> str:
        lib.ionm_queue_get_stats(self._q, self._stats)
        return QUEUE_STATES[self._stats.state]

    def close(self) -> None:
        """Safe twice."""
        self._free()
        self._q = None


def find_unit(vendor: int, product: int, serial: str | None) -> UsbUnit:
    """The unit with this serial number (None: the only one).  DeviceGone when it is not there: the message says
    `expected` only when another unit is, so that nobody takes that one by mistake."""
    if libusb1.get_backend(find_library=lambda _: str(libusb_package.get_library_path())) is None:
        raise DeviceError("libusb cannot be loaded: reinstall the package libusb-package")
    backend = libusb1._LibUSB(libusb1._lib)
    found, trouble = _look(backend, vendor, product)
    unit: UsbUnit | None = None
    try:
        if trouble is not None and (serial is None or serial not in found):
            raise trouble
        wanted = _choose(sorted(found), f"{vendor:04x}:{product:04x}", serial)
        unit = UsbUnit(found.pop(wanted), backend, wanted)
        return unit
    finally:
        while found:
            with contextlib.suppress(usb.core.USBError):
                usb.util.dispose_resources(found.popitem()[1])
        if unit is None:
            backend.finalize()


def _look(backend: Any, vendor: int, product: int) -> tuple[dict[str, Any], IonmdError | None]:
    """Units on the bus by serial number, and what was wrong with one whose number could not be read.  Never raises:
    an exception would keep a device alive longer than its context."""
    found: dict[str, Any] = {}
    trouble: IonmdError | None = None
    try:
        for device in usb.core.find(True, backend, idVendor=vendor, idProduct=product):
            serial, error = _serial_of(device)
            if error is None:
                found[serial] = device
            else:
                trouble = error
                with contextlib.suppress(usb.core.USBError):
                    usb.util.dispose_resources(device)
            del device
    except usb.core.USBError as error:
        trouble = _error(error.errno, error.strerror, f"{vendor:04x}:{product:04x}", "looking for units")
    return found, trouble


def _choose(there: list[str], what: str, serial: str | None) -> str:
    if not there:
        raise DeviceGone(f"no unit {serial} on the bus ({what})" if serial else f"no unit {what} on the bus")
    if serial is None and len(there) > 1:
        raise DeviceError(f"{len(there)} units are on the bus ({', '.join(there)}): name one by its serial number")
    if serial is not None and serial not in there:
        raise DeviceGone(f"unit {serial} was expected, {', '.join(there)} is there: name it to take it")
    return serial or there[0]


def _serial_of(device: Any) -> tuple[str, IonmdError | None]:
    """String descriptor iSerialNumber.  Read here, because pyusb turns a refused permission into `no langid`."""
    where = f"{device.idVendor:04x}:{device.idProduct:04x} at bus {device.bus} address {device.address}"
    try:
        raw = bytes(device.ctrl_transfer(0x80, 6, 0x0300 | device.iSerialNumber, US_ENGLISH, 255, EP0_TIMEOUT_MS))
    except usb.core.USBError as error:
        if error.errno == errno.EPIPE:
            return "", DeviceError(f"{where}: it has no serial number; it cannot be told from another unit")
        return "", _error(error.errno, error.strerror, where, "reading its serial number")
    return raw[2 : raw[0]].decode("utf-16-le", "replace") if len(raw) >= 2 else "", None
