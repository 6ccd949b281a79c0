"""A copy of a data directory while its server runs, and its restore.

Imports only storage, errors and util.
"""
