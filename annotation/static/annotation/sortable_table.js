// Makes every `table[data-sortable]` of a page sortable by its header cells.
//
// A cell's `data-value` is what it is sorted by, else its text; an empty one stands last in either direction. Numbers
// begin with the largest, texts with the first. The server says by `aria-sort` on a header how the rows come.

const valueOf = (row, column) => {
  const cell = row.cells[column];
  return (cell.dataset.value ?? cell.textContent).trim();
};

const isNumber = (text) => text !== "" && Number.isFinite(Number(text));

function order(table, column, direction) {
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => ({ row, value: valueOf(row, column) }));
  const numeric = rows.every(({ value }) => value === "" || isNumber(value));
  const sign = direction === "ascending" ? 1 : -1;
  rows.sort((a, b) => {
    if (a.value === "" || b.value === "") return (a.value === "") - (b.value === "");
    return sign * (numeric ? Number(a.value) - Number(b.value) : a.value.localeCompare(b.value, "en", { numeric: true }));
  });
  body.append(...rows.map(({ row }) => row));
}

function sortBy(table, header) {
  const column = header.cellIndex;
  const now = header.getAttribute("aria-sort");
  const values = [...table.tBodies[0].rows].map((row) => valueOf(row, column));
  const first = values.every((value) => value === "" || isNumber(value)) ? "descending" : "ascending";
  const other = first === "ascending" ? "descending" : "ascending";
  const direction = now === first ? other : first;
  for (const each of table.tHead.rows[0].cells) each.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", direction);
  order(table, column, direction);
}

export function makeSortable(table) {
  for (const header of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...header.childNodes);
    button.addEventListener("click", () => sortBy(table, header));
    header.append(button);
  }
}

for (const table of document.querySelectorAll("table[data-sortable]")) makeSortable(table);
