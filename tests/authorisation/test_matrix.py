"""Every operation, as every role, in every state of the grant: what the matrix says comes true."""

from __future__ import annotations

import pytest

from tests.authorisation.cast import Cast
from tests.authorisation.matrix import Attempt, check_operations, load
from tests.authorisation.run import disagreements
from tests.services.loopback import Loopback

pytestmark = [
    # Seconds; the first test waits until everything is prepared.
    pytest.mark.timeout(1200),
    # What asyncio says of a connection between services that was given up while it was being made.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_the_matrix_has_every_operation_of_the_documents_and_no_other(
    platform: Loopback, matrix: list[Attempt]
) -> None:
    check_operations(matrix, {service: app.openapi() for service, app in platform.apps.items()})


@pytest.mark.parametrize("attempt", load(), ids=lambda attempt: attempt.name)
async def test_it_comes_true(cast: Cast, attempt: Attempt) -> None:
    assert await disagreements(cast, attempt) == []
