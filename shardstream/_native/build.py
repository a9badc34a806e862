"""Build script of the extension ``shardstream._native._core``: cffi, API mode, abi3.

The prototypes stand once, in ``csrc/include/ss_*.h``: what lies between
``/* cffi:begin */`` and ``/* cffi:end */`` there is handed to ``ffi.cdef()`` as it is.
Every ``csrc/lib/*.c`` is compiled into the extension with hidden symbols, so nothing
but the module's init function is exported.
"""

import re
from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parents[2]
REGION = re.compile(r"/\* cffi:begin \*/(.*?)/\* cffi:end \*/", re.DOTALL)


def declarations() -> str:
    """Return the cffi regions of all public headers, ``ss_status.h`` first."""
    headers = sorted((ROOT / "csrc/include").glob("ss_*.h"), key=lambda h: (h.name != "ss_status.h", h.name))
    return "\n".join(region for header in headers for region in REGION.findall(header.read_text()))


ffibuilder = FFI()
ffibuilder.cdef(declarations())
ffibuilder.set_source(
    "shardstream._native._core",
    '#include "shardstream.h"',
    sources=sorted(str(source.relative_to(ROOT)) for source in (ROOT / "csrc/lib").glob("*.c")),
    include_dirs=["csrc/include"],
    depends=sorted(str(header.relative_to(ROOT)) for header in (ROOT / "csrc").glob("*/*.h")),
    extra_compile_args=[
        "-std=c11", "-pthread", "-O3", "-g0", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror",
        # cffi's generated wrappers have unused parameters and partly initialised structs; the C
        # tests (csrc/Makefile) compile csrc/lib without these two exceptions.
        "-Wno-unused-parameter", "-Wno-missing-field-initializers",
    ],
    extra_link_args=["-pthread"],
)  # fmt: skip

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
