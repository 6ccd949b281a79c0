"""A form (multipart/form-data, RFC 7578) with one file, taken part by part.

The contents of the file come out as they come in; the fields beside it are small, and kept. What
two programs could read differently is refused: a field twice, two files, a file without its end.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from multipart import MultipartError, MultipartSegment, ParserLimitReached, PushMultipartParser

from llcuda_net.server.http.errors import HttpError

#: The field that is the file.
FILE = "file"
#: Bytes of each other field, and parts of the form.
_MOST_FIELD, _MOST_PARTS = 1024, 16
#: Characters of a file's name.
_MOST_NAME = 255
#: As RFC 2046 has it (section 5.1.1), in quotes or without.
_BOUNDARY = re.compile(
    r""";\s*boundary=(?:"([0-9A-Za-z'()+_,./:=? -]{1,70})"|([0-9A-Za-z'+_.-]{1,70}))\s*(?:;|\Z)""",
    re.IGNORECASE,
)


class Form:
    """One form, as it comes.

    Args:
        content_type: of the request.
        known: the fields that it may have beside the file.

    Attributes:
        fields: what came of them.
        name: of the file; None: it has not begun.

    Raises:
        HttpError: the body is no form.
    """

    def __init__(self, content_type: str, known: Collection[str]) -> None:
        if content_type.partition(";")[0].strip().lower() != "multipart/form-data":
            raise HttpError(
                415, "the Content-Type of an upload must be multipart/form-data, with a boundary"
            )
        found = _BOUNDARY.search(content_type)
        if found is None:
            raise _wrong("the Content-Type of the form has no boundary")
        self.fields: dict[str, str] = {}
        self.name: str | None = None
        self._known = known
        self._field: str | None = None  # the one that is coming; None: the file, or none
        self._value = bytearray()
        # Not strict: the same form would be refused or not by where its parts were cut.
        self._parser = PushMultipartParser(found[1] or found[2], max_segment_count=_MOST_PARTS)

    def __repr__(self) -> str:
        return f"<Form {', '.join(self.fields)}, file {self.name!r}>"

    def feed(self, data: bytes) -> list[bytes]:
        """The contents of the file that are in the next bytes of the form.

        Raises:
            HttpError: the form is wrong.
        """
        contents = []
        try:
            for event in self._parser.parse(data):
                if isinstance(event, MultipartSegment):
                    self._begin(event)
                elif event is None:
                    self._end()
                elif self._field is None:
                    contents.append(event)
                else:
                    self._value += event
                    if len(self._value) > _MOST_FIELD:
                        raise _wrong(
                            f"{self._field} has more than {_MOST_FIELD} bytes", self._field
                        )
        except ParserLimitReached:
            raise _wrong(
                f"the form has more than {_MOST_PARTS} parts, or headers too large"
            ) from None
        except MultipartError as error:
            why = str(error.args[0]) if error.args else "it cannot be read"
            raise _wrong(f"this is no multipart/form-data: {why:.200}") from None
        return contents

    def close(self) -> None:
        """The body is over.

        Raises:
            HttpError: the form is not.
        """
        try:
            self._parser.close()
        except MultipartError:
            raise _wrong("the form has no end: its last boundary is missing") from None
        if self.name is None:
            raise _wrong("the form has no file: send it as the field 'file'", FILE)

    def _begin(self, segment: MultipartSegment) -> None:
        name = segment.name or ""
        if name == FILE:
            if self.name is not None:
                raise _wrong("the form has two files; upload one at a time", FILE)
            if segment.filename is None:
                raise _wrong("'file' is a field without a file name; send it as a file", FILE)
            self.name = _clean(segment.filename)
            return
        if name not in self._known:
            allowed = ", ".join((FILE, *self._known))
            raise _wrong(f"there is no field {name[:60]!r}; the form has {allowed}", name[:60])
        if name in self.fields:
            raise _wrong(f"{name} is there twice", name)
        self._field = name

    def _end(self) -> None:
        if self._field is not None:
            try:
                self.fields[self._field] = self._value.decode()
            except UnicodeDecodeError:
                raise _wrong(f"{self._field} is not UTF-8", self._field) from None
        self._field = None
        self._value.clear()


def _clean(name: str) -> str:
    """The last part of a file's path, without what could be mistaken for something else."""
    name = re.split(r"[/\\]", name)[-1]
    return "".join(c for c in name if c.isprintable())[:_MOST_NAME] or "file"


def _wrong(message: str, param: str | None = None) -> HttpError:
    return HttpError(400, message, param=param, code="invalid_form")
