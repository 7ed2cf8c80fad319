// Elements are described by calls of h() and s(), and morph() makes what is shown like the description: what has
// focus, is scrolled or is being read stays the same element.

const SVG = "http://www.w3.org/2000/svg";
const HANDLERS = ["onclick", "oninput", "onchange", "onsubmit", "onkeydown", "onscroll", "ontoggle"];

/// An element of HTML; `on…` are handlers, `key` tells it from its brothers, `keep` leaves its content to its maker.
export function h(tag, props, ...children) {
  return build(document.createElement(tag), props, children);
}

/// An element of SVG.
export function s(tag, props, ...children) {
  return build(document.createElementNS(SVG, tag), props, children);
}

function build(node, props, children) {
  const { value, checked, ...rest } = props ?? {};
  for (const [name, given] of Object.entries(rest)) set(node, name, given);
  append(node, children);
  // A list of choices has its value once it has them.
  if (value !== undefined && value !== null) node.value = value;
  if (checked !== undefined) node.checked = checked;
  return node;
}

function set(node, name, value) {
  if (value === undefined || value === null || value === false) return;
  if (name.startsWith("on")) node[name] = value;
  else if (name === "key" || name === "keep") node.dataset[name] = value;
  else if (name === "style") {
    // Through the object model: the page's policy forbids style attributes.
    for (const [property, text] of Object.entries(value)) node.style.setProperty(property, text);
  } else node.setAttribute(name, value === true ? "" : value);
}

export function append(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : String(child));
  }
}

const keyOf = (node) => node.dataset?.key;

const isSame = (one, other) =>
  one.nodeType === other.nodeType && one.nodeName === other.nodeName && keyOf(one) === keyOf(other);

/// Makes one element like another, which is not used any more afterwards.
export function morph(from, to) {
  if (from.nodeType !== Node.ELEMENT_NODE) {
    if (from.data !== to.data) from.data = to.data;
    return;
  }
  if (to.dataset.keep !== undefined && from.dataset.keep === to.dataset.keep) return;
  morphAttributes(from, to);
  for (const name of HANDLERS) if (from[name] !== to[name]) from[name] = to[name];
  morphChildren(from, to);
  if (from !== document.activeElement && "value" in to && from.value !== to.value) from.value = to.value;
  if ("checked" in to && from.checked !== to.checked) from.checked = to.checked;
}

function morphAttributes(from, to) {
  for (const { name, value } of [...to.attributes]) {
    if (name !== "style" && from.getAttribute(name) !== value) from.setAttribute(name, value);
  }
  for (const { name } of [...from.attributes]) {
    if (name !== "style" && name !== "open" && !to.hasAttribute(name)) from.removeAttribute(name);
  }
  if (from.style && from.style.cssText !== to.style.cssText) from.style.cssText = to.style.cssText;
}

function morphChildren(from, to) {
  const keyed = new Map();
  for (const child of from.childNodes) if (keyOf(child)) keyed.set(keyOf(child), child);
  let next = from.firstChild;
  for (const fresh of [...to.childNodes]) {
    const key = keyOf(fresh);
    let match = key ? keyed.get(key) : next;
    while (!key && match && keyOf(match)) match = match.nextSibling;
    if (!match || !isSame(match, fresh)) {
      from.insertBefore(fresh, next);
      continue;
    }
    if (match === next) next = next.nextSibling;
    else from.insertBefore(match, next);
    morph(match, fresh);
  }
  while (next) {
    const after = next.nextSibling;
    next.remove();
    next = after;
  }
}
