"""A thousand devices and ten thousand jobs: the service's own answers, said more often than it has things to say them of."""

import copy
import json
import time
import unittest
from urllib.parse import parse_qs, urlsplit

from browser import chromium, dashboard, go
from service import Service

DEVICES = 1000
JOBS = 10_000
MIB = 1 << 20


class Sizes(unittest.TestCase):
    def setUp(self):
        self.service = Service()
        self.addCleanup(self.service.end)
        self.service.create("vm1", 64 * MIB)
        self.service.post("/v1/jobs", {"type": "hash", "device": "vm1"}, "Prefer: wait=60")
        self.device = self.service.get("/v1/devices/vm1")
        self.job = self.service.get("/v1/jobs?limit=1")["items"][0]

    def devices(self):
        for number in range(DEVICES):
            device = copy.copy(self.device)
            device["id"] = f"disk-{number:04}"
            yield device

    def jobs(self):
        for number in range(JOBS):
            job = copy.copy(self.job)
            job["id"] = f"01KZ{JOBS - number:022}"
            job["device"] = f"disk-{number % DEVICES:04}"
            yield job

    def answer_many(self, page):
        lists = {"/v1/devices": list(self.devices()), "/v1/jobs": list(self.jobs())}

        def answer(route):
            asked = urlsplit(route.request.url)
            query = {name: values[0] for name, values in parse_qs(asked.query).items()}
            items = lists[asked.path]
            if query.get("state"):
                items = [item for item in items if item["state"] == query["state"]]
            begin, limit = int(query.get("cursor", 0)), int(query.get("limit", 100))
            rest = begin + limit < len(items)
            route.fulfill(content_type="application/json", body=json.dumps({
                "items": items[begin:begin + limit], "next": str(begin + limit) if rest else None, "revision": 1}))

        page.route(lambda url: urlsplit(url).path in lists, answer)

    def test_a_thousand_devices_and_ten_thousand_jobs(self):
        with chromium() as browser, dashboard(
                browser, self.service.address, token=self.service.token, prepare=self.answer_many) as (page, _):
            go(page, "devices", "Devices")
            page.get_by_role("link", name="disk-0000").wait_for()
            self.assertLess(page.locator("table.list tbody tr").count(), 100)
            self.scroll_to_end(page)
            page.get_by_role("link", name="disk-0999").wait_for()
            page.get_by_role("searchbox").fill("disk-0500")
            page.get_by_text(f"1 of {DEVICES}").wait_for()
            go(page, "jobs", "Jobs")
            page.get_by_role("row").nth(5).wait_for()
            while page.get_by_text("older ones come when you scroll").count():
                self.scroll_to_end(page)
            page.get_by_text(f"{JOBS} jobs").wait_for()
            self.assertLess(page.locator("table.list tbody tr").count(), 100)
            self.assertLess(self.drawing_seconds(page), 1)

    def scroll_to_end(self, page):
        page.locator(".table-scroll").evaluate("box => box.scrollTop = box.scrollHeight")
        page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def drawing_seconds(self, page):
        """How long a drawing takes of all that is known, the quickest of some: the machine may be busy."""
        taken = []
        for _ in range(5):
            began = time.monotonic()
            page.locator(".table-scroll").evaluate("box => box.scrollTop = Math.random() * box.scrollHeight")
            page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
            taken.append(time.monotonic() - began)
        return min(taken)


if __name__ == "__main__":
    unittest.main()
