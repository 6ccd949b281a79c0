"""HTTP/1.1 on the server's port and on the monitoring port.

`connection` serves one client: h11 parses its requests, `access` says whose they are, `routes` has
the handlers, and an `Exchange` writes the answer through the write buffer of both protocols.
"""
