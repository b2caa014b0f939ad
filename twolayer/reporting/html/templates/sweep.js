// The charts of a sweep, and the table of its points, from the DATA of sweep_report.py.

const { charts, points } = DATA;
const find = (selector) => document.querySelector(selector);

const options = { renderer: "svg", actions: false, tooltip: { disableDefaultStyle: true } };
const boxes = charts.map(() => find("#chart").appendChild(document.createElement("div")));
const drawn = [];

// The legend has more lines where there is less room, and Vega sees that too late for the first drawing.
const fit = () => Promise.all(drawn.map(({ view }) => view.resize().runAsync()));

async function draw(scale) {
  for (const [number, specs] of charts.entries()) {
    if (drawn[number] && Object.keys(specs).length < 2) continue;
    drawn[number]?.finalize();
    drawn[number] = await vegaEmbed(boxes[number], structuredClone(specs[scale] ?? specs.linear ?? specs.log), options);
  }
  await fit();
  for (const button of document.querySelectorAll("#scales button")) button.ariaPressed = String(button.value === scale);
}

if (charts.length) {
  await draw("linear");
  find("#scales").hidden = Object.keys(charts[0]).length < 2;
  find("#scales").addEventListener("click", ({ target }) => target.value && draw(target.value));
  addEventListener("resize", () => requestAnimationFrame(fit));
}

const wording = {
  search: "Find",
  lengthMenu: "_MENU_ points per page",
  info: "_START_ to _END_ of _TOTAL_ points",
  infoFiltered: "(of _MAX_)",
  infoEmpty: "no points",
  zeroRecords: "No point matches.",
};

if (points.columns[0].length) {
  const element = document.createElement("table");
  find("#box").replaceChildren(element);
  const text = document.createElement("i"); // user's text is shown as text, never as HTML
  const shown = (value) => {
    text.textContent = value ?? "";
    return text.innerHTML;
  };
  new DataTable(element, {
    data: points.columns[0].map((_, place) => place),
    columns: points.names.map((name, column) => {
      const isNumber = points.columns[column].every((value) => value === null || typeof value === "number");
      return {
        title: shown(name),
        type: isNumber ? "num" : "string",
        className: isNumber ? "number" : "",
        data: (place, use) => {
          const value = points.columns[column][place];
          return use === "sort" ? (value ?? (isNumber ? Infinity : "")) : shown(value);
        },
      };
    }),
    order: [],
    autoWidth: false,
    deferRender: true,
    pageLength: 25,
    lengthMenu: [10, 25, 100, 500],
    language: wording,
    layout: { topStart: "search", topEnd: "pageLength", bottomStart: "info", bottomEnd: { paging: { buttons: 5 } } },
  });
  const box = find("#box .dt-layout-table .dt-layout-cell"); // scrolls, also by keyboard, where it is too narrow
  Object.assign(box, { tabIndex: 0, role: "region", ariaLabel: "Points" });
}

document.documentElement.dataset.ready = "";
