// What can be done with a disk and its snapshots.

import { act, openForm } from "../components/form.js";
import { toast } from "../components/parts.js";
import { sentences } from "../components/plan.js";
import { snapshotName } from "../components/tree.js";
import { bytes, parseBytes } from "../core/format.js";
import { go } from "../core/router.js";
import { store } from "../core/store.js";

const path = (device) => `/v1/devices/${device.id}`;
const NAME = "small letters, digits, . _ -";

function started(job) {
  if (job?.type && job.id) {
    store.put(store.jobs, job.id, job);
    toast(`${job.type.replaceAll("_", " ")} has begun.`);
  }
  store.tell();
}

export function createDisk() {
  openForm({
    title: "New disk", intro: "An empty disk, served at once as an export of its name.",
    fields: [
      { name: "id", label: "Id", required: true, hint: NAME },
      { name: "size", label: "Size", value: "10 GiB", required: true, parse: parseBytes },
      {
        name: "cluster_size",
        label: "Cluster size",
        value: "1048576",
        choices: [["65536", "64 KiB"], ["262144", "256 KiB"], ["1048576", "1 MiB"], ["4194304", "4 MiB"]],
      },
      { name: "directory", label: "Folder", hint: "Beneath a root; named like the disk unless you say otherwise." },
    ],
    submit: "Create the disk",
    request: ({ id, size, cluster_size: clusters, directory }) => ({
      method: "POST", path: "/v1/devices",
      body: { id, create: { directory: directory || id, size, cluster_size: Number(clusters) }, export: { name: id } },
    }),
    done: (device) => go(["devices", device.id]),
  });
}

export function attachDisk() {
  openForm({
    title: "Attach a disk", intro: "By its DiskDescriptor.xml, or by its image alone.",
    fields: [
      { name: "id", label: "Id", required: true, hint: NAME },
      {
        name: "path",
        label: "Descriptor or image",
        required: true,
        hint: "root:folder/DiskDescriptor.xml, or root:folder/disk.hds",
      },
      { name: "readonly", label: "For reading only", type: "checkbox" },
      {
        name: "repair",
        label: "Mend what a crash has left",
        type: "checkbox",
        hint: "Safe repair, for an image that was not closed.",
      },
      { name: "export", label: "Export it under its id", type: "checkbox", value: true },
    ],
    submit: "Attach",
    request: (values) => ({
      method: "POST", path: "/v1/devices",
      body: {
        id: values.id, ...(
          values.path.endsWith(".xml") ? { descriptor: values.path } : { deltas: [{ path: values.path }] }
        ),
        readonly: values.readonly, repair: values.repair
          ? "safe"
          : "none", ...(values.export ? { export: { name: values.id } } : {}),
      },
    }),
    done: (device) => go(["devices", device.id]),
  });
}

export function detach(device) {
  const clients = device.exports.flatMap((door) => door.clients);
  openForm({
    title: `Detach ${device.id}`, danger: true, submit: "Detach it",
    fields: [{ name: "hard", label: "Cut off clients that are connected", type: "checkbox" }],
    plan: ({ hard }) => sentences(
      "Everything is flushed, the image is closed, and the service forgets the disk.",
      device.incoming ? "It is somebody else's, being moved here: its files are removed too." : "Its files stay where they are.",
      device.exports.length ? `Exports that end: ${device.exports.map((door) => door.name).join(", ")}.` : null,
      clients.length ? (hard ? `${clients.length} clients are cut off.` : `${clients.length} clients are connected: it is refused unless they leave within 2 s.`) : "No client is connected."),
    request: ({ hard }) => ({ method: "DELETE", path: `${path(device)}${hard ? "?mode=hard" : ""}` }),
    done: () => {
      store.devices.delete(device.id);
      toast(`${device.id} is detached.`);
      go(["devices"]);
    },
  });
}

export function grow(device) {
  openForm({
    title: `Enlarge ${device.id}`,
    intro: `It has ${bytes(device.size)} now, and grows while it is used. It cannot become smaller again.`,
    fields: [{ name: "size", label: "New size", value: bytes(device.size * 2), required: true, parse: parseBytes }],
    plan: "dry_run", submit: "Enlarge it",
    request: ({ size }) => ({ method: "PATCH", path: path(device), body: { size } }),
    done: (answer) => (answer.type ? started(answer) : toast(`${device.id} has its new size.`)),
  });
}

export async function setSuspended(device, suspended) {
  const changed = await act("PATCH", path(device), suspended ? { suspended, holder: "dashboard" } : { suspended },
    suspended ? `${device.id} is suspended; clients wait.` : `${device.id} goes on.`);
  if (changed) store.put(store.devices, device.id, changed);
  store.tell();
}

export function addExport(device, snapshot = null) {
  openForm({
    title: snapshot ? `Export ${snapshotName(snapshot)} of ${device.id}` : `Export ${device.id}`,
    fields: [
      {
        name: "name",
        label: "Name",
        required: true,
        hint: NAME,
        value: snapshot ? `${device.id}-${snapshot.uuid.slice(1, 9)}` : "",
      },
      ...(snapshot ? [] : [{ name: "readonly", label: "For reading only", type: "checkbox", value: true }]),
    ],
    submit: "Open the door",
    request: ({ name, readonly }) => ({
      method: "POST", path: "/v1/exports",
      body: { name, device: device.id, ...(snapshot ? { snapshot: snapshot.uuid, readonly: true } : { readonly }) },
    }),
    done: (door) => toast(`${door.name} is open.`),
  });
}

export function closeExport(door) {
  openForm({
    title: `Close the export ${door.name}`, danger: true, submit: "Close it",
    fields: [{ name: "hard", label: "Cut off clients that are connected", type: "checkbox" }],
    plan: ({ hard }) => sentences("The disk stays; nobody can connect by this name any more.",
      door.clients.length ? `${door.clients.length} clients are connected${hard ? " and are cut off" : ": it is refused unless they leave"}.` : null),
    request: ({ hard }) => ({ method: "DELETE", path: `/v1/exports/${door.name}${hard ? "?mode=hard" : ""}` }),
    done: () => toast(`${door.name} is closed.`),
  });
}

export function takeSnapshot(device) {
  openForm({
    title: `Snapshot of ${device.id}`,
    intro: "The state at this moment is kept; guests go on, and wait for some milliseconds at most.",
    fields: [
      { name: "name", label: "Name", hint: "As “before the upgrade”." },
      { name: "protected", label: "Protect it from merging and deleting", type: "checkbox" },
    ],
    submit: "Take it",
    request: (values) => ({
      method: "POST", path: `${path(device)}/snapshots`, headers: { Prefer: "wait=30" },
      body: { ...(values.name ? { name: values.name } : {}), ...(values.protected ? { protected: true } : {}) },
    }),
    done: (made) => toast(
      `${snapshotName(made)} is taken; requests waited ${((made.pause_ns ?? 0) / 1e6).toFixed(1)} ms.`
    ),
  });
}

export function merge(device, snapshot = null) {
  openForm({
    title: snapshot ? `Merge ${snapshotName(snapshot)} of ${device.id}` : `Merge the newest snapshot of ${device.id}`,
    danger: true,
    intro: "The snapshot is given up: its delta and the one above it become one. The disk reads the same, and guests go on.",
    fields: [
      {
        name: "direction",
        label: "Direction",
        value: "auto",
        choices: [
          ["auto", "whichever copies less"],
          ["forward", "into the newer file"],
          ["backward", "into the older file"],
        ],
      },
      {
        name: "bps",
        label: "At most, bytes a second",
        hint: "As 50 MiB; empty for no limit. It can be changed later.",
        parse: parseBytes,
      },
    ],
    plan: "dry_run", submit: "Merge",
    request: ({ direction, bps }) => ({
      method: "POST", path: "/v1/jobs",
      body: {
        type: "merge",
        device: device.id,
        params: { direction, ...(snapshot ? { snapshot: snapshot.uuid } : {}) },
        ...(bps ? { limits: { bps } } : {})
      },
    }),
    done: started,
  });
}

export function deleteSnapshot(device, snapshot) {
  openForm({
    title: `Delete ${snapshotName(snapshot)} of ${device.id}`, danger: true, plan: "dry_run", submit: "Delete it",
    intro: "What it alone holds is gone afterwards; the disk and all other snapshots read the same.",
    request: () => ({ method: "DELETE", path: `${path(device)}/snapshots/${snapshot.uuid.replace(/[{}]/g, "")}` }),
    done: started,
  });
}

export function switchTo(device, snapshot) {
  const top = device.deltas.find((delta) => delta.top);
  openForm({
    title: `Go back to ${snapshotName(snapshot)}`, danger: true, submit: "Go back",
    fields: [{
      name: "keep",
      label: "Keep the state so far as",
      hint: "A name for a new snapshot; empty throws it away.",
    }],
    plan: ({ keep }) => sentences(
      `${device.id} reads as it did when ${snapshotName(snapshot)} was taken.`,
      keep ? `What was written since is kept as the snapshot “${keep}”.` : `What was written since is thrown away: ${bytes(top?.disk_bytes)} in ${top?.path}. Nobody can bring it back.`,
      "Nobody may be connected meanwhile. Checkpoints become inconsistent: the next backup is a full one."),
    request: ({ keep }) => ({
      method: "POST", path: `${path(device)}/snapshots/${snapshot.uuid.replace(/[{}]/g, "")}/switch`,
      body: keep ? { keep_top_as: keep } : { discard_top: true },
    }),
    done: () => toast(`${device.id} is back at ${snapshotName(snapshot)}.`),
  });
}

export async function setProtected(device, snapshot, isProtected) {
  await act("PATCH", `${path(device)}/snapshots/${snapshot.uuid.replace(/[{}]/g, "")}`, { protected: isProtected },
    isProtected ? `${snapshotName(snapshot)} is protected.` : `${snapshotName(snapshot)} can be deleted.`);
}

export function clone(device, snapshot = null) {
  openForm({
    title: `Clone ${snapshot ? `${snapshotName(snapshot)} of ` : ""}${device.id}`,
    intro: "A new disk with the same content, while guests go on.",
    fields: [
      { name: "id", label: "Id of the new disk", required: true, hint: NAME },
      ...(
        snapshot
          ? [{
            name: "mode",
            label: "How",
            value: "full",
            choices: [["full", "a copy of its own"], ["linked", "shares the snapshot's files; nothing is copied"]],
          }]
          : []
      ),
    ],
    plan: "dry_run", submit: "Clone",
    request: ({ id, mode }) => ({
      method: "POST", path: "/v1/jobs",
      body: {
        type: "clone",
        device: device.id,
        params: { to: { id, directory: id, export: id }, ...(snapshot ? { snapshot: snapshot.uuid, mode } : {}) },
      },
    }),
    done: started,
  });
}

/// Jobs that only need a disk.
export function work(device, type, intro, params = {}) {
  openForm({
    title: `${type[0].toUpperCase()}${type.slice(1)} ${device.id}`, intro, plan: "dry_run", submit: "Begin",
    request: () => ({ method: "POST", path: "/v1/jobs", body: { type, device: device.id, params } }), done: started,
  });
}

export function pruneSnapshots(device) {
  const rules = ["keep_last", "daily", "weekly", "monthly"];
  openForm({
    title: `Prune snapshots of ${device.id}`, danger: true, plan: "dry_run", submit: "Remove those that no rule keeps",
    intro: "The newest of so many days, weeks, months in which there are any is kept. The plan names each one.",
    fields: rules.map(
      (name) => ({
        name,
        label: name === "keep_last" ? "Newest ones" : name[0].toUpperCase() + name.slice(1),
        value: name === "keep_last" ? "3" : "",
        parse: (text) => (/^\d+$/.test(text) ? Number(text) : null),
      })
    ),
    request: (values) => ({
      method: "POST", path: "/v1/jobs",
      body: {
        type: "prune",
        device: device.id,
        params: Object.fromEntries(Object.entries(values).filter(([, value]) => value !== "")),
      },
    }),
    done: started,
  });
}
