"""Command line of `./mesh`: one parser, one module per command."""

from __future__ import annotations

import argparse
import sys

from mesh import bench, chat, lint, status, suites, up
from mesh.errors import MeshError

EXAMPLES = """examples:
  ./mesh up                              build, make a tiny model once, start everything
  ./mesh up --experts 4 --detach         four expert pools, in the background
  ./mesh chat "Explain MoE architecture" talk to it
  ./mesh status                          who runs, who is ready, who is missing
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
    for module in (up, status, chat, suites, bench, lint):
        module.add_commands(commands)
    if not argv:
        parser.print_help()
        return 0
    args = parser.parse_args(argv)
    try:
        return args.run(args)
    except MeshError as error:
        print(f"mesh: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
