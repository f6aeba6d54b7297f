# SPDX-License-Identifier: Apache-2.0
"""The compiled parts, one explicit list.  Everything else is in pyproject.toml."""

import os

from Cython.Build import cythonize
from setuptools import Extension, setup

# No contraction and no fast-math: one result on every instruction set (docs/architecture.md).
DSP_FLAGS = ["-std=gnu11", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-Wall", "-Wextra"]
STREAMS = ["ext/dsp/iir.c", "ext/dsp/sweep.c", "ext/dsp/emg.c", "ext/decode/unpack.c"]
DECODE = ["ext/decode/ionm1.c", "ext/decode/unpack.c", "ext/decode/crc32.c"]
CURVES = [f"ext/dsp/{name}.c" for name in ("peaks", "match", "welch", "noise", "blend", "beta", "shape", "mains")]
SHIM = ["paths", "wire", "session", "node", "usbfs"]
C_FLAGS = ["-std=gnu11", "-O2", "-Wall", "-Wextra"]
# `make check-sanitize`: kernels and decoder alone, in one version (dispatch comes before the sanitizer is ready)
SANITIZE = bool(os.environ.get("IONMD_SANITIZE"))
if SANITIZE:
    DSP_FLAGS += ["-O1", "-g", "-DDSP_ONE_ISA", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
LINK_FLAGS = ["-fsanitize=address,undefined"] if SANITIZE else []

extensions = cythonize(
    [
        Extension("ionmd.dsp._kernels", ["ext/dsp/_kernels.pyx", *STREAMS], include_dirs=["ext/dsp", "ext/decode"],
                  extra_compile_args=DSP_FLAGS, extra_link_args=LINK_FLAGS),
        Extension("ionmd.dsp._curves", ["ext/dsp/_curves.pyx", *CURVES], include_dirs=["ext/dsp"],
                  extra_compile_args=DSP_FLAGS, extra_link_args=LINK_FLAGS),
        Extension("ionmd.decode._decode", ["ext/decode/_decode.pyx", *DECODE],
                  include_dirs=["ext/decode", "ext/usb", "ext/dsp"],
                  extra_compile_args=DSP_FLAGS, extra_link_args=LINK_FLAGS),
        Extension("ionmd.case._pack", ["ext/case/_pack.pyx", "ext/case/pack.c"],
                  include_dirs=["ext/case"], extra_compile_args=C_FLAGS),
    ],
    build_dir="build/cython",
    compiler_directives={"language_level": "3"},
)

# A preload library, not a Python module; build_ext is merely the compiler that is at hand.
extensions.append(
    Extension("firmware_sim.shim._usbfs_shim", [f"firmware_sim/shim/{name}.c" for name in SHIM],
              depends=["firmware_sim/shim/shim.h"], extra_compile_args=[*C_FLAGS, "-U_FORTIFY_SOURCE"],
              libraries=["dl", "pthread"])
)

if SANITIZE:
    setup(ext_modules=extensions[:3])
else:
    setup(ext_modules=extensions, cffi_modules=["ext/usb/build.py:ffi", "firmware_sim/build_firmware.py:ffi"])
