"""Commands whose arguments may begin with a dash, as the ids of some catalogues do."""

from typing import Any

from typer.core import TyperCommand


class AskingCommand(TyperCommand):
    """Takes what begins with a single dash, and is not an option, for an argument."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Move all arguments behind the options, and behind the mark that no option follows."""
        takes_value = {
            name: not getattr(parameter, "is_flag", False)
            for parameter in self.get_params(ctx)
            for name in parameter.opts
        }
        options: list[str] = []
        arguments: list[str] = []
        rest = iter(args)
        for each in rest:
            if each == "--":
                arguments += rest
            elif each not in takes_value and not each.startswith("--"):
                arguments.append(each)
            else:
                options.append(each)
                if takes_value.get(each):
                    if (value := next(rest, None)) is None:
                        return super().parse_args(ctx, args)  # which says that it is missing
                    options.append(value)
        return super().parse_args(ctx, [*options, "--", *arguments])
