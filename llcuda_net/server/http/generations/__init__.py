"""The generations of a user, whatever API they were asked for by: list, show, read, end, delete.

Imports the gateway's packages below, and of server/http all but the table of routes.
"""
