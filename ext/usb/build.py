"""stub until the USB queue lands"""
from cffi import FFI

ffi = FFI()
ffi.cdef("int ionm_usb_stub(void);")
ffi.set_source("ionmd.drivers._usbqueue", "static int ionm_usb_stub(void){return 0;}")
