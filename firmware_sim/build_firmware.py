"""stub until the firmware lands"""
from cffi import FFI

ffi = FFI()
ffi.cdef("int ionm_fw_stub(void);")
ffi.set_source("firmware_sim._firmware", "static int ionm_fw_stub(void){return 0;}")
