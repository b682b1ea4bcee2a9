"""CIFAR-10's official archive, downloaded in pieces that survive an interruption."""

import http.client
import shutil
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from robust_flatness.data.cifar10 import ALTERNATIVES, ARCHIVED, md5, official_digests
from robust_flatness.errors import FileError
from robust_flatness.files import atomic_path, naming, require_space

#: Bytes that the archive and the files in it need.
NEEDED = 360_000_000
CHUNK = 1 << 20
TIMEOUT = 30
ATTEMPTS = 5
Report = Callable[[str], None]


def download_cifar10(folder: Path, report: Report = print) -> None:
    """The official files in `folder`, checked by their MD5; torchvision says where the archive is.

    An interrupted download goes on where it stopped: what has come is kept in `folder/.download`. Files
    that are there and right are left as they are.

    Raises
    ------
    FileError
        If the archive cannot be fetched, with the alternatives; if it is not the official one; if there
        is not enough space on the disk.
    """
    from torchvision.datasets import CIFAR10

    folder = Path(folder)
    digests = official_digests()
    if all((folder / name).exists() and md5(folder / name) == digest for name, digest in digests.items()):
        report(f"{folder}: all files are there")
        return
    archive = folder / ".download" / CIFAR10.filename
    archive.parent.mkdir(parents=True, exist_ok=True)
    require_space(folder, NEEDED, "CIFAR-10")
    _fetch(CIFAR10.url, archive, report)
    if (found := md5(archive)) != CIFAR10.tgz_md5:
        archive.unlink()
        raise FileError(
            f"{CIFAR10.url}: truncated or altered, its MD5 is {found} instead of {CIFAR10.tgz_md5}; "
            f"it was deleted, the next run downloads it again. Or {ALTERNATIVES}"
        )
    _unpack(archive, folder, digests)
    shutil.rmtree(archive.parent)


def _fetch(url: str, path: Path, report: Report) -> None:
    """Append to `path` until it is as long as the server says."""
    for attempt in range(ATTEMPTS):
        start = path.stat().st_size if path.exists() else 0
        try:
            if _append(url, path, start):
                return
        except (OSError, http.client.HTTPException) as error:
            came = (path.stat().st_size if path.exists() else 0) > start
            if attempt == ATTEMPTS - 1 or not came:
                reason = getattr(error, "reason", None) or error
                raise FileError(
                    f"{url}: cannot be downloaded ({reason}); what has come is kept, and the next run goes "
                    f"on from there. Or {ALTERNATIVES}"
                ) from None
            report(f"{url}: interrupted ({error}); going on")


def _append(url: str, path: Path, start: int) -> bool:
    """Fetch what lies beyond byte `start`; whether the file is whole."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if start and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return True
        raise
    with answer, open(path, "ab" if answer.status == http.HTTPStatus.PARTIAL_CONTENT else "wb") as file:
        expected = int(answer.headers.get("Content-Length") or 0)
        came = 0
        while piece := answer.read(CHUNK):
            with naming(path):
                file.write(piece)
            came += len(piece)
    if came < expected:
        raise http.client.IncompleteRead(b"", expected - came)
    return True


def _unpack(archive: Path, folder: Path, digests: dict[str, str]) -> None:
    """The files of `digests`, and nothing else, from the archive."""
    try:
        with tarfile.open(archive) as tar:
            for name, digest in digests.items():
                content = tar.extractfile(f"{ARCHIVED}/{name}")
                with atomic_path(folder / name) as temporary, open(temporary, "wb") as file:
                    shutil.copyfileobj(content, file)
                if md5(folder / name) != digest:
                    raise FileError(f"{folder / name}: its MD5 is not the official one")
    except (tarfile.TarError, KeyError, EOFError, AttributeError) as error:
        raise FileError(f"{archive}: no archive of CIFAR-10 ({error})") from None
