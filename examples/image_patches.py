"""A second input from another modality: tag the words of a caption with the help of the image patches they stand for.

    python examples/image_patches.py

AIF fuses two sequences of one length, and the second need not be a layer of the encoder. `feature_dim` says how wide
it is (a learnt projection brings it to the encoder's width) and `external_features` (B, T, feature_dim) hands it over.
Here every word of a caption stands for one patch of an image, as region annotations or a phrase-grounding model would
give it; the special tokens stand for none and get zeros. What real patch features would come from, such as the last
layer of a vision transformer, makes no difference to the code.

The data are made: an image is a grid of noisy patches in warm or cold colours, and half of the words are ambiguous:
their tag depends on the colour of the patch. Reading alone gets those right half of the time.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import BertConfig, BertModel

from dlfa import DLFAForTokenClassification

GRID, PIXELS = 4, 8  # patches a side, pixels a side of a patch
WORDS = GRID * GRID
CLS, SEP, FIRST_WORD, VOCABULARY = 1, 2, 4, 44
PATCH_FEATURES = 3 * PIXELS * PIXELS


def captioned_images(count: int, seed: int) -> dict[str, Tensor]:
    """Captions with their images: input_ids and labels (N, T), images (N, 3, 32, 32); T = 18, a word a patch.

    The tag of an even word is 0 or 1, by its patch; that of an odd word is always 2.
    """
    generator = torch.Generator().manual_seed(seed)
    warm = torch.rand(count, 1, GRID, GRID, generator=generator) < 0.5
    colour = torch.where(
        warm, torch.tensor([1.0, 0.3, 0.0]).view(1, 3, 1, 1), torch.tensor([0.0, 0.3, 1.0]).view(1, 3, 1, 1)
    )
    images = colour.repeat_interleave(PIXELS, 2).repeat_interleave(PIXELS, 3)
    images = images + 0.5 * torch.randn(images.shape, generator=generator)
    words = torch.randint(FIRST_WORD, VOCABULARY, (count, WORDS), generator=generator)
    tags = torch.where(words % 2 == 0, warm.flatten(1).long(), 2)
    edge = torch.ones(count, 1, dtype=torch.long)
    return {
        "input_ids": torch.cat([edge * CLS, words, edge * SEP], 1),
        "labels": torch.cat([edge * -100, tags, edge * -100], 1),
        "images": images,
    }


def patch_states(images: Tensor) -> Tensor:
    """(N, 3, 32, 32) pixels -> (N, T, feature_dim): one row of features a token, zeros for the special ones."""
    patches = torch.nn.functional.unfold(images, PIXELS, stride=PIXELS).transpose(1, 2)
    return torch.nn.functional.pad(patches, (0, 0, 1, 1))


def accuracy(with_images: bool, steps: int = 150, seed: int = 0) -> float:
    """Train a small tagger, on captions alone or with their images, and return the share of right tags on new ones."""
    torch.manual_seed(seed)
    encoder = BertModel(
        BertConfig(
            vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
        )
    )
    model = DLFAForTokenClassification.from_encoder(
        encoder, fusion_layer=None, num_labels=3, feature_dim=PATCH_FEATURES if with_images else None
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

    def inputs(data: dict[str, Tensor]) -> dict[str, Tensor]:
        given = {"input_ids": data["input_ids"], "labels": data["labels"]}
        return {**given, "external_features": patch_states(data["images"])} if with_images else given

    model.train()
    for step in range(steps):
        loss = model(**inputs(captioned_images(32, seed=step))).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    test = captioned_images(200, seed=10**6)
    with torch.no_grad():
        tags = model.eval()(**inputs(test)).logits.argmax(-1)
    learnt = test["labels"] != -100
    return float((tags == test["labels"])[learnt].float().mean())


if __name__ == "__main__":
    print(f"captions alone        {accuracy(with_images=False):.3f}   (0.750 is the best there is to read)")
    print(f"captions and patches  {accuracy(with_images=True):.3f}")
