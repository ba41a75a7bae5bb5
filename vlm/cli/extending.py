"""What every command takes: modules and folders of cards of the user's own, before or after the command's name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, get_type_hints

import typer

from vlm import assets, modules


def _shared(
    module: Annotated[
        list[str] | None,
        typer.Option("--module", metavar="NAME", help="Import a module that adds to the registries; may be repeated."),
    ] = None,
    cards: Annotated[
        list[str] | None,
        typer.Option("--cards", metavar="DIR", help="Find cards in DIR/models, data, eval, train; may be repeated."),
    ] = None,
) -> None:
    """Also what `$VLM_MODULES` and `$VLM_CARDS` name. Raises `BadInput` for what is not there."""
    for folder in cards or ():
        assets.use(folder)
    modules.load_named()
    for name in module or ():
        modules.use(name)


def extended(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with these options, which are seen to before it runs."""
    own, shared = _resolved(command), _resolved(_shared)

    @wraps(command)
    def run(**options: Any) -> Any:
        _shared(**{name: options.pop(name) for name in shared})
        return command(**options)

    parameters = [*own.values(), *shared.values()]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _resolved(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Parameters whose annotations are types, and not the text of a module that imports them."""
    hints = get_type_hints(function, include_extras=True)
    return {
        name: parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in inspect.signature(function).parameters.items()
    }
