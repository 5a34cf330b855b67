"""Who a log directory belongs to: `meta.properties`, as Kafka writes it. Says in one sentence why it cannot be used."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from kbroker.errors import StartError
from kbroker.model import new_uuid, uuid_of, uuid_text
from kbroker.seams import Disk, Random
from kbroker.storage.checkpoints import read_properties, write_properties

META_FILE = "meta.properties"


@dataclass(frozen=True, slots=True)
class Identity:
    """A directory's place in the world."""

    cluster_id: str
    node_id: int
    directory_id: UUID  # of this directory: one that was wiped is another


def claim(
    disk: Disk, path: str, *, node_id: int, cluster_id: str | None, random: Random, fsync: bool
) -> Identity:
    """The directory's identity, made now if it has none. StartError when it is another node's or cluster's.

    `cluster_id` None: whatever the directory says; a new one gets a random id.
    """
    meta = f"{path}/{META_FILE}"
    if not disk.exists(meta):
        identity = Identity(cluster_id or uuid_text(new_uuid(random)), node_id, new_uuid(random))
        _write(disk, meta, identity, fsync=fsync)
        return identity
    try:
        values = read_properties(disk, meta)
    except ValueError as error:
        raise StartError(
            f"{meta} cannot be read ({error}): restore it, or start with an empty data directory"
        ) from error
    if values.get("version", "1") not in ("0", "1"):
        raise StartError(
            f"{meta} has version {values['version']}, 1 is known: start the version that wrote it"
        )
    found_node = values.get("node.id", values.get("broker.id", str(node_id)))
    if found_node != str(node_id):
        raise StartError(
            f"{path} belongs to node {found_node}, this is node {node_id}: set node.id={found_node}, "
            "or use another data directory (--data-dir)"
        )
    found_cluster = values.get("cluster.id")
    if found_cluster and cluster_id and found_cluster != cluster_id:
        raise StartError(
            f"{path} belongs to cluster {found_cluster}, not {cluster_id}: use another data directory "
            "(--data-dir)"
        )
    try:
        directory_id = uuid_of(values["directory.id"])
    except (KeyError, ValueError):
        directory_id = None
    identity = Identity(
        found_cluster or cluster_id or uuid_text(new_uuid(random)),
        node_id,
        directory_id or new_uuid(random),
    )
    if directory_id is None or not found_cluster:
        _write(disk, meta, identity, fsync=fsync)
    return identity


def _write(disk: Disk, meta: str, identity: Identity, *, fsync: bool) -> None:
    values = {
        "version": "1",
        "cluster.id": identity.cluster_id,
        "node.id": str(identity.node_id),
        "directory.id": uuid_text(identity.directory_id),
    }
    write_properties(disk, meta, values, fsync=fsync)
