"""A report in a browser that has no network: nothing is asked for, nothing complains, all is seen and fits."""

from pathlib import Path

import numpy as np
import pytest

from segment_slide.pipeline.report.run import write_report
from tests.browser import PATIENCE_MS, open_browser
from tests.flows.support import noise
from tests.pipeline.measurement.support import NAME, draw_objects, measure, write_store

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def browser():
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    image = np.stack([noise(300, 240), noise(300, 240, seed=1)])
    location = write_store(
        folder, draw_objects((300, 240)), (64, 64), image=image, image_axes="cyx", channels=("DAPI", "GFP"),
        scale=(0.5, 0.5),
    )  # fmt: skip
    measure(location)
    return write_report(location, NAME).path


def open_page(browser, path, **options):
    """The page, and what it asked for and complained of."""
    context = browser.new_context(offline=True, **{"java_script_enabled": False, **options})
    context.set_default_timeout(PATIENCE_MS)
    page, asked = context.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: asked.append(message.text))
    page.on("pageerror", lambda error: asked.append(str(error)))
    page.goto(f"file://{path}")
    return page, [what for what in asked if what != f"file://{path}" and not what.startswith("data:")]


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_without_network_and_scripts_and_fits_the_screen(browser, report, width, scheme):
    options = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme, "java_script_enabled": True}
    page, asked = open_page(browser, report, **options)
    assert asked == []
    images = page.eval_on_selector_all("img", "all => all.map(i => i.complete && i.naturalWidth)")
    assert len(images) >= 2
    assert all(images)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ink, paper = page.evaluate("(s => [s.color, s.backgroundColor])(getComputedStyle(document.body))")
    assert (brightness(ink) > brightness(paper)) == (scheme == "dark")
    page.context.close()


def brightness(colour):
    return sum(float(part) for part in colour.removeprefix("rgb(").rstrip(")").split(","))


def test_it_is_readable_without_scripts_and_prints(browser, report):
    page, asked = open_page(browser, report)
    assert asked == []
    assert page.get_by_text("What was found").is_visible()
    assert page.locator("svg.plot").first.is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.context.close()


def test_the_check_sees_what_a_page_asks_for(browser, report, tmp_path):
    planted = tmp_path / "planted.html"
    text = Path(report).read_text().replace("</body>", '<img src="https://example.org/a.png"><img src="b.png"></body>')
    planted.write_text(text)
    page, asked = open_page(browser, planted, java_script_enabled=True)
    assert any("Content Security Policy" in what or "example.org" in what for what in asked)
    page.context.close()
