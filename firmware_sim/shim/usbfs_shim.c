typedef int shim_stub;
