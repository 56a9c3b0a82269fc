"""Translate a folder that is too large for one machine, with Ray Data.

    pip install gantrt 'ray[data]'
    python examples/ray_data.py --engine facades.onnx IN -o OUT --workers 8 [--address auto]

IN and OUT are folders every machine of the cluster can reach. Each worker loads the engine once. A picture that cannot
be read is reported and stops nothing; one that is there already is skipped, so that a run can be continued.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import ray

CORES = 1  # of each worker


class Translate:
    """What a worker does: pictures in, their translations written, one row about each."""

    def __init__(self, engine: str, source: str, output: str) -> None:
        import gantrt

        self._translator = gantrt.load(engine, threads=CORES)
        self._source, self._output = Path(source), Path(output)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        from gantrt.errors import UnsupportedInput

        said = []
        for path in map(Path, batch["path"]):
            try:
                said.append(self._translate(path))
            except UnsupportedInput as error:
                said.append(str(error))
        return {"path": batch["path"], "said": np.array(said, object)}

    def _translate(self, path: Path) -> str:
        """Nothing, or "skipped"."""
        import dataclasses

        from gantrt.video.images import SUFFIXES, read_picture, write_picture

        suffix = path.suffix if path.suffix.lower() in SUFFIXES else ".png"
        output = self._output / path.relative_to(self._source).with_suffix(suffix)
        if output.exists():
            return "skipped"
        picture = read_picture(path)
        write_picture(output, dataclasses.replace(picture, image=self._translator(picture.image)))
        return ""


def translate(engine: str, source: str, output: str, workers: int) -> dict[str, str]:
    """All pictures below `source`; what was said of those that were not translated."""
    from gantrt.video.images import READ_SUFFIXES

    root = Path(source).resolve()
    found = sorted(str(path) for path in root.rglob("*") if path.suffix.lower() in READ_SUFFIXES)
    rows = ray.data.from_items([{"path": path} for path in found]).map_batches(
        Translate,
        fn_constructor_args=(str(Path(engine).resolve()), str(root), str(Path(output).resolve())),
        batch_size=16,
        concurrency=workers,
        num_cpus=CORES,
    )
    return {row["path"]: row["said"] for row in rows.iter_rows() if row["said"]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="IN")
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--engine", required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--address", help="of the cluster: auto, or HOST:PORT; none: a cluster on this machine")
    args = parser.parse_args()
    ray.init(address=args.address)
    said = translate(args.engine, args.source, args.output, args.workers)
    failed = {path: why for path, why in said.items() if why != "skipped"}
    for why in failed.values():
        print(why, file=sys.stderr)
    print(f"{len(failed)} failed, {len(said) - len(failed)} were there already")
    return 5 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
