"""RunConfig: every field's type is checked, whether it comes from Python or from JSON."""

import json
from pathlib import Path

import pytest

from dlfa.runs.run_config import CompleteRunConfig, RunConfig, differences

NEEDED = {"task": "udpos", "model": "encoder"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 2.5}, r"batch_size must be of type int \| None, got 2\.5"),
        ({"seed": 1.5}, r"seed must be of type int, got 1\.5"),
        ({"seed": None}, "seed must be of type int, got None"),
        ({"lora_rank": True}, r"lora_rank must be of type int \| None, got True"),
        ({"save_steps": True}, r"save_steps must be of type int \| None, got True"),
        ({"bf16": "no"}, "bf16 must be of type bool, got 'no'"),
        ({"bf16": 1}, "bf16 must be of type bool, got 1"),
        ({"languages": "de"}, r"languages must be of type tuple\[str, \.\.\.\] \| None, got 'de'"),
        ({"languages": ["de", 1]}, r"languages must be of type .*, got \['de', 1\]"),
        ({"intermediate": None}, r"intermediate must be of type tuple\[str, \.\.\.\], got None"),
        ({"epochs": "3"}, r"epochs must be of type float \| None, got '3'"),
        ({"weight_decay": None}, "weight_decay must be of type float, got None"),
        ({"model_options": []}, r"model_options must be of type Mapping\[str, Any\], got \[\]"),
        ({"data_dir": 3}, r"data_dir must be of type Path \| None, got 3"),
        ({"task": 3}, "task must be of type str, got 3"),
    ],
)
def test_values_of_another_type_are_named(fields: dict, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        RunConfig(**{**NEEDED, **fields}, output_dir=Path("out"))
    with pytest.raises(TypeError, match=message):
        RunConfig.from_json({**NEEDED, **fields}, Path("out"))


def test_a_place_must_be_a_path() -> None:
    with pytest.raises(TypeError, match="output_dir must be of type Path, got 'out'"):
        RunConfig(**NEEDED, output_dir="out")  # type: ignore[arg-type]


def test_a_complete_configuration_lacks_nothing() -> None:
    whole = RunConfig(**NEEDED, output_dir=Path("out")).with_presets()
    assert isinstance(whole, CompleteRunConfig)
    values = whole.to_json() | {"languages": ("de",), "output_dir": Path("out"), "epochs": None}
    with pytest.raises(TypeError, match="epochs must be of type float, got None"):
        CompleteRunConfig(**values)


def test_json_gives_the_same_run_back(tmp_path: Path) -> None:
    made = RunConfig(
        **NEEDED, output_dir=tmp_path, data_dir=tmp_path, languages=("de", "fr"), epochs=2, lora_rank=4,
        lora_targets=["query"], intermediate=("udpos",), model_options={"fusion_layer": 3},
    )  # fmt: skip
    assert made.lora_targets == ("query",)  # a list is taken for a tuple
    assert RunConfig.from_json(json.loads(json.dumps(made.to_json())), tmp_path) == made


def test_directories_are_absolute_in_json_and_names_of_the_hub_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a")
    stages = ("udpos", "udpos:b", "sick:../a/b", "xnli:nowhere")
    here = RunConfig(task="udpos", model="../a/b", output_dir=tmp_path, intermediate=stages).to_json()
    b = tmp_path / "a" / "b"
    assert here["model"] == str(b)
    assert here["intermediate"] == ["udpos", f"udpos:{b}", f"sick:{b}", "xnli:nowhere"]
    assert RunConfig(task="udpos", model="org/encoder", output_dir=tmp_path).to_json()["model"] == "org/encoder"
    before = here | {"model": "b", "intermediate": ["udpos", "udpos:./b", "sick:b", "xnli:nowhere"]}
    assert differences(before, here) == []
    assert differences(before | {"intermediate": stages[:2]}, here) == ["intermediate"]
    monkeypatch.chdir(tmp_path)
    assert differences(before, here) == ["model", "intermediate"]
