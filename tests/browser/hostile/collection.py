"""All hostile answers, by kind."""

from __future__ import annotations

from tests.browser.hostile import characters, markdown, markup

#: A kind, and the texts of it.
ANSWERS: dict[str, list[str]] = {
    "scripts": markup.SCRIPTS,
    "handlers": markup.HANDLERS,
    "loads": markup.LOADS,
    "forms": markup.FORMS,
    "mutations": markup.MUTATIONS,
    "clobbering": markup.CLOBBERING,
    "links": markdown.LINKS,
    "breaking out": markdown.BREAKING_OUT,
    "characters": characters.CHARACTERS,
    "too much": characters.TOO_MUCH,
}
#: One of each kind, short and of one line, for names, titles and messages.
SHORT = [
    markup.SCRIPTS[0],
    markup.HANDLERS[0],
    markup.LOADS[0],
    f"</textarea>{markup.FORMS[0]}",
    markup.MUTATIONS[1],
    markup.CLOBBERING[2],
    markdown.LINKS[0],
    "`</code></button></li></nav></main>",
    "\u202esdrawkcab \u2067never closed",
    "x" * 200,
    "{{constructor}} ${window.pwned=1} &lt;b&gt; &amp;",
]
