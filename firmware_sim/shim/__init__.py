"""usbfs without a USB kernel: the preload library and the tree of files that it shows to libusb."""

from __future__ import annotations

from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path


def path() -> Path:
    """The built preload library.  Raises FileNotFoundError, which says how to build it."""
    here = Path(__file__).parent
    for suffix in EXTENSION_SUFFIXES:
        if (library := here / f"_usbfs_shim{suffix}").is_file():
            return library
    raise FileNotFoundError(f"no _usbfs_shim library in {here}: build it with `make` (setup.py build_ext --inplace)")
