"""nginx, HAProxy and Caddy as deploy/proxies sets them up, on free ports before a real server.

Of each file only what a machine decides is replaced: ports, certificates, names, folders.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import trustme

from tests.support.processes import PATIENCE
from tools.install_proxies import modules, program

FILES = Path(__file__).resolve().parents[2] / "deploy/proxies"
NAMES = ("nginx", "haproxy", "caddy")


class Certificates:
    """What a proxy shows, and what a client trusts.

    Args:
        folder: where the files lie.
    """

    def __init__(self, folder: Path) -> None:
        ca = trustme.CA()
        ours = ca.issue_cert("127.0.0.1", "localhost")
        self.authority = folder / "authority.pem"
        self.chain, self.key = folder / "chain.pem", folder / "key.pem"
        self.combined = folder / "combined.pem"
        ca.cert_pem.write_to_path(str(self.authority))
        ours.private_key_and_cert_chain_pem.write_to_path(str(self.combined))
        ours.private_key_pem.write_to_path(str(self.key))
        self.chain.write_bytes(b"".join(one.bytes() for one in ours.cert_chain_pems))


class Proxy:
    """One proxy before a server.

    Args:
        name: of NAMES.
        server: HOST:PORT of llcuda-server.
        folder: for its files, a new one.
        changes: what to replace in its configuration, once each.

    Attributes:
        port: of HTTPS.
        own_port: of llcuda's own protocol; None: there is none.
    """

    def __init__(
        self, name: str, server: str, folder: Path, changes: Mapping[str, str] | None = None
    ) -> None:
        self._name, self._folder = name, folder
        folder.mkdir()
        self.certificates = Certificates(folder)
        self.port = _free_port()
        self.own_port = {"nginx": _free_port(), "haproxy": self.port}.get(name)
        self._process: subprocess.Popen[bytes] | None = None
        self._write(server, changes or {})

    def __repr__(self) -> str:
        return f"<Proxy {self._name} on {self.port}>"

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"https://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it listens."""
        path = program(self._name)
        assert path, f"{self._name} is not installed: make test-proxies installs it"
        environment = {**os.environ, "HOME": str(self._folder)}
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [path, *self._options], stdout=log, stderr=log, env=environment
            )
        end = time.monotonic() + PATIENCE
        for port in {self.port, self.own_port} - {None}:
            while True:
                ended = self._process.poll() is not None or time.monotonic() > end
                assert not ended, self.log()
                with contextlib.suppress(OSError):
                    socket.create_connection(("127.0.0.1", port or 0), 1).close()
                    break
                time.sleep(0.02)

    def kill(self) -> None:
        """End it at once, with all its connections."""
        assert self._process is not None
        # nginx has workers, which notice that their master is gone: they are asked to leave.
        if self._name == "nginx":
            self._process.terminate()
        else:
            self._process.kill()
        self._process.wait(PATIENCE)

    def log(self) -> str:
        """What it has printed."""
        return (self._folder / "log").read_text("utf-8", "replace")

    def _write(self, server: str, changes: Mapping[str, str]) -> None:
        file = {"nginx": "nginx.conf", "haproxy": "haproxy.cfg", "caddy": "Caddyfile"}[self._name]
        text = (FILES / file).read_text("utf-8")
        for old, new in [*changes.items(), *self._places(server)]:
            assert old in text, f"{file} has no {old!r}"
            text = text.replace(old, new)
        (self._folder / file).write_text(text)
        path = str(self._folder / file)
        self._options = {
            "nginx": ["-p", str(self._folder), "-c", path, "-g", "daemon off;"],
            "haproxy": ["-db", "-f", path],
            "caddy": ["run", "--adapter", "caddyfile", "--config", path],
        }[self._name]

    def _places(self, server: str) -> list[tuple[str, str]]:
        folder, files = self._folder, self.certificates
        places = [("127.0.0.1:9000", server)]
        if self._name == "nginx":
            found = modules()
            assert found, "nginx has no stream module: make test-proxies installs it"
            places += [
                ("load_module modules", f"load_module {found}/modules"),
                ("user www-data;", "user root;" if os.geteuid() == 0 else ""),
                ("/run/nginx.pid", f"{folder}/pid"),
                ("/var/log/nginx/error.log", "stderr"),
                ("/var/log/nginx/access.log", f"{folder}/access.log"),
                ("/var/lib/nginx/body", f"{folder}/body"),
                ("/var/lib/nginx/proxy", f"{folder}/proxy"),
                ("listen 443 ", f"listen 127.0.0.1:{self.port} "),
                ("listen 9443 ", f"listen 127.0.0.1:{self.own_port} "),
                ("/etc/ssl/llcuda/chain.pem", str(files.chain)),
                ("/etc/ssl/llcuda/key.pem", str(files.key)),
                ("worker_processes auto", "worker_processes 1"),
            ]
        elif self._name == "haproxy":
            places += [
                ("bind :443 ", f"bind 127.0.0.1:{self.port} "),
                ("/etc/ssl/llcuda/combined.pem", str(files.combined)),
                # It takes memory and descriptors for them all at once.
                ("maxconn 20000", "maxconn 200"),
            ]
        else:
            tls = f"tls {files.chain} {files.key}"
            places += [
                ("\nchat.example {", f"\nhttps://127.0.0.1:{self.port} {{\n\t{tls}"),
                ("\tservers {", "\tadmin off\n\tauto_https off\n\tservers {"),
            ]
        return places


@contextlib.contextmanager
def proxy(
    name: str, server: str, folder: Path, changes: Mapping[str, str] | None = None
) -> Iterator[Proxy]:
    """One that runs; it ends with the block."""
    one = Proxy(name, server, folder, changes)
    one.start()
    try:
        yield one
    finally:
        one.kill()


def port_of(address: str) -> int:
    """Of HOST:PORT."""
    return int(re.sub(r".*:", "", address))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
