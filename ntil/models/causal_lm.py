"""Text models of any causal architecture that transformers has: Qwen2.5, Qwen3, Gemma 3, LLaMA-3, and Llama's class.

With `checkpoint` (a hub name or folder) everything comes from there; without, `language` describes a nano model from
scratch with the tokenizer of nano_tokenizer.py. Base models get `template`, and the answer follows it after a space;
with `template: null` the checkpoint's own chat template wraps the prompt, and its end of turn ends the answer.

A tokenizer that merges digits (LLaMA-3 writes 1024 as 102 + 4) tokenises prompts as always, but ANSWERS digit by digit:
a loss on digits needs a token for each. The model has seen merged numbers in pre-training, so its initial loss is a
little higher than on these; what it generates is read the same way, since both decode to the same text.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from ntil.models import nano_tokenizer
from ntil.models.base import Attention, Family, ready, torch_dtype
from ntil.models.packaged import local
from ntil.models.pretrained import CheckpointError, fits, read_weights, reading, same_sizes, tokenizer_as_shipped
from ntil.numbers.tokenizers import digit_by_digit

PLAIN = "Question: {prompt}\nAnswer:"


class CausalLM(Family):
    """Family of causal text models of transformers.

    Args:
        checkpoint: hub name or folder, `package:smollm2_135m` (packaged.py), or null for a model from scratch.
        language: `model_type` and further config fields of the model from scratch.
        template: what surrounds `{prompt}`; null for the checkpoint's chat template.
        template_options: what that chat template takes beside the messages: `enable_thinking: false` puts Qwen3's
            empty block of thoughts into the prompt, `date_string` is the day in Llama 3.2's, which would be today.
        bos: whether the beginning-of-sequence token stands before the template (chat templates write their own).
        dtype: of the weights. attn_implementation: `sdpa`, `eager`, `flash_attention_2`.
        allow_pickle: read .bin files of a checkpoint that has no safetensors.
    """

    def __init__(
        self,
        checkpoint: str | None = None,
        language: dict[str, Any] | None = None,
        template: str | None = PLAIN,
        template_options: dict[str, Any] | None = None,
        bos: bool = False,
        dtype: str = "float32",
        attn_implementation: Attention = "sdpa",
        allow_pickle: bool = False,
    ) -> None:
        checkpoint = local(checkpoint)
        self.checkpoint, self.dtype, self.attention = checkpoint, torch_dtype(dtype), attn_implementation
        self.allow_pickle = allow_pickle
        if template is not None and "{prompt}" not in template:
            raise ValueError(f"model.template {template!r} has no {{prompt}}")
        if template is not None and template_options:
            raise ValueError("model.template_options are for a checkpoint's chat template; set model.template=null")
        self.template_options = template_options or {}
        self.picture_token: str | None = None
        if checkpoint is None:
            if not language or "model_type" not in language:
                raise ValueError("model.checkpoint is null, so model.language must be given, with its model_type")
            self.tokenizer: PreTrainedTokenizerFast = nano_tokenizer.load()
            self.config = self.nano_config(language)
        else:
            self.tokenizer = tokenizer_as_shipped(checkpoint)
            with reading(checkpoint):
                self.config = self.read_config(checkpoint)
            same_sizes(checkpoint, self.config, language, "language.")
            # Gemma 3's text models have the tokenizer of those that see, but no row for its token of pictures.
            self.picture_token = getattr(self.tokenizer, "image_token", None)
            fits(self.tokenizer, self.config, checkpoint, unused=self.picture_token)
        self.chat, self.plain = template is None, template or ""
        self._set_special_tokens(bos)

    def _set_special_tokens(self, bos: bool) -> None:
        tokenizer, source = self.tokenizer, f"model.checkpoint={self.checkpoint}"
        if self.chat:
            tokenizer.eos_token = self._end_of_turn()
        if tokenizer.eos_token is None:
            raise CheckpointError(f"{source}: the tokenizer has no eos_token to end an answer with")
        if tokenizer.pad_token is None:
            # Padding is never attended to and never a target: labels go by position.
            tokenizer.pad_token = tokenizer.eos_token
        if bos and tokenizer.bos_token is None:
            raise CheckpointError(f"{source}: the tokenizer has no bos_token; set model.bos=false")
        self.start = str(tokenizer.bos_token) if bos else ""

    def read_config(self, source: str | Path) -> PreTrainedConfig:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        # The mapping has models with a vision tower too, which read text without it.
        if type(config) not in AutoModelForCausalLM._model_mapping or hasattr(config, "vision_config"):
            kind = config.model_type
            raise CheckpointError(
                f"model.checkpoint={source} is a {kind!r}, no causal text model; take its family's config"
            )
        return config

    def nano_config(self, language: dict[str, Any]) -> PreTrainedConfig:
        ids = nano_tokenizer.special_ids(self.tokenizer)
        sizes = {"vocab_size": len(self.tokenizer), "max_position_embeddings": 1024}
        return AutoConfig.for_model(**{**sizes, **ids, **language})

    def template(self, prompt: str, has_image: bool) -> str:
        if self.chat:
            return self._chat([{"role": "user", "content": prompt}], add_generation_prompt=True)
        return self.start + self.plain.replace("{prompt}", prompt)

    def answer_text(self, answer: str) -> str:
        return f"{answer}{self.tokenizer.eos_token}" if self.chat else super().answer_text(answer)

    def picture(self, image: Image.Image) -> tuple[dict[str, Tensor], str]:
        raise ValueError("the model reads text only, and the row has a picture; take a model with a vision part")

    def picture_tokens(self, size: tuple[int, int]) -> int:
        self.picture(Image.new("RGB", (1, 1)))
        return 0

    def load(self, checkpoint: Path | None = None) -> PreTrainedModel:
        source = checkpoint or self.checkpoint
        if source is None:
            return ready(self.from_scratch())
        with reading(source):
            return ready(self.from_checkpoint(source))

    def from_scratch(self) -> PreTrainedModel:
        return AutoModelForCausalLM.from_config(self.config, dtype=self.dtype, attn_implementation=self.attention)

    def from_checkpoint(self, source: str | Path) -> PreTrainedModel:
        how = {**self.reading_options(), "trust_remote_code": False}
        return read_weights(AutoModelForCausalLM, source, allow_pickle=self.allow_pickle, **how)

    @cached_property
    def _apart(self) -> PreTrainedTokenizerFast:
        return digit_by_digit(self.tokenizer)

    def _ids(self, text: str, expansion: str, answer: str | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
        if self.picture_token is not None and self.picture_token in f"{text}{answer}":
            raise ValueError(f"the task's text holds {self.picture_token!r}, and this model reads no pictures")
        prompt_ids = _ids_of(self.tokenizer, text)
        if answer is None:
            return prompt_ids, ()
        before = _ids_of(self._apart, text)
        joined = _ids_of(self._apart, text + self.answer_text(answer))
        if joined[: len(before)] != before:
            raise ValueError(f"the tokenizer merges the end of the prompt {text[-20:]!r} with the answer {answer!r}")
        return prompt_ids, joined[len(before) :]

    def _chat(self, messages: list[dict[str, str]], add_generation_prompt: bool = False) -> str:
        if self.tokenizer.chat_template is None:
            raise CheckpointError(
                f"model.template is null, but {self.checkpoint or 'the nano tokenizer'} has no chat template; "
                f"set model.template, as in {PLAIN!r}"
            )
        rendered = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=add_generation_prompt, **self.template_options
        )
        return str(rendered)

    def _end_of_turn(self) -> str:
        """The special token that the chat template writes after an assistant's message."""
        probe = "forty-two"
        turn = self._chat([{"role": "user", "content": "?"}, {"role": "assistant", "content": probe}])
        after = _ids_of(self.tokenizer, turn.rpartition(probe)[2])
        if not after or after[0] not in self.tokenizer.added_tokens_decoder:
            raise CheckpointError(
                f"model.checkpoint={self.checkpoint}: its chat template ends an answer with no special token; "
                f"set model.template, as in {PLAIN!r}"
            )
        return str(self.tokenizer.convert_ids_to_tokens(after[0]))


@lru_cache(maxsize=1 << 16)
def _ids_of(tokenizer: Any, text: str) -> tuple[int, ...]:
    # Templates write their special tokens themselves.
    return tuple(tokenizer(text, add_special_tokens=False).input_ids)
