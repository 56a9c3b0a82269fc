"""The web page and its API as N replicas on a Ray cluster.

    pip install 'gantrt[serve]' 'ray[serve]'
    python examples/ray_serve.py --engine facades.onnx --replicas 4 [--address auto] [--port 8000] [--token T]

Each replica loads the engine once and gets its own cores; Ray's proxy spreads requests and WebSockets over them, and
each connection stays with its replica. All replicas know each other's sessions, because those are made from the token.
Clips are switched off: a clip lies in the replica that translates it, and the next request may reach another one.
Ray's proxy is the only client that a replica sees, so its limits per client are those of everybody: rate and counts
belong to what stands before the cluster.
"""

from __future__ import annotations

import argparse
import signal
from pathlib import Path

from ray import serve
from ray.serve import Application

CORES = 1  # of each replica


def application(engine: str, replicas: int = 2, token: str | None = None) -> Application:
    """What `serve.run` takes."""

    def build() -> object:
        """Runs in each replica, when it starts."""
        import gantrt
        from gantrt.serve.app import create_app
        from gantrt.serve.limits import Limits

        translator = gantrt.load(engine, threads=CORES)
        everybody = Limits(clips=0, requests_per_second=1000, burst=1000, waiting_per_client=64, live_per_client=128)
        app = create_app({Path(engine).stem: translator}, everybody, token=token, hosts=["*"])

        @app.get("/api/replica")
        def replica() -> str:
            return str(serve.get_replica_context().replica_id.unique_id)

        return app

    @serve.deployment(num_replicas=replicas, ray_actor_options={"num_cpus": CORES}, max_ongoing_requests=256)
    @serve.ingress(build)
    class Gantrt:
        pass

    return Gantrt.bind()  # type: ignore[attr-defined,no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", required=True, help="an engine file that every machine of the cluster can read")
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--address", help="of the cluster: auto, or HOST:PORT; none: a cluster on this machine")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--token")
    args = parser.parse_args()
    import ray

    ray.init(address=args.address)
    serve.start(http_options={"host": args.host, "port": args.port})
    serve.run(application(str(Path(args.engine).resolve()), args.replicas, args.token))
    print(f"{args.replicas} replicas at http://{args.host}:{args.port}/")
    signal.sigwait({signal.SIGINT, signal.SIGTERM})
    serve.shutdown()


if __name__ == "__main__":
    main()
