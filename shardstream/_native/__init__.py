"""Bindings to the C core: one C header, one module here, one test file.

Each function checks its arguments, allocates its outputs, makes one GIL-free call and
raises what the C side reports; nothing else. Buffers belong to Python, handles to C.
"""

from shardstream._native._core import ffi, lib

__all__ = ["ffi", "lib"]
