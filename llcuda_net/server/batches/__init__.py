"""Batches: their lines are asked at low priority, through the same queue as everybody's requests.

It may import what is below `server`, `server.objects`, and of `server/http` what is below its
routes: a line is answered by the handler that answers such a request over HTTP.
"""
