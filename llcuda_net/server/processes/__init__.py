"""`llcuda-server --processes N`: several servers on one port, and one process that keeps them.

Each of them is a server as any other, with a data directory of its own; what they share is the
port and the store. May import `config`, `storage`, `util`, `server.sockets` and
`server.service_manager`; nothing of the server imports it, but for `part`.
"""
