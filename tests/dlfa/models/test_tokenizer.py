"""Loading a tokenizer: whatever is wrong with its files is a ValueError that names their folder."""

from pathlib import Path

import pytest
from tiny_tasks import make_encoder

from dlfa.models.tokenizer import load_tokenizer


@pytest.mark.parametrize("name", ["tokenizer_config.json", "tokenizer.json"])
@pytest.mark.parametrize("content", ["[]", '"BERT"', "{"])
def test_damaged_files_are_named(name: str, content: str, tmp_path: Path) -> None:
    make_encoder(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=f"^no tokenizer can be loaded from '{tmp_path}': .+"):
        load_tokenizer(str(tmp_path), 64)
