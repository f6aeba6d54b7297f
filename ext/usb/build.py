"""cffi binding of the USB bulk queue (queue.h) as `ionmd.drivers._usbqueue`; every call runs without the GIL."""

from pathlib import Path

from cffi import FFI

header = Path("ext/usb/queue.h").read_text(encoding="utf-8")
# From the enum on, without the closing #endif: the header's declarations are the binding's, there is no second list.
declarations = header[header.index("enum {") : header.rindex("#endif")]

ffi = FFI()
ffi.cdef(declarations)
ffi.set_source(
    "ionmd.drivers._usbqueue",
    '#include "queue.h"',
    sources=["ext/usb/queue.c"],
    include_dirs=["ext/usb"],
    libraries=["dl", "pthread"],
    extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Wno-unused-parameter"],
)
