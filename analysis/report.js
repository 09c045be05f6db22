"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const themed = (layout) => {
    const axis = { gridcolor: colour("--line"), zerolinecolor: colour("--line"), automargin: true };
    return {
      ...layout,
      xaxis: { ...axis, ...layout.xaxis },
      yaxis: { ...axis, ...layout.yaxis },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: colour("--ink"), family: "system-ui, sans-serif", size: 12 },
      margin: { l: 56, r: 12, t: 12, b: 48 },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
      barmode: "group",
    };
  };
  const config = { displayModeBar: false, responsive: true };
  const draw = () => {
    for (const figure of figures) {
      Plotly.react(figure.id, figure.data, themed(figure.layout), config);
    }
  };
  const worth = (cell) => {
    const text = cell.textContent.trim();
    const found = text.replace(/,/g, "").match(/-?\d+(\.\d+)?/);
    return text.startsWith("∞") ? Infinity : found ? Number(found[0]) : NaN;
  };
  const sort = (table, column, head) => {
    const rising = head.getAttribute("aria-sort") !== "ascending";
    const body = table.tBodies[0];
    const isNumber = head.classList.contains("n") || body.rows[0].cells[column].classList.contains("n");
    const compare = (a, b) => {
      if (!isNumber) return a.textContent.localeCompare(b.textContent, undefined, { numeric: true });
      const [x, y] = [worth(a), worth(b)];
      if (Number.isNaN(x) || Number.isNaN(y)) return (Number.isNaN(x) - Number.isNaN(y)) * (rising ? 1 : -1);
      return x === y ? 0 : x - y;
    };
    const rows = [...body.rows].sort((a, b) => compare(a.cells[column], b.cells[column]) * (rising ? 1 : -1));
    body.append(...rows);
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", rising ? "ascending" : "descending");
  };
  for (const table of document.querySelectorAll("main table")) {
    if (!table.tHead || table.tBodies[0].rows.length < 2) continue;
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => sort(table, column, head));
    });
  }
  dark.addEventListener("change", draw);
  draw();
})();
