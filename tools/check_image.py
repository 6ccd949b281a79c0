#!/usr/bin/env python3
"""Builds the container image of deploy/Dockerfile, runs it as it is meant to be run, and checks.

The image of Debian that it begins with is made by debootstrap, so that no image registry is needed:
what follows is the Dockerfile as it is. podman, buildah, runc and debootstrap are installed where
that can be done without asking (as root on Debian).

The container runs as uid 10001 without a home, on a read-only root, without capabilities, with 512
MB. It answers; it is killed in the middle of an answer, and the stream goes on; a container of
another image takes its place, as in an upgrade, and has what was stored; it is stopped, and ends
with 0. Then it runs as deploy/kubernetes runs it, on a volume that is its group's. Whatever does
not hold ends this with one line and exit code 1.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.request
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that the script runs from anywhere

import llcuda_net.sync
from llcuda_net.cli.common import Exit, Parser, fail, run_command
from llcuda_net.util.terminal import echo

PROG = "check_image"
PACKAGES = ("podman", "buildah", "runc", "debootstrap")
MIRROR = "http://deb.debian.org/debian"
BASE, IMAGE, NEXT = "localhost/llcuda-base", "localhost/llcuda:check", "localhost/llcuda:next"
NAME = "llcuda-check"
UID = 10001
QUESTION = "What is a slot?"
#: Candidates for each token slow the tiny model down enough to be killed in the middle.
CANDIDATES, KILL_AFTER = 1000, 8
#: Seconds: to build, and for anything else.
_BUILD, _PATIENCE = 3600.0, 120.0


class Podman:
    """podman with the settings that also a machine without systemd has."""

    def __init__(self, folder: Path) -> None:
        settings = folder / "containers.conf"
        # Its own limits are above those of some machines, which do not let them be raised.
        limits = '["nofile=1024:1024", "nproc=1024:1024"]'
        settings.write_text(f"[containers]\ndefault_ulimits = {limits}\n")
        self._environment = {**os.environ, "CONTAINERS_CONF": str(settings)}
        self.command = ("podman", "--runtime", "runc")

    def __call__(self, *arguments: str, timeout: float = _PATIENCE, check: bool = True) -> str:
        """Run it; what it prints on stdout."""
        done = subprocess.run(
            [*self.command, *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check and done.returncode:
            last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            fail(f"podman {arguments[0]}: {''.join(last)}", Exit.REFUSED)
        return done.stdout.strip()


def install() -> None:
    """See to it that the programs are there."""
    missing = [name for name in PACKAGES if shutil.which(name) is None]
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        fail(f"{', '.join(missing)} are missing: on Debian, apt install {' '.join(missing)}")
    say(f"installing {', '.join(missing)}")
    apt = ["apt-get", "install", "--yes", "-qq", "--no-install-recommends", *missing]
    for command in (["apt-get", "update", "-qq"], apt):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def make_base(podman: Podman, release: str, mirror: str) -> None:
    """The image that the Dockerfile begins with, of Debian's packages."""
    if podman("images", "--quiet", f"{BASE}:{release}"):
        return
    say(f"debootstrap {release}")
    with tempfile.TemporaryDirectory(prefix="llcuda-base-") as folder:
        command = ["debootstrap", "--variant=minbase", release, folder, mirror]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=_BUILD)
        archive = subprocess.Popen(["tar", "-C", folder, "-c", "."], stdout=subprocess.PIPE)
        subprocess.run(
            ["podman", "import", "-", f"{BASE}:{release}"],
            stdin=archive.stdout,
            check=True,
            capture_output=True,
        )
        archive.wait()


def build(podman: Podman, release: str, folder: Path) -> None:
    """The image, by the Dockerfile as it is."""
    # pip trusts what this machine trusts: the registry may be reached through a proxy.
    trusted = folder / "pip"
    trusted.mkdir()
    if bundle := ssl.get_default_verify_paths().cafile or os.environ.get("PIP_CERT"):
        shutil.copy(bundle, trusted / "certificates.pem")
        (trusted / "pip.conf").write_text("[global]\ncert = /run/pip/certificates.pem\n")
    say("podman build --file deploy/Dockerfile")
    options = ["--network", "host", "--format", "docker", "--target", "server"]
    options += ["--build-arg", f"BASE={BASE}:{release}", "--volume", f"{trusted}:/run/pip:ro"]
    if (trusted / "pip.conf").exists():
        options += ["--volume", f"{trusted / 'pip.conf'}:/etc/pip.conf:ro"]
    dockerfile = str(ROOT / "deploy/Dockerfile")
    podman("build", *options, "--file", dockerfile, "--tag", IMAGE, str(ROOT), timeout=_BUILD)


class Container:
    """The container, as deploy/compose.yaml runs it."""

    def __init__(self, podman: Podman, folder: Path) -> None:
        self._podman = podman
        self.token = secrets.token_hex(16)
        self._tokens = folder / "tokens"
        self._tokens.write_text(f"{self.token} name=check role=admin\n")
        self._tokens.chmod(0o444)
        self._data = folder / "data"
        self._data.mkdir(mode=0o700)
        os.chown(self._data, UID, UID)
        self.monitoring = ""  # the port, as a pod
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = str(free.getsockname()[1])  # the same after each start

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self._port}"

    def run(self, image: str) -> None:
        """Begin one of an image, on the data of the one before."""
        self._podman("rm", "--force", "--ignore", NAME)
        options = ["--detach", "--name", NAME, "--network", "host", "--read-only"]
        options += ["--memory", "512m", "--cap-drop", "ALL"]
        options += ["--security-opt", "no-new-privileges", "--volume", f"{self._data}:/data"]
        options += ["--volume", f"{self._tokens}:/run/secrets/tokens:ro"]
        listen = ["--host", "127.0.0.1", "--port", self._port]
        say(f"podman run --read-only --memory 512m {image}")
        self._podman("run", *options, image, *listen)
        self._wait()

    def run_as_pod(self, image: str) -> None:
        """Begin one with the settings and the volumes of deploy/kubernetes."""
        self._podman("rm", "--force", "--ignore", NAME)
        volume = self._data.with_name("volume")
        models = volume / "models"
        models.mkdir(parents=True)
        config = ROOT / "deploy/kubernetes/base/llcuda.toml"
        named = tomllib.loads(config.read_text("utf-8"))["model"]
        # As if it had been pulled; a real one is 0.4 GB, and not in every network.
        shutil.copy(ROOT / "llcuda_net/data/demo.gguf", models / f"{named}.gguf")
        for path in (volume, models):
            os.chown(path, 0, UID)  # what fsGroup makes of one
            path.chmod(0o2775)
        os.chown(self._tokens, 0, UID)
        self._tokens.chmod(0o440)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.monitoring = str(free.getsockname()[1])
        options = ["--detach", "--name", NAME, "--network", "host", "--read-only"]
        options += ["--tmpfs", "/tmp", "--memory", "512m", "--cap-drop", "ALL"]
        options += ["--security-opt", "no-new-privileges", "--volume", f"{volume}:/data"]
        options += ["--volume", f"{config}:/etc/llcuda/llcuda.toml:ro"]
        options += ["--volume", f"{self._tokens}:/run/secrets/llcuda/tokens:ro"]
        options += ["--env", "LLCUDA_DATA_DIR=/data/llcuda"]
        options += ["--env", "LLCUDA_AUTH_TOKEN_FILE=/run/secrets/llcuda/tokens"]
        given = ["--config", "/etc/llcuda/llcuda.toml"]  # and ports that are free here
        given += ["--host", "127.0.0.1", "--port", self._port]
        given += ["--metrics-host", "127.0.0.1", "--metrics-port", self.monitoring]
        say(f"podman run {image}, as a pod of deploy/kubernetes")
        self._podman("run", *options, image, *given)
        self._wait()

    def kill(self) -> None:
        """End it with SIGKILL, and start it again."""
        self._podman("kill", "--signal", "KILL", NAME)
        self._podman("wait", NAME)
        self._podman("start", NAME)
        self._wait()

    def stop(self) -> int:
        """End it as an operator does; its exit code."""
        self._podman("stop", "--time", "45", NAME)
        return int(self._podman("inspect", NAME, "--format", "{{.State.ExitCode}}"))

    def inside(self, command: str) -> str:
        """What a shell in it prints."""
        return self._podman("exec", NAME, "sh", "-c", command, check=False)

    def _wait(self) -> None:
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            said = self._podman("logs", "--since", self._since(), NAME)
            for line in said.splitlines():
                if line.startswith("listening on "):
                    return
            if self._podman("inspect", NAME, "--format", "{{.State.Running}}") != "true":
                fail(f"the container ended: {self._last_words()}", Exit.REFUSED)
            time.sleep(0.2)
        fail(f"nothing listens in the container after {_PATIENCE:.0f} s", Exit.REFUSED)

    def _last_words(self) -> str:
        """The end of its log, which is on stderr."""
        words = [*self._podman.command, "logs", "--tail", "5", NAME]
        return subprocess.run(words, capture_output=True, text=True).stderr

    def _since(self) -> str:
        return self._podman(
            "inspect",
            NAME,
            "--format",
            '{{.State.StartedAt.Format "2006-01-02T15:04:05.999999999Z07:00"}}',
        )


def check(podman: Podman, container: Container) -> None:
    """Everything that is promised of the image."""
    about = json.loads(podman("inspect", IMAGE, "--type", "image"))[0]
    demand(about["Config"]["User"] == f"{UID}:{UID}", "the image runs as another user")
    demand(
        bool(about["HealthCheck"] if "HealthCheck" in about else about["Healthcheck"]),
        "no health check",
    )
    say(f"the image has {about['Size'] / 1e6:.0f} MB")
    container.run(IMAGE)
    found = container.inside(
        "for each in cc gcc g++ make cmake pip apt-get; do command -v $each; done"
    )
    demand(set(found.split()) <= {"/usr/bin/apt-get"}, f"there is a compiler or pip: {found}")
    demand(container.inside("id -u") == str(UID), "it does not run as that user")
    demand("ok" not in container.inside("touch /anything && echo ok"), "its root can be written")
    probe = about.get("HealthCheck") or about["Healthcheck"]
    say(f"health check: {' '.join(probe['Test'][1:3])} …")
    with urllib.request.urlopen(f"http://{container.address}/healthz", timeout=_PATIENCE) as answer:
        demand(answer.status == 200, "it is not healthy")
    resume(container)
    podman("tag", IMAGE, NEXT)
    container.run(NEXT)
    with llcuda_net.sync.connect(container.address, token=container.token) as client:
        kept = client.list(10)
        demand(len(kept) == 2, f"{len(kept)} answers of 2 are left after the upgrade")
        with client.attach(kept[0].id) as stream:
            demand("slot" in "".join(stream), "an answer cannot be read after the upgrade")
    code = container.stop()
    demand(code == 0, f"it was stopped, and ended with {code}")
    container.run_as_pod(IMAGE)
    for path in ("healthz", "readyz", "metrics"):
        url = f"http://127.0.0.1:{container.monitoring}/{path}"
        with urllib.request.urlopen(url, timeout=_PATIENCE) as answer:
            demand(answer.status == 200, f"as a pod it does not answer /{path}")
    mode = container.inside("stat --format %a:%u /data/llcuda")
    demand(mode in (f"2700:{UID}", f"700:{UID}"), f"others may read its data: {mode}")
    with llcuda_net.sync.connect(container.address, token=container.token) as client:
        demand(bool(client.complete(QUESTION, n_predict=4).text), "as a pod it does not answer")
    code = container.stop()
    demand(code == 0, f"as a pod it was stopped, and ended with {code}")


def resume(container: Container) -> None:
    """An answer goes on after the container was killed, with the tokens of an undisturbed one."""
    say(f"asking, and killing the container after {KILL_AFTER} tokens")
    notes: list[str] = []
    with llcuda_net.sync.connect(
        container.address, token=container.token, on_note=notes.append, reconnect=_PATIENCE
    ) as client:
        pieces = []
        with client.generate(QUESTION, temperature=0, n_probs=CANDIDATES) as stream:
            for piece in stream:
                pieces.append(piece)
                if len(pieces) == KILL_AFTER:
                    container.kill()
        whole = client.complete(QUESTION, temperature=0).text
    demand("".join(pieces) == whole, "the answer is not the one of an undisturbed server")
    demand(any(note.startswith("resumed") for note in notes), f"it did not resume: {notes}")
    say("it went on: the same answer, token for token")


def demand(holds: bool, otherwise: str) -> None:
    """End with one line where something does not hold."""
    if not holds:
        fail(otherwise, Exit.REFUSED)


def say(text: str) -> None:
    """Print at once what is done."""
    echo(text, flush=True)


def run(release: str, mirror: str, ready: bool) -> int:
    """Build and check; returns the exit code."""
    install()
    with tempfile.TemporaryDirectory(prefix="llcuda-image-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the container's user must come through
        podman = Podman(folder)
        if not ready:
            make_base(podman, release, mirror)
            build(podman, release, folder)
        container = Container(podman, folder)
        try:
            check(podman, container)
        finally:
            podman("rm", "--force", "--ignore", NAME)
    say("the image does what it is meant to do")
    return Exit.OK


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = Parser(
        prog=PROG,
        description=(__doc__ or "").partition("\n\n")[0],
        epilog="example: make test-deploy",
    )
    parser.add_argument("--release", default="bookworm", help="of Debian (bookworm)")
    parser.add_argument("--mirror", default=MIRROR, metavar="URL", help=f"of Debian ({MIRROR})")
    parser.add_argument(
        "--ready", action="store_true", help=f"check {IMAGE} as it was built before"
    )
    arguments = parser.parse_args(argv)
    return run_command(PROG, lambda: run(arguments.release, arguments.mirror, arguments.ready))


if __name__ == "__main__":
    sys.exit(main())
