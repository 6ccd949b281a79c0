"""`llcuda results`: list, show, search, export and maintain what is stored.

It imports storage, analysis, the client, the engine for semantic search, and the modules beside
this package.
"""
