"""One stream of events for all that a page shows: what runs, what is over, answers in blocks.

Imports the gateway's packages below, and of server/http what `generations` imports.
"""
