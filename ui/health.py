"""Health routes of the server, without a password and without details of its files."""

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from ramole_core import Ramole, __version__

from .model.loading import FAILED, loading_of


def health_routes(ramole: Ramole) -> list[BaseRoute]:
    """`/health`, `/livez`, `/readyz` and `/version`."""

    def health(request: Request) -> Response:
        """The whole status: 503 where the model failed."""
        model = loading_of(ramole).status()
        status = "ok" if model["ready"] else "error" if model["error"] else "loading"
        told = {
            "status": status,
            "model": {**model, "error": FAILED if model["error"] else None},
            "adapters": len(ramole.pool.cards()),
            "version": __version__,
        }
        return JSONResponse(told, 503 if status == "error" else 200)

    def live(request: Request) -> Response:
        return PlainTextResponse("ok")

    def ready(request: Request) -> Response:
        """Whether requests can be answered now: 503 while the model loads, or where it failed."""
        model = loading_of(ramole).status()
        said = "ready" if model["ready"] else FAILED if model["error"] else "loading"
        return PlainTextResponse(said, 200 if model["ready"] else 503)

    def version(request: Request) -> Response:
        return JSONResponse({"version": __version__})

    told = {"/health": health, "/livez": live, "/readyz": ready, "/version": version}
    return [Route(path, endpoint) for path, endpoint in told.items()]
