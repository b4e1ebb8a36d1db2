"""`--data FILE...`: options that take several words, which click cannot express for options."""

from typing import Any, ClassVar

from typer.core import TyperArgument, TyperCommand


def many(*options: str) -> type[TyperCommand]:
    """A command class whose `options` take every word up to the next option, as if each were given by itself.

    A module says `COMMAND_CLASS = many("--data")`. Where the arguments (SRC) do not stand first,
    the last words are left to them.
    """

    class ManyCommand(_Many):
        repeated = options

    return ManyCommand


class _Many(TyperCommand):
    repeated: ClassVar[tuple[str, ...]] = ()

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        wanted = sum(isinstance(parameter, TyperArgument) for parameter in self.params)
        return super().parse_args(ctx, _spelled_out(args, self.repeated, wanted))


def _spelled_out(args: list[str], repeated: tuple[str, ...], arguments: int) -> list[str]:
    """Repeat the option before each of its words. arguments: how many words the command itself takes."""
    last = len(args)
    if args and args[0].startswith("-"):  # the arguments do not stand first, so they stand last
        last -= arguments
    spelled: list[str] = []
    option = ""
    for position, word in enumerate(args):
        if word.startswith("-") and word != "-":
            option = word
        elif option in repeated and position < last:
            spelled += [option, word]
            continue
        if word != option or option not in repeated:
            spelled.append(word)
    return spelled
