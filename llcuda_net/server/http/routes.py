"""Every path that is answered."""

from __future__ import annotations

from llcuda_net.server.http.route import Route

ROUTES: list[Route] = []
