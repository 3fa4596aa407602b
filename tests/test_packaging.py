"""What is installed."""

import configparser
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_package_is_listed():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = set(setup["options"]["packages"].split())
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in ROOT.glob("fedsim_np/**/__init__.py")}
    assert listed == found | {"fedsim_np.data"}


def test_every_extra_that_is_named_exists():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    files = [ROOT / "README.md", *ROOT.glob("fedsim_np/**/*.py"), *ROOT.glob("fedsim_np/docs/*.md")]
    named = {name for path in files for name in re.findall(r'"fedsim_np\[(\w+)\]"', path.read_text(encoding="utf-8"))}
    assert {"tensorboard", "sklearn", "loggers"} <= named <= set(setup["options.extras_require"])


def test_the_pages_are_installed():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    patterns = setup["options.package_data"]["fedsim_np.docs"].replace(" ", "").split(",")
    docs = ROOT / "fedsim_np" / "docs"
    installed = {path for pattern in patterns for path in docs.glob(pattern)}
    pages = {path for path in docs.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert docs / "secure_aggregation.md" in pages
    assert docs / "templates" / "module.html.jinja2" in pages
    assert pages <= installed
