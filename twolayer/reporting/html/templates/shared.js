// What report.js and sweep.js have in common; it stands before them.

const { charts } = DATA;
const find = (selector) => document.querySelector(selector);

const options = { renderer: "svg", actions: false, tooltip: { disableDefaultStyle: true } };
const boxes = charts.map(() => find("#chart").appendChild(document.createElement("div")));
const drawn = [];

// The legend has more lines where there is less room, and Vega sees that too late for the first drawing.
const fit = () => Promise.all(drawn.map(({ view }) => view.resize().runAsync()));
if (charts.length) addEventListener("resize", () => requestAnimationFrame(fit));

function press(scale) {
  for (const button of document.querySelectorAll("#scales button")) button.ariaPressed = String(button.value === scale);
}

// The table of rows or points in #box.
function show(element, word, content) {
  new DataTable(element, {
    ...content,
    order: [],
    autoWidth: false,
    deferRender: true,
    pageLength: 25,
    lengthMenu: [10, 25, 100, 500],
    language: {
      search: "Find",
      lengthMenu: `_MENU_ ${word}s per page`,
      info: `_START_ to _END_ of _TOTAL_ ${word}s`,
      infoFiltered: "(of _MAX_)",
      infoEmpty: `no ${word}s`,
      zeroRecords: `No ${word} matches.`,
    },
    layout: { topStart: "search", topEnd: "pageLength", bottomStart: "info", bottomEnd: { paging: { buttons: 5 } } },
  });
  const box = find("#box .dt-layout-table .dt-layout-cell"); // scrolls, also by keyboard, where it is too narrow
  Object.assign(box, { tabIndex: 0, role: "region", ariaLabel: `${word[0].toUpperCase()}${word.slice(1)}s` });
}

