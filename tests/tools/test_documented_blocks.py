"""Blocks of commands are found with what stands before them, and run as a script."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tools.check_fresh_debian import commands_of_readme, pip_settings
from tools.documented.blocks import Block, blocks
from tools.documented.shell import script

_PAGE = """# A page

```sh
echo one
```

<!-- not run: it is an example -->
```sh
echo two \\
    and more
```

- in a list:

  <!-- run by: tests/test_docs.py -->
  ```sh
  echo three
  ```

<!-- run: alone -->
```console
$ echo four
four
$ echo five
```

```python
print("no commands")
```
"""


def test_blocks_of_a_page(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(_PAGE)
    found = blocks(tmp_path, "page.md")
    assert found[0] == Block("page.md", 4, "echo one\n", "", "")
    assert found[1] == Block(
        "page.md", 9, "echo two \\\n    and more\n", "not run", "it is an example"
    )
    assert found[2].code.strip() == "echo three"
    assert found[2][3:] == ("run by", "tests/test_docs.py")
    assert found[3] == Block("page.md", 22, "echo four\necho five\n", "run", "alone")
    assert len(found) == 4


def test_a_server_in_another_terminal(tmp_path: Path) -> None:
    """It goes to the background; the next command waits for it; it ends with the script."""
    stand_in = tmp_path / "llcuda"
    stand_in.write_text(
        '#!/bin/sh\n[ "$1" = serve ] || { echo "asked: $*"; exit; }\n'
        "sleep 0.1\necho listening on 127.0.0.1:9000\necho $$ >> pids\nexec sleep 600\n"
    )
    stand_in.chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", script("llcuda serve --slots 2\nllcuda ask it\nllcuda serve\n")],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    said = ["listening on 127.0.0.1:9000", "asked: ask it", "listening on 127.0.0.1:9000"]
    assert done.stdout.splitlines() == said
    pids = [int(line) for line in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_what_a_fresh_debian_runs() -> None:
    root, user = commands_of_readme()
    assert ["apt " in block.code for block in root] == [True]
    code = "".join(block.code for block in user)
    assert all(word in code for word in ("make demo", "llcuda serve", 'llcuda ask "'))


def test_settings_of_pip_are_words_without_quotes() -> None:
    for name, value in pip_settings().items():
        assert name
        assert "'" not in value
