"""The labs: the same in both languages, nothing of the solutions for students, checks that explain.

`.ci/labs.py` runs them as notebooks; here the first one's code runs, without a kernel.
"""

import ast
import json
import re
import sys
import types
from decimal import Decimal
from fractions import Fraction

import matplotlib
import numpy as np
import pytest

import fedsim_np.labs as fed_labs
from fedsim_np.cli import main
from fedsim_np.labs import answers, check, checker, checking, pictures, source
from fedsim_np.labs.answers import Choice, Function, Number, Numbers, YesNo
from fedsim_np.labs.exercises import Exercise, Mistake, Verdict
from fedsim_np.labs.languages import Text
from fedsim_np.texts import LANGUAGES

NUMBERS = [lab.number for lab in source.labs()]
every_lab = pytest.mark.parametrize("number", NUMBERS)


def lines(text):
    return {line.strip() for line in text.splitlines() if re.search(r"\w", line)}


class Masked(ast.NodeTransformer):
    """Every text becomes the same, and one with values in it only these, in any order."""

    def visit_Constant(self, node):
        return ast.Constant("") if isinstance(node.value, str) else node

    def visit_JoinedStr(self, node):
        values = [ast.dump(self.visit(part.value)) for part in node.values if isinstance(part, ast.FormattedValue)]
        return ast.Constant(" ".join(sorted(values)))


def masked(code):
    return ast.dump(Masked().visit(ast.parse(code)))


@every_lab
def test_both_languages_have_the_same_cells_and_code(number):
    english, spanish = (source.lab(number, lang) for lang in LANGUAGES)
    assert (english.name, english.minutes) == (spanish.name, spanish.minutes)
    assert 45 <= english.minutes <= 60
    assert [cell[:2] for cell in english.cells] == [cell[:2] for cell in spanish.cells]
    for one, other in zip(english.cells, spanish.cells, strict=True):
        if one.kind == "code":
            assert masked(one.text) == masked(other.text)
        else:
            assert one.text != other.text
            for same in (r"^#+ ", r"\$+[^$]+\$+", r"`[^`]+`", r"https?://[^)\s]+"):  # headings, formulas, names, links
                found, wanted = (sorted(re.findall(same, text, re.MULTILINE)) for text in (one.text, other.text))
                assert found == wanted


@every_lab
def test_the_texts_are_in_their_languages(number):
    english, spanish = (
        " ".join(cell.text for cell in source.lab(number, lang).cells if cell.kind == "markdown").lower()
        for lang in LANGUAGES
    )
    assert not re.findall(r"\b(el|los|las|que)\b", english)
    assert not re.findall(r"\b(the|and|with|which)\b", re.sub(r"`[^`]*`|\([^)]*\)", "", spanish))
    for exercise in checking.exercises(number).values():
        for text in (exercise.right, exercise.otherwise, *(mistake.text for mistake in exercise.mistakes)):
            assert not re.search(r"\b(the|and|with)\b", re.sub(r"`[^`]*`", "", text.es))
            assert text.en != text.es


@every_lab
def test_nothing_of_the_solutions_is_in_the_students_notebook(number):
    for lang in LANGUAGES:
        lab = source.lab(number, lang)
        cells = json.loads(lab.notebook())["cells"]
        seen = lines("\n".join("".join(cell["source"]) for cell in cells))
        solved = 0
        for i, cell in enumerate(lab.cells):
            if cell.part == "solution":
                before = next(other for other in reversed(lab.cells[:i]) if other.part == "exercise")
                secret = lines(cell.text) - lines(before.text)
                assert secret
                assert not secret & seen
                solved += cell.kind == "code"
        assert solved >= len(checking.exercises(number))


@every_lab
def test_every_exercise_is_asked_solved_and_explained(number):
    known = checking.exercises(number)
    assert list(known) == [f"{number}.{i}" for i in range(1, len(known) + 1)]
    for lang in LANGUAGES:
        lab = source.lab(number, lang)
        for solutions in (False, True):
            asked = re.findall(r'check\("([\d.]+)"', "\n".join(lab.code(solutions=solutions)))
            assert asked == list(known)
        assert f'labs.checker("{number}", lang="{lang}")' in lab.code()[0]
    for name, exercise in known.items():
        right = exercise.kind.read(exercise.answer(), "en")
        told = set()
        for mistake in exercise.mistakes:
            # Each mistake is wrong, and known for what it is.
            assert (mistake.answer is None) != (mistake.when is None)
            if mistake.answer is not None:
                wrong = mistake.answer()
                assert not exercise.kind.same(exercise.kind.read(wrong, "en"), right)
                said = {lang: check(name, wrong, lang) for lang in LANGUAGES}
                assert {verdict.is_right for verdict in said.values()} == {False}
                assert said["en"].explanation == mistake.text.en.format(
                    got=exercise.kind.shown(exercise.kind.read(wrong, "en"))
                )
                told.add(said["en"].explanation)
        assert len(told) == sum(mistake.answer is not None for mistake in exercise.mistakes)
        if isinstance(exercise.kind, Choice):
            assert len(told) == len(exercise.kind.letters) - 1
        if not isinstance(exercise.kind, Function):
            texts = [exercise.otherwise, *(mistake.text for mistake in exercise.mistakes)]
            assert not any("{right}" in text for pair in texts for text in pair)


def run(codes):
    """Run cells one after the other, as a notebook does; return the values that they end with."""
    names, values = {}, []
    for code in codes:
        tree = ast.parse(code)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, "<cell>", "exec"), names)
        if last is not None:
            values.append(eval(compile(ast.Expression(last.value), "<cell>", "eval"), names))
    return values


def only_the_first_picture(draw, labels=None, start=None, **values):
    draw(pictures.panels()[0], **{name: (start or {}).get(name, of[0]) for name, of in values.items()})


def test_a_lab_runs_and_its_solutions_are_right(monkeypatch):
    number = "1"  # .ci/labs.py runs them all, as notebooks
    matplotlib.use("Agg")
    monkeypatch.setattr(fed_labs, "sliders", only_the_first_picture)
    # The students' cells between the solved ones: what is given must not need an answer.
    cells = [cell.text for cell in source.lab(number).cells if cell.kind == "code"]
    verdicts = [value for value in run(cells) if isinstance(value, Verdict)]
    for name in checking.exercises(number):
        of_exercise = [verdict.is_right for verdict in verdicts if verdict.exercise == name]
        assert of_exercise == [None, True]
    in_spanish = checker(number, lang="es")
    for name, exercise in checking.exercises(number).items():
        assert in_spanish(name, exercise.answer()).heading == "Correcto."


# --- answers in other forms


@pytest.mark.parametrize(
    "answer",
    [0.25, "1/4", "25 %", "25%", "0,25", " .25 ", np.float64(0.25), np.float32(0.25), np.array([[0.25]]), [0.25],
     (0.25,), Fraction(1, 4), 0.2504, ["1/4"], Decimal("0.25"), "w = 0.25", "\N{GREEK SMALL LETTER EPSILON}=0,25",
     "~0.25", "\N{MULTIPLICATION SIGN} 0.25", "0.5/2", "1 / 4", "1 in 4", "1 de 4", "25 por ciento", "25 percent"],
)  # fmt: skip
def test_a_number_in_other_forms(answer):
    kind = Number(rtol=0.01)
    assert kind.same(kind.read(answer, "es"), 0.25)


def test_commas_are_read_as_the_language_has_them():
    assert Number().read("1,000", "en") == 1000
    assert Number().read("1,000", "es") == 1
    assert Number().read("1,5", "en") == 1.5
    assert Number().read("12 000", "en") == 12_000
    assert Number().read("2 3/5", "en") == 2.6


def test_rows_as_texts_and_rows_that_nobody_has_filled():
    for text in ("-1, 1/4, 2", "(-1; 0.25; 2)", "\N{MINUS SIGN}1 0.25 2"):
        assert Numbers(3).read(text, "en").tolist() == [-1, 0.25, 2]
    assert Numbers(2).read("0,5, 2", "es").tolist() == [0.5, 2]
    assert check("1.1", [..., None, ""]).is_right is None
    assert check("1.1", []).is_right is False


@pytest.mark.parametrize("answer", ["a quarter", True, np.False_, [1, 2], {"a": 1}, 1j, float("nan"), "1/0", [], min,
                                    "1 2", "2 or 3", "between 2 and 3", "25 \N{PER MILLE SIGN}"])  # fmt: skip
def test_what_is_no_number_is_told_so(answer):
    verdict = check("1.1", answer)
    assert verdict.is_right is False
    assert verdict.explanation.startswith("It asks for a number (right within 1 %). ")
    assert check("1.1", answer, lang="es").explanation.startswith("Se pide un número (con un margen del 1 %). ")


def test_tolerances_are_kept_and_said():
    assert Number(0.01).same(1.0099, 1.0)
    assert not Number(0.01).same(1.0101, 1.0)
    assert Number(0.0, 0.5).same(0.49, 0.0)
    assert "1 % and 0.5" in Number(0.01, 0.5).asks.en
    assert not Number(0.0, 0.0).same(3.001, 3)
    assert Number(0.0, 0.0).asks == Text("a whole number", "un número entero")


def test_units_are_taken_where_they_are_declared():
    kind = Number(0.0, 0.0, units=("local", "steps?", "pasos?"))
    for answer in ("10 local steps", "10 pasos", "10", "10 Steps."):
        assert kind.read(answer, "en") == 10
    for answer in ("10 rounds", "steps", "10.5 steps", 10.5):
        with pytest.raises(answers.UnreadableError):
            kind.read(answer, "en")


def test_a_right_answer_with_too_few_digits_is_told_so():
    exercise = Exercise(Number(), lambda: 4.155, Text("It is {got}.", "Es {got}."), (), Text("No.", "No."))
    for answer in (4.2, 4, "4,2"):
        verdict = exercise.judge("9.2", answer, "en")
        assert verdict.is_right is False
        assert verdict.explanation == "Near, but rounded too far. It asks for a number (right within 1 %)."
    assert exercise.judge("9.2", 4.3, "en").explanation == "No."
    assert exercise.judge("9.2", 4.16, "en").explanation == "It is 4.155."  # not what was answered


def test_several_numbers():
    kind = Numbers(2)
    for answer in ([1, 2], (1, "2"), np.array([[1.0], [2.0]])):
        assert kind.same(kind.read(answer, "en"), kind.read([1, 2], "en"))
    assert not kind.same(kind.read([2, 1], "en"), kind.read([1, 2], "en"))
    with pytest.raises(answers.UnreadableError):
        kind.read([1, 2, 3], "en")


def test_letters_and_words():
    assert [Choice("ABC").read(answer, "en") for answer in ("b", " B. ", "(b)", ["b"], "Option B")] == ["B"] * 5
    for answer in ("D", "AB", "A and B", "answer", "", 1, None, ["A", "B"]):
        with pytest.raises(answers.UnreadableError):
            Choice("ABC").read(answer, "en")
    for answer in ("yes", "Sí", "si", "TRUE", True, np.True_, 1, "verdadero"):
        assert YesNo().read(answer, "en") is True
    for answer in ("no", "No.", "No, they cancel.", False, np.False_, 0, "falso"):
        assert YesNo().read(answer, "en") is False
    for answer in ("maybe", "not yes", 2, 1.0, [True]):
        with pytest.raises(answers.UnreadableError):
            YesNo().read(answer, "en")


def double(x):
    return 2 * x


TOY = Exercise(
    Function("double(x)", ((1.0,), (np.array([2.0, 3.0]),))),
    lambda: double,
    Text("Twice.", "El doble."),
    (Mistake(Text("Half.", "La mitad."), lambda: lambda x: x / 2),),
    Text("{call} gives {got}, not {right}.", "{call} da {got}, no {right}."),
)


def changed(x):
    x *= 2
    return x


@pytest.mark.parametrize(
    ("function", "is_right", "said"),
    [
        (lambda x: x + x, True, "Twice."),
        (lambda x: np.multiply(2, x).tolist(), True, "Twice."),
        (changed, True, "Twice."),
        (lambda x: x / 2, False, "Half."),
        (lambda x: 3 * x, False, "double(1.0) gives 3, not 2."),
        (lambda x: 2 * x if np.isscalar(x) else 0 * x, False, "double(array([2., 3.])) gives [0, 0], not [4, 6]."),
        (
            lambda x: [1, 2],
            False,
            "double(1.0) returns [1, 2]: that is not how many numbers were asked for (2, not 1).",
        ),
        (lambda x: "two", False, "It asks for a function, double(x). double(1.0) returned 'two', where numbers are"),
        (lambda x: x / 0, False, "It asks for a function, double(x). double(1.0) raised ZeroDivisionError: "),
        (lambda: 2, False, "It asks for a function, double(x). double(1.0) raised TypeError: "),
        (2.0, False, "It asks for a function, double(x). Got 2.0. Give the function itself"),
        (lambda x: ..., None, 'It asks for a function, double(x), such as check("9.1", double).'),
        (
            lambda x: None,
            False,
            "It asks for a function, double(x). double(1.0) returned nothing. Does the function end",
        ),
    ],
)
def test_a_function_is_judged_by_what_it_returns(function, is_right, said):
    verdict = TOY.judge("9.1", function, "en")
    assert verdict.is_right is is_right
    assert verdict.explanation.startswith(said)


def test_nothing_answered_yet():
    for answer in (..., None, "", "..."):
        verdict = check("1.2", answer)
        assert verdict.is_right is None
        assert repr(verdict) == '1.2: Not answered yet. It asks for a letter: A, B, C or D, such as check("1.2", "A").'
    assert checker(1)("1.2").is_right is None
    assert checker("1", lang="es")("1.3").explanation == 'Se pide sí o no, por ejemplo check("1.3", "sí").'


def test_an_exercise_that_is_not_there():
    with pytest.raises(checking.LabError, match=r"lab 1 has the exercises 1\.1, .*1\.8\. Got '1\.9'\.") as caught:
        check("1.9", 0.5)
    assert caught.value._render_traceback_() == [f"LabError: {caught.value}"]  # a notebook shows this line alone
    with pytest.raises(checking.LabError, match=r"lab 1 has the exercises .* Got \['1\.1'\]"):
        checker("1")(["1.1"], 0.5)
    with pytest.raises(checking.LabError, match=r"'lab' must be one of 1.*\. Got '99'\."):
        check("99.1", 0.5)
    with pytest.raises(checking.LabError, match=r"'lang' must be one of en, es\. Got 'fr'\."):
        checker("1", lang="fr")
    assert checker("1")(1.1, 0).is_right is False  # the name as a number


def test_a_verdict_as_a_notebook_shows_it():
    assert check("1.3", "no")._repr_markdown_().startswith("**1.3: Right.** ")
    assert all(len(line) <= 110 for line in repr(check("1.3", "no")).splitlines())


# --- a lab's text


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("# Sums\n", "must begin with '---'"),
        ("---\nminutes: soon\nabout: sums\n---\n# Sums\n", "must begin with '---'"),
        ("---\nminutes: 5\nabout: sums\n---\nSums\n", "must have a title"),
        ("---\nminutes: 5\nabout: sums\n---\n# Sums\n```python\nx = 1\n", "an end to every fence"),
        (
            "---\nminutes: 5\nabout: sums\n---\n# Sums\n```python answer\nx = 1\n```\n",
            "a fence must say one of python,",
        ),
    ],
)
def test_a_text_that_breaks_a_rule(text, rule):
    with pytest.raises(ValueError, match=f"file '9_sums.en.md'.*{re.escape(rule)}"):
        source.parse(text, "9", "sums", "en")


def test_the_notebooks_are_notebooks():
    nbformat = pytest.importorskip("nbformat")
    for lab in source.labs("es"):
        ids = []
        for solutions in (False, True):
            notebook = nbformat.reads(lab.notebook(solutions=solutions), 4)
            nbformat.validate(notebook)
            ids.append({cell["id"]: cell["source"] for cell in notebook["cells"]})
        # What is in both has the same id in both.
        assert all(ids[0][name] == ids[1][name] for name in ids[0].keys() & ids[1].keys())
        assert ids[0].keys() - ids[1].keys()


def test_the_command(folder, capsys):
    lab = source.lab("1", "es")
    assert main(["notebook", "1", "--lang", "es", "--out", str(folder)]) == 0
    assert main(["notebook", "1", "--lang", "es", "--solutions", "--to", str(folder)]) == 0
    for solutions in (False, True):
        path = folder / lab.file_name(solutions=solutions)
        assert path.read_text(encoding="utf-8") == lab.notebook(solutions=solutions)
    assert main(["notebook", "1", "--lang", "es", "--out", str(folder)]) == 2
    assert "use --overwrite" in capsys.readouterr().err
    assert main(["notebook", "99", "--out", str(folder)]) == 2
    assert "'LAB' must be one of 1" in capsys.readouterr().err
    assert main(["notebook", "--solutions", "--out", str(folder)]) == 2
    assert "give its number" in capsys.readouterr().err
    assert len(list(folder.iterdir())) == 2
    for lang in LANGUAGES:
        assert main(["notebook", "--list", "--lang", lang]) == 0
        listed = capsys.readouterr().out.splitlines()
        assert len(listed) == 1 + len(NUMBERS)
        assert all(
            found.about in line and f"{found.minutes} min" in line
            for line, found in zip(listed[1:], source.labs(lang), strict=True)
        )


# --- sliders


def drawing(axes, steps, rate):
    axes.plot([0, steps], [rate, 0], label=f"{steps} {rate}")


def shown_lines(figure):
    return [axes.lines[0].get_label() for axes in figure.axes]


def test_without_widgets_sliders_are_panels():
    shown = pictures.sliders(drawing, start={"steps": 5}, labels={"steps": "pasos"}, steps=[1, 5, 9], rate=[0.1, 0.5])
    assert shown.widget is None
    assert shown_lines(shown.figure) == ["1 0.1", "5 0.1", "9 0.1", "5 0.1", "5 0.5"]
    assert shown.figure.axes[0].get_title() == "pasos = 1"
    bundle = shown._repr_mimebundle_()
    assert bundle.keys() == {"text/plain", "image/png"}
    assert len(pictures.sliders(drawing, steps=range(100), rate=[1]).figure.axes) == 5
    for wrong in ({}, {"steps": []}):
        with pytest.raises(ValueError, match="at least one"):
            pictures.sliders(drawing, **wrong)
    with pytest.raises(ValueError, match=r"start\['steps'\]' must be one of \[1, 2\]\. Got 3\."):
        pictures.sliders(drawing, start={"steps": 3}, steps=[1, 2], rate=[1])
    with pytest.raises(TypeError, match="'draw' must be a function"):
        pictures.sliders(3, steps=[1])


def in_a_kernel(monkeypatch):
    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))


def test_a_kernel_without_ipywidgets_has_panels_too(monkeypatch):
    in_a_kernel(monkeypatch)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert pictures.sliders(drawing, steps=[1], rate=[1]).widget is None


def test_with_widgets_the_picture_follows_the_sliders(monkeypatch):
    pytest.importorskip("ipywidgets")
    in_a_kernel(monkeypatch)
    drawn = []

    def draw(axes, steps, rate):
        drawn.append((steps, rate))
        drawing(axes, steps, rate)

    shown = pictures.sliders(draw, start={"rate": 0.5}, steps=[1, 2], rate=[0.1, 0.5])
    steps, rate, image = shown.widget.children
    assert (steps.value, rate.value) == (1, 0.5)
    before, drawn[:] = bytes(image.value), []
    steps.value = 2
    assert drawn == [(2, 0.5)]
    assert bytes(image.value) != before
    assert bytes(image.value).startswith(b"\x89PNG")
    bundle = shown._repr_mimebundle_()
    assert {"image/png", "application/vnd.jupyter.widget-view+json"} <= bundle.keys()
