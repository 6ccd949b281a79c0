"""Generations that other servers of the cluster have, followed here for who reads them.

It may import everything below `server`, `server/tcp/peers`, and of `server/cluster` its host.
"""
