"""Conversations: chains of responses by a name, with a title, for the page and for SDKs.

Imports the gateway's packages below, of server/http what one request and its answer are, and
responses, whose items it lists.
"""
