"""ApiVersions: which APIs and versions this broker speaks. What it says comes from the table of APIs alone."""

from __future__ import annotations

import re
from collections.abc import Mapping

from kbroker.errors import ErrorCode
from kbroker.protocol.messages.api_versions import (
    ApiVersion,
    ApiVersionsRequest,
    ApiVersionsResponse,
    FinalizedFeatureKey,
    SupportedFeatureKey,
)
from kbroker.server.apis import API_VERSIONS, APIS, advertised
from kbroker.server.rooms import Call, Rooms

_SOFTWARE = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?")  # KIP-511

# The only feature spoken of, with Kafka 4.3's levels (7: 3.3, the first of KRaft; 30: 4.3). Others change what
# clients do on sight: transaction.version and group.version come with transactions and the new groups.
METADATA_VERSION = "metadata.version"
METADATA_VERSION_MIN, METADATA_VERSION_MAX = 7, 30


Ranges = Mapping[int, tuple[int, int]]  # first and last version by API key


def handle_api_versions(
    rooms: Rooms, call: Call, request: ApiVersionsRequest, ranges: Ranges | None = None
) -> ApiVersionsResponse:
    """ApiVersions: v0-4.

    Answers `ranges`, those of the table of APIs unless told otherwise. A client whose software name or version is not
    of KIP-511's form gets INVALID_REQUEST. An unknown version of this API never gets here: see `unsupported_version`.
    v3 flexible, client's software, features (KIP-511, KIP-584) · v4 features that begin at level 0 (none here)
    """
    if call.version >= 3 and not (
        _SOFTWARE.fullmatch(request.client_software_name)
        and _SOFTWARE.fullmatch(request.client_software_version)
    ):
        return ApiVersionsResponse(error_code=ErrorCode.INVALID_REQUEST)
    return ApiVersionsResponse(
        api_keys=_sent(advertised(APIS) if ranges is None else ranges),
        supported_features=[
            SupportedFeatureKey(
                name=METADATA_VERSION, min_version=METADATA_VERSION_MIN, max_version=METADATA_VERSION_MAX
            )
        ],
        finalized_features_epoch=0,  # the levels never change while one release runs
        finalized_features=[
            FinalizedFeatureKey(
                name=METADATA_VERSION,
                max_version_level=METADATA_VERSION_MAX,
                min_version_level=METADATA_VERSION_MAX,
            )
        ],
    )


def unsupported_version(ranges: Ranges) -> ApiVersionsResponse:
    """The answer to ApiVersions of a version that is not known, to be encoded as v0 (KIP-511).

    It names the range of ApiVersions itself, from which the client picks one and asks again.
    """
    return ApiVersionsResponse(
        error_code=ErrorCode.UNSUPPORTED_VERSION, api_keys=_sent({API_VERSIONS: ranges[API_VERSIONS]})
    )


def _sent(ranges: Ranges) -> list[ApiVersion]:
    return [
        ApiVersion(api_key=key, min_version=first, max_version=last)
        for key, (first, last) in sorted(ranges.items())
    ]
