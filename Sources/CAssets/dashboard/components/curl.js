// The command that asks for what a figure shows: the page teaches the API.

import { h } from "../core/dom.js";
import { curl } from "../core/api.js";
import { openDialog } from "./dialog.js";
import { icon } from "./icons.js";
import { iconButton, toast } from "./parts.js";

/// Shows the command that asks for the same.
export function curlButton(method, path, body) {
  return iconButton("shell", `Show the curl command of ${method} ${path}`, () => showCurl(method, path, body), "quiet");
}

export function showCurl(method, path, body) {
  const command = curl(method, path, body);
  const dialog = openDialog({
    title: "The same by curl",
    body: h("div", null,
      h("pre", { class: "command", tabindex: "0" }, command),
      h("p", { class: "hint" }, "$TOKEN stands for the token; over the Unix socket there is none, and ",
        h("code", null, "--unix-socket var/api.sock"), " goes before the address.")),
    buttons: [
      h("button", { type: "button", class: "primary", onclick: () => copy(command, "The command") },
        icon("copy"),
        "Copy",
      ),
      h("button", { type: "button", onclick: () => dialog.close() }, "Close"),
    ],
  });
}

export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    toast(`${what} is in the clipboard.`);
  } catch {
    toast("The browser does not let the page copy.", "warn");
  }
}
