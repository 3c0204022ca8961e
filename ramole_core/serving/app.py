"""The two applications of Ray Serve, built from a config file's arguments.

    ramole_core.serving.app:build_engines     the engines
    ramole_core.serving.app:build_page        the page, which calls them

docs/serve.yaml has both. Ray is imported when one is built.
"""

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from ramole_core.process_memory import VARIABLE
from ramole_core.settings import Settings

if TYPE_CHECKING:
    from ray.serve import Application

ENGINES = "engines"
PAGE = "page"
"""Names of the applications."""
REAL = "ramole_core.serving.engine_server:EngineServer"
LOGGING_CONFIG = {"log_level": "WARNING", "enable_access_log": False}
ROUTER = "ramole_core.serving.ray_router.NamedRouter"


class EnginesArgs(BaseModel):
    model_config = ConfigDict(extra="forbid")

    engines: int = 2
    cpus_per_engine: float = 2
    gpus_per_engine: float = 0
    settings: dict[str, Any] = {}
    """Settings over those of the environment, without RAMOLE_: `{"store_url": "s3://bucket/adapters"}`."""
    make: str = REAL
    """The function that makes an engine from `Settings`, as `module:function`."""
    drain_seconds: float = 30
    """Seconds for answers to end in a restarting engine; the rest continue elsewhere."""


class PageArgs(BaseModel):
    model_config = ConfigDict(extra="forbid")

    page: str
    """The function that makes the page of a `Ramole`, as `module:function`."""
    engines: str = ENGINES
    """The engines' application."""
    settings: dict[str, Any] = {}


def build_engines(asked: EnginesArgs) -> "Application":
    from ray import serve
    from ray.serve.config import RequestRouterConfig

    from ramole_core.serving.served_engine import SPARE_THREADS, ServedEngine

    said = Settings(**asked.settings)
    threads = str(max(1, round(asked.cpus_per_engine)))
    deployment = serve.deployment(
        name="Engine",
        num_replicas=asked.engines,
        max_ongoing_requests=said.max_batch + said.max_queue + SPARE_THREADS,
        ray_actor_options={
            "num_cpus": asked.cpus_per_engine,
            "num_gpus": asked.gpus_per_engine,
            "runtime_env": {"env_vars": {"OMP_NUM_THREADS": threads, **VARIABLE}},
        },
        logging_config=LOGGING_CONFIG,
        graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=asked.drain_seconds,
        health_check_period_s=5,
        health_check_timeout_s=60,
        request_router_config=RequestRouterConfig.model_validate({"request_router_class": ROUTER}),
    )(ServedEngine)
    return deployment.bind(asked.settings, asked.make)


def build_page(asked: PageArgs) -> "Application":
    from ray import serve

    from ramole_core.serving.ray_page import ServedPage

    said = Settings(**asked.settings)
    deployment = serve.deployment(
        name="Page",
        num_replicas=1,
        max_ongoing_requests=10 * (said.max_batch + said.max_queue) + 1000,
        ray_actor_options={"num_cpus": 0.1, "runtime_env": {"env_vars": VARIABLE}},
        logging_config=LOGGING_CONFIG,
        graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=5,
        health_check_period_s=10,
        health_check_timeout_s=120,
    )(ServedPage)
    return deployment.bind(asked.settings, asked.engines, asked.page)
