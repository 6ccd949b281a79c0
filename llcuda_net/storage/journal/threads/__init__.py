"""The journal's threads: one writes, one syncs.

They know the disk, the segments and the marks, and neither records nor entries.
"""
