// What is asked and shown before anything is done: forms, and plans of what is about to happen.

import { h } from "../core/dom.js";
import { call } from "../core/api.js";
import { showCurl } from "./curl.js";
import { openDialog, uniqueNumber } from "./dialog.js";
import { icon } from "./icons.js";
import { problemBox, toast } from "./parts.js";
import { planTable } from "./plan.js";

/// Asks for what a call needs, shows its plan where it has one or takes something away, and makes it.
///
/// - fields: `{name, label, type, value, choices, hint, required, parse}`.
/// - request: what values make of it, `{method, path, body, headers}`.
/// - plan: `"dry_run"` to ask the service, or a function that says what will happen.
export function openForm({ title, intro, fields = [], request, plan, submit = "Do it", danger = false, done }) {
  const message = h("div");
  const inputs = fields.map((field) => makeField(field));
  const planned = h("div");
  const isReady = { value: !plan };
  const proceed = h("button", { type: "submit", class: danger ? "danger" : "primary" });
  const showCommand = h("button", { type: "button", class: "quiet", onclick: () => withRequest((wanted) =>
    showCurl(wanted.method, wanted.path, wanted.body)) }, icon("shell"), "curl");
  const form = h("form", { novalidate: true, onsubmit: (event) => {
    event.preventDefault();
    withRequest(isReady.value ? make : ask);
  } },
  intro ? h("p", { class: "intro" }, intro) : null, inputs.map((input) => input.node), planned, message,
  h("div", { class: "form-buttons" }, showCommand, h("span", { class: "spacer" }),
    h("button", { type: "button", onclick: () => dialog.close() }, "Leave it"), proceed));
  const label = () => (proceed.textContent = isReady.value ? submit : "Show the plan");
  // What was planned is not what is done any more once something is changed.
  form.addEventListener("input", () => {
    if (!plan || !isReady.value) return;
    isReady.value = false;
    planned.replaceChildren();
    label();
  });
  label();

  function withRequest(next) {
    message.replaceChildren();
    const values = {};
    for (const input of inputs) {
      const value = input.read();
      if (value === undefined) return;
      values[input.name] = value;
    }
    next(request(values), values);
  }

  async function ask(wanted, values) {
    await busily(async () => {
      if (plan === "dry_run") {
        const path = `${wanted.path}${wanted.path.includes("?") ? "&" : "?"}dry_run=true`;
        const answer = await call(wanted.method, path, wanted.body);
        planned.replaceChildren(planTable(answer.plan));
      } else {
        planned.replaceChildren(await plan(values));
      }
      isReady.value = true;
      label();
      proceed.focus();
    });
  }

  async function make(wanted) {
    await busily(async () => {
      const answer = await call(wanted.method, wanted.path, wanted.body, { headers: wanted.headers });
      dialog.close();
      done?.(answer);
    });
  }

  async function busily(work) {
    proceed.disabled = true;
    form.setAttribute("aria-busy", "true");
    try {
      await work();
    } catch (problem) {
      message.replaceChildren(problemBox(problem));
      for (const { pointer } of problem.facts?.errors ?? []) {
        inputs.find((input) => pointer.endsWith(`/${input.name}`))?.mark();
      }
    } finally {
      proceed.disabled = false;
      form.removeAttribute("aria-busy");
    }
  }

  const dialog = openDialog({ title, body: form });
  if (plan && !fields.length) form.requestSubmit();
  return dialog;
}

function makeField({ name, label, type = "text", value = "", choices, hint, required, parse, pattern }) {
  const id = `field-${uniqueNumber()}`;
  const error = h("p", { class: "field-error", id: `${id}-error` });
  const common = { id, name, "aria-describedby": `${id}-hint ${id}-error`, autocomplete: "off", spellcheck: "false" };
  const control = choices
    ? h("select", { ...common, value: value || choices[0]?.[0] },
      choices.map(([choice, text]) => h("option", { value: choice }, text)),
    )
    : type === "checkbox" ? h("input", { ...common, type, checked: Boolean(value) })
    : h("input", { ...common, type, value, placeholder: pattern });
  const node = type === "checkbox"
    ? h("div", { class: "field check" }, control,
      h("label", { for: id }, label),
      hint && h("p", { class: "hint", id: `${id}-hint` }, hint),
      error,
    )
    : h("div", { class: "field" }, h("label", { for: id }, label, required ? h("span", { class: "needed" }, " needed") : null),
      control, hint && h("p", { class: "hint", id: `${id}-hint` }, hint), error);
  const complain = (text) => {
    error.textContent = text;
    control.setAttribute("aria-invalid", "true");
    control.focus();
  };
  return {
    name, node,
    mark: () => control.setAttribute("aria-invalid", "true"),
    /// - Returns: undefined for what cannot be taken, having said why.
    read: () => {
      error.textContent = "";
      control.removeAttribute("aria-invalid");
      if (type === "checkbox") return control.checked;
      const text = control.value.trim();
      if (!text) {
        if (required) return complain(`${label} is needed.`);
        return "";
      }
      if (!parse) return text;
      const parsed = parse(text);
      if (parsed === null) return complain(`${label} is not understood.`);
      return parsed;
    },
  };
}

/// Makes a call that needs no question, and says what became of it.
export async function act(method, path, body, said) {
  try {
    const answer = await call(method, path, body);
    if (said) toast(said);
    return answer;
  } catch (problem) {
    openDialog({ title: "It did not work", body: problemBox(problem) });
    return null;
  }
}
