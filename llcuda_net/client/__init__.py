"""The client: one connection to an llcuda-server, used by as many tasks at once as you like.

It runs under trio; `llcuda_net.sync` is the same for code without async. It imports `errors`,
`util` and the protocol, and nothing of the server.
"""

from llcuda_net.client.client import Client as Client
from llcuda_net.client.client import connect as connect

__all__ = ["Client", "connect"]
