"""Official archive files: looked for on disk, downloaded where missing, and never used before their hash is checked."""

import dataclasses
import gzip
import hashlib
import importlib
import os
import pathlib
import zlib
from types import ModuleType

from deform_jax import checks

FOLDER_VARIABLE = "DEFORM_JAX_DATA"


@dataclasses.dataclass(frozen=True)
class Archive:
    """One official file: its address, the sha256 of its bytes and, where known, of its gunzipped content.

    A gzip header holds a time stamp and a file name, so a repackaged file (Debian's, say) has other bytes and the
    same content; ``content`` lets it pass. Fashion-MNIST's were taken from Debian's files, whose deflate streams give
    exactly the official sha256 once their file names and time stamps (31 August 2017) are put back into the headers.
    """

    url: str
    sha256: str
    content: str | None = None

    @property
    def file(self) -> str:
        """The file's name, the last part of its address."""
        return self.url.rsplit("/", 1)[-1]


def digest(content: bytes) -> str:
    """Return the sha256 of some bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def fetch(archive: Archive, name: str, *, folder: str | os.PathLike | None = None, download: bool = True) -> bytes:
    """Return an archive's bytes, from the file at hand or downloaded.

    Args:
      archive: which file.
      name: the data set's name; the file is looked for in the subfolder ``name``, then in the folder itself, and
        downloaded into the subfolder (MNIST's and Fashion-MNIST's files bear the same names).
      folder: see :func:`root`.
      download: whether to fetch it where it is missing.

    Raises:
      ValueError: the file is missing (``download=False``) or is not the official one; it is left as it is.
      ConnectionError: the download failed.
    """
    base = root(folder)
    for path in (base / name / archive.file, base / archive.file):
        if path.is_file():
            return _verified(archive, path)
    if not download:
        checks.fail("folder", f"hold {archive.file}", f"{base} does not", f"Fetch it from {archive.url} .")
    return _verified(archive, _download(archive, base / name))


def root(folder: str | os.PathLike | None) -> pathlib.Path:
    """Return the folder of the archives: the argument, else ``$DEFORM_JAX_DATA``, else the platform's cache.

    Raises:
      ValueError: the folder named by the argument or the variable does not exist.
    """
    named = folder if folder is not None else os.environ.get(FOLDER_VARIABLE) or None
    if named is None:
        return pathlib.Path(needed("pooch").os_cache("deform_jax"))
    return existing(named, "was given" if folder is not None else f"stands in ${FOLDER_VARIABLE}")


def existing(folder: str | os.PathLike, origin: str = "was given") -> pathlib.Path:
    """Return a folder's path, ``~`` expanded; a missing one is refused, with where its name came from."""
    path = checks.path("folder", folder)
    if not path.is_dir():
        checks.fail("folder", "be an existing folder", f"{str(folder)!r} {origin}", "Create it, or correct the name.")
    return path


def _download(archive: Archive, target: pathlib.Path) -> pathlib.Path:
    pooch = needed("pooch")
    needed("tqdm")
    try:
        # pooch writes to a temporary file and moves it into place only once its hash is right.
        pooch.retrieve(
            archive.url, known_hash=f"sha256:{archive.sha256}", fname=archive.file, path=target, progressbar=True
        )
    except (OSError, ValueError) as error:  # requests' errors are OSErrors; a wrong hash is a ValueError
        raise ConnectionError(
            f"{archive.url} could not be downloaded to {target} ({type(error).__name__}: {error}). Try again, or fetch "
            f"it by other means and place it there as {archive.file}; its sha256 must be {archive.sha256}."
        ) from error
    return target / archive.file


def _verified(archive: Archive, path: pathlib.Path) -> bytes:
    content = path.read_bytes()
    found = digest(content)
    if found == archive.sha256 or (archive.content is not None and _content_digest(content) == archive.content):
        return content
    checks.fail(
        "folder",
        f"hold the official {archive.file} (sha256 {archive.sha256})",
        f"{path} is another or a damaged file (sha256 {found}, {len(content)} bytes)",
        f"Replace it by {archive.url} , or move it away to have it downloaded.",
    )


def _content_digest(content: bytes) -> str | None:
    try:
        return digest(gzip.decompress(content))
    except (OSError, EOFError, zlib.error):  # not gzip, truncated, or corrupt
        return None


def needed(module: str) -> ModuleType:
    """Import an optional module, or say how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"This data set needs {module}, which is not installed. Run: pip install 'deform_jax[data]'"
        ) from error
