"""English and Spanish: the same texts, all of them used, nothing English left in Spanish figures and pages."""

import re
import string
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

import fedsim_np as fed
from fedsim_np import plots
from fedsim_np.datasets import InMemoryClientData, describe
from fedsim_np.texts import LANGUAGES, Texts, en, es, numbers

PACKAGE = Path(fed.__file__).parent
CODE = "".join(
    path.read_text(encoding="utf-8") for part in ("plots", "report") for path in (PACKAGE / part).glob("*.py")
)
LOOKED_UP = ("metric_", "status_", "part_", "promise_", "band_", "percent")  # by a name that is made
ENGLISH = re.compile(
    r"\b(the|of|and|with|each|which|from|that|were|is|are|by|its?|their|round|loss|accuracy|clients?|examples?|labels?"
    r"|images?|runs?|share|weights?|bytes of|time|after|before|none|all|median|mean|class|step|column|row|weight)\b",
    re.IGNORECASE,
)


def forms(template):
    return template if isinstance(template, tuple) else (template,)


def placeholders(text):
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def test_both_languages_have_the_same_texts_with_the_same_placeholders():
    assert list(en.TEXTS) == list(es.TEXTS)
    for key, template in en.TEXTS.items():
        assert type(template) is type(es.TEXTS[key]), key
        for english, spanish in zip(forms(template), forms(es.TEXTS[key]), strict=True):
            # "Once" needs no number, and an error is in English alone.
            assert placeholders(english) - {"n", "error"} == placeholders(spanish) - {"n"}, key
            assert english == english.strip() or key in {"first_ones", "and"}, key


def test_every_text_is_used_and_every_text_that_is_used_is_there():
    asked = set(re.findall(r'say\(\s*"(\w+)"', CODE))
    assert asked <= set(en.TEXTS)
    unused = [key for key in en.TEXTS if f'"{key}"' not in CODE and not key.startswith(LOOKED_UP)]
    assert unused == []


def test_no_english_is_left_in_the_spanish_texts():
    for template in es.TEXTS.values():
        for text in forms(template):
            assert not ENGLISH.search(re.sub(r"\{\w+\}|\w+\.csv", "", text)), text


@pytest.mark.parametrize(
    ("value", "english", "spanish"),
    [
        (1016, "1,016", "1016"),
        (50800, "50,800", "50\u202f800"),
        (1234567.0, "1,234,567", "1\u202f234\u202f567"),
        (9999.6, "10,000", "10\u202f000"),
        (0.82, "0.8200", "0.8200"),
        (-2.5, "-2.500", "-2.500"),
    ],
)
def test_numbers(value, english, spanish):
    assert (numbers.written(value), numbers.written(value, "es")) == (english, spanish)


def test_shares_and_amounts():
    assert (Texts("en").percent(0.5), Texts("es").percent(0.5)) == ("50.00%", "50.00\u202f%")
    assert (numbers.amount(6.28e6), numbers.amount(6.28e6, "es")) == ("6.280 MB", "6.280 MB")


def test_other_languages():
    assert LANGUAGES == ("en", "es")
    for odd in ("fr", None, 3, ["es"]):
        with pytest.raises(ValueError, match="'lang' must be"):
            Texts(odd)
        with pytest.raises(ValueError, match="'lang' must be"):
            plots.round_costs([1.0], lang=odd)


def test_what_noise_promises_is_told_in_spanish():
    stored = "epsilon {epsilon} ({meaning})".format(
        **fed.privacy.Guarantee(1.0, 1e-5, 1000, 10, sampled="fixed_size").after(100)
    )
    assert Texts("en").promise(stored).startswith("epsilon 1.214 (delta 1e-05; sampling: poisson; neighbours:")
    assert Texts("es").promise(stored) == (
        "épsilon 1.214 (delta 1e-05; muestreo: poisson; vecinos: un cliente más o menos; contabilidad: rdp; la "
        "ejecución misma muestrea con fixed_size, para lo que esto no vale)"
    )


def history(number):
    return {
        "round_num": [1, 2],
        "client_work/train/loss": [2.0, 1.0],
        "client_work/train/sparse_categorical_accuracy": [0.25, 0.5],
        "evaluation/loss": [2.0, number],
        "evaluation/num_examples": [4, 4],
        "communication/bytes_up": [100, 200],
    }


def figures(lang):
    pixels = np.random.default_rng(0).random((3, 4, 4), np.float32)
    data = InMemoryClientData(
        {"ana": {"label": np.int32([0, 0, 1]), "pixels": pixels}, "eva": {"label": np.int32([]), "pixels": pixels[:0]}}
    )
    ana, eva = (data.create_dataset_for_client(c) for c in ("ana", "eva"))
    runs = [history(1.0), history(1.5)]
    metrics = ["evaluation/loss", "client_work/train/sparse_categorical_accuracy", "evaluation/num_examples"]
    configs = [{"a": 1, "lr": 2}, {"lr": 2}]
    yield plots.image(pixels[0], axes=None, lang=lang)
    yield plots.client_images(ana, 1, 2, lang=lang)
    yield plots.client_images(eva, 1, 2, lang=lang)
    yield plots.label_counts(data, lang=lang)
    yield plots.mean_images(data, lang=lang)
    yield plots.label_distribution(describe(data), lang=lang)
    yield plots.client_sizes(describe(data), lang=lang)
    yield plots.learning_curves(plots.histories_by_config(configs, runs, lang=lang), metrics, lang=lang)
    for band in ("range", "sd"):
        yield plots.learning_curves({"A": runs, "B": runs[:1]}, band=band, over="communication/bytes_up", lang=lang)
    yield plots.learning_curves({"A": runs, "B": runs}, lang=lang)
    yield plots.client_accuracy([[0.5, 0.75], [0.5]], lang=lang)
    yield plots.round_costs([9.0, 0.2, 0.3], plots.RoundBytes(3000, 1000), lang=lang)
    yield plots.suboptimality_curves({"A": [0.0, 0.0]}, lang=lang)
    yield plots.round_parts([{"centralized": 1.0, "sampling": 0.5, "drift": 0.1}], lang=lang)
    yield plots.client_drift(np.eye(3), np.ones(3), lang=lang)
    yield plots.client_drift(np.zeros((2, 3)), np.zeros(3), lang=lang)
    yield plots.confusion_matrix([[3, 1], [0, 4]], lang=lang)
    yield plots.class_weights(np.ones((4, 2)), (2, 2), lang=lang)
    yield plots.heat_map([[0.5, np.nan]], [1], [2, 3], names=("lr", "mu"), lang=lang)


def texts(figure: Figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_spanish_figures_have_no_english_and_as_many_texts():
    for spanish, english in zip(figures("es"), figures("en"), strict=True):
        for text in texts(spanish):
            assert not ENGLISH.search(text.replace("\n", " ")), text
        assert [bool(text) for text in texts(spanish)] == [bool(text) for text in texts(english)]
        assert texts(spanish) != texts(english)


def test_every_function_that_draws_has_a_language():
    drawn = {name for name in plots.__all__ if callable(getattr(plots, name)) and name[0].islower()}
    without = {"accuracy_of_clients", "bytes_of_round"}
    assert {name for name in drawn if "lang" in (getattr(plots, name).__kwdefaults__ or {})} == drawn - without
