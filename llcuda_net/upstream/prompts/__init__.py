"""What a model reads: messages, the prompt that is made of them, and who holds it already.

May import `errors` and `upstream.interface`.
"""
