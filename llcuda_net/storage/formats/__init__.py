"""What version everything in a data directory has, and whether this program knows it.

Imports only storage, errors and util.
"""
