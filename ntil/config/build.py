"""Building of components from their `target` and options, both checked before use.

A target is a class of its group (`GROUPS`), or a function annotated to return one, in a package of this project, in a
module that an active plug-in's YAML names (`ntil.config.plugins`), or in a package that the environment of this process
declares (`NTIL_PACKAGES=mine,other`): a run folder from elsewhere can't name code to run. Options are checked against
the target's signature and its annotations before anything is built.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from data.common.errors import UserError
from ntil.config.errors import ConfigError, nearest
from ntil.config.plugins import providing
from ntil.config.schema import Component
from ntil.rooms import canonical, importable

PACKAGES = ("ntil", "tasks", "data")
# Group -> what its members must be. `source` and `extractor` are options of a task, `task` also one of a mixture.
GROUPS = {
    "model": "ntil.models.base:Family",
    "task": "tasks.base:Task",
    "loss": "ntil.losses.base:NumberLoss",
    "source": "data.common.source:Source",
    "extractor": "tasks.answers.mathvista_extraction:Extractor",
}
NESTED = ("source", "extractor", "task", "loss")  # options of members may be of these groups
# Arguments that the model in use gives to a target, and a config can't.
GIVEN = {"task": ("coords", "own_question"), "loss": ("vocab",)}
_STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True, allow_inf_nan=False)


def declared_packages() -> tuple[str, ...]:
    """The packages whose classes a config may name."""
    return (*PACKAGES, *(name for name in os.environ.get("NTIL_PACKAGES", "").split(",") if name))


def is_trusted(module: str) -> bool:
    """Whether a config may name classes of a module."""
    return canonical(module).partition(".")[0] in declared_packages() or providing(module) is not None


def locate(target: str, group: str, key: str | None = None) -> Any:
    """The class (or function that makes one) at "module:name", a member of the group.

    Args:
        key: the component's own key, where it isn't the group's name.

    Raises:
        ConfigError: a package that isn't trusted, no such module or name, or no member of the group.
    """
    key = f"{key or group}.target={target!r}"
    module_name, _, name = target.partition(":")
    module_name = canonical(module_name)
    if not is_trusted(module_name):
        raise ConfigError(
            f"{key}: only classes in {', '.join(declared_packages())} can be named; code of your own is a plug-in, "
            "active with --config-dir <folder of its configs>, or a package declared with NTIL_PACKAGES=<its name> in "
            "the environment"
        )
    try:
        plugin = providing(module_name)
        module = plugin.load(module_name) if plugin else importlib.import_module(importable(module_name))
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigError(f"{key}: {module_name} imports {error.name}, which isn't installed here") from error
        raise ConfigError(f"{key}: {error}; write it as 'package.module:Class'") from error
    member = vars(module).get(name)
    if not _is_member(member, group):
        members = [n for n, value in vars(module).items() if _is_member(value, group)]
        base = group_class(group).__name__
        hint = nearest(name, members) if members else ""
        raise ConfigError(f"{key}: {module_name} has no {base} {name!r}{hint}")
    return member


def _is_member(value: Any, group: str) -> bool:
    base = group_class(group)
    if inspect.isclass(value):
        return issubclass(value, base) and not inspect.isabstract(value)
    if not inspect.isfunction(value) or not is_trusted(value.__module__):
        return False
    try:
        returned = typing.get_type_hints(value).get("return")
    except NameError:  # of a helper whose types are imported for type checkers alone
        return False
    return inspect.isclass(returned) and issubclass(returned, base)


def group_module(group: str) -> str:
    """Module of the base class of the group."""
    return importable(GROUPS[group].partition(":")[0])


def group_class(group: str) -> type:
    """Base class of all members of the group."""
    module, _, name = GROUPS[group].partition(":")
    member = getattr(importlib.import_module(importable(module)), name)
    assert isinstance(member, type)
    return member


@dataclass(frozen=True)
class Parameter:
    """One parameter of a target.

    Attributes:
        group: the group that an option is a member of, as `source` of a task is. by_name: it is several by name, as the
            parts of a sum of losses and the tasks of a mixture are.
    """

    name: str
    annotation: Any
    required: bool
    group: str | None

    @property
    def by_name(self) -> bool:
        return self.group is not None and typing.get_origin(self.annotation) in (dict, Mapping)


def parameters(target: Any) -> tuple[dict[str, Parameter], bool]:
    """A target's parameters by name, and whether it takes arbitrary keyword arguments.

    `**options: Unpack[Some]`, with a TypedDict of options that all may be left out, are parameters like any other.
    """
    signature = inspect.signature(target)
    try:
        hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except NameError as error:
        raise ConfigError(
            f"{target.__module__}:{target.__name__}: the type {error.name!r} of an option isn't there at run time; "
            "import it outside of `if TYPE_CHECKING`"
        ) from error
    by_name: dict[str, Parameter] = {}
    takes_others = False
    for name, parameter in signature.parameters.items():
        annotation = hints.get(name, Any)
        if parameter.kind is parameter.VAR_KEYWORD:
            listed = _unpacked(annotation)
            takes_others |= listed is None
            by_name |= {n: Parameter(n, kind, False, _group_of(kind)) for n, kind in (listed or {}).items()}
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            required = parameter.default is parameter.empty
            by_name[name] = Parameter(name, annotation, required, _group_of(annotation))
    return by_name, takes_others


def _unpacked(annotation: Any) -> dict[str, Any] | None:
    """Names and types of `Unpack[<TypedDict>]`; None for any other annotation."""
    if typing.get_origin(annotation) is not typing.Unpack:
        return None
    return typing.get_type_hints(typing.get_args(annotation)[0])


def _group_of(annotation: Any) -> str | None:
    for group in NESTED:
        if group_module(group) not in sys.modules:
            continue  # nobody can have named a class of it
        if any(issubclass(c, group_class(group)) for c in _classes(annotation)):
            return group
    return None


def check_component(group: str, component: Component, key: str | None = None) -> dict[str, Any]:
    """Check a component's options against its target without building it; the options as the target takes them.

    Args:
        key: the component's own key, where it isn't the group's name.

    Raises:
        ConfigError: a target that can't be named, an option that it doesn't take (with the nearest one), one of another
            type, one that is missing, or one that follows from the model.
    """
    key = key or group
    by_name, takes_others = parameters(locate(component.target, group, key))
    provided = GIVEN.get(group, ())
    for name in component.options:
        if name in provided:
            raise ConfigError(f"{key}.{name} follows from the model and can't be set; try model.{name}=...")
        if name not in by_name and not takes_others:
            raise ConfigError(
                f"{key}.{name}: {component.target} has no such option{nearest(name, {*by_name} - {*provided})}"
            )
    missing = [
        p.name for p in by_name.values() if p.required and p.name not in component.options and p.name not in provided
    ]
    if missing:
        raise ConfigError(f"{key}: {component.target} needs {', '.join(missing)}; set {key}.{missing[0]}=...")
    return {
        name: _checked_value(by_name[name], value, f"{key}.{name}") if name in by_name else value
        for name, value in component.options.items()
    }


def _checked_value(parameter: Parameter, value: Any, key: str) -> Any:
    if parameter.by_name and value is not None:
        return _checked_members(parameter, value, key)
    if parameter.group is not None and value is not None:
        return _checked_nested(parameter, value, key)
    try:
        return TypeAdapter(parameter.annotation, config=_STRICT).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join([key, *(str(part) for part in first["loc"] if _is_key(part, value))])
        message = str(first["msg"]).replace("Input should be", "must be")
        raise ConfigError(f"{path}={_shown(first['input'])}: {message}") from error


def _checked_members(parameter: Parameter, value: Any, key: str) -> dict[str, Component]:
    """The components of an option that has several, by name."""
    if not isinstance(value, dict) or not all(isinstance(one, dict) for one in value.values()):
        raise ConfigError(f"{key}={_shown(value)}: must be components by name, each with a target and its options")
    return {name: _checked_nested(parameter, {**one, "name": name}, f"{key}.{name}") for name, one in value.items()}


def _checked_nested(parameter: Parameter, value: Any, key: str) -> Component:
    """The component that is an option of another: `{name, target, ...}`, or a target alone."""
    if not isinstance(value, dict | str):
        raise ConfigError(f"{key}={_shown(value)}: must be a component, with a target and its options")
    component = Component.from_dict(key, {"target": value} if isinstance(value, str) else value)
    assert parameter.group is not None
    check_component(parameter.group, component, key)
    accepted, built = _classes(parameter.annotation), locate(component.target, parameter.group, key)
    if inspect.isclass(built) and not issubclass(built, accepted):
        names = " or ".join(c.__name__ for c in accepted)
        raise ConfigError(f"{key}.target={component.target!r}: must be of {names}")
    return component


def _classes(annotation: Any) -> tuple[type, ...]:
    """The classes that an annotation names, without NoneType."""
    classes = [a for a in (annotation, *typing.get_args(annotation)) if inspect.isclass(a) and a is not type(None)]
    return tuple(classes)


def _is_key(part: Any, value: Any) -> bool:
    """Whether a part of pydantic's location is a key or index of the value, not the name of a type in a union."""
    return isinstance(part, int) or (isinstance(value, dict) and part in value)


def _shown(value: Any, longest: int = 60) -> str:
    text = str(value)
    return text if len(text) <= longest else f"{text[:longest]}..."


def build(group: str, component: Component, key: str | None = None, **context: Any) -> Any:
    """Call the target with its options, and with those of the `context` values that its signature names.

    Raises:
        ConfigError: see `check_component`; or the target refuses its options.
    """
    options = check_component(group, component, key)
    target = locate(component.target, group)
    by_name, _ = parameters(target)
    for name, value in options.items():
        if name not in context:
            options[name] = _built(by_name.get(name), value, f"{key or group}.{name}", context)
    try:
        return target(**{**options, **{k: v for k, v in context.items() if k in by_name}})
    except UserError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _built(parameter: Parameter | None, value: Any, key: str, context: dict[str, Any]) -> Any:
    """An option's value as the target takes it: components are built, those of a group by name one by one."""
    if parameter is None or parameter.group is None:
        return value
    if isinstance(value, Component):
        return build(parameter.group, value, key, **context)
    if parameter.by_name and isinstance(value, dict):
        return {name: build(parameter.group, part, f"{key}.{name}", **context) for name, part in value.items()}
    return value


def check_groups(components: Mapping[str, Component], groups: Iterable[str] = ("model", "task", "loss")) -> None:
    """Run `check_component` on the component of each group.

    Raises:
        ConfigError: see `check_component`.
    """
    for group in groups:
        check_component(group, components[group])
