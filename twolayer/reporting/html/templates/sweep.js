// The charts of a sweep, and the table of its points, from the DATA of sweep_report.py.

const { points } = DATA;

async function draw(scale) {
  for (const [number, specs] of charts.entries()) {
    if (drawn[number] && Object.keys(specs).length < 2) continue;
    drawn[number]?.finalize();
    drawn[number] = await vegaEmbed(boxes[number], structuredClone(specs[scale] ?? specs.linear ?? specs.log), options);
  }
  await fit();
  press(scale);
}

if (charts.length) {
  await draw("linear");
  find("#scales").hidden = Object.keys(charts[0]).length < 2;
  find("#scales").addEventListener("click", ({ target }) => target.value && draw(target.value));
}

if (points.columns[0].length) {
  const element = document.createElement("table");
  find("#box").replaceChildren(element);
  const text = document.createElement("i"); // user's text is shown as text, never as HTML
  const shown = (value) => {
    text.textContent = value ?? "";
    return text.innerHTML;
  };
  show(element, "point", {
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
  });
}

document.documentElement.dataset.ready = "";
