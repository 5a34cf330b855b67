"""UpdateFeatures."""

import pytest

from kbroker.errors import ErrorCode
from kbroker.protocol.messages.cluster import FeatureUpdateKey, UpdateFeaturesRequest
from kbroker.server.handlers.features import handle_update_features
from tests.support.rooms import House

UPGRADE, SAFE_DOWNGRADE, UNSAFE_DOWNGRADE = 1, 2, 3
METADATA = "metadata.version"


@pytest.fixture
def house(tmp_path):
    return House(tmp_path)


async def update(house, *updates, version=1, validate_only=False):
    keys = [
        FeatureUpdateKey(feature=feature, max_version_level=level, upgrade_type=kind)
        for feature, level, kind in updates
    ]
    request = UpdateFeaturesRequest(feature_updates=keys, validate_only=validate_only)
    return await house.ask(handle_update_features, request, version=version)


@pytest.mark.parametrize("validate_only", [True, False])
@pytest.mark.parametrize("kind", [UPGRADE, SAFE_DOWNGRADE, UNSAFE_DOWNGRADE])
async def test_the_level_that_is_there_may_be_asked_for(house, kind, validate_only):
    response = await update(house, (METADATA, 30, kind), validate_only=validate_only)

    assert ErrorCode.NONE == response.error_code
    assert [(METADATA, ErrorCode.NONE)] == [(each.feature, each.error_code) for each in response.results]


@pytest.mark.parametrize(
    "feature, level, kind, why",
    [
        (METADATA, 29, UPGRADE, "Can't downgrade"),
        (METADATA, 29, SAFE_DOWNGRADE, "Unsupported metadata.version downgrade from 30 to 29"),
        (METADATA, 7, UNSAFE_DOWNGRADE, "Unsupported metadata.version downgrade from 30 to 7"),
        (METADATA, 31, UPGRADE, "Local controller 1 only supports versions 7-30"),
        (METADATA, 6, UNSAFE_DOWNGRADE, "Local controller 1 only supports versions 7-30"),
        (METADATA, 0, SAFE_DOWNGRADE, "Local controller 1 only supports versions 7-30"),
        (METADATA, -1, UPGRADE, "cannot be less than 0"),
        (METADATA, 30, 0, "does not support the given upgrade type"),
        (METADATA, 30, 4, "does not support the given upgrade type"),
        ("transaction.version", 2, UPGRADE, "does not support this feature"),
        ("", 1, UPGRADE, "does not support this feature"),
    ],
)
async def test_any_other_level_is_refused(house, feature, level, kind, why):
    response = await update(house, (feature, level, kind))

    assert ErrorCode.INVALID_UPDATE_VERSION == response.error_code
    assert why in response.error_message
    assert [] == response.results


async def test_one_that_cannot_be_refuses_all(house):
    response = await update(house, (METADATA, 30, UPGRADE), ("group.version", 1, UPGRADE))

    assert ErrorCode.INVALID_UPDATE_VERSION == response.error_code


async def test_nothing_is_asked_for_and_nothing_is_refused(house):
    assert ErrorCode.NONE == (await update(house)).error_code
