// What can be done with targets and the points that lie there.

import { openForm } from "../components/form.js";
import { toast } from "../components/parts.js";
import { sentences } from "../components/plan.js";
import { bytes, moment, parseBytes } from "../core/format.js";
import { go } from "../core/router.js";
import { store } from "../core/store.js";

function started(job) {
  if (job?.type && job.id) {
    store.put(store.jobs, job.id, job);
    toast(`${job.type} has begun.`);
  }
  store.tell();
}

export function addTarget() {
  openForm({
    title: "New target",
    intro: "A folder beneath a root, in which backups are kept as chains. It is made if it is not there.",
    fields: [
      { name: "name", label: "Name", required: true },
      { name: "path", label: "Folder", required: true, hint: "root:folder" },
      {
        name: "slots",
        label: "Jobs at a time",
        value: "2",
        parse: (text) => (/^\d+$/.test(text) ? Number(text) : null),
      },
    ],
    submit: "Make it a target",
    request: ({ name, path, slots }) => ({
      method: "POST",
      path: "/v1/targets",
      body: { name, type: "directory", path, slots: slots || 2 },
    }),
    done: (target) => {
      store.put(store.targets, target.name, target);
      store.tell();
    },
  });
}

export function removeTarget(target) {
  const count = target.usage?.backups ?? 0;
  openForm({
    title: `Forget the target ${target.name}`, danger: true, submit: "Forget it",
    plan: () => sentences("The service forgets the name. Nothing that lies there is touched.",
      count ? `${count} backups stay in ${target.path ?? target.uri}; make it a target again to see them.` : null),
    request: () => ({ method: "DELETE", path: `/v1/targets/${target.name}${count ? "?backups=keep" : ""}` }),
    done: () => {
      store.targets.delete(target.name);
      store.tell();
    },
  });
}

export function backUp(device = null, target = null) {
  const names = [...store.targets.keys()];
  if (!names.length) {
    toast("Make a target first: a place for backups.", "warn");
    go(["backups"]);
    return;
  }
  openForm({
    title: device ? `Back up ${device.id}` : "Back up a disk",
    intro: "The disk as it is at one instant, while guests write. After the first one only what has changed is copied.",
    fields: [
      ...(device ? [] : [{ name: "device", label: "Disk", choices: [...store.devices.keys()].map((id) => [id, id]) }]),
      { name: "target", label: "Target", choices: names.map((name) => [name, name]), value: target ?? names[0] },
      {
        name: "mode",
        label: "How much",
        value: "auto",
        choices: [["auto", "what has changed, where that can be told"], ["full", "everything, as a new chain"]],
      },
      { name: "bps", label: "At most, bytes a second", hint: "As 50 MiB; empty for no limit.", parse: parseBytes },
    ],
    plan: "dry_run", submit: "Back up",
    request: (values) => ({
      method: "POST", path: "/v1/jobs",
      body: {
        type: "backup",
        device: device?.id ?? values.device,
        params: { target: values.target, mode: values.mode },
        ...(values.bps ? { limits: { bps: values.bps } } : {})
      },
    }),
    done: started,
  });
}

export function restore(point) {
  openForm({
    title: `Restore ${point.device}`,
    intro: `As it was at ${moment(point.point_in_time)}, as a new disk. Every byte is held against its checksum.`,
    fields: [{ name: "id", label: "Id of the new disk", value: `${point.device}-restored`, required: true }],
    plan: "dry_run", submit: "Restore",
    request: ({ id }) => ({
      method: "POST", path: "/v1/jobs",
      body: {
        type: "restore",
        params: { target: point.target, backup: point.id, to: { id, directory: id, export: id } },
      },
    }),
    done: started,
  });
}

export function verify(target, point = null, device = null) {
  openForm({
    title: point ? `Verify ${point.id}` : `Verify ${device ?? target.name}`,
    intro: "Stored bytes are read again and held against their checksums.",
    plan: "dry_run", submit: "Verify",
    request: () => ({
      method: "POST", path: "/v1/jobs",
      body: {
        type: "verify",
        params: { target: target.name, ...(point ? { backup: point.id } : {}), ...(device ? { device } : {}) },
      },
    }),
    done: started,
  });
}

/// Attaches a point for reading, without copying it.
export function openPoint(point) {
  openForm({
    title: `Open ${point.device} of ${moment(point.point_in_time)}`,
    intro: "For reading, as a disk and an export of its own; nothing is copied.",
    fields: [{ name: "id", label: "Id", value: `${point.device}-then`, required: true }], submit: "Open it",
    request: ({ id }) => ({
      method: "POST", path: "/v1/devices",
      body: {
        id,
        descriptor: point.descriptor,
        ...(point.at ? { at: point.at } : { readonly: true }),
        export: { name: id },
      },
    }),
    done: (device) => go(["devices", device.id]),
  });
}

/// - Parameter points: all of the target, of which some may build on this one.
export function removePoint(point, points, done) {
  const builds = (one) => one.chain === point.chain && one.id !== point.id && one.chain_length > point.chain_length;
  const dependents = points.filter(builds);
  const freed = [point, ...dependents].reduce((sum, one) => sum + one.disk_bytes, 0);
  openForm({
    title: `Remove a backup of ${point.device}`,
    danger: true,
    submit: dependents.length ? `Remove ${dependents.length + 1} backups` : "Remove it",
    plan: () => sentences(
      `The backup of ${moment(point.point_in_time)} is removed for good: ${bytes(point.disk_bytes)}.`,
      ...dependents.map(
        (one) => `It goes too, since it builds on that: ${moment(one.point_in_time)}, ${bytes(one.disk_bytes)}.`
      ),
      `${bytes(freed)} become free.`),
    request: () => ({
      method: "DELETE",
      path: `/v1/targets/${point.target}/backups/${point.id}${dependents.length ? "?cascade=true" : ""}`,
    }),
    done,
  });
}

export function pruneTarget(target) {
  openForm({
    title: `Prune ${target.name}`, danger: true, plan: "dry_run", submit: "Remove those that no rule keeps",
    intro: "The newest of so many days, weeks and months in which there are any is kept, of each disk. The plan names each point.",
    fields: [["keep_last", "Newest ones", "3"], ["daily", "Days", "7"], ["weekly", "Weeks", ""], ["monthly", "Months", ""]].map(([name, label, value]) => ({
      name, label, value, parse: (text) => (/^\d+$/.test(text) ? Number(text) : null) })),
    request: (values) => ({
      method: "POST", path: "/v1/jobs",
      body: {
        type: "prune",
        params: {
          target: target.name,
          ...Object.fromEntries(Object.entries(values).filter(([, value]) => value !== ""))
        },
      },
    }),
    done: started,
  });
}

export function clean(images) {
  openForm({
    title: images.length === 1 ? "Remove an orphan" : `Remove ${images.length} orphans`,
    danger: true,
    plan: "dry_run",
    submit: "Remove for good",
    intro: "Files that nobody needs. Each is looked at once more before it goes.",
    request: () => ({
      method: "POST",
      path: "/v1/jobs",
      body: { type: "clean", params: { paths: images.map((image) => image.path) } },
    }),
    done: started,
  });
}
