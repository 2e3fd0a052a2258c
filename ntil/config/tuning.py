"""Settings of what is trained: parts, adapters, and the precision in which a frozen base is held."""

from __future__ import annotations

from dataclasses import dataclass, field

from ntil.config.errors import ConfigError
from ntil.config.ranges import at_least

QUANTIZATIONS = ("nf4", "fp4")  # of bitsandbytes


@dataclass
class TuningConfig:
    """Trainable parameters. `freeze`: parts (`vision`, `projector`, `language`) that stay as they were loaded.

    mode `full`: all others are trained. mode `lora`: adapters of `rank` and `alpha` (null: 2 * rank) in the parts
    `adapt`, on the linear layers `targets` (null: the family's own) of the blocks `layers` (null: all); the parts
    `train` (null: the family's own) are trained whole.

    dora: the norm of each weight's rows is trained beside the adapter's direction (Liu et al., 2024, arXiv 2402.09353).
    rslora: adapters are scaled by alpha / sqrt(rank) instead of alpha / rank (Kalajdzievski, 2023, arXiv 2312.03732).
    quantize: `nf4` or `fp4`, the base's language part in 4 bits (QLoRA: Dettmers et al., 2023, arXiv 2305.14314).
    """

    mode: str = "full"
    freeze: list[str] = field(default_factory=list)
    rank: int = 16
    alpha: float | None = None
    dropout: float = 0.0
    adapt: list[str] = field(default_factory=lambda: ["language"])
    targets: list[str] | None = None
    layers: list[int] | None = None
    train: list[str] | None = None
    dora: bool | None = None
    rslora: bool | None = None
    quantize: str | None = None

    @property
    def kind(self) -> str:
        """What is trained, in a word: `full`, `LoRA`, `DoRA`, `rsLoRA`, or with a base in 4 bits `QLoRA`."""
        if self.mode == "full":
            return "full"
        name = f"{'rs' if self.rslora else ''}{'DoRA' if self.dora else 'LoRA'}"
        return f"Q{name}" if self.quantize else name


def normalize_tuning(tuning: TuningConfig) -> None:
    """Give what means the same one form, in place: a switch that is off is null."""
    tuning.dora, tuning.rslora = tuning.dora or None, tuning.rslora or None


def check_settings(tuning: TuningConfig) -> None:
    """Check ranges, and keys that contradict each other.

    Raises:
        ConfigError: names the key and what it takes.
    """
    if tuning.mode not in ("full", "lora"):
        raise ConfigError(f"tuning.mode must be full or lora, got {tuning.mode!r}")
    if tuning.rank < 1 or (tuning.alpha is not None and tuning.alpha <= 0):
        raise ConfigError(f"tuning.rank and tuning.alpha must be above 0, got {tuning.rank} and {tuning.alpha}")
    if not 0 <= tuning.dropout < 1:
        raise ConfigError(f"tuning.dropout must lie in [0, 1), got {tuning.dropout}")
    if tuning.quantize not in (None, *QUANTIZATIONS):
        raise ConfigError(f"tuning.quantize must be {' or '.join(QUANTIZATIONS)}, or null, got {tuning.quantize!r}")
    if tuning.quantize and tuning.dora:
        # Seen with peft 0.21.2 and bitsandbytes 0.50.2 on the CPU: logits of the merged model differ by 1.7 of 2.38.
        raise ConfigError(
            f"tuning.dora=true beside tuning.quantize={tuning.quantize}: merged, such adapters give other logits than "
            "they were trained to; take one of the two"
        )
    if tuning.layers is not None and not tuning.layers:
        raise ConfigError("tuning.layers=[] leaves no layer to adapt; null: all of them")
    for layer in tuning.layers or ():
        at_least(0, "tuning.layers", layer)
    usual = TuningConfig()
    for name in ("rank", "alpha", "dropout", "adapt", "targets", "layers", "train", "dora", "rslora", "quantize"):
        value = getattr(tuning, name)
        if tuning.mode == "full" and value != getattr(usual, name):
            raise ConfigError(f"tuning.{name}={value} is for adapters, and tuning.mode is full; add tuning=lora")
