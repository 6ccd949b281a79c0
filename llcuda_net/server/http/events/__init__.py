"""One stream of events for everything that a page shows: what runs, what is over, answers as blocks.

Imports the gateway's packages below, and of server/http what `generations` imports.
"""
