"""Texts that the upstream says: Markdown as models write it, and one long block of code."""

from __future__ import annotations

_PROSE = """\
The server keeps a **journal** of each token before a reader gets it, so nothing is lost when the
power fails. What follows is a list of what that costs, with `fdatasync` on an ordinary disk:

- one write for all tokens of a decode step,
- one sync every 15 ms, for all generations together, and
- no copy in Python: the bytes that were encoded once go into the frame, the file and the store.

| level | survives | added delay |
|---|---|---|
| memory | nothing | 0.0 ms |
| process | kill -9 | 0.1 ms |
| disk | a power cut | 0.3 ms |

A reader that comes back sends the position up to which it has read, and gets the *same* bytes from
there on, see [durability](https://example.org/durability) for the details.

```python
def resume(log: list[str], position: int) -> str:
    # Everything behind the position, as it was made.
    return "".join(log[position:])
```

The mean of $n$ values is $\\frac{1}{n}\\sum_i x_i$; of few values it says little. So a report has
the median, the ninety-ninth percentile and the longest, with the number of repeats beside it.

"""
_CODE = """\
def step_{number}(values, limit={number}):
    total = 0
    for index, value in enumerate(values):
        if value > limit and index % 3 == 0:
            total += value * {number}  # a comment that says why
    return {{"total": total, "name": "step-{number}"}}


"""


def prose(words: int) -> str:
    """Paragraphs, lists, tables and code of at least so many words."""
    return _PROSE * (words // len(_PROSE.split()) + 1)


def code(words: int) -> str:
    """One block of code of at least so many words; without its end."""
    per_part = len(_CODE.split())
    parts = (_CODE.format(number=number) for number in range(words // per_part + 1))
    return "Here is the whole program:\n\n```python\n" + "".join(parts)
