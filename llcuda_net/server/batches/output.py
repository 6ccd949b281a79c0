"""What a batch gives: a line for each request, in the order of its input.

{"id": …, "custom_id": …, "response": {"status_code", "request_id", "body"}, "error": null}
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from llcuda_net.server.batches.ask import Answer
from llcuda_net.server.batches.owned import OwnedObjects
from llcuda_net.server.objects import AT_ONCE, FileWriter
from llcuda_net.storage.objects import batches, files
from llcuda_net.storage.objects.batches import Batch, Line, Outcome
from llcuda_net.storage.objects.interface import Database
from llcuda_net.util.time_ids import uuid7

PURPOSE = "batch_output"
#: Lines that are given their end at once.
_STEP = 500
_WHY = {
    batches.EXPIRED: "this request was not over when the completion window was",
    batches.CANCELLED: "the batch was cancelled before this request was over",
}


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


class _Answered(msgspec.Struct):
    usage: _Usage | None = None


def outcome_of(batch: Batch, line: Line, answer: Answer) -> Outcome:
    """What came of a line that was answered."""
    body = answer.body
    if b"\n" in body:  # it would end the line
        body = msgspec.json.encode(msgspec.json.decode(body))
    response = {
        "status_code": answer.status,
        "request_id": answer.request_id,
        "body": msgspec.Raw(body),
    }
    usage = _usage(body)
    return Outcome(
        line.number,
        answer.status >= 400,
        _encoded(batch, line, response, None),
        usage.prompt_tokens + usage.input_tokens,
        usage.completion_tokens + usage.output_tokens,
    )


def failure_of(batch: Batch, line: Line, code: str, message: str) -> Outcome:
    """What came of a line that was not answered."""
    error = {"code": code, "message": message}
    return Outcome(line.number, True, _encoded(batch, line, None, error))


def _usage(body: bytes) -> _Usage:
    try:
        return msgspec.json.decode(body, type=_Answered).usage or _Usage()
    except msgspec.MsgspecError:
        return _Usage()


def _encoded(batch: Batch, line: Line, response: object, error: object) -> bytes:
    named = {
        "id": f"{batch.id.replace('batch_', 'batch_req_', 1)}_{line.number + 1}",
        "custom_id": line.custom_id,
        "response": response,
        "error": error,
    }
    return msgspec.json.encode(named) + b"\n"


async def give_up(objects: OwnedObjects, batch: Batch, over: Callable[[int, int], None]) -> None:
    """Lines that are not over end now, for the reason for which the batch does.

    Args:
        over: told how many have completed, none, and how many have failed.

    Raises:
        RequestError: the store refuses.
    """
    if batch.ends == batches.FAILED:
        code, why = (str(batch.details.errors[0][name]) for name in ("code", "message"))
    else:
        code, why = f"batch_{batch.ends}", _WHY[batch.ends]

    def step(db: Database) -> int:
        left = batches.missing(db, batch.seq, 0, _STEP)
        batches.record(db, batch.seq, [failure_of(batch, line, code, why) for line in left])
        return len(left)

    count = _STEP
    while count == _STEP:
        count = await objects.write(step)
        over(0, count)


async def write_files(
    objects: OwnedObjects, batch: Batch, begun: list[int], now: Callable[[], int] = time.time_ns
) -> Batch:
    """Write the files of a batch of which all lines are over, and end it.

    Args:
        begun: the numbers of files that an attempt before has begun; then of those of this one.

    Raises:
        RequestError: the store refuses; what was written is no file, and the next attempt removes
            it.
    """
    if begun:

        def discard(db: Database) -> None:
            for seq in begun:
                files.discard(db, seq)

        await objects.write(discard)
        begun.clear()
        objects.wake()
    writers: dict[bool, FileWriter] = {}
    ids: dict[bool, str] = {}
    first = 0
    while True:
        at = first
        found = await objects.read(lambda db: batches.outcomes(db, batch.seq, at, AT_ONCE))  # noqa: B023
        for one in found:
            if one.failed not in writers:
                id_ = ids[one.failed] = f"file-{uuid7().replace('-', '')}"
                seq = await objects.write(lambda db: files.begin(db, id_, batch.owner, now()))  # noqa: B023
                begun.append(seq)
                writers[one.failed] = FileWriter(objects, seq)
            await writers[one.failed].add(one.data or await _damaged(objects, batch, one.number))
        if not found:
            break
        first = found[-1].number + 1
    for writer in writers.values():
        await writer.flush()

    def finish(db: Database) -> Batch:
        life = batch.details.output_life
        for failed, writer in writers.items():
            what = "error" if failed else "output"
            files.finish(
                db,
                writer.seq,
                purpose=PURPOSE,
                name=f"{batch.id}_{what}.jsonl",
                expires=None if life is None else now() + life,
            )
        return batches.finish(db, batch.seq, ids.get(False), ids.get(True), now())

    return await objects.write(finish)


async def _damaged(objects: OwnedObjects, batch: Batch, number: int) -> bytes:
    line = await objects.read(lambda db: batches.line(db, batch.seq, number))
    why = "what came of this request was damaged in the store"
    return failure_of(batch, line, "damaged", why).data
