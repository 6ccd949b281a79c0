"""Values of frames that have rules of their own: messages of a chat, and its options.

They are built from the checks of `schema`, and import nothing else.
"""
