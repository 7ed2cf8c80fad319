// The door: a token, as `ploopd token add` prints it.

import { h } from "../core/dom.js";
import { token } from "../core/session.js";
import { problemBox } from "../components/parts.js";
import { icon } from "../components/icons.js";

export function signIn(enter, failure) {
  const isWaiting = failure && failure.status === 0;
  const wrong = failure && !isWaiting && (token() || failure.status !== 401) ? problemBox(failure) : null;
  return h("main", { id: "main", class: "door", tabindex: "-1", key: "door" },
    h("form", { class: "door-form", onsubmit: (event) => {
      event.preventDefault();
      enter(event.target.elements.token.value.trim());
    } },
    h("h1", null, h("img", { src: "/dashboard/style/icon.svg", alt: "", width: "32", height: "32" }), "ploopd"),
    isWaiting
      ? h("p", { role: "status" }, "The service does not answer. The page tries again by itself.")
      : failure ? [
        h("p", null, "This service wants to know who asks."),
        h("div", { class: "field" }, h("label", { for: "token" }, "Token"),
          h("input",
            {
              id: "token",
              name: "token",
              type: "password",
              autocomplete: "off",
              spellcheck: "false",
              placeholder: "plp_…",
              required: true,
            },
          ),
          h("p", { class: "hint" }, "As ", h("code", null, "ploopd token add"), " prints it; ", h("code", null, "make run"), " prints an address with one. It stays in this tab only.")),
        wrong,
        h("div", { class: "form-buttons" },
          h("span", { class: "spacer" }),
          h("button", { type: "submit", class: "primary" }, icon("lock"), "Enter"),
        ),
      ] : h("p", { role: "status" }, "One moment …")));
}

