"""How answers are generated and decoded in an evaluation, and by which back-end: typed settings and their checks."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import urlsplit

from ntil.config.errors import ConfigError, nearest

DECODINGS = ("expected", "median", "bayes", "consensus")  # besides greedy, which is always there
OF_DISTRIBUTIONS = ("expected", "median", "bayes")  # need the model's probabilities
BACKENDS = ("transformers", "openai")
LARGEST_SEED = 2**63 - 1


@dataclass
class GenerationConfig:
    """Generation of answers. All null: greedy.

    beams: the answer is the best of a beam search with so many beams.
    samples: answers drawn of each row, besides that one.
    temperature, top_p, top_k, seed: of the samples; null: 1, all tokens, all tokens, 0.
    stop: texts at whose first appearance an answer is cut.
    """

    beams: int | None = None
    samples: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: list[str] | None = None

    @property
    def greedy(self) -> bool:
        """Whether an answer is what greedy generation gives."""
        return self.beams is None

    @property
    def usual(self) -> bool:
        """Whether nothing is set."""
        return all(getattr(self, f.name) is None for f in fields(self))


@dataclass
class ServerConfig:
    """An OpenAI-compatible server (vLLM, SGLang) that answers in place of the model in this process.

    url: up to the version, as in http://localhost:8000/v1. model: its name there.
    key_variable: environment variable with the server's key; null: it needs none.
    parallel: requests at once. timeout: seconds of one.
    parity_rows: rows whose answers are compared with this process's greedy ones first.
    parity_least: share of them that must be equal. accept_parity: go on with fewer.
    """

    url: str | None = None
    model: str | None = None
    key_variable: str | None = None
    parallel: int = 8
    timeout: float = 600.0
    parity_rows: int = 32
    parity_least: float = 0.95
    accept_parity: bool = False


def normalized_generation(generation: GenerationConfig) -> GenerationConfig:
    """The same settings in one form, so that they have one hash: what is usual is null, what samples need is there."""
    g = generation
    drawn = g.samples is not None
    return GenerationConfig(
        beams=None if g.beams == 1 else g.beams,
        samples=g.samples,
        temperature=1.0 if drawn and g.temperature is None else g.temperature,
        top_p=None if g.top_p == 1 else g.top_p,
        top_k=None if g.top_k == 0 else g.top_k,
        seed=0 if drawn and g.seed is None else g.seed,
        stop=list(g.stop) if g.stop else None,
    )


def normalized_decoding(decoding: Any) -> list[str] | None:
    """The decodings besides greedy in one order, each once; None without any.

    Raises:
        ConfigError: a name that is no decoding.
    """
    names = [decoding] if isinstance(decoding, str) else list(decoding or ())
    for name in names:
        if name not in ("greedy", *DECODINGS):
            raise ConfigError(f"evaluation.decoding: no decoding {name!r}{nearest(str(name), ('greedy', *DECODINGS))}")
    return [name for name in DECODINGS if name in names] or None


def check_generation(generation: GenerationConfig, decoding: list[str] | None, share_prompts: bool | None) -> None:
    """Check the settings of generation and decoding.

    Raises:
        ConfigError: a value out of its range, or one that has no use beside the others.
    """
    _check_ranges(generation)
    key = "evaluation.generation"
    if generation.samples is None:
        for name in ("temperature", "top_p", "top_k", "seed"):
            if (value := getattr(generation, name)) is not None:
                raise ConfigError(f"{key}.{name}={value} is for samples; set {key}.samples, how many to draw of a row")
    if "consensus" in (decoding or ()) and (generation.samples or 0) < 2:
        raise ConfigError(
            f"evaluation.decoding=consensus chooses among samples; set {key}.samples=8 (at least 2), or leave it out"
        )
    if share_prompts and not generation.greedy:
        raise ConfigError(
            f"evaluation.share_prompts=true: a beam search ({key}.beams={generation.beams}) can't share prompts; leave "
            "it null"
        )


def _check_ranges(g: GenerationConfig) -> None:
    for name in ("beams", "samples", "top_k"):
        value = getattr(g, name)
        if value is not None and value < 1:
            raise ConfigError(f"evaluation.generation.{name} must be at least 1, got {value}")
    if g.temperature is not None and not g.temperature > 0:
        raise ConfigError(
            f"evaluation.generation.temperature must be above 0, got {g.temperature}; without samples it is greedy"
        )
    if g.top_p is not None and not 0 < g.top_p <= 1:
        raise ConfigError(f"evaluation.generation.top_p must lie in (0, 1], got {g.top_p}")
    if g.seed is not None and not 0 <= g.seed <= LARGEST_SEED:
        raise ConfigError(f"evaluation.generation.seed must lie in 0..{LARGEST_SEED}, got {g.seed}")
    if any(not text for text in g.stop or ()):
        raise ConfigError("evaluation.generation.stop holds an empty text, which stands before everything")


def check_backend(
    backend: str | None, server: ServerConfig, generation: GenerationConfig, decoding: list[str] | None
) -> None:
    """Check the back-end and its server.

    Raises:
        ConfigError: no such back-end, a setting that it lacks, or one that it can't do.
    """
    if backend is None:
        return
    if backend not in BACKENDS:
        raise ConfigError(f"evaluation.backend: no back-end {backend!r}{nearest(backend, BACKENDS)}")
    for name in ("url", "model"):
        if not getattr(server, name):
            raise ConfigError(f"evaluation.backend=openai needs evaluation.server.{name}")
    parts = urlsplit(server.url or "")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            f"evaluation.server.url={server.url}: must be of http or https, as in http://localhost:8000/v1"
        )
    for name, least in (("parallel", 1), ("parity_rows", 1)):
        if getattr(server, name) < least:
            raise ConfigError(f"evaluation.server.{name} must be at least {least}, got {getattr(server, name)}")
    if not server.timeout > 0:
        raise ConfigError(f"evaluation.server.timeout must be above 0, got {server.timeout}")
    if not 0 <= server.parity_least <= 1:
        raise ConfigError(f"evaluation.server.parity_least must lie in [0, 1], got {server.parity_least}")
    if not generation.greedy:
        raise ConfigError("evaluation.generation.beams: the protocol of evaluation.backend=openai has no beam search")
    if refused := [name for name in decoding or () if name in OF_DISTRIBUTIONS]:
        raise ConfigError(
            f"evaluation.decoding={refused[0]} needs the model's probabilities, and evaluation.backend=openai gives "
            "texts; take backend=transformers, or decoding=consensus"
        )
