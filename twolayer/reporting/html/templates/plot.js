// The chart of DATA, a Vega-Lite spec.

const options = { renderer: "svg", actions: false, tooltip: { disableDefaultStyle: true } };
const { view } = await vegaEmbed("#chart", DATA, options);
// The legend has more lines where there is less room, and Vega sees that too late for the first drawing.
const fit = () => view.resize().runAsync();
await fit();
addEventListener("resize", () => requestAnimationFrame(fit));
document.querySelector("#hint").hidden = false;
document.documentElement.dataset.ready = "";
