"""Refuses a frame that declares more items than it has bytes, before it is decoded.

A msgpack decoder allocates memory for an array when it reads its header, and for a map, too, where
it hands over the pairs. Nested ones that each declare as many items as the frame has bytes would
make a 4 MiB frame take gigabytes. In a well-formed frame every item takes at least one byte, and
every pair two, so no valid frame is refused.
"""

from __future__ import annotations

import re

#: Items that may be declared unchecked, of 8 bytes each: most frames cannot reach this.
_UNCHECKED = 1 << 20
#: A run of values without a length: small containers, nil, booleans, numbers, empty strings.
_PLAIN = re.compile(
    rb"(?:[\x00-\xa0\xc0-\xc3\xe0-\xff]|[\xcc\xd0].|[\xcd\xd1]..|[\xca\xce\xd2].{4}"
    rb"|[\xcb\xcf\xd3].{8})*+",
    re.DOTALL,
)
#: First byte to the bytes of the length that follows, and the bytes between it and the payload.
_LENGTHS = {
    0xC4: (1, 0),  # binary
    0xC5: (2, 0),
    0xC6: (4, 0),
    0xC7: (1, 1),  # extensions, with a type
    0xC8: (2, 1),
    0xC9: (4, 1),
    0xD9: (1, 0),  # strings
    0xDA: (2, 0),
    0xDB: (4, 0),
    0xDC: (2, 0),  # arrays
    0xDD: (4, 0),
    0xDE: (2, 0),  # maps
    0xDF: (4, 0),
}
#: First bytes of large arrays and maps, and how many items each entry is.
_LARGE = {0xDC: 1, 0xDD: 1, 0xDE: 2, 0xDF: 2}
_FIXED_EXTENSIONS = {0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17}


def declares_too_much(body: bytes | bytearray) -> bool:
    """Whether the large arrays and maps in `body` declare more items together than it has bytes.

    The decoder finds bytes that are malformed in any other way.
    """
    size = len(body)
    if size <= 1024 or sum(map(body.count, _LARGE)) * size <= _UNCHECKED:
        return False
    position = declared = 0
    while position < size:
        run = _PLAIN.match(body, position)
        assert run is not None  # it matches nothing at least
        position = run.end()
        if position >= size:
            break
        lead = body[position]
        position += 1
        if 0xA0 <= lead <= 0xBF:
            position += lead & 0x1F
        elif lead in _LENGTHS:
            width, between = _LENGTHS[lead]
            length = int.from_bytes(body[position : position + width], "big")
            position += width + between
            if lead in _LARGE:
                declared += length * _LARGE[lead]
                if declared > size:
                    return True
            else:
                position += length
        elif lead in _FIXED_EXTENSIONS:
            position += _FIXED_EXTENSIONS[lead]
        else:
            break  # a number cut short at the end
    return False
