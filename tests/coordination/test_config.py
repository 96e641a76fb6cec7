"""Tests of the options of `Coordination`, from files and the environment."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lightning_elche.coordination.config import ENVIRONMENT, CoordinationConfig
from lightning_elche.coordination.registry.config import RegistryConfig
from lightning_elche.coordination.stopping.stop import StopConfig
from tests.coordination.config_schema import SCHEMA, schema

ROOT = Path(__file__).parents[2]


def write(folder: Path, *sections: str) -> Path:
    """Write a file of options."""
    path = folder / "coordination.yaml"
    path.write_text("\n".join(["version: 1", *sections]))
    return path


def test_without_file_and_environment_all_is_default() -> None:
    """But for the folder of the registry, which is complete."""
    config = CoordinationConfig.load(None, {})
    assert config.stop.grace_s == 25.0
    assert config == CoordinationConfig().completed({})


@pytest.mark.parametrize(
    ("sections", "env", "grace_s"),
    [
        ([], {}, 25.0),
        ([], {"ELCHE_GRACE_S": "40"}, 40.0),
        ([], {"ELCHE_GRACE_S": ""}, 25.0),
        (["stop: {exit_code: 0}"], {"ELCHE_GRACE_S": "40"}, 40.0),
        (["stop: {grace_s: 50}"], {"ELCHE_GRACE_S": "40"}, 50.0),
        (["stop: {grace_s: 25}"], {"ELCHE_GRACE_S": "40"}, 25.0),
    ],
)
def test_file_beats_environment_beats_default(
    tmp_path: Path, sections: list[str], env: dict[str, str], grace_s: float
) -> None:
    """A variable never overrides what somebody wrote, were it the default."""
    assert CoordinationConfig.load(write(tmp_path, *sections), env).stop.grace_s == grace_s


def test_argument_beats_environment() -> None:
    """Only where the registry is comes from there, as far as the argument leaves it out."""
    given = CoordinationConfig(stop=StopConfig(grace_s=12.0))
    config = given.completed({"ELCHE_GRACE_S": "40", "ELCHE_COORD_URL": "http://head:9474"})
    assert config.stop.grace_s == 12.0
    assert config.registry.url == "http://head:9474"


@pytest.mark.parametrize("variable", sorted(ENVIRONMENT))
def test_every_variable_is_read(variable: str) -> None:
    """Each sets the option that it is named after."""
    texts = {"ELCHE_DEADLINE": "2030-01-01T00:00:00+00:00", "ELCHE_TARGET_UTIL_MAX": "75"}
    text = texts.get(variable, "65")
    section, option = ENVIRONMENT[variable]
    found = getattr(getattr(CoordinationConfig.load(None, {variable: text}), section), option)
    assert str(found).removesuffix(".0") == text


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("stop: {grace_s: -5}", "::$.stop.grace_s: `grace_s` must be > 0 and finite, got -5."),
        ("stop: {grace: 5}", "::$.stop.grace: `grace` is not known"),
        ("stops: {}", "::$.stops: `stops` is not known"),
        ("faults: {oom: off}", '::$.faults.oom: `oom` must be one of the text "skip" or the'),
        ("stop: {signals: [SIGKILL]}", "::$.stop.signals: `signals` must be names among SIGTERM"),
        ("registry: {token: secret}", "::$.registry.token: `token` is not known"),
        ("export: {port: true}", "::$.export.port: `port` must be an integer or null, got true"),
        ("export: {port: 70000}", "::$.export.port: `port` must be in [0, 65535] or null, got 7"),
        (
            'schedule: {peak: ["14:00", "22:00", 3]}',
            "::$.schedule.peak[2]: `peak[2]` must be text, got 3",
        ),
        ("limits: {per_host: {train: x}}", "::$.limits.per_host.train: `train` must be an integer"),
    ],
)
def test_what_is_not_valid_is_refused_with_its_place(
    tmp_path: Path, section: str, message: str
) -> None:
    """The message names the file, the path in it, the option and the value."""
    path = write(tmp_path, section)
    with pytest.raises(ValueError, match=r"must be|not known") as caught:
        CoordinationConfig.load(path, {})
    assert str(caught.value).startswith(f"{path}{message}")


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"ELCHE_GRACE_S": "-1"}, "ELCHE_GRACE_S: `grace_s` must be > 0 and finite, got -1.0."),
        ({"ELCHE_GRACE_S": "soon"}, "ELCHE_GRACE_S must be a number, got 'soon'."),
        ({"ELCHE_COORD_URL": "head:9"}, "`url` must begin with http:// or https:// or be null"),
    ],
)
def test_variable_that_is_not_valid_is_named(env: dict[str, str], message: str) -> None:
    """As is what is wrong with it."""
    with pytest.raises(ValueError, match="must be") as caught:
        CoordinationConfig.load(None, env)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("text", ["", "stop: {}", "version: 2", "[1]", "version: 1\nversion: 1"])
def test_file_of_another_form_is_refused(tmp_path: Path, text: str) -> None:
    """It must be a mapping with the version, each key once."""
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"c\.yaml"):
        CoordinationConfig.load(path, {})


def test_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    """Nobody may ever write to it."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="must be a regular file"):
        CoordinationConfig.load(tmp_path / "pipe", {})


def test_missing_file_is_an_error_of_the_system(tmp_path: Path) -> None:
    """Whoever asks can tell it from a file that is not valid."""
    with pytest.raises(FileNotFoundError):
        CoordinationConfig.load(tmp_path / "none.yaml", {})


def test_own_keys_are_left_alone(tmp_path: Path) -> None:
    """Those that begin with x- are for notes."""
    path = write(tmp_path, "x-owner: me", "stop: {x-why: cluster, grace_s: 3}")
    assert CoordinationConfig.load(path, {}).stop.grace_s == 3


def test_what_is_written_out_is_read_again(tmp_path: Path) -> None:
    """All options but secrets survive the way to a file and back."""
    config = CoordinationConfig.load(ROOT / "contracts/coordination-v1.yaml", {})
    path = tmp_path / "c.yaml"
    path.write_text(json.dumps(config.to_dict()))
    assert CoordinationConfig.load(path, {}) == config


def test_schema_is_what_the_dataclasses_say() -> None:
    """Options, types, choices, defaults, texts; `config_schema` writes it anew."""
    assert json.loads((ROOT / SCHEMA).read_text()) == schema()


def test_secret_is_neither_shown_nor_written() -> None:
    """Not even in a traceback."""
    config = CoordinationConfig.load(None, {"ELCHE_TOKEN": "hunter2"})
    assert config.registry.token == "hunter2"
    assert "hunter2" not in repr(config) + json.dumps(config.to_dict())


@pytest.mark.parametrize(
    ("env", "folder"),
    [
        ({"ELCHE_COORD_DIR": "/a", "XDG_STATE_HOME": "/b"}, "/a"),
        ({"XDG_STATE_HOME": "/b"}, "/b/elche"),
        ({"XDG_STATE_HOME": "relative"}, "/home/me/.local/state/elche"),
        ({}, "/home/me/.local/state/elche"),
    ],
)
def test_folder_of_the_registry_is_found(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], folder: str
) -> None:
    """Never in the folder for temporary files."""
    monkeypatch.setenv("HOME", "/home/me")
    assert RegistryConfig().completed(env).folder == folder
    assert RegistryConfig(folder="/mine").completed(env).folder == "/mine"
