"""Which engine runs, and who decides."""

from __future__ import annotations

import subprocess
import sys

import pytest

from shared.crypto import umbral
from shared.crypto.engines import ENGINE_VARIABLE, current_engine, load_engine, use_engine
from shared.crypto.errors import EngineUnavailable

SHOW = "from shared.crypto.umbral import engine_name; print(engine_name())"
# An interpreter in which a package cannot be imported, as where it has no wheel.
WITHOUT = "import sys; sys.modules[{missing!r}] = None; " + SHOW


def run(program: str, setting: str | None) -> subprocess.CompletedProcess[str]:
    environment = {} if setting is None else {ENGINE_VARIABLE: setting}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.usefixtures("both_engines")
@pytest.mark.parametrize(
    ("setting", "expected"),
    [(None, "umbral-pre"), ("auto", "umbral-pre"), ("umbral-pre", "umbral-pre"), ("umbral", "umbral")],
)
def test_the_environment_chooses(setting, expected):
    assert run(SHOW, setting).stdout.strip() == expected


def test_auto_falls_back_to_the_portable_engine():
    assert run(WITHOUT.format(missing="umbral_pre"), "auto").stdout.strip() == "umbral"


@pytest.mark.parametrize(
    ("missing", "setting"), [("umbral_pre", "umbral-pre"), ("umbral", "umbral"), ("umbral_pre", "rust"), ("umbral", "")]
)
def test_an_unknown_or_missing_engine_is_an_error_that_names_the_setting(missing, setting):
    finished = run(WITHOUT.format(missing=missing), setting)
    assert finished.returncode != 0
    assert "EngineUnavailable" in finished.stderr
    assert ENGINE_VARIABLE in finished.stderr


def test_no_engine_is_loaded_before_its_first_use():
    program = (
        "import sys, shared.crypto.umbral, shared.crypto.record; "
        "print('umbral_pre' in sys.modules or 'umbral' in sys.modules)"
    )
    assert run(program, None).stdout.strip() == "False"


def test_an_unknown_name_cannot_be_loaded():
    with pytest.raises(EngineUnavailable):
        load_engine("auto")


@pytest.mark.usefixtures("both_engines")
def test_blocks_nest_and_end():
    before = umbral.engine_name()
    with use_engine("umbral") as outer:
        assert current_engine() is outer
        with use_engine("umbral-pre"):
            assert umbral.engine_name() == "umbral-pre"
        assert umbral.engine_name() == "umbral"
    assert umbral.engine_name() == before
    with pytest.raises(KeyError), use_engine("umbral"):
        raise KeyError
    assert umbral.engine_name() == before


@pytest.mark.usefixtures("both_engines")
def test_setting_pyumbral_right_leaves_umbral_pre_alone():
    import umbral_pre

    seed = bytes(range(32))

    def public() -> bytes:
        return (
            umbral_pre.SecretKeyFactory.from_secure_randomness(seed)
            .make_key(b"label")
            .public_key()
            .to_compressed_bytes()
        )

    program = (
        "import umbral_pre; "
        "key = umbral_pre.SecretKeyFactory.from_secure_randomness(bytes(range(32))).make_key(b'label'); "
        "print(key.public_key().to_compressed_bytes().hex())"
    )
    load_engine("umbral")
    assert run(program, None).stdout.strip() == public().hex()
