"""Importing the package: quick, and enough for transformers' Auto classes in whatever order."""

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_encoders import tiny_encoder

from dlfa import DLFAForTokenClassification


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    DLFAForTokenClassification.from_encoder(tiny_encoder("bert"), fusion_layer=1, num_labels=3).save_pretrained(folder)
    return folder


def run(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_loads_neither_torch_nor_transformers() -> None:
    code = "import sys, dlfa; print([name for name in ('torch', 'transformers') if name in sys.modules])"
    assert run(code) == "[]"


@pytest.mark.parametrize(
    "imports",
    [
        "import dlfa; from transformers import AutoModelForTokenClassification as Auto",
        "from transformers import AutoModelForTokenClassification as Auto; import dlfa",
        pytest.param(
            "from dlfa import DLFAConfig; from transformers import AutoModelForTokenClassification as Auto",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "import dlfa.models.modeling; from transformers import AutoModelForTokenClassification as Auto",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_auto_classes_know_the_model(imports: str, saved: Path) -> None:
    code = f"import sys; {imports}; print(type(Auto.from_pretrained(sys.argv[1])).__name__)"
    assert run(code, str(saved)) == "DLFAForTokenClassification"


def test_a_saved_model_loads_without_the_import_where_its_file_is_trusted(saved: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from transformers import AutoModelForTokenClassification as Auto;"
        "model = Auto.from_pretrained(sys.argv[1], trust_remote_code=True);"
        "model.save_pretrained(sys.argv[2]); print(type(model).__module__)"
    )
    assert run(code, str(saved), str(tmp_path)) == "dlfa.models.heads"
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors", "modeling_dlfa.py"}
    assert (tmp_path / "config.json").read_text() == (saved / "config.json").read_text()
