"""RunConfig: its fields are checked, whether they come from Python or from JSON, and compared with a run's."""

import json
import math
from pathlib import Path

import pytest

from dlfa.evaluation.results import recorded_config
from dlfa.runs.run_config import CompleteRunConfig, Role, RunConfig, differences, fields_of

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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "pos"}, "unknown task 'pos'; valid are udpos"),
        ({"learning_rate": 0.0}, "learning_rate must be a positive number"),
        ({"head_learning_rate": math.nan}, "head_learning_rate must be a positive number"),
        ({"epochs": -1.0}, "epochs must be a positive number"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"max_train_examples": 0}, "max_train_examples must be at least 1"),
        ({"batch_size": 2**31}, "batch_size must be at most 2147483647, got 2147483648"),
        ({"epochs": 1e300}, r"epochs must be at most 2147483647, got 1e\+300"),
        ({"warmup_steps": 10**30}, "warmup_steps must be at most 2147483647"),
        ({"weight_decay": -0.1}, "weight_decay must not be negative"),
        ({"warmup_steps": -1}, "warmup_steps must not be negative"),
        ({"weight_decay": math.inf}, "weight_decay must not be negative, got inf"),
        ({"seed": -1}, "seed must be in 0"),
        ({"seed": 2**32}, "seed must be in 0"),
        ({"bf16": True, "fp16": True}, "bf16 and fp16"),
        ({"lora_alpha": 4}, "lora_alpha and lora_targets need a lora_rank"),
        ({"lora_rank": 0}, "lora_rank must be at least 1"),
        ({"lora_rank": 2, "freeze_layers": 1}, "lora_rank cannot be given together with freeze_layers"),
        ({"freeze_layers": -1}, "freeze_layers must not be negative"),
        ({"freeze_encoder": True, "freeze_layers": 1}, "freeze_encoder cannot be given together with freeze_layers"),
        (
            {"freeze_encoder": True, "lora_rank": 2, "gradient_checkpointing": True},
            "together with lora_rank, gradient_checkpointing",
        ),
        ({"states_dtype": "int8"}, "states_dtype must be one of float32, float16, got 'int8'"),
    ],
)
def test_bad_values_are_named(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RunConfig(**{**NEEDED, **changes}, output_dir=Path("out"))


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


def test_layers_in_a_tuple_are_those_that_run_json_holds() -> None:
    told = RunConfig(**NEEDED, output_dir=Path("out"), model_options={"fusion_layer": (0, 1)}).to_json()
    assert differences(json.loads(json.dumps(told)), told) == []


def test_configurations_differ_in_the_fields_of_either() -> None:
    assert differences({"epochs": 1, "seed": 1}, {"epochs": 2, "seed": 1}) == ["epochs"]
    assert differences({}, {"bf16": True, "lora_rank": None}) == ["bf16"]  # as where a release knew fewer fields
    assert differences({"bf16": True, "lora_rank": None}, {}) == ["bf16"]
    free = {"eval_batch_size": 2, "states_cache": "elsewhere", "gradient_checkpointing": True, "data_dir": "moved"}
    assert differences({"eval_batch_size": 1}, free) == []


def test_places_mean_the_same_from_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = RunConfig("udpos", "encoder", Path("out"), data_dir=Path("data"), states_cache=Path("states")).to_json()
    assert (told["data_dir"], told["states_cache"]) == (str(tmp_path / "data"), str(tmp_path / "states"))


def test_one_list_says_what_options_are_to_a_run() -> None:
    config = RunConfig(task="udpos", model="/places/encoder", output_dir=Path("/places/out"), data_dir=Path("/places"))
    told = recorded_config(config)
    identity = {"task", "model", "languages", "seed"}
    assert fields_of(config.to_json(), Role.IDENTITY).keys() == identity
    assert told.keys() == config.to_json().keys() - identity - {"data_dir", "states_cache", "intermediate"}
    free = {"eval_batch_size", "gradient_checkpointing", "model_options"}
    assert fields_of(told, Role.PROTOCOL).keys() == told.keys() - free
    assert fields_of({"unknown": 1}, Role.PROTOCOL) == {"unknown": 1}
