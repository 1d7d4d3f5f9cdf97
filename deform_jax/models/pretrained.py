"""Trained networks: the weights that torchvision publishes, those on the Hugging Face hub, or a file at hand."""

import hashlib
import os
import pathlib
import re
import tempfile
from typing import Any

from flax import linen as nn

from deform_jax import checks
from deform_jax.models.convert import CONVERTIBLE, from_torch
from deform_jax.models.weight_files import needed, read_weights
from deform_jax.models.zoo import IMAGENET_ZOO, create
from deform_jax.typing import PyTree

ADDRESS = "https://download.pytorch.org/models/"
PRETRAINED = {
    "alexnet": "alexnet-owt-7be5be79.pth",
    "vgg11": "vgg11-8a719046.pth",
    "vgg11_bn": "vgg11_bn-6002323d.pth",
    "vgg13": "vgg13-19584684.pth",
    "vgg13_bn": "vgg13_bn-abd245e5.pth",
    "vgg16": "vgg16-397923af.pth",
    "vgg16_bn": "vgg16_bn-6c64b313.pth",
    "vgg19": "vgg19-dcbb9e9d.pth",
    "vgg19_bn": "vgg19_bn-c79401a0.pth",
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-0676ba61.pth",
}
"""Names of the networks that torchvision publishes (``IMAGENET1K_V1``) → files, with the start of their sha256."""

_HUB, _HUB_FILE = "hf:", "model.safetensors"


def load_pretrained(
    source: str | os.PathLike, name: str | None = None, *, cache: str | os.PathLike | None = None
) -> tuple[Any, PyTree]:
    """Return ``(model, variables)`` of a trained network, for ``models.represent`` and ``model.apply``.

    The ImageNet networks take RGB images in [0, 1] standardised by mean (0.485, 0.456, 0.406) and standard deviation
    (0.229, 0.224, 0.225), which is ``data.IMAGENET_PREPARE``; torchvision's evaluation sees the central 224 × 224
    pixels of images resized to 256 on their shorter side.

    Args:
      source: what to load. One of ``models.PRETRAINED``, such as ``"vgg11"`` (or ``"vgg11_imagenet"``): the file that
        torchvision publishes, downloaded unless the cache has it; it is never used before its hash is checked.
        ``"hf:owner/repository"`` or ``"hf:owner/repository/file"``: that repository's ``model.safetensors``, or
        that file, through huggingface_hub. Anything else is the path of a file for ``models.read_weights``.
      name: the architecture, one of ``models.CONVERTIBLE``. By default, the ImageNet form that the name of the file or
        of the repository begins with: ``resnet18-f37072fd.pth`` and ``timm/resnet18.tv_in1k`` hold a
        ``"resnet18_imagenet"``.
      cache: folder of the downloads. By default the platform's cache for torchvision's, and huggingface_hub's own
        (``$HF_HOME``) for the hub's.

    Raises:
      ValueError: a source or name that is none of these; a file that is damaged, holds more than arrays, or is of
        another architecture.
      ConnectionError: the download failed; it says what to fetch by hand.
      ImportError: a package that the source needs is missing.
    """
    if not isinstance(source, str | os.PathLike) or not isinstance(text := os.fspath(source), str):
        checks.fail("source", "be a name or a path", f"{source!r} was given", error=TypeError)
    if text.startswith(_HUB):
        path, called = _from_hub(text, cache)
    elif text.removesuffix("_imagenet") in PRETRAINED:
        path, called = _published(PRETRAINED[text.removesuffix("_imagenet")], cache), text
    else:
        path, called = _existing(text), pathlib.Path(text).name
    name = _guessed(called) if name is None else checks.option("name", name, CONVERTIBLE)
    state = read_weights(path)
    try:
        variables = from_torch(name, state)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{path}: {error}") from error
    model: nn.Module = create(name, num_classes=variables["params"]["head"]["bias"].size)
    return model, variables


def _guessed(called: str) -> str:
    stem = re.split(r"[-.]", called, maxsplit=1)[0].lower().removesuffix("_imagenet")
    if f"{stem}_imagenet" not in IMAGENET_ZOO:
        what = f"{called!r} does not begin with the name of one"
        checks.fail(
            "name", "be given where the source does not tell it", what, f"Pass one of {', '.join(CONVERTIBLE)}."
        )
    return f"{stem}_imagenet"


def _existing(text: str) -> pathlib.Path:
    path = checks.path("source", text)
    if not path.is_file():
        wanted = f"be the path of a file, 'hf:owner/repository', or one of {', '.join(PRETRAINED)}"
        checks.fail("source", wanted, f"there is no file {text!r}")
    return path


def _published(file: str, cache: str | os.PathLike | None) -> pathlib.Path:
    if cache is None:
        cache = pathlib.Path(needed("pooch", "Downloading weights").os_cache("deform_jax")) / "pretrained"
    folder = checks.path("cache", cache)
    path = folder / file
    if not path.is_file():
        _download(file, folder)
    elif not _is_official(path):
        remedy = f"Remove it to have it downloaded again, or replace it by {ADDRESS}{file} ."
        checks.fail("cache", f"hold the published {file}", f"{path} is another or a damaged file", remedy)
    return path


def _is_official(path: pathlib.Path) -> bool:
    """Whether a file's sha256 begins as its name says, which is all that torchvision tells of it."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return digest.startswith(path.stem.rpartition("-")[2])


def _download(file: str, folder: pathlib.Path) -> None:
    pooch = needed("pooch", "Downloading weights")
    needed("tqdm", "Downloading weights")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Under its own name only once it is whole. Not `pooch.retrieve`, which knows no hash by its beginning.
        with tempfile.TemporaryDirectory(dir=folder) as passing:
            part = pathlib.Path(passing) / file
            pooch.HTTPDownloader(progressbar=True)(f"{ADDRESS}{file}", str(part), None)
            if not _is_official(part):
                raise ValueError("what came has another sha256 than its name tells")
            part.replace(folder / file)
    except (OSError, ValueError) as error:  # requests' errors are OSErrors
        raise ConnectionError(
            f"{ADDRESS}{file} could not be downloaded to {folder} ({type(error).__name__}: {error}). Try again, or "
            f"fetch it by other means and pass its path as `source`, or place it there as {file}."
        ) from error


def _from_hub(source: str, cache: str | os.PathLike | None) -> tuple[pathlib.Path, str]:
    owner, repository, file = [*source.removeprefix(_HUB).split("/", 2), "", ""][:3]
    if not owner or not repository:
        checks.fail("source", "be 'hf:owner/repository' or 'hf:owner/repository/file'", f"{source!r} was given")
    file = file or _HUB_FILE
    hub = needed("huggingface_hub", "Downloading from the Hugging Face hub")
    try:
        path = hub.hf_hub_download(f"{owner}/{repository}", file, cache_dir=cache)
    except Exception as error:  # their base classes have changed from version to version
        raise ConnectionError(
            f"{file} of {owner}/{repository} could not be had from the Hugging Face hub ({type(error).__name__}: "
            f"{error}). Check the names and the connection, or fetch the file by other means and pass its path as "
            "`source`, with `name`."
        ) from error
    return pathlib.Path(path), repository
