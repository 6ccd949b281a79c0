"""What goes wrong in a browser without being seen: a test that looks at a page fails for it."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from playwright.sync_api import BrowserContext, ConsoleMessage, Dialog, Page, Request

#: A violation of the policy is an error in Chromium's console, too; this says more of it.
_TELL_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) => {
  console.error(`policy: ${event.violatedDirective} forbids ${event.blockedURI}`);
});
"""
#: Of the browser itself, and about no page of ours.
_ALWAYS = re.compile(r"Automatic fallback to software WebGL|GPU stall", re.IGNORECASE)


class Watch:
    """Collects, of all pages of a profile: errors and warnings of the console, exceptions, dialogs,
    pages that open themselves, requests to other hosts.

    Attributes:
        troubles: what went wrong so far.
        requests: method and URL of each so far.
    """

    def __init__(self, context: BrowserContext, origin: str) -> None:
        self.origin = origin
        self.troubles: list[str] = []
        self.requests: list[str] = []
        self._open: dict[Request, str] = {}
        self._expected: list[re.Pattern[str]] = [_ALWAYS]
        context.add_init_script(_TELL_VIOLATIONS)
        context.on("console", self._on_console)
        context.on("weberror", lambda error: self._note(f"exception: {error.error}"))
        context.on("request", self._on_request)
        context.on("requestfinished", self._on_end)
        context.on("requestfailed", self._on_end)
        context.on("dialog", self._on_dialog)
        context.on("page", self._on_page)

    @property
    def open_requests(self) -> list[str]:
        """URLs of the requests whose answers have not ended."""
        return list(self._open.values())

    def expect(self, pattern: str) -> None:
        """Troubles with this in them are none, from now on and before."""
        self._expected.append(re.compile(pattern))

    def check(self) -> None:
        """Fails where there was trouble."""
        found = [one for one in self.troubles if not any(e.search(one) for e in self._expected)]
        assert not found, "\n".join(found)

    def _note(self, trouble: str) -> None:
        self.troubles.append(trouble)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning", "assert"):
            place = message.location.get("url", "")
            self._note(f"console {message.type}: {message.text} ({place})")

    def _on_request(self, request: Request) -> None:
        self.requests.append(f"{request.method} {request.url}")
        self._open[request] = request.url
        url = urlsplit(request.url)
        if url.scheme not in ("data", "blob") and f"{url.scheme}://{url.netloc}" != self.origin:
            self._note(f"request to another host: {request.url}")

    def _on_end(self, request: Request) -> None:
        self._open.pop(request, None)

    def _on_dialog(self, dialog: Dialog) -> None:
        self._note(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _on_page(self, page: Page) -> None:
        if page.opener() is not None:
            self._note(f"a page opened itself: {page.url}")
