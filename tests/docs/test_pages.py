"""What pages speak of exists: commands, options, other pages and their parts, pictures, files, tests, modules."""

import importlib.util
import re

import pytest

from tests.docs.support import PAGES, ROOT, blocks_of
from tests.test_layout import ROOMS

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@pytest.fixture(scope="module")
def hooks():
    specification = importlib.util.spec_from_file_location("hooks", ROOT / "docs/hooks.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def options(hooks):
    """Options of each command, by the words after ``segment-slide``."""
    return {
        name.removeprefix("segment-slide "): {
            opt for option in hooks.parameters_of(command)[1] for opt in (*option.opts, *option.secondary_opts)
        }
        | {"--help"}
        for name, command in hooks.walk_commands()
    }


def code_of(text):
    """Blocks and inline code; a line that ends in a backslash is one with the next, comments are left out."""
    blocks = re.findall(r"(?ms)^\s*```\S*\n(.*?)^\s*```", text)
    prose = re.sub(r"(?ms)^\s*```.*?^\s*```", "\n\n", text)
    inline = [  # which may break over a line, but not over a paragraph
        re.sub(r"\s*\n\s*", " ", found)
        for paragraph in re.split(r"\n\s*\n", prose)
        for found in re.findall(r"(?<!`)`([^`]+)`(?!`)", paragraph)
    ]
    return [
        re.sub(r"\s#.*", "", line) for part in (*blocks, *inline) for line in part.replace("\\\n", " ").splitlines()
    ]


def wrong_commands(text, options):
    """Commands and options in a text that do not exist."""
    wrong = []
    for line in code_of(text):
        for called in re.findall(r"(?:^|[\s$`(/])segment-slide ([a-z][^|;&]*)", line):
            words = called.split()
            name = " ".join(words[:2]) if " ".join(words[:2]) in options else words[0]
            if name not in options:
                wrong += [] if any(other.startswith(f"{name} ") for other in options) else [name]
                continue
            wrong += [
                f"{name} {word.partition('=')[0]}"
                for word in words
                if re.match(r"--?[a-z]", word) and word.partition("=")[0] not in options[name]
            ]
    return wrong


@every_page
def test_commands_and_options_exist(page, options):
    assert not wrong_commands(page.read_text(), options)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("`segment-slide segment x --block 3 -m y`", []),
        ("`segment-slide segment x --blocks 3`", ["segment --blocks"]),
        ("```console\n$ segment-slide colour x\n```", ["colour"]),
        ("```console\n$ segment-slide plan x \\\n    --gone 3   # --not-this\n```", ["plan --gone"]),
        ("`segment-slide cluster check x --input y`, `segment-slide COMMAND --help`", []),
        ("`segment-slide cluster check x --output-folder y`", ["cluster check --output-folder"]),
        ("so `segment-slide plan x\n  --gone 3` is", ["plan --gone"]),
    ],
)
def test_the_check_of_commands_sees_what_does_not_exist(text, expected, options):
    assert wrong_commands(text, options) == expected


@every_page
def test_options_that_are_named_alone_exist_somewhere(page, options):
    known = set().union(*options.values()) | {"--param", "--strict"}
    alone = {word for code in code_of(page.read_text()) for word in re.findall(r"^(--[a-z][\w-]*)", code.strip())}
    assert alone - known - OF_OTHERS == set()


OF_OTHERS = {"--constraint", "--gres"}  # SLURM's


def anchors_of(text):
    """Names of the headings as MkDocs and GitHub write them."""
    headings = re.findall(r"(?m)^#+ (.*)$", re.sub(r"(?ms)^```.*?^```", "", text))
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s.-]", "", heading.lower()).replace(".", "")) for heading in headings}


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"], ids=lambda page: str(page.relative_to(ROOT))
)
def test_links_and_pictures_lead_somewhere(page):
    assert broken_links(page.read_text(), page) == []


def broken_links(text, page):
    """Targets in the text of a page that are not there, or lack the part that is named; other hosts are not asked."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"(?ms)^```.*?^```", "", text)):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        if not found.exists() or (anchor and anchor not in anchors_of(text if found == page else found.read_text())):
            broken.append(target)
    return broken


def test_links_that_lead_nowhere_are_seen():
    text = "# Here\n[a](tutorial.md#train) [b](#here) [c](https://a.org) ![d](images/demo.png)"
    assert broken_links(text, ROOT / "docs/index.md") == []
    text = "# Here\n[a](gone.md) [b](tutorial.md#gone) [c](#there) ![d](images/gone.png)"
    expected = ["gone.md", "tutorial.md#gone", "#there", "images/gone.png"]
    assert broken_links(text, ROOT / "docs/index.md") == expected


def test_every_picture_is_shown_and_every_page_is_in_the_navigation():
    text = "\n".join(page.read_text() for page in (*PAGES, ROOT / "mkdocs.yml"))
    pictures = {path.name for path in (ROOT / "docs/images").iterdir()}
    assert {name for name in pictures if f"images/{name}" not in text} == set()
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in PAGES[1:]:
        assert str(page.relative_to(ROOT / "docs")) in navigation


TESTS = {
    name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
}
SENTENCE = re.compile(r"(?<!\*)\*([\w'-]+(?: [\w'-]+)+)\*(?!\*)")


def missing_files(text):
    """Files and folders of ours that a text names and that are not there."""
    named = re.findall(r"`((?:unet|pipeline|flows|cluster|tests|benchmarks|docs|segment_slide)/[\w./-]*)`", text)
    return [path for path in named if not (ROOT / path).exists()]


def missing_tests(text):
    """Tests that a text names and that are not there; tables may name them as sentences, if the page says so."""
    named = set(re.findall(r"`(test_\w+)`", text))
    if "Names of tests are sentences" in text:
        rows = "\n".join(line for line in text.splitlines() if line.startswith("|"))
        named |= {"test_" + re.sub(r"\W", "_", said.replace("'", "")) for said in SENTENCE.findall(rows)}
    return sorted(named - TESTS)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: str(page.relative_to(ROOT)))
def test_files_and_tests_that_a_page_names_are_there(page):
    text = page.read_text()
    assert missing_files(text) + missing_tests(text) == []


def test_files_and_tests_that_are_gone_are_seen():
    assert missing_files("`unet/model.py` `unet/gone.py` `pipeline/objects/` `cluster/kinds/<kind>.py`") == [
        "unet/gone.py"
    ]
    assert missing_tests("`test_numbers_are_scipys` `test_of_nothing`") == ["test_of_nothing"]
    table = "| *numbers are scipy's*; *nobody's test* | **no test** |\n*no test*"
    assert missing_tests(table) == []
    assert missing_tests(f"Names of tests are sentences.\n{table}") == ["test_nobodys_test"]


def rooms_of(tree):
    """Folders that a drawing of the tree names, as "pipeline/blocks"."""
    found, part = set(), ""
    for line in tree.splitlines():
        if inner := re.match(r"[├└]── (\w+)/", line):
            found.add(f"{part}/{inner[1]}")
        elif outer := re.match(r"(\w+)/", line):
            part = outer[1]
    return found


def test_the_readmes_map_names_every_room_and_no_other():
    trees = [block.text for block in blocks_of(ROOT / "README.md") if block.text.startswith("unet/")]
    assert len(trees) == 1
    assert rooms_of(trees[0]) == {f"{part}/{room}" for part, rooms in ROOMS.items() for room in rooms if room}


def test_modules_of_the_reference_exist():
    for page in (ROOT / "docs/reference").glob("python-*.md"):
        for module in re.findall(r"(?m)^::: (\S+)$", page.read_text()):
            assert (ROOT / (module.replace(".", "/") + ".py")).exists(), module


def test_the_reference_of_the_command_line_names_every_command_and_option(hooks, options):
    written = hooks.describe_commands()
    for name, names in options.items():
        section = written.partition(f"## segment-slide {name}\n")[2].partition("\n## ")[0]
        assert section, name
        assert {f"`{option}`" for option in names - {"--help"}} <= set(re.findall(r"`--?[\w-]+`", section)), name
    assert "--help" not in written


def test_docstrings_become_markdown_with_examples_and_drawings_as_code():
    specification = importlib.util.spec_from_file_location("docstrings", ROOT / "docs/docstrings.py")
    docstrings = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(docstrings)
    text = "Twice.\n\n>>> [2]\n[2]\n\nDrawn::\n\n    |hh|"
    assert docstrings.to_markdown(text) == "Twice.\n\n```pycon\n>>> [2]\n[2]\n```\n\nDrawn:\n\n    |hh|"
    whole = "Twice.\n\nExamples\n--------\n>>> 2\n2"
    assert docstrings.to_markdown(whole) == whole
