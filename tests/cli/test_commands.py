"""The commands as a user meets them: documents, words, streams, exit codes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def panel(done, code):
    """Check that a command ended with this code and one panel, and return the panel's text."""
    assert done.returncode == code, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr + done.stdout
    assert done.stdout == ""
    assert done.stderr.count("Error:") == 1, done.stderr
    return re.sub(r"\s*\n\| ?", " ", done.stderr)


def test_train_json_is_one_document_with_the_promised_keys(trained):
    assert Path(trained["artefact"], "forecaster.json").is_file()
    assert re.fullmatch(r"[0-9a-f]{32}", trained["run_id"])
    assert trained["registered"] == {"name": "plant", "version": 1, "alias": "champion"}
    assert trained["seed"] == 0
    for key in ("seconds", "cpu_seconds", "peak_memory_mb"):
        assert trained[key] > 0
    assert set(trained["metrics"]["baselines"]) == {
        "persistence", "seasonal-naive", "mean", "ridge",
    }  # fmt: skip
    # 400 rows: 280 / 40 / 80, so 80 - 12 + 1 test windows
    assert trained["metrics"]["test"]["windows"] == 69
    assert Path(trained["picture"]).read_bytes().startswith(b"\x89PNG")


def test_predict_continues_the_table_in_its_own_form(command, table, trained, tmp_path):
    out = tmp_path / "next.csv"
    done = command("predict", "models:/plant@champion", table, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["written"] == [
        {"input": str(table), "output": str(out), "rows": 12, "series": 1, "skipped": []}
    ]
    frame = pl.read_csv(out)
    assert frame.columns == ["date", "load", "heat"]
    # the table ends at 400 hours, 2024-01-17 15:00
    assert frame["date"][0] == "2024-01-17 16:00:00"
    assert frame["date"][-1] == "2024-01-18 03:00:00"
    assert frame["load"].is_between(60, 140).all()
    # from the folder, from the version and from standard input: the same bytes
    expected = out.read_bytes()
    for model in (trained["artefact"], "models:/plant/1", f"runs:/{trained['run_id']}"):
        again = command("predict", model, "-", stdin=table.read_bytes(), binary=True)
        assert again.returncode == 0, again.stderr
        assert again.stdout == expected


def test_order_of_columns_and_rows_and_extra_columns_do_not_matter(
    command, table, trained, tmp_path
):
    expected = command("predict", trained["artefact"], table).stdout
    frame = pl.read_csv(table).with_columns(extra=pl.lit(1.0), note=pl.lit("x"))
    changed = tmp_path / "changed.csv"
    frame.select("note", "heat", "extra", "date", "load").reverse().write_csv(changed)
    done = command("predict", trained["artefact"], changed)
    assert done.stdout == expected
    assert "extra" in done.stderr


def test_evaluate_agrees_with_training_and_scores_new_files(command, table, trained, tmp_path):
    done = command("evaluate", trained["artefact"], "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["metrics"]["test"] == trained["metrics"]["test"]
    assert document["metrics"]["baselines"] == trained["metrics"]["baselines"]
    new = command("evaluate", trained["artefact"], table, "--json")
    # every row after the first lookback: 400 - 48 - 12 + 1 windows
    assert json.loads(new.stdout)["metrics"]["test"]["windows"] == 341


def test_the_same_seed_gives_the_same_bytes_twice(command, table, trained, small, tmp_path):
    again = tmp_path / "again"
    done = command(
        "train", table, "--lookback", 48, "--horizon", 12, *small, "--out", again, "--json"
    )
    assert done.returncode == 0, done.stderr
    for name in ("weights.safetensors", "arrays.safetensors"):
        assert Path(trained["artefact"], name).read_bytes() == (again / name).read_bytes()
    assert (
        command("predict", again, table).stdout
        == command("predict", trained["artefact"], table).stdout
    )


def test_init_from_a_registered_model_goes_on_with_its_weights(command, table, trained):
    common = ("train", table, "--init", "models:/plant@champion", "--json")
    done = command(*common, "--set", "train.epochs=1", "--set", "train.learning_rate=1e-9")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    # with next to no learning rate the model stays what it was, shape and scaler included
    assert document["metrics"]["test"]["mse"] == pytest.approx(
        trained["metrics"]["test"]["mse"], rel=1e-3
    )
    text = panel(command("train", table, "--init", "models:/plant@champion", "--horizon", 5), 2)
    assert "--horizon 5 contradicts --init: that model has horizon 12" in text


def test_a_recipe_written_by_init_trains(command, table, tmp_path):
    recipe = tmp_path / "plant.toml"
    done = command("init", table, "--out", recipe, "--horizon", 12, "--model", "ridge")
    assert done.returncode == 0, done.stderr
    assert "400 rows, one every h" in recipe.read_text()
    assert "there already" in panel(command("init", table, "--out", recipe), 2)
    done = command("train", recipe, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["metrics"]["test"]["mse"] == document["metrics"]["baselines"]["ridge"]["mse"]


def test_registry_commands(command, table, trained):
    listed = json.loads(command("registry", "list", "--json").stdout)
    assert [row["name"] for row in listed] == ["plant"]
    assert listed[0]["aliases"] == ["champion"]
    shown = json.loads(command("registry", "show", "plant", "champion", "--json").stdout)
    assert shown["run_id"] == trained["run_id"]
    assert command("registry", "promote", "plant", 1, "--alias", "spare").returncode == 0
    assert command("predict", "models:/plant@spare", table).returncode == 0
    text = panel(command("predict", "models:/plant@challenger", table), 4)
    assert "champion" in text
    assert "plant" in panel(command("predict", "models:/plnt@champion", table), 4)
    assert "plant" in panel(command("registry", "show", "plant", "9"), 4)


MISTAKES = [
    (("train", "etth1x"), 4, "Did you mean 'etth1'"),
    (("train", "nowhere.csv"), 4, "nowhere.csv"),
    (("train", "TABLE", "--model", "itransfomer"), 4, "Did you mean 'itransformer'"),
    (("train", "TABLE", "--set", "train.epoch=3"), 2, "Did you mean 'epochs'"),
    (("train", "TABLE", "--horizon", "9000"), 3, "--lookback"),
    (("train", "TABLE", "--target", "lod"), 3, "load"),
    (("train", "TABLE", "--alias", "v1", "--register", "x"), 2, "v1"),
    (("train", "TABLE", "--set", "train.device=tpu"), 2, "auto, cpu, cuda"),
    (("predict", "nowhere", "TABLE"), 4, "forecaster.json"),
    (("predict", "ARTEFACT", "TABLE", "--out", "x.xls"), 2, ".csv"),
    (("predict", "ARTEFACT", "TABLE", "--out", "no/such/x.csv"), 4, "no/such"),
    (("predict", "ARTEFACT", "TABLE", "--json"), 2, "--out"),
    (("predict", "ARTEFACT", "TABLE", "TABLE2"), 2, "--out"),
    (("predict", "ARTEFACT", "TABLE", "--history", "TABLE"), 2, "carries no state"),
    (("predict", "ARTEFACT", "*.nothing"), 4, "*.nothing"),
    (("evaluate", "ARTEFACT", "--cold"), 2, "carries no state"),
    (("baselines", "TABLE", "--fill", "magic"), 2, "none, hold, linear, refuse"),
    (("datasets", "show", "eth1"), 4, "etth1"),
    (("models", "show", "itransformr"), 4, "itransformer"),
]


@pytest.mark.parametrize(("arguments", "code", "words"), MISTAKES)
def test_mistakes_end_in_one_panel(command, table, trained, tmp_path, arguments, code, words):
    second = tmp_path / "second.csv"
    shutil.copy(table, second)
    names = {"TABLE": str(table), "TABLE2": str(second), "ARTEFACT": trained["artefact"]}
    done = command(*(names.get(word, word) for word in arguments), cwd=tmp_path)
    assert words in panel(done, code)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["second.csv"]


def test_a_missing_column_is_named(command, table, trained, tmp_path):
    partial = tmp_path / "partial.csv"
    pl.read_csv(table).drop("heat").write_csv(partial)
    out = tmp_path / "out.csv"
    text = panel(command("predict", trained["artefact"], partial, "--out", out), 3)
    assert "heat" in text
    assert not out.exists()


def test_an_artefact_that_was_changed_is_refused(command, table, trained, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(trained["artefact"], broken)
    weights = bytearray((broken / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (broken / "weights.safetensors").write_bytes(weights)
    text = panel(command("predict", broken, table), 3)
    found = hashlib.sha256(weights).hexdigest()
    assert found in text
    description = json.loads((broken / "forecaster.json").read_text())
    assert description["sha256"]["weights.safetensors"] in text
    description["format"] = 99
    (broken / "forecaster.json").write_text(json.dumps(description))
    assert "format 99" in panel(command("predict", broken, table), 3)


def test_a_pickle_in_an_artefact_is_never_run(command, table, trained, tmp_path):
    marker = tmp_path / "run"

    class Bomb:
        def __reduce__(self):
            return (open, (str(marker), "w"))

    bomb = pickle.dumps(Bomb())
    for name in ("weights.safetensors", "arrays.safetensors", "forecaster.json", "model.pkl"):
        folder = tmp_path / name.replace(".", "-")
        shutil.copytree(trained["artefact"], folder)
        (folder / name).write_bytes(bomb)
        if name in ("weights.safetensors", "arrays.safetensors"):
            # even with a description that vouches for it
            path = folder / "forecaster.json"
            description = json.loads(path.read_text())
            description["sha256"][name] = hashlib.sha256(bomb).hexdigest()
            path.write_text(json.dumps(description))
        done = command("predict", folder, table)
        assert done.returncode == (0 if name == "model.pkl" else 3), done.stderr
        assert not marker.exists()


def test_help_is_quick_and_light():
    script = (
        "import sys, time; sys.argv = ['forecast', '--help']\n"
        "from forecast.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'mlflow', 'polars', 'pandas', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    for word in ("train", "predict", "registry", "datasets", "Know what there is"):
        assert word in done.stdout


def test_version_and_short_help(command):
    assert command("--version").stdout.startswith("forecast 0.")
    assert "RECIPE|DATASET|FILE" in command("train", "-h").stdout
    wrong = command("train")
    assert wrong.returncode == 2
    assert "Traceback" not in wrong.stderr


def test_output_survives_a_reader_that_leaves(table, trained, user_environment):
    line = f"{sys.executable} -m forecast predict {trained['artefact']} {table} | head -1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        capture_output=True, text=True, env=user_environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "date,load,heat\n"
    assert "Error" not in done.stderr
    assert "Traceback" not in done.stderr


def test_several_files_and_parquet_go_into_a_folder(command, table, trained, tmp_path):
    for number in (1, 2):
        shutil.copy(table, tmp_path / f"part{number}.csv")
    pl.read_csv(table).write_parquet(tmp_path / "part3.parquet")
    done = command(
        "predict", trained["artefact"], str(tmp_path / "part*"), "--out", tmp_path / "out", "--json"
    )
    assert done.returncode == 0, done.stderr
    frames = [pl.read_csv(tmp_path / "out" / f"part{number}.csv") for number in (1, 2)]
    frames.append(pl.read_parquet(tmp_path / "out" / "part3.parquet"))
    assert frames[0].equals(frames[1])
    assert frames[0].equals(io_round_trip(frames[2]))


def io_round_trip(frame):
    return pl.read_csv(io.StringIO(frame.write_csv()))


def test_doctor_names_a_backend_and_a_reason_for_each_operation(command):
    document = json.loads(command("doctor", "--json").stdout)
    assert document["device"] == "cpu" or os.environ.get("CUDA_VISIBLE_DEVICES") != ""
    assert {row["operation"] for row in document["kernels"]} >= {"attention"}
    assert all(row["why"] for row in document["kernels"])
