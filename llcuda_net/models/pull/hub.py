"""Hugging Face, through its own library: what a repository holds, and the bytes of its files.

The library brings tokens, HF_ENDPOINT, proxies, retries and redirects. But when it is interrupted
it removes what it has of a file, and it compares sizes, not checksums. So where a file goes, how it
goes on and whether its bytes are right is decided here. Files come over HTTP, which can go on at
any byte.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from llcuda_net.errors import MissingExtra, PullError
from llcuda_net.models.pull.staging import Part, Report, size_text

_DEFAULT_ENDPOINT = "https://huggingface.co"
#: Seconds for an answer about a repository.
_TIMEOUT = 30.0
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Listing:
    """What a repository holds.

    Attributes:
        commit: what the revision means now: it never changes.
        license: as the repository states it; empty where it does not.
        files: by path.
    """

    commit: str
    license: str
    files: dict[str, Part]


class Hub:
    """The server of Hugging Face's API, as the environment names it.

    Raises:
        MissingExtra: the library is not installed.
    """

    def __init__(self) -> None:
        self.endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or _DEFAULT_ENDPOINT
        try:
            import huggingface_hub
            from huggingface_hub import file_download, utils
        except ImportError as error:
            raise MissingExtra(
                f"models of Hugging Face need its library ({error}): pip install 'llcuda-net[hub]'"
            ) from None
        self._library: Any = huggingface_hub
        self._transfer: Any = file_download
        self._utils: Any = utils
        # Its versions 1.x use httpx, those from 2 on httpx2.
        client = getattr(self._transfer, "httpx2", None) or self._transfer.httpx
        self._http_error: type[Exception] = client.HTTPError
        self._utils.disable_progress_bars()
        self._utils.logging.set_verbosity_error()  # what matters is raised, and said by us
        # By itself 10 MB: on a slow line, progress every ten seconds, and as much lost at the end.
        self._transfer.constants.DOWNLOAD_CHUNK_SIZE = _CHUNK

    def __repr__(self) -> str:
        return f"<Hub {self.endpoint}>"

    def close(self) -> None:
        """Close the library's connections."""
        self._utils.close_session()

    def listing(self, repository: str, revision: str | None) -> Listing:
        """What is in a repository.

        Raises:
            PullError: there is none, we may not see it, or the server cannot be asked.
        """
        with self._errors(repository, revision):
            found = self._library.HfApi(endpoint=self.endpoint).model_info(
                repository, revision=revision, files_metadata=True, timeout=_TIMEOUT
            )
        files = {}
        for file in found.siblings or []:
            if file.lfs is not None:
                files[file.rfilename] = Part(
                    file.rfilename, int(file.lfs.size), f"sha256:{file.lfs.sha256}"
                )
            elif file.size is not None and file.blob_id:
                files[file.rfilename] = Part(file.rfilename, int(file.size), f"git:{file.blob_id}")
        if not found.sha:
            raise PullError(f"{self.endpoint} did not say which commit {repository} is at")
        return Listing(str(found.sha), _license(found), files)

    def download(self, repository: str, commit: str, part: Part, to: Path, report: Report) -> None:
        """Get a file, from where `to` ends; when it is whole, its bytes are checked.

        Where bytes are wrong that an earlier pull had got, it begins anew, once.

        Raises:
            PullError: the connection is lost, and `to` holds what had come; or the bytes are wrong,
                and it is gone; or we may not have it.
            OSError: the disk refuses.
        """
        most = self._transfer.constants.MAX_HTTP_DOWNLOAD_SIZE
        before = to.stat().st_size if to.exists() else 0
        if part.size > most and before < part.size:
            raise PullError(
                f"{part.origin} has {size_text(part.size)}, and over HTTP Hugging Face sends at"
                f" most {size_text(most)}: `hf download {repository} {part.origin} --local-dir"
                " DIR` gets it"
            )
        if before > part.size:
            to.unlink()
            before = 0
        self._get(repository, commit, part, to, report)
        if _checksum(to, part, report) == part.checksum:
            return
        to.unlink()
        if before:
            self.download(repository, commit, part, to, report)
            return
        raise PullError(
            f"the bytes of {part.origin} that {self.endpoint} sent are not those that {repository}"
            f" has ({part.checksum}): they were removed; try again"
        )

    def copy(self, repository: str, commit: str, part: Part, to: Path) -> None:
        """Take a file from the library's cache, if it is there: linked where that is possible."""
        cached = self._library.try_to_load_from_cache(repository, part.origin, revision=commit)
        if isinstance(cached, str):
            path = Path(cached).resolve()
            # One that has another size would be written to: that must not be the cache's own.
            with contextlib.suppress(OSError):
                if path.stat().st_size == part.size:
                    try:
                        to.hardlink_to(path)
                    except OSError:
                        shutil.copyfile(path, to)

    def _get(self, repository: str, commit: str, part: Part, to: Path, report: Report) -> None:
        headers = self._utils.build_hf_headers()
        headers["Accept-Encoding"] = "identity"
        url = self._library.hf_hub_url(
            repository, part.origin, revision=commit, endpoint=self.endpoint
        )
        to.touch()
        with self._errors(repository, None, part, to), to.open("r+b") as file:
            have = file.seek(0, os.SEEK_END)
            report(part.name, have, part.size)
            self._transfer.http_get(
                url,
                _Counted(file, part, report),
                resume_size=have,
                headers=headers,
                expected_size=part.size,
            )

    @contextlib.contextmanager
    def _errors(
        self,
        repository: str,
        revision: str | None,
        part: Part | None = None,
        to: Path | None = None,
    ) -> Iterator[None]:
        """Say in one line what the library raises."""
        errors = self._library.errors
        try:
            yield
        except errors.GatedRepoError:
            raise PullError(self._gated(repository)) from None
        except errors.RevisionNotFoundError:
            raise PullError(f"{repository} has no revision {revision}") from None
        except errors.RepositoryNotFoundError:
            hint = "is it written so? If it is private, set HF_TOKEN to a token that may read it"
            raise PullError(f"{self.endpoint} shows no repository {repository}: {hint}") from None
        except errors.EntryNotFoundError:
            raise PullError(f"{repository} has no {part.origin if part else 'such file'}") from None
        except errors.HfHubHTTPError as error:
            raise PullError(self._refused(repository, error)) from None
        except errors.OfflineModeIsEnabled:
            raise PullError("HF_HUB_OFFLINE is set: nothing is pulled") from None
        except self._http_error as error:
            raise PullError(self._lost(error, part, to)) from None
        except ValueError as error:
            # Of a name that cannot be one, and of what HTTP does not have: files above 50 GB.
            raise PullError(f"{repository} cannot be pulled: {_one_line(error)}") from None
        except OSError as error:
            if error.errno is not None:  # the disk
                raise
            raise PullError(self._lost(error, part, to)) from None

    def _gated(self, repository: str) -> str:
        page = f"{self.endpoint}/{repository}"
        if self._library.get_token():
            return f"{repository} is gated, and your token has no access: ask for it on {page}"
        return f"{repository} is gated: accept its terms on {page}, then set HF_TOKEN to your token"

    def _refused(self, repository: str, error: Any) -> str:
        status = error.response.status_code if error.response is not None else 0
        if status == 401:
            return f"{self.endpoint} does not take your token: set HF_TOKEN to one that is valid"
        if status == 403:
            return f"your token may not read {repository}: give it that right, or use another one"
        if status == 429:
            return f"{self.endpoint} has had too many requests: try again later, or set HF_TOKEN"
        said = _one_line(getattr(error, "server_message", None) or "")
        return f"{self.endpoint} answered {status} for {repository}{': ' + said if said else ''}"

    def _lost(self, error: Exception, part: Part | None, to: Path | None) -> str:
        if part is None or to is None or not to.exists() or not to.stat().st_size:
            return f"{self.endpoint} cannot be asked: {_one_line(error)}"
        have = f"{size_text(to.stat().st_size)} of {size_text(part.size)}"
        return (
            f"the connection was lost at {have} of {part.name} ({_one_line(error)}):"
            " pull again, and it goes on there"
        )


class _Counted:
    """The file that the library writes to; it reports what is there."""

    def __init__(self, file: BinaryIO, part: Part, report: Report) -> None:
        self._file = file
        self._part = part
        self._report = report
        self.seek, self.truncate, self.tell = file.seek, file.truncate, file.tell

    def write(self, data: bytes) -> int:
        written = self._file.write(data)
        self._report(self._part.name, self._file.tell(), self._part.size)
        return written


def _checksum(path: Path, part: Part, report: Report) -> str:
    """The checksum of a file, in the form of the part's."""
    kind = part.checksum.partition(":")[0]
    size = path.stat().st_size
    digest = hashlib.sha256() if kind == "sha256" else hashlib.sha1(usedforsecurity=False)
    if kind == "git":
        digest.update(b"blob %d\0" % size)
    done = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            report(f"checking {part.name}", done, size)
    return f"{kind}:{digest.hexdigest()}"


def _license(found: Any) -> str:
    said = getattr(found.card_data, "license", None) if found.card_data else None
    if isinstance(said, str) and said:
        return _one_line(said)[:80]
    for tag in found.tags or []:
        if tag.startswith("license:"):
            return str(tag[8:])[:80]
    return ""


def _one_line(what: object) -> str:
    text = " ".join(str(what).split())
    return text if len(text) <= 200 else f"{text[:199]}…"
