"""How the page behaves in a browser: what is shown is what Python reads from the tables."""

import os
import shutil

import pytest
import scipy.stats

pytestmark = pytest.mark.page

X, Y = "avg_flatness_rloss", "test_rloss_pgd"


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium; a missing one is an error here, for without it nothing is tested."""
    from playwright.sync_api import sync_playwright

    found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    path = next((name for name in found if name), None)
    options = ["--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    options += ["--no-first-run", "--disable-sync", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=options)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, page):
    """The page in a tab of its own, with what it said and asked for."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    tab = context.new_page()
    tab.said, tab.asked = [], []
    tab.on("console", lambda message: tab.said.append(f"{message.type}: {message.text}"))
    tab.on("pageerror", lambda error: tab.said.append(f"error: {error}"))
    tab.on("request", lambda request: tab.asked.append(request.url))
    tab.goto(page.as_uri())
    tab.wait_for_selector("body[data-ready=yes]", timeout=20_000)
    yield tab
    context.close()


def test_loads_without_errors_and_without_the_network(opened):
    assert not [line for line in opened.said if line.startswith("error")]
    assert not [url for url in opened.asked if not url.startswith(("file:", "data:", "blob:"))]
    assert opened.locator("#scatter svg path").count() >= 74
    assert opened.evaluate("document.documentElement.scrollWidth") <= 1280


def test_every_measure_compared_is_drawn_in_the_panel_of_its_examples(opened):
    for panel, count in enumerate((2, 3)):
        marks = opened.locator(f"#comparison-{panel} svg .mark-symbol path")
        assert marks.count() == count
        colors = {marks.nth(i).get_attribute("stroke") for i in range(count)}
        assert len(colors) == 2
        assert "transparent" not in colors
    mark = opened.locator("#comparison-1 svg .mark-symbol path").nth(1)
    mark.scroll_into_view_if_needed()
    opened.mouse.move(2, 2)
    mark.hover(force=True)
    opened.wait_for_selector("#vg-tooltip-element.visible", timeout=3000)
    cells = opened.locator("#vg-tooltip-element td").all_inner_texts()
    told = {key.rstrip(":"): value for key, value in zip(cells[::2], cells[1::2], strict=True)}
    assert told == {"measure": "flatness", "Spearman": "0.80", "95 % from": "0.60", "to": "0.90"}


def shown_coefficients(tab) -> tuple[int, float, float]:
    cells = tab.locator("#coefficients tbody tr").first.locator("td").all_inner_texts()
    return int(cells[1]), float(cells[2].split()[0]), float(cells[3].split()[0])


def brush(tab) -> None:
    box = tab.locator("#scatter svg").bounding_box()
    tab.mouse.move(box["x"] + 90, box["y"] + 60)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 420, box["y"] + 380, steps=8)
    tab.mouse.up()
    tab.wait_for_timeout(500)


def test_a_brush_selects_what_python_selects(opened, notebook):
    cells = opened.locator("#coefficients tbody tr").first.locator("td")
    assert cells.all_inner_texts()[2:] == ["0.81 [0.61, 0.91]", "0.79 [0.59, 0.89]"]  # of the table
    brush(opened)
    names = opened.locator("#selection tbody td:first-child").all_inner_texts()
    assert 3 < len(names) < 74
    chosen = notebook.ours.variants[notebook.ours.variants["label"].isin(names)]
    x, y = chosen[X].to_numpy(), chosen[Y].to_numpy()
    n, pearson, spearman = shown_coefficients(opened)
    assert "[" not in opened.inner_text("#coefficients tbody")
    assert n == len(names) == len(chosen)
    assert pearson == pytest.approx(scipy.stats.pearsonr(x, y).statistic, abs=0.006)
    assert spearman == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=0.006)


def test_families_select_by_keyboard(opened, notebook):
    opened.locator("#families button", has_text="Label noise").focus()
    opened.keyboard.press("Enter")
    opened.locator("#families button", has_text="Weight decay").focus()
    opened.keyboard.press("Space")
    chosen = notebook.ours.variants[notebook.ours.variants["family"].isin(["label-noise", "weight-decay"])]
    n, _, spearman = shown_coefficients(opened)
    assert n == len(chosen)
    assert spearman == pytest.approx(scipy.stats.spearmanr(chosen[X], chosen[Y]).statistic, abs=0.006)
    assert "Label noise" in opened.inner_text("#curves-legend")
    marks = opened.locator("#scatter svg .mark-symbol path")
    opened.wait_for_selector('#scatter svg .mark-symbol path[opacity="0.15"]', state="attached")
    bright = [i for i in range(marks.count()) if marks.nth(i).get_attribute("opacity") == "0.95"]
    assert len(bright) == len(chosen)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_a_phone(browser, page, scheme):
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    tab = context.new_page()
    tab.goto(page.as_uri())
    tab.wait_for_selector("body[data-ready=yes]", timeout=20_000)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")
    context.close()
