"""What the line of every command has in common: `-h`, `--data-dir`, `-o`, and how a choice is
refused. Nothing heavy is imported here; no command is known here.
"""

import inspect
import os
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand

CONTEXT: Final[dict[str, Any]] = {"help_option_names": ["-h", "--help"]}

OrganizationOption = Annotated[
    str, typer.Option("--organization", "-o", metavar="ID", help="The organization's id.")
]
OnlyOrganizationOption = Annotated[
    str | None, typer.Option("--organization", "-o", metavar="ID", help="Only this organization.")
]
DataDirOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help="Where `metering up` keeps everything; METERING_DATA_DIR says the same.",
    ),
]


class _PlainCommand(TyperCommand):
    """Says what is wrong with a value without the library's name for its check."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")
            raise


class Commands(typer.Typer):
    """A group of commands as all of ours are: plain help, and no shell completion, since that
    would be written into files of the user's and know only the first word of a line."""

    def __init__(self, about: str, *, no_args_is_help: bool = True) -> None:
        super().__init__(
            help=about,
            no_args_is_help=no_args_is_help,
            add_completion=False,
            rich_markup_mode=None,
            pretty_exceptions_enable=False,
            context_settings=CONTEXT,
        )

    def command(  # type: ignore[override]
        self, name: str | None = None, *, passes_on: bool = False, **options: Any
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """As typer's, for a command that takes `--data-dir` too. With `passes_on` it takes all
        arguments as they are, `--help` included, for a module that reads them itself."""
        passing = {"allow_extra_args": True, "ignore_unknown_options": True}
        context = {**passing, "help_option_names": list[str]()} if passes_on else CONTEXT
        register = super().command(name, cls=_PlainCommand, context_settings=context, **options)

        def add(function: Callable[..., Any]) -> Callable[..., Any]:
            register(function if passes_on else _with_data_dir(function))
            return function

        return add


def one_of(what: str, allowed: Callable[[], Iterable[str]]) -> Callable[[str], str]:
    """A parser for an option or argument, which names the right words when it is given another.

    `allowed` is asked only when the command runs, so that it may import what help must not wait
    for.
    """

    def parse(word: str) -> str:
        words = list(allowed())
        if word not in words:
            raise typer.BadParameter(f"{word!r} is no {what}: choose one of {', '.join(words)}")
        return word

    return parse


def _with_data_dir(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def run(*arguments: Any, data_dir: Path | None = None, **options: Any) -> Any:
        if data_dir is not None:
            os.environ["METERING_DATA_DIR"] = str(data_dir.absolute())
        return function(*arguments, **options)

    signature = inspect.signature(function, eval_str=True)
    added = inspect.Parameter(
        "data_dir", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=DataDirOption
    )
    parameters = [*signature.parameters.values(), added]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {**function.__annotations__, "data_dir": DataDirOption}
    return run
