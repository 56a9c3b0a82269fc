"""`gantrt split`: side-by-side pictures become the folders trainA and trainB."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "cut side-by-side pictures into folders of A and B"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", metavar="DIR", help="pictures with A left and B right, or train/ [val/ test/] of them"
    )
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="gets trainA/ trainB/ [testA/ testB/ …]")
    parser.add_argument("--swap", action="store_true", help="the left half is B, the right one A")
    parser.add_argument("--overwrite", action="store_true", help="replace folders that exist")
    parser.add_argument("--no-progress", action="store_true", help="no progress on stderr")


def run(args: argparse.Namespace) -> int:
    from gantrt_training.split import split

    output = Path(args.output)
    progress = not (args.no_progress or args.quiet)
    counts = split(Path(args.folder), output, swap=args.swap, overwrite=args.overwrite, progress=progress)
    for part, count in counts.items():
        print(f"{output / part}A  {output / part}B  {count} pictures each")
    return 0
