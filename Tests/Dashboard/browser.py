"""Chromium with one page of the dashboard, which fails its test where it complains or asks anybody else."""

import contextlib
import os

from playwright.sync_api import sync_playwright

from service import LONGEST_SECONDS

SIZES = {"dark": (1440, 900), "light": (1440, 900), "narrow": (390, 844)}
ARTEFACTS = os.environ.get("PLOOPD_SCREENSHOTS", "")


class Complaints(list):
    """What no page may do. While the service is away requests fail, and that is no fault of the page."""

    is_away = False

    def watch(self, page, address):
        page.on("console", lambda said: self.note(said.type in ("error", "warning"), f"console: {said.text}"))
        page.on("pageerror", lambda error: self.append(f"error: {error}"))
        page.on("request", lambda asked: self.note(
            not asked.url.startswith((address, "data:")), f"asks {asked.url}"))
        page.on("response", lambda told: self.note(told.status >= 500, f"{told.status} of {told.url}"))

    def note(self, is_wrong, what):
        if is_wrong and not self.is_away:
            self.append(what)


@contextlib.contextmanager
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield browser
        browser.close()


@contextlib.contextmanager
def dashboard(browser, address, look="dark", token=None, prepare=None):
    """A page, signed in by the token in its address, and what it complains of."""
    width, height = SIZES[look]
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if look == "dark" else "light",
        reduced_motion="reduce")
    context.set_default_timeout(LONGEST_SECONDS * 1000)
    page = context.new_page()
    complaints = Complaints()
    complaints.watch(page, address)
    if prepare:
        prepare(page)
    page.goto(f"{address}/#token={token}" if token else address)
    try:
        yield page, complaints
        assert not complaints, "\n".join(complaints)
    except BaseException:
        shoot(page, f"failed-{look}")
        raise
    finally:
        context.close()


def go(page, place, heading):
    page.goto(page.url.split("#")[0] + "#/" + place)
    page.get_by_role("heading", name=heading, level=1).wait_for()


def click(page, name):
    page.get_by_role("button", name=name, exact=True).click()


def dialog(page):
    return page.get_by_role("dialog")


def submit(page, name, plan=False):
    """Presses what does it, having looked at the plan where there is one."""
    shown = dialog(page)
    if plan:
        if shown.get_by_role("button", name="Show the plan").count():
            shown.get_by_role("button", name="Show the plan").click()
        shown.get_by_role("region", name="The plan").wait_for()
    shown.get_by_role("button", name=name, exact=True).click()
    shown.wait_for(state="detached")


def shoot(page, name):
    """Kept for people to look at, where a folder is named for that."""
    if ARTEFACTS:
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=f"{ARTEFACTS}/{name}.png", full_page=True)
