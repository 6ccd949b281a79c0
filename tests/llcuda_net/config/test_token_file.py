"""The token file: what it may say, whom a token lets in, and what errors never show."""

from __future__ import annotations

import hmac
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llcuda_net.config import token_file
from llcuda_net.config.token_file import Users, hash_of
from llcuda_net.config.users import ANONYMOUS, Priority, User, forwarded
from llcuda_net.errors import ConfigError

SECRET = "s3cr3t-0f-4nn"


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        Users.parse(text, "tokens.txt")
    message = str(caught.value)
    assert "\n" not in message
    assert SECRET not in message
    return message


def test_a_bare_token_is_the_user_without_a_name() -> None:
    known = Users.parse("# ours\n\n  one  \ntwo # of the printer\r\n#three\n")
    assert known.find("one") == known.find("two") == User()
    for other in (None, "", "one ", "On", "three", "#", "of", "\ud800"):
        assert known.find(other) is None


def test_everything_that_a_line_may_say() -> None:
    known = Users.parse(
        "t name=ann@example.org weight=2.5 priority=low concurrent=3 queued=0"
        " tokens_per_minute=1000 files=1.5GB role=admin\n"
    )
    wanted = User("ann@example.org", 2.5, True, Priority.LOW, 3, 0, 1000.0, 1_500_000_000)
    assert known.find("t") == wanted


def test_without_a_file_everybody_is_the_anonymous_user() -> None:
    everybody = Users()
    assert everybody.find(None) is everybody.find("anything") is ANONYMOUS
    assert everybody.named("") is ANONYMOUS
    assert not everybody.named("ann").admin


def test_a_user_may_have_several_tokens() -> None:
    known = Users.parse(
        "a name=ann\nb name=ann weight=2 queued=7\nc name=bob\nd name=ann weight=2.0 queued=7\ne\n"
    )
    ann = User("ann", weight=2, max_queued=7)
    assert [known.find(token) for token in "abcde"] == [ann, ann, User("bob"), ann, User()]
    assert (known.named("ann"), known.named("")) == (ann, User())
    assert known.named("gone") == User("gone")


@pytest.mark.parametrize("one", ["weight=2", "priority=normal", "concurrent=2", "queued=2"])
def test_two_lines_of_a_user_do_not_contradict_each_other(one: str) -> None:
    message = refusal(f"{SECRET} name=ann {one}\nb name=ann\nother name=ann tokens_per_minute=2\n")
    key = one.partition("=")[0]
    assert message == (
        f"tokens.txt, line 3: {key}: the user 'ann' has another one in line 1; "
        "give limits in one of them"
    )


@pytest.mark.parametrize("name", ["name=ann", ""])
def test_a_role_is_never_taken_over(name: str) -> None:
    message = refusal(f"{SECRET} {name} role=admin\nb {name}\n")
    assert message.startswith("tokens.txt, line 2: role: the user ")
    assert refusal(f"b {name}\n{SECRET} {name} role=admin\n").startswith("tokens.txt, line 2: role")
    assert Users.parse(f"a {name} role=admin\nb {name} role=admin").find("b") is not None


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("weight=0", "weight must be a number above 0"),
        ("weight=-1", "weight must be"),
        ("weight=nan", "weight must be"),
        ("weight=inf", "weight must be"),
        ("weight=1e3", "weight must be"),
        ("weight=1_0", "weight must be"),
        ("weight=\N{ARABIC-INDIC DIGIT ONE}", "weight must be"),
        ("weight=", "weight must be"),
        ("weight=0.0000000001", "weight must be"),
        ("tokens_per_minute=0", "tokens_per_minute must be"),
        ("files=many", "files must be a size"),
        ("concurrent=0", "concurrent must be a whole number from 1 on"),
        ("concurrent=1.5", "concurrent must be"),
        ("queued=-1", "queued must be a whole number from 0 on"),
        ("priority=urgent", "priority must be high or normal or low"),
        ("priority=HIGH", "priority must be"),
        ("role=root", "role must be user or admin"),
        ("name=", "name must be 1 to 64"),
        ("name=a/b", "name must be"),
        ("name=\N{LATIN SMALL LETTER E WITH ACUTE}", "name must be"),
        ("name=" + "a" * 65, "name must be"),
        ("name=ann name=ann", "name stands there twice"),
        ("name=ann ann", "word 2 after the token is no KEY=VALUE"),
        ("nome=ann", "word 1 after the token is no KEY=VALUE; keys are name, weight, priority"),
        ("= ", "word 1 after the token"),
        (f"{SECRET}=x", "word 1 after the token"),
    ],
)
def test_what_is_wrong_is_named_by_line_and_key(line: str, says: str) -> None:
    message = refusal(f"# tokens\nfine\n{SECRET} {line}\n")
    assert message.startswith(f"tokens.txt, line 3: {says}")


def test_a_line_without_its_token_makes_no_token_of_a_key() -> None:
    assert refusal("name=ann weight=2\n").endswith(
        "line 1: begins with a key; the token comes first"
    )
    assert Users.parse("Zm9v=\nmy=token").find("my=token") is not None


def test_a_token_is_one_users() -> None:
    message = refusal(f"{SECRET} name=ann\nb\n{SECRET} name=bob\n")
    assert message == "tokens.txt, line 3: has the token of line 1"


@pytest.mark.parametrize("text", ["", "\n\n", "# none\n  # at all"])
def test_a_file_without_a_token_lets_nobody_in_and_not_everybody(text: str) -> None:
    assert refusal(text) == "tokens.txt holds no token; one a line"


def test_a_file_that_is_read_again() -> None:
    known = Users.parse("a name=ann\nb name=bob\n")
    known.reload("a name=ann weight=3\nc name=cid\n")
    assert known.find("a") == User("ann", weight=3)
    assert known.find("b") is None
    for broken in ("a name=ann weight=x", ""):
        with pytest.raises(ConfigError):
            known.reload(broken)
    assert known.find("c") == User("cid")


def test_every_token_is_compared_whichever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return hmac.compare_digest(one, other)

    class Noting:
        compare_digest = staticmethod(compare)

    known = Users.parse("first\nanother-one\nc\n")
    monkeypatch.setattr(token_file, "hmac", Noting)
    counts = []
    for token in ("first", "c", "wrong", None, "x" * 4000):
        compared.clear()
        known.find(token)
        counts.append(list(compared))
    assert all(count == counts[0] for count in counts)
    assert len(counts[0]) == 3


# -- any file --------------------------------------------------------------------------------------

TOKENS = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FF, categories=("L", "N", "P", "S")),
    min_size=1,
    max_size=30,
).filter(lambda token: not token.startswith("#") and not re.match(r"[a-z_]+=", token))
NUMBERS = st.integers(0, 999_999_999)
DECIMALS = st.decimals("0.01", 999_999, places=2).map(float)
LIMITS = st.fixed_dictionaries(
    {},
    optional={
        "weight": DECIMALS,
        "priority": st.sampled_from(Priority),
        "max_running": NUMBERS.map(lambda n: n + (n == 0)),
        "max_queued": NUMBERS,
        "tokens_per_minute": DECIMALS,
        "max_file_bytes": NUMBERS,
    },
)
NAMES = st.from_regex(r"[A-Za-z0-9._@-]{1,64}", fullmatch=True) | st.just("")
KEYS = {"max_running": "concurrent", "max_queued": "queued", "max_file_bytes": "files"}


def line_of(token: str, user: User, limits: dict[str, Any]) -> str:
    words = [f"name={user.name}"] * bool(user.name) + ["role=admin"] * user.admin
    for field, value in limits.items():
        shown = value.name.lower() if isinstance(value, Priority) else value
        words.append(f"{KEYS.get(field, field)}={shown}")
    return " ".join([token, *words])


@settings(deadline=None)
@given(
    st.dictionaries(
        NAMES,
        st.tuples(LIMITS, st.booleans(), st.lists(st.booleans(), min_size=1, max_size=3)),
        min_size=1,
        max_size=5,
    ),
    st.data(),
)
def test_what_is_written_is_what_is_read(
    people: dict[str, tuple[dict[str, Any], bool, list[bool]]], data: st.DataObject
) -> None:
    count = sum(len(said) for _, _, said in people.values())
    tokens = data.draw(st.lists(TOKENS, min_size=count, max_size=count, unique=True))
    lines, wanted = [], {}
    for name, (limits, admin, said) in people.items():
        user = User(name, admin=admin, **limits)
        for number, again in enumerate(said):
            token = tokens.pop()
            # In the first of its lines or in several: that is the same.
            lines.append(line_of(token, user, limits if again or not number else {}))
            wanted[token] = user
    known = Users.parse("\n".join(data.draw(st.permutations(lines))))
    assert {token: known.find(token) for token in wanted} == wanted


WORDS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["name=ann", "name=", "weight=1", "weight=x", "role=admin", "#", "=", "queued=2"]
    ),
)


@settings(deadline=None)
@given(st.lists(st.lists(WORDS, max_size=5).map(" ".join), max_size=6).map("\n".join))
def test_any_text_is_users_or_one_line_that_shows_none_of_it(text: str) -> None:
    secret = "QQ" + "0123456789"
    text = text.replace("\n", f"\n{secret} ")
    message = "f holds no token"
    try:
        Users.parse(text, "f")
    except ConfigError as error:
        message = str(error)
    assert "\n" not in message
    assert secret not in message
    assert re.match(r"f, line [0-9]+: |f holds no token", message)


def test_tokens_that_somebody_may_guess_are_named_by_their_lines() -> None:
    long = "0123456789abcdef"
    known = Users.parse(f"# ours\n{long} name=ann\nshort name=bob\n{long[:-1]}\n")
    assert known.short == (3, 4)
    known.reload(f"{long}\n")
    assert not known.short
    assert not Users().short


def test_forwarding_belongs_to_a_token_and_gives_users_with_its_limits() -> None:
    users = Users.parse("a name=web concurrent=2 role=admin\nb name=web role=admin forwards=1\n")
    first, second = users.find("a"), users.find("b")
    assert first is not None
    assert second is not None
    assert (first.forwards, second.forwards) == (False, True)
    assert first.max_running == second.max_running == 2
    one = forwarded(second, "4f3c")
    assert one == User("web/4f3c", max_running=2)
    # So a generation of theirs has the same limits after a restart.
    assert users.named("web/4f3c") == one
    assert users.named("gone/4f3c") == User("gone/4f3c")
    with pytest.raises(ConfigError, match="forwards must be 0 or 1"):
        Users.parse("a forwards=yes")


def test_a_user_is_bound_to_a_token_as_long_as_that_is_theirs() -> None:
    users = Users.parse("a name=ann\nb name=ann role=user\nc name=bob\n")

    def bound(name: str, token: str) -> User | None:
        return users.bound(name, lambda known: known == hash_of(token))

    assert bound("ann", "a") == bound("ann", "b") == User("ann")
    assert bound("ann", "c") is None
    assert bound("cid", "a") is None
    users.reload("a name=bob\nb name=ann role=admin\n")
    assert bound("ann", "a") is None
    assert bound("ann", "b") == User("ann", admin=True)
    assert Users().bound("", lambda _: True) is None
