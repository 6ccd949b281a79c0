"""Answers on their way to readers: streams of events, resuming, joining, leaving; downloads.

Imports the gateway's packages below, and of server/http what one request and its answer are. How an
API writes its answers it is given: see format.py.
"""
