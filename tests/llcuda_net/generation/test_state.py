"""Where the time of a generation went, and how likely its tokens were."""

from __future__ import annotations

import msgspec
import pytest

from llcuda_net.generation.state import Times, packed_token
from llcuda_net.storage.records import Appended, TokenLog, encode, packed
from llcuda_net.upstream.interface import CompletionEvent
from llcuda_protocol import TokenLogprob, Tokens, TopToken
from llcuda_protocol.frames import decode, encode_tokens


def test_the_phases_of_a_request_that_never_ran() -> None:
    times = Times(received=1.0)
    assert times.phases(3.5, 0.0) == {"total": 2500.0}
    times = Times(1.0, dispatched=2.0, rendered=2.5, sent=3.0, first_token=4.0)
    assert times.phases(6.0, 0.0) == {
        "queue": 1000.0,
        "template": 500.0,
        "connect": 500.0,
        "first_token": 1000.0,
        "total": 5000.0,
    }


def test_a_null_of_the_upstream_is_a_nil_on_the_wire() -> None:
    """It was -744.44 there: as improbable as a double can say."""
    text = (
        b'{"content":"a","completion_probabilities":[{"id":1,"bytes":[97],"logprob":null,'
        b'"top_logprobs":[{"id":1,"bytes":[97],"logprob":null},{"id":2,"logprob":-2.5}]}]}'
    )
    (found,) = msgspec.json.decode(text, type=CompletionEvent).completion_probabilities or []
    piece = packed([packed_token(found, 5)])
    frame = encode_tokens(Tokens(1, 0, ["a"]), [piece])
    read = decode(frame[4:])
    assert isinstance(read, Tokens)
    top = (TopToken(1, b"a", None), TopToken(2, b"", -2.5))
    assert read.logprobs == [[TokenLogprob(1, b"a", None, top)]]
    # The same bytes are in the journal and in the store.
    log = TokenLog(["a"], [1], [piece])
    assert bytes(memoryview(piece)) in frame
    assert bytes(memoryview(piece)) in encode(Appended(1, 0, log.pieces, log.ids, log.logprobs))
    assert bytes(memoryview(piece)) in encode(log)


@pytest.mark.parametrize("wrong", ["1e39", "-1e300", '"x"'])
def test_what_is_no_logarithm_of_a_probability_is_refused(wrong: str) -> None:
    text = f'{{"completion_probabilities":[{{"id":1,"logprob":{wrong}}}]}}'
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=CompletionEvent)
