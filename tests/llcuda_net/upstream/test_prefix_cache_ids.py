"""A prompt of token ids as a text: as wide for each id, whatever the ids are."""

from __future__ import annotations

from llcuda_net.upstream.prefix_cache import text_of, tokens_in
from llcuda_protocol.kinds import MAX_TOKEN_ID


def test_each_id_counts_as_one_token() -> None:
    for ids in ([0] * 400, [MAX_TOKEN_ID] * 400, list(range(400))):
        text = text_of(ids, None)
        assert tokens_in(text) == 401
        assert text_of([*ids, 7], None).startswith(text)
    assert text_of([1, 0], None) != text_of([0, 1], None)
