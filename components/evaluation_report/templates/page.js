// Puts the charts in, and makes the table of slices sortable and filterable. Text from the log only ever becomes text:
// through textContent, or as a value in a chart's data.
const data = JSON.parse(document.getElementById("page-data").textContent);
const options = { mode: "vega-lite", renderer: "svg", actions: false, ast: true }; // ast: the page forbids eval
const ROWS = 25; // of the table before "show all", and in the plots

const byId = (id) => document.getElementById(id);

function element(tag, text = "", className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

for (const place of document.querySelectorAll("[data-chart]")) {
  await vegaEmbed(place, data.charts[place.dataset.chart], options);
}
if (data.slices?.length) await showSlices(data);
document.documentElement.dataset.ready = "true";

async function showSlices({ slices, metrics, overall, has_baseline: hasBaseline }) {
  const state = { metric: metrics[0].name, columns: "", text: "", examples: 0, sort: "worst", descending: false, all: false };
  const views = {};
  const metric = () => metrics.find(({ name }) => name === state.metric);
  const figure = (slice, model) => slice[model]?.[state.metric] ?? null;

  const decimal = (value, sign = false) =>
    value === null ? "–" : (sign && value > 0 ? "+" : "") + value.toFixed(4).replace("-", "−");

  // How good a figure is at best, as far as its interval says: a small slice is not the worst by chance alone.
  function atBest(slice) {
    const better = metric().better;
    const compared = hasBaseline && better !== "one" && figure(slice, "difference");
    const { value, low, high } = compared || figure(slice, "candidate") || {};
    if (value === undefined || value === null || (low === null && high === null)) return Infinity;
    if (better === "one") return low <= 1 && high >= 1 ? 0 : -Math.min(...[low, high].map((end) => Math.abs(end - 1)));
    return better === "lower" ? -low : high;
  }

  // What tells slices apart that are otherwise alike, as where no interval can be told: the figure itself.
  function goodness(slice) {
    const value = figure(slice, "candidate")?.value ?? null;
    if (value === null) return Infinity;
    return { one: -Math.abs(value - 1), lower: -value, higher: value }[metric().better];
  }

  const keys = {
    worst: atBest,
    label: (slice) => slice.label,
    examples: (slice) => slice.num_examples,
    candidate: (slice) => figure(slice, "candidate")?.value ?? null,
    baseline: (slice) => figure(slice, "baseline")?.value ?? null,
    difference: (slice) => figure(slice, "difference")?.value ?? null,
  };

  function visible() {
    const text = state.text.toLowerCase();
    const key = keys[state.sort];
    const sign = state.descending ? -1 : 1;
    return slices
      .filter((slice) => slice.num_examples >= state.examples)
      .filter((slice) => !state.columns || slice.columns === state.columns)
      .filter((slice) => slice.label.toLowerCase().includes(text))
      .map((slice) => [key(slice), slice])
      .sort(
        ([a, one], [b, other]) =>
          (a === null) - (b === null) || // without a figure: last
          sign * (a < b ? -1 : a > b ? 1 : 0) ||
          goodness(one) - goodness(other) ||
          0, // Infinity less itself is NaN
      )
      .map(([, slice]) => slice);
  }

  function cell(value, sign) {
    const made = element("td", decimal(value?.value ?? null, sign));
    if (value && value.low !== null) made.append(element("small", `${decimal(value.low)} to ${decimal(value.high)}`, "interval"));
    return made;
  }

  function verdictOn(difference) {
    const better = metric().better;
    if (!difference || difference.low === null || !["higher", "lower"].includes(better)) return "";
    if (difference.low > 0) return better === "higher" ? "better" : "worse";
    if (difference.high < 0) return better === "higher" ? "worse" : "better";
    return "unclear";
  }

  function tableRow(slice) {
    const row = document.createElement("tr");
    const name = element("th", slice.label);
    name.scope = "row";
    row.append(name, element("td", slice.num_examples.toLocaleString("en")), cell(figure(slice, "candidate")));
    if (hasBaseline) {
      const difference = cell(figure(slice, "difference"), true);
      difference.classList.add(verdictOn(figure(slice, "difference")) || "unclear");
      row.append(cell(figure(slice, "baseline")), difference);
    }
    return row;
  }

  function header() {
    const columns = { label: "Slice", examples: "Examples", candidate: metric().label };
    if (hasBaseline) Object.assign(columns, { baseline: "Baseline", difference: "Difference" });
    const row = document.createElement("tr");
    for (const [key, title] of Object.entries(columns)) {
      const head = document.createElement("th");
      const button = element("button", title);
      button.type = "button";
      button.dataset.sort = key;
      if (state.sort === key) head.ariaSort = state.descending ? "descending" : "ascending";
      button.onclick = () => {
        state.descending = state.sort === key ? !state.descending : key !== "label";
        state.sort = key;
        update();
        byId("slice-table").querySelector(`[data-sort=${key}]`).focus();
      };
      head.append(button);
      row.append(head);
    }
    return row;
  }

  // The rows of a plot: the figures of the slices, and of all impressions beside them.
  function plotRows(shown, models) {
    return shown.flatMap((slice) =>
      models.flatMap((model) => {
        const of = figure(slice, model);
        if (!of || of.value === null) return [];
        const { value, low, high } = of;
        const all = overall[model][state.metric].value;
        const lines = slice.lines.join("\n");
        return [{ label: slice.label, lines, model, examples: slice.num_examples, value, low: low ?? value, high: high ?? value, overall: all }];
      }),
    );
  }

  async function plot(place, spec, rows) {
    views[place]?.finalize();
    const { view } = await vegaEmbed(byId(place), { ...spec, data: { values: rows } }, options);
    views[place] = view;
  }

  async function update() {
    const rows = visible();
    const shown = state.all ? rows : rows.slice(0, ROWS);
    byId("slice-table").tHead.replaceChildren(header());
    byId("slice-table").tBodies[0].replaceChildren(...shown.map(tableRow));
    byId("slice-count").textContent = `${shown.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} slices shown`;
    byId("slice-more").hidden = shown.length === rows.length;
    byId("slice-title").textContent = `${metric().label} by slice`;
    byId("size-title").textContent = `${metric().label} by number of examples`;
    const first = rows.slice(0, ROWS);
    const more = Math.max(1, ...first.map(({ lines }) => lines.length)) - 1; // lines of a label
    const height = (data.row_height + data.line_height * more) * first.length + data.axes_height;
    const models = hasBaseline ? ["candidate", "baseline"] : ["candidate"];
    const order = state.sort === "worst" ? ", the worst first by the better end of the interval" : ", as the table is sorted";
    byId("slice-caption").textContent = `The first ${first.length} slices${order}, with 95% intervals.`;
    await plot("slice-chart", { ...data.slice_chart, height }, plotRows(first, models));
    if (hasBaseline) {
      byId("difference-title").textContent = `Difference of the ${metric().label} to the baseline`;
      await plot("difference-chart", { ...data.difference_chart, height }, plotRows(first, ["difference"]));
    }
    await plot("size-chart", data.size_chart, plotRows(rows, ["candidate"]));
  }

  for (const { name, label } of metrics) byId("slice-metric").append(new Option(label, name));
  byId("slice-columns").append(new Option("all", ""));
  for (const columns of new Set(slices.map((slice) => slice.columns))) byId("slice-columns").append(new Option(columns, columns));
  const follow = (id, key, read = (value) => value) =>
    byId(id).addEventListener("input", ({ target }) => {
      state[key] = read(target.value);
      state.all = false;
      update();
    });
  follow("slice-metric", "metric");
  follow("slice-columns", "columns");
  follow("slice-text", "text");
  follow("slice-examples", "examples", Number);
  byId("slice-worst").onclick = () => {
    Object.assign(state, { sort: "worst", descending: false });
    update();
  };
  byId("slice-more").onclick = () => {
    state.all = true;
    update();
  };
  document.querySelector(".controls").onsubmit = (event) => event.preventDefault();
  await update();
}
