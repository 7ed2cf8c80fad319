// Disks that come from elsewhere, and copies that go there.

import { openForm } from "../components/form.js";
import { toast } from "../components/parts.js";
import { store } from "../core/store.js";

function started(job) {
  store.put(store.jobs, job.id, job);
  store.tell();
  toast(`${job.type} has begun.`);
}

const isAddress = (place) => /^nbds?(\+unix)?:\/\//.test(place);

export function importDisk() {
  openForm({
    title: "Import a disk",
    intro: "A new disk with the content of a file, or of what an NBD server exports. Nobody may write there meanwhile.",
    fields: [
      { name: "id", label: "Id of the new disk", required: true },
      { name: "from", label: "File or address", required: true, hint: "root:folder/disk.raw, or nbd://host/export" },
      {
        name: "format",
        label: "Format of the file",
        value: "raw",
        choices: [
          ["raw", "raw: the disk's bytes"],
          ["qcow2", "qcow2"],
          ["ploop1", "an image of ploop, or a descriptor"],
        ],
      },
    ],
    plan: "dry_run", submit: "Import",
    request: ({ id, from, format }) => ({
      method: "POST", path: "/v1/jobs",
      body: {
        type: "import",
        params: {
          from: isAddress(from) ? { nbd: from } : { image: from, ...(from.endsWith(".xml") ? {} : { format }) },
          to: { id, directory: id, export: id },
        },
      },
    }),
    done: started,
  });
}

export function copyOut(device) {
  openForm({
    title: `Copy ${device.id} out`,
    intro: "The disk as it is at one instant, to a new file, or over what an NBD server exports, from beginning to end.",
    fields: [
      { name: "to", label: "File or address", required: true, hint: "root:out/disk.raw, or nbd://host/export" },
      {
        name: "format",
        label: "Format of the file",
        value: "raw",
        choices: [["raw", "raw: the disk's bytes"], ["ploop1", "an image of ploop"]],
      },
    ],
    plan: "dry_run", submit: "Copy",
    request: ({ to, format }) => ({
      method: "POST", path: "/v1/jobs",
      body: { type: "export", device: device.id, params: { to: isAddress(to) ? { nbd: to } : { image: to, format } } },
    }),
    done: started,
  });
}
