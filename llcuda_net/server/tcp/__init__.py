"""Connections that speak the llcuda protocol over TCP.

It imports everything below `server`, and nothing of `server` outside this package.
"""
