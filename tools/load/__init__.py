"""The load generator: requests over raw sockets, every token of every answer checked.

tools/overhead and tools/soak use it. It may import llcuda_protocol and tools/synthetic.
"""
