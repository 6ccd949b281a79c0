"""What servers of a cluster say to each other over our protocol; see its SPEC.md, section 20.

It may import everything that `server/tcp` may, and modules of that.
"""
