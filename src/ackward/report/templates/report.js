"use strict";
// The page is complete without this script; it adds the theme switch, copy buttons, and the whole table of flows.

const root = document.documentElement;

function themeSwitch() {
  const button = document.getElementById("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const shown = () => root.dataset.theme ?? (dark.matches ? "dark" : "light");
  const label = () => { button.textContent = shown() === "dark" ? "Light" : "Dark"; };
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = shown() === "dark" ? "light" : "dark";
    label();
  });
  dark.addEventListener("change", label);
  label();
}

function copyButtons() {
  for (const box of document.querySelectorAll(".command")) {
    const code = box.querySelector("code");
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      getSelection().selectAllChildren(code);
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        button.textContent = "Press Ctrl-C"; // no clipboard here: the command is selected instead
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
    box.append(button);
  }
}

// The table keeps only the rows in sight in the document; two spacers stand for the others.
class FlowTable {
  constructor(columns) {
    this.columns = columns;
    this.table = document.getElementById("flow-table");
    this.pane = this.table.parentElement;
    this.body = this.table.tBodies[0];
    this.status = document.getElementById("shown");
    this.total = columns[0].index.length;
    this.printed = this.body.rows.length;
    this.rowHeight = this.body.rows[0].getBoundingClientRect().height;
    this.order = Uint32Array.from({ length: this.total }, (_, row) => row);
    this.rows = this.order;
    this.words = "";
    this.freezeWidths();
    this.heads();
    this.searchBox();
    this.pane.addEventListener("scroll", () => this.draw(), { passive: true });
    addEventListener("resize", () => this.draw());
    addEventListener("beforeprint", () => this.fill(0, this.printed));
    addEventListener("afterprint", () => this.draw(true));
    this.draw(true);
  }

  // Columns as wide as their longest text, whichever rows are in sight: no jumping while scrolling.
  freezeWidths() {
    const longest = this.columns.map((column) =>
      column.texts.reduce((a, b) => (b.length > a.length ? b : a), ""));
    const row = this.body.insertRow();
    row.className = "widths";
    row.append(...longest.map((text, at) => this.cell(this.columns[at], text)));
    const cells = [...this.table.tHead.rows[0].cells];
    const widths = cells.map((cell) => Math.ceil(cell.getBoundingClientRect().width));
    cells.forEach((cell, at) => { cell.style.minWidth = `${widths[at]}px`; });
    row.remove();
  }

  heads() {
    [...this.table.tHead.rows[0].cells].forEach((head, at) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      button.addEventListener("click", () => this.sort(at));
      head.replaceChildren(button);
    });
  }

  searchBox() {
    const label = document.getElementById("search");
    label.hidden = this.total < 6; // a handful is quicker read than searched
    label.querySelector("input").addEventListener("input", (event) => this.search(event.target.value));
  }

  ranks(column) {
    if (column.sort) return column.sort;
    if (!column.ranks) {
      const collator = new Intl.Collator("en", { numeric: true });
      const sorted = column.texts.map((_, at) => at)
        .sort((a, b) => collator.compare(column.texts[a], column.texts[b]));
      const place = new Uint32Array(sorted.length);
      sorted.forEach((text, rank) => { place[text] = rank; });
      column.ranks = column.index.map((text) => place[text]);
    }
    return column.ranks;
  }

  sort(at) {
    const heads = this.table.tHead.rows[0].cells;
    const column = this.columns[at];
    const first = column.sort ? "descending" : "ascending";
    const other = column.sort ? "ascending" : "descending";
    const direction = heads[at].getAttribute("aria-sort") === first ? other : first;
    for (const head of heads) head.removeAttribute("aria-sort");
    heads[at].setAttribute("aria-sort", direction);
    const ranks = this.ranks(column);
    const sign = direction === "ascending" ? 1 : -1;
    this.order.sort((a, b) => sign * (ranks[a] - ranks[b]) || a - b);
    this.search(this.words);
  }

  // A row is found if each word of the search stands in one of its texts.
  search(words) {
    this.words = words;
    let rows = this.order;
    for (const word of words.toLowerCase().split(/\s+/).filter(Boolean)) {
      const hits = this.columns.map((column) => column.texts.map((text) => text.toLowerCase().includes(word)));
      rows = rows.filter((row) => this.columns.some((column, at) => hits[at][column.index[row]]));
    }
    this.rows = rows;
    this.status.textContent = rows.length === this.total ? ""
      : `${rows.length.toLocaleString("en")} of ${this.total.toLocaleString("en")}`;
    this.pane.scrollTop = 0;
    this.draw(true);
  }

  cell(column, text) {
    const cell = document.createElement("td");
    cell.className = column.kind;
    if (column.kind === "cause" && text) {
      const swatch = document.createElement("span");
      swatch.className = `swatch cause-${text}`;
      swatch.textContent = text;
      cell.append(swatch);
    } else if (column.kind === "name") {
      const name = document.createElement("bdi");
      name.textContent = name.title = text;
      cell.append(name);
    } else {
      cell.textContent = text;
    }
    return cell;
  }

  spacer(rows) {
    const row = document.createElement("tr");
    row.className = "spacer";
    row.setAttribute("aria-hidden", "true");
    row.style.height = `${rows * this.rowHeight}px`;
    return row;
  }

  fill(start, end) {
    const shown = [];
    for (const [at, number] of this.rows.slice(start, end).entries()) {
      const row = document.createElement("tr");
      row.setAttribute("aria-rowindex", start + at + 2);
      row.append(...this.columns.map((column) => this.cell(column, column.texts[column.index[number]])));
      shown.push(row);
    }
    this.body.replaceChildren(...shown);
  }

  draw(anew = false) {
    const spare = 20;
    const first = Math.max(0, Math.floor(this.pane.scrollTop / this.rowHeight) - spare);
    const start = first - (first % spare);
    const end = Math.min(this.rows.length, start + Math.ceil(this.pane.clientHeight / this.rowHeight) + 3 * spare);
    if (!anew && start === this.start && end === this.end) return;
    this.start = start;
    this.end = end;
    this.fill(start, end);
    if (start > 0) this.body.prepend(this.spacer(start));
    if (end < this.rows.length) this.body.append(this.spacer(this.rows.length - end));
  }
}

root.classList.add("scripted");
themeSwitch();
copyButtons();
const flows = document.getElementById("flow-data");
if (flows) new FlowTable(JSON.parse(flows.textContent));
