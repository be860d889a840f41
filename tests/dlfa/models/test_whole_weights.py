"""Loading with all weights: what may be absent is, and everything else is an error."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_encoders import FAMILIES, SPECIAL, WIDTH, batch, tiny_config, tiny_encoder
from torch import Tensor
from transformers import AutoModelForMaskedLM, AutoModelForPreTraining, BertModel, IBertConfig, IBertModel, RobertaModel

from dlfa import DLFAModel
from dlfa.models.whole_weights import load_whole


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    weights = folder / "model.safetensors"
    save_file(change(load_file(weights)), weights, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("family", "auto"),
    [
        *((family, AutoModelForMaskedLM) for family in (*FAMILIES, *SPECIAL)),
        *((family, AutoModelForPreTraining) for family in ("bert", "electra", "albert")),
    ],
)
def test_an_encoder_is_found_below_any_head(family: str, auto: type, tmp_path: Path) -> None:
    torch.manual_seed(0)
    with_head = auto.from_config(tiny_config(family)).eval()
    with_head.save_pretrained(tmp_path)
    model = DLFAModel.from_encoder(tmp_path, 1).eval()
    with torch.no_grad():
        expected = with_head.base_model(**batch()).last_hidden_state
        assert torch.equal(model.encoder_states(**batch()).last, expected)


@pytest.mark.parametrize("family", [*FAMILIES, *SPECIAL])
def test_a_parameter_that_is_missing_is_named(family: str, tmp_path: Path) -> None:
    tiny_encoder(family).save_pretrained(tmp_path)
    name = sorted(name for name in load_file(tmp_path / "model.safetensors") if "embed" in name.lower())[0]
    rewrite(tmp_path, lambda own: {key: value for key, value in own.items() if key != name})
    with pytest.raises(ValueError, match=rf"^the weights in {tmp_path} lack {name} of a \w+Model$"):
        DLFAModel.from_encoder(tmp_path, 1)


def test_weights_under_other_names_are_said(tmp_path: Path) -> None:
    tiny_encoder("bert").save_pretrained(tmp_path)
    rewrite(tmp_path, lambda own: {f"backbone.{name}": value for name, value in own.items()})
    with pytest.raises(
        ValueError, match=r"lack embeddings.* and 52 more of a BertModel; they hold backbone\..* and 54 more$"
    ):
        DLFAModel.from_encoder(tmp_path, 1)


def test_a_pooler_may_be_absent_where_it_is_not_used(tmp_path: Path) -> None:
    BertModel(tiny_config("bert")).save_pretrained(tmp_path)
    rewrite(tmp_path, lambda own: {name: value for name, value in own.items() if "pooler" not in name})
    loaded = load_whole(BertModel, tmp_path, unused=("pooler",))
    assert loaded.pooler.dense.weight.shape == (WIDTH, WIDTH)
    with pytest.raises(ValueError, match=r"lack pooler\.dense\.bias and 1 more of a BertModel"):
        load_whole(BertModel, tmp_path)


def test_buffers_may_be_absent(tmp_path: Path) -> None:
    config = IBertConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
        max_position_embeddings=64,
    )  # fmt: skip
    encoder = IBertModel(config)
    encoder.save_pretrained(tmp_path)
    parameters = dict(encoder.named_parameters())
    assert len(parameters) < len(load_file(tmp_path / "model.safetensors"))
    rewrite(tmp_path, lambda own: {name: value for name, value in own.items() if name in parameters})
    loaded = dict(DLFAModel.from_encoder(tmp_path, 1).encoder.named_parameters())
    assert all(torch.equal(value, parameters[name]) for name, value in loaded.items())


def test_other_shapes_are_an_error_unless_they_are_to_be_ignored(tmp_path: Path) -> None:
    tiny_encoder("bert").save_pretrained(tmp_path)
    rewrite(tmp_path, lambda own: {name: value[:50] if "word_e" in name else value for name, value in own.items()})
    message = r"hold embeddings\.word_embeddings\.weight in shape \(50, 32\), config\.json asks for \(60, 32\)"
    with pytest.raises(ValueError, match=message):
        DLFAModel.from_encoder(tmp_path, 1)
    anew = DLFAModel.from_encoder(tmp_path, 1, encoder_kwargs={"ignore_mismatched_sizes": True})
    assert anew.get_input_embeddings().weight.shape == (60, 32)


def test_weights_that_cannot_be_read_are_an_oserror(tmp_path: Path) -> None:
    tiny_encoder("bert").save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(OSError, match="its weights cannot be read: "):
        load_whole(RobertaModel, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    for content in (b"version https://git-lfs", b"", b"\x80\x02\x8a\x0a"):  # no pickle, nothing, a part of one
        (tmp_path / "pytorch_model.bin").write_bytes(content)
        with pytest.raises(OSError, match=r"its weights cannot be read: .+"):
            load_whole(RobertaModel, tmp_path)


def test_weights_that_may_not_be_read_are_not_called_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_encoder("bert").save_pretrained(tmp_path)
    monkeypatch.setattr("os.access", lambda *_: False)  # as to anyone but root
    with pytest.raises(OSError, match=r"its weights cannot be read: no permission to read .*model\.safetensors"):
        load_whole(BertModel, tmp_path)


def test_an_unknown_activation_is_named(tmp_path: Path) -> None:
    tiny_encoder("bert").save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"hidden_act": "gellu"}))
    with pytest.raises(OSError, match=r"^'gellu' is unknown to transformers, or missing in its files$"):
        DLFAModel.from_encoder(tmp_path, 1)


def test_a_package_that_is_missing_is_named() -> None:
    class Quantized:
        @classmethod
        def from_pretrained(cls, *_: object, **__: object) -> None:
            raise ImportError("quantization needs tinybits: `pip install tinybits`\nor do without")

    with pytest.raises(OSError, match=r"^quantization needs tinybits: `pip install tinybits`$"):
        load_whole(Quantized, "encoder")
