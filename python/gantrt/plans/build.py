"""An engine file becomes a plan: .onnx -> strongly typed network -> .plan, whose name is our manifest."""

from __future__ import annotations

import logging
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..atomic import atomic_path
from ..engine_file import guess_manifest, load_model, norm_act_nodes, read_manifest
from ..errors import BuildFailed, DeviceUnavailable, GantrtError, UsageError
from ..int8_forms import is_quantised, signed_symmetric
from ..manifest import Manifest
from ..plan_file import UNSEALED, read_plan_manifest, seal
from ..progress import Progress
from . import driver, graph, norm_act, rtx_alias, timing_cache
from .census import Launch, census
from .channels import by_eights
from .monitor import Watch, interruptible, make_monitor
from .targets import TARGETS, TENSORRT_RTX, Target, known_capabilities, make_logger, show_capability

if TYPE_CHECKING:
    from onnx import ModelProto

log = logging.getLogger("gantrt")

_TURING = 75

Size = tuple[int, int]  # (height, width)


@dataclass(frozen=True)
class Request:
    """What kind of plan. None leaves the choice to the engine file, or to the GPU that is here."""

    target: str = TENSORRT_RTX.name
    capabilities: tuple[int, ...] = ()  # ten times the compute capabilities it is for; empty: this GPU's
    plugins: bool = True  # NormAct by our kernels; without: by its body, for trtexec, Triton and any TensorRT
    sizes: tuple[Size, ...] = ()  # the only ones of a dynamic engine file; with one it becomes static
    span: tuple[Size, Size, Size] | None = None  # least, best, most, of one that stays dynamic
    timing_cache: str | None = None  # a file; None: in the user's cache folder; "": none
    source: str = ""  # what `gantrt export` is given to make it anew; "": the engine file
    progress: bool = True  # a bar


def check_request(request: Request) -> tuple[Target, Any, tuple[int, ...]]:
    """(target, its module, the GPUs to build for), or why there can be no such plan here: what `build_plan` raises."""
    target = TARGETS[request.target]
    trt = target.load()
    return target, trt, _capabilities(trt, target, request)


def build_plan(engine: str | Path, out: str | Path, request: Request, *, overwrite: bool = False) -> Manifest:
    """Compile the engine file at `engine` into the plan `out`; returns its manifest.

    Raises UsageError for a request that makes no sense, DeviceUnavailable where the library, or the GPU it needs to
    build, is not here, BuildFailed with TensorRT's reason, KeyboardInterrupt on Ctrl-C. On an error nothing is left.
    """
    target, trt, capabilities = check_request(request)
    model = load_model(engine)
    manifest = read_manifest(engine) or guess_manifest(engine)
    manifest = _sized(manifest, model, request)
    plugins = request.plugins and bool(norm_act_nodes(model))
    manifest = replace(
        manifest,
        made_by={"gantrt": __version__} | manifest.made_by,
        plugins=manifest.plugins if plugins else (),
        target={
            "runtime": target.name,
            "version": str(trt.__version__),
            "compute_capability": ",".join(map(show_capability, capabilities)),
            "source": request.source or shlex.quote(str(engine)),
            **({"options": " ".join(options)} if (options := _options(request)) else {}),
            **({"sizes": ",".join(map(_text, request.sizes))} if len(request.sizes) > 1 else {}),
            "crc32": UNSEALED,
        },
    )
    with atomic_path(out, overwrite=overwrite) as temporary:
        job = _Job(trt, target, request, capabilities, manifest, plugins)
        with Progress(None, "steps", label=target.name, enabled=request.progress) as progress:
            watch = Watch(progress)
            plan = interruptible(lambda: job.compiled(model, watch), watch.stop)
        try:
            temporary.write_bytes(plan)
        except OSError as error:
            raise GantrtError(f"{out}: cannot be written ({error.strerror or error})") from error
        if target is TENSORRT_RTX:
            _check_kernels(temporary, manifest)
        seal(temporary)
        sealed = read_plan_manifest(temporary)
    return sealed or manifest


@dataclass(frozen=True)
class _Job:
    """A request, with what it means here."""

    trt: Any
    target: Target
    request: Request
    capabilities: tuple[int, ...]
    manifest: Manifest
    plugins: bool

    def compiled(self, model: ModelProto, watch: Watch) -> Any:
        """The plan, as a buffer; `model` is used up.

        Not for the main thread: TensorRT calls our Python, and would swallow the KeyboardInterrupt that Ctrl-C raises.
        """
        trt, logger = self.trt, make_logger(self.trt)
        try:
            builder = trt.Builder(logger)
        except TypeError as error:  # what its bindings make of a null pointer
            raise DeviceUnavailable(f"{self.target.name}: it cannot build here: {logger.gist()}") from error
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, logger)  # owns the weights
        if not parser.parse(self._graph(model, builder)):
            raise BuildFailed(f"{self.target.name}: its parser does not take the graph: {logger.gist()}")
        network.name = self.manifest.to_json()
        _check_types(trt, network, self.manifest)
        config = self._config(builder, network)
        config.progress_monitor = make_monitor(trt, watch)
        gpu = show_capability(self.capabilities[0])
        with timing_cache.kept(trt, self.target, config, self.request.timing_cache, gpu):
            plan = None if watch.stop.is_set() else builder.build_serialized_network(network, config)
            if plan is None:
                hint = "; try --no-plugins" if self.plugins and any("lugin" in line for line in logger.errors) else ""
                raise BuildFailed(f"{self.target.name}: no plan: {logger.gist()}{hint}")
        return plan

    def _graph(self, model: ModelProto, builder: Any) -> bytes:
        rtx = self.target is TENSORRT_RTX
        if is_quantised(model):
            signed_symmetric(model)  # no uint8, no offsets
        if rtx and _TURING in self.capabilities:
            graph.gemms_to_convolutions(model)
        if rtx and not is_quantised(model):
            by_eights(model, ends=_TURING in self.capabilities and self.manifest.precision == "fp16")
        if not self.plugins:
            return graph.with_bodies(model)
        if rtx:
            rtx_alias.provide()
        norm_act.register(self.trt, builder.get_plugin_registry(), self.target)
        return graph.with_plugins(model)

    def _config(self, builder: Any, network: Any) -> Any:
        config = builder.create_builder_config()
        config.max_aux_streams = 0  # one stream is one graph, and for a single picture no slower
        config.clear_flag(self.trt.BuilderFlag.TF32)  # what a graph calls float32 is float32
        if self.target is TENSORRT_RTX:
            config.num_compute_capabilities = len(self.capabilities)
            for index, capability in enumerate(self.capabilities):
                config.set_compute_capability(getattr(self.trt.ComputeCapability, f"SM{capability}"), index)
        for span in _spans(self.request):
            profile, spec = builder.create_optimization_profile(), self.manifest.input
            shapes = [(self.manifest.batch, spec.channels, *size) for size in span]
            profile.set_shape(network.get_input(0).name, *shapes)
            config.add_optimization_profile(profile)
        return config


def _spans(request: Request) -> list[tuple[Size, Size, Size]]:
    """Least, best and most of each optimisation profile; none for a static plan."""
    if request.span:
        return [request.span]
    return [(size, size, size) for size in request.sizes] if len(request.sizes) > 1 else []


def _options(request: Request) -> list[str]:
    """What `gantrt export` is told beside source, target and GPU."""
    words = [] if request.plugins else ["--no-plugins"]
    words += [f"--size {' '.join(map(_text, request.sizes))}"] if request.sizes else []
    return words + ([f"--dynamic {':'.join(map(_text, request.span))}"] if request.span else [])


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def _capabilities(trt: Any, target: Target, request: Request) -> tuple[int, ...]:
    """The GPUs to build for; of TensorRT the one that is here."""
    here = driver.capability()
    asked = tuple(dict.fromkeys(request.capabilities))
    if target.needs_gpu:
        if here is None:
            raise DeviceUnavailable(
                f"{target.name}: builds on the GPU the plan is for, and there is none here ({driver.missing()}); "
                "build there, or give --target tensorrt-rtx"
            )
        if asked not in ((), (here,)):
            raise UsageError(
                f"{target.name}: builds for the GPU that is here, of compute capability {show_capability(here)}; "
                "leave out --compute-capability, or give --target tensorrt-rtx"
            )
        return (here,)
    if not asked and here is None:
        raise UsageError("export: no GPU here to build for; name those it is for, such as --compute-capability 8.9")
    known = known_capabilities(trt)
    for capability in asked or (here,):
        if capability not in known:
            raise UsageError(
                f"{target.name} {trt.__version__} builds nothing for compute capability "
                f"{show_capability(capability or 0)}; "
                f"it knows {', '.join(map(show_capability, known))}; on such a GPU give --target tensorrt"
            )
    return asked or (here,)  # type: ignore[return-value]


def _sized(manifest: Manifest, model: ModelProto, request: Request) -> Manifest:
    """The manifest with the plan's size; `model` gets it too where it becomes static."""
    spec = manifest.input
    if not spec.dynamic:
        if request.span or request.sizes not in ((), ((spec.height, spec.width),)):
            raise UsageError(
                f"export: the engine file is for {spec.height}x{spec.width} only; "
                "export an .onnx with --dynamic, or of the size"
            )
        return manifest
    for size in [*(request.span or ()), *request.sizes]:
        if min(size) < 1 or size[0] % spec.multiple or size[1] % spec.multiple:
            raise UsageError(f"export: size {size[0]}x{size[1]}: this network takes multiples of {spec.multiple}")
    if len(set(request.sizes)) != len(request.sizes) or (request.sizes and request.span):
        raise UsageError("export: each --size once, or --dynamic MIN:OPT:MAX")
    if request.span:
        least, best, most = request.span
        if not all(a <= b <= c for a, b, c in zip(least, best, most, strict=True)):
            raise UsageError("export: --dynamic MIN:OPT:MAX must not shrink from one to the next")
        return replace(manifest, input=replace(spec, height=best[0], width=best[1]))
    height, width = request.sizes[0] if request.sizes else (spec.height, spec.width)
    if len(request.sizes) > 1:
        return replace(manifest, input=replace(spec, height=height, width=width))
    graph.set_size(model, manifest.batch, spec.channels, height, width)
    return replace(manifest, input=replace(spec, height=height, width=width, dynamic=False))


# Is it the precision that was asked for? Others ship float32 in silence.


def _check_types(trt: Any, network: Any, manifest: Manifest) -> None:
    """Raises BuildFailed unless every convolution of the network computes in the manifest's precision."""
    expected = {"fp32": trt.float32, "fp16": trt.float16, "bf16": trt.bfloat16}.get(manifest.precision)
    convolutions = (trt.LayerType.CONVOLUTION, trt.LayerType.DECONVOLUTION)
    for layer in (network.get_layer(i) for i in range(network.num_layers)):
        found = layer.get_output(0).dtype if layer.type in convolutions else expected
        if expected is not None and found != expected:
            raise BuildFailed(f"export: {layer.name} computes in {found}, the engine file says {manifest.precision}")


def _check_kernels(plan: Path, manifest: Manifest) -> None:
    """The same, of the kernels in a TensorRT-RTX plan."""
    convolutions = [launch for launch in census(plan) if launch.is_convolution]
    if manifest.precision == "int8":
        _check_int8(convolutions, manifest)
        return
    for launch in convolutions:
        if launch.writes not in ("", manifest.precision):
            raise BuildFailed(
                f"export: TensorRT-RTX made {launch.name} a kernel of {launch.writes}, not {manifest.precision}"
            )


def _check_int8(convolutions: list[Launch], manifest: Manifest) -> None:
    """Of int8 a kernel reads bytes; what it writes is wider. TensorRT-RTX 1.7 has no such transposed convolution."""
    kept = manifest.int8.get("kept_fp", "").split()
    wide = [launch for launch in convolutions if launch.reads != "int8" and launch.name not in kept]
    for launch in wide:
        if not launch.is_transposed_convolution and not kept:
            raise BuildFailed(f"export: TensorRT-RTX made {launch.name} a kernel of {launch.reads}, not int8")
    if wide:
        log.warning("export: TensorRT-RTX computes %d of %d convolutions wider than int8", len(wide), len(convolutions))
