"""Groups of commands."""

import click


class Listing(click.Group):
    """A group that lists where no command is named: `goqueue queues -o json` is `goqueue queues list -o json`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Name the command `list` where the arguments name none."""
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)
