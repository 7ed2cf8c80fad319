// Long lists: only the rows that can be seen are there, so that ten thousand are as quick as ten.

import { h } from "../core/dom.js";
import { icon } from "./icons.js";

const ROW = 38;
const SPARE = 8;

export class VirtualTable {
  /// - columns: `{name, label, cell(item), sort(item), wide, align}`; `wide` ones go on narrow screens.
  /// - redraw: asks for another drawing, once it was scrolled.
  /// - more: called near the end of the list.
  constructor({ label, columns, key, redraw, more, sort = null, down = false }) {
    Object.assign(this, { label, columns, key, redraw, more, sort, down });
    this.first = 0;
    this.visible = 30;
  }

  render(items, note) {
    const sorted = this.sorted(items);
    const from = Math.max(0, Math.min(this.first - SPARE, sorted.length - 1));
    const to = Math.min(sorted.length, this.first + this.visible + SPARE);
    const gap = (rows) => h("tr", { class: "gap", "aria-hidden": "true", key: `gap-${rows === from ? "a" : "b"}` },
      h("td", { colspan: String(this.columns.length), style: { height: `${rows * ROW}px` } }));
    return h("div", {
      class: "table-scroll", tabindex: "0", role: "region", "aria-label": this.label, key: `table-${this.label}`,
      onscroll: (event) => this.scrolled(event.target, sorted.length),
    },
    h("table", { class: "list", "aria-rowcount": String(sorted.length + 1) },
      h("thead", null, h("tr", { "aria-rowindex": "1" }, this.columns.map((column) => this.head(column)))),
      h("tbody", null,
        from > 0 ? gap(from) : null,
        sorted.slice(from, to).map((item, index) => h("tr", { key: String(this.key(item)), "aria-rowindex": String(from + index + 2) },
          this.columns.map((column) => h("td", { class: cellClass(column) }, column.cell(item))))),
        to < sorted.length ? gap(sorted.length - to) : null)),
    note ? h("p", { class: "table-note" }, note) : null);
  }

  head(column) {
    if (!column.sort) return h("th", { scope: "col", class: cellClass(column) }, column.label);
    const isSorted = this.sort === column.name;
    return h("th", { scope: "col", class: cellClass(column), "aria-sort": isSorted ? (this.down ? "descending" : "ascending") : "none" },
      h("button", { type: "button", class: "sort", onclick: () => {
        this.down = isSorted ? !this.down : Boolean(column.down);
        this.sort = column.name;
        this.redraw();
      } }, column.label, isSorted ? icon(this.down ? "down" : "up") : null));
  }

  sorted(items) {
    const column = this.columns.find(({ name }) => name === this.sort);
    if (!column) return items;
    const sign = this.down ? -1 : 1;
    return items.map((item) => [column.sort(item), item])
      .sort(
        ([one], [other]) => sign * (
          typeof one === "string" ? one.localeCompare(other, "en", { numeric: true }) : one - other
        )
      )
      .map(([, item]) => item);
  }

  scrolled(box, count) {
    const first = Math.floor(box.scrollTop / ROW);
    const visible = Math.ceil(box.clientHeight / ROW);
    if (box.scrollTop + box.clientHeight > box.scrollHeight - 20 * ROW) this.more?.(count);
    if (first === this.first && visible === this.visible) return;
    this.first = first;
    this.visible = visible;
    this.redraw();
  }
}

const cellClass = (column) => [
  column.wide ? "wide-only" : "",
  column.align ?? "",
  column.grow ? "grow" : "",
].filter(Boolean).join(" ");
