"""What the routes of the page give."""

from __future__ import annotations

from llcuda_net.server.http.openapi.operations import Operation
from llcuda_net.server.http.page.files import Root

#: By method and pattern.
OPERATIONS: dict[tuple[str, str], Operation] = {
    ("GET", "/"): Operation(
        "page", Root, contents={"text/html": "the page, for browsers"}, errors=(404,)
    ),
    ("GET", "/page/{file*}"): Operation(
        "page",
        None,
        contents={
            "text/css": "a style sheet",
            "text/javascript": "an ES module",
            "image/svg+xml": "a picture",
        },
        errors=(404,),
    ),
}
