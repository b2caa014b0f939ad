// The charts, and the table of all rows, from the DATA of report.py. Everything else is in the page already.

const { tables } = DATA;

// --- the charts, one for each kind of loss, drawn again for another scale

function points(chart, scale) {
  const curves = chart.curves[scale] ?? chart.curves.linear;
  return curves.flatMap(({ run, kind, iteration, loss }) =>
    iteration.map((number, place) => ({ run, kind, iteration: number, loss: loss[place] })),
  );
}

async function draw(scale) {
  for (const [number, chart] of charts.entries()) {
    const wanted = scale ?? chart.first;
    const shown = wanted in chart.specs ? wanted : "linear";
    drawn[number]?.finalize();
    const spec = { ...chart.specs[shown], datasets: { [chart.name]: points(chart, shown) } };
    drawn[number] = await vegaEmbed(boxes[number], spec, options);
  }
  await fit();
  press(scale ?? charts[0].first);
}

if (charts.length) {
  await draw();
  find("#hint").hidden = false;
  find("#scales").hidden = charts.every(({ specs }) => Object.keys(specs).length < 2);
  // A wheel scrolls the page, which is long; with Ctrl, or a pinch, it zooms.
  const rolled = (event) => event.ctrlKey || event.metaKey || event.stopPropagation();
  find("#chart").addEventListener("wheel", rolled, { capture: true });
  find("#scales").addEventListener("click", ({ target }) => target.value && draw(target.value));
}

// --- the table

// A number as Python and history.csv write it: the shortest digits that read back as the same number.
function digits(number) {
  if (Number.isNaN(number)) return "nan";
  if (!Number.isFinite(number)) return number > 0 ? "inf" : "-inf";
  const [mantissa, exponent] = number.toExponential().split("e");
  if (number && (exponent < -4 || exponent >= 16)) {
    return `${mantissa}e${exponent[0]}${exponent.slice(1).padStart(2, "0")}`;
  }
  const text = Object.is(number, -0) ? "-0" : String(number);
  return text.includes(".") ? text : text + ".0";
}

// A column's numbers: base64 of deflated bytes, of which all first ones come first, then all second ones, and so on.
async function unpack({ size, data }) {
  const packed = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer());
  const bytes = new Uint8Array(planes.length);
  const count = planes.length / size;
  for (let plane = 0, from = 0; plane < size; plane++) {
    for (let place = 0; place < count; place++) bytes[place * size + plane] = planes[from++];
  }
  return size === 4 ? new Float32Array(bytes.buffer) : new Float64Array(bytes.buffer);
}

let shown = null;

async function tabulate(table) {
  const { unit, rows, columns } = (shown = table);
  const numbers = await Promise.all(columns.map(unpack));
  if (table !== shown) return; // another was chosen meanwhile
  const element = document.createElement("table");
  find("#box").replaceChildren(element);
  find("#none").hidden = rows > 0;
  if (!rows) return;
  const number = { type: "num", className: "number", searchable: true };
  show(element, "row", {
    data: Array.from({ length: rows }, (_, place) => place),
    columns: [
      { ...number, title: unit, data: (place) => place + 1 },
      ...columns.map(({ name }, column) => ({
        ...number,
        title: name.replace("val_", "validation "),
        data: (place, use) => {
          const value = numbers[column][place];
          if (use !== "sort") return digits(value);
          return Number.isNaN(value) ? Infinity : value;
        },
      })),
    ],
  });
}

// A link to a run opens it.
function unfold() {
  const part = document.getElementById(location.hash.slice(1));
  if (part instanceof HTMLDetailsElement) part.open = true;
}
addEventListener("hashchange", unfold);
unfold();

const which = find("#which");
if (which) {
  which.hidden = false;
  which.addEventListener("change", ({ target }) => tabulate(tables[target.value]));
}
await tabulate(tables[0]);

// --- print: closed sections are printed as well

let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const part of folded) part.open = true;
});
addEventListener("afterprint", () => {
  for (const part of folded) part.open = false;
});

document.documentElement.dataset.ready = "";
