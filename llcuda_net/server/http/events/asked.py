"""What a request for the events asks for: its parameters, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llcuda_net.server.http.errors import HttpError
from llcuda_net.server.http.request import check_names, is_number

#: Answers that one stream has, at most.
MOST_ANSWERS = 100
#: Names of parameters, with what they do.
PARAMETERS = {
    "generations": (
        f"up to {MOST_ANSWERS} answers to follow, by commas: ID, ID:N, or ID:N:EPOCH, where N is "
        "how many of its final blocks the reader has"
    ),
    "status": "whether the server's report comes each second, too",
    "all": "whether everybody's generations are meant; only for admins",
}


@dataclass(frozen=True, slots=True)
class AskedAnswer:
    """An answer that is to be followed.

    Attributes:
        id: as the request has it.
        have: how many final blocks the reader has.
        epoch: of the run of which they are; None: the reader does not say.
    """

    id: str
    have: int = 0
    epoch: int | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What a stream is to have.

    Attributes:
        answers: those that are followed, each once.
        status: the server's report each second.
        everybody: the generations of all users.
    """

    answers: tuple[AskedAnswer, ...] = ()
    status: bool = False
    everybody: bool = False

    @classmethod
    def of(cls, query: Mapping[str, str], *, admin: bool) -> Asked:
        """Of the parameters of a request.

        Raises:
            HttpError: there is no such parameter, a value is wrong, or not for this user.
        """
        check_names(query, PARAMETERS)
        everybody = _switch(query, "all")
        if everybody and not admin:
            raise HttpError(403, "all=1 is for admins", param="all", code="forbidden")
        named = [text.strip() for text in query.get("generations", "").split(",")]
        answers = {one.id: one for one in map(_answer, filter(None, named))}
        if len(answers) > MOST_ANSWERS:
            raise _refused("generations", f"at most {MOST_ANSWERS} answers, not {len(answers)}")
        return cls(tuple(answers.values()), _switch(query, "status"), everybody)


def _answer(text: str) -> AskedAnswer:
    id_, *numbers = text.split(":")
    if not id_ or len(numbers) > 2 or not all(map(_is_number, numbers)):
        message = f"generations is ID, ID:N or ID:N:EPOCH by commas, not {text[:60]!r}"
        raise _refused("generations", message)
    return AskedAnswer(id_[:256], *map(int, numbers))


def _is_number(text: str) -> bool:
    # Epochs have up to 19 digits.
    return is_number(text) or (is_number(text[:10]) and is_number(text[10:20]) and len(text) <= 20)


def _switch(query: Mapping[str, str], name: str) -> bool:
    text = query.get(name, "0")
    if text not in ("0", "1", "true", "false"):
        raise _refused(name, f"{name} is 1 or 0, not {text[:60]!r}")
    return text in ("1", "true")


def _refused(param: str, message: str) -> HttpError:
    return HttpError(400, message, param=param, code="invalid_request")
