"""A router for Ray Serve that takes the replica from the request.

The page places by adapter (`placing.py`), which Serve cannot; its fleet (`ray_fleet.py`) reads here
which replicas are live: as a module, because Ray sends the router as a copy of its code, with
copies of what stands in its own module.
"""

from collections.abc import Sequence

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from ramole_core.serving import ray_fleet


class NamedRouter(RequestRouter):
    """Route by the call's first argument, a replica's id; empty or gone: any replica."""

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        super().update_replicas(replicas)
        self._publish()

    def on_replica_actor_died(self, replica_id: ReplicaID) -> None:
        super().on_replica_actor_died(replica_id)
        self._publish()

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        wanted = pending_request.args[0] if pending_request and pending_request.args else ""
        named = [one for one in candidate_replicas if one.replica_id.unique_id == wanted]
        chosen: Sequence[RunningReplica] = named or candidate_replicas
        return [list(chosen)] if chosen else []

    def _publish(self) -> None:
        ids = tuple(sorted(one.unique_id for one in self.curr_replicas))
        ray_fleet.LIVE[self.app_name] = ids
