"""What is personal is taken out of a document: hosts, folders, user names, keys.

A record is made to be shown to others. Addresses of this machine stay (127.0.0.1, localhost); other
hosts become host-1, host-2 …, the same one always the same; of a path its last part stays. Keys and
tokens never come into a document: commands take them from files and variables. What stands in a
command all the same (a URL's user and query) is cut off.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

#: Options whose values are files: nothing but their last part is anybody's business.
_FILES = frozenset(
    {
        *("--token-file", "--api-key-file", "--tls-ca", "--json", "--html", "--compare"),
        *("--requests", "--point", "--trace"),
    }
)
#: Options whose values are servers.
_SERVERS = frozenset({"--server", "--target", "--direct"})
#: Folders at a system's root in which people and their things live.
_ROOTS = (
    *("home", "Users", "root", "tmp", "var", "mnt", "media", "data", "opt", "srv", "work"),
    *("workspace", "private", "Volumes", "run", "scratch", "models", "usr", "etc", "app"),
)
_PATH = re.compile(
    rf"(?<![\w/.\]-])(?:/(?:{'|'.join(_ROOTS)})(?:/[^\s/'\"`,;:()<>|]+)+|~[\w.-]*(?:/[^\s/'\"`,;:()]+)+"
    r"|[A-Za-z]:\\(?:[^\s\\'\",;:()]+\\)*[^\s\\'\",;:()]+)"
)
_URL = re.compile(
    r"\b(https?)://([^\s/'\"?#]*@)?([^\s/'\"?#,;)]*)([^\s'\"?#,;)]*)(\?[^\s'\",;)]*)?"
)
_LOCAL = ("localhost", "started")
#: Members of documents whose values are machines, and those whose names are texts.
_ADDRESSES = frozenset({"address", "host", "server"})
_TEXTS_AS_NAMES = frozenset({"errors"})


class Scrubber:
    """Takes the same out of several texts in the same way.

    Args:
        hosts: names or addresses of machines that are known to occur.
    """

    def __init__(self, hosts: Iterable[str] = ()) -> None:
        self._names: dict[str, str] = {}
        own = {socket.gethostname(), socket.gethostname().partition(".")[0]}
        for host in [*hosts, *sorted(own)]:
            self._host(host)
        folders = {str(Path.home()), str(Path.cwd()), tempfile.gettempdir()} - {"/"}
        self._folders = sorted(folders, key=len, reverse=True)

    def __repr__(self) -> str:
        return f"<Scrubber of {len(self._names)} hosts>"

    def _host(self, host: str) -> str:
        """What is written for a host."""
        if not host or is_local(host):
            return host
        return self._names.setdefault(host.lower(), f"host-{len(self._names) + 1}")

    def address(self, text: str) -> str:
        """HOST:PORT or a URL, or several with commas, without what is personal."""
        return ",".join(self._one(each) for each in text.split(","))

    def _one(self, text: str) -> str:
        if "://" in text:
            return self.text(text)
        host, port = _parted(text)
        shown = self._host(host)
        return (f"[{shown}]" if ":" in shown else shown) + (f":{port}" if port else "")

    def text(self, text: str) -> str:
        """A text in which hosts and paths may occur."""
        text = _URL.sub(self._url, text)
        for folder in self._folders:
            text = re.sub(
                rf"(?<![\w/\]]){re.escape(folder)}(?=/|\b)(?:/[^\s/'\",;:()]+)*", _last, text
            )
        text = _PATH.sub(_last, text)
        for host, name in self._names.items():
            # A host whose name is a word ("server") is meant only where a port follows.
            end = r"(?![\w-]|\.\w)" if re.search(r"[\d.-]", host) else r"(?=:\d)"
            text = re.sub(rf"(?<![\w.-]){re.escape(host)}{end}", name, text, flags=re.IGNORECASE)
        return text

    def _url(self, found: re.Match[str]) -> str:
        host, port = _parted(found[3])
        shown = self._host(host)
        shown = f"[{shown}]" if ":" in shown else shown
        return f"{found[1]}://{shown}{f':{port}' if port else ''}{found[4]}"

    def command(self, words: Iterable[str]) -> list[str]:
        """A command's words, without folders, hosts, users and queries."""
        out: list[str] = []
        option = ""
        for word in words:
            name, equals, value = word.partition("=")
            if equals and name.startswith("--"):
                out.append(f"{name}={self._value(name, value)}")
                option = ""
            elif word.startswith("--"):
                out.append(word)
                option = word
            else:
                out.append(self._value(option, word))
                option = ""
        return out

    def _value(self, option: str, value: str) -> str:
        if option in _FILES:
            return Path(value).name or value
        if option in _SERVERS:
            return self.address(value)
        # A file that is named in a value: @FILE of prompts, trace:FILE of arrivals.
        mark = re.match(r"(@|[a-z0-9-]+:)(?!//)(?=.*/)", value)
        if mark is not None:
            return mark[0] + Path(value).name
        return self.text(value)

    def value(self, value: Any, name: str = "") -> Any:
        """A JSON value, in all its strings; `name` is that of the member whose value it is."""
        if isinstance(value, str):
            return self.address(value) if name in _ADDRESSES else self.text(value)
        if isinstance(value, dict):
            if name in _TEXTS_AS_NAMES:
                return {self.text(each): self.value(inner) for each, inner in value.items()}
            return {each: self.value(inner, each) for each, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(each) for each in value]
        return value


def is_local(host: str) -> bool:
    """Whether a host is this machine by any reader's understanding."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() in _LOCAL


def host_of(address: str) -> str:
    """The host of HOST:PORT or of a URL."""
    return _parted(re.sub(r"^\w+://(?:[^/@]*@)?|/.*$", "", address))[0]


def _parted(text: str) -> tuple[str, str]:
    """Host and port; an IPv6 address without its brackets."""
    found = re.fullmatch(r"\[([^\]]*)\](?::(\d+))?|([^:]*)(?::(\d+))?", text)
    if found is None:
        return text, ""
    return found[1] or found[3] or "", found[2] or found[4] or ""


def _last(found: re.Match[str]) -> str:
    return re.split(r"[/\\]", found[0].rstrip("/\\"))[-1]
