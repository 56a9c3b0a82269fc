"""gantrt serve: the web page and its API."""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import logging
import os
import re
from pathlib import Path

from ..errors import DeviceUnavailable, UsageError
from .translate import _positive, _size, add_trust

HELP = "a web page, and an HTTP and WebSocket API, for pictures, clips and the camera"

log = logging.getLogger("gantrt")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine", action="append", required=True, metavar="[NAME=]FILE", dest="engines",
        help="an engine file, .onnx or .plan; may be given several times (default name: the file's)",
    )  # fmt: skip
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine)")
    parser.add_argument("--port", type=int, default=8000, help="default: 8000; 0: any free one")
    parser.add_argument(
        "--token", default=os.environ.get("GANTRT_TOKEN"), help="what clients must know (default: $GANTRT_TOKEN)"
    )
    parser.add_argument(
        "--no-token", action="store_true", help="let everybody use it who reaches it, though not on this machine only"
    )
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="a name this server is reached by"
    )
    parser.add_argument("--proxy", metavar="ADDRESS", help="a reverse proxy whose X-Forwarded-* headers are believed")
    parser.add_argument("--certificate", metavar="FILE", help="serve https with this certificate chain (PEM) ...")
    parser.add_argument("--key", metavar="FILE", help="... and its private key")
    parser.add_argument(
        "--limit", action="append", default=[], metavar="NAME=VALUE", help="change a limit, e.g. clip_seconds=20"
    )
    engine = parser.add_argument_group("engine")
    add_trust(engine)
    engine.add_argument("--device", default="auto", help="auto, cpu or cuda[:N] (default: auto)")
    engine.add_argument("--runtime", help="openvino, onnxruntime, ... (default: the best for file and device)")
    engine.add_argument("--precision", help="fp32, fp16, bf16, ... (default: the engine's choice)")
    engine.add_argument("--size", type=_size, metavar="HxW", help="size the network runs at, for a dynamic engine")
    engine.add_argument("--fit", default="resize", help="how a frame meets the network's size: resize, pad or tile")
    engine.add_argument("--streams", type=_positive, default=1, metavar="N", help="frames translated at once")


def run(args: argparse.Namespace) -> int:
    from ..serve import missing

    if reason := missing():
        raise DeviceUnavailable(reason)
    import gantrt

    from ..serve.app import create_app
    from ..serve.limits import Limits
    from ..serve.server import Place, listen, serve

    limits = Limits.of(args.limit)
    files = _named(args.engines)
    _check(args)
    place = Place(args.host, args.port, args.certificate, args.key, args.proxy)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listen(place))  # before the engines, which take seconds to load
        engines = {
            name: stack.enter_context(
                gantrt.load(
                    file,
                    device=args.device,
                    size=args.size,
                    fit=args.fit,
                    streams=args.streams,
                    precision=args.precision,
                    runtime=args.runtime,
                    trust=args.trust,
                )
            )
            for name, file in files.items()
        }
        app = create_app(engines, limits, token=args.token, hosts=[args.host, *args.allow_host])
        host = f"[{args.host}]" if ":" in args.host else args.host
        scheme = "https" if args.certificate else "http"
        log.info("%s at %s://%s:%d/", ", ".join(engines), scheme, host, listener.getsockname()[1])
        serve(app, place, limits, listener)
    log.info("ended")
    return 0


def _named(engines: list[str]) -> dict[str, Path]:
    """Name -> file, of [NAME=]FILE."""
    named: dict[str, Path] = {}
    for text in engines:
        name, equals, file = text.partition("=")
        path = Path(file if equals else text)
        name = name if equals else re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._") or "engine"
        if name in named:
            raise UsageError(f"engine {name}: is given twice; write NAME={path}")
        named[name] = path
    return named


def _check(args: argparse.Namespace) -> None:
    if bool(args.certificate) != bool(args.key):
        raise UsageError("--certificate and --key go together")
    if args.token is not None and (not args.token or not args.token.isascii() or not args.token.isprintable()):
        raise UsageError("token: is of printable ASCII characters, and at least one")
    if args.token or args.no_token or _is_loopback(args.host):
        return
    raise UsageError(
        f"host {args.host}: other machines can reach this; give --token T, or --no-token if everybody may use it"
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False
