"""Tests and intervals: against scipy on whole samples, and the bootstrap against a plain loop over sentences."""

import dataclasses
import json
import random

import numpy as np
import pytest
from made_results import corrupted, make_run
from scipy import stats

from dlfa.data.examples import LabelledText, Question, TaggedSentence
from dlfa.evaluation.prediction_files import read_predictions
from dlfa.report.bootstrap import _language_differences, paired_bootstrap
from dlfa.report.comparison import compare
from dlfa.report.crossed_interval import crossed_interval
from dlfa.report.findings import find
from dlfa.report.language_groups import LANGUAGE, all_group, family_groups, groups_of, language_group, zero_shot_group
from dlfa.report.runs import load_runs
from dlfa.report.sentence_counts import counted_metric
from dlfa.report.significance import Interval, adjusted, interval_text, p_text, percent, t_interval
from dlfa.report.tables import cost_table, difference_table
from dlfa.report.variants import Variant
from dlfa.tasks import TASKS

LAST, AIF = Variant("last"), Variant("aif", (6,), "gate")


def sentences(labels, count, seed=0):
    """Random tags of sentences of up to nine words; other ones by another seed, as of another language."""
    draw = random.Random(seed)
    lengths = [draw.randint(1, 9) for _ in range(count)]
    return [
        TaggedSentence(tuple("abcdefghi"[:length]), tuple(draw.choice(labels) for _ in range(length)))
        for length in lengths
    ]


def write_tags(path, examples):
    path.parent.mkdir(exist_ok=True)
    lines = ["".join(f"{word}\t{tag}\n" for word, tag in zip(item.words, item.tags, strict=True)) for item in examples]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two seeds of last and of a better aif on three languages, with their gold labels."""
    root = tmp_path_factory.mktemp("results")
    task = TASKS["udpos"]
    data = {language: sentences(task.labels[:5], 60, language) for language in ("en", "de", "fr")}
    for language, examples in data.items():
        write_tags(root / "gold" / f"test-{language}.tsv", examples)
    for seed in (1, 2):
        make_run(root / "runs" / f"last{seed}", data, corrupted(task, 0.4), seed=seed, data_dir=root / "gold")
        make_run(
            root / "runs" / f"aif{seed}", data, corrupted(task, {"en": 0.4, "de": 0.2, "fr": 0.35}), seed=seed,
            fusion="aif", fusion_layer=6, data_dir=root / "gold",
        )  # fmt: skip
    return root


@pytest.fixture(scope="module")
def comparison(folder):
    (found,) = compare(load_runs([folder / "runs"]).runs)
    return found


def test_t_interval_is_the_paired_t_test():
    one, other = [0.71, 0.69, 0.73, 0.70], [0.68, 0.69, 0.70, 0.66]
    interval = t_interval([a - b for a, b in zip(one, other, strict=True)])
    expected = stats.ttest_rel(one, other)
    low, high = expected.confidence_interval(0.95)
    assert interval.p == pytest.approx(expected.pvalue)
    assert (interval.low, interval.high) == pytest.approx((low, high))


def test_no_test_without_spread():
    assert t_interval([0.5]) is None
    assert t_interval([0.25, 0.25]) == Interval(0.25, 0.25, None)
    assert t_interval([0.4 - 0.3, 0.5 - 0.4]).p is None  # the same but for rounding


def test_adjusted_p_values_are_scipys():
    p = [0.001, 0.02, 0.03, 0.8]
    assert adjusted(p) == pytest.approx(list(stats.false_discovery_control(p)))
    assert adjusted([]) == []


def test_figures_have_the_digits_of_their_uncertainty():
    assert percent(0.74612, 0.0027) == "74.61 ± 0.27"
    assert percent(0.74612, 0.013) == "74.6 ± 1.3"
    assert percent(0.74612) == "74.6"
    assert percent(0.0123, 0.004, sign=True) == "+1.23 ± 0.40"
    assert percent(-0.00001, sign=True) == "+0.0"
    assert percent(None) == "-"
    assert interval_text(Interval(-0.001, 0.012, 0.1)) == "[-0.10, +1.20]"
    assert interval_text(None) == "-"
    assert (p_text(0.0004), p_text(0.001), p_text(0.0312), p_text(None)) == ("< 0.001", "0.001", "0.031", "-")


@pytest.mark.parametrize(
    ("name", "metrics"),
    [("udpos", ("f1", "accuracy", "xtreme_span_f1")), ("uner", ("f1", "precision", "recall", "accuracy"))],
)
def test_counts_of_tags_give_the_metrics(name, metrics):
    task = TASKS[name]
    examples = sentences(task.labels[:6], 40)
    predictions = corrupted(task, 0.3)("en", examples, random.Random(1))
    scores = task.score(examples, predictions, "en")
    for metric in metrics:
        counted = counted_metric(task, metric, "en", examples)
        rows = counted.counts(predictions)
        assert len(rows) == 40
        assert counted.score(rows.sum(axis=0)) == pytest.approx(scores[metric])
        kept = slice(5, 20)
        part = task.score(examples[kept], predictions[kept], "en")[metric]
        assert counted.score(rows[kept].sum(axis=0)) == pytest.approx(part)


def test_counts_of_spans_give_the_score_where_a_tag_of_one_letter_begins_a_sentence():
    """seqeval lets such a span begin in the sentence before, where the two taggings differ."""
    task = TASKS["udpos"]
    examples = [TaggedSentence(("a", "b"), ("NOUN", "NOUN")), TaggedSentence(("c", "d"), ("X", "VERB"))]
    predictions = [("NOUN", "ADJ"), ("X", "VERB")]
    counted = counted_metric(task, "xtreme_span_f1", "en", examples)
    rows = counted.counts(predictions)
    assert rows.tolist() == [[1, 2, 0], [2, 2, 1]]
    assert counted.score(rows.sum(axis=0)) == task.score(examples, predictions, "en")["xtreme_span_f1"]


@pytest.mark.parametrize("metric", ["accuracy", "f1"])
def test_counts_of_pairs_give_the_metrics(metric):
    task = TASKS["sick"]
    draw = random.Random(0)
    examples = [LabelledText(("a", "b"), draw.choice(task.labels)) for _ in range(30)]
    predictions = corrupted(task, 0.5)("nl", examples, random.Random(1))
    counted = counted_metric(task, metric, "nl", examples)
    total = counted.counts(predictions).sum(axis=0)
    assert counted.score(total) == pytest.approx(task.score(examples, predictions, "nl")[metric])


def test_counts_of_answers_give_the_metrics(tmp_path):
    task = TASKS["xquad"]
    examples = [Question(str(i), "who?", "Ann or Bob went", (("Ann", 0),)) for i in range(4)]
    path = tmp_path / "test-en.json"
    path.write_text(task.prediction_text(examples, ["Ann", "Bob", "Ann or Bob", ""]))
    predictions = read_predictions(task, path, examples)
    for metric, value in task.score(examples, predictions, "en").items():
        counted = counted_metric(task, metric, "en", examples)
        assert counted.score(counted.counts(predictions).sum(axis=0)) == pytest.approx(value)
    path.write_text("{}")
    with pytest.raises(ValueError, match="no answer to question 0"):
        read_predictions(task, path, examples)


def test_a_metric_that_is_no_sum_is_refused():
    with pytest.raises(ValueError, match="bleu of udpos is no sum over sentences"):
        counted_metric(TASKS["udpos"], "bleu", "en", [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("NOUN\n\n", "holds 1 predictions for 2 examples"),
        ("NOUN\n\nVERB\nNOUN\n\nVERB\n\n", "holds 3 predictions for 2 examples"),
        ("NOUN\n\nVERB\n\n", "example 2: 1 labels for 2"),
        ("NOUN\n\nVERB\nDOG\n\n", "example 2: 'DOG' is no label of udpos"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(tmp_path, text, message):
    examples = [TaggedSentence(("a",), ("NOUN",)), TaggedSentence(("a", "b"), ("NOUN", "VERB"))]
    path = tmp_path / "test-en.tsv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_predictions(TASKS["udpos"], path, examples)
    path.write_text("VERB\n\nNOUN\nPUNCT\n\n")
    assert read_predictions(TASKS["udpos"], path, examples) == [("VERB",), ("NOUN", "PUNCT")]


def test_bootstrap_agrees_with_a_plain_loop(folder, comparison):
    """Quantiles of resamples by both, from other random numbers: within three of their own standard errors."""
    groups, resamples, turns = [language_group("de"), zero_shot_group(comparison)], 1000, 500
    found = paired_bootstrap(comparison, groups, resamples=resamples)
    task = TASKS["udpos"]
    draw = np.random.default_rng(7)
    gold = {language: task.read_file(folder / "gold" / f"test-{language}.tsv") for language in ("de", "fr")}
    predicted = {
        (name, seed, language): read_predictions(
            task, folder / "runs" / f"{name}{seed}" / "predictions" / f"test-{language}.tsv", gold[language]
        )
        for name in ("last", "aif") for seed in (1, 2) for language in gold
    }  # fmt: skip
    by_language = {language: [] for language in gold}
    for _ in range(turns):
        for language, examples in gold.items():
            rows = draw.integers(len(examples), size=len(examples))
            drawn = [examples[row].tags for row in rows]
            score = {
                (name, seed): _macro_f1(drawn, [tags[row] for row in rows])
                for (name, seed, code), tags in predicted.items()
                if code == language
            }
            by_language[language].append(np.mean([score["aif", seed] - score["last", seed] for seed in (1, 2)]))
    for language, examples in gold.items():  # recentred on the observed difference, as paired_bootstrap does
        own = {
            (name, seed): _macro_f1([example.tags for example in examples], tags)
            for (name, seed, code), tags in predicted.items()
            if code == language
        }
        shift = np.mean([own["aif", seed] - own["last", seed] for seed in (1, 2)]) - np.mean(by_language[language])
        by_language[language] = np.array(by_language[language]) + shift
    expected = {"de": by_language["de"], "zero-shot": np.mean([by_language["de"], by_language["fr"]], axis=0)}
    # The quantile at q of n draws has the standard error sqrt(q (1 - q) / n) / density; of a normal distribution, three
    # of both together are 0.11 of the interval's width.
    tail, normal = 0.025, stats.norm()
    error = np.sqrt(tail * (1 - tail) * (1 / resamples + 1 / turns)) / normal.pdf(normal.ppf(tail))
    allowed = 3 * error / (normal.ppf(1 - tail) - normal.ppf(tail))
    for group in groups:
        low, high = np.quantile(expected[group.name], [tail, 1 - tail])
        interval = found[AIF, group]
        assert interval.low == pytest.approx(low, abs=allowed * (high - low))
        assert interval.high == pytest.approx(high, abs=allowed * (high - low))
    assert found[AIF, groups[1]].p < 0.05


def _macro_f1(gold, predicted):
    true, guess = np.concatenate(gold), np.concatenate(predicted)
    labels = np.unique(true)
    right = np.array([((true == label) & (guess == label)).sum() for label in labels])
    count = np.array([(true == label).sum() + (guess == label).sum() for label in labels])
    return (2 * right / count).mean()


def test_bootstrap_is_repeatable_and_groups_agree(comparison):
    groups = groups_of(comparison)
    once, again = (paired_bootstrap(comparison, groups, resamples=50) for _ in range(2))
    assert once == again
    germanic = next(group for group in groups if group.name == "IE: Germanic")
    assert germanic.languages == ("de",)  # zero-shot languages alone
    assert once[AIF, germanic] == once[AIF, language_group("de")]
    with pytest.raises(ValueError, match="resamples must be at least 1, got 0"):
        paired_bootstrap(comparison, groups, resamples=0)


def test_every_language_is_told_when_it_is_done(comparison):
    told = []
    find(comparison, resamples=20, on_language=told.append)
    assert told == list(comparison.languages)


def two_runs(folder, data, last, aif):
    """The comparison of a run of last and one of aif with these predictions, by language."""
    for language, examples in data.items():
        write_tags(folder / "gold" / f"test-{language}.tsv", examples)
    for name, predictions, layer in (("last", last, None), ("aif", aif, 6)):
        run = folder / "runs" / name
        make_run(
            run, data, lambda code, *_, tags=predictions: tags[code], fusion=name, fusion_layer=layer,
            data_dir=folder / "gold",
        )  # fmt: skip
    (comparison,) = compare(load_runs([folder / "runs"]).runs)
    return comparison


def test_a_fortieth_of_the_resamples_lies_on_either_side_of_an_interval(comparison, monkeypatch):
    drawn = np.linspace(-0.25, 0.75, 1001)[None]
    monkeypatch.setattr("dlfa.report.bootstrap._language_differences", lambda *_: drawn)
    interval = paired_bootstrap(comparison, [language_group("de")], resamples=1001)[AIF, language_group("de")]
    assert (interval.low, interval.high) == pytest.approx((-0.225, 0.725))


def test_p_is_one_of_equal_runs_and_never_zero(tmp_path):
    gold = {language: sentences(("NOUN", "VERB"), 20, language) for language in ("en", "de")}
    right = {language: [example.tags for example in examples] for language, examples in gold.items()}
    wrong = {language: [("ADJ",) * len(tags) for tags in rows] for language, rows in right.items()}
    (tmp_path / "equal").mkdir()
    comparison = two_runs(tmp_path / "equal", gold, wrong, wrong)
    found = paired_bootstrap(comparison, [language_group("de")], resamples=50)
    assert found[AIF, language_group("de")] == Interval(0.0, 0.0, 1.0)
    comparison = two_runs(tmp_path, gold, wrong, right)
    found = paired_bootstrap(comparison, [language_group("de")], resamples=50)
    assert found[AIF, language_group("de")].p == pytest.approx(2 / 51)


def test_resamples_without_a_rare_label_do_not_move_their_mean(tmp_path):
    gold = [TaggedSentence(("a", "b"), ("NOUN", "VERB"))] * 19 + [TaggedSentence(("c",), ("X",))]
    right = [example.tags for example in gold]
    data, never = {"en": gold, "de": gold}, [*right[:-1], ("NOUN",)]
    comparison = two_runs(tmp_path, data, {"en": never, "de": never}, {"en": right, "de": right})
    drawn = _language_differences(comparison, TASKS["udpos"], "de", 400, None)
    own = _macro_f1([example.tags for example in gold], right) - _macro_f1([example.tags for example in gold], never)
    assert drawn.shape == (1, 400)
    assert drawn.mean() == pytest.approx(own)
    assert own - drawn.min() > 0.1  # where the label was not drawn there is no difference


def test_a_language_of_one_sentence_goes_without_an_interval_and_the_others_keep_theirs(tmp_path):
    tags = ("NOUN", "VERB")
    gold = {"en": sentences(tags, 20, "en"), "de": sentences(tags[:1], 1, "de"), "fr": sentences(tags, 40, "fr")}
    right = {language: [example.tags for example in examples] for language, examples in gold.items()}
    wrong = {
        language: [tags if number % 2 else ("ADJ",) * len(tags) for number, tags in enumerate(rows)]
        for language, rows in right.items()
    }
    findings = find(two_runs(tmp_path, gold, wrong, right), resamples=200)
    groups = language_group("de"), language_group("fr"), findings.main_group
    one, many, main = (findings.effects[AIF, group].sentences for group in groups)
    assert findings.notes == ("no bootstrap over the one sentence of de; in means it counts as it is",)
    assert one is None
    assert many.low < many.high
    assert (main.low, main.high) == pytest.approx(((many.low + 1) / 2, (many.high + 1) / 2))
    assert findings.discoveries(AIF) == {"en", "fr"}


def test_languages_are_drawn_apart(tmp_path):
    """Equal data in every language: their mean varies less than one of them does."""
    gold = sentences(("NOUN", "VERB"), 40)
    data = dict.fromkeys(("en", "de", "fr", "nl", "es"), gold)
    draw = random.Random(3)
    last, aif = ([tuple(draw.choice((tag, "ADJ")) for tag in example.tags) for example in gold] for _ in range(2))
    comparison = two_runs(tmp_path, data, dict.fromkeys(data, last), dict.fromkeys(data, aif))
    groups = [zero_shot_group(comparison), *map(language_group, comparison.zero_shot)]
    mean, *single = (found.high - found.low for found in paired_bootstrap(comparison, groups, resamples=400).values())
    assert len(set(single)) == len(single) == 4
    assert mean == pytest.approx(np.mean(single) / 2, rel=0.2)


def test_findings(comparison):
    findings = find(comparison, resamples=400)
    main = findings.main_group
    assert main.languages == ("de", "fr")
    effect = findings.effects[AIF, main]
    pairs = zip(findings.scores(AIF, main), findings.scores(LAST, main), strict=True)
    assert effect.differences == pytest.approx([a - b for a, b in pairs])
    assert effect.seeds == t_interval(effect.differences)
    rows = zip(comparison.runs[AIF], comparison.runs[LAST], strict=True)
    by_language = [[a.score("f1", code) - b.score("f1", code) for code in main.languages] for a, b in rows]
    assert effect.crossed == crossed_interval(by_language)
    assert findings.effects[AIF, language_group("de")].crossed is None  # one language
    table = difference_table(findings)
    (row,) = table.rows
    place = table.columns.index("95 % over seeds and languages")
    assert row[place : place + 2] == (interval_text(effect.crossed), p_text(effect.crossed.p))
    assert effect.sentences.low < effect.mean < effect.sentences.high
    assert (LAST, main) not in findings.effects
    assert findings.notes == ()
    assert "de" in findings.discoveries(AIF)
    assert "en" not in findings.discoveries(AIF)
    cost = findings.cost(AIF)
    assert cost.seconds_per_step == pytest.approx((0.51, 0.52))
    assert findings.layer_choices() == []
    assert [group.name for group in findings.of_kind(LANGUAGE)] == ["de", "en", "fr"]
    assert [group.label for group in family_groups(comparison)] == ["IE: Germanic (1)", "IE: Romance (1)"]
    assert all_group(comparison).languages == ("de", "en", "fr")


def test_the_layer_is_chosen_on_dev_and_the_oracle_stands_beside(tmp_path):
    task = TASKS["udpos"]
    data = {language: sentences(task.labels[:5], 40, language) for language in ("en", "de")}
    # layer 4 is the best where there was no training, layer 6 over all languages
    for layer, rate, dev in ((2, 0.5, 0.80), (4, {"en": 0.6, "de": 0.1}, 0.90), (6, {"en": 0.0, "de": 0.3}, 0.95)):
        folder, train = tmp_path / f"l{layer}", {"best_dev": dev}
        make_run(folder, data, corrupted(task, rate), fusion="aif", fusion_layer=layer, train=train)
    make_run(tmp_path / "last", data, corrupted(task, 0.4))
    (comparison,) = compare(load_runs([tmp_path]).runs)
    (choice,) = find(comparison, resamples=0).layer_choices()
    assert (choice.mode, choice.chosen.layers, choice.oracle.layers) == ("aif gate", (6,), (4,))
    path = tmp_path / "l2" / "results.json"
    results = json.loads(path.read_text())
    del results["train"]["best_dev"]
    path.write_text(json.dumps(results))
    (comparison,) = compare(load_runs([tmp_path]).runs)
    (choice,) = find(comparison, resamples=0).layer_choices()
    assert (choice.chosen, choice.oracle.layers) == (None, (4,))  # one layer's score is not known


@pytest.mark.parametrize(("layers", "shown"), [(6, range(6)), (7, (6,))])
def test_a_table_of_languages_has_every_layer_or_the_chosen_one(tmp_path, layers, shown):
    task = TASKS["udpos"]
    data = {language: sentences(task.labels[:5], 4, language) for language in ("en", "de")}
    make_run(tmp_path / "last", data, corrupted(task, 0.4))
    for layer in range(layers):
        make_run(
            tmp_path / f"l{layer}", data, corrupted(task, 0.3), fusion="aif", fusion_layer=layer,
            train={"best_dev": 0.5 + layer / 100},
        )  # fmt: skip
    if layers > 6:  # a mode of one layer has nothing to choose
        make_run(tmp_path / "sum", data, corrupted(task, 0.3), fusion="sum", fusion_layer=2)
    (comparison,) = compare(load_runs([tmp_path]).runs)
    pairs = find(comparison, resamples=0).table_pairs()
    alone = [(Variant("sum", (2,)), Variant("last"))] if layers > 6 else []
    assert pairs == [*alone, *((Variant("aif", (layer,), "gate"), Variant("last")) for layer in shown)]


@pytest.mark.parametrize(
    ("p_values", "found"),
    [((0.01, 0.02, 0.03), {"de", "en", "fr"}), ((0.01, 0.04, 0.9), {"de"}), ((0.03, 0.04, 0.9), set())],
)
def test_discoveries_hold_over_all_languages_at_once(comparison, p_values, found):
    findings = find(comparison, resamples=0)
    effects = dict(findings.effects)
    for code, p in zip(("de", "en", "fr"), p_values, strict=True):
        key = AIF, language_group(code)
        effects[key] = dataclasses.replace(effects[key], sentences=Interval(0.0, 1.0, p))
    assert dataclasses.replace(findings, effects=effects).discoveries(AIF) == found


def test_cost_is_told_as_a_multiple_of_the_baselines(tmp_path):
    task = TASKS["udpos"]
    data = {language: sentences(task.labels[:5], 4, language) for language in ("en", "de")}
    for seed in (1, 2):
        for name, layer, seconds in (("last", None, 40.0), ("aif", 6, 50.0)):
            make_run(
                tmp_path / f"{name}{seed}", data, corrupted(task, 0.3), seed=seed, fusion=name, fusion_layer=layer,
                train={"steps": 200, "seconds": seconds + seed},
            )  # fmt: skip
    (comparison,) = compare(load_runs([tmp_path]).runs)
    table = cost_table(find(comparison, resamples=0))
    assert table.rows == (
        ("last", "200", "41.5 ± 0.7", "0.207 ± 0.004", "-", "cpu, float32"),
        ("aif gate 6", "200", "51.5 ± 0.7", "0.258 ± 0.004", "1.24", "cpu, float32, eager"),
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "predictions" / "test-de.tsv").unlink(), "cannot be read"),
        (lambda run: (run / "predictions" / "test-de.tsv").write_text("X\n\n"), "holds 1 predictions for 3"),
        (lambda run: _rescore(run, 0.1234), "says 0.1234: predictions or data are not those that were scored"),
        (lambda run: _rescore(run, 1.0), "says 1.0000: predictions or data are not those that were scored"),
        (lambda run: (run / "run.json").unlink(), "no run tells where its data are; give --data-dir"),
        (lambda run: _move(run), "the data folder nowhere is not there; give --data-dir"),
    ],
)
def test_without_predictions_or_data_a_note_says_why(tmp_path, spoil, message):
    task = TASKS["udpos"]
    data = {language: sentences(task.labels[:3], 3, language) for language in ("en", "de")}
    for language, examples in data.items():
        write_tags(tmp_path / "gold" / f"test-{language}.tsv", examples)
    for name, fusion, layer in (("last", "last", None), ("aif", "aif", 6)):
        run = make_run(tmp_path / "runs" / name, data, corrupted(task, 0.2), fusion=fusion, fusion_layer=layer)
        config = json.loads((run / "run.json").read_text())
        config["config"]["data_dir"] = str(tmp_path / "gold")
        (run / "run.json").write_text(json.dumps(config))
        spoil(run)
    (comparison,) = compare(load_runs([tmp_path / "runs"]).runs)
    findings = find(comparison, resamples=20)
    (note,) = findings.notes
    assert note.startswith("no bootstrap over sentences")
    assert message in note
    assert findings.effects[AIF, findings.main_group].sentences is None
    assert findings.resamples == 0
    assert findings.discoveries(AIF) == set()


def _rescore(run, score):
    results = json.loads((run / "results.json").read_text())
    results["languages"]["de"]["f1"] = score
    (run / "results.json").write_text(json.dumps(results))


def _move(run):
    values = json.loads((run / "run.json").read_text())
    values["config"]["data_dir"] = "nowhere"
    (run / "run.json").write_text(json.dumps(values))
