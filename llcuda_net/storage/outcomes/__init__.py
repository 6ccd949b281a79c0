"""What comes of generations: results are stored and read; what was open at an end is taken up.

It may import everything of `storage` but `storage.py`.
"""
