"""The model files of this machine: where they are, what they hold, and what memory they need.

May import: upstream and what is below it.
"""
