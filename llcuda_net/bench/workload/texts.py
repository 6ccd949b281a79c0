"""Made-up texts of a given length, the same for the same name on every machine."""

from __future__ import annotations

import hashlib

#: 128 short and common words, so that most tokenizers make about one token of each.
WORDS = str.split(
    "the of a to in is it for on as with that by this be are from or one all at each when how "
    "time work part word line page hand door tree road light water house field sound stone "
    "paper green small large early quick plain round first last open long we you they he she "
    "who what where why not but if then so than over under after before out up down back near "
    "far new old good high low hot cold day year week night land sea sun rain wind fire salt "
    "milk bread food boat ship town city room wall roof floor table chair book name number "
    "list case point order form side end way half group state plan cup coat wheel leaf bird"
)
_MASK = len(WORDS) - 1
assert len(set(WORDS)) == 128  # a byte chooses a word by its lower bits: all are equally likely


def text(words: int, *name: object) -> str:
    """So many words; a longer text of the same name begins with the shorter one."""
    drawn = hashlib.shake_256("/".join(map(str, name)).encode()).digest(words)
    return " ".join([WORDS[byte & _MASK] for byte in drawn])
