"""Command line of `./mesh`: one parser, one module per command."""

from __future__ import annotations

import argparse
import difflib
import os
import sys

from mesh import bench, chat, down, lint, restart, status, suites, up
from mesh.errors import MeshError, OutputClosed

READER_LEFT = 141  # 128 + SIGPIPE, as a shell has it
EXAMPLES = """examples:
  ./mesh up                              build, start everything with models/demo
  ./mesh up --experts 4 --detach         four expert pools, in the background
  ./mesh chat "Explain MoE architecture" talk to it
  ./mesh status                          who runs, who is ready, who is missing
  ./mesh restart expert-0-0              start a process again
  ./mesh down                            stop everything
  ./mesh test                            what CI runs
"""


def main(argv: list[str]) -> int:
    """Parses the command and runs it; every failure is one line that says what to do next."""
    parser = argparse.ArgumentParser(
        prog="./mesh",
        description="Builds, starts, inspects and tests an ExpertMesh on this machine.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for module in (up, down, restart, status, chat, suites, bench, lint):
        module.add_commands(commands)
    if not argv or argv[0] == "help":
        parser.print_help()
        return 0
    if not argv[0].startswith("-") and argv[0] not in commands.choices:
        near = difflib.get_close_matches(argv[0], commands.choices, 1, 0.4)
        hint = f"; did you mean {near[0]}?" if near else ""
        print(f"mesh: no command {argv[0]}{hint} Commands: {', '.join(commands.choices)}",
              file=sys.stderr)
        return 2
    args = parser.parse_args(argv)
    try:
        return args.run(args)
    except MeshError as error:
        print(f"mesh: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def guarded(argv: list[str]) -> int:
    """main() for a terminal or a pipe: a reader that leaves, as `head` does, is no failure."""
    try:
        try:
            code = main(argv)
        except SystemExit as ended:  # argparse: after its help or its error
            code = ended.code if isinstance(ended.code, int) else 0
        sys.stdout.flush()
        return code
    except (BrokenPipeError, OutputClosed):
        for stream in (sys.stdout, sys.stderr):  # the interpreter flushes them once more
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return READER_LEFT


if __name__ == "__main__":
    sys.exit(guarded(sys.argv[1:]))
