"""Model files on this machine: our folder, other programs' folders, and the memory they need.

All of it reads headers only, and blocks: call it in a thread. May import: models.need,
upstream.model, storage, util, errors.
"""
