"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const lighter = new Map([
    ["#0072b2", "#4aa3e0"],
    ["#8c6bb1", "#b79ad9"],
    ["#b07800", "#e3b341"],
    ["#d1242f", "#ff7b72"],
  ]);
  const shade = (value) => {
    const found = dark.matches && typeof value === "string" && lighter.get(value.slice(0, 7));
    return found ? found + value.slice(7) : value;
  };
  const inked = (part) => JSON.parse(JSON.stringify(part), (_, value) => shade(value));
  const narrow = matchMedia("(max-width: 640px)");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const themed = (layout) => {
    const axis = { gridcolor: colour("--line"), zerolinecolor: colour("--line"), automargin: true };
    const axes = Object.keys(layout).filter((key) => /^[xy]axis/.test(key));
    return {
      ...layout,
      ...Object.fromEntries(axes.map((key) => [key, { ...axis, ...layout[key], title: { standoff: 6, ...layout[key].title } }])),
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: colour("--ink"), family: "system-ui, sans-serif", size: 12 },
      hoverlabel: { namelength: -1 },
      margin: { l: 52, r: 12, t: 28, b: 44 },
      legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", x: 0 },
      barmode: "group",
      dragmode: narrow.matches ? false : "zoom",
    };
  };
  const config = { displayModeBar: false, responsive: true };
  const draw = () => {
    for (const figure of figures) {
      const place = document.getElementById(figure.id);
      if (place.offsetParent) Plotly.react(place, inked(figure.data), themed(inked(figure.layout)), config);
    }
  };

  // Of a group's picks one is shown at a time, so that a page of many levels stays readable.
  const choose = (group, pick) => {
    for (const figure of figures) {
      if (figure.group === group) document.getElementById(figure.id).parentElement.hidden = figure.pick !== pick;
    }
  };
  for (const menu of document.querySelectorAll("select.pick")) {
    menu.addEventListener("change", () => {
      choose(menu.dataset.group, menu.value);
      draw();
    });
    choose(menu.dataset.group, menu.value);
  }

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
      const name = head.querySelector(".name");
      button.type = "button";
      button.className = "sort";
      name.replaceWith(button);
      button.append(name);
      button.addEventListener("click", () => sort(table, column, head));
    });
  }

  // Each table can be copied: tab-separated for a spreadsheet, Markdown for a pull request.
  const rowsOf = (table) => [...table.rows].map((row) => [...row.cells].map((cell) => {
    const part = cell.cloneNode(true);
    for (const button of part.querySelectorAll(".def, .term")) button.remove();
    for (const line of part.querySelectorAll("br")) line.replaceWith(" ");
    return part.textContent.trim().replace(/\s+/g, " ");
  }));
  const asTsv = (rows) => rows.map((row) => row.map((text) => (/^[=+\-@]/.test(text) && Number.isNaN(Number(text)) ? "'" + text : text)).join("\t")).join("\n");
  const asMarkdown = (rows) => {
    const line = (row) => "| " + row.map((text) => text.replace(/[\\`*_[\]|<#!~]/g, "\\$&")).join(" | ") + " |";
    return [line(rows[0]), "|" + "---|".repeat(rows[0].length), ...rows.slice(1).map(line)].join("\n");
  };
  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch { // a page from a file may have no clipboard of its own
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
  };
  for (const table of document.querySelectorAll("main table")) {
    if (!table.tHead) continue;
    const bar = document.createElement("p");
    bar.className = "copy";
    for (const [name, write] of [["Copy table", asTsv], ["as Markdown", asMarkdown]]) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      button.addEventListener("click", async () => {
        await copy(write(rowsOf(table)));
        button.textContent = "copied";
        setTimeout(() => { button.textContent = name; }, 1500);
      });
      bar.append(button);
    }
    table.parentElement.after(bar);
  }

  // Plotly comes compressed; the page's policy lets only this very text run.
  const unpack = async () => {
    const packed = document.getElementById("plotly").textContent;
    const bytes = Uint8Array.from(atob(packed), (char) => char.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const library = document.createElement("script");
    library.textContent = await new Response(stream).text();
    document.head.append(library);
  };
  const start = async () => {
    try {
      await unpack();
    } catch {
      document.getElementById("no-plots").hidden = false;
      return;
    }
    draw();
    dark.addEventListener("change", draw);
    document.documentElement.dataset.drawn = "yes";
  };
  start();
})();
