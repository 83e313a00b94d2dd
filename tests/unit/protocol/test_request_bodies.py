"""Request bodies are what their schemas say: nothing is taken for a number that is none."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from shared.encoding import b64url
from shared.schemas.log import InclusionIn

LEAF = b64url(bytes(32))


def test_a_size_is_a_number() -> None:
    assert InclusionIn.model_validate({"leaves": [LEAF], "size": 3}).size == 3


@pytest.mark.parametrize("size", ["3", True, None, [3]], ids=str)
def test_a_size_is_nothing_that_can_be_read_as_a_number(size: object) -> None:
    with pytest.raises(ValidationError):
        InclusionIn.model_validate({"leaves": [LEAF], "size": size})
