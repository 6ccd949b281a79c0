"""The files of the page, read once: each as it is and compressed, with the name of its contents."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

PACKAGE = "llcuda_net.page"
INDEX = "index.html"
#: What is served, by the end of its name; other files of the package are not.
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml; charset=utf-8",
}
#: Where the page gets what it shows, and what it may do. What the markup of a model's answer could
#: ask for is nowhere in it: scripts, styles and forms in the document, other hosts, frames.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        # Where the browser knows it: no string becomes markup but in one function.
        "require-trusted-types-for 'script'",
        "trusted-types llcuda",
    )
)
#: Of every answer that is a part of the page.
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), usb=()",
    "Cache-Control": "no-cache",  # kept, and asked for again by its ETag
}
_GZIP = re.compile(r"\s*(gzip|x-gzip|\*)\s*(?:;\s*q=([0-9.]{1,8})\s*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Asset:
    """One file.

    Attributes:
        type: its Content-Type.
        body: as it is.
        packed: the same, compressed by gzip.
        tag: names the contents, without quotes.
    """

    type: str
    body: bytes
    packed: bytes
    tag: str

    def tag_of(self, *, packed: bool) -> str:
        """The ETag of what is sent: two representations have two (RFC 9110, section 8.8.3)."""
        return f'"{self.tag}-gz"' if packed else f'"{self.tag}"'


@cache
def load() -> Mapping[str, Asset]:
    """All files by their path in the package, such as `js/main.js`. Reads them, the first time."""
    return dict(_found(resources.files(PACKAGE), ""))


def takes_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding has gzip."""
    found = [match for part in accepted.split(",") if (match := _GZIP.fullmatch(part))]
    named = [match for match in found if match[1] != "*"] or found
    return any(match[2] is None or match[2].strip("0.") != "" for match in named)


def has_tag(condition: str, tag: str) -> bool:
    """Whether an If-None-Match has this ETag; a weak one counts (RFC 9110, section 13.1.2)."""
    if condition.strip() == "*":
        return True
    return tag in (one.strip().removeprefix("W/") for one in condition.split(","))


def _found(folder: Traversable, path: str) -> Iterator[tuple[str, Asset]]:
    for one in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if one.is_dir():
            yield from _found(one, f"{path}{one.name}/")
            continue
        kind = TYPES.get(f".{one.name.rpartition('.')[2]}")
        if kind is not None:
            body = one.read_bytes()
            # Without a time in it, the same file gives the same bytes.
            packed = gzip.compress(body, 9, mtime=0)
            tag = hashlib.sha256(body).hexdigest()[:24]
            yield f"{path}{one.name}", Asset(kind, body, packed, tag)
