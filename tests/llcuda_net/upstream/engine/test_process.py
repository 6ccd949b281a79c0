"""One life of the engine's child: what is kept of what it prints, and why it ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from structlog.testing import capture_logs

from llcuda_net.upstream.engine.process import ChildSettings, run_child


async def test_what_a_client_sent_is_not_kept_once_it_serves(
    tiny: Path, stand_in: Callable[[str], None], tmp_path: Path
) -> None:
    serving = tmp_path / "serving"
    code = r"""
        import os
        class Server:
            listening_address = "http://127.0.0.1:1"
            def __init__(self, params):
                os.write(1, b"while it loads\n")
        import threading, time
        def speak():
            while not os.path.exists("SERVING"):
                time.sleep(0.01)
            os.write(2, b"0.00.001.440 E parse: error\nroot ::= s3cret\n")
            os.write(2, b"x.cpp:1: GGML_ASSERT(0) failed\n")
            os._exit(1)
        threading.Thread(target=speak).start()
    """
    stand_in(code.replace("SERVING", str(serving)))
    settings = ChildSettings(str(tiny), "tiny", 64, 1, 1, 0, None, 1, "key")
    end = await run_child(settings, lambda pid: None, lambda url: serving.touch())
    assert end.why.endswith("GGML_ASSERT(0) failed")
    # (What it printed while it loaded is kept, too, but may be read after it was ready.)
    kept = ("0.00.001.440 E parse: error", "x.cpp:1: GGML_ASSERT(0) failed")
    assert end.last_lines[-2:] == kept
    assert not any("s3cret" in line for line in end.last_lines)


async def test_a_constraint_that_the_engine_refuses_is_logged_without_its_words(
    stand_in: Callable[[str], None], tiny: Path
) -> None:
    stand_in(r"""
        import os
        class Server:
            def __init__(self, params):
                os.write(2, b"0.01 E llg error: at 2(8): failed to compile JSON schema: s3cret\n")
                os.write(2, b"0.02 E failed to parse grammar\n")
                os.write(2, b"0.03 E srv    send_error: task id = 5, failed to parse grammar\n")
                os.write(2, b"x.cpp:1: GGML_ASSERT(0) failed\n")
                os._exit(1)
    """)
    settings = ChildSettings(str(tiny), "tiny", 64, 1, 1, 0, None, 1, "key")
    with capture_logs() as logs:
        end = await run_child(settings, lambda pid: None, lambda url: None)
    warned = [entry["why"] for entry in logs if entry["event"] == "engine_refused_constraint"]
    assert warned == ["llg error", "failed to parse grammar"]
    assert "s3cret" not in repr(logs) + repr(end)


async def test_layers_for_a_gpu_that_is_not_there_are_refused(
    stand_in: Callable[[str], None], tiny: Path
) -> None:
    stand_in("""
        ggml_backend_dev_type = SimpleNamespace(GGML_BACKEND_DEVICE_TYPE_CPU=0)
        def get_device_info():
            return [{"type": 0}]
        class Server:
            def __init__(self, params):
                raise ValueError("it was loaded")
    """)
    for layers, why in (
        (5, "--gpu-layers 5, and the built-in engine finds no GPU"),
        (0, "it was loaded"),
    ):
        settings = ChildSettings(str(tiny), "tiny", 64, 1, 1, layers, None, 1, "key")
        end = await run_child(settings, lambda pid: None, lambda url: None)
        assert why in end.why
        assert not end.unusable
