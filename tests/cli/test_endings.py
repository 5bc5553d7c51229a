"""How a command ends: interrupted, on a full disk, without a reader."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from forecast import api, cli


@pytest.mark.parametrize(
    ("raised", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "Stopped by Ctrl-C"),
        (OSError(errno.ENOSPC, "full", "out.csv"), 3, "out.csv: No space is left"),
        (OSError(errno.EROFS, "ro", "s.safetensors"), 3, "s.safetensors: The file system can only"),
        (OSError(errno.ENAMETOOLONG, "long", "n"), 3, "n: The name is longer"),
        (RuntimeError("Cannot write: No space left on device (os error 28)"), 3, "No space"),
        (MemoryError(), 3, "memory of this machine"),
        (BrokenPipeError(errno.EPIPE, "gone"), 0, ""),
        (ValueError("a fault"), 1, "fault of the program"),
    ],
)
def test_each_way_to_end_has_its_code_and_one_sentence(monkeypatch, capsys, raised, code, words):
    def fail(*_, **__):
        raise raised

    monkeypatch.setattr(api, "predict_files", fail)
    assert cli.run(["predict", "model", "h.csv"]) == code
    err = " ".join(capsys.readouterr().err.replace("|", " ").split())
    assert words in err
    assert "Traceback" not in err


def test_an_interruption_that_a_library_turned_into_an_error_is_still_one(monkeypatch, capsys):
    def fail(*_, **__):
        try:
            cli._interrupted(2, None)
        except KeyboardInterrupt as stop:
            raise RuntimeError("the engine was stopped") from stop

    monkeypatch.setattr(api, "predict_files", fail)
    assert cli.run(["predict", "model", "h.csv"]) == 130
    assert "Stopped by Ctrl-C" in capsys.readouterr().err


def test_a_full_standard_output_is_one_sentence():
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full here")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "forecast", "models", "list"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 3
    assert "standard output: No space is left there." in done.stderr
    assert "Traceback" not in done.stderr


def test_predict_takes_every_option_of_its_request():
    # What the command line can do, the function can do by the same words.
    import dataclasses
    import inspect

    from forecast.cli.predict import predict
    from forecast.contracts import Request

    flags = set(inspect.signature(predict).parameters) - {"model", "as_json", "engine", "places"}
    fields = {field.name for field in dataclasses.fields(Request)} - {"tell"}
    assert flags - {"ask"} | {"sources"} == fields
