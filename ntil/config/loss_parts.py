"""A loss whose parts are named: each name is replaced by the config of that name.

A run's folder then holds all that is computed, whatever becomes of the configs, and so does its identity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ntil.config.errors import ConfigError, nearest

Options = dict[str, Any]
ONE_OF_ALL = ("lam", "ce_weight", "smoothing", "replace_ce")  # options of a sum in place of those of its parts


def with_parts(loss: Options, read: Callable[[str], Options], names: Sequence[str]) -> Options:
    """A loss's config with the config of each part, by name; one without named parts as it is.

    `parts` is a list of names, or one; `weights` null, a list in their order, or by name; `options` by part.

    Args:
        read: reads the config of a name. names: all there are.

    Raises:
        ConfigError: parts, weights or options that aren't of this form; an option of a part that does nothing here.
    """
    parts = loss.get("parts")
    if isinstance(parts, str):
        parts = [parts]
    if not isinstance(parts, list):
        return loss
    for name in parts:
        if name not in names:
            raise ConfigError(f"loss.parts: no config {name!r}{nearest(str(name), names)}")
        if parts.count(name) > 1:
            raise ConfigError(f"loss.parts names {name} twice; give it one weight")
    options, weights = loss.get("options") or {}, _weights(loss.get("weights"), parts)
    for key, named in (("options", options), ("weights", weights)):
        if not isinstance(named, dict):
            raise ConfigError(f"loss.{key}={named}: must be by the names of the parts, as in {{emd: ...}}")
        for name in named:
            if name not in parts:
                raise ConfigError(f"loss.{key}.{name}: no part {name!r}{nearest(str(name), parts)}")
    _check_options(loss, options)
    configs = {name: read(name) for name in parts}
    for name, config in configs.items():
        if "parts" in config:
            raise ConfigError(f"loss.parts: {name} is a sum itself; name its parts instead")
    expanded = {name: {**config, **(options.get(name) or {})} for name, config in configs.items()}
    others = {k: v for k, v in loss.items() if k not in ("options", "parts", "weights")}
    return {**others, "name": loss.get("name") or "+".join(parts), "parts": expanded, "weights": weights}


def _check_options(loss: Options, options: dict[str, Options | None]) -> None:
    """Check that no option of a part is one that the sum has in its place: it would change the hash alone.

    Raises:
        ConfigError: it is.
    """
    in_place = {key: key for key in ONE_OF_ALL} | {"rescale": "balance"}
    for name, of_part in options.items():
        for key in of_part or {}:
            one = in_place.get(key)
            if one is not None and loss.get(one) is not None:
                raise ConfigError(
                    f"loss.options.{name}.{key} does nothing beside loss.{one}={loss[one]}; leave one of them out"
                )


def _weights(weights: Any, parts: Sequence[str]) -> Any:
    """Weights by name, all of them, as floats: what means the same has one hash."""
    if isinstance(weights, list):
        if len(weights) != len(parts):
            raise ConfigError(f"loss.weights={weights}: there are {len(parts)} parts, {', '.join(map(str, parts))}")
        weights = dict(zip(parts, weights, strict=True))
    if weights is None or isinstance(weights, dict):
        weights = {**dict.fromkeys(parts, 1.0), **(weights or {})}
        return {k: float(v) if isinstance(v, int) and not isinstance(v, bool) else v for k, v in weights.items()}
    return weights
