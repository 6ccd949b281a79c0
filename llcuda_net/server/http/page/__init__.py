"""The page: its files as they lie in `llcuda_net.page`, and who is signed in to it.

`assets` and `files` serve the files; `cookies`, `sessions` and `signing` are about sessions: of a
browser that showed a token once, and since then shows a cookie. Of the APIs beside it, it imports
only how bodies are read.
"""
