"""From settings to a pool of llama-servers that others run; SIGHUP may change them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import trio

from llcuda_net.config.settings import Settings
from llcuda_net.config.upstreams import BaseUrl, UpstreamSpec
from llcuda_net.errors import ConfigError
from llcuda_net.upstream.llama.poller import Poller
from llcuda_net.upstream.llama.token_stream import StreamTimeouts
from llcuda_net.upstream.pool import Pool
from llcuda_net.upstream.router.connector import Connector
from llcuda_net.upstream.router.discovery import Discovery
from llcuda_net.util.text_files import read_text


class Upstreams:
    """Makes the pool of a server, and what is behind it.

    Attributes:
        poller: reads the token streams of all of them.

    Raises:
        ConfigError: a key file cannot be read, or holds no key.
    """

    def __init__(self, settings: Settings) -> None:
        self.poller = Poller()
        self._settings = settings
        self._folder: Path | None = None
        self._keys = _keys(settings)
        self._pool = Pool(long_prompts=settings.max_long_prompts, may_grow=True)
        self._nursery: trio.Nursery | None = None
        self._found: list[Discovery] = []
        self._closed: list[Discovery] = []
        self._timeouts = StreamTimeouts(settings.stall_timeout, settings.first_token_timeout)

    def __repr__(self) -> str:
        return f"<Upstreams: {self._pool!r}>"

    @property
    def pool(self) -> Pool:
        """The pool; empty until `open` has returned."""
        return self._pool

    async def open(self, nursery: trio.Nursery, folder: Path | None) -> Pool:
        """The pool.

        Args:
            nursery: for what follows the upstreams.
            folder: where hashes of model files are kept; None: none are computed.

        Raises:
            ConfigError: an upstream's URL is not one.
        """
        await trio.lowlevel.checkpoint()
        self._folder = folder
        self._nursery = nursery
        for spec in self._settings.upstream:
            self._found.append(self._discovery(spec, self._keys[spec]))
            self._found[-1].open()
        return self._pool

    async def reload(self, settings: Settings) -> None:
        """Apply changed settings: new upstreams come in, those no longer there are drained.

        Raises:
            ConfigError: they cannot be applied; nothing was changed.
        """
        await trio.lowlevel.checkpoint()
        if not settings.upstream:
            raise ConfigError("upstreams and models cannot take each other's place: restart")
        keys = _keys(settings)
        now = {(_place(one.spec), one.key): one for one in self._found}
        stay = {spec: now.pop((_place(spec), keys[spec]), None) for spec in settings.upstream}
        fresh = [
            self._discovery(spec, keys[spec]) for spec, before in stay.items() if before is None
        ]
        for spec, before in stay.items():
            if before is not None:
                before.apply(spec)  # at most its share of the work has changed
        for found in fresh:
            found.open()
        for found in now.values():
            found.close()
        self._found = [one for one in self._found if one not in now.values()] + fresh
        self._closed += now.values()
        self._settings, self._keys = settings, keys
        self._pool.update()

    async def aclose(self) -> None:
        """Close the connections that are kept."""
        for found in (*self._found, *self._closed):
            await found.aclose()

    def _discovery(self, spec: UpstreamSpec, key: str | None) -> Discovery:
        assert self._nursery is not None
        connector = Connector(self.poller, self._timeouts, self._folder)
        return Discovery(spec, key, connector, self._pool, self._nursery)


def _place(spec: UpstreamSpec) -> UpstreamSpec:
    """What stays the same where only weight and slots have changed."""
    return replace(spec, weight=1.0, slots=None)


def _keys(settings: Settings) -> dict[UpstreamSpec, str | None]:
    """The key of each upstream. Raises ConfigError.

    The one for all upstreams is not for those whose URL has a user and password.
    """
    return {
        spec: _key(path)
        if (path := spec.api_key_file or settings.upstream_api_key_file)
        and (spec.api_key_file or BaseUrl.parse(spec.url).authorization is None)
        else None
        for spec in settings.upstream
    }


def _key(path: str) -> str:
    key = read_text(path, "API key file").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise ConfigError(f"API key file {path} must hold one line of printable ASCII, the key")
    return key
