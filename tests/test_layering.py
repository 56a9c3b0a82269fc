"""Who may import whom. The rules of CONTRIBUTING.md, "The house", read from the sources."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"gantrt": ROOT / "python" / "gantrt", "gantrt_training": ROOT / "training" / "gantrt_training"}
RUNTIME_LIBRARIES = {"numpy", "cv2", "av", "onnx"}
EXTRA_LIBRARIES = {  # what one module alone may use, inside functions
    "gantrt.engine_file": {"google"},  # protobuf's DecodeError: what onnx raises for a damaged file
    "gantrt.engines.openvino": {"openvino"},
    "gantrt.engines.onnxruntime": {"onnxruntime"},
    "gantrt.video.schemes.vcam": {"pyvirtualcam"},
    "gantrt.video.schemes.screen": {"mss"},
    "gantrt.bench_plot": {"matplotlib"},
    "gantrt.peers": {"onnxruntime"},
}
SERVER_LIBRARIES = {"fastapi", "starlette", "pydantic", "uvicorn", "h11", "prometheus_client"}  # of gantrt.serve alone
TRAINING_MAY_USE = {
    "errors",
    "manifest",
    "engine_file",
    "atomic",
    "progress",
    "run_page",
    "schemas",
    "telemetry",
    "__version__",
}
KERNELS_FOR = {
    "gantrt_training.calibration": {"frame_to_tensor"},
    "gantrt_training.nets.fused": {"_core"},
    "gantrt_training.realtime": {"frame_pipelines"},
}
COMMANDS_THAT_TRAIN = {"bench", "train", "split", "import_", "export", "evaluate", "demo"}
FOUNDATION = {"gantrt.manifest", "gantrt.errors", "gantrt.engine_file", "gantrt.timing", "gantrt.atomic"}
HEAVY = {"torch", "cv2", "av", "onnx", "openvino", "onnxruntime", "tensorrt", "numpy", "gantrt_training"}


def within(imported: str, package: str) -> bool:
    return imported == package or imported.startswith(package + ".")


def violation(name: str, imported: str) -> str | None:
    """Why module `name` may not import `imported`; None if it may."""
    root = imported.partition(".")[0]
    if within(name, "gantrt_training"):
        used = imported.split(".")[1] if "." in imported else ""
        allowed = TRAINING_MAY_USE | KERNELS_FOR.get(name, set())
        return "training uses more of the runtime" if root == "gantrt" and used and used not in allowed else None
    command = name.split(".")[2] if name.startswith("gantrt.cli.") else ""
    if root == "gantrt_training":
        return None if command in COMMANDS_THAT_TRAIN else "the runtime reaches training"
    if root == "torch":
        return "the runtime imports torch"
    if root != "gantrt":
        libraries = RUNTIME_LIBRARIES | EXTRA_LIBRARIES.get(name, set())
        libraries |= SERVER_LIBRARIES if within(name, "gantrt.serve") else set()
        known = root in sys.stdlib_module_names or root in libraries
        return None if known else "not a library of this layer"
    if within(imported, "gantrt.cli") and not within(name, "gantrt.cli") and name != "gantrt.__main__":
        return "upward, to the command line"
    if within(imported, "gantrt.serve") and not within(name, "gantrt.serve") and name != "gantrt.cli.serve":
        return "sideways, into the server"
    if within(name, "gantrt.engines") and any(within(imported, f"gantrt.{up}") for up in ("translator", "video")):
        return "upward, from an engine"
    if name in FOUNDATION and any(within(imported, f"gantrt.{up}") for up in ("engines", "translator", "video")):
        return "upward, from the foundation"
    return None


def modules() -> list[tuple[str, Path]]:
    found = []
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            found.append((".".join([package, *(part for part in parts if part != "__init__")]), path))
    return found


def imports(name: str, path: Path, *, top_level_only: bool = False) -> set[str]:
    """Absolute names of what a module imports; relative imports are resolved, TYPE_CHECKING blocks left out."""
    tree = ast.parse(path.read_text())
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and id(node) not in typing_only:
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            found |= {origin} | {f"{origin}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize(("name", "path"), modules(), ids=[name for name, _ in modules()])
def test_module_imports_only_what_its_layer_allows(name: str, path: Path) -> None:
    wrong = {imported: why for imported in imports(name, path) if (why := violation(name, imported))}
    assert not wrong


@pytest.mark.parametrize(("name", "path"), [m for m in modules() if within(m[0], "gantrt.cli")], ids=str)
def test_command_imports_nothing_heavy_at_the_top(name: str, path: Path) -> None:
    assert not {imported.split(".")[0] for imported in imports(name, path, top_level_only=True)} & HEAVY


@pytest.mark.parametrize(
    ("name", "imported"),
    [
        ("gantrt.translator", "torch"),
        ("gantrt.translator", "gantrt_training.export"),
        ("gantrt.cli.translate", "gantrt_training"),
        ("gantrt.engines.openvino", "gantrt.translator"),
        ("gantrt.engines.openvino", "onnxruntime"),
        ("gantrt.manifest", "gantrt.engines"),
        ("gantrt.translator", "fastapi"),
        ("gantrt.cli.translate", "gantrt.serve.app"),
        ("gantrt.timing", "gantrt.cli"),
        ("gantrt_training.export", "gantrt.translator"),
    ],
)
def test_the_rules_catch_a_planted_violation(name: str, imported: str) -> None:
    assert violation(name, imported)


def test_cxx_layers_include_downward_only() -> None:
    for path in (ROOT / "csrc").rglob("*"):
        if path.suffix not in {".h", ".cpp", ".cu", ".cuh"}:
            continue
        lines = path.read_text().splitlines()
        included = [line.split()[1].strip('<>"') for line in lines if line.startswith("#include")]
        forbidden = ["torch/", "ATen/", "c10/"]
        forbidden += [] if path.parent.name == "bindings" else ["pybind11", "bindings/", "Python.h"]
        forbidden += [] if path.parent.name == "tensorrt" else ["NvInfer", "tensorrt/"]
        forbidden += ["pipeline/"] if path.parent.name == "kernels" else []
        assert not [name for name in included if name.startswith(tuple(forbidden))], path
