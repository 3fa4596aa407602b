"""A stranger's run folder: links in every place, descriptions that stand for more than there is, odd choices.

Commands run in this process (POSIX).
"""

import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import signal
import traceback
import tracemalloc
import zipfile

import fedsim_np as fed
from fedsim_np.cli import main

SMALL = ["--rounds", "2", "--clients", "2", "--epochs", "1", "--server-optimizer", "adam"]


class Hang(BaseException):
    """A command took too long."""


def command(*words, seconds=25):
    """Run a command; return status ("hang", "raised"), output and error."""
    out, err = io.StringIO(), io.StringIO()

    def over(*_):
        raise Hang

    signal.signal(signal.SIGALRM, over)
    signal.alarm(seconds)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = main([*map(str, words)])
            except Hang:
                status = "hang"
            except BaseException:
                status = "raised"
                traceback.print_exc()
    finally:
        signal.alarm(0)
    return status, out.getvalue(), err.getvalue()


def faults(status, out, err, lines=1):
    """Return what is wrong with an answer."""
    wrong = [f"status {status}"] * (status not in (0, 2))
    wrong += ["traceback"] * ("Traceback" in err)
    wrong += [f"{err.count(chr(10))} lines"] * (status == 2 and not 1 <= err.count("\n") <= lines)
    wrong += [f"{len(err)} characters"] * (len(err) > 2100 * lines)
    wrong += ["escape sequence"] * ("\x1b" in out + err or "\u202e" in out + err)
    return wrong


def links(folder, quick):
    """Put links of all kinds, pipes and second names into each of a run's places; nothing outside may change."""
    rng = random.Random(0)
    runs = {"train": folder / "train", "tutorial": folder / "tutorial"}
    assert command("train", "--out", runs["train"], *SMALL)[0] == 0
    assert command("tutorial", "--rounds", 1, "--clients", 2, "--svg", "--out", runs["tutorial"])[0] == 0
    extra = ["report.html", "figures", "checkpoints/.lock-journal", "checkpoints/program_state_9", "tensorboard"]
    extra += ["tensorboard/train", "tensorboard/eval/events.out.tfevents.1", "checkpoints/.lock-wal", "figures/x.png"]
    outside, target, tried, through = folder / "outside", folder / "run", 0, []

    def state():
        files = sorted(outside.rglob("*"))
        return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) if path.is_file() else None for path in files}

    def make(path, how):
        leads = {"file": outside / "f", "folder": outside / "d", "nothing": outside / "new", "itself": path}
        if how == "a pipe":
            os.mkfifo(path)
        elif how == "a second name":
            os.link(outside / rng.choice(["f", "empty"]), path)
        else:
            path.symlink_to(leads.get(how, how))

    kinds = ("file", "folder", "nothing", "itself", "/dev/zero", "a pipe", "a second name")
    for kind, run in runs.items():
        names = [str(path.relative_to(run)) for path in sorted(run.rglob("*"))] + extra
        for name in rng.sample(names, 6) if quick else names:
            for how in rng.sample(kinds, 1 if quick else len(kinds)):
                for path in (outside, target):
                    shutil.rmtree(path, ignore_errors=True)
                shutil.copytree(run, target)
                (outside / "d").mkdir(parents=True)
                for file, content in {
                    "f": b"mine",
                    "empty": b"",
                    "d/program_state_1": b"mine",
                    "d/x.png": b"x",
                }.items():
                    (outside / file).write_bytes(content)
                (outside / "d" / "figures.json").write_text('[{"name": "x"}]')
                place = target / name
                if place.is_dir():
                    shutil.rmtree(place)
                place.unlink(missing_ok=True)
                place.parent.mkdir(parents=True, exist_ok=True)
                make(place, how)
                before = state()
                commands = {
                    "train": [
                        ["train", "--out", target, "--resume"],
                        ["train", "--out", target, *SMALL, "--overwrite"],
                    ],
                    "tutorial": [
                        ["tutorial", "--rounds", 1, "--clients", 1, "--out", target, "--overwrite", "--no-figures"]
                    ],
                }[kind]
                for words in [*commands, ["report", target]]:
                    tried += 1
                    wrong = faults(*command(*words)) + ["something outside changed"] * (state() != before)
                    if wrong:
                        through.append(f"{kind} {name} -> {how}, {words[0]}: {wrong}")
    return {"tried": tried, "came through": through}


def _mutated(about, rng, content):
    """Return a description with one place changed."""
    about = json.loads(json.dumps(about))
    places = []

    def walk(node, path):
        places.append(path)
        for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            walk(node[key], [*path, key])

    walk(about, [])
    *path, last = rng.choice(places[1:])
    node = about
    for key in path:
        node = node[key]
    whole = {"kind": "array", "dtype": "|u1", "shape": [len(content)], "place": 0}
    pool = [
        None,
        True,
        -1,
        0,
        2**70,
        1e308,
        "",
        [],
        {},
        "\x1b[2J" * 1000,
        "<f4",
        "O",
        "|V8",
        "(1000000000,)f4",
        "f4,f4",
    ]
    pool += [[[]], whole, {"kind": "list", "items": [whole] * 3000}, {"kind": "int", "value": "0x" + "f" * 10**5}]
    pool += [{"kind": "plain", "value": "x" * 10**6}, json.loads("[" * 300 + "]" * 300)]
    if type(node[last]) is int:
        pool += [node[last] + 1, node[last] - 1, -node[last], node[last] * 2] * 3
    node[last] = rng.choice(pool)
    return about


def descriptions(folder, quick):
    """Change descriptions, with right checksums: read correctly or refused, in a small multiple of the file's size."""
    rng = random.Random(0)
    good, target, tried, through = folder / "good", folder / "run", 0, []
    assert command("train", "--out", good, *SMALL)[0] == 0
    raw = (good / "checkpoints" / "program_state_2").read_bytes()
    body = raw[raw.index(b"\n", 30) + 1 :]
    length, _, rest = body.partition(b"\n")
    about, content = json.loads(rest[: int(length)]), rest[int(length) :]
    for _ in range(20 if quick else 400):
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(good, target)
        text = json.dumps(_mutated(about, rng, content)).encode("utf-8", "surrogatepass")
        changed = f"{rng.choice([len(text)] * 9 + [-5, 10**9])}\n".encode() + text + content
        digest = hashlib.sha256(changed).hexdigest().encode()
        file = target / "checkpoints" / "program_state_2"
        file.write_bytes(b"fedsim_np checkpoint 1\n" + digest + b"\n" + changed)
        tried += 1
        tracemalloc.start()
        answer = command("train", "--out", target, "--resume")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        wrong = faults(*answer, lines=2) + [f"{peak >> 20} MB"] * (peak > 2**27 + 20 * len(changed))
        if wrong:
            through.append(f"{text[:200]!r}: {wrong}")
    return {"tried": tried, "came through": through}


def weights(folder, quick):
    """Make .npz files that stand for more, with headers and methods of all kinds."""
    rng = random.Random(0)
    tried, through = 0, []
    for _ in range(30 if quick else 600):
        path, dtype = folder / "w.npz", rng.choice(["|u1", "<f4", "<f8", "|O", "<U9", "|V8", ">i2", "<c8"])
        shape = rng.choice(
            ["()", "(9,)", "(16777216,)", "(1000000000000,)", "(-1,)", "(0, 4611686018427387904)", "1", "'x'"]
        )
        text = f"{{'descr': '{dtype}', 'fortran_order': {rng.choice([True, False])}, 'shape': {shape}, }}"
        text = rng.choice([text, text, text, "(" * 2000, text[:-3], "[" * 100 + "]" * 100])
        size = rng.choice([0, 1, 9, 72, 2**24])
        method = rng.choice([zipfile.ZIP_STORED] + [zipfile.ZIP_DEFLATED] * 6 + [zipfile.ZIP_BZIP2])
        version = rng.choice([b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x00"])
        length = len(text).to_bytes(2 if version[0] == 1 else 4, "little")
        with zipfile.ZipFile(path, "w", method) as archive:
            for i in range(rng.choice([1, 1, 2, 5])):
                name = rng.choice([f"a{i}.npy", f"../{i}.npy", f"{i}", f"\x1b[2J{i}.npy"])
                archive.writestr(name, b"\x93NUMPY" + version + length + text.encode() + bytes(size))
        if rng.random() < 0.3:
            content = bytearray(path.read_bytes())
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            path.write_bytes(content)
        for model in (None, fed.learning.models.SoftmaxRegression()):
            tried += 1
            tracemalloc.start()
            try:
                fed.learning.models.load_weights(path, model)
            except fed.DataError as error:
                if len(str(error)) > 2000:
                    through.append(f"{text[:60]}: {len(str(error))} characters")
            except BaseException as error:
                through.append(f"{text[:60]}: {error!r}")
            peak, most = tracemalloc.get_traced_memory()[1], max(2**26, 100 * path.stat().st_size)
            tracemalloc.stop()
            if peak > (2**23 if model else 2 * most + 2**23):
                through.append(f"{text[:60]}, {size} bytes, {method}: {peak >> 20} MB")
    return {"tried": tried, "came through": through}


def configurations(folder, quick):
    """Put into a run's config.json what a stranger may: refused in one short line, or the same run."""
    rng = random.Random(0)
    good, target, tried, through = folder / "good", folder / "run", 0, []
    assert command("train", "--out", good, *SMALL)[0] == 0
    config = json.loads((good / "config.json").read_text())
    values = [None, True, -1, 2**62, 10**400, 1e308, float("nan"), "\x1b[2J\u202e" * 10**5, ["x"] * 10**5, {}, "a\0b"]
    values += [5, "/dev/zero", "\ud800", "1," * 10**5, {"x": {"file": 5}}, 10**9, 2**32 - 1, "9" * 5000]
    texts = [
        "[" * 10**5,
        '{"a":' * 10**5,
        json.dumps({f"k\x1b{i}": 1 for i in range(10**5)}),
        "\ufeff{}",
        '{"rounds": 1e999}',
    ]
    for key in ("choices", "data", "versions", "command"):
        texts += [json.dumps({**config, key: value}) for value in values]
    for key in config["choices"]:
        some = rng.sample(values, 2 if quick else len(values))
        texts += [json.dumps({**config, "choices": {**config["choices"], key: value}}) for value in some]
    for text in rng.sample(texts, 12) if quick else texts:
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(good, target)
        (target / "config.json").write_text(text, encoding="utf-8", errors="surrogatepass", newline="\n")
        for words in (["train", "--out", target, "--resume"], ["evaluate", target], ["report", target]):
            tried += 1
            answer = command(*words)
            wrong = faults(*answer, lines=2)
            if wrong:
                through.append(f"{text[:120]}..., {words[0]}: {wrong}, {answer[2][-300:]!r}")
    return {"tried": tried, "came through": through}
