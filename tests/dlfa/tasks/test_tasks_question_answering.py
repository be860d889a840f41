"""Question answering: windows, spans, answers, and the scores of SQuAD and MLQA."""

import functools
import json
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_tasks import make_encoder, make_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from dlfa.data.examples import DataError, Question
from dlfa.evaluation.evaluate import evaluate
from dlfa.evaluation.saved_runs import load_run
from dlfa.runs.run_config import RunConfig
from dlfa.runs.run_directory import RunDirectory
from dlfa.tasks import Encoding, Feature, get_task
from dlfa.tasks.answer_metrics import answer_metrics, mlqa_tokens, squad_tokens
from dlfa.tasks.layout import find_file, languages_on_disk
from dlfa.tasks.model_inputs import ModelInputs
from dlfa.tasks.question_answering import Span, _windows
from dlfa.training.train import train

XQUAD, MLQA, TYDIQA = get_task("xquad"), get_task("mlqa"), get_task("tydiqa")
WORDS = [f"w{number}" for number in range(60)]
PASSAGE = " ".join(WORDS)
ANSWER = "w40 w41"
QUESTION = Question("q1", "who is it", PASSAGE, ((ANSWER, PASSAGE.index(ANSWER)),))


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.mark.parametrize("max_length", [24, 40, 120])
def test_windows_hold_the_passage_and_point_to_the_answer(tokenizer, max_length):
    features = XQUAD.encode([QUESTION], tokenizer, Encoding(max_length), training=True)
    covered = set()
    found = 0
    for feature in features:
        inputs = feature.inputs
        tokens = tokenizer.convert_ids_to_tokens(inputs["input_ids"])
        assert len(tokens) <= max_length
        assert len(tokens) == len(inputs["attention_mask"]) == len(inputs["token_type_ids"])
        assert (tokens[0], tokens[-1]) == ("[CLS]", "[SEP]")
        first, characters = feature.target
        assert inputs["token_type_ids"] == [0] * first + [1] * (len(tokens) - first)
        covered |= {place for start, stop in characters for place in range(start, stop)}
        start, end = inputs["start_positions"], inputs["end_positions"]
        if (start, end) == (0, 0):
            continue
        found += 1
        assert PASSAGE[characters[start - first][0] : characters[end - first][1]] == ANSWER
    assert covered == {place for place, character in enumerate(PASSAGE) if character != " "}
    assert found >= 1


def test_window_step_is_xtremes(tokenizer):
    long = Question("q", "who", "a " * 600, (("a", 0),))
    features = XQUAD.encode([long], tokenizer, Encoding(384), training=False)
    # 384 - [CLS] w h o [SEP] [SEP] = 378 tokens a window, one every 128.
    assert [feature.target[1][0][0] // 2 for feature in features] == [0, 128, 256]
    assert [len(feature.target[1]) for feature in features] == [378, 378, 344]


@pytest.mark.parametrize(("words", "windows"), [(18, 1), (19, 2)])
def test_a_passage_that_just_fits_is_one_window(tokenizer, words, windows):
    # 24 - [CLS] w h o [SEP] [SEP] = 18 tokens a window.
    question = Question("q", "who", "a " * words, (("a", 0),))
    assert len(XQUAD.encode([question], tokenizer, Encoding(24), training=True)) == windows


def test_an_answer_ends_where_the_next_token_begins(tokenizer):
    (feature,) = XQUAD.encode([Question("q", "q", "abc", (("b", 1),))], tokenizer, Encoding(32), training=True)
    first, characters = feature.target
    assert characters.tolist() == [[0, 1], [1, 2], [2, 3]]
    assert (feature.inputs["start_positions"], feature.inputs["end_positions"]) == (first + 1, first + 1)


def test_windows_of_one_token_go_on():
    assert list(islice(_windows(5, 8, 1), 4)) == [(5, 6), (6, 7), (7, 8)]


@pytest.mark.parametrize(("tokens", "found"), [(1, True), (30, True), (31, False)])
def test_longest_answer_is_xtremes(tokenizer, tokens, found):
    question = Question("q", "who", "a " * 40, (("a", 0),))
    (feature,) = XQUAD.encode([question], tokenizer, Encoding(64), training=False)
    first, characters = feature.target
    starts, ends = np.zeros((2, 1, 64), dtype=np.float32)
    starts[0, first + 3] = ends[0, first + 3 + tokens - 1] = 9
    best = XQUAD.feature_scores(feature, {"start_logits": starts, "end_logits": ends}, 0)[0]
    whole = (characters[3][0], characters[3 + tokens - 1][1])
    assert ((best.start, best.stop) == whole) is found
    assert best.score == (18 if found else 9)


def test_a_token_of_spaces_alone_is_no_answer():
    logits = np.array([[0, 9, 1]], dtype=np.float32)
    feature = Feature({}, 0, (0, np.array([(0, 1), (2, 2), (3, 4)])))
    best = XQUAD.feature_scores(feature, {"start_logits": logits, "end_logits": logits}, 0)[0]
    assert (best.start, best.stop) == (2, 4)


@pytest.mark.parametrize("unlikely", ["start_logits", "end_logits"])
def test_starts_and_ends_considered_are_xtremes(unlikely):
    logits = {name: np.zeros((1, 21), dtype=np.float32) for name in ("start_logits", "end_logits")}
    # 20 others are likelier, but the other side is likeliest here, where nothing else begins or ends
    other, place = ("end_logits", 0) if unlikely == "start_logits" else ("start_logits", 20)
    logits[unlikely][0, place], logits[other][0, place] = -1, 9
    feature = Feature({}, 0, (0, np.array([(place, place + 1) for place in range(21)])))
    spans = XQUAD.feature_scores(feature, logits, 0)
    assert (place, place + 1) not in [(span.start, span.stop) for span in spans]
    assert len(spans) == 20


def test_logits_that_are_no_numbers_decide_nothing_in_the_passage_alone(tokenizer):
    (feature,) = XQUAD.encode([Question("q", "who", "a b c", (("a", 0),))], tokenizer, Encoding(32), training=False)
    first, size = feature.target[0], len(feature.inputs["input_ids"])
    for place, value, decided in (
        (0, np.nan, True),
        (first + 1, -np.inf, True),
        (first + 1, np.nan, False),
        (first + 2, np.inf, False),
        (slice(first, size), -np.inf, False),
    ):
        for name in ("start_logits", "end_logits"):
            outputs = {each: np.zeros((1, size), dtype=np.float32) for each in ("start_logits", "end_logits")}
            outputs[name][0, place] = value
            assert (XQUAD.feature_scores(feature, outputs, 0) is not None) is decided


def test_long_question_is_shortened(tokenizer):
    question = Question("q", "x " * 100, "a b", (("a", 0),))
    (feature,) = XQUAD.encode([question], tokenizer, Encoding(384), training=False)
    assert feature.target[0] == 1 + 64 + 1


def test_misplaced_answer_is_found_and_a_missing_one_left_out_and_counted(tokenizer, caplog, monkeypatch):
    monkeypatch.setattr("dlfa.tasks.model_inputs.BLOCK", 2)  # counted over all blocks
    places = [
        Question("near", "q", "ab cd ab", (("ab", 5),)),  # nearer to the second
        Question("gone", "q", "ab cd ab", (("xy", 0),)),
        Question("empty", "q", "ab cd ab", (("", 1),)),
        Question("blank", "q", "ab cd ab", ((" ", 2),)),
    ]
    inputs = ModelInputs(XQUAD, tokenizer, Encoding(32))
    features = inputs.features(places, training=True)
    assert [feature.example for feature in features] == [0]
    first, characters = features[0].target
    assert characters[features[0].inputs["start_positions"] - first].tolist() == [6, 7]
    line = "left out of training: 3 of 4 examples; a question needs an answer that its passage holds"
    assert caplog.messages == [line]
    assert len(inputs.features(places, training=False)) == 4
    inputs.features(places[:1], training=True)
    assert caplog.messages == [line]


def test_one_process_of_several_tells_what_is_left_out(tokenizer, caplog, monkeypatch):
    monkeypatch.setattr("dlfa.tasks.model_inputs.process_state", lambda: SimpleNamespace(is_main_process=False))
    places = [Question("gone", "q", "ab cd", (("xy", 0),)), Question("there", "q", "ab cd", (("ab", 0),))]
    assert len(ModelInputs(XQUAD, tokenizer, Encoding(32)).features(places, training=True)) == 1
    assert not caplog.messages


def test_no_room_beside_the_question_is_an_error(tokenizer):
    with pytest.raises(ValueError, match="must leave room for the passage"):
        XQUAD.encode([QUESTION], tokenizer, Encoding(8), training=True)


@pytest.mark.parametrize("max_length", [40, 120])
def test_best_span_over_all_windows_is_the_answer(tokenizer, max_length):
    features = XQUAD.encode([QUESTION], tokenizer, Encoding(max_length), training=True)
    scores = []
    for feature in features:
        size = len(feature.inputs["input_ids"])
        rng = np.random.default_rng(size)
        starts, ends = rng.normal(size=(2, 1, size)).astype(np.float32)
        if feature.inputs["start_positions"]:
            starts[0, feature.inputs["start_positions"]] = ends[0, feature.inputs["end_positions"]] = 20
        # Outside of the passage nothing counts, however high.
        starts[0, 0] = ends[0, 0] = 99
        scores.append(XQUAD.feature_scores(feature, {"start_logits": starts, "end_logits": ends}, 0))
        assert len(scores[-1]) <= 20
        assert all(span.start < span.stop for span in scores[-1])
    joined = XQUAD.example_scores([QUESTION], features, scores)
    assert XQUAD.decide([QUESTION], joined) == [ANSWER]
    assert XQUAD.score([QUESTION], [ANSWER], "en") == {"f1": 1.0, "exact_match": 1.0}
    assert XQUAD.decide([QUESTION], [[]]) == [""]


def test_a_span_of_two_windows_is_one_candidate():
    spans, windows = [Span(2.0, 0, 3), Span(1.0, 0, 7)], [Feature({}, 0), Feature({}, 0)]
    assert XQUAD.example_scores([QUESTION], windows, [spans, spans[1:]]) == [spans]


def test_prediction_file_is_a_json_object():
    assert json.loads(XQUAD.prediction_text([QUESTION], ["år"])) == {"q1": "år"}


def test_squad_scores_by_hand():
    scores = functools.partial(answer_metrics, normalise=squad_tokens)
    assert scores([["The Denver Broncos!"]], ["denver broncos"]) == {"f1": 1.0, "exact_match": 1.0}
    assert scores([["Denver Broncos"]], ["Denver"]) == {"f1": pytest.approx(2 / 3), "exact_match": 0.0}
    # A word counts as often as both have it, 2 of 3 and 2 of 2; the order counts for the exact match alone.
    assert scores([["x x y"]], ["x x"]) == {"f1": pytest.approx(4 / 5), "exact_match": 0.0}
    assert scores([["x y"]], ["y x"]) == {"f1": 1.0, "exact_match": 0.0}
    # The best of the accepted answers; the mean over questions.
    assert scores([["x y z", "a b"], ["c"]], ["a b", "d"]) == {"f1": 0.5, "exact_match": 0.5}
    assert scores([["a cat"]], [""]) == {"f1": 0.0, "exact_match": 0.0}
    with pytest.raises(ValueError, match="must have 1 answers, got 0"):
        scores([["a"]], [])
    with pytest.raises(ValueError, match="at least one accepted answer"):
        scores([[]], ["a"])


@pytest.mark.parametrize(
    ("language", "text", "words"),
    [
        ("en", "The “Big” Apple", ["big", "apple"]),
        ("en", "$5 + 5", ["5", "5"]),  # symbols of ASCII, which Unicode does not count as punctuation
        ("de", "die Stadt des Lichts", ["stadt", "lichts"]),
        ("es", "¿Los unos o el otro?", ["o", "otro"]),
        ("zh", "北京 2008年，奥运", ["北", "京", "2008", "年", "奥", "运"]),  # noqa: RUF001
        ("ar", "الكتاب", ["كتاب"]),
        ("hi", "राम और", ["राम", "और"]),
        ("vi", "con mèo của tôi", ["con", "mèo", "tôi"]),
    ],
)
def test_mlqa_words(language, text, words):
    assert mlqa_tokens(text, language) == words


def squad_file(path: Path, questions: list[Question]) -> None:
    paragraphs = [
        {
            "context": question.context,
            "qas": [
                {
                    "id": question.id,
                    "question": question.question,
                    "answers": [{"text": text, "answer_start": start} for text, start in question.answers],
                }
            ],
        }
        for question in questions
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]}))


@pytest.mark.parametrize(
    ("task", "files"),
    [
        (XQUAD, {"train": "squad/train-v1.1.json", "test": "xquad.de.json"}),
        (MLQA, {"train": "train-v1.1.json", "test": "MLQA_V1/test/test-context-de-question-de.json"}),
        (
            TYDIQA,
            {
                "train": "tydiqa-goldp-v1.1-train/tydiqa.en.train.json",
                "test": "tydiqa-goldp-v1.1-dev/tydiqa.ru.dev.json",
            },
        ),
        (XQUAD, {"train": "train-en.json", "test": "test-de.json"}),
        (XQUAD, {"train": "squad/train-v1.1.json", "test": "xquad/xquad.de.json"}),
        (
            MLQA,
            {"train": "squad/train-v1.1.json", "test": "mlqa/MLQA_V1/test/test-context-de-question-de.json"},
        ),
    ],
)  # fmt: skip
def test_native_file_names_are_found(tmp_path, task, files):
    for name in files.values():
        squad_file(tmp_path / name, [QUESTION])
    language = "ru" if task is TYDIQA else "de"
    squad_file(tmp_path / "MLQA_V1" / "test" / "test-context-es-question-de.json", [QUESTION])
    assert find_file(task, tmp_path, "train", "en") == tmp_path / files["train"]
    assert find_file(task, tmp_path, "test", language) == tmp_path / files["test"]
    assert languages_on_disk(task, tmp_path, "test") == [language]
    assert languages_on_disk(task, tmp_path, "train") == ["en"]
    with pytest.raises(DataError, match=f"languages with a test file here: {language}"):
        find_file(task, tmp_path, "test", "zh")


@pytest.mark.parametrize(
    ("changed", "question", "message"),
    [
        ("test-de", Question("long", "who " * 12, "a b c", (("b", 2),)), "must leave room for the passage"),
        (
            "train-en",
            Question("none", "who", "a b c", (("z", 2),)),
            "none of the training data of xquad can",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused_before_a_run_is_replaced(tmp_path, changed, question, message):
    data, run = tmp_path / "data", RunDirectory(tmp_path / "run")
    for name in ("train-en", "test-en", "test-de"):
        squad_file(data / f"{name}.json", [question if name == changed else Question("q", "who", "a b c", (("b", 2),))])
    run.path.mkdir()
    for file in (run.run_file, run.results_file):
        file.write_text("{}")
    config = RunConfig(
        task="xquad", model=str(make_encoder(tmp_path / "encoder")), output_dir=run.path, data_dir=data,
        model_options={"fusion_layer": 0}, max_length=32,
    )  # fmt: skip
    with pytest.raises(ValueError, match=message):
        train(config, overwrite=True)
    assert run.results_file.exists()


@pytest.mark.parametrize("frozen", [False, True])
def test_run_from_files_to_scores(tmp_path, frozen):
    encoder = make_encoder(tmp_path / "encoder")
    data = tmp_path / "data"
    questions = [Question(str(number), "who", f"a b n{number} c", ((f"n{number}", 4),)) for number in range(12)]
    squad_file(data / "train-en.json", questions)
    squad_file(data / "test-en.json", questions[:4])
    squad_file(data / "test-de.json", questions[4:])
    config = RunConfig(
        task="xquad", model=str(encoder), output_dir=tmp_path / "run", data_dir=data, model_options={"fusion_layer": 0},
        learning_rate=1e-2, epochs=15, batch_size=4, gradient_accumulation=1, max_length=32, warmup_steps=0,
        freeze_encoder=frozen, states_cache=tmp_path / "cache",
    )  # fmt: skip
    results = train(config)
    assert (results["metric"], set(results["languages"])) == ("f1", {"en", "de"})
    assert results["languages"]["en"]["f1"] > 0.5
    assert "best_dev" not in results["train"]
    predictions = json.loads((tmp_path / "run" / "predictions" / "test-de.json").read_text())
    assert set(predictions) == {question.id for question in questions[4:]}
    run = load_run(tmp_path / "run")
    again = evaluate(run.model, run.inputs(), {"de": questions[4:]})["de"]
    assert dict(zip(predictions, again.predictions, strict=True)) == predictions
    assert {**again.metrics, "examples": 8} == results["languages"]["de"]


def test_a_place_does_not_depend_on_the_spaces_a_tokenizer_counts_in():
    """SentencePiece's pieces begin at the space, WordPiece's behind it; ensembles add up what lies at one place."""
    sentencepiece = Tokenizer(models.WordLevel({"\u2581in": 0, "\u2581Paris": 1, "\u2581now": 2, "[UNK]": 3}, "[UNK]"))
    sentencepiece.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=sentencepiece, unk_token="[UNK]", pad_token="[UNK]")
    assert tokenizer("in Paris now", return_offsets_mapping=True)["offset_mapping"][1] == (2, 8)
    question = Question("q", "in", "in Paris now", ((" Paris", 2),))
    (feature,) = XQUAD.encode([question], tokenizer, Encoding(16), training=True)
    first, characters = feature.target
    assert characters.tolist() == [[0, 2], [3, 8], [9, 12]]
    assert (feature.inputs["start_positions"], feature.inputs["end_positions"]) == (first + 1, first + 1)
