"""Text that a user wrote: files and standard input, in UTF-8, whatever their editor put first."""

from __future__ import annotations

from pathlib import Path

from llcuda_net.errors import ConfigError

#: The byte order mark that some editors put before UTF-8 text: it is no part of the text.
BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def read_text(path: str | Path, what: str) -> str:
    """The text of a UTF-8 file, a byte order mark left out.

    Args:
        what: it is, for errors.

    Raises:
        ConfigError: it cannot be read or is not UTF-8.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {what} {path}: {error.strerror or error}") from None
    return decode(data, f"{what} {path}")


def decode(data: bytes, what: str) -> str:
    """Bytes as UTF-8, a byte order mark left out.

    Raises:
        ConfigError: they are not UTF-8; the message names the first wrong byte.
    """
    check_encoding(data, what)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{what} is not UTF-8 text (byte {error.start}): convert it first, with iconv say"
        ) from None


def check_encoding(begin: bytes, what: str) -> None:
    """Refuse UTF-16 by its byte order mark.

    Args:
        begin: the first bytes; a text that begins so is no UTF-8.

    Raises:
        ConfigError: it is UTF-16.
    """
    if begin.startswith(_UTF16):
        raise ConfigError(
            f"{what} is UTF-16 text: convert it first, with iconv -f UTF-16 -t UTF-8 say"
        )
