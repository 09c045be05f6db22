// The start form: what to play, how to ask and whom, as choices in sight, each explained.
// Locust's own fields of these options stay what is sent; they are hidden and follow the choices.

const tag = (name, fields = {}, ...inside) => {
  const made = Object.assign(document.createElement(name), fields);
  made.append(...inside);
  return made;
};
let choices = null;

function field(label, control, note) {
  return tag("div", {}, tag("label", {}, label, control), note);
}

function option(name, text = name) {
  return tag("option", { value: name, textContent: text });
}

function explain(note, text, bad = false) {
  note.textContent = text;
  note.className = bad ? "bad" : "";
}

/** Hides Locust's field and returns what sets it. */
function takeOver(form, name) {
  const own = form.querySelector(`[name="${name}"]`);
  if (!own) return null;
  const around = own.closest(".MuiFormControl-root") || own;
  around.style.display = "none";
  return own;
}

function scenarioField(own) {
  const note = tag("small"), file = tag("input", { placeholder: "path of the file", hidden: true });
  file.setAttribute("aria-label", "path of the file");
  const select = tag("select", { id: "tb-scenario" });
  const mixes = tag("optgroup", { label: "mixes of tasks" }), tasks = tag("optgroup", { label: "single tasks" });
  for (const each of choices.scenarios) (each.tasks.length > 1 ? mixes : tasks).append(option(each.name));
  select.append(mixes, tasks, option("", "a file of my own ..."));
  const known = choices.scenarios.some((each) => each.name === own.value);
  select.value = known ? own.value : "";
  if (!known) file.value = own.value;
  const follow = () => {
    file.hidden = select.value !== "";
    own.value = select.value || file.value;
    const each = choices.scenarios.find((one) => one.name === select.value);
    if (!each) return explain(note, "A scenario (YAML) or your own data: ShareGPT, messages, CSV, Parquet, MMLU, a trace.");
    const size = each.size === null ? "endless" : `${each.size} conversations`;
    const tasks = each.tasks.length > 1 ? ` Tasks: ${each.tasks.join(", ")}.` : "";
    explain(note, `${each.what} (${size})${tasks}`);
  };
  select.onchange = file.oninput = follow;
  follow();
  return field("Scenario", select, tag("div", {}, file, note));
}

function dialectField(own) {
  const note = tag("small"), select = tag("select", { id: "tb-dialect" });
  select.append(...Object.keys(choices.dialects).map((name) => option(name)));
  select.value = own.value || "auto";
  select.onchange = () => {
    own.value = select.value;
    explain(note, choices.dialects[select.value]);
  };
  select.onchange();
  return field("Dialect", select, note);
}

function modelField(own, form) {
  const note = tag("small"), list = tag("datalist", { id: "tb-models" });
  const input = tag("input", { id: "tb-model", value: own.value, placeholder: "the server's first" });
  input.setAttribute("list", "tb-models");
  input.oninput = () => { own.value = input.value; };
  const host = form.querySelector('[name="host"]');
  let asked = 0;
  const ask = async () => {
    const mine = ++asked;
    explain(note, "asking the host for its models ...");
    let found;
    try {
      found = await (await fetch(`./turnbench/models?host=${encodeURIComponent(host ? host.value : "")}`)).json();
    } catch {
      found = { models: [], problem: "turnbench itself does not answer" };
    }
    if (mine !== asked) return;
    list.replaceChildren(...found.models.map((name) => option(name)));
    if (found.problem) explain(note, found.problem, true);
    else if (!found.models.length) explain(note, "The host lists no model: type its name.", true);
    else explain(note, `The host serves ${found.models.slice(0, 4).join(", ")}${found.models.length > 4 ? ", ..." : ""}. a=0.7,b=0.3: several, by share.`);
  };
  if (host) host.addEventListener("change", ask);
  ask();
  return field("Model", input, tag("div", {}, list, note));
}

async function improve(form) {
  if (form.dataset.turnbench) return;
  form.dataset.turnbench = "yes";
  try {
    choices ??= await (await fetch("./turnbench/choices")).json();
  } catch {
    return; // Locust's own fields are still there
  }
  const scenario = takeOver(form, "scenario"), dialect = takeOver(form, "dialect"), model = takeOver(form, "model");
  if (!scenario || !dialect || !model) return;
  const ours = tag("fieldset", { className: "tb-form" }, tag("legend", {}, "What is asked, and of whom"),
    scenarioField(scenario), modelField(model, form), dialectField(dialect));
  const host = form.querySelector('[name="host"]');
  const below = host ? host.closest(".MuiFormControl-root") : form.firstElementChild;
  below.after(ours);
}

const look = () => {
  for (const form of document.querySelectorAll("form")) if (form.querySelector('[name="scenario"]')) improve(form);
};
new MutationObserver(look).observe(document.getElementById("root"), { childList: true, subtree: true });
look();
