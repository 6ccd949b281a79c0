"""`llcuda bench`: measures a server, and writes tables, JSON and pages.

`command` chooses among latency, throughput and scaling; `options` are what they share, `tool` how
each of them runs.
"""
