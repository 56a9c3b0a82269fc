"""The web page and its HTTP and WebSocket API: an ASGI app over Translators, and the server that runs it.

    from gantrt.serve.app import create_app
    app = create_app({"facades": gantrt.load("facades.onnx")})

Needs `pip install 'gantrt[serve]'`. Importing this package alone needs nothing.
"""

from __future__ import annotations

import importlib.util

_LIBRARIES = ("fastapi", "uvicorn", "websockets", "prometheus_client")


def missing() -> str | None:
    """None when the libraries of the server are here, else one line with the command that installs them."""
    absent = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    return f"serve: {', '.join(absent)} not installed; pip install 'gantrt[serve]'" if absent else None
