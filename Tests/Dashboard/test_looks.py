"""Every page by dark, by light and on a narrow screen: kept as pictures, and judged by axe's rules for who cannot see
or point."""

import unittest

from axe_playwright_python.sync_playwright import Axe

from browser import SIZES, chromium, dashboard, dialog, go, shoot
from service import Service, await_that

MIB = 1 << 20
PAGES = [
    ("overview", "Overview"), ("devices", "Devices"), ("devices/vm1", "Devices / vm1"), ("jobs", "Jobs"),
    ("backups", "Backups"), ("images", "Images"), ("events", "Events"),
]


class Looks(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.service = service = Service()
        cls.addClassCleanup(service.end)
        for name, size_bytes in (("vm1", 4096 * MIB), ("db-main", 20480 * MIB), ("web-01", 2048 * MIB), ("web-02", 2048 * MIB)):
            service.create(name, size_bytes)
        service.qemu_io("vm1", "write -P 7 0 64M", "write -P 3 1G 32M")
        service.post("/v1/devices/vm1/snapshots", {"name": "before the upgrade"})
        service.qemu_io("vm1", "write -P 8 16M 24M", "write -P 8 2G 48M")
        service.post("/v1/devices/vm1/snapshots", {"name": "nightly", "protected": True})
        service.qemu_io("vm1", "write -P 9 40M 8M", "write -P 9 3G 16M")
        service.post("/v1/devices/vm1/checkpoints", {"name": "monday"})
        service.qemu_io("vm1", "write -P 5 500M 20M")
        service.post("/v1/targets", {"name": "nas", "type": "directory", "path": "backups"})
        for _ in range(2):
            service.post("/v1/jobs", {"type": "backup", "device": "vm1", "params": {"target": "nas"}}, "Prefer: wait=60")
            service.qemu_io("vm1", "write -P 6 100M 8M")
        service.patch("/v1/devices/web-02", {"suspended": True, "holder": "nightly"})
        service.run(["qemu-img", "create", "-q", "-f", "parallels", f"{service.folder}/images/lost.hds", "64M"])
        # Never at its end while somebody looks.
        cls.slow = service.post("/v1/jobs", {"type": "hash", "device": "db-main", "limits": {"bps": 2 * MIB}})["id"]
        await_that(lambda: service.get(f"/v1/jobs/{cls.slow}")["state"] == "running", "the job runs")

    def look_at(self, page, name):
        shoot(page, name)
        self.assertLessEqual(page.evaluate("document.documentElement.scrollWidth - innerWidth"), 0, f"{name} is too wide")
        if name.startswith("narrow") and "vm1" not in name:
            return  # the same elements as by light, in other places
        found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]})
        faults = [f"{fault['id']}: {fault['help']}: {node['html'][:160]}"
                  for fault in found.response["violations"] for node in fault["nodes"][:3]]
        self.assertEqual(faults, [], name)

    def test_every_page_by_every_light(self):
        with chromium() as browser:
            for look in SIZES:
                with self.subTest(look), dashboard(browser, self.service.address, look, self.service.token) as (page, _):
                    self.walk(page, look)

    def walk(self, page, look):
        for place, heading in PAGES:
            go(page, place, heading)
            if place == "devices/vm1":
                page.locator("canvas.map").wait_for()
                page.locator(".tree").wait_for()
                page.get_by_role("button", name="monday").click()
                page.get_by_role("table").wait_for()
            if place == "backups":
                page.get_by_role("button", name="full backup of vm1").click()
            if place in ("jobs", "images", "events"):
                page.locator("table.list tbody tr").first.wait_for()
            with self.subTest(f"{look} {place}"):
                self.look_at(page, f"{look}-{place.replace('/', '-')}")
        go(page, f"jobs/{self.slow}", "Jobs / hash of db-main")
        self.look_at(page, f"{look}-job")
        go(page, "devices/vm1", "Devices / vm1")
        page.get_by_role("button", name="Delete before the upgrade").click()
        dialog(page).get_by_role("region", name="The plan").wait_for()
        self.look_at(page, f"{look}-plan")

    def test_the_door_without_a_token(self):
        with chromium() as browser, dashboard(browser, self.service.address) as (page, complaints):
            page.get_by_label("Token").wait_for()
            self.look_at(page, "dark-door")
            complaints[:] = [text for text in complaints if "401" not in text]

    def test_the_keyboard_reaches_everything(self):
        with chromium() as browser, dashboard(browser, self.service.address, token=self.service.token) as (page, _):
            page.get_by_role("heading", name="Overview").wait_for()
            page.keyboard.press("Tab")
            self.assertEqual(page.evaluate("document.activeElement.textContent"), "Skip to the content")
            seen = set()
            for _ in range(80):
                page.keyboard.press("Tab")
                seen.add(page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.textContent"))
            for name in ("Overview", "Devices", "Events", "New disk", "Attach a disk", "Pause hash of db-main"):
                self.assertTrue(any(name in text for text in seen), f"{name} among {sorted(seen)[:40]}")
            page.get_by_role("button", name="New disk").focus()
            page.keyboard.press("Enter")
            dialog(page).wait_for()
            page.keyboard.press("Escape")
            dialog(page).wait_for(state="detached")
            self.assertEqual(page.evaluate("document.activeElement.textContent"), "New disk")


if __name__ == "__main__":
    unittest.main()
