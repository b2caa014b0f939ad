// The charts of DATA, Vega-Lite specs, one below the other.

const options = { renderer: "svg", actions: false, tooltip: { disableDefaultStyle: true } };
const views = [];
for (const spec of DATA) {
  const box = document.querySelector("#chart").appendChild(document.createElement("div"));
  views.push((await vegaEmbed(box, spec, options)).view);
}
// The legend has more lines where there is less room, and Vega sees that too late for the first drawing.
const fit = () => Promise.all(views.map((view) => view.resize().runAsync()));
await fit();
addEventListener("resize", () => requestAnimationFrame(fit));
document.querySelector("#hint").hidden = false;
document.documentElement.dataset.ready = "";
