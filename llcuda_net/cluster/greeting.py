"""How servers of a cluster show each other that they are: the protocol's SPEC.md, section 20.

The secret never leaves a server. What one sends is good for one life of one server, and under TLS
for the certificate that it was shown: whoever listens where a server was, or in between, gets
nothing that another one would take.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
import ssl
from dataclasses import dataclass
from typing import Any

#: Bytes of the secret, and of a nonce.
SECRET, _NONCE = 32, 16
_LEAST, _MOST = 16, 64
_HELLO, _WELCOME = b"llcuda peer hello\0", b"llcuda peer welcome\0"


@dataclass(frozen=True)
class Greeting:
    """What a server that asks says of itself.

    Attributes:
        server: the number of its life.
        to: that of the server which is meant.
        user: for whom it asks; None: for all, as an admin.
        certificate: SHA-256 of the certificate that it was shown; empty: there is no TLS.
    """

    server: int
    to: int
    user: str | None
    nonce: bytes
    certificate: bytes = b""

    @classmethod
    def new(cls, server: int, to: int, user: str | None, certificate: bytes = b"") -> Greeting:
        """One that nobody has sent before."""
        return cls(server, to, user, secrets.token_bytes(_NONCE), certificate)

    @classmethod
    def of(cls, peer: dict[str, Any], certificate: bytes = b"") -> Greeting:
        """That of a hello, at the server with this certificate."""
        return cls(peer["server"], peer["to"], peer.get("user"), peer["nonce"], certificate)

    @property
    def peer(self) -> dict[str, Any]:
        """As hello has it."""
        found: dict[str, Any] = {"server": self.server, "to": self.to, "nonce": self.nonce}
        return found if self.user is None else {**found, "user": self.user}

    def token(self, secret: bytes) -> str:
        """The token of the hello."""
        return self._proof(secret, _HELLO).hex()

    def answer(self, secret: bytes) -> bytes:
        """What the server that is meant says in its welcome."""
        return self._proof(secret, _WELCOME)

    def is_right(self, secret: bytes, token: str | None, me: int) -> bool:
        """Whether it is of a server of this cluster, for the life `me`. In constant time."""
        given = (token or "").encode("utf-8", "surrogatepass")
        same = hmac.compare_digest(given, self.token(secret).encode())
        return same and self.to == me and _LEAST <= len(self.nonce) <= _MOST

    def is_answered(self, secret: bytes, proof: bytes | None) -> bool:
        """Whether the server that is meant has answered. In constant time."""
        return hmac.compare_digest(proof or b"", self.answer(secret))

    def _proof(self, secret: bytes, what: bytes) -> bytes:
        if self.user is None:
            user = b"\0"
        else:
            user = b"\1" + self.user.encode("utf-8", "surrogatepass")
        parts = [
            what,
            self.server.to_bytes(8, "big"),
            self.to.to_bytes(8, "big"),
            _counted(self.certificate),
            _counted(self.nonce),
            user,
        ]
        return hmac.new(secret, b"".join(parts), hashlib.sha256).digest()


def _counted(part: bytes) -> bytes:
    return bytes([len(part)]) + part


def certificate_hash(pem: str) -> bytes:
    """The hash of the first certificate in the text of a PEM file; empty: there is none."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    with contextlib.suppress(ValueError):
        first, last = pem.index(begin), pem.index(end) + len(end)
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem[first:last])).digest()
    return b""
