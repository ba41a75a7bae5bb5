"""What varies is found in a registry by name. Ours are imported when they are asked for; a user's module adds its own.

```python
PROJECTORS: Registry[type[Projector]] = Registry("projector", {"mlp": "vlm.projector.mlp:MLPConfig"})

@PROJECTORS.register("mine")
class Mine(Projector): ...
```
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar, overload

from vlm import modules
from vlm.errors import BadInput, unknown

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, ValidationError
    from pydantic_core import CoreSchema

T = TypeVar("T")


class _Place(str):
    """`module:attribute` of what is not imported yet."""


class Registry(Mapping[str, T]):
    """Name -> value, in the order in which they were added. Modules that a user named or installed are imported when a
    name is not here, or all names are asked for.
    """

    def __init__(self, kind: str, builtin: Mapping[str, str] | None = None):
        """`kind` is what an error calls such a value; `builtin` maps names to `module:attribute`."""
        self.kind = kind
        self._values: dict[str, Any] = {name: _Place(place) for name, place in (builtin or {}).items()}

    __eq__, __hash__ = object.__eq__, object.__hash__  # itself, whatever is in it

    @overload
    def register(self, name: str, *, replace: bool = False) -> Callable[[T], T]: ...
    @overload
    def register(self, name: str, value: T, *, replace: bool = False) -> T: ...
    def register(self, name: str, value: Any = None, *, replace: bool = False) -> Any:
        """Add `value`, or without one the class or function that this decorates.

        Raises `BadInput` for a name that is taken, unless `replace` says to take its place.
        """
        if name in self._values and not replace:
            raise BadInput(f"{self.kind} {name!r} is there already; expected another name, or replace=True")

        def keep(value: T) -> T:
            self._values[name] = value
            return value

        return keep if value is None else keep(value)

    def __getitem__(self, name: str) -> T:
        """Raises `BadInput` with the nearest names for one that is not here."""
        if name not in self:
            raise unknown(self.kind, name, self._values)
        value = self._values[name]
        if isinstance(value, _Place):
            module, _, attribute = value.partition(":")
            value = self._values[name] = getattr(import_module(module), attribute)
        found: T = value
        return found

    def __contains__(self, name: object) -> bool:
        if name not in self._values:
            modules.load()
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def get(self, name: str, default: Any = None) -> Any:
        if name not in self:
            return default
        return self[name]

    def names(self) -> tuple[str, ...]:
        modules.load()
        return tuple(self._values)


@dataclass(frozen=True)
class Named:
    """`Annotated[str, Named(REGISTRY)]` is a config's field that holds a name of the registry."""

    registry: Registry[Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def _checked(self, name: str) -> str:
        if name not in self.registry:
            raise ValueError(str(unknown(self.registry.kind, name, self.registry)))
        return name


@dataclass(frozen=True)
class Chosen:
    """`Annotated[Base, Chosen(REGISTRY)]` is a config's field whose `key` says which registered class it is.

    Every class of the registry is a pydantic model that extends `Base` and has a field `key` of its own. The field
    takes a mapping, or a `Base` as it is, and is dumped as the class that it is.
    """

    registry: Registry[Any]
    key: str = "kind"
    default: str | None = None
    """The name where a mapping says none."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic import BaseModel
        from pydantic_core import core_schema

        base = source if isinstance(source, type) else BaseModel
        # Without a serializer of its own a value is dumped by its class.
        return core_schema.no_info_plain_validator_function(lambda value: self._read(value, base))

    def _read(self, value: Any, base: type) -> Any:
        if isinstance(value, base):
            return value
        if not isinstance(value, Mapping):
            raise self._refused("dict_type", value)
        name = value.get(self.key, self.default)
        if self.key not in value and name is None:
            raise self._refused("missing", value, self.key)
        if not isinstance(name, str):
            raise self._refused("string_type", name, self.key)
        try:
            found = self.registry[name]
        except BadInput as error:
            raise self._refused("value_error", name, self.key, error=ValueError(str(error))) from None
        if not isinstance(found, type) or not issubclass(found, base):
            raise ValueError(
                f"{self.registry.kind} {name!r} is {found!r}; expected a class that extends {base.__name__}"
            )
        return found.model_validate(dict(value))  # type: ignore[attr-defined]

    def _refused(self, kind: str, value: Any, *place: str, **context: Any) -> ValidationError:
        from pydantic_core import InitErrorDetails, ValidationError

        details = InitErrorDetails(type=kind, loc=place, input=value, ctx=context)
        return ValidationError.from_exception_data(self.registry.kind, [details])
