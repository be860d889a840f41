"""Finding and loading a task's data: layout on disk, the Hub, subsets."""

from dataclasses import replace
from pathlib import Path

import datasets
import pytest
from tiny_tasks import make_udpos, sentences

from dlfa.data.examples import DataError, LabelledText, Question, TaggedSentence
from dlfa.tasks import get_task, hub
from dlfa.tasks.layout import languages_on_disk
from dlfa.tasks.loading import TaskData, choose_languages, load_task_data, subset
from dlfa.tasks.registry import IOB2, UPOS

UDPOS = get_task("udpos")


def test_all_files_are_read_in_the_tasks_order(tmp_path):
    folder = make_udpos(tmp_path)
    for code in ("qaf", "ab"):  # not of XTREME's
        (folder / f"test-{code}.tsv").write_text("a\tNOUN\n")
    (folder / "test-notes.txt").write_text("no data")
    assert languages_on_disk(UDPOS, folder, "test") == ["de", "en", "fr", "ab", "qaf"]
    data = load_task_data(UDPOS, folder)
    assert (len(data.train), len(data.dev)) == (48, 12)
    assert {language: len(examples) for language, examples in data.test.items()} == {
        "de": 10, "en": 10, "fr": 10, "ab": 1, "qaf": 1,
    }  # fmt: skip
    words, tags = zip(*sentences("en", 1, 1)[0], strict=True)
    assert data.train[0] == TaggedSentence(words, tags)


def test_missing_language_lists_what_is_there(tmp_path):
    folder = make_udpos(tmp_path)
    with pytest.raises(DataError, match=r"language 'th' is not in .*valid are de, en, fr$"):
        load_task_data(UDPOS, folder, ["en", "th"])
    with pytest.raises(DataError, match="names a language twice"):
        load_task_data(UDPOS, folder, ["en", "en"])
    (folder / "dev-en.tsv").unlink()
    with pytest.raises(DataError, match=r"no dev-en.tsv; languages with a dev file here: none"):
        load_task_data(UDPOS, folder, ["en"])


def test_what_is_no_file_is_named(tmp_path):
    make_udpos(tmp_path)
    (tmp_path / "test-de.tsv").unlink()
    (tmp_path / "test-de.tsv").mkdir()
    (tmp_path / "test-fr.tsv").unlink()
    (tmp_path / "test-fr.tsv").symlink_to(tmp_path / "nowhere")
    for language in ("de", "fr"):
        with pytest.raises(DataError, match=rf"test-{language}\.tsv: must be a file, and is a directory"):
            load_task_data(UDPOS, tmp_path, [language])


def test_codes_may_have_parts(tmp_path):
    make_udpos(tmp_path)
    for code in ("zh-Hans", "pt_br", "-x", "a.b"):
        (tmp_path / f"test-{code}.tsv").write_bytes((tmp_path / "test-de.tsv").read_bytes())
    assert languages_on_disk(get_task("udpos"), tmp_path, "test") == ["de", "en", "fr", "pt_br", "zh-Hans"]
    assert set(load_task_data(get_task("udpos"), tmp_path, ["zh-Hans"]).test) == {"zh-Hans"}


def test_missing_folder_and_empty_folder(tmp_path):
    with pytest.raises(DataError, match=r"no such folder; --data-dir must hold train-en.tsv, dev-en.tsv, test-XX.tsv"):
        load_task_data(UDPOS, tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no test files \(test-XX.tsv\)"):
        load_task_data(UDPOS, tmp_path)


def test_every_file_is_checked_before_anything_is_returned(tmp_path):
    folder = make_udpos(tmp_path)
    with (folder / "test-fr.tsv").open("a") as file:
        file.write("oops\tNOTATAG\n")
    with pytest.raises(DataError, match=r"test-fr.tsv:\d+: unknown tag 'NOTATAG'"):
        load_task_data(UDPOS, folder)


def test_subset_is_fixed_nested_and_in_order():
    numbers = list(range(1000))
    small, large = subset(numbers, 50), subset(numbers, 200)
    assert len(small) == 50
    assert small == sorted(small)
    assert set(small) < set(large)
    assert small == subset(numbers, 50)
    assert max(small) > 800  # drawn from everywhere, not from the front
    assert subset(numbers, None) == subset(numbers, 5000) == numbers


def test_a_negative_subset_is_refused():
    with pytest.raises(ValueError, match="not negative, got -5"):
        subset(range(9), -5)


def test_data_hash_tells_data_apart(tmp_path):
    folder = make_udpos(tmp_path)
    first = load_task_data(UDPOS, folder).sha256
    assert load_task_data(UDPOS, folder).sha256 == first
    small = load_task_data(UDPOS, folder, max_train_examples=10, max_eval_examples=3)
    assert (len(small.train), len(small.dev), {*map(len, small.test.values())}) == (10, 3, {3})
    other = [TaggedSentence(("a",), ("NOUN",))]
    parts = ({"train": other}, {"dev": other}, {"test": {**small.test, "fr": other}})
    assert len({small.sha256, first, *(replace(small, **part).sha256 for part in parts)}) == 5


def test_data_hash_tells_where_examples_belong():
    one, two = TaggedSentence(("a",), ("NOUN",)), TaggedSentence(("b",), ("VERB",))
    assert len(repr(one)) == len(repr(two))
    several = [
        TaskData([one, two]), TaskData([one], [two]), TaskData([], [one, two]), TaskData([one, two], [], {"de": []}),
        TaskData([one, one]),
        *(TaskData([one], [], test) for test in ({"de": [two]}, {"fr": [two]}, {"de": [], "fr": [two]})),
    ]  # fmt: skip
    assert len({data.sha256 for data in several}) == len(several)


class LocalHub:
    """Stands for `datasets.load_dataset`: parquet files in the columns of the Hub's data sets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[str, str | None, str]] = []

    def file(self, path: str, config: str | None, split: str) -> Path:
        return self.folder / path.replace("/", "--") / (config or "default") / f"{split}.parquet"

    def put(self, path: str, config: str | None, split: str, rows: dict, features: datasets.Features) -> None:
        file = self.file(path, config, split)
        file.parent.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_dict(rows, features=features).to_parquet(file)

    def __call__(self, path: str, config: str | None, split: str) -> datasets.Dataset:
        self.asked.append((path, config, split))
        return datasets.Dataset.from_parquet(str(self.file(path, config, split)), cache_dir=str(self.folder / "cache"))


@pytest.fixture
def local_hub(tmp_path, monkeypatch):
    local = LocalHub(tmp_path)
    monkeypatch.setattr(hub, "load_rows", local)
    return local


def tagged(column: str, names: tuple[str, ...]) -> datasets.Features:
    return datasets.Features(
        {
            "tokens": datasets.List(datasets.Value("string")),
            column: datasets.List(datasets.ClassLabel(names=list(names))),
        }
    )


def test_udpos_from_the_hub(local_hub):
    features = tagged("pos_tags", UPOS)
    for config, split, words in (
        ("udpos.English", "train", ["Dogs", "run"]),
        ("udpos.English", "validation", ["Cats", "sit"]),
        ("udpos.Afrikans", "test", ["Honde", "hardloop"]),
    ):
        rows = {"tokens": [words], "pos_tags": [[UPOS.index("NOUN"), UPOS.index("VERB")]]}
        local_hub.put("google/xtreme", config, split, rows, features)
    data = load_task_data(UDPOS, None, ["af"])
    assert data.train == [TaggedSentence(("Dogs", "run"), ("NOUN", "VERB"))]
    assert data.test == {"af": [TaggedSentence(("Honde", "hardloop"), ("NOUN", "VERB"))]}
    assert ("google/xtreme", "udpos.Afrikans", "test") in local_hub.asked


def test_class_numbers_are_read_by_their_names(local_hub):
    # The Hub's order of classes need not be ours.
    names = tuple(reversed(IOB2))
    rows = {"tokens": [["Ann", "ran"]], "ner_tags": [[names.index("B-PER"), names.index("O")]]}
    for split in ("train", "validation", "test"):
        local_hub.put("google/xtreme", "PAN-X.en", split, rows, tagged("ner_tags", names))
    data = load_task_data(get_task("panx"), None, ["en"])
    assert data.dev == [TaggedSentence(("Ann", "ran"), ("B-PER", "O"))]


def test_pairs_from_the_hub(local_hub):
    text = datasets.Value("string")
    nli = datasets.ClassLabel(names=["entailment", "neutral", "contradiction"])
    for config, split in (("en", "train"), ("en", "validation"), ("sw", "test")):
        rows = {"premise": ["p"], "hypothesis": ["h"], "label": [2]}
        features = datasets.Features({"premise": text, "hypothesis": text, "label": nli})
        local_hub.put("facebook/xnli", config, split, rows, features)
    for config, split in (("PAWS-X.en", "train"), ("PAWS-X.en", "validation"), ("PAWS-X.ko", "test")):
        rows = {"sentence1": ["p"], "sentence2": ["h"], "label": ["1"]}
        features = datasets.Features({"sentence1": text, "sentence2": text, "label": text})
        local_hub.put("google/xtreme", config, split, rows, features)
    assert load_task_data(get_task("xnli"), None, ["sw"]).test == {"sw": [LabelledText(("p", "h"), "contradiction")]}
    assert load_task_data(get_task("paws-x"), None, ["ko"]).train == [LabelledText(("p", "h"), "1")]


def test_questions_from_the_hub(local_hub):
    answers = {"answer_start": datasets.List(datasets.Value("int32")), "text": datasets.List(datasets.Value("string"))}
    strings = {name: datasets.Value("string") for name in ("id", "title", "context", "question")}
    rows = {
        "id": ["english-1", "russian-2"], "title": ["t", "t"], "context": ["a b", "c d"], "question": ["q", "r"],
        "answers": [{"answer_start": [2], "text": ["b"]}, {"answer_start": [0], "text": ["c"]}],
    }  # fmt: skip
    for split in ("train", "validation"):
        local_hub.put("google/xtreme", "tydiqa", split, rows, datasets.Features({**strings, "answers": answers}))
    data = load_task_data(get_task("tydiqa"), None, ["ru"])
    assert data.train == [Question("english-1", "q", "a b", (("b", 2),))]
    assert data.test == {"ru": [Question("russian-2", "r", "c d", (("c", 0),))]}
    assert data.dev == []  # the last model counts
    with pytest.raises(DataError, match=r"google/xtreme \(tydiqa\), split validation, holds no example in 'te'"):
        load_task_data(get_task("tydiqa"), None, ["te"])


def test_hub_failure_names_data_set_and_alternative(monkeypatch):
    def fail(path, config, split):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(hub, "load_rows", fail)
    with pytest.raises(DataError) as caught:
        load_task_data(UDPOS, None, ["de"])
    message = str(caught.value)
    assert "google/xtreme (udpos.English), split train" in message
    assert "(ConnectionError: no route);" in message
    assert "--data-dir DIR with train-en.tsv" in message
    assert "\n" not in message


def test_offline_hub_fails_the_same_way():
    # The real loader; the tests run with HF_HUB_OFFLINE=1.
    with pytest.raises(DataError, match=r"facebook/xnli \(en\).*could not be loaded from the Hub.*--data-dir"):
        load_task_data(get_task("xnli"), None, ["de"])


def test_task_without_hub_data_asks_for_files():
    with pytest.raises(DataError, match=r"task sick has no train data on the Hub; give --data-dir DIR"):
        load_task_data(get_task("sick"), None, ["nl"])


def test_foreign_columns_are_named(local_hub):
    text = datasets.Value("string")
    for split in ("train", "validation", "test"):
        local_hub.put("facebook/xnli", "en", split, {"text": ["a"]}, datasets.Features({"text": text}))
    with pytest.raises(DataError, match=r"facebook/xnli \(en\), split train, has not the columns that xnli needs"):
        load_task_data(get_task("xnli"), None, ["en"])


@pytest.mark.parametrize(("label", "shown"), [("maybe", "maybe"), ("-1", "-1")])
def test_foreign_labels_of_the_hub_are_named(local_hub, label, shown):
    text = datasets.Value("string")
    rows = {"premise": ["p"], "hypothesis": ["h"], "label": [label]}
    features = datasets.Features({"premise": text, "hypothesis": text, "label": text})
    local_hub.put("facebook/xnli", "en", "train", rows, features)
    with pytest.raises(DataError, match=f"split train: unknown label '{shown}'; valid are entailment, neutral"):
        load_task_data(get_task("xnli"), None, ["en"])


def test_hidden_label_of_the_hub_is_no_class(local_hub):
    # -1 stands for a label that is not published; it must not be read as the last class.
    nli = datasets.ClassLabel(names=["entailment", "neutral", "contradiction"])
    text = datasets.Value("string")
    rows = {"premise": ["p"], "hypothesis": ["h"], "label": [-1]}
    features = datasets.Features({"premise": text, "hypothesis": text, "label": nli})
    local_hub.put("facebook/xnli", "en", "train", rows, features)
    with pytest.raises(DataError, match="unknown label '-1'"):
        load_task_data(get_task("xnli"), None, ["en"])


def test_unknown_hub_language_lists_the_tasks(local_hub):
    with pytest.raises(DataError, match=r"language 'xx' is not in task paws-x; valid are de, en, es"):
        choose_languages(get_task("paws-x"), None, ["xx"], "test")


def test_real_data_are_read_as_their_readme_counts_them(shared):
    data = load_task_data(UDPOS, shared / "data" / "udpos")
    assert (len(data.train), len(data.dev), len(data.test)) == (12544, 2001, 33)
    assert sum(map(len, data.test.values())) == 21282
    assert sum(len(example.words) for example in data.train) == 204577
    uner = load_task_data(get_task("uner"), shared / "data" / "uner")
    assert (len(uner.train), sorted(uner.test)) == (
        3040,
        sorted(["zh", "hr", "da", "nb", "nn", "pt", "sr", "sk", "sv", "qaf", "ceb", "tl"]),
    )
    sick = load_task_data(get_task("sick"), shared / "data" / "sick")
    assert {language: len(examples) for language, examples in sick.test.items()} == {"en": 4906, "nl": 4906, "ja": 4927}
