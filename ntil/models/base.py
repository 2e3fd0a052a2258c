"""Interface of a model family. Nothing about a family is known outside its own file in `ntil/models`."""

from __future__ import annotations

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from PIL import Image
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from ntil.config.errors import ConfigError
from ntil.models.pretrained import read_weights
from ntil.numbers.vocab import NumberVocab
from tasks.base import OwnQuestion


@dataclass(frozen=True)
class Encoded:
    """One example as model inputs.

    Attributes:
        prompt_ids: image tokens expanded, generation prompt included.
        answer_ids: the answer and its end token; empty for generation.
        features: image inputs whose first dimension is concatenated over a batch, e.g. pixel_values [1, 3, H, W].
    """

    prompt_ids: list[int]
    answer_ids: list[int]
    features: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class OwnPrompt:
    """How a family was taught to be asked for something.

    Attributes:
        question: the task's question in its words.
        options: of the family's constructor, where the question isn't put into the usual frame.
    """

    question: OwnQuestion
    options: Mapping[str, Any] = field(default_factory=dict)


# Names alone: transformers would fetch and run a kernel from the hub for "owner/repository".
Attention = Literal["sdpa", "eager", "flash_attention_2", "flash_attention_3", "flex_attention"]

# The linear layers of Llama's, Gemma's, Qwen2's and Baichuan2's blocks, by the names they share.
LLAMA_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class Family(ABC):
    """Model family: built from its config in `conf/model` it prepares inputs, and `load` reads the weights.

    Attributes:
        parts: name of a part (`vision`, `projector`, `language`) -> prefix of its parameters, or several of them. A
            parameter belongs to the part with the longest prefix that fits, and to `language` where none does (an
            untied `lm_head`).
        lora_targets: part -> last names of its linear layers that get adapters under `tuning=lora`.
        lora_trainable: parts trained whole in addition to the adapters.
        coords: name of the coordinate format the family was pre-trained on, see tasks/answers/coordinates.py.
        checkpoint: hub name or folder, as `packaged.local` gives it; None for a model from scratch.
        tokenizer: pad and end tokens are set.
        image_token: the token that stands for one patch of a picture; None where the family reads text only.
        image_processor: Hugging Face's, saved beside the weights; None where there is none.
        config: Hugging Face's config of the model.
        dtype: of the weights as they are loaded. attention: of all parts, or of each by the name of its config, with
            the model's own under the empty name.
        quantization: transformers' config of a base in 4 bits; None: weights have `dtype`.
        allow_pickle: read .bin files of a checkpoint that has no safetensors.
        answer_start, answer_end: what an answer is written between; None: it ends with the tokenizer's end token.
        own_prompts: subject of a task (`Task.subject`) -> how the family was taught to be asked for it, where its
            authors say so; `task.question_style=family` asks this way.
        any_size: every picture becomes the same number of tokens, whatever its size.
        patches_per_token: how many patches of the vision tower become one image token.
        causal: no state of a token depends on what follows it, the prompt's included; so rows with the same beginning,
            a picture or examples, may share it.
    """

    parts: ClassVar[Mapping[str, str | tuple[str, ...]]] = {"language": ""}
    lora_targets: ClassVar[dict[str, tuple[str, ...]]] = {"language": LLAMA_LINEAR}
    lora_trainable: ClassVar[tuple[str, ...]] = ("projector",)
    any_size: ClassVar[bool] = False
    patches_per_token: int = 1
    causal: ClassVar[bool] = True
    own_prompts: ClassVar[Mapping[str, OwnPrompt]] = {}
    answer_start: ClassVar[str] = " "
    answer_end: ClassVar[str | None] = None
    coords: str = "int1000"
    checkpoint: str | None = None
    attention: str | dict[str, str]
    tokenizer: PreTrainedTokenizerBase
    image_token: str | None = None
    image_processor: Any = None
    config: Any = None
    dtype: torch.dtype = torch.float32
    allow_pickle: bool = False
    quantization: Any = None

    @abstractmethod
    def template(self, prompt: str, has_image: bool) -> str:
        """The prompt in the family's own format; `<image>` stands where the picture goes."""

    @abstractmethod
    def load(self, checkpoint: Path | None = None) -> PreTrainedModel:
        """The model with the weights of `checkpoint` (a folder saved by a run), else as the config says."""

    def reading_options(self) -> dict[str, Any]:
        """Arguments of `from_pretrained`: in which types, and with which attention."""
        options: dict[str, Any] = {"dtype": self.dtype, "attn_implementation": self.attention}
        return options if self.quantization is None else {**options, "quantization_config": self.quantization}

    def picture(self, image: Image.Image) -> tuple[dict[str, Tensor], str]:
        """Image inputs, and the text that `<image>` expands to."""
        raise ValueError(f"{type(self).__name__} reads text only; take a task without pictures")

    def picture_tokens(self, size: tuple[int, int]) -> int:
        """How many image tokens a picture of (width, height) becomes; a family that can tell by the size overrides it.

        Raises:
            ValueError: the family takes no picture of that size.
        """
        _, expansion = self.picture(Image.new("RGB", size))
        return expansion.count(self.image_token) if self.image_token else len(self._tokenize(expansion))

    def picture_length(self, size: tuple[int, int]) -> int:
        """How many ids a picture of (width, height) becomes in a prompt; more where a family also marks its tiles."""
        return self.picture_tokens(size)

    @staticmethod
    def frame(size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Frame that the model sees of a picture of (width, height); here the picture itself.

        It is given by its width and height and the picture's left and top in it, in pixels of the picture. Coordinates
        in answers are fractions of it.
        """
        return (*size, 0.0, 0.0)

    def resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height in pixels to which the processor scales the frame of a picture of (width, height).

        Coordinates in pixels (`json_pixels`) are of it; so this and `picture` must ask the same processor.

        Raises:
            ValueError: the family takes no picture of that size, or doesn't tell.
        """
        raise ValueError(
            f"{type(self).__name__} doesn't tell to which size it scales a picture, so boxes can't be in its pixels; "
            "set model.coords to another format"
        )

    def number_vocab(self, coordinates: bool) -> NumberVocab:
        """Digit ids of the answers: those of coordinates as `coords` writes them, or of plain numbers.

        Raises:
            ValueError: the tokenizer lacks them.
        """
        return NumberVocab.from_tokenizer(self.tokenizer)

    @property
    def end_id(self) -> int:
        """Id of the token that ends an answer."""
        token, unknown = self.answer_end, self.tokenizer.unk_token_id
        end = self.tokenizer.eos_token_id if token is None else self.tokenizer.convert_tokens_to_ids(token)
        if not isinstance(end, int) or (token is not None and end == unknown):
            raise ValueError(f"{type(self).__name__}: the tokenizer has no end token")
        return end

    def decode(self, ids: Sequence[int]) -> str:
        """Generated ids as text, up to the end token. Special tokens stay: some formats write boxes with them."""
        trimmed = list(ids)
        if self.end_id in trimmed:
            trimmed = trimmed[: trimmed.index(self.end_id)]
        return str(self.tokenizer.decode(trimmed, clean_up_tokenization_spaces=False))

    def answer_text(self, answer: str) -> str:
        """Text that follows the templated prompt: the answer as the family writes it, with the end token."""
        return f"{self.answer_start}{answer}{self.answer_end or self.tokenizer.eos_token}"

    @property
    def image_id(self) -> int | None:
        """Id of `image_token`; None where the family reads text only."""
        return None if self.image_token is None else int(self.tokenizer.get_vocab()[self.image_token])

    def extra_inputs(self, input_ids: Tensor, attention_mask: Tensor, prompt_lengths: Tensor) -> dict[str, Tensor]:
        """Further model inputs of a padded batch; `prompt_lengths` [B] says where each prompt ends."""
        return {}

    def encode(self, prompt: str, answer: str | None, image: Image.Image | None) -> Encoded:
        """One example.

        Raises:
            ValueError: the family refuses the picture, or its text, see `encode_text`.
        """
        return self.encode_prepared(prompt, answer, None if image is None else self.picture(image))

    def encode_prepared(
        self, prompt: str, answer: str | None, picture: tuple[dict[str, Tensor], str] | None
    ) -> Encoded:
        """As `encode`, with what `picture` has made of the image: questions on one picture share it.

        Raises:
            ValueError: the family refuses the text, see `encode_text`.
        """
        features, expansion = ({}, "") if picture is None else picture
        return self._encoded(prompt, answer, picture is not None, expansion, features)

    def position_ids(self, encoded: Encoded) -> Tensor:
        """Positions that the model gives the tokens of an example in a sequence of its own: [T], or [axes, T]."""
        return torch.arange(len(encoded.prompt_ids) + len(encoded.answer_ids))

    def encode_text(self, prompt: str, answer: str | None, has_image: bool) -> Encoded:
        """Ids as in `encode`, but one image token for the picture, which isn't needed; for checks of many rows.

        Raises:
            ValueError: the tokenizer merges prompt and answer, so that the answer's tokens can't be told apart; the
                prompt itself holds the image token; or the answer's ids are read as another text.
        """
        return self._encoded(prompt, answer, has_image, (self.image_token or "") if has_image else "", {})

    def _encoded(
        self, prompt: str, answer: str | None, has_image: bool, expansion: str, features: dict[str, Tensor]
    ) -> Encoded:
        if self.image_token is not None and self.image_token in f"{prompt}{answer}":
            raise ValueError(f"the task's text holds {self.image_token!r}, which stands for the picture")
        prompt_ids, answer_ids = self._ids(self.template(prompt, has_image), expansion, answer)
        if answer is not None:
            self._check_answer(answer, answer_ids)
        return Encoded(list(prompt_ids), list(answer_ids), features)

    def _check_answer(self, answer: str, ids: tuple[int, ...]) -> None:
        """Check that the ids that are taught are read as the answer; a model could never give another one.

        Raises:
            ValueError: they aren't.
        """
        read = _decoded(self, ids).strip()
        if read == answer.strip():
            return
        if self.end_id in ids[:-1]:
            end = self.tokenizer.convert_ids_to_tokens(self.end_id)
            reason = f"{end!r} ends an answer of this model; write it without"
        elif read == unicodedata.normalize("NFC", answer.strip()):
            reason = "its tokenizer composes characters; store the answer in Unicode's form NFC"
        elif read == unicodedata.normalize("NFKC", answer.strip()):
            reason = "its tokenizer replaces compatibility characters; store the answer in Unicode's form NFKC"
        else:
            reason = "its tokenizer doesn't keep this text; write it otherwise, or take another model"
        raise ValueError(f"the answer {_shown(answer)} would be read as {_shown(read)}, since {reason}")

    def answer_ids(self, prompt: str, answer: str, has_image: bool) -> list[int]:
        """Ids of the answer and its end as in `encode`, without processing the picture."""
        return list(self._ids(self.template(prompt, has_image), "", answer)[1])

    def split_images(self, inputs: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """Split the inputs of the model's `get_image_features` into those of single pictures, along dimension 0.

        This version is for models whose every tensor has one entry per picture, or per tile of a picture.
        """
        count = len(inputs["pixel_values"])
        return [{name: value[i : i + 1] for name, value in inputs.items()} for i in range(count)]

    def project(
        self,
        model: Any,
        projectors: Sequence[Callable[[Tensor], Tensor]],
        features: Sequence[Tensor],
        images: Sequence[dict[str, Tensor]],
    ) -> dict[str, Any]:
        """Fields of what `get_image_features` returns, from what entered the projector; for kept vision features.

        This version is for models whose output is the projector's.

        Args:
            projectors: the modules of the part `projector`, in the order of `parts`.
            features: of each picture [entries, ..., width]; inputs of several projectors are joined along the width.
            images: what `split_images` gave.

        Returns:
            `pooler_output`, one tensor per picture, and whatever else the model reads.
        """
        projected = projectors[0](torch.cat(list(features)))
        rows = [len(entries) for entries in features]
        return {"pooler_output": projected.split([n * len(projected) // sum(rows) for n in rows])}

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """Save weights, tokenizer and image processor, and the ids that end an answer for who generates with it."""
        model.save_pretrained(folder)
        self.save_generation_config(model, folder)
        self.save_processors(folder)

    def save_generation_config(self, model: PreTrainedModel, folder: Path) -> None:
        """Save with which ids texts begin, end and are padded; here they are given to every generation."""
        ids = {"bos_token_id": model.config.get_text_config().bos_token_id, "eos_token_id": self.end_id}
        GenerationConfig(**ids, pad_token_id=self.tokenizer.pad_token_id).save_pretrained(folder)

    def save_processors(self, folder: Path) -> None:
        """Save tokenizer and image processor, which make a folder of weights usable as `model.checkpoint=<folder>`."""
        self.tokenizer.save_pretrained(folder)
        if self.image_processor is not None:
            self.image_processor.save_pretrained(folder)

    def _ids(self, text: str, expansion: str, answer: str | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
        text = text.replace("<image>", expansion, 1) if expansion else text
        prompt_ids = self._tokenize(text)
        if answer is None:
            return prompt_ids, ()
        joined = self._tokenize(text + self.answer_text(answer))
        if joined[: len(prompt_ids)] != prompt_ids:
            raise ValueError(
                f"{type(self.tokenizer).__name__} merges the end of the prompt with the answer {answer!r}: "
                f"prompt ends {prompt_ids[-3:]}, together {joined[len(prompt_ids) - 3 : len(prompt_ids) + 1]}"
            )
        return prompt_ids, joined[len(prompt_ids) :]

    def _tokenize(self, text: str) -> tuple[int, ...]:
        # A prompt with hundreds of image tokens is kept by nobody: 65,536 of them are gigabytes in every data worker.
        return _tokenized(self.tokenizer, text) if len(text) < KEPT_LENGTH else tuple(self.tokenizer(text).input_ids)


KEPT_LENGTH = 2000  # characters of a text whose ids are kept


@lru_cache(maxsize=1 << 16)
def _tokenized(tokenizer: Any, text: str) -> tuple[int, ...]:
    # Rows recur every epoch, and prompts are often all the same.
    return tuple(tokenizer(text).input_ids)


@lru_cache(maxsize=1 << 16)
def _decoded(family: Family, ids: tuple[int, ...]) -> str:
    return family.decode(ids)


def _shown(text: str, most: int = 40) -> str:
    """The text in quotes, at most `most` characters, with escapes where two texts would look the same."""
    return ascii(text if len(text) <= most else f"{text[:most]}...")


def load_model(family: Family, model_class: Any, checkpoint: Path | None) -> PreTrainedModel:
    """Load a family's model with the weights of `checkpoint`, else the family's own, else random ones for its config.

    Raises:
        CheckpointError: the weights can't be read.
    """
    source = checkpoint or family.checkpoint
    if source is None:
        family.config._attn_implementation = family.attention
        return ready(model_class(family.config).to(family.dtype))
    return ready(read_weights(model_class, source, allow_pickle=family.allow_pickle, **family.reading_options()))


def unwrapped(model: Any) -> Any:
    """The model without the adapters around it."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


def ready(model: Any) -> Any:
    """Prepare a model for training and generation here, in place.

    * Its generation config is reset: a checkpoint's repetition penalty would suppress the second 0 of 100.
    * `save_pretrained` writes weights by the model's own names. transformers would rename them back to those of older
      releases (`language_model.model.` for `model.language_model.`), while its Trainer resumes by the model's own and
      takes a checkpoint without any of them for an empty one.
    """
    model.generation_config = GenerationConfig(bos_token_id=model.config.get_text_config().bos_token_id)
    model._weight_conversions = []
    return model


def torch_dtype(name: str) -> torch.dtype:
    """Dtype of the weights by the name in `model.dtype`.

    Raises:
        ConfigError: none of the three that weights may have.
    """
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in dtypes:
        raise ConfigError(f"model.dtype must be {', '.join(dtypes)}, got {name!r}")
    return dtypes[name]
