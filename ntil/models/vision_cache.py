"""Disk cache of the features of a frozen vision tower, for later epochs and other runs.

The inputs of the projector are stored, so the projector may be trained; what the model does after it is the family's
(`Family.project`), and is compared with the model's own output once. The key is a hash of the tower's weights, the
model's config, the dtype of the computation, and the pixels as the tower gets them, which are picture and preprocessing
in one: a changed file, size or normalisation is another key. Results equal those without the cache up to float
rounding, since a tower's matmuls may round otherwise in a batch of another size.

One file per picture, written under another name and renamed, so any number of runs, ranks and hosts may share the
folder without locks; two that need the same new picture at once both compute it. The folder is bounded: when it is
full, sets of features (one per weights, config and dtype) that were not used for an hour are removed, least recently
used first; when there is none, no more is written and further pictures are computed only. A process measures the folder
after writing a twentieth of the limit, so N processes can exceed it by N/20.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from data.common.cache import cache_folder
from data.common.files import replacing
from ntil.config.errors import ConfigError
from ntil.distributed.zero3 import any_partitioned, full_shape, whole
from ntil.models.base import Family, unwrapped
from ntil.models.tuning import Parts

IN_USE = 3600.0  # seconds since its last use in which a set is never removed
_TOUCH = 600.0


class FeatureStore:
    """Tensors by key below `<root>/<name>`, while all sets below `root` hold at most `limit` bytes."""

    def __init__(self, root: Path, name: str, limit: int) -> None:
        self.root, self.path, self.limit = root, root / name, limit
        self.full = self._distrusted = False
        self._used = self.path / "USED"
        self._touched = 0.0
        self._touch()
        self._measure()

    def get(self, key: str) -> Tensor | None:
        if self._distrusted:
            return None
        self._touch()
        file = self._file(key)
        try:
            return load_file(file)["features"]
        except OSError:  # not there, or a shared folder that has lost it: computed again
            return None
        except (SafetensorError, KeyError):
            with suppress(OSError):  # a folder that can be read only
                file.unlink(missing_ok=True)
            return None

    def put(self, key: str, features: Tensor) -> None:
        size = features.nbytes + 128
        if self.full or not self._room(size):
            return
        try:
            with replacing(self._file(key)) as partial:
                save_file({"features": features.contiguous()}, partial)
        except (OSError, SafetensorError) as error:  # which safetensors raises for a full disk too
            self._stop(f"{self.root}: {error}")
            return
        self._total += size
        self._added += size

    def clear(self) -> None:
        """Remove all features; those that can't be removed are not read again."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._distrusted = any(self.path.rglob("*.safetensors"))
        self._touched = 0.0
        self._touch()
        self._measure()

    def _file(self, key: str) -> Path:
        return self.path / key[:2] / f"{key}.safetensors"

    def _room(self, size: int) -> bool:
        if self._added > self.limit / 20:
            self._measure()
        if self._total + size > self.limit:
            self._remove_others(size)
        if self._total + size > self.limit:
            self._stop(f"{self.root} holds {self._total / 1e9:.2f} of vision_cache_gb={self.limit / 1e9:g}")
            return False
        return True

    def _stop(self, reason: str) -> None:
        self.full = True
        warnings.warn(f"{reason}; features of further pictures are computed, not kept", stacklevel=3)

    def _remove_others(self, size: int) -> None:
        idle = [p for p in self.root.iterdir() if p != self.path and p.is_dir() and time.time() - _used(p) > IN_USE]
        for path in sorted(idle, key=_used):
            shutil.rmtree(path, ignore_errors=True)
            self._measure()
            if self._total + size <= self.limit:
                return

    def _measure(self) -> None:
        self._total, self._added = sum(_sizes(self.root)), 0

    def _touch(self) -> None:
        if time.monotonic() - self._touched > _TOUCH or not self._touched:
            self._touched = time.monotonic()
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                self._used.touch()
            except OSError as error:  # what lies in a folder that can be read only is of use all the same
                if not self.full:
                    self._stop(f"{self.root}: {error}")


class VisionCache:
    """Replace `get_image_features` of a model with a frozen tower by one that reads and fills a `FeatureStore`.

    The first picture of a process is computed in any case and compared with what is stored for it; where they differ,
    the set is emptied.

    Attributes:
        hits, misses: counts of pictures read and computed.
    """

    def __init__(self, family: Family, model: Any, root: Path, limit: int) -> None:
        self.hits = self.misses = 0
        self._family = family
        self._model = unwrapped(model)
        self._inner = self._model.base_model
        self._original: Callable[..., Any] = self._inner.get_image_features
        self._signature = inspect.signature(self._original)
        self._identity, self._root, self._limit = identity(family, self._model), root, limit
        self._stores: dict[str, FeatureStore] = {}
        self._listed: bool | None = None  # whether the model wants one tensor per picture, or all in one
        self._output: Any = None  # class of what the model's own method returns

        @wraps(self._original)
        def get_image_features(*args: Any, **kwargs: Any) -> Any:
            return self._features(*args, **kwargs)

        self._inner.get_image_features = get_image_features

    def close(self) -> None:
        """Restore the model's own `get_image_features`."""
        del self._inner.get_image_features

    def store(self, device: str, extra_arguments: dict[str, Any] | None = None) -> FeatureStore:
        """Store for the current dtype, which DeepSpeed or autocast may have changed since the start."""
        dtype = next(_of_tower(self._family, self._model))[1].dtype
        autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        extra = sorted((k, v) for k, v in (extra_arguments or {}).items() if v is not None and k != "return_dict")
        name = hashlib.sha256(f"{self._identity} {dtype} {autocast} {extra}".encode()).hexdigest()[:24]
        if name not in self._stores:
            self._stores[name] = FeatureStore(self._root, name, self._limit)
        return self._stores[name]

    def _features(self, *args: Any, **kwargs: Any) -> Any:
        arguments = self._signature.bind(*args, **kwargs).arguments
        arguments |= arguments.pop("kwargs", {})
        inputs = {k: v for k, v in arguments.items() if isinstance(v, Tensor)}
        extra_arguments = {k: v for k, v in arguments.items() if k not in inputs}
        pixels = inputs["pixel_values"]
        images = self._family.split_images(inputs)
        store = self.store(pixels.device.type, extra_arguments)
        keys = _keys(images)
        stored = [store.get(key) for key in keys]
        chosen = [i for i, features in enumerate(stored) if features is None]
        self.hits += len(images) - len(chosen)
        self.misses += len(chosen)
        if self._must_join(bool(chosen)) and not chosen:
            chosen = [0]
        if chosen:
            computed = self._compute([images[i] for i in chosen], extra_arguments)
            for i, fresh in zip(chosen, computed, strict=True):
                self._settle(store, keys[i], stored[i], fresh)
                stored[i] = fresh
        features = [f.to(pixels.device, non_blocking=True) for f in stored if f is not None]
        fields = self._family.project(self._model, self._projectors(), features, images)
        pooled = list(fields.pop("pooler_output"))
        return self._output(pooler_output=pooled if self._listed else torch.cat(pooled), **fields)

    def _must_join(self, missing: bool) -> bool:
        """Whether the tower runs on this rank: at first always; under ZeRO-3 on all ranks or on none."""
        if self._listed is None:
            return True
        # Asked now, since DeepSpeed cuts a model from scratch only after the cache is attached.
        if any_partitioned(self._model) and torch.distributed.get_world_size() > 1:
            flag = torch.tensor([missing], dtype=torch.int, device=self._model.device)
            torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
            return bool(flag.item())
        return missing

    @torch.no_grad()
    def _compute(self, images: list[dict[str, Tensor]], extra_arguments: dict[str, Any]) -> list[Tensor]:
        projectors = self._projectors()
        caught: list[Tensor | None] = [None] * len(projectors)

        def catch(index: int, inputs: tuple[Any, ...]) -> None:
            caught[index] = inputs[0]

        hooks = [p.register_forward_pre_hook(lambda _, inputs, i=i: catch(i, inputs)) for i, p in enumerate(projectors)]
        vision = self._model.get_submodule(self._family.parts["vision"])
        training = vision.training
        vision.eval()
        try:
            joined = {name: torch.cat([image[name] for image in images]) for name in images[0]}
            output = self._original(**joined, **extra_arguments)
        finally:
            for hook in hooks:
                hook.remove()
            vision.train(training)
        entered = torch.cat([c for c in caught if c is not None], -1) if len(caught) > 1 else caught[0]
        assert entered is not None
        features = list(entered.split([image["pixel_values"].shape[0] for image in images]))
        if self._listed is None:
            self._check(output, features, images)
            self._listed, self._output = not isinstance(output.pooler_output, Tensor), type(output)
        return features

    def _check(self, output: Any, features: list[Tensor], images: list[dict[str, Tensor]]) -> None:
        """Compare what is made of the kept features with the model's own output.

        Raises:
            ConfigError: they differ, so features can't be kept of this model.
        """
        fields = self._family.project(self._model, self._projectors(), features, images)
        for name, value in fields.items():
            one, two = _flat(value), _flat(output[name])
            limit = 1e-3 if two.dtype == torch.float32 else 5e-2
            if one.shape != two.shape or not torch.allclose(one, two, atol=limit, rtol=limit):
                raise ConfigError(
                    f"kept vision features don't give the {name} of {type(self._model).__name__}, since "
                    f"{type(self._family).__name__}.project doesn't do what the model does; set vision_cache_gb=0"
                )

    def _settle(self, store: FeatureStore, key: str, stored: Tensor | None, computed: Tensor) -> None:
        computed = computed.cpu()
        if stored is not None:
            limit = 1e-3 if computed.dtype == torch.float32 else 5e-2
            if stored.shape == computed.shape and torch.allclose(stored, computed, atol=limit, rtol=limit):
                return
            warnings.warn(f"{store.path}: stored features are not what the tower computes; emptied", stacklevel=2)
            store.clear()
        store.put(key, computed)

    def _projectors(self) -> list[nn.Module]:
        return list(Parts(self._family).modules(self._model, "projector").values())


def _flat(features: Any) -> Tensor:
    """All values of a tensor, or of lists of them, in order."""
    if isinstance(features, Tensor):
        return features.reshape(-1)
    return torch.cat([_flat(entry) for entry in features])


def attach(family: Family, model: Any, gigabytes: float) -> VisionCache | None:
    """Attach a cache in the user's cache folder; None if the model doesn't support one or `gigabytes` is 0."""
    if not gigabytes or not supported(family, model):
        return None
    return VisionCache(family, model, cache_folder() / "vision", int(gigabytes * 1e9))


def supported(family: Family, model: Any) -> bool:
    """Whether the model has a tower and a projector, and takes the features from one method of its own."""
    inner = getattr(unwrapped(model), "base_model", None)
    return {"vision", "projector"} <= set(family.parts) and hasattr(inner, "get_image_features")


def identity(family: Family, model: Any) -> str:
    """Hash of all that the features depend on besides the pixels and the current dtype."""
    facts = _facts(model.config.to_dict())
    digest = hashlib.sha256(f"{type(model).__name__} {transformers.__version__} {facts}".encode())
    for name, parameter in _of_tower(family, model):
        digest.update(f"{name} {parameter.dtype} {full_shape(parameter)}".encode())
        digest.update(_bytes(whole(parameter)))
    return digest.hexdigest()


def _facts(config: dict[Any, Any]) -> list[tuple[str, Any]]:
    """Sorted items of a config, without those that saving and loading the same model change."""
    changing = ("_name_or_path", "transformers_version", "architectures", "dtype", "use_cache")
    facts = {str(k): _facts(v) if isinstance(v, dict) else v for k, v in config.items() if k not in changing}
    return sorted(facts.items())


def _of_tower(family: Family, model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    parts = Parts(family)
    return ((name, p) for name, p in model.named_parameters() if parts.of(name) == "vision")


def _keys(images: list[dict[str, Tensor]]) -> list[str]:
    keys = []
    for image in images:
        digest = hashlib.blake2b(digest_size=20)
        for name in sorted(image):
            digest.update(f"{name} {image[name].dtype} {tuple(image[name].shape)}".encode())
            digest.update(_bytes(image[name]))
        keys.append(digest.hexdigest())
    return keys


def _bytes(tensor: Tensor) -> Any:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _sizes(root: Path) -> Iterator[int]:
    for path, _, files in os.walk(root):
        for name in files:
            try:
                yield Path(path, name).stat().st_size
            except FileNotFoundError:
                continue


def _used(path: Path) -> float:
    try:
        return (path / "USED").stat().st_mtime
    except OSError:
        return 0.0
