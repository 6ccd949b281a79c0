"""Reading the small files that settings name."""

from __future__ import annotations

from pathlib import Path

from llcuda_net.errors import ConfigError


def read_file(path: str, what: str) -> str:
    """The text of a file.

    Args:
        what: it is, for errors.

    Raises:
        ConfigError: it cannot be read, or is no text.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot read {what} {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{what} {path} is not UTF-8 text") from None
