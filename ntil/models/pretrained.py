"""Reading of pretrained checkpoints; every failure is one sentence with the remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from huggingface_hub import save_torch_state_dict
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from safetensors import SafetensorError
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from data.common.counts import counted
from ntil.config.errors import ConfigError

_UNREACHED = "not in the local cache, and the hub can't be reached; download it first, or give a folder"
_DAMAGED = "its weights are damaged; download them again"


class CheckpointError(ConfigError):
    """The checkpoint can't be read as it stands; the message is one sentence with the remedy."""


def is_path(checkpoint: str | Path) -> bool:
    """Whether the name can only be that of a folder, existing or not: names on the hub have one slash at most."""
    name = str(checkpoint)
    return Path(name).expanduser().is_absolute() or name.startswith(("./", "../", "~")) or name.count("/") > 1


def refuse_adapter(checkpoint: str | Path) -> None:
    """Refuse a folder that holds an adapter without its base model.

    Raises:
        CheckpointError: names the command that merges the two.
    """
    folder = Path(checkpoint).expanduser()
    if (folder / "adapter_config.json").exists() and not (folder / "config.json").exists():
        raise CheckpointError(
            f"model.checkpoint={checkpoint} holds a LoRA adapter, no whole model; merge it into its base with "
            "`ntil export run=<the adapter's run> to=<folder>` and give that folder"
        )


@contextmanager
def reading(checkpoint: str | Path) -> Iterator[None]:
    """Turn the errors of reading a hub name or folder into a `CheckpointError`.

    Raises:
        CheckpointError: no such folder or name, a folder without a model, a gated model, an unreachable hub, files that
            are damaged, or weights of other sizes than the config's.
    """
    folder = Path(checkpoint).expanduser()
    refuse_adapter(checkpoint)
    if folder.is_dir() and not (folder / "config.json").exists():
        raise CheckpointError(f"model.checkpoint={checkpoint} holds no config.json; give the folder that has one")
    if is_path(checkpoint) and not folder.exists():
        raise CheckpointError(f"model.checkpoint={checkpoint}: no such folder; give an existing one or a hub name")
    try:
        yield
    except CheckpointError:
        raise
    except (OSError, HFValidationError) as error:
        raise CheckpointError(f"model.checkpoint={checkpoint}: {_reason(error)}") from error
    except (SafetensorError, UnpicklingError) as error:
        raise CheckpointError(f"model.checkpoint={checkpoint}: {_DAMAGED}") from error
    except RuntimeError as error:
        if "PytorchStreamReader" in str(error):
            raise CheckpointError(f"model.checkpoint={checkpoint}: {_DAMAGED}") from error
        if "mismatch" not in str(error):
            raise
        raise CheckpointError(
            f"model.checkpoint={checkpoint}: its weights have other sizes than its config.json says; "
            "take both from the same release"
        ) from error


def read_weights(
    model_class: Any,
    source: str | Path,
    release_name: Callable[[str], str] = lambda name: name,
    allow_pickle: bool = False,
    **how: Any,
) -> Any:
    """Load a model with all its weights from `source`; `release_name` maps the name of a weight to that in the release.

    Args:
        allow_pickle: read .bin files where there are no safetensors; only tensors are unpickled.

    Raises:
        CheckpointError: see `reading`; or weights that aren't there (transformers would draw them at random).
    """
    with reading(source):
        safe = None if allow_pickle else True
        try:
            model, info = model_class.from_pretrained(source, output_loading_info=True, use_safetensors=safe, **how)
        except OSError as error:
            if allow_pickle or "safetensors" not in str(error):
                raise
            if Path(source).is_dir() and not any(Path(source).glob("*.bin")):
                raise CheckpointError(
                    f"model.checkpoint={source} holds no weights: put model.safetensors or its shards there"
                ) from error
            raise CheckpointError(
                f"model.checkpoint={source} has no safetensors; if you trust its pickled .bin files, "
                "set model.allow_pickle=true (tensors alone are read from them)"
            ) from error
        missing = sorted(info["missing_keys"])
        if missing:
            raise CheckpointError(
                f"model.checkpoint={source}: {counted(len(missing), 'weight')} of {type(model).__name__} "
                f"{'is' if len(missing) == 1 else 'are'} missing (the first is {release_name(missing[0])}); "
                "give a folder in the layout of the release"
            )
        return model


def _reason(error: BaseException) -> str:
    chain: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in chain:
        chain.append(at)
        at = at.__cause__ or at.__context__
    if any(isinstance(e, GatedRepoError) for e in chain):
        return "the model is gated; accept its licence on its hub page, then log in with `hf auth login`"
    if any(isinstance(e, LocalEntryNotFoundError | OfflineModeIsEnabled) for e in chain):
        return _UNREACHED
    if any(isinstance(e, RepositoryNotFoundError | HFValidationError) for e in chain):
        return "no such model on the hub (or a private one); check the name, or give a folder"
    text = str(error).strip()
    if "connect" in text or "offline" in text:
        return _UNREACHED
    return text.splitlines()[0] if text else type(error).__name__


def config_of(config_class: Any, checkpoint: str | Path) -> Any:
    """The checkpoint's config.

    Raises:
        CheckpointError: it can't be read, or is another family's.
    """
    with reading(checkpoint):
        kind = config_class.get_config_dict(checkpoint)[0].get("model_type")
        if kind != config_class.model_type:
            raise CheckpointError(
                f"model.checkpoint={checkpoint} is a {kind!r}, not a {config_class.model_type!r}; "
                "take the config of its own family"
            )
        return config_class.from_pretrained(checkpoint)


def same_sizes(checkpoint: str | Path, config: Any, configured: dict[str, Any] | None, group: str = "") -> None:
    """Check that the sizes in the run's config are those of the checkpoint.

    Raises:
        CheckpointError: a size of a model from scratch, `model.<group><name>`, that isn't the checkpoint's own `config`
            value. (The configs of nano models state theirs also where a run starts from trained ones.)
    """
    for name, value in (configured or {}).items():
        current = getattr(config, name, value)
        if isinstance(value, int) and value != current:
            raise CheckpointError(
                f"model.{group}{name}={value} is for a model from scratch, and model.checkpoint={checkpoint} "
                f"has {current}; leave one of them out, or take the config of its own model"
            )


def same_sizes_of_parts(
    checkpoint: str | Path,
    config: Any,
    sizes: dict[str, Any],
    vision: dict[str, Any] | None,
    language: dict[str, Any] | None,
) -> None:
    """Run `same_sizes` on the parts of a model with a vision tower; `sizes` holds values of `model.<name>`.

    Raises:
        CheckpointError: see `same_sizes`.
    """
    same_sizes(checkpoint, config.vision_config, sizes)
    same_sizes(checkpoint, config.vision_config, vision, "vision.")
    same_sizes(checkpoint, config.text_config, language, "language.")


def must_be_given(**keys: Any) -> None:
    """Check that the options of a model from scratch are given.

    Raises:
        ValueError: one of the `model.<key>` that a model from scratch is made of is missing.
    """
    missing = [f"model.{key}" for key, value in keys.items() if not value]
    if missing:
        raise ValueError(f"model.checkpoint is null, so {' and '.join(missing)} must be given")


def fits(tokenizer: PreTrainedTokenizerBase, config: Any, checkpoint: str | Path, unused: str | None = None) -> None:
    """Check that the embedding has a row for every id of the tokenizer.

    Args:
        unused: a token that no text may hold, so that it needs no row.

    Raises:
        CheckpointError: the tokenizer knows ids that the embedding has no row for. (Fewer ids than rows are usual.)
    """
    ids = max(index for token, index in tokenizer.get_vocab().items() if token != unused) + 1
    rows = config.get_text_config().vocab_size
    if ids > rows:
        raise CheckpointError(
            f"model.checkpoint={checkpoint}: the tokenizer has {ids} ids, the embedding {rows} rows; "
            "take the tokenizer files that belong to these weights"
        )


def token_of(tokenizer: PreTrainedTokenizerBase, index: int, source: str | Path | None) -> str:
    """The special token of an id that a config names.

    Raises:
        CheckpointError: the tokenizer has no such special token.
    """
    if index not in getattr(tokenizer, "added_tokens_decoder", {}):
        raise CheckpointError(
            f"model.checkpoint={source}: the image token {index} of its config is no special token of its tokenizer; "
            "take the tokenizer files that belong to these weights"
        )
    return str(tokenizer.convert_ids_to_tokens(index))


def tokenizer_as_shipped(checkpoint: str | Path) -> PreTrainedTokenizerFast:
    """The checkpoint's tokenizer as its tokenizer.json has it, else its SentencePiece tokenizer.model; no remote code.

    `AutoTokenizer` of transformers 5 would rebuild a `LlamaTokenizer` with Llama's own space before the first word,
    whatever the file says, which changes Yi's ids; for Baichuan2 it asks to run code from the repository.

    Raises:
        CheckpointError: neither file is there, or the checkpoint can't be reached.
    """
    with reading(checkpoint):
        from transformers.utils import cached_file

        files = {
            name: cached_file(str(checkpoint), name, _raise_exceptions_for_missing_entries=False)
            for name in ("tokenizer.json", "tokenizer.model")
        }
        if not any(files.values()):
            cached_file(str(checkpoint), "config.json")  # raises the reason if no file can be read
            raise CheckpointError(f"model.checkpoint={checkpoint} has neither tokenizer.json nor tokenizer.model")
        tokenizer = PreTrainedTokenizerFast.from_pretrained(checkpoint)
    if files["tokenizer.json"] is None:
        _merge_as_sentencepiece(tokenizer, str(files["tokenizer.model"]))
    tokenizer.init_kwargs.pop("auto_map", None)  # a saved copy must not ask for remote code again
    return tokenizer


def write_weights(weights: dict[str, Tensor], folder: Path) -> None:
    """Write `weights` to `folder` as safetensors, in one or several files.

    Parameters that are views of a larger tensor, as in DeepSpeed, are copied first, since safetensors refuses these.
    """
    contiguous = {k: v if v.untyped_storage().nbytes() == v.nbytes else v.clone() for k, v in weights.items()}
    save_torch_state_dict(contiguous, folder)


def _merge_as_sentencepiece(tokenizer: PreTrainedTokenizerFast, model_file: str) -> None:
    """Fix two things that transformers' own conversion leaves out, in place.

    Pieces merge in the order of their SCORES, which is not always that of their ids (Llama-2's runs of spaces); and
    `add_dummy_prefix` puts a space before the first word.
    """
    from sentencepiece import sentencepiece_model_pb2
    from tokenizers import decoders, models, normalizers
    from transformers.convert_slow_tokenizer import generate_merges

    proto: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    proto.ParseFromString(Path(model_file).read_bytes())
    vocab = {p.piece: i for i, p in enumerate(proto.pieces)}
    normal = {p.piece: p.score for p in proto.pieces if p.type == p.NORMAL}
    spec, backend = proto.trainer_spec, tokenizer.backend_tokenizer
    backend.model = models.BPE(
        vocab=vocab,
        merges=generate_merges(vocab, normal),
        unk_token=spec.unk_piece,
        fuse_unk=True,
        byte_fallback=spec.byte_fallback,
    )
    if proto.normalizer_spec.add_dummy_prefix:
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), backend.normalizer])
        backend.decoder = decoders.Sequence([backend.decoder, decoders.Strip(" ", 1, 0)])
