"""What a person does with disks, by clicking, against the real service."""

import subprocess
import unittest

from browser import chromium, click, dashboard, dialog, go, submit
from service import Service, await_that

MIB = 1 << 20


class Life(unittest.TestCase):
    def setUp(self):
        self.service = Service()
        self.addCleanup(self.service.end)

    def job(self, kind):
        """The newest of its type."""
        return self.service.get(f"/v1/jobs?type={kind}&limit=1")["items"][0]

    def test_a_disk_from_its_making_to_its_end(self):
        service = self.service
        with chromium() as browser, dashboard(browser, service.address, token=service.token) as (page, _):
            self.sees_no_token_in_the_address(page)
            self.makes_a_disk(page)
            self.takes_a_snapshot(page)
            self.watches_a_merge(page)
            self.cancels_a_job(page)
            self.backs_up_and_restores(page)
            self.cleans_an_orphan(page)
            self.detaches(page)

    def sees_no_token_in_the_address(self, page):
        page.get_by_role("heading", name="Overview").wait_for()
        self.assertNotIn("plp_", page.url)
        page.get_by_text("Nothing. All is well.").wait_for()

    def makes_a_disk(self, page):
        go(page, "devices", "Devices")
        click(page, "New disk")
        dialog(page).get_by_label("Id").fill("vm1")
        dialog(page).get_by_label("Size", exact=False).first.fill("256 MiB")
        submit(page, "Create the disk")
        page.get_by_role("heading", name="Devices / vm1").wait_for()
        device = self.service.get("/v1/devices/vm1")
        self.assertEqual((device["size"], device["state"]), (256 * MIB, "online"))
        self.service.qemu_io("vm1", "write -P 7 0 48M", "flush")

    def takes_a_snapshot(self, page):
        click(page, "Take a snapshot")
        dialog(page).get_by_label("Name").fill("before the upgrade")
        submit(page, "Take it")
        page.locator(".tree").get_by_text("before the upgrade").wait_for()
        self.service.qemu_io("vm1", "write -P 8 16M 16M", "flush")

    def watches_a_merge(self, page):
        page.get_by_role("button", name="Merge before the upgrade").click()
        # So slow that it is running whenever somebody looks: 32 clusters in half a minute.
        dialog(page).get_by_label("At most, bytes a second").fill("1 MiB")
        submit(page, "Merge", plan=True)
        running = page.get_by_role("region", name="Jobs")
        running.get_by_text("running").first.wait_for()
        running.get_by_role("button", name="Pause merge of vm1").click()
        running.get_by_text("paused").wait_for()
        await_that(lambda: self.job("merge")["state"] == "paused", "the merge is paused")
        running.get_by_role("button", name="Speed of merge of vm1").click()
        dialog(page).get_by_label("Bytes a second").fill("")
        submit(page, "Set")
        running.get_by_role("button", name="Let merge of vm1 go on").click()
        running.get_by_text("succeeded").wait_for()
        self.assertEqual(self.job("merge")["state"], "succeeded")
        page.get_by_role("region", name="Snapshots").get_by_text("There is none.").wait_for()
        self.service.qemu_io("vm1", "read -P 7 0 16M", "read -P 8 16M 16M", "read -P 7 32M 16M")

    def cancels_a_job(self, page):
        self.service.post("/v1/jobs", {"type": "hash", "device": "vm1", "limits": {"bps": 1}})
        go(page, "jobs", "Jobs")
        page.get_by_role("button", name="Cancel hash of vm1").click()
        submit(page, "Cancel the job", plan=True)
        await_that(lambda: self.job("hash")["state"] == "cancelled", "the job is cancelled")
        page.get_by_role("row", name="cancelled hash").wait_for()

    def backs_up_and_restores(self, page):
        go(page, "backups", "Backups")
        click(page, "New target")
        dialog(page).get_by_label("Name").fill("nas")
        dialog(page).get_by_label("Folder").fill("main:backups")
        submit(page, "Make it a target")
        click(page, "Back up a disk …")
        submit(page, "Back up", plan=True)
        point = page.get_by_role("button", name="full backup of vm1")
        point.click()
        self.service.qemu_io("vm1", "write -P 9 0 48M", "flush")
        click(page, "Restore …")
        dialog(page).get_by_label("Id of the new disk").fill("vm1r")
        submit(page, "Restore", plan=True)
        await_that(lambda: self.job("restore")["state"] == "succeeded", "the restore is done")
        self.service.qemu_io("vm1r", "read -P 7 0 16M", "read -P 8 16M 16M")
        go(page, "devices/vm1r", "Devices / vm1r")

    def cleans_an_orphan(self, page):
        images = f"{self.service.folder}/images"
        subprocess.run(["qemu-img", "create", "-q", "-f", "parallels", f"{images}/lost.hds", "64M"], check=True)
        go(page, "images?state=orphaned", "Images")
        page.get_by_role("checkbox", name="Choose main:lost.hds").check()
        click(page, "Clean 1 …")
        dialog(page).get_by_text("main:lost.hds").wait_for()
        submit(page, "Remove for good", plan=True)
        page.get_by_text("There is no such file.").wait_for()
        self.assertEqual(self.service.get("/v1/images?state=orphaned")["items"], [])

    def detaches(self, page):
        go(page, "devices/vm1", "Devices / vm1")
        click(page, "Detach …")
        submit(page, "Detach it", plan=True)
        page.get_by_role("heading", name="Devices", exact=True).wait_for()
        self.assertEqual([device["id"] for device in self.service.get("/v1/devices")["items"]], ["vm1r"])

    def test_who_has_no_token_is_asked_for_one(self):
        service = self.service
        with chromium() as browser, dashboard(browser, service.address) as (page, complaints):
            page.get_by_label("Token").fill("plp_wrong")
            complaints.is_away = True  # the browser itself notes each 401 in its console
            click(page, "Enter")
            page.get_by_role("alert").wait_for()
            page.get_by_label("Token").fill(service.token)
            click(page, "Enter")
            page.get_by_role("heading", name="Overview").wait_for()
            complaints[:] = [text for text in complaints if "401" not in text]
            self.assertEqual(page.evaluate("localStorage.length"), 0)

    def test_a_refusal_says_what_to_do(self):
        service = self.service
        service.create("vm1", 64 * MIB)
        with chromium() as browser, dashboard(browser, service.address, token=service.token) as (page, complaints):
            go(page, "devices", "Devices")
            click(page, "New disk")
            dialog(page).get_by_label("Id").fill("vm1")
            complaints.is_away = True  # a 409 is noted by the browser
            click(page, "Create the disk")
            dialog(page).get_by_text("What to do:").wait_for()
            dialog(page).get_by_text("device-exists").wait_for()

    def test_a_connection_that_is_lost_comes_back_by_itself(self):
        service = self.service
        service.create("vm1", 64 * MIB)
        with chromium() as browser, dashboard(browser, service.address, token=service.token) as (page, complaints):
            go(page, "devices", "Devices")
            page.get_by_text("live", exact=True).wait_for()
            page.evaluate("window.isTheSamePage = true")
            complaints.is_away = True
            service.kill()
            page.get_by_text("The connection is lost.").wait_for()
            service.start()
            service.create("vm2", 64 * MIB)
            page.get_by_role("link", name="vm2").wait_for()
            page.get_by_text("The connection is lost.").wait_for(state="detached")
            self.assertTrue(page.evaluate("window.isTheSamePage"))


if __name__ == "__main__":
    unittest.main()
