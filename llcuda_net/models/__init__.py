"""Local models: their files and what they need, downloads, and who of them is loaded when.

May import: upstream, scheduler, and what is below them.
"""
