"""The page as a deployment of Ray Serve: pool, retrieval and the page's application, no model."""

from typing import Any

from ray import serve

from ramole_core.ramole import Ramole
from ramole_core.serving.opening import engines_over
from ramole_core.serving.ray_fleet import RayFleet
from ramole_core.serving.ray_leaving import ignore_nobodys_results, with_leaving
from ramole_core.serving.served_engine import located
from ramole_core.settings import Settings


@serve.ingress()
class ServedPage:
    """The one replica of the page; it holds the writer lock of the pool's folder."""

    def __init__(self, settings: dict[str, object], engines: str, page: str):
        """`engines` is their application; `page` names what makes the page's own application of a
        `Ramole`, as `module:function`."""
        said = Settings(**settings)  # pyright: ignore[reportArgumentType] checked by pydantic
        self._ramole = Ramole(said, engines=engines_over(RayFleet(engines)))
        self._page = page

    def __serve_build_asgi_app__(self) -> Any:
        ignore_nobodys_results()
        return with_leaving(located(self._page)(self._ramole))

    def __del__(self) -> None:
        self._ramole.close()
