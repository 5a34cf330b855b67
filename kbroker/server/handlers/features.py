"""UpdateFeatures: levels of the cluster's features. Knows the features that ApiVersions tells, nothing else.

There is one, metadata.version, and it stands at the newest level from the beginning: it can go neither up nor down. So a
request asks for what is there already, or is refused with Kafka's words.
"""

from __future__ import annotations

from kbroker.errors import ErrorCode
from kbroker.protocol.messages.cluster import (
    FeatureUpdateKey,
    UpdatableFeatureResult,
    UpdateFeaturesRequest,
    UpdateFeaturesResponse,
)
from kbroker.server.handlers.api_versions import (
    METADATA_VERSION,
    METADATA_VERSION_MAX,
    METADATA_VERSION_MIN,
)
from kbroker.server.rooms import Call, Rooms

UPGRADE, SAFE_DOWNGRADE, UNSAFE_DOWNGRADE = range(1, 4)  # types of update


def handle_update_features(
    rooms: Rooms, call: Call, request: UpdateFeaturesRequest
) -> UpdateFeaturesResponse:
    """UpdateFeatures: v0-2.

    All or nothing: the first update that cannot be is the answer for all of them (INVALID_UPDATE_VERSION).
    `allow_downgrade` of v0 is not looked at, as in Kafka; `validate_only` changes nothing, for nothing changes anyway.
    v1 validate only, types of update (KIP-584, KIP-778) · v2 no answer per feature (KIP-1022)
    """
    for update in request.feature_updates:
        why = _refusal(rooms, update)
        if why is not None:
            return UpdateFeaturesResponse(
                error_code=ErrorCode.INVALID_UPDATE_VERSION,
                error_message=f"The update failed for all features since the following feature had an error: {why}",
            )
    return UpdateFeaturesResponse(
        error_message=None,
        results=[
            UpdatableFeatureResult(feature=update.feature, error_message=ErrorCode.NONE.name)
            for update in request.feature_updates
        ],
    )


def _refusal(rooms: Rooms, update: FeatureUpdateKey) -> str | None:
    """Why one feature cannot have the level asked for; None: it has it."""
    level, kind = update.max_version_level, update.upgrade_type
    invalid = f"Invalid update version {level} for feature {update.feature}."
    if kind not in (UPGRADE, SAFE_DOWNGRADE, UNSAFE_DOWNGRADE):
        return f"{invalid} The controller does not support the given upgrade type."
    if level < 0:
        return f"{invalid} A feature version cannot be less than 0."
    if update.feature != METADATA_VERSION:
        return f"{invalid} Local controller {rooms.node_id} does not support this feature."
    if not METADATA_VERSION_MIN <= level <= METADATA_VERSION_MAX:
        return (
            f"{invalid} Local controller {rooms.node_id} only supports versions "
            f"{METADATA_VERSION_MIN}-{METADATA_VERSION_MAX}"
        )
    if level == METADATA_VERSION_MAX:
        return None
    if kind == UPGRADE:
        return (
            f"{invalid} Can't downgrade the version of this feature without setting the upgrade type to either "
            "safe or unsafe downgrade."
        )
    return (
        f"Unsupported metadata.version downgrade from {METADATA_VERSION_MAX} to {level}: what the cluster knows may not "
        "fit into the older form."
    )
