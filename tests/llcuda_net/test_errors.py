"""One class per code of the protocol, and one table that makes them."""

from __future__ import annotations

import pickle

import pytest

import llcuda_net
from llcuda_net.errors import REQUEST_ERRORS, ConnectionRejected, RequestError, request_error
from llcuda_protocol import ErrorCode


def test_every_code_of_the_protocol_has_its_class() -> None:
    assert set(REQUEST_ERRORS) == {code.value for code in ErrorCode}


@pytest.mark.parametrize("code", sorted(REQUEST_ERRORS))
def test_an_error_made_from_a_code_is_of_its_class_and_keeps_the_code(code: str) -> None:
    error = request_error(code, "why", retry=True, retry_after=2.0)
    assert type(error) is REQUEST_ERRORS[code]
    assert (error.code, error.message, error.retry, error.retry_after) == (code, "why", True, 2.0)
    assert code in repr(error)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.code, again.retry) == (type(error), code, True)
    if type(error) is not ConnectionRejected:
        assert type(error)("why").code == code


def test_a_code_of_a_newer_server_is_kept() -> None:
    error = request_error("from_tomorrow", "why")
    assert type(error) is RequestError
    assert error.code == "from_tomorrow"


def test_users_write_the_class_of_the_package() -> None:
    with pytest.raises(llcuda_net.Overloaded):
        raise request_error("overloaded", "busy")
    with pytest.raises(llcuda_net.UpstreamError):
        raise request_error("upstream_stalled", "silent")
