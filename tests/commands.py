"""Running the command line in this process, and text that a terminal must not obey."""

from click.testing import CliRunner

from squeezenet.cli import cli

# What a file may hold and a terminal must not obey: colours, a cleared screen, a set title, a carriage return,
# right-to-left text, C1 controls.
HOSTILE = ("\x1b[31mred", "\x1b]0;title\x07", "two\nlines", "\rover", "\u202egnp.exe\x9b2J")
SHOWN = (r"\x1b[31mred", r"\x1b]0;title\x07", r"two\nlines", r"\rover", r"\u202egnp.exe\x9b2J")


def run(*arguments, **options):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], prog_name="squeezenet", **options)
