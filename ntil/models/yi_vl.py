"""Yi-VL (01.AI, 2024): a LLaVA with CLIP ViT-H/14 at 448 pixels, layer norms in the projector, and Yi.

Transformers has no such class, so it is built on `LlavaForConditionalGeneration`. Weights are read and written in the
layout of the 01-ai release: Llama's names with `model.mm_projector.*` beside them, the tower in a folder of its own
that `mm_vision_tower` of config.json names. Sources: github 01-ai/Yi, VL/llava (conversation.py, mm_utils.py,
model/multimodal_projector/builder.py, model/clip_encoder/clip_encoder.py).
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers import (
    AddedToken,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedConfig,
    PreTrainedModel,
)

from ntil.models import nano_tokenizer
from ntil.models.base import Attention, OwnPrompt, load_model, ready
from ntil.models.llava import Llava
from ntil.models.pretrained import CheckpointError, fits, read_weights, reading, tokenizer_as_shipped, write_weights

SYSTEM = (
    "This is a chat between an inquisitive human and an AI assistant. Assume the role of the AI assistant. "
    "Read all the images carefully, and respond to the human's questions with informative, helpful, detailed "
    "and polite answers. "
    "这是一个好奇的人类和一个人工智能助手之间的对话。假设你扮演这个AI助手的角色。"
    "仔细阅读所有的图像，并对人类的问题做出信息丰富、有帮助、详细的和礼貌的回答。"
)
END = "###"
# Yi's vocabulary has no token for pictures; this one, reserved and produced by no text, stands for a patch.
IMAGE = "<|reserved007|>"
TOWER = "vit/tower"  # folder of the tower in a model from scratch
PROJECTOR = "mlp2x_gelu_Norm"
# Prefixes of names in the release -> prefixes in the class below.
NAMES = {
    "model.embed_tokens.": "model.language_model.embed_tokens.",
    "model.layers.": "model.language_model.layers.",
    "model.norm.": "model.language_model.norm.",
    "model.mm_projector.0.": "model.multi_modal_projector.linear_1.",
    "model.mm_projector.1.": "model.multi_modal_projector.norm_1.",
    "model.mm_projector.3.": "model.multi_modal_projector.linear_2.",
    "model.mm_projector.4.": "model.multi_modal_projector.norm_2.",
}


class YiVLProjector(nn.Module):
    """Two linear layers with layer norms, [..., vision] -> [..., language]."""

    def __init__(self, vision: int, language: int) -> None:
        super().__init__()
        self.linear_1, self.norm_1 = nn.Linear(vision, language), nn.LayerNorm(language)
        self.linear_2, self.norm_2 = nn.Linear(language, language), nn.LayerNorm(language)

    def forward(self, features: Tensor) -> Tensor:
        hidden = nn.functional.gelu(self.norm_1(self.linear_1(features)))
        return self.norm_2(self.linear_2(hidden))


class YiVLForConditionalGeneration(LlavaForConditionalGeneration):
    """LLaVA with `YiVLProjector` as its projector."""

    _keys_to_ignore_on_load_missing = [r"model\.vision_tower\."]  # noqa: RUF012  comes from the tower's own folder

    def __init__(self, config: LlavaConfig) -> None:
        super().__init__(config)
        vision, language = config.vision_config, config.text_config
        self.model.multi_modal_projector = YiVLProjector(vision.hidden_size, language.hidden_size)  # type: ignore
        self.post_init()


class YiVL(Llava):
    """Family of Yi-VL models, read and written in the layout of the 01-ai release.

    Args:
        checkpoint: hub name or folder in the release's layout, or null for a model from scratch.
        image_size, patch_size, vision, language: of the model from scratch, as in `Llava`.
        system: the text before the first turn, or empty for none.
        coords: how boxes are written; Yi-VL's pre-training format is not published, so LLaVA's is assumed.
        dtype: of the weights. attn_implementation: `sdpa`, `eager`, `flash_attention_2`.
        allow_pickle: read .bin files of a checkpoint that has no safetensors.
    """

    model_class: ClassVar[Any] = YiVLForConditionalGeneration
    nano_tokens: ClassVar[Sequence[str]] = (END,)
    own_prompts: ClassVar[Mapping[str, OwnPrompt]] = {}  # its authors publish none

    def __init__(
        self,
        checkpoint: str | None = None,
        image_size: int | None = None,
        patch_size: int | None = None,
        vision: dict[str, Any] | None = None,
        language: dict[str, Any] | None = None,
        system: str = SYSTEM,
        coords: str = "unit",
        dtype: str = "float32",
        attn_implementation: Attention = "sdpa",
        allow_pickle: bool = False,
    ) -> None:
        self.release: dict[str, Any] = {}
        self.tower = self.saved_tower = TOWER
        sizes = (image_size, patch_size, vision, language)
        super().__init__(checkpoint, *sizes, system, coords, dtype, attn_implementation, allow_pickle)
        self._end_id: int = self.tokenizer.get_vocab()[END]

    def _from_checkpoint(self, checkpoint: str) -> None:
        with reading(checkpoint):
            self.release = PreTrainedConfig.get_config_dict(checkpoint)[0]
        kind = self.release.get("mm_projector_type")
        if kind != PROJECTOR or "mm_vision_tower" not in self.release:
            raise CheckpointError(
                f"model.checkpoint={checkpoint} isn't Yi-VL's (mm_projector_type {kind!r}, not {PROJECTOR!r}); "
                "give 01-ai/Yi-VL-6B or a folder with the files of that release"
            )
        self.tower = self.release["mm_vision_tower"].removeprefix("./")
        # A path that leads out of the release's folder is one of another machine, or of weights that aren't the run's.
        leads_out = Path(self.tower).is_absolute() or ".." in Path(self.tower).parts
        self.saved_tower = TOWER if leads_out else self.tower
        self.tokenizer = tokenizer_as_shipped(checkpoint)
        # A nano model's tokenizer has a token for pictures of its own.
        image = nano_tokenizer.IMAGE if nano_tokenizer.IMAGE in self.tokenizer.get_vocab() else IMAGE
        self.tokenizer.add_tokens([AddedToken(image, special=True, normalized=False)])
        accepted = set(inspect.signature(LlamaConfig).parameters) | {"rope_theta", "rope_scaling"}
        text = LlamaConfig(**{k: v for k, v in self.release.items() if k in accepted})
        with reading(checkpoint):
            vision = CLIPVisionConfig.from_pretrained(checkpoint, subfolder=self.tower)
            self.image_processor = CLIPImageProcessorPil.from_pretrained(checkpoint, subfolder=self.tower)
        self.config = LlavaConfig(
            vision_config=vision,
            text_config=text,
            image_token_index=self.tokenizer.get_vocab()[image],
            vision_feature_layer=self.release.get("mm_vision_select_layer", -2),
            vision_feature_select_strategy="default",
            tie_word_embeddings=text.tie_word_embeddings,
        )
        fits(self.tokenizer, self.config, checkpoint)

    def template(self, prompt: str, has_image: bool) -> str:
        header = f"{self.system}\n\n" if self.system else ""
        picture = "<image>\n" if has_image else ""
        return f"{header}{END} Human: {picture}{prompt}\n{END} Assistant:"

    def answer_text(self, answer: str) -> str:
        return f" {answer}\n{END}"

    @property
    def end_id(self) -> int:
        return self._end_id

    def load(self, checkpoint: Path | None = None) -> PreTrainedModel:
        """Load the weights, those of the vision tower from its own folder.

        Raises:
            CheckpointError: weights that the release has are missing, or can't be read.
        """
        source = checkpoint or self.checkpoint
        if source is None:
            return load_model(self, self.model_class, None)
        how = {**self.reading_options(), "allow_pickle": self.allow_pickle}
        renamed = {f"^{re.escape(theirs)}": ours for theirs, ours in NAMES.items()}
        model = read_weights(self.model_class, source, release_name, config=self.config, key_mapping=renamed, **how)
        how.pop("quantization_config", None)
        tower = {
            "subfolder": self.tower if checkpoint is None else self.saved_tower,
            "config": self.config.vision_config,
        }
        model.model.vision_tower = read_weights(CLIPVisionModel, source, **tower, **how)
        return ready(model)

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """Save in the release's layout, the vision tower in its own folder."""
        folder.mkdir(parents=True, exist_ok=True)
        unwrapped: Any = model
        write_weights(to_release(model.state_dict()), folder)
        unwrapped.model.vision_tower.save_pretrained(folder / self.saved_tower)
        self.image_processor.save_pretrained(folder / self.saved_tower)
        self.save_generation_config(model, folder)
        self.tokenizer.save_pretrained(folder)
        (folder / "config.json").write_text(json.dumps(self._release_config(), indent=2))

    def _release_config(self) -> dict[str, Any]:
        tower = {"mm_vision_tower": f"./{self.saved_tower}"}
        if self.release:
            return self.release | tower
        return {
            **self.config.text_config.to_dict(),
            "architectures": ["LlavaLlamaForCausalLM"],
            "model_type": "llava",
            "mm_hidden_size": self.config.vision_config.hidden_size,
            "mm_projector_type": PROJECTOR,
            "mm_vision_select_layer": self.config.vision_feature_layer,
            **tower,
        }


def release_name(name: str) -> str:
    """The release's name of a weight of `YiVLForConditionalGeneration`."""
    for theirs, ours in NAMES.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def to_release(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All weights except the tower's, by the release's names."""
    return {release_name(k): v for k, v in state.items() if not k.startswith("model.vision_tower.")}
