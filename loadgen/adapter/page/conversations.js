// The tab Conversations: the numbers of the level under way, asked for every 2 s while it is in sight.
// Whatever a server said is set as text, never as HTML.

const EVERY_MS = 2000, KEPT = 150;
const HIDDEN_TABS = ["Charts", "Current Ratio", "Download Data"]; // they mix tasks, or show people of Locust alone
const tag = (name, fields = {}, ...inside) => {
  const made = Object.assign(document.createElement(name), fields);
  made.append(...inside);
  return made;
};
const root = document.getElementById("root");
const view = tag("section", { className: "tb", hidden: true, id: "turnbench-conversations" });
const past = { tokens: [], streams: [] };
let pastOf = null, asking = false;

const seconds = (ms) => (ms === null ? "–" : `${Number((ms / 1000).toPrecision(3))} s`);
const number = (value, digits = 3) => (value === null ? "–" : Number(value.toPrecision(digits)).toLocaleString("en"));
function duration(s) {
  const whole = Math.round(s);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

function head(seen) {
  const where = seen.phase_of_s === null ? `${seen.phase} for ${duration(seen.phase_s)}`
    : `${seen.phase}, ${Math.round(seen.phase_s)} of ${duration(seen.phase_of_s)}`;
  const left = seen.least_left_s === null ? "" : ` At least ${duration(seen.least_left_s)} left` +
    (seen.likely_left_s - seen.least_left_s >= 1 ? `, about ${duration(seen.likely_left_s)} with answers as long as so far.` : ".");
  const title = tag("h2", {}, seen.level ? `${seen.level}, ${where}` : seen.phase);
  if (seen.emulated) title.append(tag("span", { className: "badge" }, "EMULATED"));
  const done = tag("div");
  if (seen.phase_of_s) done.style.width = `${Math.min(100, (100 * seen.phase_s) / seen.phase_of_s)}%`;
  const button = tag("button", { type: "button", hidden: !seen.more_levels, disabled: seen.ends_after_level },
    seen.ends_after_level ? "ends after this level" : "End after this level");
  button.onclick = async () => {
    button.disabled = true;
    await fetch("./turnbench/end-after-level", { method: "POST" });
  };
  return [title, tag("div", { className: "dim" }, `${seen.scenario} on ${seen.model}, run ${seen.run}.${left}`),
    tag("div", { className: "bar", hidden: !seen.phase_of_s }, done), button];
}

function table(heads, rows) {
  const top = tag("tr", {}, ...heads.map((text) => tag("th", {}, text)));
  return tag("div", { className: "wide" }, tag("table", {}, tag("thead", {}, top), tag("tbody", {}, ...rows)));
}

function tasks(seen) {
  const rows = seen.tasks.map((each) => tag("tr", {}, ...[
    each.task, each.turns.toLocaleString("en"), each.unanswered, seconds(each.ttft_p50_ms), seconds(each.ttft_p95_ms),
    seconds(each.ttg_p50_ms), seconds(each.ttg_p95_ms), number(each.tps), number(each.tokens_per_s),
  ].map((text, column) => tag("td", { className: column === 2 && each.unanswered ? "bad" : "" }, String(text)))));
  const what = seen.measured ? "Turns sent in the window that have ended; those that still run are not in yet."
    : "Warm-up: these turns are not measured.";
  return [tag("h3", {}, "Tasks"),
    table(["task", "turns", "unanswered", "TTFT p50", "p95", "TTG p50", "p95", "tps", "tokens/s"], rows),
    tag("div", { className: "dim" }, `${what} tps: tokens a second of an answer. tokens/s: of all streams, turns that ended in the last 30 s.`)];
}

function fact(name, value) {
  return tag("div", {}, tag("span", { className: "dim" }, name), tag("b", {}, value));
}

function facts(seen) {
  const client = seen.client;
  return tag("div", { className: "facts" },
    fact("streams in flight", String(seen.in_flight)), fact("people", String(seen.people)),
    fact("client's clock", client.clock ?? "–"),
    fact("its event loop late by, at most in 10 s", client.lag_ms === null ? "–" : `${client.lag_ms.toFixed(1)} ms`),
    fact("CPU of its busiest core", client.cpu_share === null ? "–" : `${Math.round(client.cpu_share * 100)} %`),
    fact("load generators", String(client.workers)));
}

function errors(seen) {
  const wrong = Object.entries(seen.outcomes).filter(([name]) => name !== "ok");
  const found = seen.findings.map((text) => tag("div", { className: "dim" }, text));
  if (!wrong.length) return found.length ? [tag("h3", {}, "Findings"), ...found] : [];
  const rows = wrong.map(([name, count]) => tag("tr", {}, tag("td", {}, name), tag("td", { className: "bad" }, String(count))));
  const last = seen.last_error === null ? [] : [tag("div", { className: "dim" }, `last: ${seen.last_error}`)];
  return [tag("h3", {}, "Turns without a whole answer"), table(["outcome", "turns"], rows), ...last, ...found];
}

function line(name, values) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 100 100");
  svg.setAttribute("preserveAspectRatio", "none");
  const top = Math.max(...values, 1);
  const points = values.map((value, i) => `${(100 * i) / Math.max(values.length - 1, 1)},${98 - (94 * value) / top}`);
  svg.innerHTML = '<line x1="0" y1="99" x2="100" y2="99"/><polyline/>';
  svg.lastChild.setAttribute("points", points.join(" "));
  const minutes = Math.round((values.length * EVERY_MS) / 1000);
  return tag("div", {}, tag("div", { className: "dim" }, `${name}, last ${duration(minutes)}: now ${number(values.at(-1) ?? 0)}, most ${number(top)}`), svg);
}

function answer(seen) {
  const shown = seen.answer;
  if (!shown) return [];
  const where = `${shown.task}, conversation ${shown.conversation}, turn ${shown.turn}`;
  return [tag("h3", {}, "One conversation as its answer comes"), tag("div", { className: "dim" }, where),
    tag("pre", {}, shown.text || "(nothing has come yet)")];
}

function draw(seen) {
  if (!seen.run) {
    const report = tag("a", { href: "./turnbench/report" }, "The report of the last run");
    view.replaceChildren(tag("h2", {}, seen.phase === "over" ? "No run is under way" : "The last run is being analysed"), ...(seen.report ? [report] : []));
    return;
  }
  if (pastOf !== seen.run) { pastOf = seen.run; past.tokens = []; past.streams = []; }
  past.tokens.push(seen.tasks.reduce((sum, each) => sum + each.tokens_per_s, 0));
  past.streams.push(seen.in_flight);
  for (const values of Object.values(past)) if (values.length > KEPT) values.shift();
  view.replaceChildren(...head(seen), ...tasks(seen), facts(seen), ...errors(seen), ...answer(seen),
    tag("h3", {}, "Load"), tag("div", { className: "lines" }, line("tokens/s of all streams", past.tokens), line("streams in flight", past.streams)));
  view.querySelector("pre")?.scrollTo(0, 1e6);
}

async function ask() {
  if (asking || view.hidden || document.hidden) return;
  asking = true;
  try {
    const reply = await fetch("./turnbench/live");
    if (reply.ok) draw(await reply.json());
  } catch {
    view.replaceChildren(tag("h2", {}, "turnbench does not answer any more"));
  } finally {
    asking = false;
  }
}

function follow() {
  const tabs = [...document.querySelectorAll('[role="tab"]')];
  const unwanted = tabs.filter((each) => HIDDEN_TABS.includes(each.textContent) && each.style.display !== "none");
  for (const each of unwanted) each.style.display = "none";
  if (unwanted.length) window.dispatchEvent(new Event("resize")); // the line below the chosen tab moves with it
  const own = tabs.find((each) => each.textContent === "Conversations");
  const chosen = own?.getAttribute("aria-selected") === "true";
  if (chosen && !view.isConnected) own.closest(".MuiContainer-root").append(view);
  if (view.hidden === chosen) { view.hidden = !chosen; view.style.color = getComputedStyle(document.body).color; ask(); }
}
new MutationObserver(follow).observe(root, { childList: true, subtree: true, attributes: true, attributeFilter: ["aria-selected", "class"] });
setInterval(() => { view.style.color = getComputedStyle(document.body).color; ask(); }, EVERY_MS);
follow();
