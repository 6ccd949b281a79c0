"""A server that speaks Hugging Face's API, as far as pulling needs it, and that can misbehave.

Files are served as there: `/OWNER/REPO/resolve/REVISION/FILE` redirects to another host (here,
another port), which knows ranges, must get no token, and needs none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

#: The token that may see everything; and one that is valid and may not.
TOKEN, POOR_TOKEN = "hf_good", "hf_poor"
_CHUNK = 1 << 16


@dataclass
class Repository:
    """What a repository holds.

    Attributes:
        files: bytes by path.
        gated: everybody sees what is there, and only TOKEN gets it.
        private: only TOKEN sees it.
        plain: files that are not stored with Git LFS.
        revisions: by which names beside "main" it is known, and its commit.
    """

    files: dict[str, bytes]
    gated: bool = False
    private: bool = False
    license: str | None = "apache-2.0"
    plain: frozenset[str] = frozenset()
    commit: str = "c0ffee" * 6 + "beef"
    revisions: frozenset[str] = frozenset()


@dataclass
class Hub:
    """A running server.

    Attributes:
        cuts: after how many bytes the connection is cut, for each of the next downloads.
        held: bytes after which a download waits for `release`; None: none does.
        wrong: bytes that downloads have in place of the right ones, by path.
        statuses: what the next requests of any kind are answered with, instead of what they asked.
        ignores_ranges: downloads are whole, whatever was asked.
        asked: method and path of each request, without the host.
        ranges: of each download.
        tokens: what each download had as Authorization.
    """

    repositories: dict[str, Repository]
    cuts: list[int] = field(default_factory=list)
    held: int | None = None
    release: threading.Event = field(default_factory=threading.Event)
    wrong: dict[str, bytes] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)
    ignores_ranges: bool = False
    asked: list[str] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    url: str = ""
    files_url: str = ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        if self.hub.statuses:
            self._answer(self.hub.statuses.pop(0), {"error": "as told"})
        elif path.startswith("/api/models/"):
            self._model(path.removeprefix("/api/models/"))
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(*match.groups())
        elif path.startswith("/bytes/"):
            self._bytes(path.removeprefix("/bytes/"))
        else:
            self._answer(404, {"error": "Not Found"})

    do_HEAD = do_GET  # noqa: N815

    def _model(self, path: str) -> None:
        """What a repository holds: of the library's `model_info`."""
        name, _, revision = path.partition("/revision/")
        if (repository := self._seen(name, revision or "main")) is None:
            return
        siblings = []
        for file, data in repository.files.items():
            entry: dict[str, Any] = {
                "rfilename": file,
                "size": len(data),
                "blobId": hashlib.sha1(b"blob %d\0%s" % (len(data), data)).hexdigest(),
            }
            if file not in repository.plain:
                digest = hashlib.sha256(data).hexdigest()
                entry["lfs"] = {"sha256": digest, "size": len(data), "pointerSize": 134}
            siblings.append(entry)
        card = {"license": repository.license} if repository.license else {}
        self._answer(
            200,
            {
                "id": name,
                "modelId": name,
                "sha": repository.commit,
                "private": repository.private,
                "gated": "manual" if repository.gated else False,
                "tags": [f"license:{text}" for text in card.values()],
                "cardData": card,
                "siblings": siblings,
            },
        )

    def _seen(self, name: str, revision: str) -> Repository | None:
        """The repository, if this client may see it; else it has been answered."""
        repository = self.hub.repositories.get(name)
        token = self.headers.get("Authorization")
        if token not in (None, f"Bearer {TOKEN}", f"Bearer {POOR_TOKEN}"):
            self._answer(
                401,
                {"error": "Invalid credentials in Authorization header"},
                {"X-Error-Message": "Invalid credentials in Authorization header"},
            )
        elif repository is None or (repository.private and token != f"Bearer {TOKEN}"):
            code = 404 if token else 401  # so it is there: nobody learns what is private
            self._answer(code, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        elif revision not in {"main", repository.commit, *repository.revisions}:
            self._answer(404, {"error": "no"}, {"X-Error-Code": "RevisionNotFound"})
        else:
            return repository
        return None

    def _resolve(self, name: str, revision: str, file: str) -> None:
        if (repository := self._seen(name, revision)) is None:
            return
        if repository.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            code = 403 if self.headers.get("Authorization") else 401
            self._answer(code, {"error": "gated"}, {"X-Error-Code": "GatedRepo"})
        elif file not in repository.files:
            self._answer(404, {"error": "no"}, {"X-Error-Code": "EntryNotFound"})
        else:
            digest = hashlib.sha256(repository.files[file]).hexdigest()
            headers = {
                "Location": f"{self.hub.files_url}/bytes/{name}/{file}",
                "X-Repo-Commit": repository.commit,
                "X-Linked-Size": str(len(repository.files[file])),
                "X-Linked-ETag": f'"{digest}"',
            }
            self._answer(302, {}, headers)

    def _bytes(self, path: str) -> None:
        owner, name, file = path.split("/", 2)
        data = self.hub.wrong.get(file, self.hub.repositories[f"{owner}/{name}"].files[file])
        asked = self.headers.get("Range")
        self.hub.ranges.append(asked)
        self.hub.tokens.append(self.headers.get("Authorization"))
        first = 0
        if asked and not self.hub.ignores_ranges:
            first = int(asked.removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - first))
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.end_headers()
        self._send(data[first:])

    def _send(self, data: bytes) -> None:
        cut = self.hub.cuts.pop(0) if self.hub.cuts else len(data)
        held = self.hub.held if self.hub.held is not None else len(data)
        with contextlib.suppress(ConnectionError):
            self.wfile.write(data[: min(cut, held)])
            if held < len(data):
                self.wfile.flush()
                self.hub.release.wait(60)
            self.wfile.write(data[held:cut])
        if cut < len(data):
            self.close_connection = True

    def _answer(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@contextlib.contextmanager
def serving(repositories: dict[str, Repository]) -> Iterator[Hub]:
    """Run such a server, and the one that has the files, on two free ports."""
    hub = Hub(repositories)
    handler = type("Handler", (_Handler,), {"hub": hub})
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for _ in range(2)]
    threads = [threading.Thread(target=server.serve_forever, args=(0.02,)) for server in servers]
    hub.url, hub.files_url = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        hub.release.set()
        for server in servers:
            server.shutdown()
            server.server_close()
        for thread in threads:
            thread.join()
