"""Markdown, as models write it, as HTML that a page may show: whole, or in blocks as it grows.

Imports no other package of server/http. Much of it blocks: call it in a thread, with RENDERERS.
"""

import trio

#: Texts that are rendered in threads at a time: it takes much of a core.
RENDERERS = trio.CapacityLimiter(1)
