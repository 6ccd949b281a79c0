"""A kernel's machine code: from the disk, or compiled and kept there."""

from __future__ import annotations

import logging
import re

from . import driver, kept, shim
from .kept import Code, Source

log = logging.getLogger(__name__)

_ENTRY = re.compile(r"\.visible\s+\.entry\s+([\w$]+)")


def load(kernel: Source) -> driver.Loaded:
    """The kernel on the current device."""
    cc = driver.target()
    code = kept_code(kernel, cc)
    if code is not None:
        try:
            return driver.load(code, kernel.signature)
        except Exception as error:  # say, the driver is older than the linker was
            log.debug("%s is compiled anew: what is kept does not load: %s", kernel.name, error)
    return driver.load(compile_code(kernel, cc), kernel.signature)


def kept_code(kernel: Source, cc: tuple[int, int]) -> Code | None:
    """What is kept of a kernel for a compute capability."""
    key = _key(kernel, cc)
    return None if key is None else kept.get(key)


def compile_code(kernel: Source, cc: tuple[int, int]) -> Code:
    """Compile it, and keep that.

    Where no linker takes the PTX it is given back as it is, for the driver to compile.
    """
    text = kernel.ptx(cc)
    entry = _ENTRY.findall(text)[0]
    try:
        code = Code(entry, driver.assemble(text, cc))
    except Exception as error:  # those of cuda.core have no common base
        log.debug("%s is not assembled here: %s", kernel.name, error)
        return Code(entry, text.encode())
    key = _key(kernel, cc)
    if key is not None:
        kept.put(key, code)
    return code


def _key(kernel: Source, cc: tuple[int, int]) -> str | None:
    try:
        return kept.key(kernel, cc, shim.compilers())
    except OSError as error:
        log.debug("compiled kernels are not kept: the source cannot be read: %s", error)
        return None
