"""Names what answers in place of an llcuda-server, from the first bytes that it says."""

from __future__ import annotations

_STRANGERS = {
    b"HTTP/": "an HTTP server",
    b"<": "an HTTP server",
    b"SSH-": "an SSH server",
    b"220": "a mail or FTP server",
}


def explain_greeting(name: str, first: bytes, otherwise: str) -> str:
    """One line about a greeting that was none.

    Args:
        name: what messages call the server.
        first: the first bytes that it said.
        otherwise: what to say where they tell nothing.
    """
    if first.startswith((b"\x15\x03", b"\x16\x03")):
        return f"{name} wants TLS: add --tls (in Python, tls=True)"
    for start, kind in _STRANGERS.items():
        if first.startswith(start):
            return f"{name} is {kind}, not an llcuda-server: check the address"
    return otherwise
