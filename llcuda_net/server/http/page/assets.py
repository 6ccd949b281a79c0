"""The files of the page, read once: each as it is and compressed, with the name of its contents.

There are some hundred modules. So that a browser asks for each of them once per version, and for
all at once, index.html names them below a folder of that version (`/page/v-…/`), from which they
may be kept for ever, and lists them (modulepreload). Modules import each other by relative paths,
and so stay in that folder. Below that of another version is what there is now, and is not kept.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath

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
#: Kept, and asked for again by its ETag; kept for a year, and not asked for.
KEPT, KEPT_LONG = "no-cache", "public, max-age=31536000, immutable"
#: Of every answer that is a part of the page.
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), usb=()",
}
_VERSION = re.compile(r"v-[0-9a-f]{24}")
_GZIP = re.compile(r"\s*(gzip|x-gzip|\*)\s*(?:;\s*q=([0-9.]{1,8})\s*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Asset:
    """One file.

    Attributes:
        path: in the package.
        type: its Content-Type.
        body: as it is.
        packed: the same, compressed by gzip.
        tag: names the contents, without quotes.
    """

    path: str
    type: str
    body: bytes
    packed: bytes
    tag: str

    @classmethod
    def of(cls, path: str, body: bytes) -> Asset:
        """Of what it holds."""
        kind = TYPES[PurePosixPath(path).suffix]
        # Without a time in it, the same file gives the same bytes.
        return cls(path, kind, body, gzip.compress(body, 9, mtime=0), _hash(body))

    def tag_of(self, *, packed: bool) -> str:
        """The ETag of what is sent: two representations have two (RFC 9110, section 8.8.3)."""
        return f'"{self.tag}-gz"' if packed else f'"{self.tag}"'


@dataclass(frozen=True, slots=True)
class Assets:
    """All files.

    Attributes:
        files: by their path in the package, such as `js/main.js`.
        version: the folder that has the version of them all as its name.
    """

    files: Mapping[str, Asset]
    version: str

    def find(self, path: str) -> tuple[Asset, bool] | None:
        """A file by its path below /page/, and whether that names its contents, too."""
        folder, _, rest = path.partition("/")
        found = self.files.get(rest if _VERSION.fullmatch(folder) else path)
        # The page has one address, which is not below /page/.
        return None if found is None or found.path == INDEX else (found, folder == self.version)


@cache
def load() -> Assets:
    """All of it. Reads the files, the first time."""
    files = dict(_found(resources.files(PACKAGE), ""))
    names = "".join(f"{path} {asset.tag}\n" for path, asset in files.items())
    version = f"v-{_hash(names.encode())}"
    files[INDEX] = Asset.of(INDEX, _index(files, version))
    return Assets(files, version)


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
        name = f"{path}{one.name}"
        if one.is_dir():
            yield from _found(one, f"{name}/")
        elif PurePosixPath(name).suffix in TYPES:
            yield name, Asset.of(name, one.read_bytes())


def _index(files: Mapping[str, Asset], version: str) -> bytes:
    """index.html, with the names of this version, and of all modules."""
    modules = [path for path in files if path.endswith(".js")]
    links = [f'<link rel="modulepreload" href="/page/{path}">\n' for path in modules]
    body = files[INDEX].body.decode().replace("</head>", f"{''.join(links)}</head>")
    return body.replace('="/page/', f'="/page/{version}/').encode()


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:24]
