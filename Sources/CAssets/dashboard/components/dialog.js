import { h } from "../core/dom.js";
import { icon } from "./icons.js";

let numbers = 0;

/// For ids of elements.
export const uniqueNumber = () => (numbers += 1);


/// A dialog that keeps the focus, and gives it back.
export function openDialog({ title, body, buttons = [], wide = false, onclose }) {
  const id = `dialog-${uniqueNumber()}`;
  const dialog = h("dialog", { "aria-labelledby": id, class: wide ? "wide" : "" },
    h("header", null, h("h2", { id }, title),
      h("button", { type: "button", class: "icon-button quiet", "aria-label": "Close", onclick: () => dialog.close() }, icon("cross"))),
    h("div", { class: "dialog-body" }, body), h("footer", null, buttons));
  dialog.addEventListener("close", () => {
    dialog.remove();
    onclose?.();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}
