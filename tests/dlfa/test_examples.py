"""The programs in examples/, each run as it stands, but for the size of a training."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import torch
from tiny_tasks import make_encoder
from transformers import pipeline


def example(name: str) -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_patches_of_an_image_are_aligned_with_its_words() -> None:
    images = example("image_patches")
    data = images.captioned_images(3, seed=0)
    states = images.patch_states(data["images"])
    assert states.shape == (3, 18, images.PATCH_FEATURES)
    assert (states[:, [0, -1]] == 0).all()
    red = states[:, 1:-1, : images.PIXELS**2].mean(-1)  # the first channel of a patch
    ambiguous = data["input_ids"][:, 1:-1] % 2 == 0
    assert ((red > 0.5).long() == data["labels"][:, 1:-1])[ambiguous].all()


def test_the_image_is_read() -> None:
    images = example("image_patches")
    assert images.accuracy(with_images=True, steps=60) > 0.95
    assert images.accuracy(with_images=False, steps=60) < 0.8  # no text tells the colour: 0.75 at best


def test_packed_sequences_are_decided_as_wholes() -> None:
    packed = example("packed_training")
    assert packed.accuracy(fused=True, steps=100) > 0.95
    assert packed.accuracy(fused=False, steps=100) < 0.7  # a token alone cannot tell


def test_a_tagger_under_transformers_trainer(tmp_path: Path) -> None:
    encoder, output = make_encoder(tmp_path / "encoder"), tmp_path / "tagger"
    trainer = example("own_trainer")
    torch.manual_seed(0)  # of eight seeds, every one learns all of it
    trainer.train(str(encoder), output)
    tagger = pipeline("token-classification", str(output), ignore_labels=[])
    for sentence in trainer.SENTENCES:
        pairs = [part.partition("/") for part in sentence.split()]
        pieces = tagger(" ".join(word for word, _, _ in pairs))
        tags = [piece["entity"] for piece in pieces if not piece["word"].startswith("##")]  # of first sub-words
        assert tags == [tag or "O" for _, _, tag in pairs]
