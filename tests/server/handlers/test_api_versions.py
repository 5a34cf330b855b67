"""ApiVersions, against what Kafka 4.3 answers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kbroker.errors import ErrorCode
from kbroker.protocol.messages.api_versions import ApiVersionsRequest, ApiVersionsResponse
from kbroker.server.handlers.api_versions import handle_api_versions, unsupported_version

RANGES = {18: (0, 4), 3: (0, 13), 0: (0, 13)}


def ask(name: str = "librdkafka", release: str = "2.15.0", *, version: int = 4) -> ApiVersionsResponse:
    call: Any = SimpleNamespace(version=version)
    request = ApiVersionsRequest(client_software_name=name, client_software_version=release)
    return handle_api_versions(None, call, request, RANGES)  # type: ignore[arg-type]  # it looks into no room


def ranges_of(answer: ApiVersionsResponse) -> list[tuple[int, int, int]]:
    return [(each.api_key, each.min_version, each.max_version) for each in answer.api_keys]


@pytest.mark.parametrize("version", range(5))
def test_ranges_are_answered_sorted_by_key(version: int) -> None:
    answer = ask(version=version)

    assert ErrorCode.NONE == answer.error_code
    assert [(0, 0, 13), (3, 0, 13), (18, 0, 4)] == ranges_of(answer)


def test_an_unknown_version_is_told_the_range_of_this_api() -> None:
    """librdkafka fails on an error 35 whose list is empty, franz-go loops on a smaller maximum."""
    answer = unsupported_version(RANGES)

    assert ErrorCode.UNSUPPORTED_VERSION == answer.error_code
    assert [(18, 0, 4)] == ranges_of(answer)


def test_only_the_metadata_version_is_a_feature() -> None:
    answer = ask()

    assert [("metadata.version", 7, 30)] == [
        (each.name, each.min_version, each.max_version) for each in answer.supported_features
    ]
    assert [("metadata.version", 30, 30)] == [
        (each.name, each.min_version_level, each.max_version_level) for each in answer.finalized_features
    ]
    assert answer.finalized_features_epoch >= 0


@pytest.mark.parametrize("name", ["a", "a.b-c", "A1", "apache-kafka-java", "a" * 500])
def test_a_client_may_name_its_software(name: str) -> None:
    assert ErrorCode.NONE == ask(name).error_code


@pytest.mark.parametrize("name", ["", "a-", "-a", ".", "a b", "é", "a\n"])
def test_software_names_of_another_form_are_refused_from_v3_on(name: str) -> None:
    for answer in (ask(name), ask("a", name)):
        assert ErrorCode.INVALID_REQUEST == answer.error_code
        assert [] == answer.api_keys
    assert ErrorCode.NONE == ask(name, version=2).error_code
