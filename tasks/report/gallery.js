// The gallery: every candidate of a run beside its nearest real image, to be looked at and marked.
// Only the cells in sight exist in the page; filters work on columns of numbers. Nothing is sent anywhere: marks lie
// in this browser's storage until they are exported.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const columns = data.candidates;
const size = columns.key.length;
const byId = (id) => document.getElementById(id);
const grid = byId("grid"), sizer = byId("sizer"), large = byId("large");
const shape = `${data.sheets.candidates.width} / ${data.sheets.candidates.height}`;
const storage = `minority-gallery ${data.dataset}/${data.run_id} ${data.digest}`;

const state = { shown: [], active: 0, across: 1, cell: 1, row: 1, marks: new Map(), person: "" };

// --- Marks ----------------------------------------------------------------------------------------------------------

function readMarks() {
  try {
    const kept = JSON.parse(localStorage.getItem(storage) ?? "{}");
    state.marks = new Map(Object.entries(kept.decisions ?? {}));
    state.person = kept.decided_by ?? "";
  } catch {
    say("This browser keeps no marks: export them before you close the page.");
  }
  byId("person").value = state.person;
}

function keepMarks() {
  const kept = { decided_by: state.person, decisions: Object.fromEntries(state.marks) };
  try {
    localStorage.setItem(storage, JSON.stringify(kept));
  } catch {
    say("This browser keeps no marks: export them before you close the page.");
  }
}

function mark(candidate, decision) {
  const key = columns.key[candidate];
  if (decision === null) state.marks.delete(key);
  else state.marks.set(key, { ...state.marks.get(key), decision });
  keepMarks();
  draw();
  showLarge();
  count();
}

function decisionsFile() {
  const content = { format: data.format, dataset: data.dataset, run_id: data.run_id, decided_by: state.person };
  return JSON.stringify({ ...content, decisions: Object.fromEntries(state.marks) }, null, 1);
}

function exportMarks() {
  if (!state.person) {
    say("Tell who decides before you export.");
    byId("person").focus();
    return;
  }
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([decisionsFile()], { type: "application/json" }));
  link.download = `decisions-${data.run_id}.json`;
  link.click();
  URL.revokeObjectURL(link.href);
  say(`${state.marks.size} marks exported to ${link.download}.`);
}

async function loadMarks(file) {
  try {
    const content = JSON.parse(await file.text());
    if (content.format !== data.format || content.run_id !== data.run_id) throw new Error("it is of another run");
    for (const [key, entry] of Object.entries(content.decisions)) state.marks.set(key, entry);
    keepMarks();
    refresh();
    say(`Marks of ${file.name} loaded; there are ${state.marks.size} now.`);
  } catch (error) {
    say(`${file.name} cannot be loaded: ${error.message}.`);
  }
}

// --- Filter and order -----------------------------------------------------------------------------------------------

function filtered() {
  const group = Number(byId("group").value), reason = Number(byId("reason").value);
  const verdict = byId("verdict").value, marked = byId("marked").value, text = byId("key").value.trim();
  const score = data.scores[byId("score").value]?.values;
  const [low, high] = ["low", "high"].map((id) => (byId(id).value === "" ? null : Number(byId(id).value)));
  const chosen = [];
  for (let i = 0; i < size; i++) {
    if (group >= 0 && columns.group[i] !== group) continue;
    if (verdict !== "" && columns.kept[i] !== Number(verdict)) continue;
    if (reason >= 0 && columns.reason[i] !== reason) continue;
    if (marked !== "" && (state.marks.get(columns.key[i])?.decision ?? "none") !== marked) continue;
    if (text !== "" && !columns.key[i].includes(text)) continue;
    if (low !== null && !(score && score[i] !== null && score[i] >= low)) continue;
    if (high !== null && !(score && score[i] !== null && score[i] <= high)) continue;
    chosen.push(i);
  }
  return ordered(chosen, score);
}

function ordered(chosen, score) {
  const order = byId("order").value;
  const last = Number.POSITIVE_INFINITY; // candidates without a value come last either way
  const by = {
    rising: (i) => score?.[i] ?? last,
    falling: (i) => (score?.[i] == null ? last : -score[i]),
    group: (i) => columns.group[i],
    reason: (i) => columns.reason[i],
    verdict: (i) => -columns.kept[i],
  }[order];
  if (!by) return chosen;
  const value = Float64Array.from(chosen, by);
  const places = Uint32Array.from(chosen, (_, place) => place);
  places.sort((a, b) => (value[a] === value[b] ? a - b : value[a] < value[b] ? -1 : 1));
  return Array.from(places, (place) => chosen[place]);
}

function refresh() {
  const before = state.shown[state.active];
  state.shown = filtered();
  state.active = Math.max(0, state.shown.indexOf(before));
  grid.scrollTop = 0;
  measure();
  keepInSight();
  draw();
  count();
}

function count() {
  const marks = [...state.marks.values()], good = marks.filter((each) => each.decision === "good").length;
  byId("count").textContent =
    `${state.shown.length.toLocaleString("en")} of ${size.toLocaleString("en")} candidates; ` +
    `${good} marked good, ${marks.length - good} bad`;
}

function say(text) {
  byId("said").textContent = text;
}

// --- The grid: only what is in sight --------------------------------------------------------------------------------

function measure() {
  const width = sizer.clientWidth, sheet = data.sheets.candidates;
  state.across = Math.max(2, Math.floor(width / (width < 600 ? 116 : 156)));
  state.cell = Math.floor(width / state.across);
  state.row = Math.round(((state.cell - 14) / 2) * (sheet.height / sheet.width)) + 34;
  sizer.style.height = `${Math.ceil(state.shown.length / state.across) * state.row}px`;
}

function picture(element, sheet, slot) {
  element.hidden = slot < 0;
  if (slot < 0) return;
  const a_sheet = sheet.columns * sheet.rows, place = slot % a_sheet;
  const part = (at, of) => (of === 1 ? 0 : (100 * at) / (of - 1));
  element.style.backgroundImage = `url("${sheet.files[Math.floor(slot / a_sheet)]}")`;
  element.style.backgroundSize = `${100 * sheet.columns}% ${100 * sheet.rows}%`;
  const across = part(place % sheet.columns, sheet.columns);
  element.style.backgroundPosition = `${across}% ${part(Math.floor(place / sheet.columns), sheet.rows)}%`;
}

function newCell() {
  const cell = document.createElement("div");
  cell.className = "cell";
  cell.setAttribute("role", "option");
  for (const name of ["picture", "picture", "caption"]) {
    const part = cell.appendChild(document.createElement("span"));
    part.className = name;
    if (name === "picture") part.style.aspectRatio = shape;
  }
  return cell;
}

function draw() {
  const first = Math.max(0, Math.floor(grid.scrollTop / state.row) - 1) * state.across;
  const rows = Math.ceil(grid.clientHeight / state.row) + 3;
  const wanted = Math.max(0, Math.min(rows * state.across, state.shown.length - first));
  while (sizer.children.length < wanted) sizer.append(newCell());
  while (sizer.children.length > wanted) sizer.lastChild.remove();
  for (let i = 0; i < wanted; i++) fill(sizer.children[i], first + i);
  if (state.shown.length) grid.setAttribute("aria-activedescendant", `cell-${state.active}`);
  else grid.removeAttribute("aria-activedescendant");
}

function fill(cell, place) {
  const candidate = state.shown[place], [image, nearest, caption] = cell.children;
  const decision = state.marks.get(columns.key[candidate])?.decision ?? "";
  cell.id = `cell-${place}`;
  cell.dataset.place = place;
  cell.className = `cell ${columns.kept[candidate] ? "kept" : "rejected"} ${decision}`;
  cell.style.width = `${state.cell}px`;
  cell.style.height = `${state.row}px`;
  cell.style.transform = `translate(${(place % state.across) * state.cell}px, ${Math.floor(place / state.across) * state.row}px)`;
  cell.setAttribute("aria-selected", String(place === state.active));
  cell.setAttribute("aria-setsize", state.shown.length);
  cell.setAttribute("aria-posinset", place + 1);
  cell.setAttribute("aria-label", inWords(candidate));
  picture(image, data.sheets.candidates, candidate);
  picture(nearest, data.sheets.real, columns.nearest[candidate]);
  const value = data.scores[byId("score").value]?.values[candidate];
  const sign = { good: "\u2713 ", bad: "\u2717 ", "": "" }[decision];
  caption.textContent = `${sign}${data.groups[columns.group[candidate]]} ${value ?? ""}`;
}

function inWords(candidate) {
  const decision = state.marks.get(columns.key[candidate])?.decision;
  const fate = columns.kept[candidate] ? "kept" : `rejected, ${data.reasons[columns.reason[candidate]]}`;
  return `${columns.key[candidate]}, ${data.groups[columns.group[candidate]]}, ${fate}${decision ? `, marked ${decision}` : ""}`;
}

function keepInSight() {
  const top = Math.floor(state.active / state.across) * state.row;
  if (top < grid.scrollTop) grid.scrollTop = top;
  else if (top + state.row > grid.scrollTop + grid.clientHeight) grid.scrollTop = top + state.row - grid.clientHeight;
}

function go(place) {
  if (!state.shown.length) return;
  state.active = Math.min(state.shown.length - 1, Math.max(0, place));
  keepInSight();
  draw();
  showLarge();
}

// --- One candidate, large -------------------------------------------------------------------------------------------

function open() {
  if (!state.shown.length || large.open) return;
  large.showModal();
  showLarge();
}

function showLarge() {
  if (!large.open) return;
  const candidate = state.shown[state.active], entry = state.marks.get(columns.key[candidate]);
  picture(byId("image"), data.sheets.candidates, candidate);
  picture(byId("nearest"), data.sheets.real, columns.nearest[candidate]);
  byId("nearest-name").textContent = columns.nearest_id[candidate] ?? "none known";
  byId("title").textContent = `${columns.key[candidate]} (${state.active + 1} of ${state.shown.length})`;
  const facts = [
    ["Group", data.groups[columns.group[candidate]]],
    ["Verdict", columns.kept[candidate] ? "kept" : `rejected: ${data.reasons[columns.reason[candidate]]}`],
    ["Mark", entry?.decision ?? "none"],
    ...Object.values(data.scores).map((score) => [score.title, score.values[candidate] ?? "none"]),
  ];
  byId("facts").replaceChildren(
    ...facts.flatMap(([name, value]) => [["dt", name], ["dd", value]]).map(([tag, text]) => {
      const element = document.createElement(tag);
      element.textContent = text;
      return element;
    }),
  );
  for (const word of ["good", "bad"]) byId(word).setAttribute("aria-pressed", String(entry?.decision === word));
  byId("why").value = entry?.reason ?? "";
  byId("why").disabled = !entry;
}

// --- What the reader does -------------------------------------------------------------------------------------------

function onKey(event) {
  if (event.target.matches("input, select, summary") || event.ctrlKey || event.metaKey || event.altKey) return;
  const inLarge = large.open, row = state.across;
  const page = Math.max(1, Math.floor(grid.clientHeight / state.row)) * row;
  const rows = { ArrowUp: -row, ArrowDown: row, PageUp: -page, PageDown: page }; // large, they scroll the facts
  const moves = { ArrowLeft: -1, ArrowRight: 1, ...(inLarge ? {} : rows) };
  const marks = { g: "good", b: "bad", u: null };
  if (event.target !== grid && !inLarge) return;
  if (event.key in moves) go(state.active + moves[event.key]);
  else if (event.key === "Home") go(0);
  else if (event.key === "End") go(state.shown.length - 1);
  else if (event.key in marks && state.shown.length) mark(state.shown[state.active], marks[event.key]);
  else if ((event.key === "Enter" || event.key === " ") && !inLarge) open();
  else return;
  event.preventDefault();
}

function fillIn(select, entries) {
  for (const [value, text] of entries) {
    const option = select.appendChild(document.createElement("option"));
    option.value = value;
    option.textContent = text;
  }
}

fillIn(byId("group"), data.groups.map((name, i) => [i, name]));
fillIn(byId("reason"), data.reasons.map((name, i) => [i, name]));
fillIn(byId("score"), Object.entries(data.scores).map(([name, score]) => [name, score.title]));
readMarks();
for (const id of ["image", "nearest"]) byId(id).style.aspectRatio = shape;
byId("filters").open = innerWidth >= 600 && innerHeight >= 600;

for (const id of ["group", "verdict", "reason", "marked", "score", "order"]) byId(id).addEventListener("change", refresh);
for (const id of ["low", "high", "key"]) byId(id).addEventListener("input", refresh);
byId("person").addEventListener("input", (event) => ((state.person = event.target.value.trim()), keepMarks()));
byId("export").addEventListener("click", exportMarks);
byId("load").addEventListener("change", (event) => event.target.files[0] && loadMarks(event.target.files[0]));
byId("why").addEventListener("input", (event) => {
  const key = columns.key[state.shown[state.active]];
  state.marks.set(key, { ...state.marks.get(key), reason: event.target.value });
  keepMarks();
});
for (const [id, word] of [["good", "good"], ["bad", "bad"], ["clear", null]])
  byId(id).addEventListener("click", () => mark(state.shown[state.active], word));
byId("previous").addEventListener("click", () => go(state.active - 1));
byId("next").addEventListener("click", () => go(state.active + 1));
byId("close").addEventListener("click", () => large.close());
large.addEventListener("close", () => grid.focus());
grid.addEventListener("scroll", () => requestAnimationFrame(draw));
grid.addEventListener("click", (event) => {
  const cell = event.target.closest(".cell");
  if (cell) go(Number(cell.dataset.place)), open();
});
document.addEventListener("keydown", onKey);
addEventListener("resize", () => (measure(), keepInSight(), draw()));
addEventListener("storage", (event) => event.key === storage && (readMarks(), refresh())); // marked in another tab
refresh();
